//! Rows 31 to 34 and 44: names, certificates, tokens, clocks, and lines that would be more than lines.
//!
//! Client certificates (of row 32) and row 35 (OTLP) are proven in `tests/http_client.rs` and `tests/otlp_sink.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::gate::{Gate, Way};
use crate::node::Load;
use crate::report::{Pass, Row};
use crate::rig::{Rig, Scale, Setup};
use crate::rows_backend::{HOUR, SECOND, boundless, dead_letters, stamp_ago};
use crate::secure::{Authority, Front};
use crate::support::agent::Settings;
use crate::support::cri_writer::Pipe;
use crate::support::fake_loki::Limits;

/// What a name server says.
#[derive(Debug, Clone, Copy)]
enum Says {
    Nothing,
    NoSuchName,
    Address(Ipv4Addr),
}

/// A name server that says the same of every name. Ends when dropped.
struct Names {
    says: Arc<Mutex<Says>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// A resolver looks for its server at port 53, which takes root.
    fn start(address: Ipv4Addr, says: Says) -> std::io::Result<Self> {
        let socket = UdpSocket::bind((address, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (says, stop) = (Arc::new(Mutex::new(says)), Arc::new(AtomicBool::new(false)));
        let (said, stopped) = (Arc::clone(&says), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !stopped.load(Ordering::Acquire) {
                let Ok((len, from)) = socket.recv_from(&mut packet) else { continue };
                let says = *said.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(answer) = answer(&packet[..len], says) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self { says, stop, thread: Some(thread) })
    }

    fn say(&self, says: Says) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A response to a query of one question (RFC 1035, section 4).
fn answer(query: &[u8], says: Says) -> Option<Vec<u8>> {
    let name = query.get(12..)?.iter().position(|byte| *byte == 0)? + 13;
    let question = query.get(12..name + 4)?;
    let wants_v4 = question[question.len() - 4..] == [0, 1, 0, 1];
    let (code, address) = match says {
        Says::Nothing => return None,
        Says::NoSuchName => (3, None),
        Says::Address(address) => (0, Some(address).filter(|_| wants_v4)),
    };
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    out.extend(question);
    if let Some(address) = address {
        // A pointer to the question's name, type A, class IN, a lifetime of one second.
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}

#[test]
fn row_31_names_that_do_not_resolve() {
    let scale = Scale::of_run();
    let mut row = Row::begin(
        31,
        "DNS timeout, NXDOMAIN, changed address",
        "a name server of the test's own, in a mount namespace of the agent's",
    );
    let server = Ipv4Addr::new(127, 31, 31, 31);
    let names = match Names::start(server, Says::Nothing) {
        Ok(names) => names,
        Err(error) => return row.skip(&format!("needs root for port 53 of the loopback network: {error}")),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let resolv = directory.path().join("resolv.conf");
    fs::write(&resolv, format!("nameserver {server}\noptions timeout:1 attempts:1\n")).expect("written");
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv.display());
    let under: Vec<String> = ["unshare", "--mount", "sh", "-c", &script, "agent"].map(str::to_owned).into();
    let works = Command::new(&under[0]).args(&under[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        return row.skip("needs a mount namespace");
    }
    let gate = Gate::start();
    let port = gate.address().port();
    let moved = Gate::start_at(SocketAddr::from(([127, 31, 31, 32], port)));
    let sink = format!(
        "[sink.loki.main]\nurl = \"http://loki.nodewick.test:{port}\"\ntimeouts.connect = \"1500ms\"\ntimeouts.total = \"3s\"\n"
    );
    let agent = Settings { under, ..Settings::default() };
    let load = Load { lines_per_second: scale.pick(200, 20_000), ..scale.load() };
    let mut rig = Rig::start(Setup { load, agent, sink: Some(sink), ..Setup::default() });
    gate.lead_to(&rig.loki.url());
    moved.lead_to(&rig.loki.url());
    rig.node.start();
    std::thread::sleep(scale.time(1500));
    names.say(Says::NoSuchName);
    std::thread::sleep(scale.time(1500));
    let flows = |rig: &Rig| {
        let (before, began) = (rig.oracle.distinct(), Instant::now());
        rig.wait(Duration::from_secs(40), || rig.oracle.distinct() > before + 20);
        began.elapsed()
    };
    row.check(rig.oracle.distinct() == 0, "lines arrived without a name");
    names.say(Says::Address(Ipv4Addr::LOCALHOST));
    let back = flows(&rig);
    // The backend moves: its old address refuses, the new one is what the name says now.
    names.say(Says::Address(Ipv4Addr::new(127, 31, 31, 32)));
    gate.set(Way::Refused);
    let followed = flows(&rig);
    rig.node.pause();
    rig.fault_ends();
    let outcome = rig.settle();
    row.note(format!(
        "back {:.1} s after the name, at the new address {:.1} s after the move; a connection lives 5 min at most",
        back.as_secs_f64(),
        followed.as_secs_f64()
    ));
    row.check(back <= Duration::from_secs(30), format!("back after {back:?}"));
    row.check(followed <= Duration::from_secs(30), format!("at the new address after {followed:?}"));
    row.finish(&outcome, Pass::default());
}

/// Publishes a file as the kubelet does with a Secret: a new directory, then `..data` is swapped to it.
fn publish(volume: &Path, version: u32, file: &str, text: &str) {
    let fresh = volume.join(format!("..version_{version}"));
    fs::create_dir_all(&fresh).expect("a directory");
    fs::write(fresh.join(file), text).expect("written");
    let temporary = volume.join("..data_tmp");
    symlink(fresh.file_name().expect("a name"), &temporary).expect("a link");
    fs::rename(temporary, volume.join("..data")).expect("swapped");
    if version == 0 {
        symlink(format!("..data/{file}"), volume.join(file)).expect("a link");
    } else {
        fs::remove_dir_all(volume.join(format!("..version_{}", version - 1))).expect("removed");
    }
}

#[test]
fn row_32_certificates_that_are_exchanged() {
    let scale = Scale::of_run();
    let mut row = Row::begin(
        32,
        "TLS: server certificate, authority, wrong name",
        "each exchanged under load, the authority's file by `..data` as the kubelet does",
    );
    let (old, new) = (Authority::new(), Authority::new());
    let volume = tempfile::tempdir().expect("a directory");
    publish(volume.path(), 0, "ca.pem", &old.pem());
    let front = Front::start(old.server("127.0.0.1"));
    let sink = format!(
        "[sink.loki.main]\nurl = \"{}\"\ntls.ca_file = {:?}\n",
        front.url(),
        volume.path().join("ca.pem")
    );
    let load = Load { lines_per_second: scale.pick(200, 20_000), ..scale.load() };
    let mut rig = Rig::start(Setup { load, sink: Some(sink), ..Setup::default() });
    front.lead_to(&rig.loki.url());
    rig.node.start();
    let flows = |rig: &Rig| {
        let (before, began) = (rig.oracle.distinct(), Instant::now());
        let flows = rig.wait(Duration::from_secs(61), || rig.oracle.distinct() > before + 20);
        flows.then(|| began.elapsed())
    };
    let seconds = |time: Option<Duration>| time.map_or(f64::INFINITY, |time| time.as_secs_f64());
    row.check(flows(&rig).is_some(), "nothing arrives before the fault");
    front.exchange(old.server("127.0.0.1"));
    let renewed = flows(&rig);
    row.check(renewed.is_some(), "nothing arrives at a renewed certificate");
    // A server that nobody is told to trust yet gets nothing.
    front.exchange(new.server("127.0.0.1"));
    let before = front.received();
    std::thread::sleep(scale.time(1000));
    row.check(front.received() == before, "an untrusted server was sent a request");
    publish(volume.path(), 1, "ca.pem", &new.pem());
    let trusted = flows(&rig);
    row.check(trusted.is_some(), "the new authority is not trusted within 60 s");
    front.exchange(new.server("elsewhere.example"));
    let before = front.received();
    std::thread::sleep(scale.time(1000));
    row.check(front.received() == before, "a server of another name was sent a request");
    // Half a file is no reason to trust nobody.
    publish(volume.path(), 2, "ca.pem", "-----BEGIN CERTIFICATE-----\nMIIB");
    front.exchange(new.server("127.0.0.1"));
    let back = flows(&rig);
    row.check(back.is_some(), "the last good authority is not kept");
    rig.node.pause();
    rig.fault_ends();
    let outcome = rig.settle();
    row.note(format!(
        "back after {:.1} s with a renewed certificate, {:.1} s after the new authority's file, {:.1} s after the right name",
        seconds(renewed),
        seconds(trusted),
        seconds(back)
    ));
    row.check(rig.agent.runs(), "the agent has ended");
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_33_tokens_that_are_rotated() {
    let scale = Scale::of_run();
    let rotations = scale.pick(3, 10);
    let mut row = Row::begin(
        33,
        "401 and 403, rotated token",
        format!("{rotations} rotations: the backend wants the new token before the file has it"),
    );
    let volume = tempfile::tempdir().expect("a directory");
    publish(volume.path(), 0, "token", "token-0\n");
    let limits = Limits { authorization: Some("Bearer token-0".to_owned()), ..boundless() };
    let sink_keys = format!("auth.token_file = {:?}", volume.path().join("token"));
    let mut rig = Rig::start(Setup { limits, sink_keys, ..Setup::default() });
    rig.node.start();
    let mut slowest = Duration::ZERO;
    for version in 1..=rotations {
        let before = rig.oracle.distinct();
        row.check(
            rig.wait(scale.settle(), || rig.oracle.distinct() > before + 100),
            format!("nothing arrives before rotation {version}"),
        );
        rig.loki.limit(|limits| limits.authorization = Some(format!("Bearer token-{version}")));
        std::thread::sleep(scale.time(700));
        publish(volume.path(), version, "token", &format!("token-{version}\n"));
        let (began, before) = (Instant::now(), rig.oracle.distinct());
        row.check(
            rig.wait(Duration::from_secs(61), || rig.oracle.distinct() > before),
            format!("rotation {version} is not noticed within 60 s"),
        );
        slowest = slowest.max(began.elapsed());
    }
    rig.node.pause();
    rig.fault_ends();
    let refused = rig.loki.requests().iter().filter(|seen| seen.status == 401).count();
    let outcome = rig.settle();
    row.note(format!("{refused} × 401; back {:.1} s after a new file at most", slowest.as_secs_f64()));
    row.check(refused >= rotations as usize, "no request was refused");
    let gone = outcome.rose("nodewick_records_lost_total");
    row.check(gone == 0.0, format!("{gone} lines refused for good"));
    row.check(!rig.agent.said().contains("token-"), "a token is in what the agent says");
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_34_stamps_of_another_time() {
    let scale = Scale::of_run();
    let rounds = scale.pick(40, 4000);
    let mut row = Row::begin(
        34,
        "Old and future timestamps",
        format!("{rounds} lines of 8 days ago and {rounds} of in an hour, among others"),
    );
    let mut rig = Rig::start(Setup::default());
    rig.oracle.accept_foreign(|text| text.starts_with("STAMPED-"));
    let hand = rig.node.add("clock", "clock", 9010, "main");
    rig.node.start();
    let pause = scale.time(2500) / rounds;
    for number in 0..rounds {
        hand.write();
        for (what, ago) in [("OLD", 8 * 24 * HOUR), ("NEW", -HOUR - SECOND * i128::from(number))] {
            let line = format!("{} stdout F STAMPED-{what}-{number}\n", stamp_ago(ago));
            hand.log.write_raw(line.as_bytes()).expect("written");
        }
        std::thread::sleep(pause);
    }
    rig.node.pause();
    rig.fault_ends();
    let outcome = rig.settle();
    let page = rig.agent.get("/metrics").map(|answer| answer.1).unwrap_or_default();
    let lost = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        let line = page
            .lines()
            .find(|line| line.starts_with("nodewick_records_lost_total{") && line.contains(&label));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u32
    };
    let (old, new) = (lost("too_old"), lost("too_new"));
    let letters = dead_letters(&rig);
    row.note(format!("{old} too_old, {new} too_new, {} dead letters", letters.len()));
    row.check((old, new) == (rounds, rounds), format!("{old} counted too_old, {new} too_new"));
    let numbers: BTreeSet<_> = letters.iter().filter_map(|letter| letter["line"].as_str()).collect();
    row.check(numbers.len() == 2 * rounds as usize, format!("{} different dead letters", numbers.len()));
    row.check(
        numbers.iter().all(|line| line.starts_with("STAMPED-")),
        "a line of the present is a dead letter",
    );
    row.check(outcome.tally.worst_latency_millis <= 5000, "lines waited behind those of another time");
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_44_lines_that_would_be_more_than_lines() {
    let scale = Scale::of_run();
    let rounds = scale.pick(20, 2000);
    let mut row = Row::begin(
        44,
        "Hostile log content",
        "JSON with the agent's own names, tenants, trace ids, duplicate keys, 10,000 levels, 1e308, templates",
    );
    let mut rig = Rig::start(Setup { keep: true, ..Setup::default() });
    rig.oracle.accept_foreign(|text| text.contains("EVIL-"));
    let hand = rig.node.add("evil", "evil", 9011, "main");
    hand.write();
    rig.load_for(Duration::from_millis(500));
    rig.wait_arrived(scale.settle());
    let streams: BTreeSet<_> = rig.loki.streams().into_iter().collect();
    let deep = format!("{{\"msg\":\"EVIL-deep\",\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let lines = [
        r#"{"msg":"EVIL-names","k8s.namespace.name":"kube-system","namespace":"kube-system","pod":"root","node":"other","cluster":"other","container":"other","service_name":"other","level":30}"#,
        r#"{"msg":"EVIL-tenant","__tenant__":"admin","tenant":"admin","X-Scope-OrgID":"admin","__path__":"/etc/shadow"}"#,
        r#"{"msg":"EVIL-trace","trace_id":"00000000000000000000000000000000","span_id":"0000000000000000"}"#,
        r#"{"msg":"EVIL-trace-2","trace_id":"not hex at all {}\",x=\"y","traceId":["a"],"span_id":{}}"#,
        r#"{"msg":"EVIL-twice","level":30,"level":"fatal","msg":"EVIL-twice-2","pod":"a","pod":"b"}"#,
        r#"{"msg":"EVIL-number","level":1e308,"time":-1e308,"ts":1e999,"severity":-0.0}"#,
        "EVIL-template {{ .Values.secret }} ${jndi:ldap://127.0.0.1/x} %n%s %(x)s {}",
        "EVIL-labels {namespace=\"kube-system\", pod=\"x\"} \\\"} | json",
        "\u{1b}[31mEVIL-ansi\u{1b}[0m\u{202e}\u{0}",
        &deep,
    ];
    let before = cpu_ticks(&rig);
    for _ in 0..rounds {
        for line in lines {
            hand.log.write_line(Pipe::Stdout, line.as_bytes()).expect("written");
        }
        std::thread::sleep(scale.time(800) / rounds);
    }
    let wanted = lines.len() * rounds as usize;
    let arrived = rig.wait(scale.settle(), || rig.oracle.foreign().len() >= wanted);
    let ticks = cpu_ticks(&rig) - before;
    rig.fault_ends();
    let outcome = rig.settle();
    let foreign = rig.oracle.foreign();
    row.check(arrived && foreign.len() == wanted, format!("{} of {wanted} lines arrived", foreign.len()));
    let as_written =
        lines.iter().all(|line| foreign.iter().filter(|text| text == line).count() == rounds as usize);
    row.check(as_written, "a line arrived otherwise than written");
    let now: BTreeSet<_> = rig.loki.streams().into_iter().collect();
    row.check(now == streams, format!("new streams: {:?}", now.difference(&streams).collect::<Vec<_>>()));
    row.check(rig.loki.requests().iter().all(|seen| seen.tenant.is_empty()), "a tenant was sent");
    for entry in rig.loki.entries("namespace=\"evil\"") {
        let of = |name: &str| entry.metadata.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str());
        row.check(of("pod") == Some("evil-7d9f8b6c5-x2k42"), format!("pod {:?}", of("pod")));
        let junk = |id: &str, len| {
            id.len() != len || !id.bytes().all(|b| b.is_ascii_hexdigit()) || id.bytes().all(|b| b == b'0')
        };
        row.check(of("trace_id").is_none_or(|id| !junk(id, 32)), format!("trace {:?}", of("trace_id")));
        row.check(of("span_id").is_none_or(|id| !junk(id, 16)), format!("span {:?}", of("span_id")));
    }
    row.note(format!("{wanted} lines, {ticks} ticks of CPU"));
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

/// Processor time of the agent so far, in clock ticks.
fn cpu_ticks(rig: &Rig) -> u64 {
    let pid = rig.agent.pid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split(' ').skip(12).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}
