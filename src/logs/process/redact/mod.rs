//! Redaction: secrets in a record's text are replaced before the record leaves the node.
//!
//! In: a record whose spans point into an arena. Out: the same record; where something was found, its text is
//! written anew at the arena's end and every span points there. Invariant: after it, no span of the record
//! shows any byte of what was found, and a line that was valid JSON still is. The old bytes stay in the arena:
//! only what the spans show may be sent or stored.

mod assign;
mod card;
mod cover;
mod find;

use std::collections::BTreeMap;

use prometheus::IntCounter;
use regex::bytes::{Captures, Regex};

use super::config::{Redact, RedactRule};
use super::dedup::{spans_mut, within};
use super::rules::{self, Error, When};
use super::watch::Replaced;
use crate::data::batch::{Marks, Record, Span};
use crate::data::workload::Workload;
use crate::metrics;

pub(in crate::logs) use cover::Cover;
use find::{Builtin, Hit, KeyLine, NAMES};

/// Lines of a private key after its first that are redacted at most. An 8192-bit RSA key takes 101.
const MAX_KEY_LINES: u8 = 128;

/// A compiled rule of a person's own.
#[derive(Debug)]
struct Own {
    when: When,
    pattern: Regex,
    /// `None` is the standard text.
    replace: Option<String>,
}

/// The compiled rules.
#[derive(Debug)]
pub(super) struct Redactor {
    builtin: Option<Builtin>,
    own: Vec<Own>,
    /// `[REDACTED:<rule>]` by rule.
    texts: Vec<String>,
    hits: Vec<IntCounter>,
}

/// How many lines of a private key may still follow, by stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyState([u8; 2]);

/// A replacement of a range of a text.
struct Edit {
    start: usize,
    end: usize,
    text: Vec<u8>,
    rule: u16,
}

impl Redactor {
    /// `None` when no rule is on.
    pub(super) fn compile(config: &Redact) -> Result<Option<Self>, Error> {
        let mut enabled: u32 = if config.builtin { (1 << find::EMAIL) - 1 } else { 0 };
        for name in &config.except {
            let known = NAMES[..usize::from(find::EMAIL)].iter().position(|known| known == name);
            let Some(rule) = known else {
                let names = NAMES[..usize::from(find::EMAIL)].join(", ");
                return Err(Error::new(
                    "process.redact.except",
                    format!("{name:?} is no built-in rule; they are {names}"),
                ));
            };
            enabled &= !(1 << rule);
        }
        enabled |= u32::from(config.email) << find::EMAIL | u32::from(config.ip) << find::IP;
        if enabled == 0 && config.rule.is_empty() {
            return Ok(None);
        }
        let own = own_rules(&config.rule)?;
        let names: Vec<&str> = NAMES.iter().copied().chain(config.rule.keys().map(String::as_str)).collect();
        Ok(Some(Self {
            builtin: (enabled != 0).then(|| Builtin::new(enabled)),
            own,
            texts: names.iter().map(|name| format!("[REDACTED:{name}]")).collect(),
            hits: names.iter().map(|name| metrics::REDACTIONS.with_label_values(&[name])).collect(),
        }))
    }

    /// From now on no hit is counted.
    pub(super) fn count_nothing(&mut self) {
        self.hits.fill_with(super::uncounted);
    }

    /// True when what stands in the place of a secret may be `text`, or a part of it.
    pub(super) fn may_write(&self, text: &str) -> bool {
        // A text that overlaps with `[REDACTED:…]` has a bracket of it, or lies within.
        self.own.iter().any(|own| own.replace.is_some())
            || text.contains(['[', ']'])
            || self.texts.iter().any(|written| written.contains(text))
    }

    /// Which of the own rules are about a container.
    pub(super) fn scope(&self, workload: &Workload) -> Vec<bool> {
        self.own.iter().map(|rule| rule.when.in_scope(workload)).collect()
    }

    /// The parsed fields that the rules look at.
    pub(super) fn wants(&self) -> crate::data::batch::Fields {
        self.own.iter().fold(crate::data::batch::Fields::NONE, |fields, rule| fields.with(rule.when.wants()))
    }

    /// Follows private keys that are written over several lines. Must see every record of a log; true when this
    /// one stands in a key that began before it.
    pub(super) fn follow_keys(&self, state: &mut KeyState, record: &Record, arena: &[u8]) -> bool {
        if !self.builtin.as_ref().is_some_and(|builtin| builtin.has(find::PRIVATE_KEY)) {
            return false;
        }
        let line = record.body.of(arena);
        let left = &mut state.0[record.stream as usize];
        let mut inside = *left > 0;
        if inside {
            *left = match find::key_line(line) {
                KeyLine::Inner => *left - 1,
                KeyLine::Last => 1,
                KeyLine::End(_) | KeyLine::Foreign => 0,
            };
            inside = !matches!(find::key_line(line), KeyLine::Foreign);
        }
        if find::opens_key(line) {
            *left = MAX_KEY_LINES;
        }
        inside
    }

    /// Replaces what the rules find in the record's spans. `in_key` comes from [`follow_keys`](Self::follow_keys);
    /// `counts` says whether the metric counts it.
    pub(super) fn redact(
        &self,
        scope: &[bool],
        in_key: bool,
        counts: bool,
        record: &mut Record,
        arena: &mut Vec<u8>,
    ) {
        let original = *record;
        let mut hits = self.find_in_line(scope, in_key, &original, arena);
        let body_hits = !hits.is_empty();
        let has_secret = hits.iter().any(|hit| hit.rule < find::EMAIL);
        let edits = if body_hits { self.edits(&original, arena, &mut hits) } else { Vec::new() };

        let mut any = false;
        let [body, rest @ ..] = spans_mut(record);
        for span in rest {
            if span.is_empty() || within(*span, original.body) {
                continue;
            }
            any |= self.redact_beside(scope, counts, &original, span, &edits, arena);
        }
        let edits: Vec<Edit> = edits.into_iter().filter(|edit| edit.end > edit.start).collect();
        if !edits.is_empty() {
            any = true;
            let old = original.body;
            *body = self.rewrite(old, &edits, counts, arena);
            let new = *body;
            for span in spans_mut(record).into_iter().skip(1) {
                if !span.is_empty() && within(*span, old) {
                    let from = (span.start - old.start) as usize;
                    let to = from + span.len as usize;
                    *span = Span::new(moved_start(&edits, from), moved_end(&edits, to))
                        .shifted(new.start as usize);
                }
            }
        }
        if any {
            record.marks.insert(Marks::REDACTED);
            if has_secret {
                record.marks.insert(Marks::SECRET);
            }
        }
    }

    /// Which rules find something in the record, and in how many places of its line; for people who ask.
    pub(super) fn found(
        &self,
        scope: &[bool],
        in_key: bool,
        record: &Record,
        arena: &[u8],
    ) -> Vec<(usize, u32)> {
        let mut counts = BTreeMap::<usize, u32>::new();
        let mut hits = self.find_in_line(scope, in_key, record, arena);
        merge(&mut hits);
        for hit in hits {
            *counts.entry(usize::from(hit.rule)).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    /// What [`redact`](Self::redact) puts where in the record's line; for people who ask.
    pub(super) fn replaced(
        &self,
        scope: &[bool],
        in_key: bool,
        record: &Record,
        arena: &[u8],
    ) -> impl Iterator<Item = Replaced> {
        let mut hits = self.find_in_line(scope, in_key, record, arena);
        let edits = if hits.is_empty() { Vec::new() } else { self.edits(record, arena, &mut hits) };
        let offset = record.offset;
        edits.into_iter().filter(|edit| edit.end > edit.start).map(move |edit| {
            let Edit { start, end, text, rule } = edit;
            Replaced { offset, rule: usize::from(rule), start, end, text }
        })
    }

    /// Name of a rule: built in, or a person's own.
    pub(super) fn name(&self, rule: usize) -> &str {
        let text = self.texts.get(rule).map_or("", String::as_str);
        text.strip_prefix("[REDACTED:").and_then(|text| text.strip_suffix(']')).unwrap_or(text)
    }

    /// Finds what is to be replaced in the record's line.
    fn find_in_line(&self, scope: &[bool], in_key: bool, record: &Record, arena: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.find(scope, record, record.body, arena, &mut hits);
        if in_key {
            let line = record.body.of(arena);
            let end = if let KeyLine::End(end) = find::key_line(line) { end } else { line.len() };
            hits.push(Hit { start: 0, end, rule: find::PRIVATE_KEY });
        }
        hits
    }

    /// Finds what the rules match in one span's text; positions count from the span's start.
    fn find(&self, scope: &[bool], record: &Record, span: Span, arena: &[u8], hits: &mut Vec<Hit>) {
        let text = span.of(arena);
        if let Some(builtin) = &self.builtin {
            builtin.find(text, hits);
        }
        for (index, rule) in self.own.iter().enumerate() {
            if scope[index] && rule.when.matches(record, arena) {
                let number = (NAMES.len() + index) as u16;
                hits.extend(rule.pattern.find_iter(text).filter(|m| !m.is_empty()).map(|found| Hit {
                    start: found.start(),
                    end: found.end(),
                    rule: number,
                }));
            }
        }
    }

    /// Redacts a span whose text is a copy outside the line: by the rules, and by what was found in the line.
    fn redact_beside(
        &self,
        scope: &[bool],
        counts: bool,
        record: &Record,
        span: &mut Span,
        body_edits: &[Edit],
        arena: &mut Vec<u8>,
    ) -> bool {
        let mut hits = Vec::new();
        self.find(scope, record, *span, arena, &mut hits);
        let body = record.body.of(arena);
        for edit in body_edits {
            let secret = &body[edit.start..edit.end];
            if secret.len() >= 4 {
                hits.extend(memchr::memmem::find_iter(span.of(arena), secret).map(|start| Hit {
                    start,
                    end: start + secret.len(),
                    rule: edit.rule,
                }));
            }
        }
        if hits.is_empty() {
            return false;
        }
        merge(&mut hits);
        let text = span.of(arena);
        let edits: Vec<Edit> = hits.iter().map(|hit| self.plain(text, *hit)).collect();
        *span = self.rewrite(*span, &edits, counts, arena);
        true
    }

    /// The text that stands in place of a hit.
    fn replacement(&self, text: &[u8], hit: Hit) -> Vec<u8> {
        let standard = || self.texts[usize::from(hit.rule)].clone().into_bytes();
        let Some(own) = usize::from(hit.rule).checked_sub(NAMES.len()).map(|index| &self.own[index]) else {
            return standard();
        };
        let Some(template) = &own.replace else {
            return standard();
        };
        let mut replaced = Vec::new();
        // The same match again with its groups. After a merge the hit may be longer than the match: then the
        // groups no longer say what all of it was.
        match own.pattern.captures_at(text, hit.start).filter(|c| whole(c, hit)) {
            Some(captures) => captures.expand(template.as_bytes(), &mut replaced),
            None => return standard(),
        }
        replaced
    }

    fn plain(&self, text: &[u8], hit: Hit) -> Edit {
        Edit { start: hit.start, end: hit.end, text: self.replacement(text, hit), rule: hit.rule }
    }

    /// What to change in the line, in order and without overlaps.
    fn edits(&self, record: &Record, arena: &[u8], hits: &mut Vec<Hit>) -> Vec<Edit> {
        let line = record.body.of(arena);
        merge(hits);
        let plain: Vec<Edit> = hits.iter().map(|hit| self.plain(line, *hit)).collect();
        let json = matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) && is_json(line);
        if !json || is_json(&rewritten(line, &plain)) {
            return plain;
        }
        // The plain way would break the line's JSON: a bare number, structure between the values, an escape cut
        // in two. Then each string and number that a hit touches is changed for itself.
        self.edits_by_value(line, hits)
    }

    fn edits_by_value(&self, line: &[u8], hits: &[Hit]) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        let mut next = 0;
        let mut at = 0;
        while at < line.len() && next < hits.len() {
            let (from, to, string) = match line[at] {
                b'"' => {
                    let to = string_end(line, at + 1);
                    (at + 1, to, true)
                }
                b'{' | b'}' | b'[' | b']' | b':' | b',' | b' ' | b'\t' | b'\r' | b'\n' => {
                    at += 1;
                    continue;
                }
                _ => {
                    (at, find::run_end(line, at, |b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)), false)
                }
            };
            at = if string { to + 1 } else { to.max(at + 1) };
            while next < hits.len() && hits[next].end <= from {
                next += 1;
            }
            for hit in hits[next..].iter().take_while(|hit| hit.start < to) {
                let (mut start, mut end) = (hit.start.max(from), hit.end.min(to));
                let mut text = Vec::new();
                if string {
                    (start, end) = whole_escapes(line, from, start, end);
                    start = start.max(edits.last().map_or(0, |edit| edit.end));
                    escape(&self.replacement(line, *hit), &mut text);
                } else {
                    (start, end) = (from, to);
                    text.push(b'"');
                    escape(&self.replacement(line, *hit), &mut text);
                    text.push(b'"');
                    if edits.last().is_some_and(|edit| edit.end > start) {
                        continue;
                    }
                }
                if end > start {
                    edits.push(Edit { start, end, text, rule: hit.rule });
                }
            }
        }
        edits
    }

    /// Writes the text of `span` with its edits to the arena's end.
    fn rewrite(&self, span: Span, edits: &[Edit], counts: bool, arena: &mut Vec<u8>) -> Span {
        let start = arena.len();
        let mut kept = span.start as usize;
        for edit in edits {
            let (from, to) = (span.start as usize + edit.start, span.start as usize + edit.end);
            arena.extend_from_within(kept..from);
            arena.extend_from_slice(&edit.text);
            kept = to;
            if counts {
                self.hits[usize::from(edit.rule)].inc();
            }
        }
        arena.extend_from_within(kept..(span.start + span.len) as usize);
        Span::new(start, arena.len())
    }
}

fn own_rules(config: &BTreeMap<String, RedactRule>) -> Result<Vec<Own>, Error> {
    rules::check_names("process.redact.rule", config.keys())?;
    let mut own = Vec::with_capacity(config.len());
    for (name, rule) in config {
        let at = format!("process.redact.rule.{name}");
        if NAMES.contains(&name.as_str()) {
            return Err(Error::new(at, "a built-in rule has this name; choose another"));
        }
        let key = format!("{at}.pattern");
        let pattern = rules::regex(&key, &rule.pattern)?;
        if pattern.is_match(b"") {
            return Err(Error::new(
                key,
                format!("{:?} matches the empty text; it must match something", rule.pattern),
            ));
        }
        own.push(Own {
            when: When::compile(&at, rule.conditions())?,
            pattern,
            replace: rule.replace.clone(),
        });
    }
    Ok(own)
}

fn whole(captures: &Captures<'_>, hit: Hit) -> bool {
    captures.get(0).is_some_and(|m| m.start() == hit.start && m.end() == hit.end)
}

/// Sorts hits and joins those that overlap; the first one's rule names the whole.
fn merge(hits: &mut Vec<Hit>) {
    hits.sort_by_key(|hit| (hit.start, hit.rule, hit.end));
    hits.dedup_by(|next, kept| {
        let overlaps = next.start < kept.end;
        if overlaps {
            kept.end = kept.end.max(next.end);
        }
        overlaps
    });
}

fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

fn rewritten(text: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut kept = 0;
    for edit in edits {
        out.extend_from_slice(&text[kept..edit.start]);
        out.extend_from_slice(&edit.text);
        kept = edit.end;
    }
    out.extend_from_slice(&text[kept..]);
    out
}

/// Where the byte at `from` went; the start of the replacement when it was replaced.
fn moved_start(edits: &[Edit], from: usize) -> usize {
    let mut shift = 0_isize;
    for edit in edits.iter().take_while(|edit| edit.start <= from) {
        if from < edit.end {
            return edit.start.wrapping_add_signed(shift);
        }
        shift += edit.text.len() as isize - (edit.end - edit.start) as isize;
    }
    from.wrapping_add_signed(shift)
}

/// Where the exclusive end `to` went; the end of the replacement when the byte before it was replaced.
fn moved_end(edits: &[Edit], to: usize) -> usize {
    let mut shift = 0_isize;
    for edit in edits.iter().take_while(|edit| edit.start < to) {
        if to < edit.end {
            return edit.start.wrapping_add_signed(shift) + edit.text.len();
        }
        shift += edit.text.len() as isize - (edit.end - edit.start) as isize;
    }
    to.wrapping_add_signed(shift)
}

/// End of the JSON string whose text begins at `from`: its closing quotation mark.
fn string_end(line: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &line[at.min(line.len())..]) {
        at += found;
        if line[at] == b'"' {
            return at;
        }
        at += 2;
    }
    line.len()
}

/// Widens `start..end` so that it cuts no escape of the JSON string that begins at `from`.
fn whole_escapes(line: &[u8], from: usize, mut start: usize, mut end: usize) -> (usize, usize) {
    let mut at = from;
    while let Some(found) = memchr::memchr(b'\\', &line[at.min(end)..end]) {
        at += found;
        let len = if line.get(at + 1) == Some(&b'u') { 6 } else { 2 };
        if at < start && start < at + len {
            start = at;
        }
        if at < end && end < at + len {
            end = at + len;
        }
        at += len;
    }
    (start, end)
}

/// Writes text as the inside of a JSON string.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}
