//! `nodewick slo backtest` and `suggest` over a real Prometheus with a month of history, and over servers that fail.
//!
//! In: one sample a minute of a service at 600 requests a minute, from 2026-03-01T00:00:00Z on for 33 days, with two faults
//! whose size a person can check: every request fails for ten minutes from 2026-03-11T12:00:00Z (6,000), and one in a hundred
//! for two hours from 2026-03-21T06:00:00Z (720).

mod support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::prometheus::Prometheus;
use tempfile::TempDir;

/// 2026-03-01T00:00:00Z.
const START: i64 = 1_772_323_200;
const DAY: i64 = 86_400;

const CONFIG: &str = r#"
[slo.checkout-availability]
match = { namespace = "shop", workload = "checkout" }
sli = "availability"
objective = "99.95%"
mode = "alert"

[slo.checkout-latency]
match = { namespace = "shop", workload = "checkout" }
sli = "latency"
objective = "99%"
threshold = "250ms"

[slo.nobody]
match = { namespace = "shop", workload = "nobody" }
sli = "availability"
objective = "99.9%"
"#;

/// Bad requests up to a time.
fn bad(time: i64) -> f64 {
    let faults = [
        (START + 10 * DAY + 43_200, START + 10 * DAY + 43_800, 1.0),
        (START + 20 * DAY + 21_600, START + 20 * DAY + 28_800, 0.01),
    ];
    faults.iter().map(|(from, to, share)| (time.clamp(*from, *to) - from) as f64 * 10.0 * share).sum()
}

/// The history as OpenMetrics.
fn openmetrics() -> String {
    let labels = r#"cluster="c",node="n",namespace="shop",workload="checkout",pod="p",service="checkout",route="/pay",method="GET""#;
    let times = || (0..=33 * 1_440).map(|minute| START + minute * 60);
    let mut out = String::from("# TYPE red_requests counter\n");
    for class in ["2xx", "5xx"] {
        for time in times() {
            let all = (time - START) as f64 * 10.0;
            let value = if class == "5xx" { bad(time) } else { all - bad(time) };
            let _ = writeln!(out, "red_requests_total{{{labels},code_class=\"{class}\"}} {value} {time}");
        }
    }
    // Nine of ten within 100 ms, 199 of 200 within 250 ms. Every ten minutes are enough for what is asked by the hour.
    out.push_str("# TYPE red_request_duration_seconds gauge\n");
    for (bound, share) in [("0.1", 0.9), ("0.25", 0.995), ("+Inf", 1.0)] {
        for time in times().filter(|time| time % 120 == 0) {
            let value = (time - START) as f64 * 10.0 * share;
            let _ = writeln!(
                out,
                "red_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {value} {time}"
            );
        }
    }
    out.push_str("# EOF\n");
    out.replace(
        "# TYPE red_request_duration_seconds gauge\n",
        "# TYPE red_request_duration_seconds_bucket gauge\n",
    )
}

/// A Prometheus that has the history.
fn with_history() -> Prometheus {
    // Two series at 11,000 points are more than it gives in one answer: requests have to be cut.
    let mut prometheus = Prometheus::with("", &["--query.max-samples=20000"]);
    prometheus.stop();
    let file = prometheus.directory().join("history.om");
    std::fs::write(&file, openmetrics()).expect("written");
    let data = prometheus.directory().join("data");
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=768h", "-q"])
        .args([&file, &data])
        .output()
        .expect("promtool");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    prometheus.launch();
    prometheus
}

fn nodewick(args: &[&str]) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
    command.env_clear().arg("slo").args(args).timeout(Duration::from_secs(120)).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn config() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("agent.toml");
    std::fs::write(&path, CONFIG).expect("written");
    (directory, path)
}

fn backtest(config: &Path, url: &str, more: &[&str]) -> Output {
    let config = config.to_str().expect("a path");
    nodewick(&[&["backtest", "-c", config, "--prometheus", url], more].concat())
}

const MARCH: [&str; 4] = ["--from", "2026-03-04T00:00:00Z", "--to", "2026-04-03T00:00:00Z"];

#[test]
fn a_month_of_history_is_replayed_and_suggests_what_it_kept() {
    let prometheus = with_history();
    let (_directory, config) = config();
    let url = prometheus.url("");
    let found =
        backtest(&config, &url, &[&MARCH[..], &["--slo", "checkout-availability", "-o", "json"]].concat());
    assert!(found.status.success(), "{}", text(&found.stderr));
    assert_eq!(text(&found.stderr), "", "nobody looks: no bar");
    let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!((&found["from"], &found["step_seconds"]), (&"2026-03-04T00:00:00Z".into(), &30.into()));
    let one = &found["objectives"][0];
    assert_eq!(one["slo_id"], "shop/checkout/checkout-availability");
    // 6,720 of 25,920,000, whose budget is 12,960.
    assert_eq!((number(&one["requests"]), number(&one["bad_requests"])), (25_920_000, 6_720));
    assert_eq!((one["budget_spent_ratio"].as_f64().expect("a number") * 1e4).round(), 5_185.0);
    let alerts = one["alerts"].as_array().expect("alerts");
    let shown: Vec<String> = alerts
        .iter()
        .map(|alert| format!("{} {}/{}", alert["severity"], alert["long"], alert["short"]).replace('"', ""))
        .collect();
    assert_eq!(shown, ["page 1h/5m", "ticket 1d/2h", "page 1h/5m"]);
    // The first failures are in the sample of 12:01, and 1.7% of the hour. The last are in that of 12:10, and leave the half
    // hour of the slow page between 12:39 and 12:40.
    near(&alerts[0], "2026-03-11T12:01:00Z", "2026-03-11T12:39:30Z", 30);
    // 0.15% of a day are 130 s of outage: three minutes, seen at the next full five minutes by the next full two. The six
    // hours of the slow ticket leave the outage at 18:10.
    near(&alerts[1], "2026-03-11T12:06:00Z", "2026-03-11T18:09:30Z", 150);
    // 0.72% of an hour at 1% are 43.2 minutes. The half hour of the slow page has 0.3% until 08:21.
    near(&alerts[2], "2026-03-21T06:43:30Z", "2026-03-21T08:21:00Z", 30);
    // 6,000 and forty minutes at six.
    assert_eq!((alerts[2]["budget_spent_ratio"].as_f64().expect("a number") * 1e3).round(), 481.0);
    let ladder: Vec<String> = one["ladder"]
        .as_array()
        .expect("a ladder")
        .iter()
        .map(|rung| {
            let [pages, tickets] =
                ["pages_per_month", "tickets_per_month"].map(|key| rung[key].as_f64().expect("a number"));
            format!("{} {pages} {tickets}", rung["objective"].as_str().expect("text"))
        })
        .collect();
    assert_eq!(
        ladder,
        [
            "95% 0 0",
            "98% 0 0",
            "99% 1 0",
            "99.5% 1 0",
            "99.9% 1 1",
            "99.95% 2 1",
            "99.99% 2 2",
            "99.995% 2 2",
            "99.999% 2 2"
        ]
    );
    assert_eq!((&one["recommended"], &one["advice"]), (&"99.95%".into(), &"keep 99.95%".into()));

    // Two quiet days: half a percent is slow, which is half of the budget of 99%, and nobody is there.
    let days = ["--from", "2026-03-14T00:00:00Z", "--to", "2026-03-16T00:00:00Z", "--step", "1m"];
    let found = backtest(&config, &url, &days);
    assert_eq!(
        text(&found.stdout),
        "history from 2026-03-14T00:00:00Z to 2026-03-16T00:00:00Z, evaluated every 1m, coarser than the rules' 30s\n\n\
         shop/checkout/checkout-availability: availability 99.95% over 30d\n  requests  1728000, 0 of them bad (0%)\n  \
         budget    0% of 30d spent\n  pages     0\n  tickets   0\n  objective  pages/month  tickets/month  budget\n  \
         95%        0            0              0%\n  98%        0            0              0%\n  \
         99%        0            0              0%\n  99.5%      0            0              0%\n  \
         99.9%      0            0              0%\n  99.95%     0            0              0%  declared\n  \
         99.99%     0            0              0%\n  99.995%    0            0              0%\n  \
         99.999%    0            0              0%\n  recommended: 99.999%: it was kept, with 0 pages a month; 2d of history say little about 30d\n\n\
         shop/checkout/checkout-latency: latency 99% over 30d\n  requests  1728000, 8640 of them bad (0.5%)\n  \
         budget    3.33% of 30d spent\n  pages     0\n  tickets   0\n  objective  pages/month  tickets/month  budget\n  \
         95%        0            0              10%\n  98%        0            0              25%\n  \
         99%        0            0              50%  declared\n  99.5%      0            0              100%\n  \
         99.9%      0            15             500%\n  99.95%     15           15             1000%\n  \
         99.99%     15           15             5000%\n  99.995%    15           15             10000%\n  \
         99.999%    15           15             50000%\n  recommended: keep 99%; 2d of history say little about 30d\n  \
         (observed: the rules call nobody until mode = \"alert\")\n\n\
         shop/nobody/nobody: availability 99.9% over 30d\n  no data: no requests are counted of namespace=\"shop\", \
         workload=\"nobody\"; look for the name in red_requests_total\n"
    );

    let nobody =
        backtest(&config, &url, &["--slo", "nobody", "--to", "2026-04-03T00:00:00Z", "--last", "1d"]);
    assert_eq!(nobody.status.code(), Some(1), "a backtest of nothing is no success");
    assert!(text(&nobody.stdout).contains("\n  no data: "), "{}", text(&nobody.stdout));
    let later = backtest(
        &config,
        &url,
        &["--slo", "checkout-availability", "--to", "2026-06-03T00:00:00Z", "--last", "1d"],
    );
    assert_eq!(later.status.code(), Some(1));

    let suggested = nodewick(&["suggest", "--prometheus", &url, "--to", "2026-04-03T00:00:00Z"]);
    // The worst week holds the outage alone: 6,000 of 6,048,000. 99.95% was kept as a whole and not in that week.
    assert_eq!(
        text(&suggested.stdout),
        "# Suggested by `nodewick slo suggest` from 30d of history.\n\n\
         # shop/checkout: 25920000 requests in 30d, 600 a minute\n\
         # 6720 of them failed, 0.0259%; in the worst 7d 0.0992%\n\
         [slo.checkout-availability]\nmatch = { namespace = \"shop\", workload = \"checkout\" }\n\
         sli = \"availability\"\nobjective = \"99.9%\"\nwindow = \"30d\"\n\
         # 0.5% of them took longer than 250ms; in the worst 7d 0.5%\n\
         [slo.checkout-latency]\nmatch = { namespace = \"shop\", workload = \"checkout\" }\n\
         sli = \"latency\"\nobjective = \"99%\"\nthreshold = \"250ms\"\nwindow = \"30d\"\n"
    );
    let nowhere =
        nodewick(&["suggest", "--prometheus", &url, "--to", "2026-04-03T00:00:00Z", "--namespace", "x\"y"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(
        text(&nowhere.stderr).contains("has no red_requests_total of namespace \"x\\\"y\" within 30d"),
        "{}",
        text(&nowhere.stderr)
    );
}

fn number(value: &Value) -> i64 {
    value.as_f64().expect("a number").round() as i64
}

/// An alert starts and ends at these times, give or take some seconds.
fn near(alert: &Value, starts: &str, ends: &str, tolerance: i64) {
    for (key, wanted) in [("starts", starts), ("ends", ends)] {
        let time = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_second();
        let found = alert[key].as_str().expect("a time");
        assert!((time(found) - time(wanted)).abs() <= tolerance, "{key} {found}, not {wanted}: {alert}");
    }
}

/// A server that gives every request the same answer.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten().take(16) {
            let mut connection = connection;
            let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
            let mut seen = Vec::new();
            let mut piece = [0; 4096];
            // The whole request: its body is a form that ends with the step or the time.
            while let Ok(read @ 1..) = connection.read(&mut piece) {
                seen.extend_from_slice(&piece[..read]);
                let head = seen.windows(4).position(|four| four == b"\r\n\r\n");
                if head.is_some_and(|head| seen.len() > head + 4) {
                    break;
                }
            }
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn servers_that_fail_are_told_apart() {
    let (_directory, config) = config();
    let said = |url: &str| {
        let found =
            backtest(&config, url, &["--last", "1d", "--slo", "checkout-availability", "--timeout", "20s"]);
        assert_eq!((found.status.code(), text(&found.stdout)), (Some(1), String::new()));
        text(&found.stderr)
    };
    let refused = answering("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(
        said(&refused).contains("refuses us with 401; give a token with --token-file"),
        "{}",
        said(&refused)
    );
    let with_secret = said(&refused.replace("//", "//me:hunter2@"));
    assert!(with_secret.contains("401") && !with_secret.contains("hunter2"), "{with_secret}");
    let page = answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\n<html>");
    assert!(
        said(&page).contains("is not a Prometheus API: its answer is not that of a query (HTTP 200)"),
        "{}",
        said(&page)
    );
    let missing = answering("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(said(&missing).contains("it does not know /api/v1/query (HTTP 404)"), "{}", said(&missing));
    let broken = answering(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 62\r\n\r\n{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"no such\"}  ",
    );
    assert!(said(&broken).contains("cannot answer: no such; ask for less"), "{}", said(&broken));
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    assert!(said(&format!("http://{nobody}")).contains("cannot reach http://127.0.0.1:"));
    assert!(
        said("prometheus:9090").contains("it needs http:// or https://")
            || said("prometheus:9090").contains("not a URL")
    );
    let secret = said("http://me:hunter2@prometheus.example:9090");
    assert!(secret.contains("would travel in clear text") && !secret.contains("hunter2"), "{secret}");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let (_directory, config) = config();
    let said = |more: &[&str]| text(&backtest(&config, "http://127.0.0.1:9", more).stderr);
    assert!(said(&["--step", "45s"]).contains("--step 45s does not divide five minutes; give 30s, 1m or 5m"));
    assert!(said(&["--last", "5m"]).contains("give an hour at least and 400d at most"));
    assert!(
        said(&["--from", "2026-03-04T00:00:00Z", "--to", "2026-03-03T00:00:00Z"])
            .contains("cannot be replayed")
    );
    assert!(
        said(&["--slo", "x"]).contains(
            "no objective is called \"x\"; there are checkout-availability, checkout-latency, nobody"
        )
    );
    assert!(
        said(&["--timeout", "0s"]).contains("--timeout 0ms is too short for any answer"),
        "{}",
        said(&["--timeout", "0s"])
    );
}
