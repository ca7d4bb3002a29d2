//! How long to wait before the API server is asked again: the arithmetic of being one of 5,000 nodes.
//!
//! In: what became of the last request, the time, a random number. Out: a [`Pause`]. Pure, so that a whole cluster can be
//! simulated. Invariants: the first request goes at once and every further one is spread by chance; a server that says
//! when to come back is obeyed; lists that follow each other within five minutes stand further and further apart.

use std::time::Duration;

/// Longest wait of the exponential backoff.
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// A server may ask for this much patience and no more.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// First wait of the exponential backoff.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// In steady state one list suffices for this long.
const LIST_WINDOW: Duration = Duration::from_secs(300);

/// Over how long all nodes spread what each of them does because of the same event.
const SPREAD: Duration = Duration::from_secs(60);

/// The same for dropped watches, which cost the server little to take up again.
const SPREAD_RESUME: Duration = Duration::from_secs(5);

/// And where a log waits for its labels meanwhile, which few nodes have at the same time.
const SPREAD_WANTED: Duration = Duration::from_secs(2);

/// A watch that lived for less counts as refused.
const SHORT_LIFE: Duration = Duration::from_secs(5);

/// A random number, uniform over `u64`.
pub(super) type Random = Box<dyn FnMut() -> u64 + Send>;

/// What became of a request or of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A list was taken whole.
    Listed,
    /// A watch ended without a reason after this long.
    Ended(Duration),
    /// The place to resume from is no longer known to the server.
    Expired,
    /// The server does not know streaming lists.
    Unsupported,
    /// It failed; the server may have said when to come back.
    Failed(Option<Duration>),
}

/// When to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    /// After this long at the latest.
    pub(super) most: Duration,
    /// After this long if a log waits for its labels.
    pub(super) wanted: Duration,
}

impl Pause {
    const NONE: Self = Self { most: Duration::ZERO, wanted: Duration::ZERO };

    fn fixed(wait: Duration) -> Self {
        Self { most: wait, wanted: wait }
    }
}

/// See the module's header.
pub(super) struct Pace {
    random: Random,
    failures: u32,
    /// When lists were taken lately, and how many in a row stood closer than the window.
    last_list: Option<Duration>,
    close_lists: u32,
}

impl Pace {
    pub(super) fn new(random: Random) -> Self {
        Self { random, failures: 0, last_list: None, close_lists: 0 }
    }

    /// A random share of `span`.
    fn share(&mut self, span: Duration) -> Duration {
        let share = ((self.random)() >> 11) as f64 / (1_u64 << 53) as f64;
        span.mul_f64(share)
    }

    /// A time for the server to end a watch: five to ten minutes, as client-go has it, so that nodes that began
    /// together end apart.
    /// Source: k8s.io/client-go, `tools/cache/reflector.go`, `minWatchTimeout`.
    pub(super) fn watch_timeout(&mut self) -> Duration {
        Duration::from_secs(300 + self.share(Duration::from_secs(300)).as_secs())
    }

    /// A request was answered as it should be: the next failure is a first one.
    pub(super) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after `outcome`.
    pub(super) fn after(&mut self, outcome: Outcome, now: Duration) -> Pause {
        match outcome {
            Outcome::Unsupported => Pause::NONE,
            Outcome::Listed => {
                let close = self.last_list.is_some_and(|last| now < last + LIST_WINDOW);
                self.close_lists =
                    if close { self.close_lists + 1 } else { self.close_lists.saturating_sub(1) };
                self.last_list = Some(now);
                self.failures = 0;
                Pause::NONE
            }
            Outcome::Ended(life) if life >= SHORT_LIFE => {
                self.failures = 0;
                let (most, wanted) = (self.share(SPREAD_RESUME), self.share(SPREAD_WANTED / 4));
                Pause { most, wanted: wanted.min(most) }
            }
            Outcome::Ended(_) if self.failures == 0 => {
                self.failures = 1;
                let (most, wanted) = (self.share(SPREAD_RESUME), self.share(SPREAD_WANTED / 4));
                Pause { most, wanted: wanted.min(most) }
            }
            Outcome::Ended(_) => Pause::fixed(self.back_off()),
            Outcome::Expired => {
                self.failures = 0;
                let (most, wanted) = (self.share(SPREAD), self.share(SPREAD_WANTED));
                let pause = Pause { most, wanted: wanted.min(most) };
                let recent = self.last_list.filter(|last| now < *last + LIST_WINDOW);
                let Some(_) = recent.filter(|_| self.close_lists > 0) else { return pause };
                // 10 s, 20 s, 40 s … up to the window, and half as much again by chance.
                let doubled = Duration::from_secs(5) * 2_u32.saturating_pow(self.close_lists.min(6));
                let gap = doubled.min(LIST_WINDOW);
                Pause::fixed(gap + self.share(gap / 2))
            }
            Outcome::Failed(None) => Pause::fixed(self.back_off()),
            Outcome::Failed(Some(asked)) => {
                let asked = asked.min(LONGEST_RETRY_AFTER);
                let spread = self.share((asked / 4).max(FIRST_BACKOFF));
                let own = self.back_off();
                Pause::fixed((asked + spread).max(own))
            }
        }
    }

    /// 1 s, 2 s, 4 s … 60 s, each between a half and one and a half of it.
    fn back_off(&mut self) -> Duration {
        let base = FIRST_BACKOFF * 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let base = base.min(LONGEST_BACKOFF);
        (base / 2 + self.share(base)).min(LONGEST_BACKOFF)
    }
}

/// Random numbers from the system's seed: no two nodes have the same.
pub(super) fn random() -> Random {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut state = std::hash::RandomState::new().build_hasher().finish() | 1;
    Box::new(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
