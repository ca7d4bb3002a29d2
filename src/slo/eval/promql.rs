//! PromQL, as far as the rendered rules use it: text to an expression.
//!
//! In: the text of a rule, or of a query in a template. Out: [`Expr`], or what of it is not understood.
//! Invariant: what is parsed means here what it means to Prometheus; anything else is refused, never guessed.

use regex::Regex;

/// An expression.
#[derive(Debug, Clone)]
pub enum Expr {
    /// A number.
    Number(f64),
    /// The newest samples of series.
    Select(Selector),
    /// A function of what a range holds.
    Over(Over, Ranged),
    /// A function of values.
    Call(Function, Vec<Expr>),
    /// `label_replace`
    Relabel(Box<Relabel>),
    /// Many series made few.
    Aggregate(Aggregate, Vec<String>, Box<Expr>),
    /// Two sides.
    Binary(Box<Binary>),
}

/// Series of which one label is made of another.
#[derive(Debug, Clone)]
pub struct Relabel {
    /// The series.
    pub of: Expr,
    /// The label that is made.
    pub target: String,
    /// What it is, with `$1` for what the pattern found.
    pub replacement: String,
    /// The label that it is made of.
    pub source: String,
    /// What that must be; where it is not, a series stays as it is.
    pub pattern: Regex,
}

/// Two sides and what joins them.
#[derive(Debug, Clone)]
pub struct Binary {
    /// What joins them.
    pub op: Op,
    /// Left side.
    pub left: Expr,
    /// Right side.
    pub right: Expr,
    /// `on (…)`: the labels that must be equal; without it all are.
    pub on: Option<Vec<String>>,
    /// `on` names labels that need not be equal (`ignoring (…)`), not those that must.
    pub ignores: bool,
}

/// Series by name and labels.
#[derive(Debug, Clone)]
pub struct Selector {
    /// Metric name.
    pub name: String,
    /// What their labels must be.
    pub matchers: Vec<Matcher>,
    /// Which one of the store's it is, once it is known there.
    pub slot: usize,
}

/// What one label must be.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label.
    pub label: String,
    /// How it is compared.
    pub test: Test,
}

/// How a label is compared.
#[derive(Debug, Clone)]
pub enum Test {
    /// Equal, or not (`false`).
    Text(bool, String),
    /// A regular expression that matches the whole of it, or not (`false`).
    Pattern(bool, Regex),
}

impl Matcher {
    /// True for a value that it lets through; a label that is not there is empty.
    pub fn is_met(&self, value: &str) -> bool {
        match &self.test {
            Test::Text(wanted, text) => (text == value) == *wanted,
            Test::Pattern(wanted, regex) => regex.is_match(value) == *wanted,
        }
    }
}

/// Samples of a range of time.
#[derive(Debug, Clone)]
pub struct Ranged {
    /// Of these series.
    pub of: Selector,
    /// Length, milliseconds.
    pub range_ms: i64,
    /// Its end lies this long before the time of evaluation, milliseconds.
    pub offset_ms: i64,
    /// A subquery: one value every so many milliseconds.
    pub step_ms: Option<i64>,
}

/// Functions of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// `increase`
    Increase,
    /// `sum_over_time`
    Sum,
    /// `count_over_time`
    Count,
    /// `max_over_time`
    Max,
    /// `min_over_time`
    Min,
    /// `last_over_time`
    Last,
    /// `present_over_time`
    Present,
}

/// Functions of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `clamp_min`
    ClampMin,
    /// `clamp_max`
    ClampMax,
    /// `sqrt`
    Sqrt,
    /// `abs`
    Abs,
    /// `vector`
    Vector,
    /// `scalar`
    Scalar,
}

/// Aggregations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregate {
    /// `sum`
    Sum,
    /// `max`
    Max,
    /// `min`
    Min,
    /// `count`
    Count,
    /// `avg`
    Avg,
    /// `topk`
    Top(usize),
}

/// Operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `or`
    Or,
    /// `and`
    And,
    /// `unless`
    Unless,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `>=`
    GreaterEqual,
    /// `<=`
    LessEqual,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `^`
    Power,
}

impl Op {
    const fn binds(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Equal
            | Self::NotEqual
            | Self::Greater
            | Self::Less
            | Self::GreaterEqual
            | Self::LessEqual => 3,
            Self::Add | Self::Subtract => 4,
            Self::Multiply | Self::Divide => 5,
            Self::Power => 6,
        }
    }

    /// True for `and`, `or`, `unless`.
    pub const fn is_set(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }

    /// True for what compares.
    pub const fn compares(self) -> bool {
        self.binds() == 3
    }
}

impl Expr {
    /// Shows every selector, and the range that it needs of its series, to `each`.
    pub fn selectors(&mut self, each: &mut impl FnMut(&mut Selector, Need)) {
        match self {
            Self::Number(_) => {}
            Self::Select(selector) => each(selector, Need::Newest),
            Self::Over(_, ranged) => {
                let reach_ms = ranged.range_ms + ranged.offset_ms;
                let need = match ranged.step_ms {
                    Some(step_ms) => Need::Steps { reach_ms, step_ms },
                    None => Need::Samples { reach_ms },
                };
                each(&mut ranged.of, need);
            }
            Self::Call(_, arguments) => arguments.iter_mut().for_each(|argument| argument.selectors(each)),
            Self::Relabel(relabel) => relabel.of.selectors(each),
            Self::Aggregate(_, _, inner) => inner.selectors(each),
            Self::Binary(binary) => {
                binary.left.selectors(each);
                binary.right.selectors(each);
            }
        }
    }
}

/// What a selector needs of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The newest sample.
    Newest,
    /// All samples so far back.
    Samples {
        /// Milliseconds.
        reach_ms: i64,
    },
    /// A value at every step so far back.
    Steps {
        /// Milliseconds.
        reach_ms: i64,
        /// Milliseconds.
        step_ms: i64,
    },
}

/// A pattern that matches a whole value.
fn whole(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?s:{pattern})$")).map_err(|error| error.to_string())
}

/// Parses a whole expression.
pub fn parse(text: &str) -> Result<Expr, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let expr = parser.expr(0)?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) => Err(format!("{token:?} after the end of the expression")),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Number(f64),
    Duration(i64),
    Text(String),
    Mark(&'static str),
}

const MARKS: [&str; 20] = [
    "=~", "!~", "!=", "==", ">=", "<=", "(", ")", "{", "}", "[", "]", ",", ":", "=", ">", "<", "+", "-", "*",
];
/// Parentheses within parentheses that are followed.
const DEPTH: usize = 64;

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(found) };
        if first == '#' {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if first == '"' || first == '\'' {
            let (value, after) = string(rest, first)?;
            found.push(Token::Text(value));
            rest = after;
        } else if first.is_ascii_digit() || first == '.' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            let word = &rest[..end];
            let token = match word.parse() {
                Ok(number) => Token::Number(number),
                Err(_) => Token::Duration(duration(word).ok_or_else(|| format!("{word:?} is no number"))?),
            };
            found.push(token);
            rest = &rest[end..];
        } else if first.is_ascii_alphabetic() || first == '_' {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
            found.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else if let Some(mark) = MARKS.into_iter().chain(["/", "^"]).find(|mark| rest.starts_with(mark)) {
            found.push(Token::Mark(mark));
            rest = &rest[mark.len()..];
        } else {
            return Err(format!("{first:?} is not understood"));
        }
    }
}

fn string(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((value, &text[at + c.len_utf8()..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('\\' | '"' | '\''))) => value.push(c),
                _ => return Err("a text has an escape that is not understood".into()),
            },
            c => value.push(c),
        }
    }
    Err("a text has no end".into())
}

/// `1h30m` in milliseconds.
pub fn duration(text: &str) -> Option<i64> {
    let mut total = 0_i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[end..];
    }
    Some(total)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<Token, String> {
        let token = self.peek().cloned().ok_or("the expression breaks off")?;
        self.at += 1;
        Ok(token)
    }

    fn takes(&mut self, mark: &'static str) -> bool {
        let is_it = self.peek() == Some(&Token::Mark(mark));
        self.at += usize::from(is_it);
        is_it
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Word(own)) if own == word);
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, mark: &'static str) -> Result<(), String> {
        if self.takes(mark) { Ok(()) } else { Err(format!("{mark:?} is missing before {:?}", self.peek())) }
    }

    fn operator(&self) -> Option<Op> {
        Some(match self.peek()? {
            Token::Word(word) => match word.as_str() {
                "or" => Op::Or,
                "and" => Op::And,
                "unless" => Op::Unless,
                _ => return None,
            },
            Token::Mark(mark) => match *mark {
                "==" => Op::Equal,
                "!=" => Op::NotEqual,
                ">" => Op::Greater,
                "<" => Op::Less,
                ">=" => Op::GreaterEqual,
                "<=" => Op::LessEqual,
                "+" => Op::Add,
                "-" => Op::Subtract,
                "*" => Op::Multiply,
                "/" => Op::Divide,
                "^" => Op::Power,
                _ => return None,
            },
            _ => return None,
        })
    }

    fn expr(&mut self, least: u8) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("too many parentheses".into());
        }
        let mut left = self.unary()?;
        while let Some(op) = self.operator().filter(|op| op.binds() > least) {
            self.at += 1;
            let ignores = self.takes_word("ignoring");
            let on = if ignores || self.takes_word("on") { Some(self.names()?) } else { None };
            for word in ["group_left", "group_right", "bool"] {
                if self.takes_word(word) {
                    return Err(format!("{word} is not understood"));
                }
            }
            // All but ^ group from the left.
            let right = self.expr(op.binds() - u8::from(op == Op::Power))?;
            left = Expr::Binary(Box::new(Binary { op, left, right, on, ignores }));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        if !self.takes("-") {
            return self.primary();
        }
        // It binds as a product does: -2^2 is -4.
        let right = self.expr(Op::Multiply.binds())?;
        Ok(Expr::Binary(Box::new(Binary {
            op: Op::Multiply,
            left: Expr::Number(-1.0),
            right,
            on: None,
            ignores: false,
        })))
    }

    fn names(&mut self) -> Result<Vec<String>, String> {
        self.expect("(")?;
        let mut found = Vec::new();
        while !self.takes(")") {
            match self.next()? {
                Token::Word(name) => found.push(name),
                other => return Err(format!("{other:?} is no label name")),
            }
            if !self.takes(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(found)
    }

    fn primary(&mut self) -> Result<Expr, String> {
        match self.next()? {
            Token::Number(number) => Ok(Expr::Number(number)),
            Token::Mark("(") => {
                let inner = self.expr(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Word(word) => self.word(word),
            other => Err(format!("{other:?} is not understood here")),
        }
    }

    fn word(&mut self, word: String) -> Result<Expr, String> {
        let over = match word.as_str() {
            "increase" => Some(Over::Increase),
            "sum_over_time" => Some(Over::Sum),
            "count_over_time" => Some(Over::Count),
            "max_over_time" => Some(Over::Max),
            "min_over_time" => Some(Over::Min),
            "last_over_time" => Some(Over::Last),
            "present_over_time" => Some(Over::Present),
            _ => None,
        };
        if let Some(over) = over {
            self.expect("(")?;
            let ranged = self.ranged()?;
            self.expect(")")?;
            return Ok(Expr::Over(over, ranged));
        }
        let function = match word.as_str() {
            "clamp_min" => Some((Function::ClampMin, 2)),
            "clamp_max" => Some((Function::ClampMax, 2)),
            "sqrt" => Some((Function::Sqrt, 1)),
            "abs" => Some((Function::Abs, 1)),
            "vector" => Some((Function::Vector, 1)),
            "scalar" => Some((Function::Scalar, 1)),
            _ => None,
        };
        if let Some((function, count)) = function {
            self.expect("(")?;
            let mut arguments = vec![self.expr(0)?];
            while self.takes(",") {
                arguments.push(self.expr(0)?);
            }
            self.expect(")")?;
            if arguments.len() != count {
                return Err(format!("{word} takes {count} arguments"));
            }
            return Ok(Expr::Call(function, arguments));
        }
        if word == "label_replace" {
            return self.relabel();
        }
        let aggregate = match word.as_str() {
            "sum" => Aggregate::Sum,
            "max" => Aggregate::Max,
            "min" => Aggregate::Min,
            "count" => Aggregate::Count,
            "avg" => Aggregate::Avg,
            "topk" => Aggregate::Top(0),
            _ => return self.selector(word).map(Expr::Select),
        };
        let mut by = if self.takes_word("by") { Some(self.names()?) } else { None };
        self.expect("(")?;
        let aggregate = match aggregate {
            Aggregate::Top(_) => {
                let Token::Number(most) = self.next()? else { return Err("topk takes a number".into()) };
                self.expect(",")?;
                Aggregate::Top(most.clamp(0.0, 1e3) as usize)
            }
            other => other,
        };
        let inner = self.expr(0)?;
        self.expect(")")?;
        if by.is_none() && self.takes_word("by") {
            by = Some(self.names()?);
        }
        if self.takes_word("without") {
            return Err("without is not understood".into());
        }
        Ok(Expr::Aggregate(aggregate, by.unwrap_or_default(), Box::new(inner)))
    }

    fn relabel(&mut self) -> Result<Expr, String> {
        self.expect("(")?;
        let of = self.expr(0)?;
        let mut texts = [const { String::new() }; 4];
        for text in &mut texts {
            self.expect(",")?;
            let Token::Text(found) = self.next()? else {
                return Err("label_replace takes four texts".into());
            };
            *text = found;
        }
        self.expect(")")?;
        let [target, replacement, source, pattern] = texts;
        let pattern = whole(&pattern)?;
        Ok(Expr::Relabel(Box::new(Relabel { of, target, replacement, source, pattern })))
    }

    fn selector(&mut self, name: String) -> Result<Selector, String> {
        let mut matchers = Vec::new();
        if self.peek() == Some(&Token::Mark("(")) {
            return Err(format!("the function {name} is not understood"));
        }
        if self.takes("{") {
            while !self.takes("}") {
                matchers.push(self.matcher()?);
                if !self.takes(",") {
                    self.expect("}")?;
                    break;
                }
            }
        }
        Ok(Selector { name, matchers, slot: usize::MAX })
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let (Token::Word(label), Token::Mark(mark), Token::Text(text)) =
            (self.next()?, self.next()?, self.next()?)
        else {
            return Err("a label is compared with a text in quotes".into());
        };
        let test = match mark {
            "=" => Test::Text(true, text),
            "!=" => Test::Text(false, text),
            "=~" | "!~" => Test::Pattern(mark == "=~", whole(&text)?),
            other => return Err(format!("{other:?} compares no labels")),
        };
        Ok(Matcher { label, test })
    }

    fn ranged(&mut self) -> Result<Ranged, String> {
        let of = match self.next()? {
            Token::Word(name) => self.selector(name)?,
            other => return Err(format!("a range of {other:?} is not understood")),
        };
        self.expect("[")?;
        let Token::Duration(range_ms) = self.next()? else { return Err("a range has no duration".into()) };
        let step_ms = if self.takes(":") {
            match self.next()? {
                Token::Duration(step_ms) if step_ms > 0 => Some(step_ms),
                _ => return Err("a subquery has no step".into()),
            }
        } else {
            None
        };
        self.expect("]")?;
        let mut offset_ms = 0;
        if self.takes_word("offset") {
            match self.next()? {
                Token::Duration(offset) => offset_ms = offset,
                _ => return Err("an offset has no duration".into()),
            }
        }
        Ok(Ranged { of, range_ms, offset_ms, step_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "(",
            "a{",
            "a{b}",
            "a[5m]",
            "rate(a[5m])",
            "increase(a)",
            "a offset 5m",
            "a @ 5",
            "sum(a[5m])",
            "clamp_min(a)",
            "a{b=~\"(\"}",
            "sum without (a) (b)",
            "1 2",
            "\"a",
            "5x",
            "a > bool 1",
            "increase((a + b)[5m:1m])",
            "a{b=1}",
            "topk(a, b)",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let deep = format!("{}1{}", "(".repeat(1_000), ")".repeat(1_000));
        assert_eq!(parse(&deep).map(|_| ()), Err("too many parentheses".to_owned()));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1h30m"), Some(5_400_000));
        assert_eq!(duration("90d"), Some(7_776_000_000));
        assert_eq!((duration("5"), duration("5x"), duration("99999999999999999d")), (None, None, None));
    }

    #[test]
    fn selectors_say_how_far_they_look_back() {
        let mut expr =
            parse("sum by (a) (increase(x{b=\"c\",d!~\"e|f\"}[6h])) / sum_over_time(y[3d:5m]) > max_over_time(z[1h] offset 5m) * w")
                .expect("an expression");
        let mut found = Vec::new();
        expr.selectors(&mut |selector, need| found.push((selector.name.clone(), need)));
        assert_eq!(found[0], ("x".into(), Need::Samples { reach_ms: 21_600_000 }));
        assert_eq!(found[1], ("y".into(), Need::Steps { reach_ms: 259_200_000, step_ms: 300_000 }));
        assert_eq!(found[2], ("z".into(), Need::Samples { reach_ms: 3_900_000 }));
        assert_eq!(found[3], ("w".into(), Need::Newest));
    }

    #[test]
    fn patterns_match_the_whole_value() {
        let Expr::Select(selector) = parse(r#"a{b!~"/healthz|/users/\\{id\\}"}"#).expect("a selector") else {
            panic!("no selector")
        };
        let is_met = |value| selector.matchers[0].is_met(value);
        assert!(is_met("/healthz/deep") && is_met("") && is_met("/users/id"));
        assert!(!is_met("/healthz") && !is_met("/users/{id}"));
    }
}
