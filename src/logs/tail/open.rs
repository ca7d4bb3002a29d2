//! Taking up a log: a new one, one that the checkpoint knows, or one that only the spill still has.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::log::{KUBELET_SIZE, Log, stream_hash, warm_up};
use super::{EMPTY_DIR_CHECK, Start, Tail, Waiting};
use crate::data::delivery::Ledger;
use crate::data::position::{Generation, Position, Skipping};
use crate::data::workload::{ContainerRef, Identity, Workload};
use crate::logs::chain::{self, Open, Which};
use crate::logs::checkpoint::Mark;
use crate::logs::coverage::Coverage;
use crate::logs::discover::Candidate;
use crate::logs::env::{Env, OpenError};
use crate::logs::files::naming::Naming;
use crate::logs::frozen;
use crate::logs::ingest::LineState;
use crate::logs::resume::{self, Plan};
use crate::logs::source::{Source, Spilled};
use crate::logs::spill::Stretch;
use crate::logs::vitals::Vitals;
use crate::metrics;

impl<E: Env> Tail<E> {
    /// Takes up a log that a listing found, unless it is followed already. False when it should be tried again soon.
    pub(super) fn consider(&mut self, candidate: Candidate, first_listing: bool, now: Duration) -> bool {
        let key = candidate.container.key();
        if self.by_key.contains_key(key.as_str())
            || self.is_own(&candidate.container)
            || self.is_followed_as_another(&candidate)
        {
            return true;
        }
        let key: Arc<str> = key.into();
        let held = self.pending.remove(&key).and_then(|waiting| waiting.plan);
        let identity = self.identify.identify(&candidate.container, now);
        let off = self.identify.handling(&candidate.container, now).is_some_and(|handling| handling.off);
        if off {
            if self.registry.exclude(&key) {
                info!(log = %key, "an annotation switches the log off; it is not read");
                self.spill.forget(&key);
            }
            return true;
        }
        let mark = self.registry.mark(&key);
        let planned = match held {
            Some(mut plan) => {
                self.follow_held(&candidate, &mut plan);
                Ok(plan)
            }
            None => self.plan_anew(&candidate, &key, mark.as_ref(), first_listing, now),
        };
        let Identity::Known(workload) = identity else {
            // Its files are held open meanwhile: rotation may take their names, not their lines.
            self.next_discovery = self.next_discovery.min(now + EMPTY_DIR_CHECK);
            self.pending.insert(key, Waiting { candidate, plan: planned.ok() });
            return true;
        };
        match planned {
            Ok(plan) => self.open(key, candidate, workload, plan, mark, now),
            Err(done) => done,
        }
    }

    /// Takes up logs that are gone from disk and waited for their pod, once that is known or has been waited for.
    pub(super) fn consider_vanished(&mut self, there: &HashSet<Arc<str>>, now: Duration) {
        let gone: Vec<Arc<str>> = self.pending.keys().filter(|key| !there.contains(*key)).cloned().collect();
        for key in gone {
            // Without its files held there is nothing left of it.
            let held = self.pending.get(&key).filter(|waiting| waiting.plan.is_some());
            match held.map(|waiting| waiting.candidate.clone()) {
                Some(candidate) => drop(self.consider(candidate, false, now)),
                None => drop(self.pending.remove(&key)),
            }
        }
    }

    /// Opens what a rotation has added to a log that waits for its pod.
    fn follow_held(&self, candidate: &Candidate, plan: &mut Plan<E::File>) {
        let newest = plan.files.back().map(|newest| (newest.generation.device, newest.generation.inode));
        if newest.is_none() || self.env.identity(&candidate.path).ok() == newest {
            return;
        }
        // What cannot be opened now is found by the next look, or once the log is followed.
        if let Some(newer) =
            self.newer_files(&candidate.path, Naming::of(&candidate.container, candidate.linked), &plan.files)
        {
            plan.files.extend(newer);
        }
    }

    /// How to begin with a log that is on disk. An error says whether it is done with for now.
    fn plan_anew(
        &mut self,
        candidate: &Candidate,
        key: &Arc<str>,
        mark: Option<&Mark>,
        first_listing: bool,
        now: Duration,
    ) -> Result<Plan<E::File>, bool> {
        let spilled = self.spilled(key);
        // A file that had no line when it was saved has no fingerprint to be found by.
        let named = mark.is_some_and(|mark| mark.position.generation.head != 0);
        let plain = spilled.is_empty() && (named || self.options.start == Start::Newest);
        if !self.make_room() {
            return Err(false);
        }
        let which = if plain { Which::Plain } else { Which::All };
        let naming = Naming::of(&candidate.container, candidate.linked);
        let planned = self.plan(&candidate.path, naming, which, spilled, mark);
        let mut plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                // In the middle of a rotation, already gone, or short of something that will be there again.
                let soon = matches!(error, OpenError::Missing | OpenError::Io(_));
                if !matches!(error, OpenError::Missing) && !self.out_of_descriptors(&error, now) {
                    self.skip(candidate, &error);
                }
                return Err(!soon);
            }
        };
        self.skipped.remove(&candidate.path);
        // What was written while the log was switched off is not shipped later.
        let was_off = mark.is_some_and(|mark| mark.excluded);
        if was_off || mark.is_none() && self.options.start == Start::Newest && first_listing {
            plan.files.drain(..plan.files.len() - 1);
            let live = &mut plan.files[0];
            live.offset = live.size;
            live.missing_before = None;
            (plan.skipping, plan.resumed, plan.truncated) = (Skipping::default(), false, false);
        }
        Ok(plan)
    }

    /// How to go on with a log that is on disk. An error says that it cannot be told now.
    pub(super) fn plan(
        &self,
        live: &Path,
        naming: Naming,
        which: Which,
        spilled: Vec<Open<Source<E::File>>>,
        mark: Option<&Mark>,
    ) -> Result<Plan<E::File>, OpenError> {
        let open = |which| chain::open_all(&self.env, live, naming, which);
        let files = match open(which) {
            // All that is left of a file may be compressed.
            Err(OpenError::Missing) if naming == Naming::Logrotate => open(Which::All)?,
            opened => opened?,
        };
        let plan = resume::plan(files, spilled, mark);
        let known = mark.is_some_and(|mark| mark.position != Position::default());
        if which == Which::Plain && known && !plan.resumed && !plan.truncated {
            // Compressed while the agent was away: the offset in the content is the same.
            return Ok(resume::plan(open(Which::All)?, Vec::new(), mark));
        }
        Ok(plan)
    }

    /// Counts and tells, once, that a file cannot be read.
    fn skip(&mut self, candidate: &Candidate, error: &OpenError) {
        if self.skipped.len() < 4096 && self.skipped.insert(candidate.path.clone()) {
            metrics::LOG_SKIPPED_FILES.with_label_values(&[error.reason()]).inc();
            let file = candidate.path.display();
            warn!(%file, %error, "log file is not read");
        }
    }

    /// Takes up logs that are gone from disk, of which the spill has kept what was not delivered.
    pub(super) fn consider_spilled(&mut self, now: Duration) {
        let kept = self.spill.keys();
        self.delivered.retain(|key| kept.contains(key));
        for key in kept {
            if self.by_key.contains_key(&key) || self.delivered.contains(&key) {
                continue;
            }
            let Some(container) = self.container_of_key(&key).filter(|container| !self.is_own(container))
            else {
                self.spill.forget(&key);
                continue;
            };
            let path = match ContainerRef::path_of_key(&key) {
                Some(path) => path.into(),
                None => self.options.root.join(format!("{key}.log")),
            };
            if self.identify.handling(&container, now).is_some_and(|handling| handling.off) {
                self.registry.exclude(&key);
                self.spill.forget(&key);
                continue;
            }
            let Identity::Known(workload) = self.identify.identify(&container, now) else {
                self.next_discovery = self.next_discovery.min(now + EMPTY_DIR_CHECK);
                continue;
            };
            if self.env.identity(&path).is_ok() {
                // It is there after all, and the next listing will find it.
                continue;
            }
            let spilled = self.spilled(&key);
            let mark = self.registry.mark(&key);
            let plan = resume::plan(VecDeque::new(), spilled, mark.as_ref());
            if plan.files.is_empty() {
                self.spill.forget(&key);
                continue;
            }
            info!(log = %key, "log is gone from disk; what was spilled of it is delivered");
            let candidate = Candidate { container, path, linked: false };
            if !self.open(Arc::clone(&key), candidate, workload, plan, mark, now) {
                self.next_discovery = self.next_discovery.min(now + EMPTY_DIR_CHECK);
            }
            if let Some(index) = self.by_key.get(&key) {
                self.logs[*index].gone_since = Some(now);
            }
        }
    }

    fn is_own(&self, container: &ContainerRef) -> bool {
        let own = self.options.own_pod.as_ref().filter(|_| container.is_container());
        own.is_some_and(|(namespace, pod)| (namespace, pod) == (&container.namespace, &container.pod))
    }

    /// What the spill has of a log, one file each.
    pub(super) fn spilled(&self, key: &Arc<str>) -> Vec<Open<Source<E::File>>> {
        let naming = match ContainerRef::path_of_key(key) {
            Some(_) => Naming::Logrotate,
            None => Naming::Kubelet,
        };
        let mut files: Vec<Stretch> = Vec::new();
        for stretch in self.spill.stretches(key) {
            match files.last_mut() {
                // A hole between two stretches of a file is met when it is read.
                Some(last) if last.ordinal == stretch.ordinal => last.end = stretch.end,
                _ => files.push(stretch),
            }
        }
        let open = |Stretch { generation, ordinal, start, end, .. }| {
            let source = self.spilled_source(key, ordinal, generation, end);
            Open::kept(source, naming, generation, ordinal, start, end)
        };
        files.into_iter().map(open).collect()
    }

    /// A file as the spill has it.
    pub(super) fn spilled_source(
        &self,
        key: &Arc<str>,
        ordinal: u64,
        generation: Generation,
        size: u64,
    ) -> Source<E::File> {
        Source::Spilled(Spilled::new(Arc::clone(&self.spill), Arc::clone(key), ordinal, generation, size))
    }

    /// Begins to follow a log. False when what is to be read first cannot be read now.
    fn open(
        &mut self,
        key: Arc<str>,
        candidate: Candidate,
        workload: Arc<Workload>,
        plan: Plan<E::File>,
        mark: Option<Mark>,
        now: Duration,
    ) -> bool {
        let Plan { files, skipping, resumed, truncated } = plan;
        if files.is_empty() {
            return true;
        }
        // What the operator configures of a file counts from the next start on.
        let configured = !candidate.container.is_container() && !candidate.container.container.is_empty();
        let workload = if configured { workload } else { frozen::freeze(workload, mark.as_ref()) };
        let handling = self.identify.handling(&candidate.container, now).unwrap_or_default();
        let last_words_told = mark.as_ref().is_some_and(|mark| mark.last_words_told);
        let exit = if last_words_told { None } else { self.identify.exit(&candidate.container, now) };
        if truncated {
            metrics::LOG_TRUNCATIONS.inc();
            warn!(log = %key, size = files[0].size,
                "log is shorter than what was read of it; it was truncated and is read from its start");
        }
        let framing = self.sources.framing_of(&candidate.container);
        let mut log = Log {
            place: key.rsplit_once('/').map_or_else(String::new, |(place, _)| place.to_owned()),
            path: candidate.path.to_string_lossy().into(),
            live: candidate.path,
            linked: candidate.linked,
            restart: candidate.container.restart,
            coverage: Coverage::of(&workload),
            vitals: Vitals::of(&workload),
            stream: stream_hash(&workload),
            ledger: Ledger::new(Position::default(), Arc::clone(&self.signal)),
            workload,
            files,
            behind: VecDeque::new(),
            lines: LineState::new(self.settings.max_line).with_framing(framing),
            carried: None,
            next_check: now,
            dir_modified: 0,
            grew: false,
            last_growth: now,
            remembered: now,
            gone_since: None,
            ending: false,
            ended: false,
            finished: false,
            sight: Arc::default(),
            written_before: 0,
            largest: KUBELET_SIZE,
            last_words_told,
            told_saved: last_words_told,
            exit,
            end_seen: None,
            handling,
            excluded: None,
            masking: None,
            given_up: Vec::new(),
            deficit: 0,
            waiting: false,
            failing: false,
            end_errors: 0,
            long_read: false,
            counting: None,
            key: Arc::clone(&key),
        };
        log.begin_lines(&self.settings);
        log.lines.set_read_time(self.env.unix_nano());
        if resumed
            && log.files[0].offset > 0
            && let Err(error) = warm_up(&mut log, &self.settings)
        {
            metrics::LOG_READ_ERRORS.inc();
            warn!(log = %key, %error, "cannot read log; trying again");
            return false;
        }
        log.lines.resume(&self.settings, &log.workload, skipping);
        log.lines.set_first_time(self.env.unix_nano());
        self.begin_counting(&mut log, mark.as_ref());
        let start = log.decided().unwrap_or_default();
        log.ledger = Ledger::new(start, Arc::clone(&self.signal));
        log.written_before = -(log.files[0].offset as i64);
        log.adopt_held();
        let (workload, ledger) = (Arc::clone(&log.workload), Arc::clone(&log.ledger));
        let sight = Arc::clone(&log.sight);
        self.registry.enter(Arc::clone(&key), workload, ledger, sight, log.last_words_told);
        self.by_key.insert(key, self.logs.len());
        self.logs.push(log);
        self.order_stale = true;
        let index = self.logs.len() - 1;
        self.remember_files(index);
        if self.logs[index].handling.off {
            self.exclude(index, now);
        }
        true
    }
}
