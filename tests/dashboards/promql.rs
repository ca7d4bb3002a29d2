//! What a query names, and whether Loki would read it: small readers, as the real parsers are programs in Go.
//!
//! In: queries of the dashboards. Out: names of metrics in PromQL; what is wrong with LogQL. Texts in quotes are skipped, so
//! neither reader is misled by what stands in them.

use std::collections::BTreeSet;

/// A word, a text in quotes, or one other letter.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Other(char),
}

/// `Err` when a text has no end.
fn tokens(query: &str) -> Result<Vec<Token>, String> {
    let (mut found, mut letters) = (Vec::new(), query.chars().peekable());
    while let Some(letter) = letters.next() {
        if letter == '"' || letter == '`' {
            let mut text = String::new();
            loop {
                match letters.next() {
                    Some('\\') if letter == '"' => text.extend(letters.next()),
                    Some(end) if end == letter => break,
                    Some(inner) => text.push(inner),
                    None => return Err("a text without its end".to_owned()),
                }
            }
            found.push(Token::Text(text));
        } else if letter.is_ascii_alphanumeric() || letter == '_' || letter == ':' || letter == '$' {
            let mut word = String::from(letter);
            while let Some(next) = letters.next_if(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == ':') {
                word.push(next);
            }
            found.push(Token::Word(word));
        } else if !letter.is_whitespace() {
            found.push(Token::Other(letter));
        }
    }
    Ok(found)
}

/// Metrics that a PromQL query names, sorted; alternatives of `__name__` one by one.
pub(crate) fn metrics(query: &str) -> Vec<String> {
    const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
    let tokens = tokens(query).expect("texts end");
    let mut found = BTreeSet::new();
    let (mut braces, mut brackets, mut at) = (0, 0, 0);
    while at < tokens.len() {
        let next = tokens.get(at + 1);
        match &tokens[at] {
            Token::Other('{') => braces += 1,
            Token::Other('}') => braces -= 1,
            Token::Other('[') => brackets += 1,
            Token::Other(']') => brackets -= 1,
            Token::Word(word) if braces > 0 => {
                if let ("__name__", Some(Token::Text(names))) = (word.as_str(), tokens.get(at + 3)) {
                    found.extend(alternatives(names));
                }
            }
            Token::Word(word) if LISTS.contains(&word.as_str()) && next == Some(&Token::Other('(')) => {
                while tokens.get(at) != Some(&Token::Other(')')) {
                    at += 1;
                }
            }
            Token::Word(word) if brackets == 0 && !is_operator(next) => {
                let is_name = word.starts_with(|c: char| c.is_ascii_alphabetic());
                if is_name && !WORDS.contains(&word.as_str()) {
                    found.insert(word.clone());
                }
            }
            _ => {}
        }
        at += 1;
    }
    found.into_iter().collect()
}

/// What stands before a bracket, or before its grouping, is a function or an aggregation.
fn is_operator(next: Option<&Token>) -> bool {
    match next {
        Some(Token::Other(letter)) => *letter == '(',
        Some(Token::Word(word)) => word == "by" || word == "without",
        _ => false,
    }
}

/// `a(b|c)d` is `abd`, `acd`; `a|b` is both.
fn alternatives(names: &str) -> Vec<String> {
    match names.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?))) {
        Some((before, (inner, after))) => {
            inner.split('|').map(|one| format!("{before}{one}{after}")).collect()
        }
        None => names.split('|').map(str::to_owned).collect(),
    }
}

const FUNCTIONS: [&str; 18] = [
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "topk",
    "bottomk",
    "sort_desc",
    "rate",
    "count_over_time",
    "bytes_rate",
    "bytes_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "quantile_over_time",
    "vector",
    "label_replace",
];
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const STAGES: [&str; 12] = [
    "json",
    "logfmt",
    "pattern",
    "regexp",
    "unpack",
    "line_format",
    "label_format",
    "unwrap",
    "decolorize",
    "drop",
    "keep",
    "distinct",
];

/// Whether a query keeps to what Loki 3's documents say of LogQL: streams with a matcher that cannot be empty, stages and
/// functions that there are, ranges where they must be. Source: Loki's documentation, "LogQL".
pub(crate) fn check_logql(query: &str) -> Result<(), String> {
    let tokens = tokens(query)?;
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Other(letter @ ('(' | '{' | '[')) => open.push((*letter, at)),
            Token::Other(letter @ (')' | '}' | ']')) => {
                let half = match letter {
                    ')' => '(',
                    '}' => '{',
                    _ => '[',
                };
                let (last, from) = open.pop().unwrap_or_default();
                if last != half {
                    return Err("a bracket without its other half".to_owned());
                }
                if half == '{' && !selects(&tokens[from + 1..at]) {
                    return Err("no matcher of the stream that cannot be empty".to_owned());
                }
                if half == '(' && from > 0 {
                    let Token::Word(name) = &tokens[from - 1] else { continue };
                    let ranged = name.ends_with("_over_time") || name.contains("rate");
                    if !FUNCTIONS.contains(&name.as_str()) && !LISTS.contains(&name.as_str()) {
                        return Err(format!("no function of LogQL: {name}"));
                    }
                    if ranged && !tokens[from..at].contains(&Token::Other('[')) {
                        return Err("a range is missing".to_owned());
                    }
                }
            }
            Token::Other('|') => {
                let (Some(Token::Word(word)), next) = (tokens.get(at + 1), tokens.get(at + 2)) else {
                    continue;
                };
                let compares = matches!(next, Some(Token::Other('=' | '!' | '<' | '>')));
                if !compares && !STAGES.contains(&word.as_str()) {
                    return Err(format!("no stage of LogQL: {word}"));
                }
            }
            _ => {}
        }
    }
    if open.is_empty() { Ok(()) } else { Err("a bracket without its other half".to_owned()) }
}

/// True when a stream's matchers have one that an empty label does not match.
fn selects(matchers: &[Token]) -> bool {
    matchers.split(|token| *token == Token::Other(',')).any(|matcher| match matcher {
        [Token::Word(_), Token::Other('='), Token::Text(value)] => !value.is_empty(),
        // "All" of the variable `cluster` is `.*`; of the others used here `.+` or a list.
        [Token::Word(_), Token::Other('='), Token::Other('~'), Token::Text(value)] => {
            value.ends_with('+') || (value.starts_with('$') && value != "$cluster")
        }
        _ => false,
    })
}
