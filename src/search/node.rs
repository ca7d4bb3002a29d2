//! The logs of a node, as a search meets them.
//!
//! In: the same config and the same knowledge of pods that the agent reads logs by. Out: for each log that may hold what is
//! looked for its files in order, live, rotated, compressed and spilled, handed to [`Log`](super::log::Log).
//! Invariants: a log that an annotation or the config switches off is not opened; one whose pod is not known yet is not
//! either, since its annotations are not.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::job::{Cut, Job};
use super::log::{Log, Wanted};
use super::needle::Needle;
use crate::data::batch::Fields;
use crate::data::clock;
use crate::data::workload::{ContainerRef, Handling, Identify, Identity, Workload};
use crate::logs::chain::{self, Open, Which};
use crate::logs::discover::{self, Candidate, Found};
use crate::logs::env::OpenError;
use crate::logs::files::Sources;
use crate::logs::files::naming::Naming;
use crate::logs::ingest::Settings;
use crate::logs::os::{Os, OsFile};
use crate::logs::registry::Registry;
use crate::logs::resume;
use crate::logs::source::{Source, Spilled};
use crate::logs::spill::Spill;
use crate::sink::local::Filter;

/// A line without these could not be shown: the local store keeps them too.
const IDENTITY: Fields = Fields::POD.with(Fields::STREAM).with(Fields::LEVEL);

/// What is read on this node, and how.
pub struct Node {
    /// Directory of the pods' logs; `None` where they are not read.
    pub root: Option<PathBuf>,
    /// Where links may lead.
    pub symlink_roots: Vec<PathBuf>,
    /// How lines become records; `None` when the rules cannot be compiled. Made anew for each search: limits begin to count. Its chain should count nothing.
    pub settings: Box<dyn Fn() -> Option<Settings> + Send + Sync>,
    /// Files of applications.
    pub sources: Arc<Sources>,
    /// Who wrote a log.
    pub identify: Mutex<Box<dyn Identify>>,
    /// The logs that are followed.
    pub registry: Arc<Registry>,
    /// What was kept of deleted files.
    pub spill: Arc<Spill>,
    /// Namespace and name of the agent's own pod, where it is left out.
    pub own_pod: Option<(String, String)>,
}

impl Node {
    /// Gives `job` all records that `filter` accepts.
    pub(super) fn search(&self, filter: &Filter, job: &mut Job) -> Result<(), Cut> {
        let os = Os::unwatched(self.root.clone().unwrap_or_default(), self.symlink_roots.clone())
            .with_file_roots(self.sources.roots());
        let Some(settings) = (self.settings)() else {
            // Reading goes on by rules that were compiled before; without them nothing may be shown.
            job.skip("all", "the processing rules cannot be compiled");
            return Err(Cut::Stopping);
        };
        let needle = match (&filter.trace, &filter.grep) {
            (Some(trace), _) => Needle::of_trace(trace),
            (None, Some(grep)) => Needle::of_pattern(grep.as_str(), &settings.chain),
            (None, None) => None,
        };
        let wanted = Wanted {
            filter,
            needle: needle.as_ref(),
            settings: &settings,
            fields: settings.fields.with(IDENTITY),
            now: clock::since_epoch().as_nanos() as u64,
        };
        for candidate in self.candidates(&os, job) {
            job.check()?;
            if !self.may_be_about(filter, &candidate.container) {
                continue;
            }
            let key: Arc<str> = candidate.container.key().into();
            let path: Arc<str> = candidate.path.to_string_lossy().into();
            let (workload, handling) = match self.who(&candidate.container, &key) {
                Ok(known) => known,
                Err(reason) => {
                    job.skip(&path, reason);
                    continue;
                }
            };
            if !filter.accepts_workload(&workload) {
                continue;
            }
            let files = match self.open(&os, &candidate, &key) {
                Ok(files) if files.is_empty() => continue,
                Ok(files) => files,
                Err(error) => {
                    job.skip(&path, &error.to_string());
                    continue;
                }
            };
            job.begin_log()?;
            let framing = self.sources.framing_of(&candidate.container);
            Log::new(&wanted, workload, handling, framing, path, files.into_iter()).run(job)?;
            job.end_log()?;
        }
        Ok(())
    }

    /// All logs, those that were written to last before the others.
    fn candidates(&self, os: &Os, job: &mut Job) -> Vec<Candidate> {
        let mut found = Found::default();
        if let Some(root) = &self.root {
            match discover::list(os, root) {
                Ok(listed) => found = listed,
                Err(error) => job.skip(&root.to_string_lossy(), &error.to_string()),
            }
        }
        self.sources.find(os, &self.registry.files(), &|_| false, &mut found);
        let known: HashSet<String> = found.logs.iter().map(|log| log.container.key()).collect();
        for key in self.spill.keys().into_iter().filter(|key| !known.contains(&**key)) {
            let container = ContainerRef::from_key(&key).or_else(|| self.sources.container_of_key(&key));
            let Some(container) = container else { continue };
            let path = match (ContainerRef::path_of_key(&key), &self.root) {
                (Some(path), _) => path.into(),
                (None, Some(root)) => root.join(format!("{key}.log")),
                (None, None) => continue,
            };
            found.logs.push(Candidate { container, path, linked: false });
        }
        found.logs.retain(|log| !self.is_own(&log.container));
        // Not all of them have a live file.
        found.logs.sort_by_cached_key(|log| std::cmp::Reverse(modified(&log.path)));
        found.logs
    }

    fn is_own(&self, container: &ContainerRef) -> bool {
        let own = self.own_pod.as_ref().filter(|_| container.is_container());
        own.is_some_and(|(namespace, pod)| (namespace, pod) == (&container.namespace, &container.pod))
    }

    /// False when a log's path says that it is not wanted.
    fn may_be_about(&self, filter: &Filter, container: &ContainerRef) -> bool {
        filter.namespace.as_ref().is_none_or(|wanted| *wanted == container.namespace)
            && filter.pod.as_ref().is_none_or(|wanted| container.pod.contains(wanted.as_str()))
            && filter.container.as_ref().is_none_or(|wanted| *wanted == container.container)
    }

    /// Who wrote a log and how its lines are handled, as the agent has it; or why it is not searched.
    fn who(
        &self,
        container: &ContainerRef,
        key: &str,
    ) -> Result<(Arc<Workload>, Arc<Handling>), &'static str> {
        let mut identify = self.identify.lock();
        let identity = identify.identify(container, clock::now());
        let handling = identify.handling(container, clock::now()).unwrap_or_default();
        drop(identify);
        if handling.off || self.registry.is_excluded(key) {
            return Err("switched off by an annotation");
        }
        match identity {
            Identity::Known(known) => Ok((self.registry.identity(key, known), handling)),
            Identity::Pending => Err("its pod is not known yet"),
        }
    }

    /// The files of a log, oldest first.
    fn open(
        &self,
        os: &Os,
        candidate: &Candidate,
        key: &Arc<str>,
    ) -> Result<VecDeque<Open<Source<OsFile>>>, OpenError> {
        let naming = Naming::of(&candidate.container, candidate.linked);
        let spilled = self.spilled(key, naming);
        let on_disk = match chain::open_all(os, &candidate.path, naming, Which::All) {
            // What was kept of it, and what was compressed, is all that is left.
            Err(OpenError::Missing) => chain::open_rotated(os, &candidate.path, naming).unwrap_or_default(),
            opened => opened?,
        };
        Ok(resume::plan(on_disk, spilled, None).files)
    }

    /// What the spill has of a log, one file each.
    fn spilled(&self, key: &Arc<str>, naming: Naming) -> Vec<Open<Source<OsFile>>> {
        let mut files: Vec<Open<Source<OsFile>>> = Vec::new();
        let mut stretches = self.spill.stretches(key).into_iter().peekable();
        while let Some(first) = stretches.next() {
            let mut end = first.end;
            // A hole between two stretches of a file is met when it is read.
            while let Some(next) = stretches.next_if(|next| next.ordinal == first.ordinal) {
                end = next.end;
            }
            let (spill, key) = (Arc::clone(&self.spill), Arc::clone(key));
            let source = Spilled::new(spill, key, first.ordinal, first.generation, end);
            let source = Source::Spilled(source);
            files.push(Open::kept(source, naming, first.generation, first.ordinal, first.start, end));
        }
        files
    }
}

/// When a file was last written to; the epoch when it is not there.
fn modified(path: &Path) -> std::time::SystemTime {
    std::fs::metadata(path).and_then(|meta| meta.modified()).unwrap_or(std::time::UNIX_EPOCH)
}
