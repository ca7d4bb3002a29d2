//! One stored record as a person reads it.
//!
//! In: an [`Entry`]. Out: one line of text, and indented lines for what has several: a message, a stack trace.
//! `14:27:36.381 ERROR checkout/api  payment refused  GET /pay 502 41ms orderId=17 trace=0af76519…`
//! Pure. Invariant: every byte of log text passes [`escape`](super::escape), so only our own colours reach the
//! terminal.

use std::fmt::{self, Write};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::escape::{escape, escape_within};
use crate::sink::local::Entry;

/// Characters shown of a message.
const MESSAGE_LIMIT: usize = 4_000;
/// Characters shown of a field's value.
const VALUE_LIMIT: usize = 160;
/// Fields shown.
const FIELD_LIMIT: usize = 40;
/// Lines shown below the first.
const BLOCK_LIMIT: usize = 16;

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Use ANSI colours.
    pub colour: bool,
}

impl Style {
    /// Text without colours.
    pub const PLAIN: Self = Self { colour: false };

    /// Colours when standard output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && std::io::IsTerminal::is_terminal(&std::io::stdout()) }
    }

    fn paint(self, code: &str, out: &mut String, text: impl FnOnce(&mut String)) {
        if self.colour {
            let _ = write!(out, "\x1b[{code}m");
            text(out);
            out.push_str("\x1b[0m");
        } else {
            text(out);
        }
    }
}

const DIM: &str = "2";

/// Keys whose value is the message, best first.
const MESSAGE_KEYS: [&str; 5] = ["msg", "message", "event", "@message", "short_message"];

/// Keys that the head of the line shows already, or that say nothing about the event.
const SKIPPED_KEYS: [&str; 32] = [
    "level",
    "severity",
    "lvl",
    "loglevel",
    "log.level",
    "severity_text",
    "severity_number",
    "levelname",
    "time",
    "timestamp",
    "ts",
    "@timestamp",
    "@version",
    "pid",
    "hostname",
    "v",
    "trace_id",
    "span_id",
    "trace_flags",
    "traceId",
    "spanId",
    "traceFlags",
    "traceID",
    "spanID",
    "trace.id",
    "span.id",
    "otelTraceID",
    "otelSpanID",
    "otelServiceName",
    "service",
    "service.name",
    "ecs.version",
];

/// Keys whose text is a stack trace or ends in one.
const STACK_KEYS: [&str; 8] = [
    "stack",
    "stack_trace",
    "stacktrace",
    "exc_info",
    "exception",
    "error.stack_trace",
    "traceback",
    "errorStack",
];

/// Appends `entry` as text, with a newline behind each line.
pub fn write_pretty(entry: &Entry<'_>, style: Style, out: &mut String) {
    let mut shown = Shown::default();
    match Object::parse(&entry.line) {
        Some(object) => shown.read(&object, entry),
        None => shown.message = entry.line.trim_end().to_owned(),
    }
    style.paint(DIM, out, |out| match entry.time.get(11..23) {
        Some(clock) => escape(clock, out),
        None => escape(&entry.time, out),
    });
    out.push(' ');
    let (name, colour) = match &*entry.level {
        "trace" => ("TRACE", "90"),
        "debug" => ("DEBUG", "36"),
        "info" => ("INFO ", "32"),
        "warn" => ("WARN ", "33"),
        "error" => ("ERROR", "31"),
        "fatal" => ("FATAL", "1;31"),
        _ => ("-    ", DIM),
    };
    style.paint(colour, out, |out| out.push_str(name));
    out.push(' ');
    style.paint(colour_of(&entry.service_name), out, |out| {
        escape(&entry.service_name, out);
        if entry.container != entry.service_name && !entry.container.is_empty() {
            out.push('/');
            escape(&entry.container, out);
        }
    });
    let mut message = shown.message.split('\n');
    if let Some(first) = message.next().filter(|first| !first.is_empty()) {
        out.push_str("  ");
        escape_within(first.trim_end_matches('\r'), MESSAGE_LIMIT, out);
    }
    shown.rest.splice(0..0, message.map(str::to_owned));
    if !shown.request.is_empty() {
        out.push_str("  ");
        out.push_str(&shown.request);
    }
    if !shown.fields.is_empty() || !entry.trace_id.is_empty() {
        out.push_str(if shown.request.is_empty() { "  " } else { " " });
        style.paint(DIM, out, |out| {
            out.push_str(&shown.fields);
            if !entry.trace_id.is_empty() {
                out.push_str(if shown.fields.is_empty() { "trace=" } else { " trace=" });
                escape(entry.trace_id.get(..8).unwrap_or(&entry.trace_id), out);
                out.push('…');
            }
        });
    }
    out.push('\n');
    let hidden = shown.rest.len().saturating_sub(BLOCK_LIMIT);
    for line in shown.rest.iter().take(BLOCK_LIMIT) {
        out.push_str("    ");
        style.paint(DIM, out, |out| {
            let text = line.trim_start();
            out.extend(std::iter::repeat_n(' ', (line.len() - text.len()).min(8)));
            escape_within(text.trim_end_matches('\r'), MESSAGE_LIMIT, out);
        });
        out.push('\n');
    }
    if hidden > 0 {
        style.paint(DIM, out, |out| {
            let _ = write!(out, "    … {hidden} more lines");
        });
        out.push('\n');
    }
}

/// A steady colour for a name.
fn colour_of(name: &str) -> &'static str {
    let sum = name.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    ["36", "35", "34", "96", "95", "94"][sum as usize % 6]
}

/// A JSON object's members in their order, values unread.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if !text.trim_start().starts_with('{') {
            return None;
        }
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let members = deserializer.deserialize_map(Members).ok()?;
        deserializer.end().ok()?;
        Some(Self(members))
    }

    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.get(key).and_then(string)
    }
}

/// A JSON string's text.
fn string(value: &RawValue) -> Option<String> {
    value.get().starts_with('"').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

/// What a JSON line shows, besides the head.
#[derive(Default)]
struct Shown {
    message: String,
    /// Method, URL, status and duration, escaped.
    request: String,
    /// `key=value` pairs, escaped.
    fields: String,
    /// Lines below the first, not yet escaped.
    rest: Vec<String>,
}

impl Shown {
    fn read(&mut self, object: &Object<'_>, entry: &Entry<'_>) {
        let message = MESSAGE_KEYS.iter().find_map(|key| Some((*key, object.text(key)?)));
        let message_key = message.as_ref().map(|(key, _)| *key);
        self.message = message.map(|(_, text)| text).unwrap_or_default();
        let http = self.read_http(object);
        let mut count = 0;
        for (key, value) in &object.0 {
            let key = key.as_str();
            let skipped = Some(key) == message_key
                || SKIPPED_KEYS.contains(&key)
                || http.contains(&key)
                || (key == "name" && string(value).is_some_and(|name| name == entry.service_name))
                || matches!(value.get(), "null" | "{}" | "[]" | "\"\"");
            if skipped {
                continue;
            }
            if matches!(key, "err" | "error" | "exception")
                && let Some(error) = Object::parse(value.get())
            {
                self.read_error(&error);
                continue;
            }
            if let Some(text) = string(value)
                && (STACK_KEYS.contains(&key) || key == "error" || key == "err")
                && text.contains('\n')
            {
                self.rest.extend(text.trim_end().split('\n').map(str::to_owned));
                continue;
            }
            count += 1;
            if count <= FIELD_LIMIT {
                self.field(key, value);
            }
        }
        if count > FIELD_LIMIT {
            let _ = write!(self.fields, " … {} more fields", count - FIELD_LIMIT);
        }
        if self.message.is_empty()
            && self.request.is_empty()
            && self.fields.is_empty()
            && self.rest.is_empty()
        {
            self.message = entry.line.trim_end().to_owned();
        }
    }

    /// The request that pino-http, fastify and bunyan write as `req`, `res` and `responseTime`. Returns the keys used.
    fn read_http(&mut self, object: &Object<'_>) -> Vec<&'static str> {
        let mut used = Vec::new();
        let part = |text: &str, request: &mut String| {
            if !request.is_empty() {
                request.push(' ');
            }
            escape_within(text, VALUE_LIMIT, request);
        };
        if let Some(req) = object.get("req").and_then(|req| Object::parse(req.get()))
            && let Some(method) = req.text("method")
        {
            used.push("req");
            part(&method, &mut self.request);
            part(&req.text("url").unwrap_or_default(), &mut self.request);
        }
        if let Some(res) = object.get("res").and_then(|res| Object::parse(res.get()))
            && let Some(status) = res.get("statusCode")
        {
            used.push("res");
            part(status.get(), &mut self.request);
        }
        if let Some(millis) = object.get("responseTime").and_then(|time| time.get().parse::<f64>().ok()) {
            used.push("responseTime");
            let text = if millis.fract() == 0.0 { format!("{millis}ms") } else { format!("{millis:.1}ms") };
            part(&text, &mut self.request);
        }
        used
    }

    fn read_error(&mut self, error: &Object<'_>) {
        let stack = error.text("stack").filter(|stack| !stack.trim().is_empty());
        if let Some(stack) = stack {
            self.rest.extend(stack.trim_end().split('\n').map(str::to_owned));
        } else {
            let kind = error.text("type").or_else(|| error.text("name"));
            let message = error.text("message").unwrap_or_default();
            self.rest.push(kind.map_or_else(|| message.clone(), |kind| format!("{kind}: {message}")));
        }
        for (key, value) in &error.0 {
            if !matches!(key.as_str(), "stack" | "type" | "name" | "message") && value.get() != "null" {
                self.field(key, value);
            }
        }
    }

    fn field(&mut self, key: &str, value: &RawValue) {
        let out = &mut self.fields;
        if !out.is_empty() {
            out.push(' ');
        }
        escape_within(key, VALUE_LIMIT, out);
        out.push('=');
        match string(value) {
            Some(text) if !text.contains([' ', '"', '=']) => escape_within(&text, VALUE_LIMIT, out),
            Some(text) => {
                out.push('"');
                escape_within(&text.replace('"', "\\\""), VALUE_LIMIT, out);
                out.push('"');
            }
            None => escape_within(value.get(), VALUE_LIMIT, out),
        }
    }
}

#[cfg(test)]
#[path = "pretty_tests.rs"]
mod tests;
