//! What became of each byte, as the running agent tells it: `/ledger` and the metrics of the ledger.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Agent {
    child: Child,
    address: String,
    state: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(root: &Path) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let state = tempfile::tempdir().expect("a directory");
        let config = state.path().join("agent.toml");
        let text = format!(
            "[agent]\nstate_dir = {:?}\n[logs]\nroot = {root:?}\n[admin]\nlisten = \"{port}\"\n[sink.stdout.out]\n\
             [process.drop.noise]\ncontains = [\"ping\"]\n",
            state.path().join("state")
        );
        std::fs::write(&config, text).expect("written");
        let child = Command::new(env!("CARGO_BIN_EXE_nodewick"))
            .env_clear()
            .args(["run", "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        Self { child, address: port.to_string(), state }
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The answer's body once it holds all of `parts`.
    fn wait_for(&self, path: &str, parts: &[&str]) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get(path).unwrap_or_default();
            if parts.iter().all(|part| answer.contains(part)) {
                return answer.split_once("\r\n\r\n").expect("a head").1.to_owned();
            }
            assert!(Instant::now() < deadline, "{parts:?} never came: {answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn write_log(root: &Path, pod: &str, text: &str) {
    let dir = root.join(pod).join("api");
    std::fs::create_dir_all(&dir).expect("made");
    std::fs::write(dir.join("0.log"), text).expect("written");
}

fn accounts(body: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(body).expect("JSON").as_array().expect("an array").clone()
}

#[test]
fn the_ledger_of_a_running_agent_balances() {
    let root = tempfile::tempdir().expect("a directory");
    let one = "2026-11-22T14:00:00.000000001Z stdout F first\n\
               2026-11-22T14:00:00.000000002Z stdout F ping\n\
               2026-11-22T14:00:00.000000003Z stderr F third\n";
    write_log(root.path(), "shop_api-1_u1", one);
    write_log(root.path(), "shop_api-2_u2", "2026-11-22T14:00:00Z stdout F alone\n");
    let agent = Agent::start(root.path());

    let body = agent
        .wait_for("/ledger", &["application/json", "\"delivered_records\":2", "\"delivered_records\":1"]);
    let all = accounts(&body);
    let names: Vec<&str> = all.iter().map(|account| account["pod"].as_str().expect("a name")).collect();
    assert_eq!(names, ["api-1", "api-2"]);
    let (namespace, uid, container, restart) = ("shop", "u1", "api", 0);
    let (written, sent) = (137, 133);
    assert_eq!(one.len(), written);
    for (key, value) in [
        ("namespace", Value::from(namespace)),
        ("uid", Value::from(uid)),
        ("container", Value::from(container)),
        ("restart", Value::from(restart)),
        ("written_bytes", Value::from(written)),
        ("sent_bytes", Value::from(sent)),
        ("in_flight_bytes", Value::from(0)),
        ("waiting_bytes", Value::from(0)),
        ("unexplained_bytes", Value::from(0)),
        ("dropped", serde_json::json!({"drop": {"records": 1, "bytes": 4}})),
        ("lost", serde_json::json!({})),
        ("generation_lag", Value::from(0)),
        ("gone", Value::from(false)),
    ] {
        assert_eq!(all[0][key], value, "{key} of {body}");
    }
    for text in ["first", "third", "alone"] {
        assert!(!body.contains(text), "log content in {body}");
    }
    assert_eq!(accounts(&agent.wait_for("/ledger?worst=1", &["200 OK"])).len(), 1);
    for query in ["worst=x", "worst=-1", "best=1"] {
        let answer = agent.get(&format!("/ledger?{query}")).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    agent.wait_for(
        "/metrics",
        &[
            "nodewick_ledger_bytes{state=\"sent\"} 169\n",
            "nodewick_ledger_bytes{state=\"written\"} 173\n",
            "nodewick_ledger_bytes{state=\"dropped\"} 4\n",
            "nodewick_ledger_bytes{state=\"lost\"} 0\n",
            "nodewick_ledger_unexplained_bytes 0\n",
            "nodewick_log_generation_lag_max 0\n",
            "nodewick_log_time_to_loss_min_seconds 31536000\n",
        ],
    );
    assert!(agent.state.path().join("state").exists());
}

#[test]
fn a_listener_without_a_ledger_has_no_such_page() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = "127.0.0.1:0".parse().expect("an address");
        let admin = nodewick::admin::Admin::bind(address).await.expect("bound");
        let address = admin.address();
        let leave = tokio_util::sync::CancellationToken::new();
        let served = tokio::spawn(admin.serve(nodewick::health::Health::new(), leave.clone()));
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).expect("connects");
            write!(stream, "GET /ledger HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            answer
        });
        assert!(answer.await.expect("no panic").starts_with("HTTP/1.1 404 "));
        leave.cancel();
        served.await.expect("no panic").expect("no failure");
    });
}
