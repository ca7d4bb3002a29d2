//! Annotations of alerts: the templates that Prometheus runs, as far as the rendered rules use them.
//!
//! In: a template, the alert's labels and value, and what answers a query. Out: its text. Actions are `range`, `with`, `if`,
//! `else`, `end` and pipelines of `query`, `first`, `value`, `label`, `printf` and the functions that write numbers for
//! people. Invariant: nothing in it loops or fails by what a query yields; what is not understood is an error with its name.
//!
//! Source: Prometheus 2.42, `template/template.go`; formats of numbers as Go's `fmt` has them.

use super::query::Vector;
use super::store::{Labels, label};

/// Longest text that one template makes.
const MOST_TEXT: usize = 8_192;
/// Blocks within blocks.
const DEPTH: usize = 16;

/// Runs `template`.
pub(super) fn expand(
    template: &str,
    labels: &Labels,
    value: f64,
    query: &dyn Fn(&str) -> Vector,
) -> Result<String, String> {
    let tokens = tokens(template)?;
    let run = Run { labels, value, query };
    let mut out = String::new();
    let end = run.block(&tokens, 0, &Data::Nothing, 0, &mut out)?;
    if end < tokens.len() {
        return Err("an end without a beginning".into());
    }
    Ok(out)
}

/// The queries that a template asks, as PromQL with `placeholder` where a label of the alert will stand.
pub(super) fn queries(template: &str, placeholder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find("query (printf `") {
        rest = &rest[at + "query (printf `".len()..];
        let Some(end) = rest.find('`') else { break };
        let text = rest[..end].replace("%q", &format!("\"{placeholder}\""));
        found.push(text.replace("%%", "%"));
        rest = &rest[end..];
    }
    found
}

enum Token<'a> {
    Text(&'a str),
    Action(&'a str),
}

fn tokens(template: &str) -> Result<Vec<Token<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let (text, after) = rest.split_at(at);
        // A text in quotes may hold braces of its own.
        let mut quoted = None;
        let end = after.char_indices().skip(2).find_map(|(at, c)| {
            match quoted {
                Some(quote) if c == quote => quoted = None,
                None if c == '`' || c == '"' => quoted = Some(c),
                None if c == '}' && after[at..].starts_with("}}") => return Some(at),
                _ => {}
            }
            None
        });
        let end = end.ok_or("an action has no end")?;
        let action = &after[2..end];
        let trims = |text: &str| text.starts_with("- ") || text.ends_with(" -");
        if trims(action) {
            return Err("trimming is not understood".into());
        }
        found.push(Token::Text(text));
        found.push(Token::Action(action.trim()));
        rest = &after[end + 2..];
    }
    found.push(Token::Text(rest));
    Ok(found)
}

/// What an expression of a template is.
#[derive(Debug, Clone)]
enum Data {
    Nothing,
    Vector(Vector),
    Sample(Labels, f64),
    Number(f64),
    Text(String),
}

impl Data {
    fn is_true(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Vector(vector) => !vector.is_empty(),
            Self::Sample(..) => true,
            Self::Number(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
        }
    }

    fn number(&self) -> Result<f64, String> {
        match self {
            Self::Number(number) | Self::Sample(_, number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| format!("{text:?} is no number")),
            _ => Err("a number is missing".into()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Number(number) => general(*number, None),
            Self::Text(text) => text.clone(),
            Self::Sample(_, number) => general(*number, None),
            Self::Vector(vector) => format!("{} samples", vector.len()),
        }
    }
}

struct Run<'a> {
    labels: &'a Labels,
    value: f64,
    query: &'a dyn Fn(&str) -> Vector,
}

impl Run<'_> {
    /// Runs from token `at` to the end of the block; the index of the action that ends it.
    fn block(
        &self,
        tokens: &[Token<'_>],
        mut at: usize,
        dot: &Data,
        depth: usize,
        out: &mut String,
    ) -> Result<usize, String> {
        if depth > DEPTH {
            return Err("too many blocks within blocks".into());
        }
        while let Some(token) = tokens.get(at) {
            let action = match token {
                Token::Text(text) => {
                    push(out, text);
                    at += 1;
                    continue;
                }
                Token::Action(action) => *action,
            };
            let (word, rest) = action.split_once(' ').unwrap_or((action, ""));
            match word {
                "end" | "else" => return Ok(at),
                "range" | "with" | "if" => {
                    let data = self.pipeline(rest, dot)?;
                    let other = after(tokens, at + 1)?;
                    let runs: Vec<Data> = match (word, data) {
                        ("range", Data::Vector(vector)) => {
                            vector.into_iter().map(|(labels, value)| Data::Sample(labels, value)).collect()
                        }
                        ("range", _) => return Err("range wants samples".into()),
                        (_, data) if !data.is_true() => Vec::new(),
                        ("if", _) => vec![dot.clone()],
                        (_, data) => vec![data],
                    };
                    for inner in &runs {
                        self.block(tokens, at + 1, inner, depth + 1, out)?;
                    }
                    at = other;
                    if matches!(tokens.get(at), Some(Token::Action("else"))) {
                        if runs.is_empty() {
                            self.block(tokens, at + 1, dot, depth + 1, out)?;
                        }
                        at = after(tokens, at + 1)?;
                    }
                }
                _ => push(out, &self.pipeline(action, dot)?.show()),
            }
            at += 1;
        }
        if depth > 0 { Err("a block has no end".into()) } else { Ok(at) }
    }

    fn pipeline(&self, text: &str, dot: &Data) -> Result<Data, String> {
        let words = words(text)?;
        let mut last = None;
        for command in words.split(|word| *word == "|") {
            let mut arguments = Vec::new();
            let (name, rest) = command.split_first().ok_or("an empty pipeline")?;
            let is_function = name.chars().all(|c| c.is_ascii_alphabetic());
            if !is_function && rest.is_empty() && last.is_none() {
                last = Some(self.operand(name, dot)?);
                continue;
            }
            for word in rest {
                arguments.push(self.operand(word, dot)?);
            }
            arguments.extend(last.take());
            last = Some(self.call(name, &arguments)?);
        }
        last.ok_or_else(|| "an empty pipeline".to_owned())
    }

    fn operand(&self, word: &str, dot: &Data) -> Result<Data, String> {
        if let Some(inner) = word.strip_prefix('(').and_then(|word| word.strip_suffix(')')) {
            return self.pipeline(inner, dot);
        }
        if let Some(name) = word.strip_prefix("$labels.") {
            return Ok(Data::Text(label(self.labels, name).to_owned()));
        }
        if let Some(name) = word.strip_prefix(".Labels.") {
            let Data::Sample(labels, _) = dot else { return Err("only a sample has labels".into()) };
            return Ok(Data::Text(label(labels, name).to_owned()));
        }
        if let Some(text) = word.strip_prefix('`').and_then(|word| word.strip_suffix('`')) {
            return Ok(Data::Text(text.to_owned()));
        }
        if word.starts_with('"') {
            let text = serde_json::from_str(word).map_err(|_| format!("{word} is no text"))?;
            return Ok(Data::Text(text));
        }
        match word {
            "." => Ok(dot.clone()),
            "$value" => Ok(Data::Number(self.value)),
            ".Value" => Ok(Data::Number(dot.number()?)),
            _ => word.parse().map(Data::Number).map_err(|_| format!("{word} is not understood")),
        }
    }

    fn call(&self, name: &str, arguments: &[Data]) -> Result<Data, String> {
        let missing = || format!("{name} lacks an argument");
        let first = arguments.first().ok_or_else(missing)?;
        let last = arguments.last().ok_or_else(missing)?;
        Ok(match name {
            "query" => Data::Vector((self.query)(&first.show())),
            "first" => match last {
                Data::Vector(vector) => {
                    let (labels, value) = vector.first().cloned().ok_or("first of nothing")?;
                    Data::Sample(labels, value)
                }
                _ => return Err("first wants samples".into()),
            },
            "value" => Data::Number(last.number()?),
            "label" => match last {
                Data::Sample(labels, _) => Data::Text(label(labels, &first.show()).to_owned()),
                _ => return Err("only a sample has labels".into()),
            },
            "printf" => Data::Text(printf(&first.show(), &arguments[1..])?),
            "humanizePercentage" => Data::Text(format!("{}%", general(last.number()? * 100.0, Some(4)))),
            "humanizeDuration" => Data::Text(duration(last.number()?)),
            "humanize" => Data::Text(humanize(last.number()?)),
            _ => return Err(format!("{name} is not understood")),
        })
    }
}

fn push(out: &mut String, text: &str) {
    let room = MOST_TEXT.saturating_sub(out.len());
    let end = (0..=text.len().min(room)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    out.push_str(&text[..end]);
}

/// The action that ends or parts the block that begins at `at`.
fn after(tokens: &[Token<'_>], at: usize) -> Result<usize, String> {
    let mut open = 0;
    for (at, token) in tokens.iter().enumerate().skip(at) {
        let Token::Action(action) = token else { continue };
        match action.split(' ').next().unwrap_or_default() {
            "range" | "with" | "if" => open += 1,
            "end" if open == 0 => return Ok(at),
            "else" if open == 0 => return Ok(at),
            "end" => open -= 1,
            _ => {}
        }
    }
    Err("a block has no end".into())
}

/// Words of a pipeline; what stands in quotes or parentheses is one.
fn words(text: &str) -> Result<Vec<&str>, String> {
    let mut found = Vec::new();
    let (mut from, mut open, mut quoted) = (None, 0_usize, None);
    for (at, c) in text.char_indices() {
        match (quoted, c) {
            (Some(quote), _) if c == quote && !(quote == '"' && text[..at].ends_with('\\')) => quoted = None,
            (Some(_), _) => {}
            (None, '`' | '"') => {
                quoted = Some(c);
                from.get_or_insert(at);
            }
            (None, '(') => {
                open += 1;
                from.get_or_insert(at);
            }
            (None, ')') => open = open.checked_sub(1).ok_or("a parenthesis too many")?,
            (None, c) if open == 0 && (c.is_whitespace() || c == '|') => {
                found.extend(from.take().map(|from| &text[from..at]));
                if c == '|' {
                    found.push(&text[at..=at]);
                }
            }
            _ => {
                from.get_or_insert(at);
            }
        }
    }
    if open > 0 || quoted.is_some() {
        return Err("a parenthesis or a text has no end".into());
    }
    found.extend(from.map(|from| &text[from..]));
    Ok(found)
}

/// `printf` of Go, with `%q`, `%s`, `%v`, `%d`, `%.2f`, `%.4g` and `%%`.
fn printf(format: &str, arguments: &[Data]) -> Result<String, String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find(|c: char| c.is_ascii_alphabetic() || c == '%').ok_or("a verb has no letter")?;
        let (shape, verb) = (&rest[..end], rest[end..].chars().next().unwrap_or('%'));
        rest = &rest[end + 1..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let argument = arguments.next().ok_or("printf lacks an argument")?;
        let digits =
            shape.strip_prefix('.').and_then(|digits| digits.parse::<usize>().ok()).map(|d| d.min(20));
        match verb {
            'q' => out.push_str(&serde_json::to_string(&argument.show()).unwrap_or_default()),
            's' | 'v' => out.push_str(&argument.show()),
            'd' => out.push_str(&format!("{:.0}", argument.number()?)),
            'f' => {
                let number = argument.number()?;
                out.push_str(&if number.is_finite() {
                    format!("{number:.*}", digits.unwrap_or(6))
                } else {
                    general(number, None)
                });
            }
            'g' => out.push_str(&general(argument.number()?, digits)),
            other => return Err(format!("%{other} is not understood")),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Go's `%g`, or `%.4g` with a number of digits.
fn general(number: f64, digits: Option<usize>) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let written = match digits {
        Some(digits) => format!("{number:.*e}", digits.max(1) - 1),
        None => format!("{number:e}"),
    };
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    if exponent < -4 || exponent >= digits.map_or(21, |digits| digits as i32) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{mantissa}e{exponent}").parse::<f64>().map_or(written.clone(), |number| number.to_string())
}

/// `humanizeDuration` of Prometheus.
fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return general(seconds, Some(4));
    }
    let (sign, all) = if seconds < 0.0 { ("-", -seconds) } else { ("", seconds) };
    if all >= 1.0 {
        let whole = all as i64;
        let (days, hours, minutes, rest) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
        return if days != 0 {
            format!("{sign}{days}d {hours}h {minutes}m {rest}s")
        } else if hours != 0 {
            format!("{sign}{hours}h {minutes}m {rest}s")
        } else if minutes != 0 {
            format!("{sign}{minutes}m {rest}s")
        } else {
            format!("{sign}{}s", general(all, Some(4)))
        };
    }
    let (small, prefix) = smaller(seconds);
    format!("{}{prefix}s", general(small, Some(4)))
}

/// `humanize` of Prometheus.
fn humanize(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return general(number, Some(4));
    }
    if number.abs() < 1.0 {
        let (small, prefix) = smaller(number);
        return format!("{}{prefix}", general(small, Some(4)));
    }
    let (mut large, mut prefix) = (number, "");
    for next in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
        if large.abs() < 1e3 {
            break;
        }
        (large, prefix) = (large / 1e3, next);
    }
    format!("{}{prefix}", general(large, Some(4)))
}

fn smaller(number: f64) -> (f64, &'static str) {
    let (mut number, mut prefix) = (number, "");
    if number == 0.0 {
        return (number, prefix);
    }
    for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if number.abs() >= 1.0 {
            break;
        }
        (number, prefix) = (number * 1e3, next);
    }
    (number, prefix)
}

#[cfg(test)]
mod tests {
    use super::super::store::labels;
    use super::*;

    fn said(template: &str) -> Result<String, String> {
        let own = labels([("cluster", "eu\"1"), ("slo_id", "n/w/x")]);
        expand(template, &own, 12.5, &|query| match query {
            "top" => vec![(labels([("route", "/checkout")]), 180.2), (labels([("route", "/login")]), 59.9)],
            "one" => vec![(labels([]), 0.537)],
            "a{cluster=\"eu\\\"1\",x=\"50%\"}" => vec![(labels([]), 90_061.0)],
            _ => Vec::new(),
        })
    }

    #[test]
    fn lists_and_numbers_read_as_prometheus_writes_them() {
        let list = "{{ range query `top` }}{{ .Labels.route }} {{ printf \"%.0f\" .Value }}; {{ end }}";
        assert_eq!(said(list).as_deref(), Ok("/checkout 180; /login 60; "));
        let with = "{{ with query (printf `one`) }}Of it {{ . | first | value | humanizePercentage }} is left. {{ end }}!";
        assert_eq!(said(with).as_deref(), Ok("Of it 53.7% is left. !"));
        let time = "{{ with query (printf `a{cluster=%q,x=\"50%%\"}` $labels.cluster) }}{{ . | first | value | humanizeDuration }}{{ end }}";
        assert_eq!(said(time).as_deref(), Ok("1d 1h 1m 1s"));
        assert_eq!(
            said("{{ $value }} {{ $labels.slo_id }} {{ $labels.none }}.").as_deref(),
            Ok("12.5 n/w/x .")
        );
        let service =
            "{a=\"b\"{{ range query (printf `top` ) }}, s={{ printf `%q` .Labels.route }}{{ end }}}";
        assert_eq!(said(service).as_deref(), Ok("{a=\"b\", s=\"/checkout\", s=\"/login\"}"));
    }

    #[test]
    fn what_finds_nothing_leaves_its_words_out() {
        assert_eq!(said("a{{ with query `none` }}b{{ end }}c").as_deref(), Ok("ac"));
        assert_eq!(said("a{{ with query `none` }}b{{ else }}d{{ end }}c").as_deref(), Ok("adc"));
        assert_eq!(said("{{ if query `one` }}y{{ else }}n{{ end }}").as_deref(), Ok("y"));
        assert_eq!(said("{{ range query `none` }}b{{ end }}").as_deref(), Ok(""));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for template in
            ["{{ x", "{{ end }}", "{{ with query `one` }}", "{{ reReplaceAll `a` }}", "{{ }}", "{{ ( }}"]
        {
            assert!(said(template).is_err(), "{template}");
        }
    }

    #[test]
    fn numbers_for_people() {
        let percent = |share: f64| format!("{}%", general(share * 100.0, Some(4)));
        assert_eq!(
            (percent(0.5), percent(1.0), percent(-35.7), percent(0.000123456)),
            ("50%".into(), "100%".into(), "-3570%".into(), "0.01235%".into())
        );
        assert_eq!(
            (general(123_456.0, Some(4)), general(0.00001, Some(4))),
            ("1.235e+05".into(), "1e-05".into())
        );
        assert_eq!(
            (duration(0.0), duration(59.5), duration(3_600.0)),
            ("0s".into(), "59.5s".into(), "1h 0m 0s".into())
        );
        assert_eq!((duration(0.0123), duration(-90.0)), ("12.3ms".into(), "-1m 30s".into()));
        assert_eq!((humanize(1_234_567.0), humanize(0.0)), ("1.235M".into(), "0".into()));
    }

    #[test]
    fn queries_of_a_template_are_known_before_it_runs() {
        let template = "{{ range query (printf `sum(a{c=%q,r!~\"50%%\"})` $labels.cluster) }}{{ end }}{{ with query (printf `b`) }}{{ end }}";
        assert_eq!(queries(template, "?"), ["sum(a{c=\"?\",r!~\"50%\"})", "b"]);
    }
}
