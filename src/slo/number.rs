//! Numbers as they stand in rules: plain decimals that a person can check.
//!
//! In: results of arithmetic on doubles. Out: at most twelve significant digits, no exponent, no trailing zeros.
//! Invariant: `0.0005 × 14.4` is `0.0072`, whatever the doubles say.

/// `value` rounded to twelve significant digits: removes what binary arithmetic added.
pub fn tidy(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// The shortest decimal text of [`tidy`]'s value.
pub fn shortest(value: f64) -> String {
    tidy(value).to_string()
}

/// A share as a percentage: `0.0072` is `0.72%`.
pub fn percent(share: f64) -> String {
    format!("{}%", shortest(share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_the_shortest_decimals() {
        assert_eq!(shortest(0.0005 * 14.4), "0.0072");
        assert_eq!(shortest(1.0 - 0.9995), "0.0005");
        assert_eq!(shortest(0.00001 * 6.0), "0.00006");
        assert_eq!(shortest(3.0), "3");
        assert_eq!(percent(0.0072), "0.72%");
        assert_eq!(percent(0.9995), "99.95%");
    }
}
