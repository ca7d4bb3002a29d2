//! The part of PromQL that objectives of other tools are written in.
//!
//! In: the text of a query, Sloth's `{{.window}}` included. Out: an [`Expr`], or why it is none. Invariant: bounded in
//! length and depth; what is not understood is an error, never skipped.

use super::Reason;

/// Bytes of a query that are read.
const LONGEST: usize = 8 << 10;
/// Levels of nesting.
const DEEPEST: usize = 32;

/// A query.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Number(f64),
    Series(Series),
    /// `rate(…)`, `vector(…)`.
    Call(String, Vec<Expr>),
    /// `sum(…)` and its like, with the labels of `by`; `without` is refused.
    Aggregate(String, Vec<String>, Box<Expr>),
    /// `-`, `/`, `*`, `+`, `or`.
    Binary(&'static str, Box<Expr>, Box<Expr>),
}

impl Expr {
    /// The ranges of all its series.
    pub(super) fn ranges(&self) -> Vec<Option<&str>> {
        match self {
            Self::Number(_) => Vec::new(),
            Self::Series(series) => vec![series.range.as_deref()],
            Self::Call(_, arguments) => arguments.iter().flat_map(Self::ranges).collect(),
            Self::Aggregate(_, _, inner) => inner.ranges(),
            Self::Binary(_, left, right) => [left.ranges(), right.ranges()].concat(),
        }
    }
}

/// A family with its matchers, and a range if it has one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) matchers: Vec<Matcher>,
    pub(super) range: Option<String>,
}

/// `label operator "value"`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Matcher {
    pub(super) label: String,
    pub(super) how: How,
    pub(super) value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    Is,
    IsNot,
    Like,
    Unlike,
}

impl Matcher {
    pub(super) fn text(&self) -> String {
        let how = match self.how {
            How::Is => "=",
            How::IsNot => "!=",
            How::Like => "=~",
            How::Unlike => "!~",
        };
        format!("{}{how}\"{}\"", self.label, self.value)
    }
}

const AGGREGATES: [&str; 8] = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"];

/// Reads a whole query.
pub(super) fn parse(text: &str) -> Result<Expr, Reason> {
    let wrong = |message: String| {
        Reason::new(message, "write it as sum(rate(family{namespace=\"shop\",service=\"checkout\"}[5m]))")
    };
    if text.len() > LONGEST {
        return Err(wrong(format!("a query of {} bytes is not read", text.len())));
    }
    let mut parser = Parser { rest: text.trim(), depth: 0 };
    let found = parser.either().map_err(wrong)?;
    parser.space();
    if !parser.rest.is_empty() {
        return Err(wrong(format!("the query is not understood from {}", parser.here())));
    }
    Ok(found)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

type Parsed<T> = Result<T, String>;

impl<'a> Parser<'a> {
    /// White space and comments.
    fn space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let Some(comment) = self.rest.strip_prefix('#') else { return };
            self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    /// What stands here, for messages.
    fn here(&self) -> String {
        if self.rest.is_empty() {
            return "its end".to_owned();
        }
        format!("{:?}", self.rest.chars().take(24).collect::<String>())
    }

    fn eat(&mut self, text: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn need(&mut self, text: &str) -> Parsed<()> {
        if self.eat(text) { Ok(()) } else { Err(format!("{text:?} is expected at {}", self.here())) }
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let starts = self.rest.starts_with(|c: char| inner(c) && !c.is_ascii_digit());
        let end = if starts { self.rest.find(|c| !inner(c)).unwrap_or(self.rest.len()) } else { 0 };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn eat_word(&mut self, wanted: &str) -> bool {
        let before = self.rest;
        let found = self.word().eq_ignore_ascii_case(wanted);
        if !found {
            self.rest = before;
        }
        found
    }

    /// `a or b`.
    fn either(&mut self) -> Parsed<Expr> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("the query is nested too deep".to_owned());
        }
        let mut left = self.sum()?;
        while self.eat_word("or") {
            self.modifier()?;
            left = Expr::Binary("or", Box::new(left), Box::new(self.sum()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    /// `on ()` behind an operator; labels in it are refused.
    fn modifier(&mut self) -> Parsed<()> {
        if self.eat_word("on") || self.eat_word("ignoring") {
            self.need("(")?;
            if !self.eat(")") {
                return Err(format!("matching on labels is not understood at {}", self.here()));
            }
        }
        Ok(())
    }

    fn sum(&mut self) -> Parsed<Expr> {
        let mut left = self.product()?;
        loop {
            let operator = match () {
                () if self.eat("-") => "-",
                () if self.eat("+") => "+",
                () => return Ok(left),
            };
            self.modifier()?;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Parsed<Expr> {
        let mut left = self.operand()?;
        loop {
            let operator = match () {
                () if self.eat("/") => "/",
                () if self.eat("*") => "*",
                () => return Ok(left),
            };
            self.modifier()?;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.operand()?));
        }
    }

    fn operand(&mut self) -> Parsed<Expr> {
        self.space();
        if self.eat("(") {
            let inner = self.either()?;
            self.need(")")?;
            return Ok(inner);
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            let inner = |c: char| c.is_ascii_digit() || c == '.';
            let end = self.rest.find(|c| !inner(c)).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at(end);
            self.rest = rest;
            return digits.parse().map(Expr::Number).map_err(|_| format!("{digits:?} is no number"));
        }
        let name = self.word();
        self.space();
        if name.is_empty() {
            if self.rest.starts_with('{') {
                return self.series(String::new());
            }
            return Err(format!("the query is not understood at {}", self.here()));
        }
        if AGGREGATES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            let mut by = self.by()?;
            self.need("(")?;
            let inner = self.either()?;
            self.need(")")?;
            by.extend(self.by()?);
            return Ok(Expr::Aggregate(name.to_ascii_lowercase(), by, Box::new(inner)));
        }
        if self.eat("(") {
            let mut arguments = Vec::new();
            while !self.eat(")") {
                arguments.push(self.either()?);
                if !self.eat(",") {
                    self.need(")")?;
                    break;
                }
            }
            return Ok(Expr::Call(name.to_owned(), arguments));
        }
        self.series(name.to_owned())
    }

    fn by(&mut self) -> Parsed<Vec<String>> {
        if self.eat_word("without") {
            return Err("without (…) keeps labels that are not known here".to_owned());
        }
        let mut labels = Vec::new();
        if self.eat_word("by") {
            self.need("(")?;
            while !self.eat(")") {
                let label = self.word();
                if label.is_empty() {
                    return Err(format!("a label is expected at {}", self.here()));
                }
                labels.push(label.to_owned());
                if !self.eat(",") {
                    self.need(")")?;
                    break;
                }
            }
        }
        Ok(labels)
    }

    fn series(&mut self, mut name: String) -> Parsed<Expr> {
        let mut matchers = Vec::new();
        if self.eat("{") {
            while !self.eat("}") {
                let matcher = self.matcher()?;
                if matcher.label == "__name__" && matcher.how == How::Is && name.is_empty() {
                    name = matcher.value;
                } else {
                    matchers.push(matcher);
                }
                if !self.eat(",") {
                    self.need("}")?;
                    break;
                }
            }
        }
        let mut range = None;
        if self.eat("[") {
            let (inner, rest) = self.rest.split_once(']').ok_or("a range has no end")?;
            if inner.contains(':') && !inner.contains("{{") {
                return Err("subqueries are not understood".to_owned());
            }
            range = Some(inner.trim().to_owned());
            self.rest = rest;
        }
        if self.eat_word("offset") || self.eat("@") {
            return Err("offset and @ look at another time".to_owned());
        }
        Ok(Expr::Series(Series { name, matchers, range }))
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let label = self.word().to_owned();
        if label.is_empty() {
            return Err(format!("a label is expected at {}", self.here()));
        }
        let how = match () {
            () if self.eat("=~") => How::Like,
            () if self.eat("!~") => How::Unlike,
            () if self.eat("!=") => How::IsNot,
            () if self.eat("=") => How::Is,
            () => return Err(format!("an operator like = is expected at {}", self.here())),
        };
        Ok(Matcher { label, how, value: self.string()? })
    }

    fn string(&mut self) -> Parsed<String> {
        self.space();
        let quote = self.rest.chars().next().filter(|c| "\"'`".contains(*c));
        let Some(quote) = quote else {
            return Err(format!("a text in quotes is expected at {}", self.here()));
        };
        let (mut out, mut escaped) = (String::new(), false);
        for (at, c) in self.rest.char_indices().skip(1) {
            if escaped {
                out.push(match c {
                    'n' => '\n',
                    't' => '\t',
                    '\\' | '"' | '\'' => c,
                    _ => return Err(format!("\\{c} in a text is not understood")),
                });
                escaped = false;
            } else if c == '\\' && quote != '`' {
                escaped = true;
            } else if c == quote {
                self.rest = &self.rest[at + 1..];
                return Ok(out);
            } else {
                out.push(c);
            }
        }
        Err("a text has no end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        parse(text).expect_err(text).message
    }

    #[test]
    fn the_queries_of_other_tools_are_read() {
        let text =
            "sum(\n  rate(http_requests_total{job=\"api\", code=~\"5..\"}[{{.window}}])\n) or on() vector(0)";
        let Expr::Binary("or", left, right) = parse(text).expect("a query") else { panic!("an or") };
        assert_eq!(*right, Expr::Call("vector".into(), vec![Expr::Number(0.0)]));
        let Expr::Aggregate(name, by, inner) = *left else { panic!("a sum") };
        assert_eq!((name.as_str(), by.len()), ("sum", 0));
        let Expr::Call(name, arguments) = *inner else { panic!("a rate") };
        let Expr::Series(series) = &arguments[0] else { panic!("a series") };
        assert_eq!((name.as_str(), series.name.as_str()), ("rate", "http_requests_total"));
        assert_eq!(series.range.as_deref(), Some("{{.window}}"));
        assert_eq!(series.matchers[1].text(), "code=~\"5..\"");
        assert!(parse("1 - (sum(rate(a[5m])) / sum by (x) (rate(b[5m])))").is_ok());
        assert!(parse("{__name__=\"a\",b='c\\\\d',e=~`\\d`,}").is_ok());
    }

    #[test]
    fn what_is_not_understood_is_told() {
        assert_eq!(said("sum(rate(a[5m]"), "\")\" is expected at its end");
        assert_eq!(said("rate(a[5m] offset 1d)"), "offset and @ look at another time");
        assert_eq!(said("sum without (pod) (a)"), "without (…) keeps labels that are not known here");
        assert_eq!(said("max_over_time(a[1d:5m])"), "subqueries are not understood");
        assert_eq!(said("a{b=\"c}"), "a text has no end");
        assert_eq!(said("a > 1"), "the query is not understood from \"> 1\"");
        assert_eq!(said(""), "the query is not understood at its end");
        assert_eq!(said(&"(".repeat(5000)), "the query is nested too deep");
        assert_eq!(said(&"a".repeat(9000)), "a query of 9000 bytes is not read");
        for text in ["é", "a{é=\"x\"}", "a{b=\"\\é\"}", "\u{0}", "a[", "a{", "sum by (", "1.2.3", "#"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
