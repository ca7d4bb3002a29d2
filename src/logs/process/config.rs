//! What a person writes below `[process]`: the rules as text, not yet compiled.
//!
//! In: a TOML table. Out: plain data for [`Chain::compile`](super::Chain::compile). Invariant: everything that
//! can be judged key by key (levels, statuses, shares, rates) is refused here, so that the error carries the
//! line and column; what needs the whole rule is refused by `compile`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error as _, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::data::units::{ByteSize, Percent, Rate, Span};

/// Processing of records between parsing and sending. Everything is off until it is configured.
///
/// Order: drop, sample, recorder, dedup, limit, redact. Conditions see the line as the container wrote it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Rules that drop every record they match, by a name of your choice: `[process.drop.health]`.
    pub drop: BTreeMap<String, Drop>,
    /// Rules that keep a share of what they match: `[process.sample.debug]`.
    pub sample: BTreeMap<String, Sample>,
    /// Folds repeated lines into one with a count. Off unless the table is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Dedup>,
    /// Rules that let at most so many records a second through, for each value of a key: `[process.limit.pods]`.
    pub limit: BTreeMap<String, Limit>,
    /// Holds debug and trace lines back until something goes wrong. Off unless switched on here, or by the annotation
    /// `nodewick.dev/flight-recorder: "on"` of a pod or namespace.
    pub recorder: Recorder,
    /// Replaces secrets before anything leaves the node.
    pub redact: Redact,
}

/// Declares rule tables that share the conditions, in one table with the rule's own keys: `serde(flatten)`
/// would lose `deny_unknown_fields`.
macro_rules! with_conditions {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            /// Condition: namespace, exact or with `*` for any text; a list matches if one of them does, and
            /// `!name` excludes. All conditions of a rule must hold.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub namespace: List<Pattern>,
            /// Condition: pod name, exact or with `*`.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub pod: List<Pattern>,
            /// Condition: container name, exact or with `*`.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub container: List<Pattern>,
            /// Condition: service name, exact or with `*`.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub service: List<Pattern>,
            /// Condition: `stdout` or `stderr`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stream: Option<Stream>,
            /// Condition: severity: `info` for that level, `<= debug`, `>= error`, or `none` for lines that name
            /// no level (a comparison never matches those).
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub level: List<Level>,
            /// Condition: the line contains this text, or one of these texts, upper and lower case as written.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub contains: List<String>,
            /// Condition: the line matches this regular expression somewhere (linear time, `regex` crate syntax;
            /// `(?i)` for any case). `contains` is cheaper where it will do.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub regex: Option<String>,
            /// Condition: HTTP method, exact or with `*`.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub http_method: List<Pattern>,
            /// Condition: HTTP route as the record carries it (`/orders/{id}`), exact or with `*`.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub http_route: List<Pattern>,
            /// Condition: URL path without query, exact or with `*`: `["/healthz", "/health/*"]`.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub url_path: List<Pattern>,
            /// Condition: HTTP status: `200`, `"2xx"`, `"500-504"`, or a list.
            #[serde(default, skip_serializing_if = "List::is_empty")]
            pub http_status: List<Status>,
        }

        impl $name {
            pub(super) fn conditions(&self) -> Conditions<'_> {
                Conditions {
                    namespace: &self.namespace.0,
                    pod: &self.pod.0,
                    container: &self.container.0,
                    service: &self.service.0,
                    stream: self.stream,
                    level: &self.level.0,
                    contains: &self.contains.0,
                    regex: self.regex.as_deref(),
                    http_method: &self.http_method.0,
                    http_route: &self.http_route.0,
                    url_path: &self.url_path.0,
                    http_status: &self.http_status.0,
                }
            }
        }
    )*};
}

with_conditions! {
    /// Drops every record that meets the conditions. At least one condition must be given.
    pub struct Drop {}

    /// Keeps a share of the records that meet the conditions. All lines of one trace share its fate, on every
    /// node; lines without a trace id are drawn one by one. Where several rules match, the smallest share holds.
    pub struct Sample {
        /// The share to keep: `10%`.
        pub keep: Percent,
        /// Keeps every record of level error or fatal whatever the share. Default true; set false to sample
        /// errors too.
        #[serde(default = "yes")]
        pub keep_errors: bool,
    }

    /// Lets at most `rate` of the records that meet the conditions through, for each value of `key`. Counted by
    /// the records' own time in aligned periods, so catching up after a restart is not throttled by the clock.
    pub struct Limit {
        /// How many in a period: `1000/s`, `600/m`, `5000/h`.
        pub rate: Rate,
        /// What has a limit of its own: `node` (all records share one), `namespace`, `pod`, `service`,
        /// `container` (one container of one pod), `level`, `http_route`, or a list for each combination. Default `service`.
        #[serde(default = "by_service")]
        pub key: List<Key>,
    }

    /// Folds consecutive equal lines of one container log into two: the first, sent at once, and the last,
    /// which says in `repeated` how many more it stands for.
    pub struct Dedup {
        /// Longest time that one record can stand for, in aligned windows of the lines' own time. Default `10s`,
        /// from `1s` to `10m`. A repeated line is held back for up to this long.
        #[serde(default = "ten_seconds")]
        pub window: Span,
        /// What makes two lines equal. `line` (default): every byte. `message`: the lines with numbers and
        /// hexadecimal ids left out, for lines that carry a time or a process id; of such copies only the first
        /// and the last are sent, so their differing ids are gone.
        #[serde(default)]
        pub by: Sameness,
    }

    /// The flight recorder: lines of level debug and trace are held in memory instead of being sent. They go out when
    /// a line of their trace or request is an error, or their container dies; else they are dropped and counted. The
    /// conditions say which lines are held where `on = true`; where the annotation says on, all are.
    pub struct Recorder {
        /// Holds lines of containers whose annotations say nothing of it. Default false.
        #[serde(default)]
        pub on: bool,
        /// How far back it reaches in each container, in bytes of its log: `64KiB` to `16MiB`. Default `1MiB`. Twice as
        /// much is read again at a start. 4096 lines are held at most.
        #[serde(default = "one_mib")]
        pub window: ByteSize,
        /// How long before an error a line may have been written, by the lines' own time: `1s` to `1h`. Default `10m`.
        /// Loki takes lines up to an hour behind their stream's newest.
        #[serde(default = "ten_minutes")]
        pub age: Span,
        /// Memory of all held lines on the node, out of `[agent] memory` and at most a quarter of it. Default `8MiB`.
        /// When it is spent, the container that holds most gives up its oldest lines.
        #[serde(default = "eight_mib")]
        pub memory: ByteSize,
    }

    /// A redaction rule of your own.
    pub struct RedactRule {
        /// Regular expression (linear time, `regex` crate syntax) of what to replace: `'cust-[0-9]{8}'`.
        pub pattern: String,
        /// What to put there; `$1` or `${name}` stands for a group of the pattern. Default `[REDACTED:<rule>]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub replace: Option<String>,
    }
}

/// Replacement of secrets, before spill and egress.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redact {
    /// Switches the built-in rules on: `jwt`, `aws_key`, `gcp_key`, `github_token`, `gitlab_token`,
    /// `slack_token`, `stripe_key`, `npm_token`, `private_key`, `authorization`, `password`, `url_userinfo`,
    /// `card`. Default false.
    pub builtin: bool,
    /// Built-in rules to leave out: `["card"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Redacts e-mail addresses too. Default false.
    pub email: bool,
    /// Redacts IPv4 and IPv6 addresses too. Default false.
    pub ip: bool,
    /// Rules of your own: `[process.redact.rule.customer]`.
    pub rule: BTreeMap<String, RedactRule>,
}

fn yes() -> bool {
    true
}

fn by_service() -> List<Key> {
    List(vec![Key::Service])
}

fn ten_seconds() -> Span {
    Span::secs(10)
}

fn ten_minutes() -> Span {
    Span::secs(600)
}

fn one_mib() -> ByteSize {
    ByteSize::mib(1)
}

fn eight_mib() -> ByteSize {
    ByteSize::mib(8)
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            on: false,
            window: one_mib(),
            age: ten_minutes(),
            memory: eight_mib(),
            namespace: List::default(),
            pod: List::default(),
            container: List::default(),
            service: List::default(),
            stream: None,
            level: List::default(),
            contains: List::default(),
            regex: None,
            http_method: List::default(),
            http_route: List::default(),
            url_path: List::default(),
            http_status: List::default(),
        }
    }
}

/// What has a rate limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The whole node: one limit for all.
    Node,
    /// Each namespace.
    Namespace,
    /// Each pod, by uid.
    Pod,
    /// Each container of each pod.
    Container,
    /// Each service of each namespace.
    Service,
    /// Each level.
    Level,
    /// Each HTTP route.
    HttpRoute,
}

/// What makes two lines equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sameness {
    /// Every byte.
    #[default]
    Line,
    /// The line with its numbers and hexadecimal ids left out.
    Message,
}

/// Which of the container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The conditions of a rule, borrowed from whichever table they stand in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions<'a> {
    pub(super) namespace: &'a [Pattern],
    pub(super) pod: &'a [Pattern],
    pub(super) container: &'a [Pattern],
    pub(super) service: &'a [Pattern],
    pub(super) stream: Option<Stream>,
    pub(super) level: &'a [Level],
    pub(super) contains: &'a [String],
    pub(super) regex: Option<&'a str>,
    pub(super) http_method: &'a [Pattern],
    pub(super) http_route: &'a [Pattern],
    pub(super) url_path: &'a [Pattern],
    pub(super) http_status: &'a [Status],
}

impl Conditions<'_> {
    /// True when no condition is given: the rule is about every record.
    pub(super) fn is_empty(&self) -> bool {
        [
            self.namespace,
            self.pod,
            self.container,
            self.service,
            self.http_method,
            self.http_route,
            self.url_path,
        ]
        .iter()
        .all(|patterns| patterns.is_empty())
            && self.stream.is_none()
            && self.level.is_empty()
            && self.contains.is_empty()
            && self.regex.is_none()
            && self.http_status.is_empty()
    }
}

/// One value or a list of them: `"a"` or `["a", "b"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> List<T> {
    /// True when nothing was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                Ok(vec![T::deserialize(text.into_deserializer())?])
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Vec<T>, E> {
                Ok(vec![T::deserialize(number.into_deserializer())?])
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Vec<T>, E> {
                Ok(vec![T::deserialize(number.into_deserializer())?])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                if list.is_empty() {
                    return Err(A::Error::custom(
                        "an empty list matches nothing; leave the key out or name a value",
                    ));
                }
                Ok(list)
            }
        }

        deserializer.deserialize_any(OneOrMany(PhantomData)).map(Self)
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for List<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMore{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}

/// A name, exact or with `*` for any text; `!` in front excludes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Pattern(pub String);

/// A range of severities, written `info`, `<= debug`, `>= error` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Lowest OpenTelemetry severity number.
    pub from: u8,
    /// Highest, inclusive.
    pub to: u8,
}

const LEVELS: [(&str, u8); 7] =
    [("trace", 1), ("debug", 5), ("info", 9), ("warn", 13), ("warning", 13), ("error", 17), ("fatal", 21)];

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let written = text.trim();
        if written == "none" {
            return Ok(Self { from: 0, to: 0 });
        }
        let (operator, name) = ["<=", ">=", "<", ">", "="]
            .iter()
            .find_map(|sign| Some((*sign, written.strip_prefix(sign)?.trim())))
            .unwrap_or(("=", written));
        let Some((_, low)) = LEVELS.iter().find(|(known, _)| *known == name) else {
            return Err(format!(
                "{text:?} is not a level; write trace, debug, info, warn, error, fatal or none, or compare, as in \"<= debug\""
            ));
        };
        let high = low + 3;
        let (from, to) = match operator {
            "<=" => (1, high),
            "<" => (1, low - 1),
            ">=" => (*low, 24),
            ">" => (high + 1, 24),
            _ => (*low, high),
        };
        if from > to || to == 0 {
            return Err(format!("{text:?} matches no level"));
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |number: u8| crate::data::severity::Severity::new(number).level();
        match (self.from, self.to) {
            (0, _) => f.write_str("none"),
            (from, to) if to == from + 3 => f.write_str(name(from)),
            (1, to) => write!(f, "<= {}", name(to)),
            (from, _) => write!(f, ">= {}", name(from)),
        }
    }
}

/// A range of HTTP statuses, written `200`, `"2xx"` or `"500-504"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Lowest.
    pub from: u16,
    /// Highest, inclusive.
    pub to: u16,
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let written = text.trim();
        let range = match written.as_bytes() {
            [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
                let hundreds = u16::from(class - b'0') * 100;
                Some((hundreds, hundreds + 99))
            }
            _ => {
                let (from, to) = written.split_once('-').unwrap_or((written, written));
                from.trim().parse::<u16>().ok().zip(to.trim().parse::<u16>().ok())
            }
        };
        match range {
            Some((from, to)) if (100..=599).contains(&from) && (from..=599).contains(&to) => {
                Ok(Self { from, to })
            }
            _ => Err(format!("{text:?} is not an HTTP status; write 404, \"4xx\" or \"500-504\"")),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (from, to) if from == to => write!(f, "{from}"),
            (from, to) if from % 100 == 0 && to == from + 99 => write!(f, "{}xx", from / 100),
            (from, to) => write!(f, "{from}-{to}"),
        }
    }
}

macro_rules! as_text {
    ($type:ty, $name:literal, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $name))
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }

                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_any(Text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
as_text!(Level, "Level", {"type": "string", "pattern": "^ *(<=|>=|<|>|=)? *(trace|debug|info|warn|warning|error|fatal|none) *$"});
as_text!(Status, "Status", {"anyOf": [
    {"type": "integer", "minimum": 100, "maximum": 599},
    {"type": "string", "pattern": "^ *([1-5][xX][xX]|[1-5][0-9][0-9]( *- *[1-5][0-9][0-9])?) *$"},
]});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ranges_of_severity_numbers() {
        for (text, from, to) in [
            ("<= debug", 1, 8),
            ("<info", 1, 8),
            ("info", 9, 12),
            (">= error", 17, 24),
            ("> warn", 17, 24),
            ("none", 0, 0),
        ] {
            assert_eq!(text.parse(), Ok(Level { from, to }), "{text}");
        }
        assert_eq!("< trace".parse::<Level>(), Err("\"< trace\" matches no level".to_owned()));
        assert_eq!(Level { from: 17, to: 24 }.to_string(), ">= error");
    }

    #[test]
    fn statuses_are_numbers_classes_and_ranges() {
        assert_eq!("2xx".parse(), Ok(Status { from: 200, to: 299 }));
        assert_eq!("404".parse(), Ok(Status { from: 404, to: 404 }));
        assert_eq!("500-504".parse(), Ok(Status { from: 500, to: 504 }));
        assert!("504-500".parse::<Status>().is_err());
        assert!("20x".parse::<Status>().is_err());
    }
}
