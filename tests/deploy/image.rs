//! The image's recipe and its bill of materials. `make image` builds it; that takes minutes and is no test.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::judge::{deploy, root};

#[test]
fn the_image_is_two_files_on_nothing() {
    let text = fs::read_to_string(deploy("image/Dockerfile")).expect("it is there");
    let steps: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(
        steps,
        [
            "FROM scratch",
            "COPY root /",
            "USER 0:0",
            "ENTRYPOINT [\"/nodewick\"]",
            "CMD [\"run\"]",
            "EXPOSE 9464"
        ]
    );
}

fn bill() -> Value {
    let output = Command::new(deploy("image/sbom.py")).current_dir(root()).output().expect("python3 runs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_bill_of_materials_names_what_is_compiled_in() {
    let bill = bill();
    assert_eq!((bill["bomFormat"].as_str(), bill["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let itself = &bill["metadata"]["component"];
    assert_eq!(itself["purl"], concat!("pkg:cargo/nodewick@", env!("CARGO_PKG_VERSION")));
    let components = bill["components"].as_array().expect("a list");
    let named: BTreeMap<&str, &Value> =
        components.iter().map(|component| (component["name"].as_str().expect("a name"), component)).collect();
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("it is there");
    for (name, scope) in [
        ("tokio", "required"),
        ("rustls", "required"),
        ("mimalloc", "required"),
        ("libmimalloc-sys", "required"),
        ("serde_derive", "excluded"),
        ("cc", "excluded"),
    ] {
        let component = named.get(name).unwrap_or_else(|| panic!("{name} is not listed"));
        assert_eq!(component["scope"], scope, "{name}");
        let version = component["version"].as_str().expect("a version");
        assert_eq!(component["purl"], format!("pkg:cargo/{name}@{version}"));
        let hash = component["hashes"][0]["content"].as_str().expect("a hash");
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"")) && lock.contains(hash));
        assert!(component["licenses"][0]["expression"].as_str().is_some_and(|text| !text.contains('/')));
    }
    for name in ["insta", "proptest", "tempfile", "windows-sys"] {
        assert!(!named.contains_key(name), "{name} is not in the image");
    }
    for component in components {
        // Cargo.lock pins no hash of the crates of this repository.
        let is_ours = component["name"].as_str().is_some_and(|name| name.starts_with("nodewick-"));
        assert!(is_ours || component["hashes"][0]["content"].is_string(), "no hash: {component}");
        assert!(component["licenses"][0]["expression"].is_string(), "no licence: {component}");
    }
    assert_eq!(bill, self::bill(), "the same sources give the same bill");
}

#[test]
fn the_recipe_holds_the_size_and_the_name_that_is_deployed() {
    let recipe = fs::read_to_string(deploy("image/build")).expect("it is there");
    assert!(recipe.contains("\nmost=25000000\n") && recipe.contains("\nname=ghcr.io/nodewick/nodewick\n"));
    let makefile = fs::read_to_string(root().join("Makefile")).expect("it is there");
    assert!(makefile.contains("\nimage: ## ") && makefile.contains("\t@deploy/image/build\n"));
}

/// Where `make image` has been run before: the image as the DaemonSet runs it.
#[test]
fn a_built_image_runs_without_capabilities_on_a_read_only_root() {
    let version = env!("CARGO_PKG_VERSION");
    let archive = ["amd64", "arm64"]
        .map(|arch| root().join(format!("target/image/nodewick-{version}-{arch}.tar")))
        .into_iter()
        .find(|archive| archive.exists());
    let Some(archive) = archive else {
        eprintln!("skipped: no image in target/image; `make image` builds it");
        return;
    };
    let run = |verb: &str| {
        let output =
            Command::new(deploy("image/try")).arg(&archive).arg(verb).output().expect("bash runs it");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(77) => None,
            Some(0) => Some(text),
            _ => panic!("{verb}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr)),
        }
    };
    let Some(said) = run("version") else {
        eprintln!("skipped: neither runc nor crun, or not root");
        return;
    };
    assert!(said.starts_with(&format!("nodewick {version}")), "{said}");
    let check = run("check").expect("it ran before");
    assert!(check.contains("http://loki-gateway.loki.svc"), "{check}");
    assert!(check.contains("# the container's limit is 128 MiB"), "{check}");
}
