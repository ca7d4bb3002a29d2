//! Counts of records and bytes, by reason.
//!
//! In: what one step dropped or lost. Out: sums. Invariant: reasons are a closed set, so that a sum by reason is an
//! array and never grows.

use std::ops::AddAssign;

/// Records and the bytes of their lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Records; 0 where only bytes are known.
    pub records: u64,
    /// Bytes of their lines, without what the container runtime wrote around them.
    pub bytes: u64,
}

impl Tally {
    /// Sums over several reasons.
    pub fn sum(tallies: &[Self]) -> Self {
        let mut sum = Self::default();
        for tally in tallies {
            sum += *tally;
        }
        sum
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// Why a record was dropped by the word of config or annotations. Each but `excluded` is a value of `reason` in
/// `nodewick_records_dropped_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropping {
    /// A drop rule.
    Drop,
    /// A sampling rule.
    Sample,
    /// A rate limit.
    RateLimit,
    /// Folded into a copy that says so.
    Dedup,
    /// An annotation says that the log is not shipped. It was never read: bytes are known, records are not.
    Excluded,
    /// The flight recorder held it back and nothing released it.
    Recorder,
}

impl Dropping {
    /// Number of reasons.
    pub const COUNT: usize = 6;
    /// Every reason, in the order of sums by reason.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Drop, Self::Sample, Self::RateLimit, Self::Dedup, Self::Excluded, Self::Recorder];

    /// The reason as a label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Sample => "sample",
            Self::RateLimit => "rate_limit",
            Self::Dedup => "dedup",
            Self::Excluded => "excluded",
            Self::Recorder => "recorder",
        }
    }
}

/// What the flight recorder did in one step. What is taken and what is let go are the same lines, at different times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recorded {
    /// Held back.
    pub taken: Tally,
    /// Sent on after all.
    pub released: Tally,
    /// Given up: their time is over.
    pub dropped: Tally,
}

/// What configured processing dropped, in the order of [`Dropping::ALL`].
pub type Drops = [Tally; Dropping::COUNT];
