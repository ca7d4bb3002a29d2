//! Annotations of pods and namespaces: what their owners want done with their logs.
//!
//! In: the annotations of a pod and its namespace. Out: [`Annotations`], asked once for each container. Invariants: the
//! pod's word stands before its namespace's, and a container's before the general one on the same object; what cannot
//! be used is a [`Problem`](super::problem::Problem) and as good as absent; what is kept is bounded, whatever comes in.
//!
//! [`TABLE`] lists the keys. `docs/reference/annotations.md` is rendered from it.

use std::collections::BTreeMap;

use regex::bytes::RegexBuilder;

use super::owners::{MIRROR, SCHEDULED};
use super::problem::{Place, Problems, Wrong, nearest, shown};
use crate::data::workload::{Handling, LineFormat, is_tenant};

/// What the agent's own annotations begin with.
pub const PREFIX: &str = "nodewick.dev/";
/// Annotations that become resource attributes, by the OpenTelemetry semantic conventions.
pub const RESOURCE: &str = "resource.opentelemetry.io/";
/// Fluent Bit's annotations, of which `exclude` is honoured.
pub const FLUENT_BIT: &str = "fluentbit.io/";
/// Annotations that are kept as they are, for those who look for scrape targets and objectives.
pub const KEPT: [&str; 3] = [PREFIX, "slo.nodewick.dev/", "prometheus.io/"];

/// Bytes of a value that is used.
pub const MAX_VALUE: usize = 1024;
/// Bytes of a value that is kept as it is.
pub const MAX_KEPT_VALUE: usize = 4096;
/// Bytes of all names and values that are kept of one pod as they are.
pub const MAX_KEPT: usize = 16 << 10;
/// Bytes of all resource attributes of one pod; each of its containers has a copy.
pub const MAX_ATTRIBUTE_BYTES: usize = 4096;
/// Resource attributes of one pod. Loki takes 128 pairs with an entry, the agent's own among them.
pub const MAX_ATTRIBUTES: usize = 48;
/// Statements of one object about logs that are listened to.
const MAX_STATEMENTS: usize = 256;
/// Regular expressions of one object that are compiled: a hostile one takes milliseconds.
const MAX_PATTERNS: usize = 8;
/// Bytes of the name of a field in log lines.
const MAX_FIELD: usize = 128;
/// Longest name of an annotation: a DNS subdomain, a slash, 63 characters.
const MAX_NAME: usize = 317;
/// What a multiline mode with a regular expression begins with.
const START: &str = "start=";
/// Bytes of a compiled regular expression, as for those of the config.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Attributes that nobody but the agent sets: they say where a line comes from.
const IDENTITY: [&str; 7] = [
    "k8s.cluster.name",
    "k8s.container.name",
    "k8s.container.restart_count",
    "k8s.namespace.name",
    "k8s.node.name",
    "k8s.pod.name",
    "k8s.pod.uid",
];

/// One annotation below [`PREFIX`].
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Key after the prefix. `<key>.<container>` says the same for one container.
    pub key: &'static str,
    /// What may be written.
    pub values: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub what: &'static str,
    read: fn(&str, &[String]) -> Result<Value, Wrong>,
}

/// Every annotation below [`PREFIX`].
pub const TABLE: &[Row] = &[
    Row {
        key: "logs",
        values: "`on`, `off` (also `true`, `false`)",
        default: "`on`",
        what: "Whether logs are shipped.",
        read: read_logs,
    },
    Row {
        key: "parser",
        values: "`auto`, `json`, `logfmt`, `klog`, `nginx`, `text`",
        default: "`auto`",
        what: "The format of the lines. `auto` looks at each line; `text` looks for nothing in it.",
        read: read_parser,
    },
    Row {
        key: "level-field",
        values: "a key, up to 128 bytes",
        default: "the usual ones",
        what: "The key of JSON and logfmt lines that has the level, before the usual ones.",
        read: read_level_field,
    },
    Row {
        key: "trace-field",
        values: "a key, up to 128 bytes",
        default: "the usual ones",
        what: "The key of JSON and logfmt lines that has the trace id, before the usual ones.",
        read: read_trace_field,
    },
    Row {
        key: "sample",
        values: "above 0 up to 1, or a percentage: `0.1`, `10%`",
        default: "`1`",
        what: "The share of the lines that is kept. Lines of one trace are kept or dropped together.",
        read: read_sample,
    },
    Row {
        key: "multiline",
        values: "`auto`, `off`, a language, `start=<regular expression>`",
        default: "`[logs.multiline]`",
        what: "Which lines become one record: stack traces, none, or all up to the next line that matches.",
        read: read_multiline,
    },
    Row {
        key: "flight-recorder",
        values: "`on`, `off` (also `true`, `false`)",
        default: "`[process.recorder]`",
        what: "Whether debug and trace lines are held back until a line of their trace is an error, or the container dies.",
        read: read_recorder,
    },
    Row {
        key: "tenant",
        values: "one of `[kube] tenants`",
        default: "the sink's own",
        what: "The Loki tenant.",
        read: read_tenant,
    },
];

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Logs(bool),
    Format(LineFormat),
    LevelField(String),
    TraceField(String),
    /// `None`: every line.
    Sample(Option<f64>),
    Multiline(String),
    Recorder(bool),
    Tenant(String),
    /// Fluent Bit's word about one stream or both.
    Exclude(Option<Stream>, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug)]
struct Statement {
    place: Place,
    /// The container that it is about; all where there is none.
    container: Option<String>,
    value: Value,
}

/// What the annotations of a pod and its namespace say.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    statements: Vec<Statement>,
    /// Resource attributes by name, `service.*` and `deployment.environment.name` among them.
    pub(super) resource: BTreeMap<String, String>,
    /// Kept as they are, by name.
    pub(super) kept: BTreeMap<String, String>,
}

/// Whether anything is done with an annotation of that name; all others may be stripped.
pub(super) fn is_understood(name: &str) -> bool {
    [RESOURCE, FLUENT_BIT].iter().chain(&KEPT).any(|prefix| name.starts_with(prefix))
        || [MIRROR, SCHEDULED].contains(&name)
}

/// Reads all annotations. `containers` are the names of the pod's containers, `tenants` those that are allowed.
pub(super) fn read(
    pod: Option<&BTreeMap<String, String>>,
    namespace: Option<&BTreeMap<String, String>>,
    containers: &[&str],
    tenants: &[String],
    problems: &mut Problems,
) -> Annotations {
    let mut found = Annotations::default();
    let (mut attribute_bytes, mut kept_bytes) = (0, 0);
    for (place, annotations) in [(Place::Pod, pod), (Place::Namespace, namespace)] {
        let (mut statements, mut patterns) = (0, 0);
        for (name, value) in annotations.into_iter().flatten().filter(|(name, _)| name.len() <= MAX_NAME) {
            let is_pattern = name.starts_with(PREFIX) && value.trim_start().starts_with(START);
            patterns += usize::from(is_pattern);
            let read = if is_pattern && patterns > MAX_PATTERNS {
                let what = format!("is one of more than {MAX_PATTERNS} regular expressions");
                Err(Wrong::new(what, "give all containers the same one"))
            } else if let Some(key) = name.strip_prefix(PREFIX) {
                read_own(key, value, place, containers, tenants).map(Some)
            } else if let Some(key) = name.strip_prefix(FLUENT_BIT) {
                read_fluent_bit(key, value)
            } else if let Some(key) = name.strip_prefix(RESOURCE) {
                found.add_attribute(key, value, &mut attribute_bytes).map(|()| None)
            } else {
                Ok(None)
            };
            match read {
                Ok(Some((container, value))) if statements < MAX_STATEMENTS => {
                    statements += 1;
                    found.statements.push(Statement { place, container, value });
                }
                Ok(Some(_)) => {
                    let fix = "remove those that say nothing new";
                    let wrong = Wrong::new(format!("is one of more than {MAX_STATEMENTS}"), fix);
                    problems.push(place, name, value, wrong);
                }
                Ok(None) => {}
                Err(wrong) => {
                    problems.push(place, name, value, wrong);
                    continue;
                }
            }
            if KEPT.iter().any(|prefix| name.starts_with(prefix))
                && let Err(wrong) = found.keep(name, value, &mut kept_bytes)
            {
                problems.push(place, name, value, wrong);
            }
        }
    }
    found.tell_single_streams(containers, problems);
    found
}

impl Annotations {
    /// How the logs of a container are treated.
    pub(super) fn handling(&self, container: &str) -> Handling {
        Handling {
            off: [Stream::Stdout, Stream::Stderr].iter().all(|stream| self.is_off(container, *stream)),
            format: self
                .find(container, |value| match value {
                    Value::Format(format) => Some(*format),
                    _ => None,
                })
                .unwrap_or_default(),
            level_field: self.find(container, |value| match value {
                Value::LevelField(key) => Some(key.clone()),
                _ => None,
            }),
            trace_field: self.find(container, |value| match value {
                Value::TraceField(key) => Some(key.clone()),
                _ => None,
            }),
            sample: self
                .find(container, |value| match value {
                    Value::Sample(share) => Some(*share),
                    _ => None,
                })
                .flatten(),
            multiline: self.find(container, |value| match value {
                Value::Multiline(mode) => Some(mode.clone()),
                _ => None,
            }),
            recorder: self.find(container, |value| match value {
                Value::Recorder(on) => Some(*on),
                _ => None,
            }),
        }
    }

    /// The Loki tenant of a container.
    pub(super) fn tenant(&self, container: &str) -> Option<String> {
        self.find(container, |value| match value {
            Value::Tenant(tenant) => Some(tenant.clone()),
            _ => None,
        })
    }

    /// What is said about a container, object by object, the more special first.
    fn ranks<'a>(
        &'a self,
        container: &'a str,
    ) -> impl Iterator<Item = impl Iterator<Item = &'a Value> + Clone> {
        let ranks =
            [(Place::Pod, true), (Place::Pod, false), (Place::Namespace, true), (Place::Namespace, false)];
        ranks.into_iter().map(move |(place, special)| {
            let wanted = special.then_some(container);
            let statements = self.statements.iter();
            statements
                .filter(move |said| said.place == place && said.container.as_deref() == wanted)
                .map(|said| &said.value)
        })
    }

    fn find<T>(&self, container: &str, pick: impl Fn(&Value) -> Option<T>) -> Option<T> {
        self.ranks(container).find_map(|mut values| values.find_map(&pick))
    }

    /// Within one rank the agent's own annotation stands before Fluent Bit's, and its word about a stream before that
    /// about both.
    fn is_off(&self, container: &str, stream: Stream) -> bool {
        let off = self.ranks(container).find_map(|values| {
            let find = |pick: &dyn Fn(&Value) -> Option<bool>| values.clone().find_map(pick);
            find(&|value| if let Value::Logs(on) = value { Some(!on) } else { None })
                .or_else(|| {
                    find(&|value| match value {
                        Value::Exclude(Some(of), off) if *of == stream => Some(*off),
                        _ => None,
                    })
                })
                .or_else(|| {
                    find(&|value| match value {
                        Value::Exclude(None, off) => Some(*off),
                        _ => None,
                    })
                })
        });
        off.unwrap_or(false)
    }

    /// One stream alone cannot be switched off: said, since Fluent Bit can.
    fn tell_single_streams(&self, containers: &[&str], problems: &mut Problems) {
        for (stream, other, name) in
            [(Stream::Stdout, Stream::Stderr, "stdout"), (Stream::Stderr, Stream::Stdout, "stderr")]
        {
            let half = |name: &&&str| self.is_off(name, stream) && !self.is_off(name, other);
            let Some(container) = containers.iter().find(half) else { continue };
            let said = self.statements.iter().find(|said| said.value == Value::Exclude(Some(stream), true));
            problems.push(
                said.map_or(Place::Pod, |said| said.place),
                &format!("{FLUENT_BIT}exclude_{name}"),
                "true",
                Wrong::new(
                    format!(
                        "one stream alone is not excluded: both of container {} are shipped",
                        shown(container)
                    ),
                    format!(
                        "drop it by a rule of the agent's config, [process.drop] with stream = \"{name}\""
                    ),
                ),
            );
        }
    }

    fn add_attribute(&mut self, key: &str, value: &str, bytes: &mut usize) -> Result<(), Wrong> {
        const REMOVE: &str = "remove the annotation";
        let value = value.trim();
        let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(key.len() <= 63
            && ends(key.bytes().next())
            && ends(key.bytes().last())
            && key.bytes().all(inner))
        {
            let fix = "write letters, digits, dots, dashes and underscores after the slash, up to 63";
            return Err(Wrong::new("its key cannot be that of an attribute", fix));
        }
        if IDENTITY.contains(&key) || key.starts_with("nodewick.") {
            return Err(Wrong::new("the agent's own word stands for this attribute", REMOVE));
        }
        if value.is_empty() || self.resource.contains_key(key) {
            return Ok(());
        }
        plain(value, MAX_VALUE)?;
        let size = key.len() + value.len();
        if self.resource.len() >= MAX_ATTRIBUTES || *bytes + size > MAX_ATTRIBUTE_BYTES {
            let limits = format!(
                "is beyond {MAX_ATTRIBUTES} attributes or {MAX_ATTRIBUTE_BYTES} bytes of them, so it is not used"
            );
            return Err(Wrong::new(limits, REMOVE));
        }
        *bytes += size;
        self.resource.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn keep(&mut self, name: &str, value: &str, bytes: &mut usize) -> Result<(), Wrong> {
        if self.kept.contains_key(name) {
            return Ok(());
        }
        let size = name.len() + value.len();
        if value.len() > MAX_KEPT_VALUE || *bytes + size > MAX_KEPT {
            let what =
                format!("is over {MAX_KEPT_VALUE} bytes, or all of them are over {MAX_KEPT}: it is not kept");
            return Err(Wrong::new(what, "shorten it"));
        }
        *bytes += size;
        self.kept.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

type Said = (Option<String>, Value);

fn read_own(
    key: &str,
    value: &str,
    place: Place,
    containers: &[&str],
    tenants: &[String],
) -> Result<Said, Wrong> {
    let (key, container) = match key.split_once('.') {
        Some((key, container)) => (key, Some(container)),
        None => (key, None),
    };
    let Some(row) = TABLE.iter().find(|row| row.key == key) else {
        let fix = match nearest(key, TABLE.iter().map(|row| row.key)) {
            Some(near) => format!("did you mean {PREFIX}{near}?"),
            None => {
                let keys: Vec<_> = TABLE.iter().map(|row| row.key).collect();
                format!("there are {}", keys.join(", "))
            }
        };
        return Err(Wrong::new("there is no such annotation", fix));
    };
    if let Some(container) = container
        && place == Place::Pod
        && !containers.contains(&container)
    {
        let fix = match nearest(container, containers.iter().copied()) {
            Some(near) => format!("did you mean {PREFIX}{key}.{}?", shown(near)),
            None => {
                let names: Vec<_> = containers.iter().take(5).map(|name| shown(name)).collect();
                format!("name one of its containers: {}", names.join(", "))
            }
        };
        return Err(Wrong::new(format!("the pod has no container {}", shown(container)), fix));
    }
    let value = value.trim();
    plain(value, MAX_VALUE)?;
    Ok((container.map(str::to_owned), (row.read)(value, tenants)?))
}

/// Fluent Bit's `exclude[_stream][-container]`; `None` for what is not about excluding.
///
/// Source: Fluent Bit manual, "Kubernetes filter", annotations; the value is read as `flb_utils_bool` does.
fn read_fluent_bit(key: &str, value: &str) -> Result<Option<Said>, Wrong> {
    let Some(rest) = key.strip_prefix("exclude") else { return Ok(None) };
    let (stream, container) = match rest.split_once('-') {
        Some((stream, container)) => (stream, Some(container)),
        None => (rest, None),
    };
    let stream = match stream {
        "" => None,
        "_stdout" => Some(Stream::Stdout),
        "_stderr" => Some(Stream::Stderr),
        _ => {
            let fix = "write exclude, exclude_stdout or exclude_stderr, and -<container> after it for one container";
            return Err(Wrong::new("Fluent Bit has no such annotation", fix));
        }
    };
    let off = match value.trim().to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => true,
        "false" | "off" | "no" => false,
        _ => return Err(Wrong::new("is neither true nor false", "write \"true\" or \"false\"")),
    };
    Ok(Some((container.map(str::to_owned), Value::Exclude(stream, off))))
}

/// One line of text within `limit` bytes.
pub(super) fn plain(value: &str, limit: usize) -> Result<(), Wrong> {
    if value.len() > limit {
        return Err(Wrong::new(format!("has {} bytes, more than {limit}", value.len()), "shorten it"));
    }
    if value.chars().any(char::is_control) {
        return Err(Wrong::new("has a line break or another control character", "remove it"));
    }
    Ok(())
}

fn read_logs(value: &str, _: &[String]) -> Result<Value, Wrong> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" => Ok(Value::Logs(true)),
        "off" | "false" => Ok(Value::Logs(false)),
        _ => Err(Wrong::new("is neither on nor off, so the logs are shipped", "write \"on\" or \"off\"")),
    }
}

fn read_recorder(value: &str, _: &[String]) -> Result<Value, Wrong> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" => Ok(Value::Recorder(true)),
        "off" | "false" => Ok(Value::Recorder(false)),
        _ => Err(Wrong::new("is neither on nor off, so it holds nothing back", "write \"on\" or \"off\"")),
    }
}

fn read_parser(value: &str, _: &[String]) -> Result<Value, Wrong> {
    const NAMES: [(&str, LineFormat); 6] = [
        ("auto", LineFormat::Auto),
        ("json", LineFormat::Json),
        ("logfmt", LineFormat::Logfmt),
        ("klog", LineFormat::Klog),
        ("nginx", LineFormat::Nginx),
        ("text", LineFormat::Text),
    ];
    let name = value.to_ascii_lowercase();
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, format)| Value::Format(*format)).ok_or_else(|| {
        let fix = match nearest(&name, NAMES.iter().map(|(name, _)| *name)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "write auto, json, logfmt, klog, nginx or text".to_owned(),
        };
        Wrong::new("is not a format that is known", fix)
    })
}

fn read_field(value: &str) -> Result<String, Wrong> {
    if value.is_empty() {
        return Err(Wrong::new("names no field", "write the key as the lines have it"));
    }
    plain(value, MAX_FIELD)?;
    Ok(value.to_owned())
}

fn read_level_field(value: &str, _: &[String]) -> Result<Value, Wrong> {
    read_field(value).map(Value::LevelField)
}

fn read_trace_field(value: &str, _: &[String]) -> Result<Value, Wrong> {
    read_field(value).map(Value::TraceField)
}

fn read_sample(value: &str, _: &[String]) -> Result<Value, Wrong> {
    let (number, whole) = match value.strip_suffix('%') {
        Some(number) => (number.trim_end(), 100.0),
        None => (value, 1.0),
    };
    let fix = "write a number above 0 up to 1, or a percentage: \"0.1\", \"10%\"";
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let Some(share) = number.parse::<f64>().ok().filter(|_| plain).map(|number| number / whole) else {
        return Err(Wrong::new("is not a share of the lines", fix));
    };
    if share <= 0.0 {
        let fix = format!("write {PREFIX}logs: \"off\" to ship none");
        Err(Wrong::new("a share of 0 keeps no line", fix))
    } else if share > 1.0 {
        Err(Wrong::new("is more than all lines", fix))
    } else {
        Ok(Value::Sample((share < 1.0).then_some(share)))
    }
}

/// Ways to join lines that have a name, as the log side spells them; a test holds both together.
const MULTILINE: [&str; 10] =
    ["auto", "off", "java", "python", "go", "node", "dotnet", "ruby", "rust", "php"];

fn read_multiline(value: &str, _: &[String]) -> Result<Value, Wrong> {
    if let Some(pattern) = value.strip_prefix(START) {
        // Loose where the config is strict would mean a mode that is accepted here and refused there.
        if RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build().is_err() {
            let fix =
                "correct it; the syntax is that of the regex crate, without look-around and back-references";
            return Err(Wrong::new("its regular expression is malformed or too large", fix));
        }
    } else if !MULTILINE.contains(&value) {
        let fix = "write auto, off, a language (java, python, go, node, dotnet, ruby, rust, php), or start= and a regular \
                   expression of a record's first line";
        return Err(Wrong::new("is not a way to join lines", fix));
    }
    Ok(Value::Multiline(value.to_owned()))
}

fn read_tenant(value: &str, tenants: &[String]) -> Result<Value, Wrong> {
    if !is_tenant(value) {
        let fix = "write 1 to 150 letters, digits and !-_.*'(), but neither '.' nor '..'";
        return Err(Wrong::new("Loki does not take such a tenant", fix));
    }
    if !tenants.iter().any(|allowed| allowed == value) {
        let fix = "have the operator add it to [kube] tenants, or remove the annotation";
        return Err(Wrong::new("the agent's config does not allow this tenant", fix));
    }
    Ok(Value::Tenant(value.to_owned()))
}

#[cfg(test)]
#[path = "annotations_tests.rs"]
mod tests;
