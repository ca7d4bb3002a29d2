//! `nodewick run --logs --scrape --slo` on a real Node service: pino into a file, prom-client at `/metrics`.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

mod support;

use support::agent::free_address;
use support::measured::get;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process that is killed by its id when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `of` gives something.
fn wait_for<T>(what: &str, mut of: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = of() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Express, pino-http and prom-client, with its log in a file; where it listens.
fn service(log: &Path) -> (Process, SocketAddr) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/node/metrics/prom_client.js");
    let child = Command::new("node")
        .arg(script)
        .stdin(Stdio::null())
        .stdout(File::create(log).expect("a log"))
        .stderr(Stdio::null())
        .spawn()
        .expect("node; `make test` installs it");
    let process = Process(child);
    let port = wait_for("the service listens", || {
        let text = fs::read_to_string(log).ok()?;
        let first: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
        first["port"].as_u64()
    });
    (process, SocketAddr::from(([127, 0, 0, 1], port as u16)))
}

fn nodewick(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodewick"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().into_owned();
        if ["NODEWICK_", "OTEL_", "POD_", "KUBERNETES_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for a line with `part` on stderr.
fn said(lines: &Receiver<String>, part: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if line.contains(part) {
            return line;
        }
        all.push(line);
    }
    panic!("no line with {part:?} in {all:#?}");
}

#[test]
fn ones_own_service_is_followed_scraped_and_held_to_an_objective() {
    let dir = tempfile::tempdir().expect("temp dir");
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).expect("a directory");
    let (_service, address) = service(&logs.join("server.log"));
    let admin = free_address();
    let state = dir.path().join("state");
    let child = nodewick(dir.path())
        .args(["run", "--logs", "logs", "--service", "shop", "--scrape", &address.to_string()])
        .args(["--slo", "availability=99.9%", "--set", "ui.listen=127.0.0.1:0"])
        .args([
            "--set",
            &format!("admin.listen={admin}"),
            "--set",
            "red.interval=1s",
            "--set",
            "agent.node=here",
        ])
        .args(["--set", &format!("agent.state_dir={}", state.display())])
        .spawn()
        .expect("the program");
    let mut agent = Process(child);
    let (sender, lines) = mpsc::channel();
    let stderr = BufReader::new(agent.0.stderr.take().expect("a pipe"));
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    said(&lines, "following ");
    said(&lines, "the page: http://127.0.0.1:");
    let hint = said(&lines, "nodewick tail --dir ");
    let store = hint.rsplit_once(' ').expect("a directory").1.to_owned();
    assert!(said(&lines, "found ").ends_with("/logs/server.log"));
    assert!(said(&lines, "scraping ").contains(&format!("http://{address}/metrics: up, ")));

    // Its metrics are taken for its requests once they have one: what came before is counted from its lines.
    assert_eq!(get(address, "/orders/1", &[]).0, 200);
    let page = || String::from_utf8(get(admin, "/metrics/workloads", &[]).2).unwrap_or_default();
    wait_for("the metrics are understood", || page().contains("source=\"scrape\"").then_some(()));
    for id in 0..20 {
        assert_eq!(get(address, &format!("/orders/{id}"), &[]).0, 200);
    }
    for id in 0..5 {
        assert_eq!(get(address, &format!("/fail/{id}"), &[]).0, 500);
    }
    // By the routes that the service itself names.
    let figure = |route: &str, class: &str| {
        let of = format!(
            "red_requests_total{{code_class=\"{class}\",method=\"GET\",namespace=\"local\",node=\"here\",pod=\"{address}\",\
             route=\"{route}\",service=\"shop\",workload=\"shop\"}} "
        );
        page().lines().find_map(|line| line.strip_prefix(&of)?.split(' ').next()?.parse::<f64>().ok())
    };
    wait_for("5 bad requests", || figure("/fail/:id", "5xx").filter(|value| *value == 5.0));
    let good = figure("/orders/:id", "2xx").unwrap_or_default();
    assert!((20.0..=21.0).contains(&good), "{good}");
    let objective = wait_for("the objective sees them", || {
        let text = String::from_utf8(get(admin, "/slos", &[]).2).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        let row = value["objectives"][0].clone();
        row["events"]["1h"].as_f64().filter(|events| *events > 20.0).map(|_| row)
    });
    assert_eq!(
        (&objective["slo_id"], &objective["mode"]),
        (&"local/shop/availability".into(), &"alert".into())
    );

    kill_process(Pid::from_child(&agent.0), Signal::TERM).expect("it runs");
    assert_eq!(agent.0.wait().expect("it ends").code(), Some(0));
    let tail = nodewick(dir.path())
        .args(["tail", "--no-follow", "-o", "json", "--lines", "1000", "--dir", &store])
        .output()
        .expect("the program");
    let text = String::from_utf8(tail.stdout).expect("UTF-8");
    let entries: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |status: u64| {
        entries
            .iter()
            .filter(|entry| entry["service_name"] == "shop" && entry["http_status"] == status)
            .count()
    };
    assert_eq!((of(200), of(500)), (21, 5), "{text:.2000}");
}

#[test]
fn without_metrics_requests_are_counted_from_lines() {
    let dir = tempfile::tempdir().expect("temp dir");
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).expect("a directory");
    let (_service, address) = service(&logs.join("server.log"));
    let admin = free_address();
    let child = nodewick(dir.path())
        .args(["run", "--logs", "logs", "--service", "shop", "--set", "ui.listen=off"])
        .args(["--set", &format!("admin.listen={admin}"), "--set", "red.interval=1s"])
        .args(["--set", &format!("agent.state_dir={}", dir.path().join("state").display())])
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");
    let _agent = Process(child);
    let page = || String::from_utf8(get(admin, "/metrics/workloads", &[]).2).unwrap_or_default();
    // What is found at the start was written before anybody counted: the first pass ends before the calls begin.
    wait_for("it listens", || (get(admin, "/health/ready", &[]).0 == 200).then_some(()));
    for id in 0..8 {
        assert_eq!(get(address, &format!("/orders/{id}"), &[]).0, 200);
    }
    let row = wait_for("8 requests", || {
        let page = page();
        let row = page.lines().find(|line| {
            line.starts_with("red_requests_total{")
                && line.contains("workload=\"shop\"")
                && line.contains("2xx")
        })?;
        row.split(' ').any(|word| word == "8").then(|| row.to_owned())
    });
    assert!(row.contains("route=\"/orders/{id}\""), "{row}");
    assert!(page().contains("source=\"log\""));
}
