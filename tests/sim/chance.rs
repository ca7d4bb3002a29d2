//! Seeded randomness and the trace of a run. Nothing here knows the time of day.

use std::cell::RefCell;
use std::collections::VecDeque;

/// SplitMix64: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed ^ 0x5eed_0000_0000_0001);
        rng.next();
        rng
    }

    /// Another stream of numbers that depends on this one's seed.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `n`, 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// Uniform in `from..to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from))
    }

    /// True once in `of` times; never when `of` is 0.
    pub fn once_in(&mut self, of: u64) -> bool {
        of > 0 && self.below(of) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Events that are kept for the report of a failing run, unless `NODEWICK_SIM_TRACE` says otherwise.
const KEPT: usize = 100;

thread_local! {
    static TRACE: RefCell<Option<(usize, VecDeque<String>)>> = const { RefCell::new(None) };
}

/// Notes an event, when the run is traced.
pub fn note(event: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        if let Some((kept, events)) = trace {
            if events.len() >= *kept {
                events.pop_front();
            }
            events.push_back(event());
        }
    });
}

/// Begins to trace on this thread.
pub fn begin_trace() {
    let kept = std::env::var("NODEWICK_SIM_TRACE").ok().and_then(|text| text.parse().ok());
    TRACE.set(Some((kept.unwrap_or(KEPT), VecDeque::new())));
}

/// Ends tracing; the last events.
pub fn end_trace() -> Vec<String> {
    TRACE.take().map_or_else(Vec::new, |(_, events)| events.into())
}

/// What the agent says of itself goes into the trace, too.
#[derive(Debug, Clone, Copy)]
pub struct TraceWriter;

impl std::io::Write for TraceWriter {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        note(|| format!("            agent: {}", String::from_utf8_lossy(text).trim_end()));
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
