//! Pages as text that a person can compare, and bodies to read.

use nodewick::data::sample::{Exemplar, Label, NO_TIME, Page, Sample};
use nodewick::scrape::exposition::{Limits, Parser, parse};
use nodewick::scrape::{Body, Config, Dialect, Failure};

pub(crate) fn limits() -> Limits {
    Limits::from(&Config::default())
}

pub(crate) fn body(bytes: impl Into<Vec<u8>>, dialect: Dialect) -> Body {
    Body { bytes: bytes.into(), dialect }
}

/// A page, or why there is none.
pub(crate) fn read(bytes: impl Into<Vec<u8>>, dialect: Dialect) -> Result<Page, Failure> {
    read_within(bytes, dialect, &limits())
}

pub(crate) fn read_within(
    bytes: impl Into<Vec<u8>>,
    dialect: Dialect,
    limits: &Limits,
) -> Result<Page, Failure> {
    let mut page = Page::default();
    parse(body(bytes, dialect), limits, &mut page)?;
    // A parser that has read other pages before reads the same.
    Ok(page)
}

pub(crate) fn text(bytes: impl Into<Vec<u8>>) -> Page {
    read(bytes, Dialect::Text).unwrap_or_else(|failure| panic!("{failure}"))
}

pub(crate) fn open(bytes: impl Into<Vec<u8>>) -> Page {
    read(bytes, Dialect::OpenMetrics).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Every sample as one line: `name{label="value"} value @time # {exemplar} value @time`.
pub(crate) fn samples(page: &Page) -> Vec<String> {
    page.samples.iter().map(|sample| show(page, sample)).collect()
}

/// Every family as `name|Kind|help|unit`.
pub(crate) fn families(page: &Page) -> Vec<String> {
    let show = |family: &nodewick::data::sample::Family| {
        let (name, help, unit) = (page.text(family.name), page.text(family.help), page.text(family.unit));
        format!("{name}|{:?}|{help}|{unit}", family.kind)
    };
    page.families.iter().map(show).collect()
}

/// For each sample the name of its family.
pub(crate) fn families_of_samples(page: &Page) -> Vec<&str> {
    page.samples.iter().map(|sample| page.text(page.families[sample.family as usize].name)).collect()
}

fn show(page: &Page, sample: &Sample) -> String {
    let mut shown = page.text(sample.name).to_owned();
    shown += &show_labels(page, page.labels_of(sample));
    shown += &format!(" {}", sample.value);
    if sample.time_unix_ms != NO_TIME {
        shown += &format!(" @{}", sample.time_unix_ms);
    }
    for exemplar in page.exemplars_of(sample) {
        shown += &show_exemplar(page, exemplar);
    }
    shown
}

fn show_exemplar(page: &Page, exemplar: &Exemplar) -> String {
    let labels = show_labels(page, page.exemplar_labels(exemplar));
    let time = match exemplar.time_unix_ms {
        NO_TIME => String::new(),
        time => format!(" @{time}"),
    };
    format!(" # {labels} {}{time}", exemplar.value)
}

fn show_labels(page: &Page, labels: &[Label]) -> String {
    let shown: Vec<String> = labels
        .iter()
        .map(|label| format!("{}={:?}", page.text(label.name), page.text(label.value)))
        .collect();
    if shown.is_empty() { String::new() } else { format!("{{{}}}", shown.join(",")) }
}

/// A parser that has been used, for what must not depend on what came before.
pub(crate) fn used() -> (Parser, Page) {
    let (mut parser, mut page) = (Parser::default(), Page::default());
    let before = "# TYPE before counter\nbefore{a=\"\\n\"} 1\nother 2\n";
    parser.parse(body(before, Dialect::Text), &limits(), &mut page).expect("well-formed");
    (parser, page)
}
