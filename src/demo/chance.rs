//! Chance that can be repeated, and the small texts that the make-believe traffic is made of.
//!
//! In: a seed. Out: numbers, latencies, ids. Pure: equal seeds give equal sequences.

use std::fmt::Write;

/// SplitMix64: small, seedable, good enough for make-believe.
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    /// The next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Between 0 and 1, neither included.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A latency in milliseconds around `median`, log-normal, with a slow one in thirty.
    pub(super) fn latency(&mut self, median: f64) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        let slow = if self.below(30) == 0 { 6.0 } else { 1.0 };
        (median * slow * (0.45 * normal).exp()).clamp(0.3, 4_000.0)
    }

    /// That many hex digits, at most 32, never all zero in full length.
    pub(super) fn hex(&mut self, digits: usize) -> String {
        let text = format!("{:016x}{:016x}", self.next() | 1, self.next() | 1);
        text[..digits].to_owned()
    }
}

/// A V8 stack as it stands inside a JSON string.
pub(super) fn stack(kind: &str, message: &str, frames: &[&str]) -> String {
    let mut text = format!("{kind}: {message}");
    for frame in frames {
        let _ = write!(text, "\\n    at {frame}");
    }
    text
}

/// fastify's request numbers.
pub(super) fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_count_as_fastify_counts() {
        assert_eq!([base36(1), base36(35), base36(36)], ["1", "z", "10"]);
    }

    #[test]
    fn chance_is_that_of_the_published_generator() {
        // The first outputs of SplitMix64 for seed 1234567, as in its reference implementation.
        let mut random = Random(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }
}
