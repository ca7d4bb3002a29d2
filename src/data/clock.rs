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

/// Seconds by which this machine's clock is ahead of the one behind a `Date` header, which answers a request that was sent
/// `took` ago. `None` when the header is no date.
pub fn ahead_of(date: &str, took: Duration) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let theirs = parser.parse_timestamp(date.trim()).ok()?;
    // The header has whole seconds, cut off; it was written some time while we waited.
    let ours = since_epoch().as_secs_f64() - took.as_secs_f64() / 2.0;
    Some((ours - theirs.as_second() as f64 - 0.5).round() as i64)
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

    #[test]
    fn a_date_header_tells_how_far_a_clock_is_off() {
        let now = jiff::Timestamp::from_second(since_epoch().as_secs() as i64).expect("now");
        let header = |ahead: i64| {
            let at = now - jiff::SignedDuration::from_secs(ahead);
            at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
        };
        for ahead in [0, 90, -3600] {
            let found = ahead_of(&header(ahead), Duration::ZERO).expect("a date");
            // The test may take a second or two.
            assert!((ahead - 1..ahead + 4).contains(&found), "{ahead} and {found}");
        }
        assert_eq!(ahead_of("yesterday", Duration::ZERO), None);
    }
}
