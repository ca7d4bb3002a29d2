//! `[logs.multiline]`: which logs are joined how.
//!
//! In: the config's text. Out: [`Rules`], asked once for each container log. Invariant: every regular expression
//! is compiled, and bounded in size, before the first log is opened.

use std::collections::BTreeMap;
use std::str::FromStr;

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use super::super::process::config::{List, Pattern};
use super::super::process::rules::{self, Error, Selector};
use super::Language;
use crate::data::units::Span;
use crate::data::workload::Workload;

/// `[logs.multiline]`: stack traces that an application writes over several lines become one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// "auto" joins the stack traces of Java, Kotlin, Python, Go, Node.js, .NET, Ruby, Rust and PHP; "off" leaves
    /// every line alone. JSON lines are never joined.
    pub mode: Automatic,
    /// Most lines of one record, from 2 to 10000. A longer trace goes on in a further record.
    pub max_lines: u32,
    /// Longest time between the first and the last line of one record, by the lines' own stamps, from 100ms to
    /// 1m. A trace at the end of a quiet log is sent one second after it.
    pub max_wait: Span,
    /// Other modes for some workloads, by a name of your choice: `[logs.multiline.rule.billing]`. The first one that
    /// matches, in the order of their names, holds.
    pub rule: BTreeMap<String, Rule>,
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Automatic::Auto, max_lines: 500, max_wait: Span::secs(2), rule: BTreeMap::new() }
    }
}

/// Whether stack traces are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Automatic {
    /// They are, in every known language.
    #[default]
    Auto,
    /// Every line stays a record of its own.
    Off,
}

/// How the lines of some workloads are joined. Exactly one of `mode` and `start` must be given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// "auto" or "off", as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Automatic>,
    /// Regular expression (linear time, `regex` crate syntax) of a record's first line: `'^\d{4}-\d\d-'`.
    /// Lines that do not match it continue the record before them, JSON lines too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Condition: namespace, exact or with `*` for any text; a list matches if one of them does, and
    /// `!name` excludes. All conditions of a rule must hold.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub namespace: List<Pattern>,
    /// Condition: pod name, exact or with `*`.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub pod: List<Pattern>,
    /// Condition: container name, exact or with `*`.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub container: List<Pattern>,
    /// Condition: service name, exact or with `*`.
    #[serde(skip_serializing_if = "List::is_empty")]
    pub service: List<Pattern>,
}

/// How the lines of one log are joined.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Stack traces, by what they look like.
    Auto,
    /// The stack traces of one language.
    Only(Language),
    /// Not at all.
    Off,
    /// A line that matches begins a record, all others continue it.
    Start(Regex),
}

impl From<Automatic> for Mode {
    fn from(mode: Automatic) -> Self {
        match mode {
            Automatic::Auto => Self::Auto,
            Automatic::Off => Self::Off,
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    /// Reads the mode as an annotation writes it: `auto`, `off`, a language, or `start=` and a regular expression.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            text => match text.strip_prefix("start=") {
                Some(pattern) => {
                    rules::regex("", pattern).map(Self::Start).map_err(|error| error.reason.clone())
                }
                None => Language::by_name(text).map(Self::Only).ok_or_else(|| {
                    let languages = Language::NAMED.map(Language::name).join(", ");
                    format!("{text:?} is none of auto, off, {languages} and start=<regular expression>")
                }),
            },
        }
    }
}

/// Where a record ends, whatever its lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lines of one record.
    pub lines: u32,
    /// Between its first and its last line, by their stamps, nanoseconds.
    pub wait_nanos: u64,
}

/// The compiled config, shared by all container logs.
#[derive(Debug)]
pub struct Rules {
    mode: Mode,
    limits: Limits,
    rules: Vec<(Selector, Mode)>,
}

impl Default for Rules {
    /// What holds where nothing is configured.
    fn default() -> Self {
        let Config { mode, max_lines, max_wait, .. } = Config::default();
        let limits = Limits { lines: max_lines, wait_nanos: max_wait.0.as_nanos() as u64 };
        Self { mode: mode.into(), limits, rules: Vec::new() }
    }
}

impl Rules {
    /// Compiles the section.
    ///
    /// # Errors
    /// Names the key whose value cannot be used, and why.
    pub fn compile(config: &Config) -> Result<Self, Error> {
        if !(2..=10_000).contains(&config.max_lines) {
            let reason = format!("{} is outside 2 to 10000", config.max_lines);
            return Err(Error::new("logs.multiline.max_lines", reason));
        }
        if !(100..=60_000).contains(&config.max_wait.0.as_millis()) {
            let reason = format!("{} is outside 100ms to 1m", config.max_wait);
            return Err(Error::new("logs.multiline.max_wait", reason));
        }
        rules::check_names("logs.multiline.rule", config.rule.keys())?;
        let mut compiled = Vec::new();
        for (name, rule) in &config.rule {
            let at = format!("logs.multiline.rule.{name}");
            let mode = match (rule.mode, &rule.start) {
                (Some(mode), None) => mode.into(),
                (None, Some(pattern)) => Mode::Start(rules::regex(&format!("{at}.start"), pattern)?),
                (Some(_), Some(_)) => {
                    return Err(Error::new(at, "has both mode and start; leave one of them out"));
                }
                (None, None) => {
                    return Err(Error::new(at, "says nothing; give mode = \"off\" or start = '<regex>'"));
                }
            };
            let lists = [&rule.namespace.0, &rule.pod.0, &rule.container.0, &rule.service.0];
            let selector = Selector::compile(&at, lists.map(Vec::as_slice))?;
            compiled.push((selector, mode));
        }
        let limits = Limits { lines: config.max_lines, wait_nanos: config.max_wait.0.as_nanos() as u64 };
        Ok(Self { mode: config.mode.into(), limits, rules: compiled })
    }

    /// How the lines of a workload are joined. Asked when the first line of a log is read, and
    /// when an annotation that stood before it is taken back.
    pub fn for_workload(&self, workload: &Workload) -> Mode {
        let found = self.rules.iter().find(|(selector, _)| selector.matches(workload));
        found.map_or(&self.mode, |(_, mode)| mode).clone()
    }

    /// Where records end.
    pub fn limits(&self) -> Limits {
        self.limits
    }
}
