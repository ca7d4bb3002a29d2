//! What a scraped target may answer, in all three dialects.
//!
//! In: a body, and a byte that picks the dialect and the limits. Properties: reading never fails otherwise than by saying where;
//! all text of a page is UTF-8 and lies in it, every index too; the limits hold; a parser that has read other pages reads the same;
//! in text and OpenMetrics the arena begins with the body as it was.

use nodewick::data::sample::{NONE, Page, is_stale};
use nodewick::scrape::exposition::{Limits, Parser, parse};
use nodewick::scrape::{Body, Dialect, Failure};

pub(super) fn run(data: &[u8]) {
    let Some((bytes, [control])) = super::split_control(data) else { return };
    let dialect = match control & 3 {
        0 | 1 => Dialect::Text,
        2 => Dialect::OpenMetrics,
        _ => Dialect::Protobuf,
    };
    let limits = match control & 4 {
        0 => Limits { samples: 20_000, labels: 64, name: 256, label_value: 1024 },
        _ => Limits { samples: 3, labels: 2, name: 9, label_value: 5 },
    };
    let body = || Body { bytes: bytes.to_vec(), dialect };
    let mut page = Page::default();
    let read = parse(body(), &limits, &mut page);

    let (mut parser, mut again) = (Parser::default(), Page::default());
    let before = Body { bytes: b"a{b=\"\\n\"} 1\nc 2\n".to_vec(), dialect: Dialect::Text };
    parser.parse(before, &limits, &mut again).expect("well-formed");
    assert_eq!(parser.parse(body(), &limits, &mut again), read);

    match read {
        Ok(()) => {
            assert_eq!((&page.samples.len(), &page.arena), (&again.samples.len(), &again.arena));
            assert!(page.arena.starts_with(bytes));
            whole(&page, &limits);
        }
        Err(Failure::Malformed { line, column, .. }) => {
            assert!(line >= 1 && column >= 1 && column <= bytes.len() as u64 + 1);
        }
        Err(Failure::Limit { key, .. }) => assert!(key.ends_with("_limit")),
        Err(other) => panic!("{other}"),
    }
}

fn whole(page: &Page, limits: &Limits) {
    let text = |span| {
        let bytes = page.bytes(span);
        assert!(std::str::from_utf8(bytes).is_ok(), "{}", bytes.escape_ascii());
        bytes.len() as u64
    };
    assert!(page.samples.len() as u64 <= limits.samples && page.families.len() as u64 <= limits.samples);
    for family in &page.families {
        assert!((1..=limits.name).contains(&text(family.name)));
        text(family.help);
        text(family.unit);
    }
    for sample in &page.samples {
        assert!(text(sample.name) >= 1);
        assert!((sample.family as usize) < page.families.len());
        assert!(!is_stale(sample.value));
        assert!(u64::from(sample.label_count) <= limits.labels);
        let labels = page.labels_of(sample);
        for (at, label) in labels.iter().enumerate() {
            assert!((1..=limits.name).contains(&text(label.name)) && text(label.value) <= limits.label_value);
            assert!(labels[..at].iter().all(|other| page.bytes(other.name) != page.bytes(label.name)));
        }
        for exemplar in page.exemplars_of(sample) {
            for label in page.exemplar_labels(exemplar) {
                text(label.name);
                text(label.value);
            }
        }
        assert_eq!(sample.histogram == NONE, page.histogram_of(sample).is_none());
    }
}
