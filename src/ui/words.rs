//! Numbers as people read them on the page.
//!
//! In: figures of the picture. Out: short texts and the points of small lines. Invariant: what is not known is a dash, never 0.

/// What stands where nothing is known.
pub(super) const UNKNOWN: &str = "–";

/// `1.23 k`: three significant digits with a unit of thousands.
pub(super) fn count(value: f64) -> String {
    scaled(value, 1_000.0, &["", " k", " M", " G", " T"])
}

/// `3.4 MiB`.
pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1_024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let (mut left, mut unit) = (value, 0);
    // What would be rounded up to a whole step is one.
    while left.abs() >= step - 0.5 && unit + 1 < units.len() {
        left /= step;
        unit += 1;
    }
    let whole = left.fract() == 0.0 && unit == 0;
    let digits = match left.abs() {
        _ if whole => 0,
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{left:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// `38 ms`, `1.2 s`, `4 min`, `3 h 12 min`, `12 days`.
pub(super) fn seconds(value: f64) -> String {
    let rounded = value.round();
    match value {
        v if v < 0.0005 => format!("{:.0} µs", v * 1e6),
        v if v < 0.00995 => format!("{:.1} ms", v * 1e3),
        v if v < 0.9995 => format!("{:.0} ms", v * 1e3),
        v if v < 9.95 => format!("{v:.1} s"),
        _ if rounded < 120.0 => format!("{rounded:.0} s"),
        _ if rounded < 7_200.0 => format!("{:.0} min", (value / 60.0).floor()),
        _ if rounded < 172_800.0 => {
            let minutes = (value / 60.0).floor();
            format!("{:.0} h {:.0} min", (minutes / 60.0).floor(), minutes % 60.0)
        }
        _ => format!("{:.0} days", (value / 86_400.0).floor()),
    }
}

/// `0.42 %`, `99.95 %`: as many digits as tell it from 0 and from all.
pub(super) fn percent(ratio: f64) -> String {
    let value = ratio * 100.0;
    if value == 0.0 || (value - 100.0).abs() < 1e-9 {
        return format!("{value:.0} %");
    }
    let from_end = value.abs().min((100.0 - value).abs());
    let digits = match from_end {
        _ if !(0.0..=100.0).contains(&value) => 0,
        far if far >= 10.0 => 0,
        far if far >= 1.0 => 1,
        far if far >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// `14.4×`.
pub(super) fn times(value: f64) -> String {
    if value >= 99.95 { format!("{value:.0}×") } else { format!("{value:.1}×") }
}

/// The points of a line in a box of `width` by `height`, the newest at the right; empty for fewer than two values.
pub(super) fn points(values: &[f64], top: f64, width: f64, height: f64) -> String {
    if values.len() < 2 {
        return String::new();
    }
    let step = width / (values.len() - 1) as f64;
    let top = if top > 0.0 { top } else { 1.0 };
    let point = |(at, value): (usize, &f64)| {
        let share = (value / top).clamp(0.0, 1.0);
        format!("{:.1},{:.1}", at as f64 * step, height - share * (height - 1.5) - 0.75)
    };
    values.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let of = |value: f64| count(value);
        assert_eq!([of(0.0), of(7.0), of(0.25), of(12.34), of(999.0)], ["0", "7", "0.25", "12.3", "999"]);
        assert_eq!([of(999.7), of(1_234.0), of(56_789.0), of(2.5e6)], ["1 k", "1.23 k", "56.8 k", "2.5 M"]);
        assert_eq!([bytes(0.0), bytes(1_536.0), bytes(104_857_600.0)], ["0 B", "1.5 KiB", "100 MiB"]);
    }

    #[test]
    fn times_are_told_in_the_unit_that_people_use() {
        let of = |value: f64| seconds(value);
        assert_eq!([of(0.0), of(0.0042), of(0.038), of(1.24)], ["0 µs", "4.2 ms", "38 ms", "1.2 s"]);
        assert_eq!([of(59.0), of(119.6), of(600.0), of(7_199.0)], ["59 s", "2 min", "10 min", "119 min"]);
        assert_eq!([of(11_520.0), of(1_036_800.0)], ["3 h 12 min", "12 days"]);
        assert_eq!([times(14.4), times(0.0), times(1000.0)], ["14.4×", "0.0×", "1000×"]);
    }

    #[test]
    fn a_share_never_looks_like_all_or_nothing_when_it_is_not() {
        let of = |value: f64| percent(value);
        assert_eq!([of(0.0), of(1.0), of(0.9995), of(0.99999)], ["0 %", "100 %", "99.95 %", "99.999 %"]);
        assert_eq!([of(0.5), of(0.042), of(0.00042), of(-0.5)], ["50 %", "4.2 %", "0.042 %", "-50 %"]);
    }

    #[test]
    fn a_line_spans_its_box() {
        assert_eq!(points(&[1.0], 1.0, 100.0, 20.0), "");
        assert_eq!(points(&[0.0, 5.0, 10.0], 10.0, 100.0, 20.0), "0.0,19.2 50.0,10.0 100.0,0.8");
        assert_eq!(points(&[0.0, 0.0], 0.0, 10.0, 20.0), "0.0,19.2 10.0,19.2");
    }
}
