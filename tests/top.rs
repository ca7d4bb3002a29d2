//! `nodewick top` as a person meets it: the binary in a terminal, and as text beside a running agent.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::time::Duration;

use nodewick::overview::{About, Level, Overview, Stream};
use support::agent::Agent;

/// A terminal of 100 columns around `nodewick top`: it waits until the screen shows each text, and then types the keys
/// behind it. What the terminal was sent goes to stdout; the exit code is the program's.
const TERMINAL: &str = r#"
import os, pty, select, signal, struct, sys, fcntl, termios, time
program, steps = sys.argv[1], sys.argv[2].split('|')
pid, fd = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm-256color'
    os.execv(program, [program] + sys.argv[3:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
said, deadline = b'', time.monotonic() + 15
def more():
    global said
    if time.monotonic() > deadline:
        os.kill(pid, signal.SIGKILL)
        sys.stdout.buffer.write(said)
        sys.exit('the screen never showed what was waited for')
    if select.select([fd], [], [], 0.1)[0]:
        try:
            said += os.read(fd, 65536)
        except OSError:
            return False
    return True
for step in steps:
    text, keys = step.split('>')
    seen = len(said) if text.startswith('~') else 0
    text = text.lstrip('~').encode()
    while text not in said[seen:] and more():
        pass
    if keys.startswith('SIG'):
        os.kill(pid, getattr(signal, keys))
    else:
        os.write(fd, keys.encode())
while more():
    pass
status = os.waitpid(pid, 0)[1]
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"#;

fn in_terminal(steps: &str, args: &[&str]) -> Output {
    let mut command = Command::new("python3");
    command.env_remove("NO_COLOR").args(["-c", TERMINAL, env!("CARGO_BIN_EXE_nodewick"), steps]).args(args);
    command.output().expect("python3 runs")
}

fn top(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nodewick")).arg("top").args(args).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Answers every request with `status` and `body`, as long as the test runs.
fn answering(status: &'static str, body: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let (mut asked, mut piece) = (Vec::new(), [0; 1024]);
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(read) if read > 0 => asked.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let _ = write!(stream, "HTTP/1.0 {status}\r\n\r\n{body}");
        }
    });
    address
}

fn picture(state: Level) -> String {
    let stream = Stream {
        namespace: "shop".into(),
        pod: "checkout-0".into(),
        container: "evil\u{1b}]0;title\u{7}".into(),
        ..Stream::default()
    };
    let agent = About {
        version: "0.1.0".into(),
        node: "node-1".into(),
        rates_over_seconds: Some(1.0),
        state,
        ..About::default()
    };
    serde_json::to_string(&Overview { agent, streams: vec![stream], ..Overview::default() }).expect("JSON")
}

/// What enters and leaves the other screen, and shows the cursor again.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

#[test]
fn the_screen_answers_keys_and_gives_the_terminal_back() {
    let url = format!("http://{}", answering("200 OK", picture(Level::Ok)));
    let steps = "checkout-0>6|nothing is wrong>?|leave>q";
    let shown = in_terminal(steps, &["top", "--url", &url]);
    let said = text(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0), "{said}\n{}", text(&shown.stderr));
    assert!(said.contains(ENTER) && said.trim_end().ends_with("\u{1b}[?25h"), "{said:?}");
    assert!(said.rfind(LEAVE) > said.rfind(ENTER), "{said:?}");
    assert!(!said.contains("\u{1b}]0;title"), "a name drove the terminal: {said:?}");
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    let url = format!("http://{}", answering("200 OK", picture(Level::Ok)));
    for signal in ["SIGTERM", "SIGINT", "SIGHUP"] {
        let shown = in_terminal(&format!("checkout-0>{signal}"), &["top", "--url", &url]);
        let said = text(&shown.stdout);
        assert_eq!(shown.status.code(), Some(0), "{signal}: {said}");
        assert!(said.rfind(LEAVE) > said.rfind(ENTER), "{signal}: {said:?}");
    }
}

#[test]
fn without_a_terminal_one_picture_is_printed_and_its_state_is_the_exit_code() {
    for (state, word, code) in [
        (Level::Ok, "ok", 0),
        (Level::Notice, "notice", 0),
        (Level::Degraded, "degraded", 1),
        (Level::Down, "down", 2),
    ] {
        let url = format!("http://{}", answering("200 OK", picture(state)));
        let printed = top(&["--url", &url]);
        let out = text(&printed.stdout);
        assert_eq!(printed.status.code(), Some(code), "{out}");
        assert!(out.starts_with(&format!("{word}  nodewick 0.1.0 on node-1")), "{out}");
        assert!(out.contains("shop/checkout-0/evil") && !out.contains('\u{1b}'), "{out}");
    }
}

#[test]
fn who_answers_otherwise_is_told_apart() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    for (address, code, said) in [
        (nobody, 2, "kubectl -n nodewick port-forward"),
        (answering("404 Not Found", String::new()), 1, "older than `top`"),
        (answering("401 Unauthorized", String::new()), 1, "asks for a token"),
        (answering("200 OK", "<html>".into()), 1, "cannot be read"),
        (answering("200 OK", "{}".into()), 1, "it has no version"),
        (answering("500 Internal Server Error", String::new()), 1, "HTTP status 500"),
    ] {
        let printed = top(&["--once", "--url", &format!("http://{address}")]);
        let error = text(&printed.stderr);
        assert_eq!((printed.status.code(), text(&printed.stdout)), (Some(code), String::new()), "{error}");
        assert!(error.starts_with("nodewick: error: ") && error.contains(said), "{error}");
    }
    let wrong = top(&["--once", "--url", "http://127.0.0.1:1", "--sort", "colour"]);
    assert!(text(&wrong.stderr).contains("streams are sorted by rate, lag, loss, lost, name"));
}

#[test]
fn a_real_agent_is_shown_with_its_logs_and_sinks() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = directory.path().join("logs");
    let pod = logs.join("shop_checkout-d994d45d6-5h9zr_d11c6e6d-84fc-49ec-95a1-4ee5155f656a/api");
    std::fs::create_dir_all(&pod).expect("made");
    std::fs::write(pod.join("0.log"), "2026-11-22T14:42:13.000000001Z stdout F hello\n").expect("written");
    let mut agent = Agent::start(directory.path(), &logs, "[ui]\nlisten = \"off\"\n[sink.local.main]\n");
    agent.wait_ready();
    let url = format!("http://{}", agent.admin());
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let out = loop {
        let printed = top(&["--once", "--url", &url]);
        let out = text(&printed.stdout);
        if out.contains("shop/checkout-d994d45d6-5h9zr/api") || std::time::Instant::now() > deadline {
            assert!(matches!(printed.status.code(), Some(0 | 1)), "{out}\n{}", text(&printed.stderr));
            break out;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(out.contains("shop/checkout-d994d45d6-5h9zr/api"), "{out}");
    assert!(out.contains("local.main"), "{out}");
    agent.terminate();
}
