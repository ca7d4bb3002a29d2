//! Chunks on their way from who reads a pipe to who writes the spool.
//!
//! In: chunks of any size, from any thread. Out: the same in their order. Invariant: what waits is bounded by bytes and
//! not by number, so that a process that writes a few bytes at a time loses nothing while the disk is busy for a moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Chunk;

/// Bytes that may wait.
pub(super) const LIMIT: usize = 4 << 20;

/// What a chunk counts beside its bytes.
const OVERHEAD: usize = size_of::<Chunk>() + 32;

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    entrances: usize,
    exit_gone: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Where chunks go in.
pub(super) struct Entrance(Arc<Shared>);

/// Where they come out.
pub(super) struct Exit(Arc<Shared>);

/// Nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// In time.
    Timeout,
    /// And nothing ever will.
    Closed,
}

/// A queue.
pub(super) fn queue() -> (Entrance, Exit) {
    let shared = Arc::<Shared>::default();
    shared.state.lock().entrances = 1;
    (Entrance(Arc::clone(&shared)), Exit(shared))
}

impl Entrance {
    /// Puts a chunk in; false when it is full or nobody takes any more.
    pub(super) fn try_send(&self, chunk: Chunk) -> bool {
        self.put(&mut self.0.state.lock(), chunk).is_ok()
    }

    /// The same, waiting for room; false when nobody takes any more.
    pub(super) fn send(&self, chunk: Chunk) -> bool {
        let mut state = self.0.state.lock();
        let mut chunk = chunk;
        loop {
            match self.put(&mut state, chunk) {
                Ok(()) => return true,
                Err(_) if state.exit_gone => return false,
                Err(again) => chunk = again,
            }
            self.0.changed.wait(&mut state);
        }
    }

    fn put(&self, state: &mut State, chunk: Chunk) -> Result<(), Chunk> {
        let bytes = chunk.bytes.len() + OVERHEAD;
        if state.exit_gone || state.bytes > 0 && state.bytes + bytes > LIMIT {
            return Err(chunk);
        }
        state.bytes += bytes;
        state.chunks.push_back(chunk);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl Clone for Entrance {
    fn clone(&self) -> Self {
        self.0.state.lock().entrances += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.state.lock().entrances -= 1;
        self.0.changed.notify_all();
    }
}

impl Exit {
    /// The next chunk, waiting for it at most this long.
    pub(super) fn take(&self, within: Duration) -> Result<Chunk, Empty> {
        let deadline = Instant::now() + within;
        let mut state = self.0.state.lock();
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                state.bytes -= chunk.bytes.len() + OVERHEAD;
                self.0.changed.notify_all();
                return Ok(chunk);
            }
            if state.entrances == 0 {
                return Err(Empty::Closed);
            }
            if self.0.changed.wait_until(&mut state, deadline).timed_out() {
                return Err(Empty::Timeout);
            }
        }
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        self.0.state.lock().exit_gone = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Lost, Stream};
    use super::*;

    fn chunk(bytes: usize) -> Chunk {
        Chunk { stream: Stream::Stdout, bytes: vec![0; bytes], time_unix_nano: 0, before: Lost::default() }
    }

    #[test]
    fn bytes_are_bounded_and_numbers_are_not() {
        let (entrance, exit) = queue();
        for _ in 0..10_000 {
            assert!(entrance.try_send(chunk(10)));
        }
        assert!(!entrance.try_send(chunk(LIMIT)), "no room for as much again");
        for _ in 0..10_000 {
            assert_eq!(exit.take(Duration::ZERO).map(|chunk| chunk.bytes.len()), Ok(10));
        }
        assert!(entrance.try_send(chunk(2 * LIMIT)), "one chunk always fits an empty queue");
        assert!(!entrance.try_send(chunk(0)));
    }

    #[test]
    fn both_ends_learn_that_the_other_is_gone() {
        let (entrance, exit) = queue();
        let other = entrance.clone();
        assert!(other.try_send(chunk(1)));
        drop((entrance, other));
        assert_eq!(exit.take(Duration::ZERO).map(|chunk| chunk.bytes.len()), Ok(1));
        assert_eq!(exit.take(Duration::from_secs(60)).err(), Some(Empty::Closed));
        let (entrance, exit) = queue();
        assert_eq!(exit.take(Duration::from_millis(1)).err(), Some(Empty::Timeout));
        assert!(entrance.try_send(chunk(LIMIT)));
        let waiting = std::thread::spawn(move || entrance.send(chunk(LIMIT)));
        std::thread::sleep(Duration::from_millis(20));
        drop(exit);
        assert!(!waiting.join().expect("no panic"));
    }
}
