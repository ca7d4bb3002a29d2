//! From a saved position and what is left on disk to the files that are read, in order, and what is missing.
//!
//! In: the generations beside the live file, those in the spill, and the checkpoint's mark. Out: one chain of files,
//! oldest first, each with its ordinal, beginning where the mark says. Invariant: a file that the mark or the spill
//! knows of and that nobody has any more is told as a [`Missing`], in bytes where these are known.

use std::collections::VecDeque;

use super::chain::{Open, same_file};
use super::checkpoint::{Mark, Seen};
use super::source::Source;
use crate::data::position::{Generation, Position, Skipping};

/// Files that the kubelet keeps of one container log, the live one among them: `containerLogMaxFiles`.
pub const KUBELET_FILES: usize = 5;

/// Bytes of a log that nobody has any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// As many as are known to be missing.
    pub bytes: u64,
    /// False when there may be more.
    pub exact: bool,
}

/// How to go on with a log.
pub struct Plan<F> {
    /// Oldest first; the offset of the first is where reading begins.
    pub files: VecDeque<Open<Source<F>>>,
    /// What was being skipped at the position.
    pub skipping: Skipping,
    /// Reading goes on in the middle of the log.
    pub resumed: bool,
    /// The file of the position has become shorter than the position.
    pub truncated: bool,
}

/// Puts a log's files in order. `disk` are those beside the live name, oldest first; `spilled` those in the spill,
/// ordered by ordinal, with their offset at what is kept first.
pub fn plan<F>(disk: VecDeque<Open<F>>, spilled: Vec<Open<Source<F>>>, mark: Option<&Mark>) -> Plan<F> {
    let position = mark.map(|mark| mark.position).filter(|position| *position != Position::default());
    let known = known(mark, position);
    let on_disk = disk.len();
    let mut files = chain(disk, spilled, &known);
    number(&mut files, position.map_or(0, |position| position.ordinal + 1));
    let mut plan =
        Plan { files: VecDeque::new(), skipping: Skipping::default(), resumed: false, truncated: false };
    let Some(position) = position else {
        plan.files = files.into_iter().map(|(_, file)| file).collect();
        return plan;
    };
    let found = |ordinal| files.iter().any(|(known, file)| *known && file.ordinal == ordinal);
    let here = found(position.ordinal);
    let mut bytes = 0;
    let mut whole = true;
    for seen in &known {
        let begin = if seen.ordinal == position.ordinal { position.offset } else { 0 };
        if seen.ordinal >= position.ordinal && !found(seen.ordinal) && seen.size > begin {
            bytes += seen.size - begin;
            whole = false;
        }
    }
    let newest = known.last().is_some_and(|newest| {
        // A file that had no line yet cannot be told from others; nothing is missing while the kubelet need not delete.
        found(newest.ordinal) || (newest.generation.head == 0 && on_disk < KUBELET_FILES)
    });
    // Of a log that is gone from disk nothing newer can be asked for.
    let newest_on_disk =
        files.iter().any(|(known, file)| *known && file.file.is_file() && file.ordinal >= position.ordinal);
    let unnamed = known.last().is_some_and(|newest| newest.generation.head == 0);
    let exact = newest && (newest_on_disk || unnamed || on_disk == 0);
    let newest_found = files.iter().filter(|(known, _)| *known).map(|(_, file)| file.ordinal).max();
    let mut files: VecDeque<_> =
        files.into_iter().map(|(_, file)| file).filter(|file| file.ordinal >= position.ordinal).collect();
    if here && let Some(first) = files.front_mut() {
        if first.file.is_file() && first.size < position.offset {
            plan.truncated = true;
            for file in &mut files {
                file.ordinal += 1;
            }
        } else {
            first.offset = position.offset.min(first.size);
            plan.skipping = position.skipping;
            plan.resumed = true;
        }
    }
    if !whole || !exact {
        let behind = if whole { newest_found.max(Some(position.ordinal)) } else { Some(position.ordinal) };
        if let Some(first) = files.iter_mut().find(|file| Some(file.ordinal) > behind || !here) {
            first.missing_before = Some(Missing { bytes, exact });
        }
    }
    plan.files = files;
    plan
}

/// Every file that the mark speaks of, oldest first.
fn known(mark: Option<&Mark>, position: Option<Position>) -> Vec<Seen> {
    let mut known = mark.map_or_else(Vec::new, |mark| mark.files.clone());
    if let Some(Position { generation, ordinal, offset, .. }) = position
        && !known.iter().any(|seen| seen.ordinal == ordinal)
    {
        known.insert(0, Seen { generation, ordinal, size: offset });
    }
    known
}

/// Disk and spill in one chain; true for files whose ordinal is known.
fn chain<F>(
    disk: VecDeque<Open<F>>,
    spilled: Vec<Open<Source<F>>>,
    known: &[Seen],
) -> VecDeque<(bool, Open<Source<F>>)> {
    let mut files: VecDeque<_> = disk.into_iter().map(|file| (false, file.map(Source::File))).collect();
    let of_spill: Vec<(u64, Generation)> =
        spilled.iter().map(|file| (file.ordinal, file.generation)).collect();
    let of_mark = known.iter().map(|seen| (seen.ordinal, seen.generation));
    for (ordinal, generation) in of_mark.chain(of_spill) {
        let taken = files.iter().any(|(known, file)| *known && file.ordinal == ordinal);
        if !taken && let Some(index) = find(&files, &generation) {
            files[index].0 = true;
            files[index].1.ordinal = ordinal;
        }
    }
    for file in spilled {
        if files.iter().any(|(known, other)| *known && other.ordinal == file.ordinal) {
            // What is still on disk is whole.
            continue;
        }
        // The kubelet deletes the oldest first: what is in the spill alone is older than what it has left.
        let after = files
            .iter()
            .rposition(|(known, other)| *known && other.ordinal < file.ordinal)
            .map_or(0, |at| at + 1);
        files.insert(after, (true, file));
    }
    files
}

/// The file of a generation among those not yet known.
fn find<F>(files: &VecDeque<(bool, Open<Source<F>>)>, wanted: &Generation) -> Option<usize> {
    let position = |test: &dyn Fn(&Generation) -> bool| {
        files.iter().position(|(known, file)| !known && test(&file.generation))
    };
    // The inode alone is reused at once by most file systems, so it names a file only where there is but one; the
    // device number may change with a reboot.
    position(&|file| wanted.head != 0 && same_file(file, wanted) && file.head == wanted.head)
        .or_else(|| position(&|file| wanted.head != 0 && file.head == wanted.head))
        .or_else(|| position(&|file| wanted.head == 0 && same_file(file, wanted) && files.len() == 1))
}

/// Numbers the files whose ordinal is not known, from their neighbours.
fn number<F>(files: &mut VecDeque<(bool, Open<Source<F>>)>, first: u64) {
    let Some(anchor) = files.iter().position(|(known, _)| *known) else {
        // None of them was seen before: all are later than the position.
        for (n, (_, file)) in files.iter_mut().enumerate() {
            file.ordinal = first + n as u64;
        }
        return;
    };
    let mut next = files[anchor].1.ordinal;
    for (known, file) in files.iter_mut().skip(anchor) {
        if !*known {
            file.ordinal = next;
        }
        next = file.ordinal + 1;
    }
    let base = files[anchor].1.ordinal;
    for (n, (_, file)) in files.iter_mut().enumerate().take(anchor) {
        file.ordinal = base.saturating_sub((anchor - n) as u64);
    }
}
