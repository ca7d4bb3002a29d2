//! Tells apart lines of one log that have the same stamp and the same text.
//!
//! conmon stamps all lines of one read alike, and a backend that stores equal entries once would merge them. So
//! the nth equal line gets n nanoseconds more. That depends on the log's bytes alone: a replay gives the same.

use xxhash_rust::xxh3::xxh3_64;

/// Distinct texts remembered under one stamp.
const TEXTS: usize = 256;

/// The lines seen under the newest stamp of one log.
#[derive(Debug, Default)]
pub struct Copies {
    time_unix_nano: u64,
    /// Hash of the first text under the stamp, once a second line has come under it.
    texts: Vec<(u64, u64)>,
    /// The first text's hash is taken only when a second line shares its stamp: stamps rarely repeat.
    first: FirstText,
}

#[derive(Debug, Default, Clone, Copy)]
enum FirstText {
    #[default]
    None,
    /// Where it stands in the arena of the batch being built.
    InArena(u32, u32),
    Hashed,
}

impl Copies {
    /// Nanoseconds to add to `time_unix_nano` for the line `start..end` of `arena`.
    #[inline]
    pub fn shift(&mut self, time_unix_nano: u64, arena: &[u8], start: u32, end: u32) -> u64 {
        if time_unix_nano != self.time_unix_nano {
            self.time_unix_nano = time_unix_nano;
            self.first = FirstText::InArena(start, end);
            if !self.texts.is_empty() {
                self.texts.clear();
            }
            return 0;
        }
        self.shift_slow(arena, start, end)
    }

    #[cold]
    fn shift_slow(&mut self, arena: &[u8], start: u32, end: u32) -> u64 {
        self.hash_first(arena);
        let hash = xxh3_64(&arena[start as usize..end as usize]);
        if let Some((_, copies)) = self.texts.iter_mut().find(|(text, _)| *text == hash) {
            *copies += 1;
            return *copies;
        }
        if self.texts.len() < TEXTS {
            self.texts.push((hash, 0));
        }
        0
    }

    fn hash_first(&mut self, arena: &[u8]) {
        if let FirstText::InArena(start, end) = self.first {
            self.texts.push((xxh3_64(&arena[start as usize..end as usize]), 0));
            self.first = FirstText::Hashed;
        }
    }

    /// The batch's arena is about to go: keeps what the next batch may need.
    pub fn leave(&mut self, arena: &[u8]) {
        self.hash_first(arena);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lines_under_one_stamp_are_told_apart() {
        let arena = b"aabbaaaa";
        let mut copies = Copies::default();
        assert_eq!(copies.shift(5, arena, 0, 2), 0);
        assert_eq!(copies.shift(5, arena, 2, 4), 0, "another text");
        assert_eq!(copies.shift(5, arena, 4, 6), 1);
        copies.leave(arena);
        assert_eq!(copies.shift(5, b"aa", 0, 2), 2, "in the next batch too");
        assert_eq!(copies.shift(6, b"aa", 0, 2), 0, "another stamp");
    }
}
