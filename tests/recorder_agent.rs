//! The flight recorder in the real agent, before a make-believe Loki: debug lines are absent until their trace fails, and
//! arrive once, with kill -9 between.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::agent::{Agent, Settings};
use support::fake_loki::{Entry, FakeLoki, Limits, wait_until};

#[path = "support/mod.rs"]
mod support;

const PATIENCE: Duration = Duration::from_secs(20);
const T1: &str = "0af7651916cd43dd8448eb211c80319c";
const T2: &str = "b7ad6b7169203331b7ad6b7169203331";

struct Log(PathBuf);

impl Log {
    fn of(root: &Path, restart: u32) -> Self {
        let dir = root.join("shop_checkout-7f4b9d6c88-x2kqp_u1").join("api");
        fs::create_dir_all(&dir).expect("made");
        Self(dir.join(format!("{restart}.log")))
    }

    fn write(&self, level: &str, trace: &str, text: &str) {
        let now = jiff::Timestamp::now();
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.0).expect("opens");
        let line = format!(r#"{{"level":"{level}","trace_id":"{trace}","msg":"{text}"}}"#);
        writeln!(file, "{now} stdout F {line}").expect("written");
    }
}

/// What Loki has, whatever the stream: message, and whether it is marked as released.
fn stored(loki: &FakeLoki) -> Vec<(String, bool)> {
    let all = loki.streams().into_iter().flat_map(|(_, labels)| loki.entries(&labels));
    let mut all: Vec<Entry> = all.collect();
    all.sort_by_key(|entry| entry.time_unix_nano);
    let one = |entry: Entry| {
        let line: serde_json::Value = serde_json::from_str(&entry.line).expect("JSON");
        let released = ("nodewick_recorder".to_owned(), "released".to_owned());
        (line["msg"].as_str().expect("a message").to_owned(), entry.metadata.contains(&released))
    };
    all.into_iter().map(one).collect()
}

fn messages(loki: &FakeLoki) -> Vec<String> {
    stored(loki)
        .into_iter()
        .map(|(message, released)| if released { format!("*{message}") } else { message })
        .collect()
}

/// How often any line was received, counting every request.
fn received(loki: &FakeLoki) -> usize {
    loki.requests()
        .iter()
        .filter(|seen| seen.status < 300)
        .flat_map(|seen| &seen.streams)
        .map(|(_, n)| n)
        .sum()
}

#[test]
fn debug_lines_arrive_once_when_their_trace_fails_over_a_kill_and_all_of_them_when_the_container_dies() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("pods");
    let log = Log::of(&root, 0);
    let loki = FakeLoki::start(Limits::default());
    let rest = format!(
        "[sink.loki.main]\nurl = \"{}\"\n[process.recorder]\non = true\nservice = \"checkout\"\n",
        loki.url()
    );
    log.write("debug", T1, "cart has 3 items");
    log.write("trace", T2, "all is well");
    log.write("info", T1, "paying");
    let settings = Settings { logs: "tick = \"50ms\"".into(), rest, ..Settings::default() };
    let mut agent = Agent::prepare(&dir.path().join("agent"), &root, &settings);
    agent.launch();
    assert!(wait_until(PATIENCE, || messages(&loki) == ["paying"]), "{:?}", messages(&loki));
    // The checkpoint has passed the held lines when it is killed.
    assert!(
        wait_until(PATIENCE, || agent.metric("nodewick_recorder_held_records") == Some(2.0)),
        "{}",
        agent.said()
    );
    std::thread::sleep(Duration::from_millis(1500));
    agent.kill();
    assert_eq!(received(&loki), 1);

    agent.launch();
    agent.wait_ready();
    assert!(
        wait_until(PATIENCE, || agent.metric("nodewick_recorder_held_records") == Some(2.0)),
        "{}",
        agent.said()
    );
    assert_eq!(messages(&loki), ["paying"], "still nothing else");
    log.write("error", T1, "card declined");
    let expected = ["*cart has 3 items", "paying", "card declined"];
    assert!(wait_until(PATIENCE, || messages(&loki) == expected), "{:?}", messages(&loki));
    assert_eq!(agent.metric("nodewick_recorder_released_records_total"), Some(1.0));
    std::thread::sleep(Duration::from_millis(1500));
    agent.kill();

    agent.launch();
    agent.wait_ready();
    log.write("debug", T1, "rolled back");
    let expected = ["*cart has 3 items", "paying", "card declined", "*rolled back"];
    assert!(wait_until(PATIENCE, || messages(&loki) == expected), "{:?}", messages(&loki));
    assert_eq!(received(&loki), 4, "nothing was sent twice");

    // The container is started again: what is known of the first one's end is that.
    let next = Log::of(&root, 1);
    next.write("info", T2, "started");
    let all = ["*all is well", "*cart has 3 items", "paying", "card declined", "*rolled back", "started"];
    let sorted = || {
        let mut all = messages(&loki);
        all.retain(|message| !message.contains("ended"));
        all.sort();
        all
    };
    let mut wanted = all.map(str::to_owned);
    wanted.sort();
    assert!(wait_until(PATIENCE, || sorted() == wanted), "{:?}\n{}", messages(&loki), agent.said());
    assert_eq!(agent.metric("nodewick_recorder_held_records"), Some(0.0));
    assert_eq!(agent.metric("nodewick_ledger_unexplained_bytes"), Some(0.0));
    assert!(agent.terminate().success());
}
