//! What the real agent gives up before it reads anything, and that it still does its work.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

#[path = "faults/secure.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fault rows use the rest")]
mod secure;
#[path = "support/mod.rs"]
mod support;

use secure::{Authority, Front};
use support::agent::{Agent, Settings};
use support::cri_writer::{ContainerLog, Pipe};
use support::fake_loki::{FakeLoki, Limits, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

fn logs(dir: &Path) -> ContainerLog {
    ContainerLog::create(&dir.join("pods"), "shop_api-1_u1", "api", 0).expect("a log")
}

fn said(agent: &Agent) -> String {
    fs::read_to_string(agent.directory().join("agent.log")).expect("its output")
}

/// True where the kernel of this machine has Landlock: what is in force must then be said to be.
fn has_landlock() -> bool {
    fs::read_to_string("/sys/kernel/security/lsm").map_or_else(
        // Without securityfs, ask the kernel's symbols, which every user may list.
        |_| fs::read_to_string("/proc/kallsyms").is_ok_and(|names| names.contains("landlock_create_ruleset")),
        |list| list.contains("landlock"),
    )
}

#[test]
fn every_thread_has_no_new_privileges_and_a_crash_leaves_no_core() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = FakeLoki::start(Limits::default());
    let _log = logs(dir.path());
    let settings = Settings {
        rest: format!("[sink.loki.a]\nurl = {:?}\n", backend.url()),
        // What a careless host allows.
        under: ["prlimit", "--core=unlimited"].map(str::to_owned).to_vec(),
        ..Settings::default()
    };
    let home = dir.path().join("agent");
    let mut agent = Agent::prepare(&home, &dir.path().join("pods"), &settings);
    agent.launch();
    agent.wait_ready();
    let line = said(&agent);
    let line = line.lines().find(|line| line.contains("hardening: ")).expect("it says what is in force");
    assert!(line.contains("no_new_privs, no core dumps"), "{line}");
    assert_eq!(line.contains("hardening: landlock abi "), has_landlock(), "{line}");
    let proc = Path::new("/proc").join(agent.pid().expect("runs").as_raw_nonzero().to_string());
    let mut threads = 0;
    for task in fs::read_dir(proc.join("task")).expect("its threads") {
        let status = fs::read_to_string(task.expect("a thread").path().join("status")).expect("readable");
        assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
        threads += 1;
    }
    assert!(threads >= 4, "reading, checkpoints, sinks, and the one that started them: {threads}");
    let limits = fs::read_to_string(proc.join("limits")).expect("readable");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("listed");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    agent.signal(Signal::ABORT);
    assert!(wait_until(PATIENCE, || !agent.runs()), "a crash is a crash");
    for place in [home.clone(), dir.path().to_owned(), std::env::current_dir().expect("here")] {
        for entry in fs::read_dir(place).expect("listed") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            assert!(!name.starts_with("core"), "{name}");
        }
    }
}

#[test]
fn a_crash_is_not_dumped_whatever_the_limit_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let _log = logs(dir.path());
    let config = dir.path().join("agent.toml");
    let text = format!(
        "[agent]\nstate_dir = {:?}\n[logs]\nroot = {:?}\n[admin]\nlisten = \"off\"\n[sink.stdout.o]\n",
        dir.path().join("state"),
        dir.path().join("pods")
    );
    fs::write(&config, text).expect("written");
    let mut child = std::process::Command::new("prlimit")
        .args(["--core=unlimited", env!("CARGO_BIN_EXE_nodewick"), "run", "-c"])
        .arg(&config)
        .current_dir(dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let lock = dir.path().join("state/lock");
    assert!(wait_until(PATIENCE, || lock.exists()));
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a process id");
    rustix::process::kill_process(pid, Signal::ABORT).expect("our own child");
    let status = child.wait().expect("our own child");
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped(), "the kernel says that it wrote a dump");
}

#[test]
fn lines_are_delivered_over_tls_by_name_from_inside_the_sandbox() {
    let dir = tempfile::tempdir().expect("a directory");
    let (backend, authority) =
        (FakeLoki::start(Limits { auth: true, ..Limits::default() }), Authority::new());
    let front = Front::start(authority.server("localhost"));
    front.lead_to(&backend.url());
    let url = front.url().replace("127.0.0.1", "localhost");
    let log = logs(dir.path());
    // As a mounted secret: the file is a link that leads through a directory with a date, exchanged as a whole.
    let volume = dir.path().join("certs");
    let put = |version: &str, pem: &str| {
        fs::create_dir_all(volume.join(version)).expect("made");
        fs::write(volume.join(version).join("ca.pem"), pem).expect("written");
        std::os::unix::fs::symlink(version, volume.join("..data_tmp")).expect("linked");
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("swapped");
    };
    put("..1", &authority.pem());
    std::os::unix::fs::symlink("..data/ca.pem", volume.join("ca.pem")).expect("linked");
    // The platform's own roots, from where the environment says.
    let platform = dir.path().join("platform.pem");
    fs::write(&platform, authority.pem()).expect("written");
    let settings = Settings {
        rest: format!(
            "[sink.loki.own]\nurl = {url:?}\ntenant = \"o\"\ntls.ca_file = {:?}\n[sink.loki.platform]\nurl = {url:?}\ntenant = \"p\"\n",
            volume.join("ca.pem")
        ),
        env: vec![("SSL_CERT_FILE".to_owned(), platform.display().to_string())],
        ..Settings::default()
    };
    let mut agent = Agent::prepare(&dir.path().join("agent"), &dir.path().join("pods"), &settings);
    agent.launch();
    agent.wait_ready();
    let arrived = |line: &str, tenants: usize| {
        let streams = backend.streams();
        let has = |labels: &str| backend.lines(labels).iter().any(|known| known == line);
        streams
            .iter()
            .filter(|(_, labels)| has(labels))
            .map(|(tenant, _)| tenant)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
            >= tenants
    };
    log.write_line(Pipe::Stdout, b"by tls").expect("written");
    assert!(wait_until(PATIENCE, || arrived("by tls", 2)), "{}\n{:?}", said(&agent), backend.streams());
    // Another authority takes over, and its certificate arrives as the kubelet brings it.
    let successor = Authority::new();
    front.exchange(successor.server("localhost"));
    put("..2", &successor.pem());
    log.write_line(Pipe::Stdout, b"by the next").expect("written");
    assert!(wait_until(PATIENCE, || arrived("by the next", 1)), "{}", said(&agent));
    assert!(agent.terminate().success());
}

#[test]
fn links_that_lead_out_of_the_log_root_are_not_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = FakeLoki::start(Limits::default());
    let log = logs(dir.path());
    let secret = dir.path().join("shadow");
    fs::write(&secret, "2026-11-22T14:00:00Z stdout F canary-shadow\n").expect("written");
    let other = dir.path().join("elsewhere");
    fs::create_dir_all(&other).expect("made");
    fs::write(other.join("0.log"), "2026-11-22T14:00:00Z stdout F canary-dir\n").expect("written");
    let pods = dir.path().join("pods");
    for (pod, container) in [("shop_evil-1_u2", "api"), ("shop_evil-2_u3", "")] {
        fs::create_dir_all(pods.join(pod).join(container)).expect("made");
    }
    let link = |to: &Path, from: &Path| std::os::unix::fs::symlink(to, from).expect("linked");
    link(&secret, &pods.join("shop_evil-1_u2/api/0.log"));
    link(Path::new("/etc/shadow"), &pods.join("shop_evil-1_u2/api/1.log"));
    link(&other, &pods.join("shop_evil-2_u3/api"));
    link(&other, &pods.join("shop_evil-3_u4"));
    fs::hard_link(&secret, pods.join("shop_evil-1_u2/api/2.log")).expect("linked");
    let rest = format!("[sink.loki.a]\nurl = {:?}\n", backend.url());
    let mut agent = Agent::start(&dir.path().join("agent"), &pods, &rest);
    agent.wait_ready();
    log.write_line(Pipe::Stdout, b"an honest line").expect("written");
    let lines = || {
        let streams = backend.streams();
        streams.iter().flat_map(|(_, labels)| backend.lines(labels)).collect::<Vec<_>>()
    };
    assert!(wait_until(PATIENCE, || lines().iter().any(|line| line == "an honest line")));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(lines(), ["an honest line"]);
    assert!(agent.metric("nodewick_log_skipped_files_total").is_some_and(|count| count >= 3.0));
}

#[test]
fn a_reload_that_leads_out_of_the_sandbox_is_refused_with_the_remedy() {
    if !has_landlock() {
        return;
    }
    for landlock in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = FakeLoki::start(Limits::default());
        let log = logs(dir.path());
        let outside = tempfile::tempdir().expect("another directory");
        fs::write(outside.path().join("tenant"), "team-a").expect("written");
        let settings = Settings {
            agent: format!("landlock = {landlock}"),
            rest: format!("[sink.loki.a]\nurl = {:?}\n", backend.url()),
            ..Settings::default()
        };
        let mut agent = Agent::prepare(&dir.path().join("agent"), &dir.path().join("pods"), &settings);
        agent.launch();
        agent.wait_ready();
        let file = agent.directory().join("agent.toml");
        let before = fs::read_to_string(&file).expect("written");
        let token = format!("{before}auth.token_file = {:?}\n", outside.path().join("token"));
        let tenant = format!("{before}tenant = \"${{file:{}}}\"\n", outside.path().join("tenant").display());
        fs::write(&file, token).expect("written");
        let words = |words: &str, times: usize| {
            let in_time =
                wait_until(Duration::from_secs(12), || said(&agent).matches(words).count() >= times);
            assert!(in_time, "{words:?}, with landlock = {landlock}:\n{}", said(&agent));
        };
        if landlock {
            words("auth.token_file: ", 1);
            words("is outside of what this process may read since its start (Landlock); restart nodewick", 1);
            fs::write(&file, tenant).expect("written");
            words("this process may read only what the config named at its start (Landlock)", 1);
        } else {
            words("reading goes on\"", 1);
            fs::write(&file, tenant).expect("written");
            words("reading goes on\"", 2);
        }
        log.write_line(Pipe::Stdout, b"goes on").expect("written");
        let streams = || backend.streams();
        assert!(wait_until(PATIENCE, || streams()
            .iter()
            .any(|(_, labels)| !backend.lines(labels).is_empty())));
        assert!(agent.terminate().success());
    }
}

#[test]
fn host_figures_are_read_and_red_is_kept_from_inside_the_sandbox() {
    let dir = tempfile::tempdir().expect("a directory");
    let _log = logs(dir.path());
    let host = dir.path().join("host");
    fs::create_dir_all(host.join("proc")).expect("made");
    fs::create_dir_all(host.join("sys/fs/cgroup")).expect("made");
    fs::write(host.join("proc/loadavg"), "7.25 0.25 0.125 1/80 1\n").expect("written");
    let rest = format!(
        "[host]\nenabled = true\nroot = {host:?}\ninterval = \"1s\"\n[red]\ninterval = \"1s\"\n[sink.stdout.o]\n"
    );
    let mut agent = Agent::start(&dir.path().join("agent"), &dir.path().join("pods"), &rest);
    agent.wait_ready();
    let page = || agent.get("/metrics/workloads").map(|(_, page)| page).unwrap_or_default();
    let shown = wait_until(PATIENCE, || {
        page().lines().any(|line| line.starts_with("node_load1{") && line.ends_with(" 7.25"))
    });
    assert!(shown, "{}\n{}", page(), said(&agent));
    assert!(!said(&agent).contains("RED"), "its counters are durable: {}", said(&agent));
    assert!(agent.terminate().success());
}
