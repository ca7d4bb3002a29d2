//! Conditions: which records a rule is about.
//!
//! In: the conditions of one rule as text. Out: a [`When`] that answers for a container once
//! ([`in_scope`](When::in_scope)) and for each of its records ([`matches`](When::matches)). Invariant: the
//! answer depends on the workload and the record alone, and takes time linear in the line.

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder};

use super::config::{Conditions, Pattern};
use crate::data::batch::{Fields, Record, Stream};
use crate::data::workload::Workload;

/// A rule that cannot be compiled: which, and why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{key}: {reason}")]
pub struct Error {
    /// The key in the config, dotted: `process.drop.health.regex`.
    pub key: String,
    /// What is wrong with it and what to do.
    pub reason: String,
}

impl Error {
    pub(in crate::logs) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }
}

/// Rules of one kind, at most: their names are values of a metric's label.
pub const MAX_RULES: usize = 64;

/// Largest compiled form of one regular expression, in bytes: a bound on memory.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Refuses names that would not make a good label value.
pub(in crate::logs) fn check_names<'a>(
    table: &str,
    names: impl ExactSizeIterator<Item = &'a String>,
) -> Result<(), Error> {
    if names.len() > MAX_RULES {
        return Err(Error::new(table, format!("{} rules, at most {MAX_RULES} are allowed", names.len())));
    }
    for name in names {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > 40 || !name.bytes().all(plain) {
            return Err(Error::new(
                format!("{table}.{name}"),
                "a rule's name is 1 to 40 of a-z, 0-9, '_' and '-'; rename the table",
            ));
        }
    }
    Ok(())
}

/// Compiles a person's regular expression.
pub(in crate::logs) fn regex(key: &str, pattern: &str) -> Result<Regex, Error> {
    RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build().map_err(|error| {
        let reason = match error {
            regex::Error::CompiledTooBig(_) => {
                "the regular expression is too large; use smaller repetitions".to_owned()
            }
            // The crate's text draws a caret below the pattern over several lines; its last line is the cause.
            other => {
                let text = other.to_string();
                let cause = text.lines().last().unwrap_or_default();
                format!("bad regular expression {pattern:?}: {}", cause.trim_start_matches("error: "))
            }
        };
        Error::new(key, reason)
    })
}

/// A set of names: some that match, some that are excluded.
#[derive(Debug, Default)]
struct Names {
    any: Vec<Vec<u8>>,
    none: Vec<Vec<u8>>,
}

impl Names {
    fn compile(key: String, patterns: &[Pattern]) -> Result<Option<Self>, Error> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let mut names = Self::default();
        for Pattern(text) in patterns {
            let (list, name) = match text.strip_prefix('!') {
                Some(rest) => (&mut names.none, rest),
                None => (&mut names.any, text.as_str()),
            };
            if name.is_empty() {
                return Err(Error::new(key, "an empty name matches nothing; remove it"));
            }
            list.push(name.as_bytes().to_vec());
        }
        Ok(Some(names))
    }

    fn matches(&self, name: &[u8]) -> bool {
        (self.any.is_empty() || self.any.iter().any(|p| glob(p, name)))
            && !self.none.iter().any(|p| glob(p, name))
    }
}

/// True when `name` is `pattern`, where `*` stands for any text. Time is at most the product of the lengths.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the text after the last star does not fit here.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            (p, n) = (after_star, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Conditions about containers alone, for rules that are not about records.
#[derive(Debug)]
pub(in crate::logs) struct Selector([Option<Names>; 4]);

impl Selector {
    /// Compiles the patterns for namespace, pod, container and service of the rule whose table is `at`.
    pub(in crate::logs) fn compile(at: &str, patterns: [&[Pattern]; 4]) -> Result<Self, Error> {
        let [namespace, pod, container, service] = patterns;
        let names = |key: &str, patterns: &[Pattern]| Names::compile(format!("{at}.{key}"), patterns);
        Ok(Self([
            names("namespace", namespace)?,
            names("pod", pod)?,
            names("container", container)?,
            names("service", service)?,
        ]))
    }

    /// True when the container meets all of them.
    pub(in crate::logs) fn matches(&self, workload: &Workload) -> bool {
        let container = &workload.container;
        let actual = [&container.namespace, &container.pod, &container.container, &workload.service_name];
        self.0
            .iter()
            .zip(actual)
            .all(|(names, name)| names.as_ref().is_none_or(|names| names.matches(name.as_bytes())))
    }
}

/// Compiled conditions of one rule.
#[derive(Debug)]
pub(super) struct When {
    namespace: Option<Names>,
    pod: Option<Names>,
    container: Option<Names>,
    service: Option<Names>,
    stream: Option<Stream>,
    levels: Vec<(u8, u8)>,
    statuses: Vec<(u16, u16)>,
    http_method: Option<Names>,
    http_route: Option<Names>,
    url_path: Option<Names>,
    contains: Option<AhoCorasick>,
    regex: Option<Regex>,
}

impl When {
    /// Compiles the conditions of the rule whose table is `at` (`process.drop.health`).
    pub(super) fn compile(at: &str, conditions: Conditions<'_>) -> Result<Self, Error> {
        let names = |key: &str, patterns: &[Pattern]| Names::compile(format!("{at}.{key}"), patterns);
        let contains = match conditions.contains {
            [] => None,
            texts if texts.iter().any(String::is_empty) => {
                return Err(Error::new(
                    format!("{at}.contains"),
                    "the empty text is in every line; remove it",
                ));
            }
            texts => Some(
                AhoCorasick::new(texts)
                    .map_err(|error| Error::new(format!("{at}.contains"), error.to_string()))?,
            ),
        };
        Ok(Self {
            namespace: names("namespace", conditions.namespace)?,
            pod: names("pod", conditions.pod)?,
            container: names("container", conditions.container)?,
            service: names("service", conditions.service)?,
            stream: conditions.stream.map(|stream| match stream {
                super::config::Stream::Stdout => Stream::Stdout,
                super::config::Stream::Stderr => Stream::Stderr,
            }),
            levels: conditions.level.iter().map(|level| (level.from, level.to)).collect(),
            statuses: conditions.http_status.iter().map(|status| (status.from, status.to)).collect(),
            http_method: names("http_method", conditions.http_method)?,
            http_route: names("http_route", conditions.http_route)?,
            url_path: names("url_path", conditions.url_path)?,
            contains,
            regex: conditions.regex.map(|text| regex(&format!("{at}.regex"), text)).transpose()?,
        })
    }

    /// The parsed fields that the conditions look at.
    pub(super) fn wants(&self) -> Fields {
        let mut fields = Fields::NONE;
        for (needed, field) in [
            (!self.levels.is_empty(), Fields::LEVEL),
            (!self.statuses.is_empty(), Fields::HTTP_STATUS),
            (self.http_method.is_some(), Fields::HTTP_METHOD),
            // The route may be derived from the path, so both come with it.
            (self.http_route.is_some() || self.url_path.is_some(), Fields::HTTP_ROUTE),
        ] {
            if needed {
                fields = fields.with(field);
            }
        }
        fields
    }

    /// True when the container meets the conditions about containers; constant while it lives.
    pub(super) fn in_scope(&self, workload: &Workload) -> bool {
        let meets = |names: &Option<Names>, name: &str| match names {
            Some(names) => names.matches(name.as_bytes()),
            None => true,
        };
        meets(&self.namespace, &workload.container.namespace)
            && meets(&self.pod, &workload.container.pod)
            && meets(&self.container, &workload.container.container)
            && meets(&self.service, &workload.service_name)
    }

    /// True when a record of a container in scope meets the other conditions.
    #[inline]
    pub(super) fn matches(&self, record: &Record, arena: &[u8]) -> bool {
        let meets = |names: &Option<Names>, span: crate::data::batch::Span| match names {
            Some(names) => names.matches(span.of(arena)),
            None => true,
        };
        let severity = record.severity.number();
        let status = record.http_status;
        self.stream.is_none_or(|stream| stream == record.stream)
            && (self.levels.is_empty() || self.levels.iter().any(|(a, b)| (*a..=*b).contains(&severity)))
            && (self.statuses.is_empty() || self.statuses.iter().any(|(a, b)| (*a..=*b).contains(&status)))
            && meets(&self.http_method, record.http_method)
            && meets(&self.http_route, record.http_route)
            && meets(&self.url_path, record.url_path)
            && self.contains.as_ref().is_none_or(|texts| texts.is_match(record.body.of(arena)))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(record.body.of(arena)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/live", false),
            ("/health*", "/health", true),
            ("*-api-*", "my-api-x", true),
            ("*-api-*", "my-api", false),
            ("a*b*c", "aXbXbc", true),
            ("*", "", true),
            ("", "", true),
            ("a*", "ba", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_exclamation_mark_excludes() {
        let list = ["shop-*", "!shop-test"].map(|p| Pattern(p.to_owned()));
        let names = Names::compile(String::new(), &list).expect("valid").expect("given");
        assert!(names.matches(b"shop-live"));
        assert!(!names.matches(b"shop-test"));
        assert!(!names.matches(b"bank"));
    }
}
