//! The process's clocks: one for whatever is compared across its parts, and the wall's.
//!
//! The reader of logs asks for a pod "now", and the watch notes when a pod was deleted: both are the same clock from the
//! same epoch, or what is kept for ten minutes is kept for ever or not at all.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time on a clock that never goes back, since the first call in this process.
pub fn now() -> Duration {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed()
}

/// Time of the wall clock, since the epoch; 0 on a machine that believes to be before it.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same in milliseconds, as samples are stamped.
pub fn unix_ms() -> i64 {
    since_epoch().as_millis() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_the_same_epoch() {
        let before = now();
        let elsewhere = std::thread::spawn(now).join().expect("a thread");
        let after = now();
        assert!(before <= elsewhere && elsewhere <= after, "{before:?} {elsewhere:?} {after:?}");
    }
}
