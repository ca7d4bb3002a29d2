//! Checks of the log root: that it is there, is the kubelet's, and that every log can be opened.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::report::several;
use super::{Check, Finding, Site, Stage};
use crate::logs::discover::{self, Candidate};
use crate::logs::env::{Env, LogFile, OpenError};
use crate::logs::files::{self, Around, Sources};
use crate::logs::os::Os;

pub(super) const LOG_ROOT: Check = Check {
    name: "log-root",
    looks_at: "`[logs] root` is mounted, laid out as the kubelet does it, and every container log can be read.",
    means: "The directory is the node's `/var/log/pods`, mounted read-only. The logs belong to root with mode 0640: uid 0 \
            without any capability reads them. A denial for uid 0 comes from SELinux or AppArmor: \
            `securityContext.seLinuxOptions.type: spc_t`, or a policy that lets containers read `container_log_t`.",
    pre: true,
    stage: Stage::Local,
    run: log_root,
};

pub(super) const LOG_LINKS: Check = Check {
    name: "log-links",
    looks_at: "With docker the log files are links; their targets lie below `[logs] symlink_roots` and are mounted.",
    means: "Mount the directory that the links lead to at the same path (docker: `/var/lib/docker/containers`, read-only), \
            and name it in `[logs] symlink_roots`. Links to other places are never followed.",
    pre: true,
    stage: Stage::Local,
    run: log_links,
};

pub(super) const LOG_FILES: Check = Check {
    name: "log-files",
    looks_at: "The patterns of each `[logs.files]` source match files, and these can be read.",
    means: "A source without files ships nothing: see the paths, and that the volume is mounted in this container too. Files \
            of another user need its uid (`runAsUser`), or a volume whose `fsGroup` makes them readable. Links and files \
            with several names are never followed.",
    pre: false,
    stage: Stage::Local,
    run: log_files,
};

/// Logs that are opened to see what they are; more would take long on a crowded node.
const OPENED: usize = 1000;

fn mount(path: &Path) -> String {
    format!(
        "mount the node's directory:\nvolumeMounts: [{{name: pods, mountPath: {0}, readOnly: true}}]\nvolumes: [{{name: \
         pods, hostPath: {{path: {0}}}}}]",
        path.display()
    )
}

/// The logs below the root, with the eyes of the agent.
fn logs(site: &Site) -> (Os, std::io::Result<Vec<Candidate>>) {
    let config = &site.config().logs;
    let os = Os::new(config.root.clone(), config.symlink_roots.clone(), Arc::default());
    let found = discover::list(&os, &config.root).map(|found| found.logs);
    (os, found)
}

/// What else refuses a read that uid 0 may do.
fn is_confined(site: &Site) -> bool {
    let is = |file: &str, text: &str| {
        std::fs::read_to_string(site.sys.join(file)).is_ok_and(|found| found.trim() == text)
    };
    is("fs/selinux/enforce", "1") || is("module/apparmor/parameters/enabled", "Y")
}

fn denied(site: &Site) -> &'static str {
    if !rustix::process::geteuid().is_root() {
        "run as uid 0, no capability is needed:\nsecurityContext: {runAsUser: 0, capabilities: {drop: [ALL]}}"
    } else if is_confined(site) {
        "uid 0 is refused: SELinux or AppArmor confines this container; see `ausearch -m avc -ts recent` on the \
         node\nsecurityContext: {seLinuxOptions: {type: spc_t}}"
    } else {
        "uid 0 is refused: see the mode and owner of the directory on the node, and the mount's options"
    }
}

fn log_root(site: &Site) -> Vec<Finding> {
    // Files or a process are what this agent is for.
    if !site.config().logs.reads_pods() {
        return Vec::new();
    }
    let root = &site.config().logs.root;
    let shown = root.display();
    let (os, found) = logs(site);
    let found = match found {
        // A laptop has no pods.
        Err(error) if site.pre && error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let fix = match error.kind() {
                ErrorKind::NotFound => mount(root),
                ErrorKind::PermissionDenied => denied(site).to_owned(),
                _ => "change [logs] root (NODEWICK_LOGS_ROOT) to the kubelet's directory of pod logs"
                    .to_owned(),
            };
            return vec![Finding::failure(format!("cannot read {shown}: {error}"), &fix)];
        }
        Ok(found) => found,
    };
    if found.is_empty() {
        return vec![empty(site, root)];
    }
    let (mut pods, mut runtimes, mut refused) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for log in &found {
        pods.insert(&log.container.uid);
    }
    for log in found.iter().take(OPENED) {
        match os.open(&log.path) {
            Ok(file) => {
                let mut begin = Vec::new();
                if file.read_at(0, 1, &mut begin).is_ok_and(|read| read > 0) {
                    runtimes.insert(if begin[0] == b'{' { "docker" } else { "CRI" });
                }
            }
            Err(OpenError::Io(error)) => refused.push((log, error)),
            // Gone meanwhile; links are another check's.
            Err(OpenError::Missing | OpenError::Symlink) => {}
            Err(error @ (OpenError::NotRegular | OpenError::HardLink)) => {
                refused.push((log, std::io::Error::other(error.to_string())));
            }
        }
    }
    let runtimes: Vec<&str> = runtimes.into_iter().collect();
    let what = if runtimes.is_empty() {
        "all empty".to_owned()
    } else {
        format!("{} format", runtimes.join(" and "))
    };
    let (logs, pods) = (several(found.len(), "container log"), several(pods.len(), "pod"));
    let summary = format!("{shown}: {logs} of {pods}, {what}");
    match refused.first() {
        None => vec![Finding::ok(summary)],
        Some((first, error)) => {
            let path = first.path.strip_prefix(root).unwrap_or(&first.path).display();
            let text = format!(
                "{} of {} container logs cannot be read: {path}: {error}",
                refused.len(),
                found.len().min(OPENED)
            );
            let fix = match error.kind() {
                ErrorKind::PermissionDenied => denied(site),
                _ => "the agent passes such files over and counts them (nodewick_log_skipped_files_total)",
            };
            vec![if refused.len() == found.len() {
                Finding::failure(text, fix)
            } else {
                Finding::warning(text, fix)
            }]
        }
    }
}

/// A root without container logs: too new, or not the kubelet's.
fn empty(site: &Site, root: &Path) -> Finding {
    let names: Vec<String> = std::fs::read_dir(root)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .take(1000)
                .collect()
        })
        .unwrap_or_default();
    let shown = root.display();
    if names.iter().any(|name| name == "pods") {
        let fix = format!("[logs]\nroot = \"{}\"", root.join("pods").display());
        return Finding::failure(format!("{shown} has no pod logs, but {shown}/pods may"), &fix);
    }
    if names.iter().any(|name| name.ends_with(".log")) {
        let text = format!("{shown} is not laid out as <namespace>_<pod>_<uid>/<container>/<restart>.log");
        return Finding::failure(
            text,
            "use the kubelet's directory, not /var/log/containers:\n[logs]\nroot = \"/var/log/pods\"",
        );
    }
    let text = format!("{shown} is empty: no pod of this node has logs");
    let fix = if site.in_pod() {
        format!("this pod itself should have some; {}", mount(root))
    } else {
        "on a node with pods, see that the kubelet writes there (podLogsDir)".to_owned()
    };
    Finding::warning(text, &fix)
}

fn log_files(site: &Site) -> Vec<Finding> {
    let files = site.config().logs.files.iter();
    files
        .filter_map(|(name, config)| Some(source(name, config)?.about(format!("logs.files.{name}"))))
        .collect()
}

/// One source of log files.
fn source(name: &str, config: &files::Config) -> Option<Finding> {
    let one = BTreeMap::from([(name.to_owned(), config.clone())]);
    // One that cannot be compiled is the config's finding.
    let sources = Sources::compile(&one, Around::default()).ok()?;
    let roots = sources.roots();
    let os = Os::new(PathBuf::new(), Vec::new(), Arc::default()).with_file_roots(roots.clone());
    let mut found = discover::Found::default();
    sources.find(&os, &HashSet::new(), &|_| false, &mut found);
    let paths = config.paths.join(", ");
    // What cannot be listed may have files all the same.
    let unlisted = roots.iter().find_map(|root| Some((root, std::fs::read_dir(root).err()?)));
    if found.logs.is_empty() {
        let (text, fix) = match unlisted {
            Some((root, error)) if error.kind() == ErrorKind::NotFound => (
                format!("no file matches {paths}: {} does not exist", root.display()),
                "mount the application's volume in this container too, at the same path; or mend the path"
                    .to_owned(),
            ),
            Some((root, error)) => (
                format!("no file matches {paths}: cannot list {}: {error}", root.display()),
                readable().to_owned(),
            ),
            None => (
                format!("no file matches {paths}"),
                format!("has the application written yet? else mend [logs.files.{name}] paths and exclude"),
            ),
        };
        return Some(Finding::warning(text, &fix));
    }
    let opened = found.logs.iter().take(OPENED);
    let refused: Vec<(&Candidate, String)> = opened
        .filter_map(|log| match os.open(&log.path) {
            Ok(_) | Err(OpenError::Missing) => None,
            Err(error) => Some((log, error.to_string())),
        })
        .collect();
    let Some((first, error)) = refused.first() else {
        return Some(Finding::ok(format!("{} of {paths}", several(found.logs.len(), "readable file"))));
    };
    let all = found.logs.len().min(OPENED);
    let text = format!(
        "{} of {} cannot be read: {}: {error}",
        refused.len(),
        several(all, "file"),
        first.path.display()
    );
    Some(if refused.len() == all {
        Finding::failure(text, readable())
    } else {
        Finding::warning(text, readable())
    })
}

/// What makes files of others readable.
const fn readable() -> &'static str {
    "run as the application's user, or let a group read them:\nsecurityContext: {runAsUser: <its uid>} or {fsGroup: <its group>}"
}

fn log_links(site: &Site) -> Vec<Finding> {
    let config = &site.config().logs;
    let (os, found) = logs(site);
    let linked: Vec<Candidate> = found.unwrap_or_default().into_iter().filter(|log| log.linked).collect();
    if linked.is_empty() {
        return Vec::new();
    }
    let mut outside: Option<String> = None;
    let mut failed = 0;
    for log in linked.iter().take(OPENED) {
        if os.open(&log.path).is_err() {
            failed += 1;
            if outside.is_none() {
                outside = std::fs::read_link(&log.path).ok().map(|target| target.display().to_string());
            }
        }
    }
    let roots: Vec<String> = config.symlink_roots.iter().map(|root| root.display().to_string()).collect();
    let roots = roots.join(", ");
    if failed == 0 {
        return vec![Finding::ok(format!("{} logs are links into {roots}", linked.len()))];
    }
    let target = outside.unwrap_or_default();
    let known = config.symlink_roots.iter().find(|root| Path::new(&target).starts_with(root));
    let (text, fix) = match known {
        Some(root) => (
            format!(
                "{failed} of {} logs are links into {}, which is not mounted",
                linked.len(),
                root.display()
            ),
            format!(
                "mount it at the same path:\nvolumeMounts: [{{name: targets, mountPath: {0}, readOnly: true}}]\nvolumes: \
                 [{{name: targets, hostPath: {{path: {0}}}}}]",
                root.display()
            ),
        ),
        None => {
            let parent = Path::new(&target).parent().and_then(Path::parent).unwrap_or(Path::new("/"));
            (
                format!(
                    "{failed} of {} logs are links to places that are not allowed, such as {target}",
                    linked.len()
                ),
                format!(
                    "if these are the runtime's files, allow and mount them:\n[logs]\nsymlink_roots = [\"{}\"]",
                    parent.display()
                ),
            )
        }
    };
    vec![Finding::failure(text, &fix)]
}
