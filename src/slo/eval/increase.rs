//! `increase()` exactly as Prometheus computes it.
//!
//! In: the samples of one series, oldest first. Out: how much it grew over a range, with counter resets, and extrapolated to
//! the range's ends. Invariant: the result is Prometheus' own, to the last step of its arithmetic.
//!
//! Source: Prometheus 2.42, `promql/functions.go`, `extrapolatedRate`. A range holds both of its ends; marks of staleness
//! are no samples of it; a single sample has no increase.

/// What a range has seen of one series.
#[derive(Debug, Clone, Copy, Default)]
pub struct Growth {
    first: Option<(i64, f64)>,
    last: (i64, f64),
    samples: u32,
    /// What the counter had before each reset.
    lost: f64,
}

impl Growth {
    /// Takes the next sample; times go up.
    #[inline]
    pub fn add(&mut self, unix_ms: i64, value: f64) {
        if self.first.is_none() {
            self.first = Some((unix_ms, value));
        } else if value < self.last.1 {
            self.lost += self.last.1;
        }
        self.last = (unix_ms, value);
        self.samples += 1;
    }

    /// The increase over the range of `range_ms` milliseconds that ends at `end_ms`; `None` with less than two samples.
    pub fn increase(&self, range_ms: i64, end_ms: i64) -> Option<f64> {
        let (first_ms, first) = self.first?;
        let (last_ms, last) = self.last;
        if self.samples < 2 || last_ms <= first_ms {
            return None;
        }
        let mut grown = last - first + self.lost;
        let seconds = |ms: i64| ms as f64 / 1e3;
        let mut to_start = seconds(first_ms - (end_ms - range_ms));
        let to_end = seconds(end_ms - last_ms);
        let sampled = seconds(last_ms - first_ms);
        let between = sampled / f64::from(self.samples - 1);
        if grown > 0.0 && first >= 0.0 {
            // A counter was never below zero: it cannot have begun before it was.
            let to_zero = sampled * (first / grown);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        let near = between * 1.1;
        let reach = |distance: f64| if distance < near { distance } else { between / 2.0 };
        let mut covered = sampled;
        covered += reach(to_start);
        covered += reach(to_end);
        grown *= covered / sampled;
        Some(grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples in seconds.
    fn increase(samples: &[(i64, f64)], range: i64, end: i64) -> Option<f64> {
        let mut growth = Growth::default();
        let inside = samples.iter().filter(|(at, _)| *at >= end - range && *at <= end);
        inside.for_each(|&(at, value)| growth.add(at * 1_000, value));
        growth.increase(range * 1_000, end * 1_000)
    }

    #[test]
    fn a_range_full_of_samples_is_not_stretched() {
        // 10 every 60 s, both ends of the range have a sample.
        let samples = [(0, 0.0), (60, 10.0), (120, 20.0), (180, 30.0), (240, 40.0), (300, 50.0)];
        assert_eq!(increase(&samples, 300, 300), Some(50.0));
    }

    #[test]
    fn near_ends_are_reached_and_far_ends_by_half_a_step() {
        // 100 before, then 10 every 60 s from 130 to 250. The range is 100 to 300: 30 s before and 50 s after are less than
        // 1.1 steps, so both are reached: 20 in 120 s becomes 20 * 200 / 120.
        let samples = [(130, 100.0), (190, 110.0), (250, 120.0)];
        assert_eq!(increase(&samples, 200, 300), Some(20.0 * (200.0 / 120.0)));
        // 70 s before is more than 66 s: half a step. 20 * (120 + 30 + 50) / 120.
        assert_eq!(increase(&samples, 240, 300), Some(20.0 * (200.0 / 120.0)));
        // Both far: 20 * (120 + 30 + 30) / 120 = 30.
        assert_eq!(increase(&samples, 600, 600), Some(30.0));
    }

    #[test]
    fn a_counter_is_not_stretched_below_zero() {
        // It was 5 at 130 and grew 10 a minute: it was 0 at 100, 30 s before. The range begins 50 s before.
        let samples = [(130, 5.0), (190, 15.0), (250, 25.0)];
        assert_eq!(increase(&samples, 170, 250), Some(20.0 * (150.0 / 120.0)));
    }

    #[test]
    fn a_reset_counts_what_came_after_it() {
        // 90 to 100, reset, 5, 10: 10 + 10 = 20.
        let samples = [(0, 90.0), (60, 100.0), (120, 5.0), (180, 10.0)];
        assert_eq!(increase(&samples, 180, 180), Some(20.0));
        // A pod that begins at 0 again counts all that it has.
        assert_eq!(increase(&[(0, 7.0), (60, 0.0), (120, 0.0)], 120, 120), Some(0.0));
        assert_eq!(increase(&[(0, 7.0), (60, 0.0), (120, 3.0)], 120, 120), Some(3.0));
    }

    #[test]
    fn a_counter_that_is_born_at_seven_has_not_grown() {
        assert_eq!(increase(&[(0, 7.0), (30, 7.0)], 300, 60), Some(0.0));
        assert_eq!(increase(&[(0, 0.0), (30, 7.0)], 300, 60), Some(7.0 * (60.0 / 30.0)));
    }

    #[test]
    fn one_sample_has_no_increase() {
        assert_eq!(increase(&[(60, 5.0)], 300, 60), None);
        assert_eq!(increase(&[], 300, 60), None);
    }

    #[test]
    fn both_ends_belong_to_the_range() {
        let samples = [(0, 0.0), (300, 10.0)];
        assert_eq!(increase(&samples, 300, 300), Some(10.0));
        assert_eq!(increase(&samples, 300, 301), None);
    }
}
