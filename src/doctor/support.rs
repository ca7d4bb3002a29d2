//! `nodewick support bundle`: what somebody who helps needs to know, in one archive.
//!
//! In: the site as the checks see it, and the running agent's pages. Out: a gzipped tar. Invariants: no log line, no
//! secret and no value of an environment variable is in it. Log files are named with their sizes and never opened; what
//! could repeat a secret (answers of backends, the effective config) is masked by the secrets' own texts as well.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::report::Colour;
use super::{Site, examine};
use crate::config::memory::cgroup_limit;
use crate::config::{Config, render};
use crate::data::clock;
use crate::logs::checkpoint;
use crate::sink::http::{Auth, Secret};
use crate::version;

/// Lines of a listing.
const LISTED: usize = 20_000;
/// What stands in place of a secret.
const MASK: &str = "<redacted>";

/// What is in the archive, and what is not.
pub const CONTENTS: &str = "\
what is in this archive
  version.txt       the program's version, revision and compiler
  config.toml       the effective config, every key; secrets are <redacted>
  doctor.txt .json  what `nodewick doctor` found
  health.txt        the running agent's health, if one answers
  metrics.txt       its metrics: numbers by sink, namespace, pod and container
  ledger.json       what became of each container log's bytes: names and numbers
  checkpoint.txt    how far each log is acknowledged: names and offsets
  logs.txt          names and sizes of the log files; none was opened for this
  state.txt         names and sizes of the files in the state directory
  environment.txt   names of environment variables; no values
  system.txt        kernel, cgroup, limits, file systems of the agent's directories

not in it: log lines, secrets, values of environment variables, the agent's own log
  names of namespaces, pods, containers, services, hosts and URLs are in it: look through it before you send it
  the agent's own log helps too: kubectl -n nodewick logs <pod> --since=1h
";

/// Collects everything, and writes the archive to `out`.
pub fn bundle(site: &Site, out: impl Write) -> io::Result<()> {
    let files = collect(site);
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    let now = clock::since_epoch().as_secs();
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("nodewick-support/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}

/// The files of the archive: name and text.
fn collect(site: &Site) -> Vec<(&'static str, String)> {
    let report = examine(site);
    let mut files = vec![
        ("README.txt", CONTENTS.to_owned()),
        ("version.txt", format!("nodewick {}\n", version::text())),
        ("config.toml", effective(site)),
        ("doctor.txt", report.text(Colour(false))),
        ("doctor.json", report.json()),
    ];
    if let Some(agent) = site.running() {
        let page = |path: &str| match agent.client.get(path) {
            Ok(page) => format!("{}\n", page.body.trim_end()),
            Err(error) => format!("{path}: {error}\n"),
        };
        files.push(("health.txt", page("/health/live?verbose") + &page("/health/ready?verbose")));
        files.push(("metrics.txt", page("/metrics")));
        files.push(("ledger.json", page("/ledger")));
    }
    let config = site.config();
    files.push(("checkpoint.txt", positions(&config.agent.state_dir)));
    files.push(("logs.txt", listing(&config.logs.root)));
    files.push(("state.txt", listing(&config.agent.state_dir)));
    let mut names: Vec<&str> = site.env.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    files.push(("environment.txt", names.join("\n") + "\n"));
    files.push(("system.txt", system(site)));
    let secrets = secrets(config);
    for (_, text) in &mut files {
        for secret in &secrets {
            if text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), MASK);
            }
        }
    }
    files
}

/// Every key of the effective config, secrets masked.
fn effective(site: &Site) -> String {
    let loaded = match &site.loaded {
        Ok(loaded) => loaded,
        Err(errors) => return format!("{errors}\n"),
    };
    let (mut out, mut table) = (String::new(), String::new());
    for setting in loaded.resolved() {
        if setting.table != table {
            let _ = writeln!(out, "\n[{}]", setting.table);
            table.clone_from(&setting.table);
        }
        if setting.key.is_empty() || setting.value.is_null() {
            continue;
        }
        let origin = setting.origin.map(|origin| format!("  # {origin}")).unwrap_or_default();
        let _ = writeln!(out, "{} = {}{origin}", setting.key, render::toml_value(&setting.value));
    }
    out
}

/// The texts of all secrets that the config knows, longest first. Short ones would mask half of every page.
fn secrets(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let mut of_auth = |auth: &Auth| {
        found.extend(auth.password.iter().chain(&auth.token).map(|secret| secret.expose().to_owned()));
        let oauth2 = auth.oauth2.as_ref();
        let granted =
            oauth2.into_iter().flat_map(|of| of.client_secret.iter().chain(of.endpoint_params.values()));
        found.extend(granted.map(|secret| secret.expose().to_owned()));
        let files = auth.password_file.iter().chain(&auth.token_file);
        for file in files.chain(oauth2.and_then(|of| of.client_secret_file.as_ref())) {
            found.extend(read_file(file));
        }
    };
    config.sink.loki.values().for_each(|sink| of_auth(&sink.auth));
    config.sink.otlp.values().for_each(|sink| of_auth(&sink.auth));
    let headers = config.sink.loki.values().map(|sink| &sink.headers);
    let headers = headers.chain(config.sink.otlp.values().map(|sink| &sink.headers));
    found.extend(headers.flat_map(|headers| headers.values()).map(|secret| secret.expose().to_owned()));
    let urls = config.sink.loki.values().map(|sink| sink.url.as_str());
    let urls = urls.chain(config.sink.otlp.values().map(|sink| sink.endpoint.as_str()));
    let proxies = config.sink.loki.values().filter_map(|sink| sink.proxy.as_ref());
    let proxies = proxies.chain(config.sink.otlp.values().filter_map(|sink| sink.proxy.as_ref()));
    for url in urls.chain(proxies.map(Secret::expose)) {
        if let Ok((_, Some((user, password)))) = crate::sink::http::parse_url(url) {
            found.push(password.expose().to_owned());
            found.push(format!("{user}:{}", password.expose()));
        }
    }
    found.extend(read_file(&config.kube.kubelet.token_file));
    found.retain(|secret| secret.chars().count() >= 4);
    found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    found.dedup();
    found
}

/// The secret in a file, where it can be read.
fn read_file(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Names, sizes and times below a directory; nothing is opened but directories, and no link is followed.
fn listing(root: &Path) -> String {
    let mut out = format!("{}\n", root.display());
    let (mut open, mut shown) = (vec![root.to_owned()], 0);
    while let Some(directory) = open.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                let _ = writeln!(out, "{}: {error}", directory.display());
                continue;
            }
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        names.sort();
        for path in names {
            if shown == LISTED {
                let _ = writeln!(out, "… and more");
                return out;
            }
            shown += 1;
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let name = super::report::printable(&name);
            if meta.is_dir() {
                open.push(path);
                continue;
            }
            use std::os::unix::fs::MetadataExt;
            let kind = if meta.file_type().is_symlink() {
                "link"
            } else if meta.is_file() {
                "file"
            } else {
                "other"
            };
            let changed =
                jiff::Timestamp::from_second(meta.mtime()).map(|at| at.to_string()).unwrap_or_default();
            let _ = writeln!(
                out,
                "{:>12} {kind:5} {:o} {}:{} inode {} {changed} {name}",
                meta.len(),
                meta.mode() & 0o7777,
                meta.uid(),
                meta.gid(),
                meta.ino()
            );
        }
    }
    out
}

/// The checkpoint, read without touching it.
fn positions(state_dir: &Path) -> String {
    match checkpoint::read(state_dir) {
        Ok(opened) => {
            let mut out = format!("{} logs\n", opened.marks.len());
            for name in &opened.corrupt {
                let _ = writeln!(out, "{name}: no slot can be read");
            }
            let mut marks: Vec<_> = opened.marks.iter().collect();
            marks.sort_by_key(|(key, _)| key.as_str());
            for (key, mark) in marks {
                let position = mark.position;
                let guessed = if mark.service_name_guessed { ", guessed" } else { "" };
                let _ = writeln!(
                    out,
                    "{key} file {} offset {} service {}{guessed}",
                    position.ordinal, position.offset, mark.traits.service_name
                );
            }
            out
        }
        Err(error) => format!("{}: {error}\n", state_dir.display()),
    }
}

/// What the kernel says of this machine and this process.
fn system(site: &Site) -> String {
    let mut out = String::new();
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let _ =
        writeln!(out, "kernel {} {} {}", text(uname.sysname()), text(uname.release()), text(uname.machine()));
    let _ = writeln!(
        out,
        "uid {} gid {}",
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw()
    );
    match cgroup_limit() {
        Some(limit) => drop(writeln!(out, "memory limit {limit}")),
        None => drop(writeln!(out, "no memory limit")),
    }
    for (root, files) in [
        (
            &site.proc,
            &[
                "self/cgroup",
                "self/limits",
                "loadavg",
                "meminfo",
                "sys/fs/inotify/max_user_instances",
                "sys/fs/inotify/max_user_watches",
                "pressure/io",
                "pressure/cpu",
                "pressure/memory",
            ][..],
        ),
        (
            &site.sys,
            &[
                "fs/cgroup/cpu.max",
                "fs/cgroup/cpu.stat",
                "fs/cgroup/memory.max",
                "fs/cgroup/memory.current",
                "fs/cgroup/memory.events",
                "kernel/security/lsm",
                "fs/selinux/enforce",
            ][..],
        ),
    ] {
        for file in files {
            if let Ok(text) = std::fs::read_to_string(root.join(file)) {
                let _ = writeln!(out, "\n== {}\n{}", root.join(file).display(), text.trim_end());
            }
        }
    }
    let status = std::fs::read_to_string(site.proc.join("self/status")).unwrap_or_default();
    let wanted = ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Threads"];
    for line in status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))) {
        let _ = writeln!(out, "{line}");
    }
    let config = site.config();
    for dir in [&config.logs.root, &config.agent.state_dir] {
        if let (Ok(space), Ok(kind)) = (rustix::fs::statvfs(dir), rustix::fs::statfs(dir)) {
            let _ = writeln!(
                out,
                "\n{}: file system 0x{:x}, {} bytes of {} free, {} inodes of {} free",
                dir.display(),
                kind.f_type,
                space.f_bavail * space.f_frsize,
                space.f_blocks * space.f_frsize,
                space.f_favail,
                space.f_files
            );
        }
    }
    out
}
