//! The status page in a real browser, served by the real agent.
//!
//! In: container logs that are written while the test runs, one line and one service name of which are hostile. Out: what
//! headless Chromium finds when `tests/ui/page.mjs` clicks through the page: filters, traces, search, explain, keyboard,
//! theme, a phone's width, and the page without script. With `NODEWICK_SCREENSHOTS=1` the pictures in `docs/images` are made
//! anew, which takes some two minutes, since an objective has to burn first.

#![allow(clippy::print_stderr)] // what is skipped is said

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nodewick::agent::{self, Agent};
use nodewick::config::{Sources, load};
use nodewick::ui::{Action, Extras};

/// What would run if any of it became markup.
const HOSTILE: &str = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>";

fn chromium() -> Option<PathBuf> {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = found.iter().map(PathBuf::from).find(|path| path.exists());
    assert!(
        found.is_some() || std::env::var_os("CI").is_none(),
        "Chromium is missing: .ci/tools brings it in, with puppeteer-core"
    );
    found
}

/// Writes container logs until it is dropped.
struct Node {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    fn start(root: &Path) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let done = Arc::clone(&stop);
        let mut logs: Vec<(&str, fs::File)> = ["checkout", "cart", "payments", "search"]
            .into_iter()
            .map(|name| {
                let uid = format!("{name:0<8.8}-aaaa-bbbb-cccc-0123456789ab");
                let dir = root.join(format!("shop_{name}-7d9f6c5b4-x2k8p_{uid}/api"));
                fs::create_dir_all(&dir).expect("a directory");
                (name, fs::File::create(dir.join("0.log")).expect("a log"))
            })
            .collect();
        let thread = std::thread::spawn(move || {
            let mut line = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for (at, (name, file)) in logs.iter_mut().enumerate() {
                    line += 1;
                    let text = text(name, line, at as u64);
                    let now = jiff::Timestamp::now();
                    let _ = file.write_all(format!("{now:.9} stdout F {text}\n").as_bytes());
                }
                std::thread::sleep(Duration::from_millis(60));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A pino line. Every tenth of the services' requests has a trace in common; one line in 25 is hostile.
fn text(service: &str, line: u64, at: u64) -> String {
    let request = line / 4;
    let trace = format!("{:08x}77b34da6a3ce929d0e0e4736", (request + 1).wrapping_mul(2_654_435_761) as u32);
    if service == "search" && request.is_multiple_of(25) {
        return serde_json::json!({"level": 50, "msg": format!("hostile {HOSTILE}"), "traceId": trace})
            .to_string();
    }
    if line.is_multiple_of(7) {
        let msg = format!("order {request} priced");
        return serde_json::json!({"level": 30, "msg": msg, "traceId": trace, "orderId": request})
            .to_string();
    }
    let failed = service == "checkout" && request.is_multiple_of(12);
    let wave = ((request as f64 / 18.0 + at as f64).sin() + 1.2) * (12.0 + 30.0 * at as f64);
    serde_json::json!({
        "level": if failed { 50 } else { 30 },
        "msg": if failed { "request errored" } else { "request completed" },
        "traceId": trace,
        "req": {"id": request, "method": "GET", "url": format!("/{service}/{request}")},
        "res": {"statusCode": if failed { 502 } else { 200 }},
        "responseTime": wave.round() + (request % 9) as f64,
    })
    .to_string()
}

fn config(dir: &Path) -> String {
    let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
    fs::write(dir.join("hostile.log"), "one line of an application\n").expect("a file");
    format!(
        r#"
[agent]
cluster = "prod-eu-1"
node = "worker-7"
state_dir = {}

[logs]
root = {}

[logs.files.hostile]
paths = [{}]
service = "{HOSTILE}"

[kube]
mode = "path"

[process.sample.priced]
contains = "priced"
keep = "50%"

[sink.local.main]

[red]
interval = "1s"

[evaluator]
interval = "5s"

[scrape]
interval = "1s"
timeout = "500ms"

[[scrape.static]]
targets = ["127.0.0.1:1"]

[slo.checkout-availability]
match = {{ namespace = "shop", workload = "checkout" }}
sli = "availability"
objective = "99.9%"
mode = "alert"
owner = "shop"

[slo.payments-latency]
match = {{ namespace = "shop", workload = "payments" }}
sli = "latency"
threshold = "250ms"
objective = "99%"
mode = "observe"

[slo.ledger-availability]
match = {{ namespace = "shop", workload = "ledger" }}
sli = "availability"
objective = "99.9%"
mode = "alert"

[admin]
listen = "off"

[ui]
listen = "127.0.0.1:0"
"#,
        quoted(dir.join("state")),
        quoted(dir.join("pods")),
        quoted(dir.join("hostile.log")),
    )
}

fn extras() -> Extras {
    let broken = Arc::<AtomicBool>::default();
    let (shown, pressed, done) = (Arc::clone(&broken), Arc::clone(&broken), broken);
    let action = Action {
        name: "break-checkout",
        label: Arc::new(move || {
            if shown.load(Ordering::Relaxed) { "Mend checkout" } else { "Break checkout" }.to_owned()
        }),
        active: Arc::new(move || pressed.load(Ordering::Relaxed)),
        run: Arc::new(move || {
            done.fetch_xor(true, Ordering::Relaxed);
        }),
    };
    Extras {
        banner: Some("A make-believe node: what you see is not real.".to_owned()),
        actions: vec![action],
    }
}

fn start(dir: &Path) -> Agent {
    let file = Some(("agent.toml".to_owned(), config(dir)));
    let loaded = load(&Sources { file, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}"));
    agent::start_with(loaded.config, extras()).expect("the agent starts")
}

#[test]
fn the_page_works_in_a_real_browser() {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: there is no Chromium here; .ci/tools brings it in");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(
        root.join("tests/real/node_modules/puppeteer-core").exists(),
        "puppeteer-core is missing: .ci/tools installs the packages of tests/real"
    );
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("pods")).expect("a directory");
    let node = Node::start(&dir.path().join("pods"));
    let agent = start(dir.path());
    let address = agent.ui_address().expect("it has a page");
    let mut script = Command::new("node");
    script
        .arg(root.join("tests/ui/page.mjs"))
        .env("PAGE", format!("http://localhost:{}/", address.port()))
        .env("CHROMIUM", chromium)
        .env("PROFILE", dir.path().join("profile"));
    if std::env::var_os("NODEWICK_SCREENSHOTS").is_some() {
        script.env("SCREENSHOTS", root.join("docs/images"));
    }
    let output = script.output().expect("node runs");
    drop(node);
    agent.stop().expect("the agent ends well");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("\nall is well\n"), "{out}\n{err}");
    if std::env::var_os("NODEWICK_SCREENSHOTS").is_some() {
        eprintln!("{out}");
    }
}
