//! Lines for people, end to end: the real agent with a backend that is down, its listener for people, and `nodewick tail`
//! as a person calls it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

#[path = "support/mod.rs"]
mod support;

use support::agent::{Agent, Settings};

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "canary-hunter2secret";
const TOKEN: &str = "correct-horse-battery-staple";

/// An agent, its logs, and where its page is.
struct Site {
    agent: Agent,
    log: PathBuf,
    url: String,
    token: PathBuf,
}

impl Site {
    fn start(directory: &Path) -> Self {
        let logs = directory.join("pods");
        let pod = logs.join("shop_checkout-0_d11c6e6d-84fc-49ec-95a1-4ee5155f656a").join("api");
        fs::create_dir_all(&pod).expect("a directory");
        let token = directory.join("token");
        fs::write(&token, TOKEN).expect("a file");
        let rotated = fs::File::create(pod.join("0.log.20261122-140000.gz")).expect("a file");
        let mut gzip = flate2::write::GzEncoder::new(rotated, flate2::Compression::fast());
        gzip.write_all(line(0, "order 17 taken").as_bytes()).expect("written");
        gzip.finish().expect("written");
        let log = pod.join("0.log");
        fs::write(&log, line(1, "order 17 paid") + &line(2, &format!("order 17 password={SECRET}")))
            .expect("a file");
        let rest = format!(
            "[process.redact]\nbuiltin = true\n[sink.loki.main]\nurl = \"http://127.0.0.1:1/loki/api/v1/push\"\n\
             [ui]\nlisten = \"127.0.0.1:0\"\ntoken = \"${{file:{}}}\"\n",
            token.display()
        );
        let settings = Settings { rest, ..Settings::default() };
        let mut agent = Agent::prepare(&directory.join("agent"), &logs, &settings);
        agent.launch();
        agent.wait_ready();
        let said = agent.said();
        let at = said.find("listening for people").expect("it says where its page is");
        let from = said[at..].find("http://127.0.0.1:").expect("an address") + at;
        let url: String = said[from..]
            .chars()
            .take_while(|char| char.is_ascii_alphanumeric() || ":/.".contains(*char))
            .collect();
        Self { agent, log, url: url.trim_end_matches('/').to_owned(), token }
    }

    fn append(&self, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(&self.log).expect("the log");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn tail(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodewick"));
        command
            .args(["tail", "--url", &self.url, "--token-file"])
            .arg(&self.token)
            .args(["-o", "raw"])
            .args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.tail(words).output().expect("the program")
    }
}

/// A line as containerd writes it.
fn line(second: u32, text: &str) -> String {
    format!("2026-11-22T14:00:{second:02}.000000000Z stdout F {text}\n")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running `nodewick tail`; ended by its id when dropped.
struct Tail {
    child: Child,
    out: PathBuf,
    notices: PathBuf,
}

impl Tail {
    fn start(site: &Site, directory: &Path, words: &[&str]) -> Self {
        let (out, notices) = (directory.join("out"), directory.join("notices"));
        let mut command = site.tail(words);
        command.stdout(fs::File::create(&out).expect("a file"));
        command.stderr(fs::File::create(&notices).expect("a file"));
        Self { child: command.spawn().expect("the program"), out, notices }
    }

    #[track_caller]
    fn wait_for(&self, file: &Path, wanted: &str) {
        let begun = Instant::now();
        loop {
            let seen = fs::read_to_string(file).expect("UTF-8");
            if seen.contains(wanted) {
                return;
            }
            let notices = fs::read_to_string(&self.notices).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "no {wanted:?} in {seen:?}; it said {notices:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn while_the_backend_is_down_the_nodes_files_are_searched() {
    let directory = tempfile::tempdir().expect("temp dir");
    let site = Site::start(directory.path());
    let found = site.run(&["--search", "--grep", "order 17"]);
    assert_eq!(
        text(&found.stdout),
        "order 17 taken\norder 17 paid\norder 17 password=[REDACTED:password]\n",
        "{}",
        text(&found.stderr)
    );
    let notices = text(&found.stderr);
    assert!(notices.starts_with("searched 1 logs, 2 files, "), "{notices}");
    assert!(notices.trim_end().ends_with(": 3 records found"), "{notices}");
    assert!(found.status.success());
    let nothing = site.run(&["--search", "--grep", SECRET]);
    assert_eq!((nothing.status.code(), text(&nothing.stdout)), (Some(1), String::new()));
    let wrong = site.run(&["--search", "--grep", "\\w{1000}{900}"]);
    assert!(!wrong.status.success());
    // All that was read is there for whoever comes now.
    let live = site.run(&["--no-follow", "--lines", "2"]);
    assert_eq!(
        text(&live.stdout),
        "order 17 paid\norder 17 password=[REDACTED:password]\n",
        "{}",
        text(&live.stderr)
    );
    // Machines see none of it, and nobody does without the token.
    let (status, _) = site.agent.get("/api/search?grep=order").expect("an answer");
    assert_eq!(status, 404);
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodewick"));
    let stranger = command.args(["tail", "--url", &site.url, "--search"]).output().expect("the program");
    assert_eq!(stranger.status.code(), Some(1));
    assert!(
        text(&stranger.stderr)
            .contains("it wants a token; give the file that holds [ui] token with --token-file")
    );
    let mut connection = TcpStream::connect(site.url.trim_start_matches("http://")).expect("it listens");
    write!(
        connection,
        "GET /api/tail HTTP/1.0\r\nHost: evil.example\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 403"), "{answer}");
    assert!(!answer.contains("order 17"), "{answer}");
}

#[test]
fn the_terminal_follows_until_one_ends_it() {
    let directory = tempfile::tempdir().expect("temp dir");
    let mut site = Site::start(directory.path());
    let mut tail = Tail::start(&site, directory.path(), &["--lines", "1"]);
    tail.wait_for(&tail.out, "order 17 password=[REDACTED:password]\n");
    site.append(&line(3, "order 18 taken"));
    tail.wait_for(&tail.out, "order 18 taken\n");
    site.agent.kill();
    tail.wait_for(&tail.notices, "is gone");
    // Ctrl-C.
    let pid = Pid::from_raw(i32::try_from(tail.child.id()).expect("an id")).expect("an id");
    kill_process(pid, Signal::INT).expect("our own child");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = tail.child.try_wait().expect("our own child") {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
    let shown = fs::read_to_string(&tail.out).expect("UTF-8");
    assert_eq!(shown, "order 17 password=[REDACTED:password]\norder 18 taken\n");
}
