//! Every bad config of the corpus against the exact text that an operator sees. `NODEWICK_RENDER=1` writes the texts;
//! read the difference before you commit it.

use std::path::Path;

use nodewick::config::{Sources, load};

fn message(name: &str, text: &str) -> String {
    let sources = Sources {
        file: Some((name.to_owned(), text.to_owned())),
        env: vec![("SET".to_owned(), "set".to_owned())],
        ..Sources::default()
    };
    match load(&sources) {
        Ok(_) => panic!("{name} is meant to be refused"),
        Err(error) => format!("{error}\n"),
    }
}

#[test]
fn every_bad_config_is_explained_as_committed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/config");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 15, "the corpus has {} files", files.len());
    let mut wrong = String::new();
    for file in files {
        let name = file.file_name().expect("named").to_string_lossy().into_owned();
        let got = message(&name, &std::fs::read_to_string(&file).expect("readable"));
        let expected = file.with_extension("txt");
        if std::env::var_os("NODEWICK_RENDER").is_some() {
            std::fs::write(&expected, &got).expect("written");
        }
        let want = std::fs::read_to_string(&expected).unwrap_or_default();
        if got != want {
            wrong.push_str(&format!("--- {name}: expected\n{want}--- got\n{got}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_misspelt_key_is_shown_with_line_caret_and_nearest_key() {
    assert_eq!(
        message("agent.toml", "[agent]\nclustr = \"prod\"\n"),
        "agent.toml:2:1: error: agent.clustr: unknown key\n  |\n2 | clustr = \"prod\"\n  | ^^^^^^\n  = did you mean `cluster`?\n"
    );
}

#[test]
fn a_secret_value_never_reaches_the_text() {
    for text in [
        "[sink.loki.main]\npassword = hunter2",
        "[sink.loki.main]\nurl = \"http://l\"\npasword = \"hunter2\"",
        "[sink.loki.main]\ntokn = hunter2",
        "[sink.loki.main]\nauth = { pasword = 1, token = \"hunter2\" }",
        "[sink.loki.main]\ntoken = \"hunter2\nurl = 1",
    ] {
        let got = message("a.toml", text);
        assert!(!got.contains("hunter2"), "{got}");
    }
}

#[test]
fn terminal_escapes_never_reach_the_text() {
    let got = message("a.toml", "[agent]\n\"cl\\u001b[31mster\" = \"x\u{9b}\"\n");
    assert!(!got.chars().any(|c| c.is_control() && c != '\n'), "{got:?}");
}

#[test]
fn no_text_makes_the_loader_panic() {
    let seeds = [
        "[agent]\ncluster = \"é\u{1F600}\"\nnode = \"${env:X",
        "[[sink]]\n[sink.loki]\nmain = 5",
        "a.b.c = [[[{}]]]",
        "[sink]\nloki = []",
        "sink = 1",
        "agent = [1, 2]",
        "\u{feff}[agent]",
        "[record]\nfields = [[1]]",
        "\"\" = 1",
    ];
    for seed in seeds {
        for cut in 0..=seed.len() {
            if let Some(text) = seed.get(..cut) {
                let file = Some(("a.toml".to_owned(), text.to_owned()));
                if let Err(error) = load(&Sources { file, ..Sources::default() }) {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    let deep = format!("a = {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(load(&Sources { file: Some(("a.toml".to_owned(), deep)), ..Sources::default() }).is_err());
}
