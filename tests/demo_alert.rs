//! The demo with the whole agent: a break pages with evidence, mending ends it, and without a break nobody is called.

use std::io::{Read as _, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nodewick::agent;
use nodewick::config::{self, Sources};
use nodewick::data::units::Span;
use nodewick::demo::fault::Break;
use nodewick::demo::tally::Counts;
use nodewick::demo::{self, Args, Started, StopAgent};
use nodewick::slo::eval::Report;
use nodewick::tail::Style;
use nodewick::ui::Action;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is said on the way.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }

    /// Waits for `text`; what was said by then.
    fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !self.text().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.text()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

type Objectives = Box<dyn Fn() -> Arc<Report> + Send>;

/// A demo in a thread of its own.
struct Running {
    said: Said,
    action: Action,
    objectives: Objectives,
    page: Option<std::net::SocketAddr>,
    interrupted: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(Counts, String)>,
}

impl Running {
    fn start(breaks: Break) -> Self {
        let (said, interrupted) = (Said::default(), Arc::<AtomicBool>::default());
        let (mut notices, stop) = (said.clone(), Arc::clone(&interrupted));
        let (told, parts) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let args = Args {
                rate: 80,
                duration: Some(Span(2 * PATIENCE)),
                dir: None,
                seed: 1,
                quiet: true,
                breaks,
                no_open: true,
            };
            let mut out = Vec::new();
            let counts = demo::run(
                &args,
                Style::PLAIN,
                |site, extras| {
                    let file = Some(("agent.toml".into(), site.config_toml.clone()));
                    let set = vec!["admin.listen=off".into(), "ui.listen=127.0.0.1:0".into()];
                    let config = config::load(&Sources { file, set, ..Sources::default() })?.config;
                    let action = extras.actions[0].clone();
                    assert!(extras.banner.as_deref().is_some_and(|text| text.contains("60 times faster")));
                    let agent = agent::start_with(config, extras)?;
                    let (page, seen, own) = (agent.ui_address(), agent.objectives(), agent.objectives());
                    told.send((action, Box::new(seen) as Objectives, page)).expect("somebody listens");
                    let stop: StopAgent = Box::new(move || {
                        agent.stop().expect("it ends well");
                    });
                    Ok(Started { page, objectives: Some(Box::new(own)), ..stop.into() })
                },
                &stop,
                &mut out,
                &mut notices,
            );
            (counts.expect("runs"), String::from_utf8(out).expect("UTF-8"))
        });
        let (action, objectives, page) = parts.recv_timeout(PATIENCE).expect("it starts");
        Self { said, action, objectives, page, interrupted, thread }
    }

    /// Ends it; what it counted and printed.
    fn end(self) -> (Counts, String) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// The status of a POST without a body.
fn post(address: std::net::SocketAddr, path: &str, header: &str) -> u16 {
    let mut connection = std::net::TcpStream::connect(address).expect("it listens");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n{header}\r\n"
    );
    connection.write_all(head.as_bytes()).expect("written");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("answered");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The text behind a word at the beginning of a line.
fn line<'a>(text: &'a str, word: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.trim_start().strip_prefix(word)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no line {word:?} in:\n{text}")).trim()
}

#[test]
fn a_broken_checkout_pages_with_evidence_and_mending_ends_it() {
    let running = Running::start(Break::Checkout);
    let page = running.page.expect("it has a page");
    let text = running.said.wait_for("PAGE  ");
    assert!(text.starts_with(&format!("The agent's page: http://{page}/\n")), "{text}");
    assert!(text.contains("BROKEN  checkout"), "{text}");
    // The rest of the page comes with it, in one piece.
    let (_, alert) = text.split_once("PAGE  ").expect("it begins");
    assert!(
        alert.starts_with("[demonstration, time x60] shop/checkout: availability SLO 99.9% is burning\n"),
        "{alert}"
    );
    assert!(alert.contains("times as fast as allowed"), "{alert}");
    assert!(line(alert, "routes").starts_with("/checkout "), "{alert}");
    assert!(line(alert, "pods").starts_with("checkout-d994d45d6-"), "{alert}");
    assert!(line(alert, "budget").ends_with(" % of 30d is left"), "{alert}");
    assert_eq!(
        line(alert, "logs"),
        "{namespace=\"shop\", service_name=\"checkout\"} | http_status =~ \"5..\""
    );
    assert!(line(alert, "runbook").ends_with("/SLOErrorBudgetBurn.md"), "{alert}");
    let traces: Vec<&str> = alert.split("--trace ").skip(1).map(|rest| &rest[..32]).collect();
    assert_eq!(traces.len(), 3, "{alert}");
    for trace in &traces {
        assert!(trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{trace}");
        assert!(alert.contains(&format!("http://{page}/?trace={trace}")), "{alert}");
    }
    assert!((running.action.active)());
    assert_eq!((running.action.label)(), "mend checkout");
    // As the page's button does it; without the header that only its own script sets, nothing happens.
    assert_eq!(post(page, "/api/actions/break-checkout", ""), 403);
    assert_eq!((running.action.label)(), "mend checkout");
    assert_eq!(post(page, "/api/actions/break-checkout", "x-nodewick: 1\r\n"), 200);
    assert_eq!((running.action.label)(), "break checkout");
    running.said.wait_for("MENDED  checkout");
    let text = running.said.wait_for("OVER  ");
    let (_, over) = text.split_once("OVER  ").expect("it is over");
    assert!(over.starts_with(
        "[demonstration, time x60] shop/checkout: availability SLO 99.9% is burning: no more, after "
    ));
    let report = (running.objectives)();
    assert_eq!(report.compression, 60);
    let (counts, out) = running.end();
    assert_eq!(counts, Counts { written: counts.written, delivered: counts.written, ..Counts::default() });
    assert!(out.contains("\npage       SLOErrorBudgetBurn of shop/checkout/orders: "), "{out}");
    assert!(out.contains(", over after "), "{out}");
}

#[test]
fn without_a_break_the_objectives_hold_and_nobody_is_called() {
    let running = Running::start(Break::Never);
    let deadline = Instant::now() + PATIENCE;
    let seen = |report: &Report| {
        let rows = &report.objectives;
        rows.len() == 3
            && rows.iter().all(|row| row.events.get("5m").copied().flatten().unwrap_or_default() > 5.0)
    };
    while !seen(&(running.objectives)()) {
        assert!(Instant::now() < deadline, "{:?}", (running.objectives)());
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(5));
    let report = (running.objectives)();
    for row in &report.objectives {
        assert_eq!(row.budget_remaining, Some(1.0), "{row:?}");
        assert!(row.alerts.iter().all(|alert| alert.state == "inactive"), "{row:?}");
    }
    let text = running.said.text();
    assert!(!text.contains("PAGE") && !text.contains("TICKET") && !text.contains("BROKEN"), "{text}");
    let (counts, out) = running.end();
    assert_eq!((counts.lost(), counts.altered), (0, 0));
    assert!(!out.contains("page  "), "{out}");
}

#[test]
fn the_program_says_where_its_page_is_before_anything_else() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodewick"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NODEWICK_") {
            command.env_remove(name);
        }
    }
    let done = command
        .args(["demo", "--for", "3s", "--quiet", "--no-open", "--break", "never"])
        .stdin(Stdio::null())
        .output()
        .expect("the program");
    let (out, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.starts_with("The agent's page: http://127.0.0.1:"), "{said}");
    assert!(said.contains("Nothing breaks until the button is pressed."), "{said}");
    assert!(said.contains("60 times faster"), "{said}");
    assert!(out.contains("  lost 0  "), "{out}");
}
