//! Checks of what the kernel grants: user, inotify, open files, features.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify;
use rustix::process::{Resource, getrlimit};

use super::{Check, Finding, Site, Stage};
use crate::logs::discover;
use crate::logs::os::Os;

pub(super) const USER: Check = Check {
    name: "user",
    looks_at: "The agent runs as uid 0, which reads root's log files, and has no more capabilities than it needs: none.",
    means: "The kubelet's logs belong to root. `runAsUser: 0` with `drop: [ALL]` is enough; a capability that is left only \
            helps an attacker.",
    pre: false,
    stage: Stage::Local,
    run: user,
};

pub(super) const INOTIFY: Check = Check {
    name: "inotify",
    looks_at: "The kernel grants an inotify instance and a watch for each pod's directory.",
    means: "Without them directories are polled every second: nothing is lost, new containers are seen later. Raise \
            `fs.inotify.max_user_instances` or `fs.inotify.max_user_watches` on the node.",
    pre: false,
    stage: Stage::Local,
    run: inotify,
};

pub(super) const OPEN_FILES: Check = Check {
    name: "open-files",
    looks_at: "The limit on open files is above the number of container logs.",
    means: "Below it quiet logs are closed and opened again: nothing is lost, it costs CPU. Raise `LimitNOFILE` of the \
            container runtime's service.",
    pre: false,
    stage: Stage::Local,
    run: open_files,
};

pub(super) const KERNEL: Check = Check {
    name: "kernel",
    looks_at: "The kernel has what hardens the agent: openat2 (5.6) and Landlock (5.13).",
    means: "Without openat2 links are refused by a weaker rule; without Landlock the process is not confined to its \
            directories. Nothing else changes.",
    pre: false,
    stage: Stage::Local,
    run: kernel,
};

/// Descriptors beside the log files: sockets, state, listeners, the watcher.
const OTHER_DESCRIPTORS: u64 = 40;

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.parse().ok()
}

/// A field of `/proc/self/status`.
fn status_field(site: &Site, name: &str) -> Option<String> {
    let status = read(&site.proc.join("self/status"))?;
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

fn user(site: &Site) -> Vec<Finding> {
    let uid = rustix::process::geteuid().as_raw();
    if uid != 0 {
        let fix =
            "securityContext: {runAsUser: 0, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
        let text = format!("uid {uid} cannot read the kubelet's logs, which are root's with mode 0640");
        return vec![Finding::warning(text, fix)];
    }
    let capabilities = status_field(site, "CapEff").and_then(|field| u64::from_str_radix(&field, 16).ok());
    if site.in_pod() && capabilities.is_some_and(|set| set != 0) {
        let fix = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
        return vec![Finding::warning("uid 0 with capabilities that it does not need", fix)];
    }
    let what = if capabilities == Some(0) { "uid 0 without capabilities" } else { "uid 0" };
    vec![Finding::ok(what)]
}

/// Container logs and the directories that are watched for them.
fn watched(site: &Site) -> Option<(u64, u64)> {
    let config = &site.config().logs;
    let os = Os::new(config.root.clone(), config.symlink_roots.clone(), Arc::default());
    let found = discover::list(&os, &config.root).ok()?;
    Some((found.logs.len() as u64, (found.directories.len() + found.empty.len()) as u64))
}

fn inotify(site: &Site) -> Vec<Finding> {
    let limits = site.proc.join("sys/fs/inotify");
    let needed = watched(site).map_or(1, |(_, directories)| directories);
    let instances = number(&limits.join("max_user_instances"));
    if inotify::init(inotify::CreateFlags::CLOEXEC).is_err() {
        let text = format!("no inotify instance is left (max_user_instances {})", instances.unwrap_or(0));
        let raised = instances.unwrap_or(128).max(128) * 4;
        return vec![Finding::warning(
            text,
            &format!("on the node: sysctl -w fs.inotify.max_user_instances={raised}"),
        )];
    }
    let missing = site.running().and_then(|agent| {
        agent
            .metrics
            .iter()
            .find(|sample| sample.name == "nodewick_log_watches_missing")
            .map(|s| s.value as u64)
    });
    let watches = number(&limits.join("max_user_watches")).unwrap_or(u64::MAX);
    let raised = (needed.saturating_mul(8)).max(65_536);
    let fix = format!("on the node: sysctl -w fs.inotify.max_user_watches={raised}");
    if let Some(missing) = missing.filter(|missing| *missing > 0) {
        return vec![Finding::warning(format!("the agent was refused {missing} directory watches"), &fix)];
    }
    if watches < needed.saturating_mul(2) {
        let text =
            format!("{watches} watches are allowed to all processes, {needed} are needed for the logs alone");
        return vec![Finding::warning(text, &fix)];
    }
    vec![Finding::ok(format!("{needed} of {watches} watches are needed"))]
}

fn open_files(site: &Site) -> Vec<Finding> {
    let limit = getrlimit(Resource::Nofile).maximum;
    let logs = watched(site).map_or(0, |(logs, _)| logs);
    let needed = logs + OTHER_DESCRIPTORS;
    match limit {
        Some(limit) if limit < needed => {
            let text =
                format!("{limit} open files are allowed, {needed} are needed for {logs} container logs");
            let fix = "on the node, in the container runtime's unit:\n[Service]\nLimitNOFILE=1048576";
            vec![Finding::warning(text, fix)]
        }
        Some(limit) => vec![Finding::ok(format!("{needed} needed, {limit} allowed"))],
        None => vec![Finding::ok(format!("{needed} needed, no limit"))],
    }
}

fn kernel(site: &Site) -> Vec<Finding> {
    let release = read(&site.proc.join("sys/kernel/osrelease")).unwrap_or_else(|| "unknown".to_owned());
    let resolve = rustix::fs::ResolveFlags::NO_MAGICLINKS;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(rustix::fs::CWD, "/", flags, rustix::fs::Mode::empty(), resolve);
    let has_openat2 = !matches!(opened, Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM));
    // Visible where securityfs is mounted; elsewhere the kernel's version tells.
    let modules = read(&site.sys.join("kernel/security/lsm"));
    let has_landlock = match &modules {
        Some(modules) => modules.split(',').any(|module| module == "landlock"),
        None => version(&release) >= (5, 13),
    };
    if !has_openat2 {
        let text = format!("Linux {release}: openat2 is missing or filtered");
        let fix = "use Linux 5.6 or later, and a seccomp profile that knows openat2 (RuntimeDefault of a current runtime)";
        return vec![Finding::warning(text, fix)];
    }
    if !has_landlock {
        let text = format!("Linux {release}: no Landlock");
        return vec![Finding::warning(
            text,
            "boot with landlock in the list of lsm=, or accept a process that is less confined",
        )];
    }
    let landlock = if modules.is_some() { "Landlock" } else { "Landlock by its version" };
    vec![Finding::ok(format!("Linux {release} with openat2 and {landlock}"))]
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_two_numbers() {
        assert_eq!(version("6.18.44-fc-v595"), (6, 18));
        assert_eq!(version("5.4"), (5, 4));
        assert_eq!(version("unknown"), (0, 0));
    }
}
