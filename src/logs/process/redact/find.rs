//! The built-in redaction rules: where in a text the secrets stand.
//!
//! In: a text. Out: byte ranges with the rule that found each. One vectorised search for literals that begin or
//! name a secret; whatever it finds is verified by hand-written code that looks only at its surroundings. Card
//! numbers have no literal: one byte in thirteen is looked at. Invariant: time is linear in the text, since
//! every verification is bounded or ends where the next search begins.

use std::sync::LazyLock;

use aho_corasick::packed::{Config, MatchKind, Searcher};
use aho_corasick::{AhoCorasick, MatchKind as AutomatonMatchKind};
use memchr::memmem::Finder;

use super::assign;
use super::card;

/// A range of text to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Index of the rule, built-in ones first.
    pub(crate) rule: u16,
}

macro_rules! rules {
    ($($constant:ident = $index:literal $name:literal,)*) => {
        $(pub(super) const $constant: u16 = $index;)*
        /// Names of the built-in rules by index; the last two are optional.
        pub(crate) const NAMES: &[&str] = &[$($name),*];
    };
}
rules! {
    JWT = 0 "jwt",
    AWS_KEY = 1 "aws_key",
    GCP_KEY = 2 "gcp_key",
    GITHUB_TOKEN = 3 "github_token",
    GITLAB_TOKEN = 4 "gitlab_token",
    SLACK_TOKEN = 5 "slack_token",
    STRIPE_KEY = 6 "stripe_key",
    NPM_TOKEN = 7 "npm_token",
    PRIVATE_KEY = 8 "private_key",
    AUTHORIZATION = 9 "authorization",
    PASSWORD = 10 "password",
    URL_USERINFO = 11 "url_userinfo",
    CARD = 12 "card",
    EMAIL = 13 "email",
    IP = 14 "ip",
}

/// What stands at a literal.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A token: the literal and at least `min` bytes of the alphabet after it.
    Token {
        rule: u16,
        min: usize,
        alphabet: fn(u8) -> bool,
        upper_exact: bool,
    },
    Jwt,
    /// `sk_live_…`, `rk_live_…`: secret and restricted keys, not the public `pk_…`.
    Stripe,
    SlackHook,
    Url,
    PrivateKey,
    Authorization,
    Bearer,
    Basic,
    /// Part of a key that names a secret.
    Assignment,
}

fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

fn dotted(b: u8) -> bool {
    word(b) || b == b'.'
}

fn upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

const fn token(rule: u16, min: usize) -> Kind {
    Kind::Token { rule, min, alphabet: dotted, upper_exact: false }
}

const fn aws() -> Kind {
    Kind::Token { rule: AWS_KEY, min: 16, alphabet: upper, upper_exact: true }
}

/// At most 64 of them, or the vectorised search does not take them.
///
/// Prefixes as their issuers document them; lengths are lower bounds, so that a longer form is caught too.
const LITERALS: &[(&str, Kind)] = &[
    ("eyJ", Kind::Jwt),
    ("AKIA", aws()),
    ("ASIA", aws()),
    ("ABIA", aws()),
    ("ACCA", aws()),
    ("AIza", token(GCP_KEY, 30)),
    ("ya29.", token(GCP_KEY, 20)),
    ("GOCSPX-", token(GCP_KEY, 20)),
    ("ghp_", token(GITHUB_TOKEN, 20)),
    ("gho_", token(GITHUB_TOKEN, 20)),
    ("ghu_", token(GITHUB_TOKEN, 20)),
    ("ghs_", token(GITHUB_TOKEN, 20)),
    ("ghr_", token(GITHUB_TOKEN, 20)),
    ("github_pat_", token(GITHUB_TOKEN, 20)),
    ("glpat-", token(GITLAB_TOKEN, 16)),
    ("xox", Kind::Token { rule: SLACK_TOKEN, min: 10, alphabet: dotted, upper_exact: false }),
    ("xapp-", token(SLACK_TOKEN, 10)),
    ("hooks.slack.com", Kind::SlackHook),
    ("k_live_", Kind::Stripe),
    ("k_test_", Kind::Stripe),
    ("whsec_", token(STRIPE_KEY, 10)),
    ("npm_", Kind::Token { rule: NPM_TOKEN, min: 30, alphabet: alphanumeric, upper_exact: false }),
    ("PRIVATE KEY", Kind::PrivateKey),
    ("://", Kind::Url),
    (":\\/\\/", Kind::Url),
    ("uthorization", Kind::Authorization),
    ("UTHORIZATION", Kind::Authorization),
    ("earer", Kind::Bearer),
    ("EARER", Kind::Bearer),
    ("asic ", Kind::Basic),
    ("asswor", Kind::Assignment),
    ("ASSWOR", Kind::Assignment),
    ("asswd", Kind::Assignment),
    ("ASSWD", Kind::Assignment),
    ("ssphrase", Kind::Assignment),
    ("ASSPHRASE", Kind::Assignment),
    ("pwd", Kind::Assignment),
    ("Pwd", Kind::Assignment),
    ("PWD", Kind::Assignment),
    ("pass=", Kind::Assignment),
    ("pass\"", Kind::Assignment),
    ("pass\\\"", Kind::Assignment),
    ("PASS=", Kind::Assignment),
    ("ecret", Kind::Assignment),
    ("ECRET", Kind::Assignment),
    ("oken", Kind::Assignment),
    ("OKEN", Kind::Assignment),
    ("pi_key", Kind::Assignment),
    ("piKey", Kind::Assignment),
    ("pi-key", Kind::Assignment),
    ("pi-Key", Kind::Assignment),
    ("pikey", Kind::Assignment),
    ("PI_KEY", Kind::Assignment),
    ("PIKEY", Kind::Assignment),
    ("access_key", Kind::Assignment),
    ("ccessKey", Kind::Assignment),
    ("ACCESS_KEY", Kind::Assignment),
    ("private_key", Kind::Assignment),
    ("privateKey", Kind::Assignment),
];

fn alphanumeric(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

#[derive(Debug)]
enum Search {
    Packed(Searcher),
    Automaton(AhoCorasick),
}

/// The built-in rules that are switched on.
#[derive(Debug)]
pub(crate) struct Builtin {
    /// Bit per rule.
    enabled: u32,
    search: Search,
}

impl Builtin {
    /// `enabled` has a bit set for each rule of [`NAMES`] that is on.
    pub(crate) fn new(enabled: u32) -> Self {
        let texts = || LITERALS.iter().map(|(text, _)| *text);
        let packed = Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .only_teddy(true)
            .builder()
            .extend(texts())
            .build();
        let search = match packed {
            Some(searcher) => Search::Packed(searcher),
            // Processors without the vector instructions.
            None => Search::Automaton(
                AhoCorasick::builder()
                    .match_kind(AutomatonMatchKind::LeftmostFirst)
                    .build(texts())
                    .expect("few short literals"),
            ),
        };
        Self { enabled, search }
    }

    /// True when this rule is on.
    pub(crate) fn has(&self, rule: u16) -> bool {
        self.enabled & 1 << rule != 0
    }

    /// True when the optional rules are all that is on.
    fn has_literals(&self) -> bool {
        self.enabled & ((1 << CARD) - 1) != 0
    }

    /// Appends the secrets of `text` to `hits`, unsorted, possibly overlapping.
    #[inline]
    pub(crate) fn find(&self, text: &[u8], hits: &mut Vec<Hit>) {
        if self.has_literals() {
            let (mut at, mut hopeless) = (0, 0);
            while let Some((literal, start, end)) = self.next_literal(text, at) {
                at = end.max(self.verify(text, start, end, LITERALS[literal].1, &mut hopeless, hits));
            }
        }
        if self.has(CARD) {
            card::find(text, |start, end| hits.push(Hit { start, end, rule: CARD }));
        }
        if self.has(EMAIL) {
            find_emails(text, hits);
        }
        if self.has(IP) {
            find_addresses(text, hits);
        }
    }

    #[inline]
    fn next_literal(&self, text: &[u8], at: usize) -> Option<(usize, usize, usize)> {
        match &self.search {
            Search::Packed(searcher) => {
                let found = searcher.find_in(text, (at..text.len()).into())?;
                Some((found.pattern().as_usize(), found.start(), found.end()))
            }
            Search::Automaton(automaton) => {
                let found = automaton.find(aho_corasick::Input::new(text).range(at..))?;
                Some((found.pattern().as_usize(), found.start(), found.end()))
            }
        }
    }

    /// Looks at the surroundings of a literal; gives where the search goes on at the earliest.
    fn verify(
        &self,
        text: &[u8],
        start: usize,
        end: usize,
        kind: Kind,
        hopeless: &mut usize,
        hits: &mut Vec<Hit>,
    ) -> usize {
        let found = match kind {
            Kind::Token { rule, min, alphabet, upper_exact } => {
                if !self.has(rule) || !left_boundary(text, start) {
                    return end;
                }
                let stop = run_end(text, end, alphabet);
                // A sentence's full stop does not belong to the token.
                let stop = if text[stop - 1] == b'.' { stop - 1 } else { stop };
                let long_enough = stop.saturating_sub(end) >= min;
                let exact = !upper_exact
                    || stop - end <= 20 && !text.get(stop).is_some_and(|b| b.is_ascii_alphanumeric());
                (long_enough && exact).then_some((start, stop, rule))
            }
            Kind::Jwt => jwt(text, start, hopeless).map(|stop| (start, stop, JWT)),
            Kind::Stripe => {
                let from = start.saturating_sub(1);
                let stop = run_end(text, end, word);
                let secret = from < start && matches!(text[from], b's' | b'r') && left_boundary(text, from);
                (secret && stop - end >= 10).then_some((from, stop, STRIPE_KEY))
            }
            Kind::SlackHook => {
                let from = (end..text.len().min(end + 16))
                    .find(|at| text[*at..].starts_with(b"services"))
                    .map_or(end, |at| at + 8);
                let stop = run_end(text, from, |b| b.is_ascii_alphanumeric() || b == b'/' || b == b'\\');
                (from > end && stop - from >= 10).then_some((from + 1, stop, SLACK_TOKEN))
            }
            Kind::Url => user_info(text, end).map(|stop| (end, stop, URL_USERINFO)),
            Kind::PrivateKey => private_key(text, start).map(|(from, stop)| (from, stop, PRIVATE_KEY)),
            Kind::Authorization => {
                assign::authorization(text, start, end).map(|(from, stop)| (from, stop, AUTHORIZATION))
            }
            Kind::Bearer => bearer(text, end).map(|(from, stop)| (from, stop, AUTHORIZATION)),
            Kind::Basic => basic(text, end).map(|stop| (end, stop, AUTHORIZATION)),
            Kind::Assignment => assign::assignment(text, start, end).map(|(from, stop, aws)| {
                (from, stop, if aws && self.has(AWS_KEY) { AWS_KEY } else { PASSWORD })
            }),
        };
        match found {
            Some((from, stop, rule)) if self.has(rule) => {
                hits.push(Hit { start: from, end: stop, rule });
                stop
            }
            _ => end,
        }
    }
}

/// First position from `at` on whose byte is not of the alphabet.
pub(super) fn run_end(text: &[u8], at: usize, alphabet: impl Fn(u8) -> bool) -> usize {
    text[at..].iter().position(|b| !alphabet(*b)).map_or(text.len(), |n| at + n)
}

/// True when a token may begin at `at`: not in the middle of a word, unless that is a JSON escape (`\n`) or a
/// percent escape (`%20`).
fn left_boundary(text: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|i| text[i]) else {
        return true;
    };
    if !before.is_ascii_alphanumeric() {
        return true;
    }
    let json_escape = at >= 2 && text[at - 2] == b'\\' && matches!(before, b'n' | b't' | b'r' | b'b' | b'f');
    json_escape
        || at >= 3 && text[at - 3] == b'%' && before.is_ascii_hexdigit() && text[at - 2].is_ascii_hexdigit()
        || at >= 6 && &text[at - 6..at - 4] == b"\\u"
}

/// `header.payload.signature` in base64url, the header beginning with `{"`. Source: RFC 7519, RFC 7515.
///
/// `hopeless` remembers up to where no token can begin, so that a long run is looked through once.
fn jwt(text: &[u8], start: usize, hopeless: &mut usize) -> Option<usize> {
    if start < *hopeless || !left_boundary(text, start) {
        return None;
    }
    let header = run_end(text, start, word);
    if text.get(header) != Some(&b'.') {
        *hopeless = header;
        return None;
    }
    let payload = run_end(text, header + 1, word);
    if header - start < 10 || payload - header < 10 {
        // What follows the header is short, or the header is: no need to look from within it again.
        *hopeless = header;
        return None;
    }
    if text.get(payload) == Some(&b'.') {
        return Some(run_end(text, payload + 1, dotted));
    }
    Some(payload)
}

/// `user:password@` after `://`; gives the position of the `@`. Source: RFC 3986 section 3.2.1.
fn user_info(text: &[u8], at: usize) -> Option<usize> {
    let window = &text[at..text.len().min(at + 512)];
    let authority = window
        .iter()
        .position(|b| {
            b.is_ascii_whitespace() || matches!(b, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'\\')
        })
        .unwrap_or(window.len());
    let mut end = memchr::memrchr(b'@', &window[..authority]);
    if end.is_none() {
        // A password with a raw `/`, `?` or `#`: what looks like a port is none.
        let colon = memchr::memchr(b':', &window[..authority])?;
        let port = &window[colon + 1..authority];
        if window[0] == b'[' || !port.is_empty() && port.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let text_end = window
            .iter()
            .position(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'<' | b'>' | b'\\'))
            .unwrap_or(window.len());
        end = memchr::memchr(b'@', &window[..text_end]);
    }
    let end = end?;
    // A user's name alone is no secret, a token in its place is.
    let secret = window[..end].contains(&b':') || end >= 20;
    let covered = window[..end].iter().all(|b| *b == b'*');
    (end > 0 && secret && !covered).then_some(at + end)
}

/// From `-----BEGIN … PRIVATE KEY` to the end of its `-----END … -----`, or of the text or quotation.
fn private_key(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let from = at.saturating_sub(32);
    let begin = from + memchr::memmem::rfind(&text[from..at], b"-----BEGIN")?;
    let quote = memchr::memchr(b'"', &text[at..]).map_or(text.len(), |n| at + n);
    if let Some(end) = memchr::memmem::find(&text[at..quote], b"-----END") {
        let from = at + end + 8;
        let stop = memchr::memmem::find(&text[from..quote], b"-----").map_or(quote, |n| from + n + 5);
        return Some((begin, stop));
    }
    let mut stop = quote;
    while quote < text.len() && text[stop - 1] == b'\\' {
        stop -= 1;
    }
    Some((begin, stop))
}

/// What stands in a private key that began in an earlier line.
pub(crate) enum KeyLine {
    /// Not a line of a key: it ended without notice.
    Foreign,
    /// A full line.
    Inner,
    /// A short line: the last one before the end.
    Last,
    /// The end marker, which ends at this position.
    End(usize),
}

/// True when a private key begins in `line` and does not end there.
pub(crate) fn opens_key(line: &[u8]) -> bool {
    static LAST_OF_BEGIN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"PRIVATE KEY-----"));
    let Some(at) = LAST_OF_BEGIN.find(line) else {
        return false;
    };
    private_key(line, at).is_some_and(|(_, end)| end == line.len())
        && memchr::memmem::find(&line[at..], b"-----END").is_none()
}

/// Judges the line after one that belongs to a private key.
pub(crate) fn key_line(line: &[u8]) -> KeyLine {
    if let Some(at) = memchr::memmem::find(line, b"-----END") {
        let from = at + 8;
        let end = memchr::memmem::find(&line[from..], b"-----").map_or(line.len(), |n| from + n + 5);
        return KeyLine::End(end);
    }
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"Proc-Type:") || line.starts_with(b"DEK-Info:") {
        return KeyLine::Inner;
    }
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    if line.len() > 80 || !line.iter().all(base64) {
        return KeyLine::Foreign;
    }
    if line.len() >= 60 { KeyLine::Inner } else { KeyLine::Last }
}

fn credential(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-')
}

/// True for text that is not a word of prose: long, or with a digit in it.
pub(super) fn looks_random(text: &[u8]) -> bool {
    text.len() >= 20 || text.len() >= 6 && text.iter().any(u8::is_ascii_digit)
}

/// A credential after `Bearer`. Source: RFC 6750 section 2.1.
fn bearer(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = &text[at..];
    let gap = if rest.starts_with(b"%20") {
        3
    } else {
        rest.iter().take_while(|b| matches!(b, b' ' | b'+')).count()
    };
    if gap == 0 {
        // `BearerBearerBearer…` would look through the rest of the text at each of them.
        return None;
    }
    let from = at + gap;
    let stop = run_end(text, from, credential);
    looks_random(&text[from..stop]).then_some((from, stop))
}

/// Base64 of `user:password` after `Basic `. Source: RFC 7617 section 2.
fn basic(text: &[u8], at: usize) -> Option<usize> {
    let stop =
        run_end(text, at, |b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_'));
    let encoded = &text[at..stop];
    if !(4..=1024).contains(&encoded.len()) {
        return None;
    }
    let mut colon = false;
    let (mut bits, mut held) = (0_u32, 0);
    for byte in encoded {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            let decoded = (bits >> held) as u8;
            colon |= decoded == b':';
            if decoded < b' ' || decoded == 0x7f {
                return None;
            }
        }
    }
    colon.then_some(stop)
}

/// `local@domain.tld`.
fn find_emails(text: &[u8], hits: &mut Vec<Hit>) {
    let local = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'%' | b'+' | b'-');
    let domain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    for at in memchr::memchr_iter(b'@', text) {
        let reach = at.saturating_sub(64);
        let from = text[reach..at].iter().rposition(|b| !local(*b)).map_or(reach, |n| reach + n + 1);
        // `\nbob@…` in JSON: the letter belongs to the escape.
        let from = from + usize::from(from > 0 && text[from - 1] == b'\\' && from + 1 < at);
        let reach = text.len().min(at + 256);
        let mut stop = run_end(&text[..reach], at + 1, domain);
        while stop > at + 1 && !text[stop - 1].is_ascii_alphanumeric() {
            stop -= 1;
        }
        let name = &text[at + 1..stop];
        let top = name.rsplit(|b| *b == b'.').next().unwrap_or_default();
        if from < at && top.len() < name.len() && top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic) {
            hits.push(Hit { start: from, end: stop, rule: EMAIL });
        }
    }
}

/// IPv4 and IPv6 addresses, judged by the standard library's parser.
fn find_addresses(text: &[u8], hits: &mut Vec<Hit>) {
    let part = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'.' | b':');
    let mut at = 0;
    while at < text.len() {
        if !part(text[at]) {
            at += 1;
            continue;
        }
        let stop = run_end(text, at, part);
        let run = &text[at..stop];
        let bounded = |from: usize, to: usize| {
            !(from > 0
                && (text[from - 1].is_ascii_alphanumeric() || text[from - 1] == b'_')
                && left_word(text, from))
                && !text.get(to).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        };
        if let Some((from, to)) = address(run)
            && bounded(at + from, at + to)
        {
            hits.push(Hit { start: at + from, end: at + to, rule: IP });
        }
        at = stop;
    }
}

fn left_word(text: &[u8], at: usize) -> bool {
    !left_boundary(text, at)
}

/// The address in a run of its characters: all of it less punctuation at the ends, or an IPv4 address with a
/// port behind it.
fn address(run: &[u8]) -> Option<(usize, usize)> {
    let parses = |from: usize, to: usize| {
        to - from <= 45
            && std::str::from_utf8(&run[from..to])
                .is_ok_and(|t| t.len() > 2 && t.parse::<std::net::IpAddr>().is_ok())
    };
    let dotted = memchr::memchr(b'.', run).is_some();
    let colons = memchr::memchr_iter(b':', run).count();
    if !dotted && colons < 2 {
        return None;
    }
    let mut to = run.len();
    for _ in 0..3 {
        let mut from = 0;
        for _ in 0..3 {
            if from < to && parses(from, to) {
                return Some((from, to));
            }
            if from < to && matches!(run[from], b':' | b'.') {
                from += 1;
            } else {
                break;
            }
        }
        if to > 0 && matches!(run[to - 1], b':' | b'.') {
            to -= 1;
        } else {
            break;
        }
    }
    if dotted && colons >= 1 {
        // `10.0.0.1:8080`, `::ffff:10.0.0.1` is parsed above; `client:10.0.0.1` begins with hexadecimal letters.
        let pieces = run.split(|b| *b == b':');
        let mut from = 0;
        for piece in pieces {
            let end = from + piece.len();
            if piece.contains(&b'.') && parses(from, end) {
                return Some((from, end));
            }
            from = end + 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectorised_search_takes_the_literals() {
        assert!(LITERALS.len() <= 64, "{}", LITERALS.len());
    }

    #[test]
    fn a_hostile_line_takes_linear_time() {
        // Each would take minutes if a search began again at every literal.
        for piece in ["eyJ-", "eyJ", "token:", "xox-", "://a:", "Bearer", "4-", "password,", "AKIA", "\\\\"] {
            let text = piece.repeat((64 << 10) / piece.len());
            let started = std::time::Instant::now();
            Builtin::new(u32::MAX).find(text.as_bytes(), &mut Vec::new());
            assert!(started.elapsed().as_secs() < 5, "{piece}: {:?}", started.elapsed());
        }
    }
}
