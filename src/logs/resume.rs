//! From a saved position and what is left on disk to the files that are read, in order, and what is missing.
//!
//! In: the generations beside the live file, those in the spill, and the checkpoint's mark. Out: one chain of files,
//! oldest first, each with its ordinal, beginning where the mark says. Invariant: a file that the mark or the spill
//! knows of and that nobody has any more is told as a [`Missing`], in bytes where these are known.

use std::collections::VecDeque;

use super::chain::{Open, same_file};
use super::checkpoint::{Mark, Seen};
use super::env::LogFile;
use super::files::naming::Naming;
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
pub fn plan<F: LogFile>(
    disk: VecDeque<Open<F>>,
    spilled: Vec<Open<Source<F>>>,
    mark: Option<&Mark>,
) -> Plan<F> {
    let position = mark.map(|mark| mark.position).filter(|position| *position != Position::default());
    let known = known(mark, position);
    // What a crash brought back into the spill was delivered long ago, and says nothing about the files of today.
    let spilled = spilled.into_iter().filter(|file| position.is_none_or(|from| file.ordinal >= from.ordinal));
    let spilled = spilled.collect();
    let on_disk = disk.len();
    let mut files = chain(disk, spilled, &known);
    number(&mut files, position.map_or(0, |position| position.ordinal + 1));
    let mut plan =
        Plan { files: VecDeque::new(), skipping: Skipping::default(), resumed: false, truncated: false };
    let Some(position) = position else {
        // Without a checkpoint the spill alone knows of files before those on disk; what lay between may be gone.
        if let Some((_, first)) = files.front() {
            let begin = Position { ordinal: first.ordinal, ..Position::default() };
            tell_holes(&mut files, &known, &begin, true, on_disk);
        }
        plan.files = files.into_iter().map(|(_, file)| file).collect();
        return plan;
    };
    files.retain(|(_, file)| file.ordinal >= position.ordinal);
    let here = files.front().is_some_and(|(known, file)| *known && file.ordinal == position.ordinal);
    tell_holes(&mut files, &known, &position, here, on_disk);
    let mut files: VecDeque<_> = files.into_iter().map(|(_, file)| file).collect();
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
    plan.files = files;
    plan
}

/// Notes, on each file, what is lost between the one before it and itself.
fn tell_holes<F>(
    files: &mut VecDeque<(bool, Open<Source<F>>)>,
    seen: &[Seen],
    position: &Position,
    here: bool,
    on_disk: usize,
) {
    // The kubelet deletes the oldest first: behind a file that is still there nothing is missing.
    let mut anchored = false;
    let mut expected = position.ordinal;
    for (index, (known, file)) in files.iter_mut().enumerate() {
        let is_first = index == 0;
        let hole = expected..file.ordinal;
        let lost = seen.iter().filter(|seen| hole.contains(&seen.ordinal));
        let mut told = 0;
        let bytes = lost
            .map(|seen| {
                told += 1;
                let begin = if seen.ordinal == position.ordinal { position.offset } else { 0 };
                seen.size.saturating_sub(begin)
            })
            .sum();
        let all_told = told == hole.end.saturating_sub(hole.start);
        // A file that had no line yet cannot be told from others; while the kubelet need not delete, none is missing. It
        // deletes before it rotates, and compresses in between: that there is one file less than it keeps proves nothing.
        let nameless =
            seen.last().is_some_and(|newest| newest.generation.head == 0) && on_disk + 1 < KUBELET_FILES;
        let certain = anchored || *known || nameless;
        if bytes > 0 || !(certain && all_told || is_first && here) {
            file.missing_before = Some(Missing { bytes, exact: certain && all_told });
        }
        anchored |= file.file.is_file();
        expected = file.ordinal + 1;
    }
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
fn chain<F: LogFile>(
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
    let on_disk = !files.is_empty();
    let mut last = if on_disk { files.len() - 1 } else { usize::MAX };
    for mut file in spilled {
        // What was not spilled of it any more is a gap at its end.
        if let Some(seen) = known.iter().find(|seen| seen.ordinal == file.ordinal)
            && seen.size > file.size
            && let Source::Spilled(spilled) = &mut file.file
        {
            spilled.extend(seen.size);
            file.size = seen.size;
        }
        if files.iter().any(|(known, other)| *known && other.ordinal == file.ordinal) {
            // What is still on disk is whole.
            continue;
        }
        // The kubelet deletes the oldest first: what is in the spill alone is older than what it has left.
        let after = files
            .iter()
            .rposition(|(known, other)| *known && other.ordinal < file.ordinal)
            .map_or(0, |at| at + 1);
        // Nothing is newer than the live file, whatever a damaged checkpoint says.
        files.insert(after.min(last), (true, file));
        last += usize::from(on_disk);
    }
    files
}

/// The file of a generation among those not yet known.
fn find<F: LogFile>(files: &VecDeque<(bool, Open<Source<F>>)>, wanted: &Generation) -> Option<usize> {
    let position =
        |test: &dyn Fn(&Open<Source<F>>) -> bool| files.iter().position(|(known, file)| !known && test(file));
    // One of logrotate's files that was empty is followed by others only if it was rotated since.
    let alone = |file: &Open<Source<F>>| files.len() == 1 || file.naming == Naming::Logrotate;
    // The inode alone is reused at once by most file systems, so it names a file only where there is but one; the
    // device number may change with a reboot.
    position(&|file| same_file(&file.generation, wanted) && file.begins_as(wanted))
        .or_else(|| position(&|file| file.begins_as(wanted)))
        .or_else(|| position(&|file| wanted.head == 0 && same_file(&file.generation, wanted) && alone(file)))
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
        if !*known || file.ordinal < next {
            file.ordinal = next;
        }
        next = file.ordinal + 1;
    }
    let base = files[anchor].1.ordinal;
    for (n, (_, file)) in files.iter_mut().enumerate().take(anchor) {
        file.ordinal = base.saturating_sub((anchor - n) as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::logs::env::Stat;
    use crate::logs::source::Spilled;
    use crate::logs::spill::{Config, Spill};

    struct Nothing;

    impl LogFile for Nothing {
        fn stat(&self) -> io::Result<Stat> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn read_at(&self, _: u64, _: usize, _: &mut Vec<u8>) -> io::Result<usize> {
            Ok(0)
        }
    }

    fn generation(head: u64) -> Generation {
        Generation { device: 8, inode: 100 + head, head }
    }

    fn on_disk(head: u64) -> Open<Nothing> {
        Open::kept(Nothing, Naming::Kubelet, generation(head), 0, 0, 100)
    }

    fn in_spill(ordinal: u64, head: u64) -> Open<Source<Nothing>> {
        let spill = Spill::new(&Config::default());
        let source = Spilled::new(spill, Arc::from("log"), ordinal, generation(head), 100);
        Open::kept(Source::Spilled(source), Naming::Kubelet, generation(head), ordinal, 0, 100)
    }

    /// Ordinals of a plan's files, and whether something may be missing before each.
    fn planned(disk: &[u64], spilled: &[(u64, u64)]) -> Vec<(u64, bool)> {
        let disk = disk.iter().map(|head| on_disk(*head)).collect();
        let spilled = spilled.iter().map(|(ordinal, head)| in_spill(*ordinal, *head)).collect();
        let plan = plan(disk, spilled, None);
        plan.files.iter().map(|file| (file.ordinal, file.missing_before.is_some())).collect()
    }

    #[test]
    fn without_a_checkpoint_nobody_knows_what_lay_between_the_spill_and_the_disk() {
        // Files 4 and 5 may have been deleted: a line that is open at the end of 3 must not be joined to one of these.
        assert_eq!(planned(&[50, 60], &[(3, 30)]), [(3, false), (4, true), (5, false)]);
        assert_eq!(planned(&[50, 60], &[(2, 20), (4, 40)]), [(2, false), (4, true), (5, true), (6, false)]);
        // What is still on disk says where it stands.
        assert_eq!(planned(&[30, 40], &[(3, 30)]), [(3, false), (4, false)]);
        assert_eq!(planned(&[30, 40], &[(2, 20), (3, 30)]), [(2, false), (3, false), (4, false)]);
        assert_eq!(planned(&[30, 40], &[]), [(0, false), (1, false)]);
    }
}
