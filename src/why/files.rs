//! The same question about log files that applications write: by path, by the name of their source in `[logs.files]`, or
//! by the pod of a sidecar.
//!
//! In: the running agent's accounts and the files that the config's patterns match. Out: an [`Answer`] with one pod, which
//! stands for the source, and one container for each file. A key says what a log is of by its beginning
//! ([decision](https://github.com/nodewick/nodewick/blob/main/docs/design/0003-files.md)).

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::find::Question;
use super::gather::{self, Agent};
use super::verdict::{Facts, judge};
use super::{Account, Answer, Container, Files, Flow, Pod, letters, lines};
use crate::data::clock;
use crate::data::workload::ContainerRef;
use crate::doctor::Site;
use crate::logs::discover::Found;
use crate::logs::env::{Env, OpenError};
use crate::logs::files::{Sources, naming};
use crate::logs::os::Os;

/// Files that are told of.
const SHOWN: usize = 50;

/// A log: its path, source and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Log {
    source: String,
    path: String,
    key: String,
}

/// The path that is asked for.
fn path(question: &Question) -> Option<&str> {
    let asked = question.pod.as_str();
    ContainerRef::path_of_key(asked).or_else(|| asked.starts_with('/').then_some(asked))
}

/// True when the question can only be about files: a path, or the name of a source where no pod has it.
pub(super) fn is_about(site: &Site, question: &Question, is_pod: bool) -> bool {
    let names_source = site.config().logs.files.contains_key(&question.pod) && question.namespace.is_none();
    path(question).is_some() || names_source && !is_pod
}

/// Answers; `None` when no file is meant.
pub(super) fn ask(site: &Site, question: &Question, agent: &Agent) -> Option<Answer> {
    let logs = &site.config().logs;
    let sources = logs.sources().unwrap_or_default();
    let asked = path(question);
    let (namespace, name) = question.parts();
    let of_pod = |of: &Account| of.pod == name && namespace.is_none_or(|namespace| namespace == of.namespace);
    let mut found: BTreeMap<Log, Option<&Account>> = BTreeMap::new();
    for of in &agent.accounts {
        let Some(path) = ContainerRef::path_of_key(&of.uid) else { continue };
        let is_meant =
            asked.map_or_else(|| of.container == question.pod || of_pod(of), |asked| asked == path);
        if is_meant {
            let log = Log { source: of.container.clone(), path: path.to_owned(), key: of.uid.clone() };
            found.insert(log, Some(of));
        }
    }
    // What the agent follows it was told to follow, perhaps on its command line.
    let followed = found.keys().filter_map(|log| Some(Path::new(&log.path).parent()?.to_owned()));
    let roots = sources.roots().into_iter().chain(followed).collect();
    let os = Os::new(logs.root.clone(), logs.symlink_roots.clone(), Arc::default()).with_file_roots(roots);
    let mut on_disk = Found::default();
    sources.find(&os, &HashSet::new(), &|_| false, &mut on_disk);
    for candidate in on_disk.logs {
        let of = candidate.container;
        let path = candidate.path.to_string_lossy().into_owned();
        if asked.map_or_else(|| of.container == question.pod, |asked| asked == path) {
            found.entry(Log { key: of.key(), source: of.container, path }).or_insert(None);
        }
    }
    if found.is_empty() {
        let note = nothing(site, question, &sources)?;
        return Some(Answer {
            flowing: false,
            pods: Vec::new(),
            sinks: agent.sinks.clone(),
            note: Some(note),
            did_you_mean: logs.files.keys().filter(|_| asked.is_some()).take(5).cloned().collect(),
        });
    }
    let known: Vec<_> = found.keys().map(|log| (String::new(), String::new(), log.key.clone())).collect();
    let again = gather::again(site.client(), agent, &known);
    let more = found.len().saturating_sub(SHOWN);
    let mut pods: Vec<Pod> = Vec::new();
    for (log, account) in found.into_iter().take(SHOWN) {
        let container = of_file(site, &os, agent, &log, account, again.as_ref());
        if pods.last().is_none_or(|pod| pod.source.as_deref() != Some(log.source.as_str())) {
            let of = account.cloned().unwrap_or_default();
            pods.push(Pod {
                namespace: of.namespace,
                name: of.pod,
                source: Some(log.source.clone()),
                uid: String::new(),
                notes: Vec::new(),
                containers: Vec::new(),
                metrics: Vec::new(),
            });
        }
        if let Some(pod) = pods.last_mut() {
            pod.containers.push(container);
        }
    }
    let all = || pods.iter().flat_map(|pod| &pod.containers);
    Some(Answer {
        flowing: all().any(|of| of.flow == Flow::Flowing) && all().all(|of| of.flow != Flow::Stopped),
        sinks: agent.sinks.clone(),
        note: (more > 0).then(|| format!("{more} more files are not shown; ask for one by its path")),
        did_you_mean: Vec::new(),
        pods,
    })
}

fn of_file(
    site: &Site,
    os: &Os,
    agent: &Agent,
    log: &Log,
    account: Option<&Account>,
    again: Option<&(Vec<Account>, f64)>,
) -> Container {
    let config = site.config();
    let path = Path::new(&log.path);
    let mut files = files_of(path);
    let mut shape = None;
    match os.open(path) {
        Ok(file) => shape = lines::sample(&file).filter(|lines| lines.seen > 0),
        Err(OpenError::Missing) => {}
        Err(error) => {
            files.get_or_insert_default().refused = Some(error.to_string());
        }
    }
    let mut account = account.cloned();
    let mut moved = None;
    if let (Some(before), Some((after, seconds))) = (&mut account, again)
        && let Some(after) = after.iter().find(|of| of.uid == log.key)
    {
        moved = Some((after.sent_bytes.saturating_sub(before.sent_bytes), *seconds));
        before.clone_from(after);
    }
    let facts = Facts {
        agent: agent.answers,
        address: gather::address(site),
        is_file: true,
        files: files.as_ref(),
        account: account.as_ref(),
        moved,
        sinks: &agent.sinks,
        excluded: None,
    };
    let verdict = judge(&facts);
    let logql = account.as_ref().filter(|_| !config.sink.loki.is_empty());
    let logql = logql.map(|account| gather::logql_of_file(config, account, &log.path));
    let dead_letters = account
        .as_ref()
        .map(|of| letters::of(&config.agent.state_dir, &of.namespace, &of.pod, &of.container))
        .unwrap_or_default();
    Container {
        name: log.path.clone(),
        restart: 0,
        flow: verdict.flow,
        verdict: verdict.text,
        fix: verdict.fix,
        curl: logql.as_deref().and_then(|logql| gather::curl(config, account.as_ref(), logql)),
        logql,
        files,
        lines: shape,
        dead_letters,
        account,
    }
}

/// A file with what rotation left of it.
fn files_of(path: &Path) -> Option<Files> {
    let (dir, name) = (path.parent()?, path.file_name()?.to_str()?);
    let now = clock::since_epoch().as_secs() as i64;
    let mut found: Option<Files> = None;
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let Ok(other) = entry.file_name().into_string() else { continue };
        if other != name && !naming::live_names(&other).iter().any(|live| live == name) {
            continue;
        }
        let Some(meta) = entry.metadata().ok().filter(std::fs::Metadata::is_file) else { continue };
        let files = found.get_or_insert(Files { age_seconds: u64::MAX, ..Files::default() });
        files.count += 1;
        files.bytes += meta.len();
        files.age_seconds = files.age_seconds.min(u64::try_from(now - meta.mtime()).unwrap_or(0));
    }
    found
}

/// Why nothing was found, where the question is about files.
fn nothing(site: &Site, question: &Question, sources: &Sources) -> Option<String> {
    let files = &site.config().logs.files;
    let Some(asked) = path(question) else {
        let paths = files.get(&question.pod)?.paths.join(", ");
        return Some(format!("no file matches [logs.files.{}]: {paths}", question.pod));
    };
    if files.is_empty() {
        return Some(format!(
            "{asked} is not followed: the config has no [logs.files]; for a pod's log ask by the pod's name"
        ));
    }
    let key = format!("file:{asked}");
    let source = sources.container_of_key(&key).filter(|of| !of.container.is_empty());
    Some(match (source, PathBuf::from(asked).exists()) {
        (Some(of), false) => format!("{asked} is not there; [logs.files.{}] will follow it", of.container),
        (Some(of), true) => format!(
            "{asked} matches [logs.files.{}] and is not followed as a log of its own: a rotated file, a link, or no file",
            of.container
        ),
        (None, _) => format!("{asked} matches no source of [logs.files], or is excluded there"),
    })
}
