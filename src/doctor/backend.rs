//! The check of the backends: each sink by name, as far as it can be reached and takes our credentials.
//!
//! The last question of each is one that changes nothing there: a push without streams, an export without records. Loki
//! answers it with 422 once it has accepted credentials and tenant, and with 401 or 403 before.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::probe::{Endpoint, Trouble};
use super::{Check, Finding, Site, Stage, Status, certificate};
use crate::data::batch::Fields;
use crate::data::clock;
use crate::sink::deliver::Transport as _;
use crate::sink::otlp::{Protocol, Signal};
use crate::sink::{Answer, Wire, http as outgoing, loki, otlp, remote_write};

pub(super) const SINKS: Check = Check {
    name: "sinks",
    looks_at: "Each backend: its name resolves, it can be connected to, its certificate is trusted, is for that name and is \
               valid for 14 days and more, and it takes our credentials and tenant. The last question is a push without \
               streams or an export without records, for each signal that is sent there, which stores nothing.",
    means: "A sink that fails holds the logs back: they wait on disk, then in the spill. The line says at which step it ends.",
    pre: true,
    stage: Stage::Network,
    run: sinks,
};

/// A certificate that ends sooner deserves a look.
const SOON: i64 = 14 * 24 * 3600;

fn sinks(site: &Site) -> Vec<Finding> {
    let config = site.config();
    let mut findings = Vec::new();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, sink) in &config.sink.loki {
            threads.push((
                format!("loki.{name}"),
                scope.spawn(move || of_loki(site, &format!("loki.{name}"), sink)),
            ));
        }
        for (name, sink) in &config.sink.otlp {
            threads.push((
                format!("otlp.{name}"),
                scope.spawn(move || of_otlp(site, &format!("otlp.{name}"), sink)),
            ));
        }
        for (name, sink) in &config.sink.remote_write {
            threads.push((
                format!("remote_write.{name}"),
                scope.spawn(move || of_remote_write(site, &format!("remote_write.{name}"), sink)),
            ));
        }
        for (subject, thread) in threads {
            let found = thread.join().unwrap_or_default();
            findings.extend(found.into_iter().map(|finding| finding.about(&subject)));
        }
    });
    for name in config.sink.stdout.keys() {
        findings.push(Finding::ok("JSON lines on standard output").about(format!("stdout.{name}")));
    }
    for (name, store) in config.sink.stores() {
        let dir = store.directory(name, &config.agent.state_dir);
        let size = crate::config::memory::Human(store.max_bytes.0);
        let text = format!("the store in {}, at most {size}", dir.display());
        findings.push(Finding::ok(text).about(format!("local.{name}")));
    }
    findings
}

/// What a sink's config says of its endpoint.
struct Target<'a> {
    subject: &'a str,
    table: String,
    http: outgoing::Config,
    h2: bool,
    /// What it is to take: logs, metrics.
    what: &'static str,
    /// Path and query of the GET that asks for the time and for readiness.
    ask: String,
}

fn of_loki(site: &Site, subject: &str, config: &loki::Config) -> Vec<Finding> {
    let http = outgoing::Config { timeouts: hasty(&config.timeouts), ..config.http() };
    let client = match config.client().and_then(|_| Ok(outgoing::Client::new(&config.push_url(), &http)?)) {
        Ok(client) => client,
        Err(error) => return vec![unusable(subject, &error)],
    };
    let ask = client.url().path().trim_end_matches("/loki/api/v1/push").to_owned() + "/ready";
    let target = Target { subject, table: format!("sink.{subject}"), http, h2: false, ask, what: "logs" };
    let mut body = Vec::new();
    loki::Loki::new(None, false, Fields::NONE).encode(&[], &mut body);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    if let Some(tenant) = config.tenant.as_deref().and_then(|tenant| HeaderValue::from_str(tenant).ok()) {
        headers.insert(HeaderName::from_static("x-scope-orgid"), tenant);
    }
    let push = async { client.post(headers, Bytes::from(body)).await };
    look(site, &target, &client, push, config.tenant.is_some(), true)
}

fn of_otlp(site: &Site, subject: &str, config: &otlp::Config) -> Vec<Finding> {
    let takes = [Signal::Logs, Signal::Metrics].into_iter().filter(|signal| config.takes(*signal));
    let mut findings = Vec::new();
    for signal in takes {
        let mut found = of_otlp_signal(site, subject, config, signal);
        let is_fine = found.iter().all(|finding| finding.status == Status::Ok);
        // One line for a backend that takes everything, at the first signal; what else is wrong is told by signal.
        if findings.is_empty() || !is_fine {
            findings.append(&mut found);
        }
        if !is_fine {
            break;
        }
    }
    findings
}

fn of_otlp_signal(site: &Site, subject: &str, config: &otlp::Config, signal: Signal) -> Vec<Finding> {
    let http = outgoing::Config { timeouts: hasty(&config.timeouts), ..config.http() };
    let hasty = otlp::Config { timeouts: hasty(&config.timeouts), ..config.clone() };
    let built = hasty.build(Fields::NONE).and_then(|(wire, _)| Ok((wire, hasty.transport(signal)?)));
    let ((mut wire, transport), client) =
        match built.and_then(|built| Ok((built, outgoing::Client::new(&config.url_of(signal), &http)?))) {
            Ok(both) => both,
            Err(error) => return vec![unusable(subject, &error)],
        };
    let ask = client.url().path().to_owned();
    let h2 = config.protocol == Protocol::Grpc;
    let what = if signal == Signal::Logs { "logs" } else { "metrics" };
    let target = Target { subject, table: format!("sink.{subject}"), http, h2, ask, what };
    let mut body = Vec::new();
    // An export of nothing is the same bytes for both signals.
    wire.encode(&[], &mut body);
    let export = async { transport.send(config.tenant.as_deref(), Bytes::from(body)).await };
    look(site, &target, &client, export, config.tenant.is_some(), config.is_loki())
}

fn of_remote_write(site: &Site, subject: &str, config: &remote_write::Config) -> Vec<Finding> {
    let http = outgoing::Config { timeouts: hasty(&config.timeouts), ..config.http() };
    let client = match config.client().and_then(|_| Ok(outgoing::Client::new(&config.url, &http)?)) {
        Ok(client) => client,
        Err(error) => return vec![unusable(subject, &error)],
    };
    let ask = client.url().path().to_owned();
    let target = Target { subject, table: format!("sink.{subject}"), http, h2: false, ask, what: "samples" };
    let (headers, body) = config.question();
    let write = async { client.post(headers, body).await };
    look(site, &target, &client, write, config.tenant.is_some(), false)
}

/// Nobody waits half a minute for a doctor's answer.
fn hasty(timeouts: &outgoing::Timeouts) -> outgoing::Timeouts {
    let least =
        |span: crate::data::units::Span| crate::data::units::Span(span.0.min(Duration::from_secs(10)));
    outgoing::Timeouts { connect: timeouts.connect, total: least(timeouts.total), idle: least(timeouts.idle) }
}

fn unusable(subject: &str, error: &dyn std::fmt::Display) -> Finding {
    Finding::failure(error.to_string(), &format!("change [sink.{subject}]"))
}

fn look(
    site: &Site,
    target: &Target<'_>,
    client: &outgoing::Client,
    question: impl Future<Output = Answer>,
    has_tenant: bool,
    is_loki: bool,
) -> Vec<Finding> {
    let shown = client.shown_url();
    let mut warnings = Vec::new();
    let mut way_there = String::new();
    match client.proxy() {
        Some(proxy) => way_there = format!(" through the proxy {proxy}"),
        None => {
            let endpoint = Endpoint {
                url: client.url(),
                tls: &target.http.tls,
                table: target.table.clone(),
                timeout: target.http.timeouts.connect.0,
                h2: target.h2,
            };
            let way = match endpoint.walk() {
                Ok(way) => way,
                Err(Trouble { text, fix }) => return vec![Finding::failure(text, &fix)],
            };
            if let Some(end) = way.valid_until {
                way_there = format!(", certificate until {}", certificate::day(end));
                warnings.extend(ends_soon(end, now()));
            }
            if !target.h2 {
                let begun = Instant::now();
                let headers = site.block_on(client.headers()).and_then(Result::ok);
                let got = headers.and_then(|headers| way.get(&target.ask, &headers).ok());
                if let Some(got) = got {
                    if let Some(date) = &got.date {
                        site.saw_clock(target.subject, date, begun.elapsed().as_secs_f64());
                    }
                    // A gateway without that page answers 404.
                    if is_loki && target.ask.ends_with("/ready") && got.status == 503 {
                        let text = format!("{shown}: not ready: {}", first_line(&got.body));
                        warnings.push(Finding::warning(
                            text,
                            "a Loki that has just started is ready after 15 s; else see its logs",
                        ));
                    }
                }
            }
        }
    }
    let begun = Instant::now();
    let Some(answer) = site.block_on(question) else {
        return vec![Finding::failure(
            format!("{shown}: the system refuses a thread"),
            "see the limits on processes (pids.max)",
        )];
    };
    let took = begun.elapsed().as_millis();
    let finding = match judge(&answer, &target.table, target.what, has_tenant, is_loki) {
        Ok(()) => Finding::ok(format!("{shown}{way_there}, takes our requests ({took} ms)")),
        Err(Trouble { text, fix }) => Finding::failure(format!("{shown}{way_there}: {text}"), &fix),
    };
    let mut findings = vec![finding];
    findings.append(&mut warnings);
    findings
}

fn ends_soon(end: i64, now: i64) -> Option<Finding> {
    let left = end - now;
    let days = left / (24 * 3600);
    (left < SOON).then(|| {
        Finding::warning(
            format!("its certificate ends in {days} days, on {}", certificate::day(end)),
            "renew the backend's certificate",
        )
    })
}

fn now() -> i64 {
    clock::since_epoch().as_secs() as i64
}

fn first_line(text: &str) -> String {
    text.trim().lines().next().unwrap_or_default().chars().take(160).collect()
}

/// How to send the other signal only.
fn other_signal(table: &str, what: &str) -> String {
    let other = if what == "metrics" { "logs" } else { "metrics" };
    format!("\nif it takes no {what}:\n[{table}]\nsignals = [\"{other}\"]")
}

/// What the answer to the empty request says of the way, the credentials and the tenant.
fn judge(answer: &Answer, table: &str, what: &str, has_tenant: bool, is_loki: bool) -> Result<(), Trouble> {
    let trouble = |text: String, fix: String| Err(Trouble { text, fix });
    let credentials = format!(
        "give or renew the credentials; a file is read again when it changes:\n[{table}.auth]\ntoken_file = \
         \"/var/run/secrets/nodewick/token\""
    );
    match answer {
        Answer::Unreachable { error } => trouble(
            error.clone(),
            "the connection opens and then fails: see the backend's and any gateway's logs".to_owned(),
        ),
        Answer::Grpc { code: 0, .. } => Ok(()),
        Answer::Grpc { code: code @ (7 | 16), body, .. } => trouble(
            format!(
                "our credentials are refused (gRPC status {code}): {}",
                first_line(&String::from_utf8_lossy(body))
            ),
            credentials,
        ),
        Answer::Grpc { code: 12, .. } => trouble(
            format!("it has no OTLP {what} service (gRPC status 12)"),
            format!("enable the {what} pipeline of its OTLP receiver{}", other_signal(table, what)),
        ),
        Answer::Grpc { code, body, .. } => trouble(
            format!("gRPC status {code}: {}", first_line(&String::from_utf8_lossy(body))),
            "see the backend's logs".to_owned(),
        ),
        Answer::Http { status, body, .. } => {
            let body = String::from_utf8_lossy(body);
            let said = first_line(&body);
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            // Protobuf of OTLP around the text is no trouble: it is looked for anywhere.
            let accepted = *status == 422 || body.contains("at least one valid stream");
            match status {
                200..=299 => Ok(()),
                _ if is_loki && accepted => Ok(()),
                401 if body.contains("no org id") => trouble(
                    "401: Loki wants a tenant (no org id)".to_owned(),
                    format!("[{table}]\ntenant = \"<your tenant>\""),
                ),
                401 | 403 => {
                    let tenant = if has_tenant {
                        "\nis the tenant one that these credentials may write to?"
                    } else {
                        ""
                    };
                    trouble(
                        format!("our credentials are refused ({status}){said}"),
                        format!("{credentials}{tenant}"),
                    )
                }
                404 | 405 if table.starts_with("sink.remote_write") => trouble(
                    format!("{status}: nothing takes samples at this path{said}"),
                    "Prometheus takes them at /api/v1/write once it runs with --web.enable-remote-write-receiver, \
                     VictoriaMetrics at /api/v1/write, Mimir at /api/v1/push, Thanos at /api/v1/receive"
                        .to_owned(),
                ),
                404 | 405 => trouble(
                    format!("{status}: nothing takes {what} at this path"),
                    if is_loki {
                        "give Loki's base URL; /loki/api/v1/push is appended; is a gateway in between that routes it?".to_owned()
                    } else {
                        format!(
                            "give the base URL; /v1/{what} is appended for http/protobuf; is this the OTLP port (4318)?{}",
                            other_signal(table, what)
                        )
                    },
                ),
                300..=399 => trouble(
                    format!("{status}: it redirects, which is not followed"),
                    "give the URL that it redirects to, often https:// instead of http://".to_owned(),
                ),
                400 if body.contains("HTTP request to an HTTPS server") => {
                    trouble("it speaks TLS on this port".to_owned(), "use https://".to_owned())
                }
                429 | 500..=599 => trouble(
                    format!("{status}{said}"),
                    "the backend is overloaded or starting; see its logs".to_owned(),
                ),
                _ => {
                    trouble(format!("{status}{said}"), "see the backend's and any gateway's logs".to_owned())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(status: u16, body: &str) -> Answer {
        Answer::Http { status, retry_after: None, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn text(answer: &Answer, is_loki: bool) -> String {
        judge(answer, "sink.loki.main", "logs", false, is_loki)
            .map_or_else(|trouble| trouble.text, |()| "fine".to_owned())
    }

    #[test]
    fn lokis_answers_to_nothing_are_understood() {
        let nothing = "error at least one valid stream is required for ingestion\n";
        for (answer, expected) in [
            (http(422, nothing), "fine"),
            (http(204, ""), "fine"),
            (http(401, "no org id\n"), "401: Loki wants a tenant (no org id)"),
            (http(401, ""), "our credentials are refused (401)"),
            (http(403, "denied\nmore"), "our credentials are refused (403): denied"),
            (http(404, "404 page not found"), "404: nothing takes logs at this path"),
            (http(302, ""), "302: it redirects, which is not followed"),
            (http(400, "Client sent an HTTP request to an HTTPS server.\n"), "it speaks TLS on this port"),
            (http(500, "empty ring"), "500: empty ring"),
        ] {
            assert_eq!(text(&answer, true), expected);
        }
        let otlp = http(422, "\u{12}\u{39}error at least one valid stream is required for ingestion");
        assert_eq!(text(&otlp, true), "fine");
        assert_eq!(text(&http(422, "what?"), false), "422: what?", "only Loki answers so");
    }

    #[test]
    fn a_prometheus_without_its_receiver_is_told_how_to_open_it() {
        let answer =
            http(404, "remote write receiver needs to be enabled with --web.enable-remote-write-receiver");
        let trouble =
            judge(&answer, "sink.remote_write.main", "samples", false, false).expect_err("it is not open");
        assert!(
            trouble.text.starts_with("404: nothing takes samples at this path: remote write"),
            "{}",
            trouble.text
        );
        assert!(trouble.fix.contains("--web.enable-remote-write-receiver"));
    }

    #[test]
    fn grpc_answers_are_understood() {
        let grpc = |code, body: &'static str| Answer::Grpc {
            code,
            retry_after: None,
            body: Bytes::from_static(body.as_bytes()),
        };
        assert_eq!(text(&grpc(0, ""), false), "fine");
        assert_eq!(
            text(&grpc(16, "no token"), false),
            "our credentials are refused (gRPC status 16): no token"
        );
        assert_eq!(text(&grpc(12, ""), false), "it has no OTLP logs service (gRPC status 12)");
        assert_eq!(text(&grpc(13, "broken"), false), "gRPC status 13: broken");
        let trouble = judge(&grpc(12, ""), "sink.otlp.m", "metrics", false, false).expect_err("no metrics");
        assert_eq!(trouble.text, "it has no OTLP metrics service (gRPC status 12)");
        assert!(trouble.fix.ends_with("[sink.otlp.m]\nsignals = [\"logs\"]"), "{}", trouble.fix);
    }

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_its_end() {
        let day = 24 * 3600;
        assert_eq!(ends_soon(1_800_000_000, 1_800_000_000 - 15 * day), None);
        let found = ends_soon(1_800_000_000, 1_800_000_000 - 13 * day).expect("a warning");
        assert_eq!(found.text, "its certificate ends in 13 days, on 2027-01-15");
    }
}
