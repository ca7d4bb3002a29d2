//! `nodewick exec` and `nodewick run --stdin` as people start them: real processes, a real store, signals, exit codes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a config whose sink is a local store.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with_sink("[sink.local.main]\ndir = \"DIR/store\"\n")
    }

    fn with_sink(sink: &str) -> Self {
        let site = Self { dir: tempfile::tempdir().expect("temp dir") };
        site.set_sink(sink);
        site
    }

    fn set_sink(&self, sink: &str) {
        let config = format!(
            "[agent]\ncluster = \"test\"\nnode = \"node-1\"\nstate_dir = \"DIR/state\"\n[admin]\nlisten = \"off\"\n{sink}"
        );
        let config = config.replace("DIR", &self.path().to_string_lossy());
        fs::write(self.path().join("agent.toml"), config).expect("a config");
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodewick"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["NODEWICK_", "OTEL_", "POD_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.args(verb).arg("-c").arg(self.path().join("agent.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn exec(&self, script: &str) -> Command {
        let mut command = self.command(&["exec", "--service", "till", "--flush", "20s"]);
        command.args(["--", "sh", "-c", script]);
        command
    }

    /// The stored lines of a key, in the store's order.
    fn stored(&self) -> Vec<serde_json::Value> {
        let mut files: Vec<_> = fs::read_dir(self.path().join("store"))
            .map(|entries| entries.map(|entry| entry.expect("an entry").path()).collect())
            .unwrap_or_default();
        files.retain(|path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "jsonl"));
        files.sort();
        let text: String = files.iter().map(|path| fs::read_to_string(path).expect("a store")).collect();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.stored().iter().map(|entry| entry["line"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Waits for the end of a child, and kills it when that takes too long.
fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status;
        }
        if Instant::now() >= deadline {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
            panic!("not ended after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs to its end and gives what it wrote.
fn output(command: &mut Command) -> Output {
    let mut child = command.spawn().expect("the program");
    let mut streams: Vec<_> = [
        Box::new(child.stdout.take().expect("a pipe")) as Box<dyn Read + Send>,
        Box::new(child.stderr.take().expect("a pipe")),
    ]
    .into_iter()
    .map(|mut stream| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("read");
            bytes
        })
    })
    .collect();
    let status = wait(&mut child);
    let stderr = streams.pop().expect("two").join().expect("read");
    let stdout = streams.pop().expect("two").join().expect("read");
    Output { status, stdout, stderr }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("our own child");
}

/// Reads until a line has come.
fn await_line(child: &mut Child, wanted: &str) {
    let out = child.stdout.as_mut().expect("a pipe");
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(wanted) {
        assert_eq!(out.read(&mut byte).expect("read"), 1, "ended: {}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
}

#[test]
fn output_goes_through_unchanged_and_its_lines_are_stored() {
    let site = Site::new();
    let script =
        r#"printf 'one\ntwo\r\n'; printf '\000\377binary\n'; printf 'err\n' >&2; printf 'no newline'"#;
    let direct = Command::new("sh").args(["-c", script]).output().expect("sh");
    let through = output(&mut site.exec(script));
    assert_eq!(through.status.code(), Some(0));
    assert_eq!(through.stdout, direct.stdout);
    assert_eq!(through.stderr, direct.stderr, "{}", String::from_utf8_lossy(&through.stderr));
    let mut lines = site.lines();
    lines.sort();
    assert_eq!(lines, ["\u{0}\u{fffd}binary", "err", "no newline", "one", "two\r"]);
    let stored = site.stored();
    let err = stored.iter().find(|entry| entry["line"] == "err").expect("stored");
    assert_eq!((err["stream"].as_str(), err["service_name"].as_str()), (Some("stderr"), Some("till")));
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    let site = Site::new();
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
    {
        assert_eq!(output(&mut site.exec(script)).status.code(), Some(code), "{script}");
    }
    let mut missing = site.command(&["exec"]);
    assert_eq!(output(missing.args(["--", "/no/such/program"])).status.code(), Some(127));
    let mut directory = site.command(&["exec"]);
    assert_eq!(output(directory.args(["--", "/tmp"])).status.code(), Some(126));
}

#[test]
fn signals_reach_the_command_and_it_decides_what_they_mean() {
    let site = Site::new();
    for (sent, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        let script =
            format!("trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.02; done");
        let mut child = site.exec(&script).spawn().expect("the program");
        await_line(&mut child, "ready\n");
        signal(&child, sent);
        await_line(&mut child, &format!("got {name}\n"));
        assert_eq!(wait(&mut child).code(), Some(5), "{name}");
    }
    assert_eq!(site.lines().iter().filter(|line| line.starts_with("got ")).count(), 6);
}

#[test]
fn a_stuck_backend_neither_slows_nor_ends_the_command_and_the_lines_go_out_at_the_next_start() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let site = Site::with_sink(&format!("[sink.loki.main]\nurl = \"http://{address}\"\n"));
    let mut command = site.command(&["exec", "--service", "till", "--flush", "200ms"]);
    command.args(["--", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 4"]);
    let begin = Instant::now();
    let stuck = output(&mut command);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert_eq!(stuck.status.code(), Some(4));
    assert_eq!(stuck.stdout.iter().filter(|byte| **byte == b'\n').count(), 2000);
    let said = String::from_utf8_lossy(&stuck.stderr);
    assert!(said.contains("bytes of output are not delivered; they are kept in"), "{said}");
    site.set_sink("[sink.local.main]\ndir = \"DIR/store\"\n");
    assert_eq!(output(&mut site.exec("echo last")).status.code(), Some(0));
    let expected: Vec<String> = (0..2000).map(|n| format!("line {n}")).chain(["last".to_owned()]).collect();
    assert_eq!(site.lines(), expected);
}

#[test]
fn what_does_not_fit_the_spool_is_dropped_counted_and_told_in_its_place() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let site = Site::with_sink(&format!("[sink.loki.main]\nurl = \"http://{address}\"\n"));
    let mut command = site.command(&["exec", "--service", "till", "--flush", "200ms", "--spool", "64KiB"]);
    command.args(["--", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"]);
    let full = output(&mut command);
    assert_eq!(full.status.code(), Some(0));
    assert_eq!(
        full.stdout.iter().filter(|byte| **byte == b'\n').count(),
        20_000,
        "passed through all the same"
    );
    let said = String::from_utf8_lossy(&full.stderr);
    assert!(said.contains("were not shipped: too much waited for delivery"), "{said}");
    let dropped: u64 = said
        .lines()
        .find_map(|line| line.strip_prefix("nodewick: ")?.split_once(" lines (")?.0.parse().ok())
        .expect("a number of lines");
    site.set_sink("[sink.local.main]\ndir = \"DIR/store\"\n");
    assert_eq!(output(&mut site.exec("echo last")).status.code(), Some(0));
    let lines = site.lines();
    let (gaps, kept): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.contains("nodewick.gap"));
    assert!(!gaps.is_empty());
    assert_eq!(kept.len() as u64 + dropped, 20_001);
    assert_eq!((kept[0].as_str(), kept[kept.len() - 1].as_str()), ("line 0", "last"));
}

#[test]
fn a_huge_line_passes_and_is_stored_cut() {
    let site = Site::new();
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after";
    let through = output(&mut site.exec(script));
    assert_eq!(through.stdout.len(), 3_000_000 + 1 + 6);
    let lines = site.lines();
    assert_eq!((lines.len(), lines[0].len(), lines[1].as_str()), (2, 256 << 10, "after"));
}

#[test]
fn somebody_who_holds_the_streams_open_is_not_waited_for() {
    let site = Site::new();
    let begin = Instant::now();
    let mut child = site.exec("sleep 30 & echo done").spawn().expect("the program");
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(site.lines(), ["done"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_as_it_would_without_us() {
    let site = Site::new();
    let mut child = site.exec("while :; do echo x; sleep 0.01; done").spawn().expect("the program");
    await_line(&mut child, "x\n");
    drop(child.stdout.take());
    // SIGPIPE, or the shell's own error.
    assert_ne!(wait(&mut child).code(), Some(0));
}

#[test]
fn a_state_directory_that_cannot_be_written_costs_shipping_or_moves_and_never_the_command() {
    let site = Site::new();
    fs::write(site.path().join("state"), "a file where a directory should be").expect("a file");
    let home = site.path().join("home");
    let through = output(site.exec("echo hello; exit 6").env("HOME", &home).env_remove("XDG_STATE_HOME"));
    assert_eq!((through.status.code(), through.stdout.as_slice()), (Some(6), &b"hello\n"[..]));
    assert_eq!(site.lines(), ["hello"]);
    assert!(home.join(".local/state/nodewick/process-till").is_dir());
}

#[test]
fn a_bad_config_ends_before_the_command_begins() {
    let site = Site::with_sink("[sink.lokki.main]\n");
    let refused = output(&mut site.exec("echo never"));
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(78), 0));
}

#[test]
fn standard_input_is_shipped_to_its_end_also_without_a_last_newline() {
    let site = Site::new();
    let mut child = site
        .command(&["run", "--stdin", "--service", "pipe"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut input = child.stdin.take().expect("a pipe");
    for n in 0..5000 {
        writeln!(input, "{{\"time\":\"2026-11-22T14:00:00.5Z\",\"level\":\"info\",\"n\":{n}}}")
            .expect("written");
    }
    input.write_all(b"the end").expect("written");
    drop(input);
    assert_eq!(wait(&mut child).code(), Some(0));
    let stored = site.stored();
    assert_eq!(stored.len(), 5001);
    assert_eq!(stored[5000]["line"], "the end");
    assert_eq!(stored[0]["service_name"], "pipe");
    let time = stored[0]["time"].as_str().expect("a time");
    assert!(time.starts_with("2026-11-22T14:00:00.5"), "a line's own time counts: {time}");
}

#[test]
fn standard_input_that_cannot_be_delivered_is_kept_and_said() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let site = Site::with_sink(&format!("[sink.loki.main]\nurl = \"http://{address}\"\n"));
    let mut child = site
        .command(&["run", "--stdin", "--service", "pipe"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program");
    child.stdin.take().expect("a pipe").write_all(b"kept\n").expect("written");
    std::thread::sleep(Duration::from_millis(500));
    // Whoever asks for the end does not wait out the whole flush.
    signal(&child, Signal::TERM);
    let mut said = String::new();
    assert_eq!(wait(&mut child).code(), Some(1));
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("read");
    assert!(said.contains("not delivered"), "{said}");
    site.set_sink("[sink.local.main]\ndir = \"DIR/store\"\n");
    let mut again = site.command(&["run", "--stdin", "--service", "pipe"]).spawn().expect("the program");
    assert_eq!(wait(&mut again).code(), Some(0));
    assert_eq!(site.lines(), ["kept"]);
}

#[test]
fn a_directory_of_logs_is_followed_without_a_cluster() {
    let site = Site::new();
    let logs = site.path().join("my app");
    fs::create_dir_all(logs.join("deep")).expect("a directory");
    fs::write(logs.join("deep/a.log"), "first\n").expect("a log");
    let mut child = site.command(&["run"]).arg("--logs").arg(&logs).spawn().expect("the program");
    let deadline = Instant::now() + PATIENCE;
    fs::write(logs.join("b.log"), "second\n").expect("a log");
    while site.lines().len() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut lines = site.lines();
    lines.sort();
    assert_eq!(lines, ["first", "second"]);
    let stored = site.stored();
    assert_eq!(stored[0]["service_name"], "my_app");
    assert!(
        stored.iter().any(|entry| entry["filename"] == logs.join("deep/a.log").to_string_lossy().as_ref())
    );
}
