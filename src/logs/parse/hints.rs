//! Reading the lines of a log whose annotations say how.
//!
//! In: a line and what the pod's annotations name: a format, the key of the level, the key of the trace id. Out:
//! [`Parsed`]. Invariants: a named format is the only one that is tried; a named key stands before all usual ones
//! where its value can be used, and where it cannot it counts as absent. A key with dots means the same whether the
//! line nests objects or writes dotted keys, as in [`super::keys`].

use super::json::MAX_DEPTH;
use super::pairs::{self, Pairs};
use super::pick::{Pick, Picks, Value};
use super::{FORMATS, Format, Parsed, access, json, klog, plain};
use crate::data::batch::Fields;
use crate::data::workload::{Handling, LineFormat};

/// What annotations say of a log's lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hints {
    format: LineFormat,
    level: Option<String>,
    trace: Option<String>,
}

/// Readings of a named level's value, the first usable one counts.
const LEVELS: [Pick; 2] = [Pick::Level, Pick::SeverityNumber];

/// Readings of a named trace id's value. Sixteen decimal digits are taken for hex.
const TRACES: [Pick; 6] =
    [Pick::TraceHex, Pick::Traceparent, Pick::TraceXray, Pick::TraceGcp, Pick::TraceB3, Pick::TraceDatadog];

impl Hints {
    /// What `handling` says of lines; `None` when it says nothing.
    pub fn of(handling: &Handling) -> Option<Self> {
        let hints = Self {
            format: handling.format,
            level: handling.level_field.clone(),
            trace: handling.trace_field.clone(),
        };
        (hints != Self::default()).then_some(hints)
    }

    /// Reads one line, as [`parse`](super::parse) does for logs without annotations.
    pub fn parse(&self, line: &[u8], want: Fields) -> Parsed {
        self.read(Picks::new(line, want))
    }

    /// Reads the line of these picks.
    pub(super) fn read(&self, mut picks: Picks<'_>) -> Parsed {
        let line = picks.line();
        match self.format {
            LineFormat::Auto => {
                let _ = FORMATS.iter().any(|read| read(line, &mut picks));
            }
            LineFormat::Json => {
                json::read(line, &mut picks);
            }
            LineFormat::Logfmt => {
                picks.out.format = Format::Logfmt;
                pairs::offer(line, &mut picks, true);
            }
            LineFormat::Klog => {
                klog::read(line, &mut picks);
            }
            // The level of an error line stands in brackets behind its time.
            LineFormat::Nginx => {
                let _ = access::read(line, &mut picks) || plain::read(line, &mut picks);
            }
            LineFormat::Text => {}
        }
        if let Some(key) = &self.level {
            prefer(line, key.as_bytes(), &LEVELS, &mut picks);
        }
        if let Some(key) = &self.trace {
            prefer(line, key.as_bytes(), &TRACES, &mut picks);
        }
        picks.finish()
    }
}

/// Takes the value of a named key before all others; of several usable ones the last.
fn prefer<'a>(line: &'a [u8], key: &[u8], readings: &[Pick], picks: &mut Picks<'a>) {
    let format = picks.out.format;
    let mut take = |value| {
        let _ = readings.iter().any(|pick| picks.prefer(*pick, value));
    };
    match format {
        Format::Json => json_values(line, key, take),
        Format::Logfmt => {
            let mut pairs = Pairs::of(line);
            while let Some(pair) = pairs.next() {
                if pair.separator == b'=' && pair.key == key {
                    let found = pair.value(line);
                    pairs.go_on_at(found.end);
                    take(found.value);
                }
            }
        }
        Format::Plain | Format::Klog | Format::Access => {}
    }
}

/// What the next value of a JSON line is to the path that is looked for.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Elsewhere,
    /// The object in which the rest of the path, from here on, is looked for.
    Above(usize),
    Here,
}

/// Offers the values at `path` of a line that is known to be one JSON object.
fn json_values<'a>(line: &'a [u8], path: &[u8], mut offer: impl FnMut(Value<'a>)) {
    // By depth: whether the container is an object, and from where on its keys are held against the path.
    let mut containers = [(false, Place::Elsewhere); MAX_DEPTH + 1];
    let (mut depth, mut at) = (0, 0);
    let mut place = Place::Above(0);
    let mut key_comes = false;
    while let Some(byte) = line.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                let is_object = *byte == b'{';
                let within = if is_object && place != Place::Here { place } else { Place::Elsewhere };
                let Some(container) = containers.get_mut(depth) else { return };
                *container = (is_object, within);
                (key_comes, place) = (is_object, Place::Elsewhere);
            }
            b'}' | b']' => {
                let Some(above) = depth.checked_sub(1) else { return };
                (depth, place) = (above, Place::Elsewhere);
            }
            b',' => (key_comes, place) = (containers[depth].0, Place::Elsewhere),
            b'"' => {
                let mut escaped = false;
                while let Some(b'\\') =
                    memchr::memchr2(b'"', b'\\', line.get(at..).unwrap_or_default()).map(|found| {
                        at += found;
                        line[at]
                    })
                {
                    escaped = true;
                    at += 2;
                }
                let text = &line[start + 1..at.min(line.len())];
                at += 1;
                if key_comes {
                    (key_comes, place) = (false, below(containers[depth].1, path, text));
                } else if place == Place::Here {
                    offer(Value::Str(text, escaped));
                }
            }
            b'-' | b'0'..=b'9' => {
                let len = line[at..].iter().take_while(|byte| b"0123456789.eE+-".contains(byte)).count();
                at += len;
                if place == Place::Here {
                    offer(Value::Num(&line[start..at]));
                }
            }
            _ => {}
        }
    }
}

/// What the value of a key is to the path.
fn below(within: Place, path: &[u8], key: &[u8]) -> Place {
    let Place::Above(from) = within else { return Place::Elsewhere };
    match path[from..].strip_prefix(key) {
        Some([]) => Place::Here,
        Some([b'.', ..]) => Place::Above(from + key.len() + 1),
        _ => Place::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    fn read(handling: Handling, line: &str) -> Parsed {
        Hints::of(&handling).expect("hints").parse(line.as_bytes(), Fields::ALL)
    }

    fn named(level: &str, trace: &str) -> Handling {
        let field = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Handling { level_field: field(level), trace_field: field(trace), ..Handling::default() }
    }

    fn formatted(format: LineFormat) -> Handling {
        Handling { format, ..Handling::default() }
    }

    #[test]
    fn a_named_key_stands_before_the_usual_ones() {
        for line in [
            r#"{"level":"info","sev":"error"}"#,
            r#"{"sev":"error","level":"info"}"#,
            r#"{"a":{"sev":"debug"},"l":["sev",{"sev":"debug"}],"sev":"error","z":{"sev":"debug"}}"#,
            r#"{"sev":"debug","x":"\"sev\":","sev" : "error"}"#,
            r#"{"sev":50}"#,
            "level=info sev=error msg=\"sev=debug\"",
        ] {
            assert_eq!(read(named("sev", ""), line).severity.number(), 17, "{line}");
        }
        assert_eq!(read(named("sev", ""), r#"{"sev":9,"level":"warn"}"#).severity.number(), 9);
        // What cannot be used counts as absent.
        for line in
            [r#"{"level":"warn","sev":"so so"}"#, r#"{"level":"warn","sev":null}"#, "level=warn sev= x=1"]
        {
            assert_eq!(read(named("sev", ""), line).severity.number(), 13, "{line}");
        }
    }

    #[test]
    fn a_named_path_is_found_nested_and_dotted() {
        for line in [
            format!(r#"{{"ctx":{{"ids":{{"t":"{ID}"}}}}}}"#),
            format!(r#"{{"ctx.ids":{{"t":"{ID}"}},"trace_id":"11111111111111111111111111111111"}}"#),
            format!(r#"{{"ctx":{{"ids.t":"{ID}"}}}}"#),
            format!(r#"{{"ctx.ids.t":"00-{ID}-b7ad6b7169203331-01"}}"#),
        ] {
            let parsed = read(named("", "ctx.ids.t"), &line);
            assert_eq!(parsed.trace_id.map(|id| id.to_string()).as_deref(), Some(ID), "{line}");
        }
        let other = format!(r#"{{"ctx":{{"ids":["t","{ID}"]}},"ids":{{"t":"{ID}"}},"t":"{ID}"}}"#);
        assert_eq!(read(named("", "ctx.ids.t"), &other).trace_id, None);
    }

    #[test]
    fn a_named_format_is_the_only_one_that_is_tried() {
        let json = r#"{"level":"error"}"#;
        let klog = "E1122 14:27:36.383012       1 x.go:1] boom";
        let nginx = "2026/11/22 14:27:36 [warn] 29#29: a client request body is buffered";
        let logfmt = "level=error";
        let number = |format, line| read(formatted(format), line).severity.number();
        assert_eq!(number(LineFormat::Json, json), 17);
        assert_eq!(number(LineFormat::Json, klog), 0);
        assert_eq!(number(LineFormat::Klog, klog), 17);
        assert_eq!(number(LineFormat::Klog, "ERROR boom"), 0);
        assert_eq!(number(LineFormat::Nginx, nginx), 13);
        assert_eq!(number(LineFormat::Logfmt, logfmt), 17);
        assert_eq!(read(formatted(LineFormat::Logfmt), logfmt).format, Format::Logfmt);
        for line in [json, klog, nginx, logfmt] {
            assert_eq!(read(formatted(LineFormat::Text), line), Parsed::default(), "{line}");
        }
        assert_eq!(Hints::of(&Handling { sample: Some(0.5), ..Handling::default() }), None);
    }
}
