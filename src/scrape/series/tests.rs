//! Names compressed and read back, and identity that does not hang on how a series is written.

use super::labels::{Common, Merge, identity};
use super::names::{Entry, Names, Reader, Writer};
use crate::data::sample::{MetricKind, Page};

fn common() -> Vec<(String, String)> {
    vec![("job".to_owned(), "j".to_owned()), ("zone".to_owned(), "z".to_owned())]
}

fn page(samples: &[(&str, &[(&str, &str)])]) -> Page {
    let mut page = Page::default();
    page.begin_family("requests", MetricKind::Histogram, "");
    for (name, labels) in samples {
        page.push_sample(name, labels.iter().copied(), 1.0);
    }
    page
}

/// Makes all samples final and gives their hashes.
fn finish(page: &mut Page, merge: &mut Merge, common: &mut Common, honor: bool) -> Vec<u64> {
    common.lay(&self::common(), page);
    merge.begin();
    let mut hashes = Vec::new();
    for at in 0..page.samples.len() {
        let mut sample = page.samples[at];
        hashes.push(merge.apply(page, &mut sample, common, honor).expect("no label comes twice"));
        page.samples[at] = sample;
    }
    hashes
}

fn text(page: &Page, at: usize) -> Vec<(String, String)> {
    let labels = page.labels_of(&page.samples[at]).iter();
    labels.map(|label| (page.text(label.name).to_owned(), page.text(label.value).to_owned())).collect()
}

#[test]
fn an_entry_gives_back_its_labels_its_family_and_its_hash() {
    let long = "x".repeat(300);
    let samples: [(&str, &[(&str, &str)]); 4] = [
        ("requests_bucket", &[("le", "0.1"), ("path", "/a")]),
        ("requests_bucket", &[("le", "0.25"), ("path", &long)]),
        ("requests_sum", &[("Path", "\u{e9}"), ("zz", "1")]),
        ("other", &[]),
    ];
    let (mut merge, mut laid) = (Merge::default(), Common::default());
    let mut page = page(&samples);
    let hashes = finish(&mut page, &mut merge, &mut laid, false);
    let (mut names, mut writer) = (Names::default(), Writer::default());
    for sample in &page.samples {
        writer.push(&page, sample, &laid, false);
    }
    names.append(&mut writer);
    let mut again = Page::default();
    let mut there = Common::default();
    there.lay(&common(), &mut again);
    let mut at = 0;
    names.read(&mut Reader::default(), |bytes| {
        let entry = Entry::new(bytes).expect("an entry");
        assert_eq!(identity(true, entry.labels()), hashes[at]);
        assert_eq!(entry.kind, MetricKind::Histogram);
        assert_eq!(entry.family(), if at < 3 { &b"requests"[..] } else { b"other" });
        let sample = entry.lay(&mut again, &there);
        again.samples.push(sample);
        assert_eq!(text(&again, at), text(&page, at));
        at += 1;
        true
    });
    assert_eq!(at, 4);
}

#[test]
fn a_plan_is_not_taken_for_other_names_of_the_same_number() {
    let samples: [(&str, &[(&str, &str)]); 6] = [
        ("a", &[("x", "1"), ("y", "2")]),
        ("a", &[("y", "2"), ("x", "1")]),
        ("a", &[("x", "1"), ("z", "2")]),
        ("a", &[("x", "1"), ("y", "")]),
        ("a", &[("x", "1"), ("y", "2")]),
        ("a", &[("x", "1")]),
    ];
    let mut page = page(&samples);
    let hashes = finish(&mut page, &mut Merge::default(), &mut Common::default(), false);
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[4]);
    assert_eq!(hashes[3], hashes[5]);
    assert_ne!(hashes[0], hashes[2]);
    assert_ne!(hashes[0], hashes[3]);
    let of = |labels: &[(&str, &str)]| -> Vec<(String, String)> {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(text(&page, 1), of(&[("__name__", "a"), ("job", "j"), ("x", "1"), ("y", "2"), ("zone", "z")]));
    assert_eq!(text(&page, 2), of(&[("__name__", "a"), ("job", "j"), ("x", "1"), ("z", "2"), ("zone", "z")]));
    assert_eq!(text(&page, 3), of(&[("__name__", "a"), ("job", "j"), ("x", "1"), ("zone", "z")]));
}

#[test]
fn more_kinds_of_label_sets_than_are_remembered_are_right_too() {
    let names: Vec<String> = (0..20).map(|n| format!("l{n:02}")).collect();
    let sets: Vec<[(&str, &str); 1]> = names.iter().map(|name| [(name.as_str(), "v")]).collect();
    let twice: Vec<(&str, &[(&str, &str)])> = sets.iter().chain(&sets).map(|set| ("a", &set[..])).collect();
    let mut page = page(&twice);
    let hashes = finish(&mut page, &mut Merge::default(), &mut Common::default(), false);
    assert_eq!(hashes[..20], hashes[20..]);
    for (at, name) in names.iter().enumerate() {
        assert!(text(&page, at + 20).contains(&(name.clone(), "v".to_owned())));
    }
}

#[test]
fn a_label_that_comes_twice_is_refused() {
    let mut page = page(&[("a", &[("x", "1"), ("x", "2")])]);
    let mut laid = Common::default();
    laid.lay(&common(), &mut page);
    let mut sample = page.samples[0];
    assert!(Merge::default().apply(&mut page, &mut sample, &laid, false).is_err());
}
