//! Requests of one log that have begun: what their first line said, until their last one comes.
//!
//! In: method and path by request id. Out: the same, once. Invariant: at most [`MAX_OPEN`] requests, none of them older
//! than [`WITHIN`] by the log's own time; no allocation while the number of open requests does not grow.

use std::collections::VecDeque;

use foldhash::HashMap;

use super::words::Method;

/// Requests of one log that may be open. Source: the design page, "From logs".
pub const MAX_OPEN: usize = 10_000;
/// Nanoseconds between the first and the last line of a request.
pub const WITHIN: u64 = 10_000_000_000;
/// Bytes that are kept of a path; a longer one is known as too long.
pub const PATH: usize = 110;

/// What the first line of a request said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// When, nanoseconds since the epoch, by the log.
    pub time_unix_nano: u64,
    /// Method.
    pub method: Method,
    length: u8,
    path: [u8; PATH],
}

impl Begun {
    /// What a first line says.
    pub fn new(time_unix_nano: u64, method: Method, path: &[u8]) -> Self {
        let mut kept = [b'x'; PATH];
        // One byte too many is still a path to be told apart from a short one.
        let length = path.len().min(PATH);
        kept[..length].copy_from_slice(&path[..length]);
        let mut length = length as u8;
        if path.len() > PATH {
            length = 0;
        }
        Self { time_unix_nano, method, length, path: kept }
    }

    /// The path; empty when it was too long or not said.
    pub fn path(&self) -> &[u8] {
        &self.path[..usize::from(self.length)]
    }
}

/// The open requests of one log.
#[derive(Debug, Default)]
pub struct Joins {
    open: HashMap<u64, Begun>,
    order: VecDeque<(u64, u64)>,
}

impl Joins {
    /// A request has begun. Returns false when an open one had to go for it.
    pub fn begin(&mut self, request: u64, begun: Begun) -> bool {
        self.expire(begun.time_unix_nano);
        let mut room = true;
        while self.order.len() >= MAX_OPEN {
            let Some((oldest, time)) = self.order.pop_front() else { break };
            if self.open.get(&oldest).is_some_and(|known| known.time_unix_nano == time) {
                self.open.remove(&oldest);
                room = false;
            }
        }
        self.order.push_back((request, begun.time_unix_nano));
        self.open.insert(request, begun);
        room
    }

    fn expire(&mut self, now_unix_nano: u64) {
        while let Some(&(request, time)) = self.order.front() {
            let known = self.open.get(&request).is_some_and(|known| known.time_unix_nano == time);
            if known && time.saturating_add(WITHIN) >= now_unix_nano {
                return;
            }
            if known {
                self.open.remove(&request);
            }
            self.order.pop_front();
        }
    }

    /// True while a request is open.
    pub fn is_open(&self, request: u64) -> bool {
        self.open.contains_key(&request)
    }

    /// The request has ended: what its first line said, if that was not too long ago.
    pub fn end(&mut self, request: u64, time_unix_nano: u64) -> Option<Begun> {
        let begun = self.open.remove(&request)?;
        (begun.time_unix_nano.saturating_add(WITHIN) >= time_unix_nano).then_some(begun)
    }

    /// Number of open requests.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True when none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// All open requests.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Begun)> {
        self.open.iter().map(|(request, begun)| (*request, begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_request_is_joined_once_and_within_ten_seconds() {
        let mut joins = Joins::default();
        assert!(joins.begin(1, Begun::new(0, Method::POST, b"/a")));
        assert!(joins.begin(2, Begun::new(0, Method::POST, b"/b")));
        assert_eq!(joins.end(1, 10 * SECOND).map(|begun| begun.path().to_vec()), Some(b"/a".to_vec()));
        assert_eq!(joins.end(1, 10 * SECOND), None);
        assert_eq!(joins.end(2, 10 * SECOND + 1), None);
        assert!(joins.begin(3, Begun::new(0, Method::POST, &[b'a'; 111])));
        assert_eq!(joins.end(3, 1).map(|begun| begun.path().len()), Some(0));
    }

    #[test]
    fn open_requests_are_bounded_in_number_and_time() {
        let mut joins = Joins::default();
        for n in 0..10_000 {
            assert!(joins.begin(n, Begun::new(n, Method::POST, b"/")));
        }
        assert!(!joins.begin(10_000, Begun::new(10_000, Method::POST, b"/")));
        assert_eq!((joins.len(), joins.is_open(0), joins.is_open(1)), (10_000, false, true));
        assert!(joins.begin(7, Begun::new(60 * SECOND, Method::POST, b"/")));
        assert_eq!((joins.len(), joins.order.len()), (1, 1));
    }
}
