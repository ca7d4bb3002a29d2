//! What is different about files that applications write: where they are, how they are cut, when they are gone.
//!
//! logrotate may copy a file and cut it (`copytruncate`): then the copy is the generation that was being read, and the
//! file begins the next one. It may rename a file whose writer begins the next only with its next line: then the log is
//! not gone, there are only rotated files of it for a while.

use std::io;
use std::time::Duration;

use tracing::{info, warn};

use super::Tail;
use crate::data::delivery::Loss;
use crate::data::workload::ContainerRef;
use crate::logs::chain::{self, Glimpse, Open, Which};
use crate::logs::discover::{self, Candidate, Found};
use crate::logs::env::{Env, LogFile};
use crate::logs::files::naming::{self, Naming};
use crate::logs::source::Source;
use crate::metrics;

impl<E: Env> Tail<E> {
    /// Lists all logs. An error means that the root of the pods' logs cannot be listed.
    pub(super) fn list(&self) -> io::Result<Found> {
        let root = &self.options.root;
        let mut found = match discover::list(&self.env, root) {
            Ok(found) => found,
            // Where there are files, pods' logs are no must.
            Err(_) if root.as_os_str().is_empty() => Found::default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.sources.is_empty() => {
                Found::default()
            }
            Err(error) => return Err(error),
        };
        if !self.sources.is_empty() {
            let unclaimed = self.registry.unclaimed_files();
            let is_followed = |key: &str| self.by_key.contains_key(key);
            self.sources.find(&self.env, &unclaimed, &is_followed, &mut found);
        }
        Ok(found)
    }

    /// Who writes the log with this key.
    pub(super) fn container_of_key(&self, key: &str) -> Option<ContainerRef> {
        if ContainerRef::path_of_key(key).is_some() {
            return self.sources.container_of_key(key);
        }
        ContainerRef::from_key(key)
    }

    /// True when a file is open already as another log's: it was renamed between two names that both match.
    pub(super) fn is_followed_as_another(&self, candidate: &Candidate) -> bool {
        if candidate.container.is_container() {
            return false;
        }
        let Ok(identity) = self.env.identity(&candidate.path) else { return false };
        let files = self.logs.iter().filter(|log| log.naming() == Naming::Logrotate);
        files
            .flat_map(|log| log.behind.iter().chain(&log.files))
            .filter(|file| matches!(file.file, Source::File(_) | Source::Parked(_)))
            .any(|file| (file.generation.device, file.generation.inode) == identity)
    }

    /// True when the live name of a log is missing because it was renamed, not deleted.
    pub(super) fn is_renamed(&self, index: usize) -> bool {
        let log = &self.logs[index];
        log.naming() == Naming::Logrotate && naming::has_rotated(&self.env, &log.live, false)
    }

    /// True for a log of the checkpoint whose files are not all gone.
    pub(super) fn may_come_back(&self, key: &str) -> bool {
        let known = ContainerRef::path_of_key(key).filter(|_| {
            self.sources.container_of_key(key).is_some_and(|container| !container.container.is_empty())
        });
        known.is_some_and(|path| naming::has_rotated(&self.env, path.as_ref(), true))
    }

    /// The file that is being read was cut. Goes on in the copy that was made of it before, if there is one; false when
    /// there is none. `size_before` is the size that it was last seen to have.
    pub(super) fn take_copy(&mut self, index: usize, size_before: u64) -> bool {
        let at = 0;
        let log = &self.logs[index];
        if log.naming() != Naming::Logrotate || log.files.len() != 1 {
            return false;
        }
        let Some(copy) = self.copy_of(index, at) else { return false };
        let log = &mut self.logs[index];
        let lost = size_before.saturating_sub(copy.size);
        if lost > 0 {
            warn!(log = %log.key, at_least = lost, "log was copied and cut; what was written in between is lost");
            log.ledger.lose_bytes(Loss::Truncated, lost);
            metrics::LOG_LOST_BYTES.with_label_values(&[Loss::Truncated.name()]).inc_by(lost);
            log.written_before += lost as i64;
        }
        self.insert_copy(index, at, copy);
        true
    }

    /// A later file than the one that is being read was cut: its copy comes between.
    pub(super) fn take_later_copy(&mut self, index: usize) {
        let log = &self.logs[index];
        if log.naming() != Naming::Logrotate || log.files.len() < 2 {
            return;
        }
        let at = log.files.len() - 1;
        let live = &log.files[at];
        let cut = live.file.is_file() && live.file.stat().is_ok_and(|stat| stat.size < live.size);
        if cut && let Some(copy) = self.copy_of(index, at) {
            self.insert_copy(index, at, copy);
        }
    }

    /// The copy that was made of a file before it was cut: it begins as that did, and reaches as far as it was read.
    fn copy_of(&self, index: usize, at: usize) -> Option<Open<E::File>> {
        let log = &self.logs[index];
        let cut = &log.files[at];
        let found = chain::open_all(&self.env, &log.live, Naming::Logrotate, Which::All).ok()?;
        let known = |file: &Open<E::File>| {
            let files = log.behind.iter().chain(&log.files);
            files.into_iter().any(|known| chain::same_file(&known.generation, &file.generation))
        };
        // Of several the newest: it was made last.
        found
            .into_iter()
            .rfind(|file| !known(file) && file.size >= cut.offset && file.begins_as(&cut.generation))
    }

    fn insert_copy(&mut self, index: usize, at: usize, copy: Open<E::File>) {
        metrics::LOG_ROTATIONS.inc();
        let log = &mut self.logs[index];
        info!(log = %log.key, "log was copied and cut; reading goes on in the copy");
        let mut copy = copy.map(Source::File);
        let cut = &mut log.files[at];
        copy.ordinal = cut.ordinal;
        copy.offset = cut.offset;
        copy.glimpse = cut.glimpse;
        copy.missing_before = cut.missing_before.take();
        cut.ordinal += 1;
        cut.offset = 0;
        cut.torn_at = 0;
        cut.ends_seen = 0;
        cut.glimpse = Glimpse::default();
        cut.generation.head = 0;
        if let Ok(stat) = cut.file.stat() {
            cut.size = stat.size;
        }
        let _ = cut.learn_head();
        log.files.insert(at, copy);
        log.next_check = Duration::ZERO;
        self.remember_files(index);
    }
}
