//! A surging update on one node: the next agent starts beside the old one and takes over.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use super::agent_process::{Agent, Settings};

/// A surge deletes the old pod only once the new one is ready, and the new one has the lock only once the old one has
/// ended: so whoever waits for the lock must be ready.
#[test]
fn an_agent_that_waits_for_the_lock_is_ready_and_takes_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let (logs, state) = (directory.path().join("pods"), directory.path().join("state"));
    fs::create_dir(&logs).expect("made");
    let settings = Settings {
        state_dir: Some(state.clone()),
        rest: "[sink.stdout.main]\n".to_owned(),
        ..Settings::default()
    };
    let mut old = Agent::prepare(&directory.path().join("old"), &logs, &settings);
    old.launch();
    old.wait_ready();
    let mut new = Agent::prepare(&directory.path().join("new"), &logs, &settings);
    new.launch();
    new.wait_ready();
    // It stays ready and alive for as long as it takes, and reads nothing.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(new.get("/health/ready").expect("answered").0, 200);
        assert_eq!(new.get("/health/live").expect("answered").0, 200);
    }
    assert!(new.said().contains("waiting for it to end"), "{}", new.said());
    // `[]`: it follows no log yet.
    assert_eq!(new.get("/ledger").expect("answered").1, "[]");

    let container = logs.join("shop_cart-7d_00000000-0000-4000-8000-000000000001/api");
    fs::create_dir_all(&container).expect("made");
    let line = |text: &str| format!("2026-10-01T10:00:00.000000001Z stdout F {text}\n");
    fs::write(container.join("0.log"), line("before")).expect("written");
    wait_for(|| old.said().contains("before"), "the old agent ships");
    assert!(old.terminate().success());
    let mut log = OpenOptions::new().append(true).open(container.join("0.log")).expect("there");
    log.write_all(line("after").as_bytes()).expect("written");
    wait_for(|| new.said().contains("\"after\""), "the new agent ships");
    let again = new.said().contains("\"before\"");
    assert!(!again, "the new agent began where the old one had stopped:\n{}", new.said());
    // Its first position is about to be made durable.
    new.wait_ready();
    assert!(new.terminate().success());
}

fn wait_for(mut done: impl FnMut() -> bool, what: &str) {
    for _ in 0..400 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 20 s: {what}");
}
