//! Pages made at random: what was written is read, in both dialects; and no bytes whatever make the parser panic.

use std::fmt::Write as _;

use nodewick::data::sample::{MetricKind, NO_TIME, Page, Sample};
use nodewick::scrape::Dialect;
use proptest::prelude::*;

use crate::dumps::dump;
use crate::support::{read, read_within, used};

#[derive(Debug, Clone)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
    time_unix_ms: Option<i64>,
}

#[derive(Debug, Clone)]
struct Family {
    name: String,
    kind: MetricKind,
    help: String,
    series: Vec<Series>,
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-zA-Z_][a-zA-Z0-9_]{0,12}", 1 => "[a-z]\\PC{0,6}[.\"\\\\\n é]"]
}

/// Any text, escapes and line breaks often.
fn anything() -> impl Strategy<Value = String> {
    prop_oneof![2 => "[a-z0-9/ ]{0,12}", 1 => "[\\\\\"\na{},=#é€\0]{0,8}", 1 => "\\PC{0,12}"]
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u32>().prop_map(f64::from),
        (any::<i32>(), 0..8_i32).prop_map(|(digits, power)| f64::from(digits) / 10_f64.powi(power)),
        any::<f64>().prop_filter("a NaN does not equal itself", |value| !value.is_nan()),
    ]
}

fn families(suffixes: bool) -> impl Strategy<Value = Vec<Family>> {
    let kinds = prop_oneof![
        Just(MetricKind::Counter),
        Just(MetricKind::Gauge),
        Just(MetricKind::Histogram),
        Just(MetricKind::Summary),
        Just(MetricKind::Unknown),
    ];
    // Times that a float in seconds keeps to the millisecond.
    let time = prop::option::of(0_i64..4_000_000_000).prop_map(|time| time.map(|time| time * 1000));
    let series =
        (prop::collection::btree_map(name(), anything(), 0..5), value(), time, any::<prop::sample::Index>());
    let family = (kinds, anything(), prop::collection::vec(series, 0..5));
    prop::collection::btree_map(name(), family, 0..6).prop_map(move |families| {
        let all: Vec<String> = families.keys().cloned().collect();
        let build = |(name, (kind, help, series)): (String, (MetricKind, String, Vec<_>))| {
            let endings: &[&str] = match kind {
                MetricKind::Counter if suffixes => &["_total", "_created"],
                MetricKind::Histogram => &["_bucket", "_sum", "_count"],
                MetricKind::Summary => &["", "_sum", "_count"],
                _ => &[""],
            };
            let one = |(labels, value, time_unix_ms, pick): (
                std::collections::BTreeMap<_, _>,
                f64,
                _,
                prop::sample::Index,
            )| Series {
                name: format!("{name}{}", pick.get(endings)),
                labels: labels.into_iter().collect(),
                value,
                time_unix_ms,
            };
            let series = series.into_iter().map(one).collect();
            Family { name: name.clone(), kind, help, series }
        };
        // A name that another family would take for its own has two answers.
        let clashes = |name: &str| {
            all.iter()
                .any(|other| other != name && (name.starts_with(other.as_str()) || other.starts_with(name)))
        };
        families.into_iter().filter(|(name, _)| !clashes(name)).map(build).collect()
    })
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

fn bare(name: &str) -> bool {
    name.chars()
        .enumerate()
        .all(|(at, c)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()))
}

fn quoted_if_needed(name: &str) -> String {
    if bare(name) { name.to_owned() } else { format!("\"{}\"", escaped(name, true)) }
}

/// What another implementation of the formats would write.
fn write(families: &[Family], open: bool) -> String {
    let mut out = String::new();
    for family in families {
        let name = quoted_if_needed(&family.name);
        let kind = match family.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::Summary => "summary",
            _ if open => "unknown",
            _ => "untyped",
        };
        writeln!(out, "# TYPE {name} {kind}").expect("to a string");
        writeln!(out, "# HELP {name} {}", escaped(&family.help, open)).expect("to a string");
        for series in &family.series {
            let mut inside: Vec<String> = series
                .labels
                .iter()
                .map(|(name, value)| format!("{}=\"{}\"", quoted_if_needed(name), escaped(value, true)))
                .collect();
            let name = quoted_if_needed(&series.name);
            if bare(&series.name) {
                out += &name;
            } else {
                inside.insert(0, name);
            }
            if !inside.is_empty() {
                write!(out, "{{{}}}", inside.join(",")).expect("to a string");
            }
            match series.value {
                f64::INFINITY => out += " +Inf",
                f64::NEG_INFINITY => out += " -Inf",
                value if value.abs() > 1e18 || value.abs() < 1e-9 => {
                    write!(out, " {value:e}").expect("to a string")
                }
                value => write!(out, " {value}").expect("to a string"),
            }
            if let Some(time) = series.time_unix_ms {
                let time = if open { time / 1000 } else { time };
                write!(out, " {time}").expect("to a string");
            }
            out.push('\n');
        }
    }
    if open {
        out += "# EOF\n";
    }
    out
}

/// The page as the families that it was written from.
fn back(page: &Page) -> Vec<Family> {
    let series = |of: usize| {
        let own = page.samples.iter().filter(move |sample| sample.family as usize == of);
        own.map(|sample| Series {
            name: page.text(sample.name).to_owned(),
            labels: page
                .labels_of(sample)
                .iter()
                .map(|label| (page.text(label.name).to_owned(), page.text(label.value).to_owned()))
                .collect(),
            value: sample.value,
            time_unix_ms: Some(sample.time_unix_ms).filter(|time| *time != NO_TIME),
        })
        .collect()
    };
    let family = |(at, family): (usize, &nodewick::data::sample::Family)| Family {
        name: page.text(family.name).to_owned(),
        kind: family.kind,
        help: page.text(family.help).to_owned(),
        series: series(at),
    };
    page.families.iter().enumerate().map(family).collect()
}

fn same(families: &[Family], open: bool) -> Result<(), TestCaseError> {
    let dialect = if open { Dialect::OpenMetrics } else { Dialect::Text };
    let text = write(families, open);
    let page =
        read(text.clone(), dialect).map_err(|failure| TestCaseError::fail(format!("{failure}\n{text}")))?;
    let bits = |families: &[Family]| -> Vec<u64> {
        families.iter().flat_map(|family| &family.series).map(|series| series.value.to_bits()).collect()
    };
    let mut expected = families.to_vec();
    // White space alone is no help in text.
    let blank = |text: &str| !open && text.bytes().all(|byte| byte == b' ');
    expected.iter_mut().filter(|family| blank(&family.help)).for_each(|family| family.help.clear());
    let found = back(&page);
    prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{}", text);
    prop_assert_eq!(bits(&found), bits(&expected), "{}", text);
    Ok(())
}

/// Reads it in every dialect, by a parser that has read before; spans of what is read lie in the page.
fn bears(bytes: &[u8]) {
    let (mut parser, mut page) = used();
    for dialect in [Dialect::Text, Dialect::OpenMetrics, Dialect::Protobuf] {
        let body = nodewick::scrape::Body { bytes: bytes.to_vec(), dialect };
        if parser.parse(body, &crate::support::limits(), &mut page).is_ok() {
            crate::support::samples(&page);
            crate::support::families(&page);
        }
    }
}

/// A line that is much like others, and at times odd or wrong.
fn similar() -> impl Strategy<Value = String> {
    let name = prop_oneof![6 => Just("requests_bucket"), 2 => Just("requests_bucke"), 1 => Just("requests_bucket2"), 1 => Just("")];
    let label = prop_oneof![
        4 => Just("method=\"GET\""), 2 => Just("method=\"GETS\""), 3 => Just("path=\"/a/b\""), 2 => Just("path=\"/a/c\""),
        2 => Just("le=\"0.1\""), 2 => Just("le=\"0.25\""), 1 => Just("odd=\"a\\\\b\\\"c\""), 1 => Just("odd=\"\""),
        1 => Just("\"quo.ted\"=\"x\""), 1 => Just("\"bare\""), 1 => Just("le = \"1\""),
    ];
    let labels =
        prop::collection::vec((label, prop_oneof![8 => Just(","), 1 => Just(" "), 1 => Just(", ")]), 0..5);
    let brace = prop_oneof![8 => Just("{"), 1 => Just(" {"), 1 => Just("")];
    let close = prop_oneof![8 => Just("} "), 1 => Just(",} "), 1 => Just("}")];
    (name, brace, labels, close, 0..30_u32).prop_map(|(name, brace, labels, close, value)| {
        let mut line = format!("{name}{brace}");
        for (at, (label, comma)) in labels.iter().enumerate() {
            line.push_str(label);
            if at + 1 < labels.len() {
                line.push_str(comma);
            }
        }
        format!("{line}{close}{value}")
    })
}

/// Name, labels and value of each sample.
fn told(page: &Page) -> Vec<(String, Vec<(String, String)>, u64)> {
    let text = |span| page.text(span).to_owned();
    let labels = |sample: &Sample| {
        page.labels_of(sample).iter().map(|label| (text(label.name), text(label.value))).collect()
    };
    page.samples.iter().map(|sample| (text(sample.name), labels(sample), sample.value.to_bits())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_that_was_written_is_read(families in families(false)) {
        same(&families, false)?;
    }

    #[test]
    fn openmetrics_that_was_written_is_read(families in families(true)) {
        same(&families, true)?;
    }

    #[test]
    fn a_line_reads_as_it_does_alone_whatever_stands_before_it(
        lines in prop::collection::vec(similar(), 1..12),
        openmetrics in any::<bool>(),
    ) {
        let (dialect, end) = if openmetrics { (Dialect::OpenMetrics, "# EOF\n") } else { (Dialect::Text, "") };
        let alone = |line: &String| read(format!("{line}\n{end}"), dialect).ok().map(|page| told(&page));
        let expected: Option<Vec<_>> = lines.iter().map(alone).collect();
        let expected = expected.map(|found| found.concat());
        let found = read(format!("{}\n{end}", lines.join("\n")), dialect).ok().map(|page| told(&page));
        prop_assert_eq!(found, expected, "{}", lines.join("\n"));
    }

    #[test]
    fn a_number_is_the_nearest_float(text in "[+-]?[0-9]{1,20}(\\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?") {
        let expected: f64 = text.parse().expect("a number");
        let page = read(format!("a {text}"), Dialect::Text);
        match page {
            Ok(page) => prop_assert_eq!(page.samples[0].value.to_bits(), expected.to_bits(), "{}", text),
            Err(_) => prop_assert!(expected.is_infinite(), "{}", text),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        bears(&bytes);
    }

    #[test]
    fn no_text_of_the_formats_characters_makes_it_panic(text in "[a-c{}\"\\\\=,# \n\t0-9.eE+\\-]{0,60}") {
        bears(text.as_bytes());
    }

    #[test]
    fn no_damage_to_a_real_dump_makes_it_panic(
        from in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let dump = dump("prom-client-openmetrics-exemplars.http");
        let start = from.index(dump.len() - 1);
        let mut cut = dump[start..dump.len().min(start + 600)].to_vec();
        for (place, byte) in damage {
            let place = place.index(cut.len());
            cut[place] = byte;
        }
        bears(&cut);
        let limits = nodewick::scrape::exposition::Limits { samples: 2, labels: 1, name: 9, label_value: 3 };
        let _ = read_within(cut, Dialect::Text, &limits);
    }
}
