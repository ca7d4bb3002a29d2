//! One container log as the tail follows it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::live::Until;
use super::tap::Counting;
use super::{CHUNK, GONE_GRACE};
use crate::data::account::{Look, Sight};
use crate::data::delivery::{Ledger, Loss};
use crate::data::position::{Generation, Position};
use crate::data::workload::{Exit, Handling, Workload};
use crate::logs::chain::Open;
use crate::logs::coverage::Coverage;
use crate::logs::env::LogFile;
use crate::logs::files::naming::Naming;
use crate::logs::ingest::{LineState, Settings};
use crate::logs::mask::Masker;
use crate::logs::resume::KUBELET_FILES;
use crate::logs::source::{Gap, Source};
use crate::logs::vitals::Vitals;
use crate::metrics;

/// Where the kubelet rotates unless it is told otherwise: `containerLogMaxSize`.
pub(super) const KUBELET_SIZE: u64 = 10 << 20;

/// A log that has not grown for this long is looked at on every second tick.
const QUIET_AFTER: Duration = Duration::from_secs(30);

/// A log, from its first line to its last.
pub(super) struct Log<F> {
    pub(super) key: Arc<str>,
    pub(super) live: PathBuf,
    pub(super) path: Arc<str>,
    /// The live name is a symbolic link.
    pub(super) linked: bool,
    pub(super) restart: u32,
    /// `<ns>_<pod>_<uid>/<container>`.
    pub(super) place: String,
    pub(super) workload: Arc<Workload>,
    pub(super) ledger: Arc<Ledger>,
    /// Who of its workload logs trace ids.
    pub(super) coverage: Coverage,
    /// How its workload fares, by what it writes.
    pub(super) vitals: Vitals,
    /// Hash of what makes the backend stream.
    pub(super) stream: u64,
    /// Oldest first; the first one is being read.
    pub(super) files: VecDeque<Open<Source<F>>>,
    /// Read to their end and not yet delivered to theirs, oldest first.
    pub(super) behind: VecDeque<Open<Source<F>>>,
    pub(super) lines: LineState,
    /// Where a line began that was open when its generation ended.
    pub(super) carried: Option<Position>,
    pub(super) next_check: Duration,
    pub(super) dir_modified: u64,
    /// It had grown at the last look.
    pub(super) grew: bool,
    pub(super) last_growth: Duration,
    /// When the checkpoint was last told the sizes of its files.
    pub(super) remembered: Duration,
    pub(super) gone_since: Option<Duration>,
    /// A later restart of the container exists: no line will come any more.
    pub(super) ending: bool,
    /// And all of its files are known.
    pub(super) ended: bool,
    pub(super) finished: bool,
    /// What others are told of the files.
    pub(super) sight: Arc<Sight>,
    /// Bytes of files that are read to their end, less what was read of the first one by earlier lives.
    pub(super) written_before: i64,
    /// Size of the largest file that was rotated away: where the kubelet rotates.
    pub(super) largest: u64,
    /// The last words of the container are told, or there are none to tell.
    pub(super) last_words_told: bool,
    /// The checkpoint knows it: every sink has them.
    pub(super) told_saved: bool,
    /// How the container ended.
    pub(super) exit: Option<Exit>,
    /// When all of its log was first found read after its end.
    pub(super) end_seen: Option<Duration>,
    /// What its pod's annotations say.
    pub(super) handling: Arc<Handling>,
    /// It is not shipped, up to here.
    pub(super) excluded: Option<Until>,
    /// What masks the file of this ordinal from this offset on, while it is being spilled.
    pub(super) masking: Option<(u64, u64, Masker)>,
    /// Ranges, by ordinal, that were given up and counted, and are still to be met by the reader.
    pub(super) given_up: Vec<(u64, Range<u64>)>,
    pub(super) deficit: i64,
    /// The next line lies beyond the horizon: wait for another log of the stream, until the next tick.
    pub(super) waiting: bool,
    /// The last read failed.
    pub(super) failing: bool,
    /// How often the end of a file could not be read.
    pub(super) end_errors: u8,
    /// A read that was too short for its line makes the next one longer.
    pub(super) long_read: bool,
    /// How far its requests are counted, where somebody counts them.
    pub(super) counting: Option<Box<Counting<F>>>,
}

impl<F: LogFile> Log<F> {
    /// Who rotates it.
    pub(super) fn naming(&self) -> Naming {
        Naming::of(&self.workload.container, self.linked)
    }

    /// Bytes worth reading now.
    pub(super) fn unread(&self) -> u64 {
        if self.waiting || self.excluded.is_some() || self.counts_behind() {
            0
        } else {
            self.files.front().map_or(0, Open::unread)
        }
    }

    /// True when nothing has happened for a while: every second look will do.
    pub(super) fn may_sleep(&self, now: Duration) -> bool {
        now > self.last_growth + QUIET_AFTER
            && self.files.len() == 1
            && self.behind.is_empty()
            && self.gone_since.is_none()
            && self.lag() == 0
    }

    /// True when another log of the stream must wait for this one: it has whole lines to read and can be read.
    pub(super) fn holds_others(&self) -> bool {
        let mut files = self.files.iter();
        !self.failing
            && self.excluded.is_none()
            && (files.next().is_some_and(|front| front.unread() > 0) || files.any(|later| later.rest() > 0))
    }

    /// True when the container is known to have ended and nothing has come for a while.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.ended || self.exit.is_some() && now >= self.last_growth + GONE_GRACE
    }

    /// Unread bytes over all generations.
    pub(super) fn lag(&self) -> u64 {
        self.files.iter().map(Open::unread).sum()
    }

    /// Number of the newest file.
    pub(super) fn newest_ordinal(&self) -> u64 {
        self.files.back().map_or(0, |newest| newest.ordinal)
    }

    /// All files that are not done with, oldest first.
    pub(super) fn all_files(&self) -> impl Iterator<Item = &Open<Source<F>>> {
        self.behind.iter().chain(&self.files)
    }

    /// The same, to change them.
    pub(super) fn all_files_mut(&mut self) -> impl Iterator<Item = &mut Open<Source<F>>> {
        self.behind.iter_mut().chain(&mut self.files)
    }

    /// Counts bytes that are lost before they were read.
    pub(super) fn lose(&self, reason: Loss, bytes: u64) {
        metrics::LOG_LOST_BYTES.with_label_values(&[reason.name()]).inc_by(bytes);
        self.ledger.lose_bytes(reason, bytes);
    }

    /// What a look at the files finds.
    pub(super) fn sight(&self) -> Look {
        let size: u64 = self.files.iter().map(|file| file.size).sum();
        let rest: u64 = self.files.iter().map(Open::rest).sum();
        let given_up: u64 = self.given_up.iter().map(|(_, range)| range.end - range.start).sum();
        let spilled: u64 = self.files.iter().filter(|file| !file.file.is_file()).map(Open::rest).sum();
        let waiting = rest - given_up.min(rest);
        // The oldest file that only the kubelet keeps is deleted when the live one has been rotated often enough.
        let oldest = self.files.iter().find(|file| file.file.is_file());
        let behind = oldest.map_or(0, |oldest| self.newest_ordinal() - oldest.ordinal);
        let live = self.files.back().map_or(0, |live| live.size);
        let left = ((KUBELET_FILES as u64).saturating_sub(behind) * self.largest).saturating_sub(live);
        Look {
            written_bytes: (self.written_before + size as i64).max(0) as u64,
            waiting_bytes: waiting,
            spilled_bytes: spilled - given_up.min(spilled),
            headroom_bytes: left + waiting,
            newest_ordinal: self.newest_ordinal(),
            read_unix_nano: self.lines.last_time(),
        }
    }

    /// Files that are open.
    pub(super) fn descriptors(&self) -> usize {
        self.all_files().filter(|file| file.file.is_file()).count()
    }

    /// The position up to which everything that was read is decided.
    pub(super) fn decided(&self) -> Option<Position> {
        let file = self.files.front()?;
        if self.lines.carries()
            && let Some(carried) = self.carried
        {
            return Some(carried);
        }
        let (offset, skipping) = self.lines.pinned().unwrap_or((file.offset, self.lines.skipping()));
        Some(Position { generation: file.generation, ordinal: file.ordinal, offset, skipping })
    }
}

/// Re-reads a bounded stretch before a resumed position, so that what lines learn from earlier ones is as it was.
pub(super) fn warm_up<F: LogFile>(log: &mut Log<F>, settings: &Settings) -> io::Result<()> {
    let file = &log.files[0];
    // A line that ends in the stretch may have begun before it.
    let max_line = settings.max_line as u64;
    let near = settings.warm_up_start(file.offset).saturating_sub(max_line);
    let mut begin = log.lines.warm_up_start(settings, file.offset).saturating_sub(max_line);
    let end = file.offset;
    log.lines.begin_warm_up();
    let (mut arena, mut records) = (Vec::new(), Vec::new());
    let (mut at, mut want, mut at_line) = (begin, CHUNK.max(max_line), begin == 0);
    while at < end {
        arena.clear();
        let size = want.min(end - at);
        match log.files[0].file.read_at(at, size as usize, &mut arena) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if Gap::of(&error).is_some() && begin < near => {
                // The spill keeps no more than others need: what a flight recorder held is gone.
                log.lines.forget_held();
                (begin, at, at_line) = (near, near, near == 0);
                continue;
            }
            // Of what is spilled the stretch before may be gone; then lines learn nothing from it.
            Err(error) if Gap::of(&error).is_some() => return Ok(()),
            Err(error) => return Err(error),
        }
        let read = arena.len() as u64;
        let from = match memchr::memchr(b'\n', &arena) {
            _ if at_line => 0,
            Some(newline) => newline + 1,
            None => arena.len(),
        };
        at_line |= from < arena.len() || arena.ends_with(b"\n");
        let (offset, horizon) = (at + from as u64, u64::MAX);
        let taken =
            log.lines.ingest(settings, &log.workload, &mut arena, from, offset, horizon, &mut records);
        records.clear();
        let done = (from + taken.bytes) as u64;
        if done == 0 {
            if read < want || at + read == end {
                break;
            }
            want *= 2;
        }
        at += done;
    }
    Ok(())
}

/// What a person can find a lost file by, since its name has gone with it.
pub(super) fn file_name(generation: &Generation) -> String {
    format!("inode {}", generation.inode)
}

/// Identifies the backend stream that a workload's lines go to.
pub(super) fn stream_hash(workload: &Workload) -> u64 {
    let text = [
        workload.container.namespace.as_str(),
        &workload.service_name,
        &workload.container.container,
        workload.environment.as_deref().unwrap_or(""),
        workload.tenant.as_deref().unwrap_or(""),
    ]
    .join("\0");
    xxh3_64(text.as_bytes())
}
