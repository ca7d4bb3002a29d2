//! Reads what targets answer: Prometheus text 0.0.4, OpenMetrics 1.0 and Prometheus' delimited protobuf.
//!
//! In: a body as it was fetched. Out: a page whose arena is that body; names and values point into it, and only text that had
//! to be unescaped or made is appended behind.
//! Invariant: no allocation per sample (a native histogram owns its buckets), no panic whatever the bytes, and what is accepted
//! is what Prometheus accepts. Where it differs, on purpose:
//!
//! - White space before a metric name is skipped, as the format says; Prometheus takes it for a part of the name.
//! - A NUL byte between lines is an error; Prometheus ends there, and everything behind is lost unnoticed.
//! - Escapes in an exemplar's labels and in a quoted name of `# TYPE` are resolved; Prometheus keeps them as written.
//! - A label that comes twice in a sample is refused here; Prometheus refuses the whole scrape a step later.
//!
//! Not done here: a label with an empty value stays (it equals no label, and whoever makes the label set final drops it), `le`
//! and `quantile` of text stay as the target writes them (so does Prometheus 2; 3 writes `1` as `1.0`), and `_created` is a
//! sample like others.

mod build;
mod histogram;
mod labels;
mod number;
mod openmetrics;
mod protobuf;
mod scan;
mod text;
mod wire;

pub use number::NORMAL_NAN;

use super::{Body, Config, Dialect, Failure};
use crate::data::sample::Page;
use build::{Builder, Index};

/// Largest body: spans are 32 bits, and what is appended behind the body has to fit too.
const LARGEST: usize = 1 << 30;

/// What a page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Samples; and as many metric families.
    pub samples: u64,
    /// Labels of one sample, without its name.
    pub labels: u64,
    /// Bytes of the name of a metric or a label.
    pub name: u64,
    /// Bytes of a label's value.
    pub label_value: u64,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            samples: config.sample_limit,
            labels: config.label_limit,
            name: config.name_limit,
            label_value: config.label_value_limit,
        }
    }
}

/// What reading keeps from page to page, so that in steady state it allocates nothing.
#[derive(Debug, Default)]
pub struct Parser {
    index: Index,
    /// Unescaped text of the page that is being read.
    extra: Vec<u8>,
}

impl Parser {
    /// Reads a body into a page; what the page held before is gone. After a failure it holds what
    /// stood before the place that is wrong, for those who count.
    ///
    /// # Errors
    /// [`Failure::Malformed`] with line and column, [`Failure::Limit`] with the key to raise, [`Failure::TooLarge`].
    pub fn parse(&mut self, body: Body, limits: &Limits, page: &mut Page) -> Result<(), Failure> {
        let Body { mut bytes, dialect } = body;
        page.clear();
        page.arena = Vec::new();
        if bytes.len() > LARGEST {
            return Err(Failure::TooLarge(LARGEST as u64));
        }
        self.index.clear();
        self.extra.clear();
        let mut builder = Builder::new(&bytes, page, limits, &mut self.index, &mut self.extra, dialect);
        let read = match dialect {
            Dialect::Text => text::read(&mut builder),
            Dialect::OpenMetrics => openmetrics::read(&mut builder),
            Dialect::Protobuf => protobuf::read(&mut builder),
        };
        let message = builder.message;
        let read = read.map_err(|fault| fault.explain(&bytes, message));
        bytes.extend_from_slice(&self.extra);
        page.arena = bytes;
        read
    }
}

/// Reads one body into a page: [`Parser::parse`] without anything kept for the next one.
///
/// # Errors
/// As [`Parser::parse`].
pub fn parse(body: Body, limits: &Limits, page: &mut Page) -> Result<(), Failure> {
    Parser::default().parse(body, limits, page)
}

/// Why a page cannot be read.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// What stands at a place of the body is not what the format has there.
    Malformed { at: usize, what: &'static str },
    /// Too much of something.
    Limit { what: &'static str, limit: u64, key: &'static str },
}

type Parsed<T> = Result<T, Fault>;

impl Fault {
    fn at<T>(at: usize, what: &'static str) -> Parsed<T> {
        Err(Self::Malformed { at, what })
    }

    /// With line, column and what stands there, for a person. `message` is the number of the protobuf message, or 0.
    #[cold]
    fn explain(self, text: &[u8], message: u64) -> Failure {
        const SHOWN: usize = 24;
        match self {
            Self::Limit { what, limit, key } => Failure::Limit { what, limit, key },
            Self::Malformed { at, what } if message > 0 => Failure::Malformed {
                line: message,
                column: at as u64 + 1,
                what: format!("{what} (protobuf: the line is the message, the column the byte of the body)"),
            },
            Self::Malformed { at, what } => {
                let at = at.min(text.len());
                let before = &text[..at];
                let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
                let found = &text[at..text.len().min(at + SHOWN)];
                let what = match found {
                    [] => format!("{what}, but the body ends here"),
                    _ => format!("{what}, but here is \"{}\"", found.escape_ascii()),
                };
                Failure::Malformed {
                    line: memchr::memchr_iter(b'\n', before).count() as u64 + 1,
                    column: (at - line_start) as u64 + 1,
                    what,
                }
            }
        }
    }
}
