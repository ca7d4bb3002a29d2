//! A few lines through the real pipeline, with every decision on the way: `nodewick explain` and `nodewick test`.
//!
//! In: a config, who wrote the lines, and their bytes as a runtime writes them. Out: one [`Story`] a record: the lines
//! that it was framed from, what was found in it, what each rule decided, and the record as it would be sent.
//! Invariant: frame, join, parse, process and encode are the agent's own code; nothing here decides anything, and nothing
//! is counted, so that an agent may explain lines while it runs.

mod annotations;
pub mod cases;
pub mod explain;
mod marked;
pub mod stages;

use std::collections::HashMap;
use std::sync::Arc;

use annotations::Said;

use crate::config::Config;
use crate::data::batch::{Batch, Marks, Record, Span};
use crate::data::budget::{Budget, Signal};
use crate::data::position::Position;
use crate::data::workload::{ContainerRef, Handling, Identify, Identity, PathIdentity, Workload};
use crate::kube::resolve::Problem;
use crate::logs::annotated::Annotated;
use crate::logs::frame;
use crate::logs::ingest::{LineState, Seen, Settings};
use crate::logs::multiline::{Kind as Joined, Rules};
use crate::logs::parse::{self, Format, sources::Source};
use crate::logs::process::watch::{self, Kind, Noted, Step, Verdict};
use crate::logs::process::{self, Chain};

/// Bytes of input that are taken.
pub const MAX_INPUT: usize = 1 << 20;

/// Bytes of input that are taken from who asks a running agent.
pub const MAX_ASKED: usize = 64 << 10;

/// Records that are explained to who asks a running agent.
pub const MAX_ASKED_RECORDS: usize = 50;

/// What the share that an annotation names is called among the rules, as in the agent's metrics.
const ANNOTATION: &str = "annotation";

/// The form of a line that no runtime has written: it is taken whole.
const NO_HEADER: &str = "no runtime header";

/// Who wrote the lines, as far as a person says it; the rest is made up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// Namespace.
    pub namespace: Option<String>,
    /// Pod.
    pub pod: Option<String>,
    /// Container.
    pub container: Option<String>,
    /// Service name; else it is guessed from the pod's name, as without the Kubernetes watch.
    pub service: Option<String>,
    /// Pod labels that the records carry.
    pub labels: Vec<(String, String)>,
    /// Annotations of the pod.
    pub annotations: Vec<(String, String)>,
    /// The pod's uid, where a path told it.
    pub uid: Option<String>,
    /// The restart count, where a path told it.
    pub restart: u32,
}

impl Who {
    /// Reads the path of a pod's log: `…/<namespace>_<pod>_<uid>/<container>/<restart>.log`.
    pub fn of_path(path: &std::path::Path) -> Option<Self> {
        let name = |path: &std::path::Path| Some(path.file_name()?.to_str()?.to_owned());
        let restart = name(path)?.split('.').next()?.parse().ok()?;
        let container = path.parent()?;
        let of = ContainerRef::from_path(&name(container.parent()?)?, &name(container)?, restart)?;
        Some(Self {
            namespace: Some(of.namespace),
            pod: Some(of.pod),
            container: Some(of.container),
            uid: Some(of.uid),
            restart,
            ..Self::default()
        })
    }

    fn container(&self) -> ContainerRef {
        let or = |given: &Option<String>, made_up: &str| given.clone().unwrap_or_else(|| made_up.to_owned());
        ContainerRef {
            namespace: or(&self.namespace, "default"),
            pod: or(&self.pod, "example"),
            uid: or(&self.uid, "00000000-0000-4000-8000-000000000000"),
            container: or(&self.container, "main"),
            restart: self.restart,
        }
    }

    fn workload(&self, config: &Config, said: &Said) -> Arc<Workload> {
        let container = self.container();
        let mut paths = PathIdentity {
            cluster: config.agent.cluster.clone(),
            node: config.agent.node.clone(),
            environment: Some(config.agent.environment.clone()).filter(|name| !name.is_empty()),
        };
        match paths.identify(&container, std::time::Duration::ZERO) {
            Identity::Known(workload) => {
                let mut workload = Arc::unwrap_or_clone(workload);
                said.apply(&mut workload);
                if let Some(service) = &self.service {
                    workload.service_name.clone_from(service);
                    workload.service_name_guessed = false;
                }
                workload.labels.clone_from(&self.labels);
                workload.labels.sort();
                Arc::new(workload)
            }
            Identity::Pending => unreachable!("a path always says who wrote it"),
        }
    }
}

/// A line of the file as the runtime wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Physical {
    /// Its number in the input, from 1.
    pub number: usize,
    /// Where it begins in the input.
    pub offset: u64,
    /// `CRI`, `docker json-file` or `no runtime header`.
    pub form: &'static str,
    /// The runtime's stamp, nanoseconds since the epoch; 0 when it has none.
    pub time_unix_nano: u64,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// True when the application's line ends here.
    pub full: bool,
    /// The line, without its newline.
    pub text: Vec<u8>,
}

/// What one rule or annotation decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Kind of the rule.
    pub kind: Kind,
    /// Its name, `annotation` for the share that an annotation names; empty for deduplication, of which there is one,
    /// and for an annotation that switches logs off.
    pub rule: String,
    /// The decision.
    pub verdict: Verdict,
}

impl Decision {
    /// The rule as a person calls it: `drop.health`, `dedup`.
    pub fn name(&self) -> String {
        if self.rule.is_empty() {
            self.kind.name().to_owned()
        } else {
            format!("{}.{}", self.kind.name(), self.rule)
        }
    }
}

/// A record in a batch.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Which one of its records.
    pub index: u32,
}

impl Sent {
    /// The record.
    pub fn record(&self) -> &Record {
        &self.batch.records[self.index as usize]
    }
}

/// A text that redaction put in the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Name of the rule.
    pub rule: String,
    /// First byte of what was replaced, in the line before.
    pub start: usize,
    /// Its end, exclusive.
    pub end: usize,
    /// What stands there now.
    pub text: Vec<u8>,
}

/// What became of one record.
#[derive(Debug, Clone)]
pub struct Story {
    /// The physical lines that it was framed from.
    pub lines: Vec<Physical>,
    /// The record as it was read; its spans point into the text.
    pub seen: Seen,
    /// Shape of its line.
    pub format: parse::Format,
    /// Where its fields were found.
    pub sources: Vec<Source>,
    /// What each rule decided, in order; what the pod's annotations did stands first.
    pub decisions: Vec<Decision>,
    /// How the pod's annotations want its lines handled.
    pub handling: Arc<Handling>,
    /// What goes to the sinks; `None` when a rule dropped it.
    pub sent: Option<Sent>,
    /// What redaction replaced in its line, in order.
    pub replaced: Vec<Replaced>,
    /// The record as it would have been read without the pod's annotations, where they say how.
    pub plain: Option<Seen>,
    /// Shape of its line without them.
    pub plain_format: parse::Format,
    /// True when there are annotations.
    pub is_annotated: bool,
    /// Who wrote it.
    pub workload: Arc<Workload>,
    /// The same without the pod's annotations.
    pub unannotated: Arc<Workload>,
}

/// What all stories of one input share.
struct Told {
    workload: Arc<Workload>,
    unannotated: Arc<Workload>,
    handling: Arc<Handling>,
    is_annotated: bool,
    /// By offset, as everything here.
    noted: Noted,
    batches: [Arc<Batch>; 2],
    /// Batch and index of each record that is sent.
    sent: HashMap<u64, (usize, u32)>,
}

impl Told {
    fn steps(&self, offset: u64) -> &[Step] {
        let steps = &self.noted.steps;
        let from = steps.partition_point(|step| step.offset < offset);
        &steps[from..from + steps[from..].partition_point(|step| step.offset == offset)]
    }

    fn replaced(&self, offset: u64) -> &[watch::Replaced] {
        let replaced = &self.noted.replaced;
        let from = replaced.partition_point(|own| own.offset < offset);
        &replaced[from..from + replaced[from..].partition_point(|own| own.offset == offset)]
    }
}

impl Story {
    /// Adds what the annotations decided: a log that is switched off is not read, and the share that is kept is drawn
    /// before any rule.
    fn follow_annotations(&mut self) {
        if self.handling.off {
            self.sent = None;
            self.decisions =
                vec![Decision { kind: Kind::Annotation, rule: String::new(), verdict: Verdict::Dropped }];
        } else if self.handling.sample.is_some() {
            let is_out = self.sent.is_none() && self.dropped_by().is_none();
            let verdict = if is_out { Verdict::Dropped } else { Verdict::Kept };
            let decision = Decision { kind: Kind::Sample, rule: ANNOTATION.to_owned(), verdict };
            self.decisions.insert(0, decision);
        }
    }

    /// The rule that dropped it.
    pub fn dropped_by(&self) -> Option<String> {
        if self.sent.is_some() {
            return None;
        }
        let fatal = |verdict| matches!(verdict, Verdict::Dropped | Verdict::Folded | Verdict::Held);
        self.decisions.iter().rev().find(|step| fatal(step.verdict)).map(Decision::name)
    }

    /// The record as it would be sent, or else as it was read, with the text that its spans point into.
    pub fn outcome(&self) -> (&Record, &[u8]) {
        match &self.sent {
            Some(sent) => (sent.record(), &sent.batch.arena),
            None => (&self.seen.record, &self.seen.text),
        }
    }

    /// What was joined, in a word; `None` for a line alone.
    pub fn joined(&self) -> Option<String> {
        match self.seen.kind {
            Joined::Joined(language) => Some(format!("{language:?}")),
            Joined::Passed | Joined::Alone => None,
        }
    }

    /// The key under which a field was found.
    pub fn key_of(&self, source: &Source) -> Option<&str> {
        let named = match source.field {
            "level" => self.handling.level_field.as_deref(),
            "trace_id" => self.handling.trace_field.as_deref(),
            _ => None,
        };
        source.key.or_else(|| named.filter(|_| matches!(self.format, Format::Json | Format::Logfmt)))
    }

    /// True when it has this mark.
    pub fn is(&self, mark: Marks) -> bool {
        self.outcome().0.marks.contains(mark)
    }

    /// Redaction rules that found something.
    pub fn redacted(&self) -> Vec<&str> {
        let found = self.decisions.iter().filter(|step| matches!(step.verdict, Verdict::Redacted(_)));
        found.map(|step| step.rule.as_str()).collect()
    }
}

/// The pipeline of one config.
#[derive(Debug)]
pub struct Pipeline<'a> {
    config: &'a Config,
    settings: Settings,
}

impl<'a> Pipeline<'a> {
    /// Compiles the config's rules.
    ///
    /// # Errors
    /// Names the key whose value cannot be used; a config that was loaded has none.
    pub fn new(config: &'a Config) -> Result<Self, process::Error> {
        let chain = Chain::compile(&config.process)?;
        let rules = Rules::compile(&config.logs.multiline)?;
        let settings = Settings::new(config.record.fields.0, chain, config.logs.max_line.as_usize());
        Ok(Self { config, settings: settings.with_multiline(rules) })
    }

    /// The config.
    pub fn config(&self) -> &Config {
        self.config
    }

    /// What is wrong with the annotations of who wrote the lines.
    pub fn problems(&self, who: &Who) -> Vec<Problem> {
        annotations::read(&who.container(), &who.annotations, self.config).problems
    }

    /// Takes the lines of one container log through all stages. Lines without a stamp get `now_unix_nano`. Only the
    /// first [`MAX_INPUT`] bytes are read.
    pub fn run(&self, who: &Who, input: &[u8], now_unix_nano: u64) -> Vec<Story> {
        let said = annotations::read(&who.container(), &who.annotations, self.config);
        let workload = who.workload(self.config, &said);
        let unannotated = who.workload(self.config, &Said::default());
        let handling = Arc::new(said.handling);
        let input = &input[..input.len().min(MAX_INPUT)];
        let mut bytes = input.to_vec();
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
        let physical = physical_lines(&bytes);
        let first = physical.iter().map(|line| line.time_unix_nano).find(|time| *time > 0);
        let first = first.unwrap_or(now_unix_nano);
        let hints = Annotated::of(&handling);
        // Once more without what annotations say of parsing, where they say something.
        let plain = match hints.as_ref().and_then(|annotated| annotated.hints()) {
            Some(_) => self.read(&workload, bytes.clone(), first, None, &handling).0,
            None => Vec::new(),
        };
        let (seen, mut noted, batches) = self.read(&workload, bytes, first, hints, &handling);
        noted.steps.sort_by_key(|step| step.offset);
        noted.replaced.sort_by_key(|replaced| replaced.offset);
        let mut sent = HashMap::new();
        for (number, batch) in batches.iter().enumerate() {
            for (index, record) in (0..).zip(&batch.records) {
                sent.entry(record.offset).or_insert((number, index));
            }
        }
        let is_annotated = !who.annotations.is_empty();
        let told = Told { workload, unannotated, handling, is_annotated, noted, batches, sent };
        self.stories(physical, seen, plain, &told)
    }

    /// Takes the lines through the agent's stages.
    fn read(
        &self,
        workload: &Arc<Workload>,
        mut bytes: Vec<u8>,
        first_unix_nano: u64,
        annotated: Option<Box<Annotated>>,
        handling: &Handling,
    ) -> (Vec<Seen>, Noted, [Arc<Batch>; 2]) {
        let length = bytes.len() as u64;
        let mut state = LineState::new(self.settings.max_line);
        state.watch();
        state.set_annotated(annotated);
        if let Some(Ok(mode)) = handling.multiline.as_deref().map(str::parse) {
            state.set_multiline(mode);
        }
        state.set_first_time(first_unix_nano);
        let mut records = Vec::new();
        state.ingest(&self.settings, workload, &mut bytes, 0, 0, u64::MAX, &mut records);
        let (mut rest, mut late) = (Vec::new(), Vec::new());
        state.finish(&self.settings, workload, &mut rest, length, &mut late);
        let (seen, noted) = state.take_seen();
        (seen, noted, [batch(workload, bytes, records), batch(workload, rest, late)])
    }

    fn stories(&self, physical: Vec<Physical>, seen: Vec<Seen>, plain: Vec<Seen>, told: &Told) -> Vec<Story> {
        let mut plain: HashMap<u64, Seen> =
            plain.into_iter().map(|seen| (seen.record.offset, seen)).collect();
        let story = |seen: Seen| {
            // Both readings give out the same records, in the same order.
            let plain = plain.remove(&seen.record.offset);
            self.story(seen, plain, told)
        };
        let mut stories: Vec<Story> = seen.into_iter().map(story).collect();
        stories.sort_by_key(|story| story.seen.record.offset);
        // A physical line belongs to the last record of its stream that begins at it or before.
        for line in physical {
            let begun = stories.partition_point(|story| story.seen.record.offset <= line.offset);
            let fits = |story: &&mut Story| story.seen.record.stream.name() == line.stream;
            if let Some(story) = stories[..begun].iter_mut().rev().find(fits) {
                story.lines.push(line);
            }
        }
        stories
    }

    fn story(&self, seen: Seen, plain: Option<Seen>, told: &Told) -> Story {
        let annotated = Annotated::of(&told.handling);
        let annotated = annotated.as_deref();
        let (want, body) = (self.settings.want, seen.record.body.of(&seen.text));
        let want = annotated.map_or(want, |annotated| annotated.wants(want));
        let hints = annotated.and_then(Annotated::hints);
        let (parsed, sources) = parse::sources::parse_with_sources(body, want, hints);
        let plain_format = match plain {
            Some(_) => parse::parse(body, want).format,
            None => parsed.format,
        };
        let offset = seen.record.offset;
        let decide = |step: &Step| Decision {
            kind: step.kind,
            rule: self.rule(step.kind, step.rule),
            verdict: step.verdict,
        };
        let decisions = told.steps(offset).iter().map(decide).collect();
        let sent = told.sent.get(&offset).map(|(batch, index)| {
            let batch = Arc::clone(&told.batches[*batch]);
            Sent { batch, index: *index }
        });
        let replaced = told.replaced(offset).iter().map(|own| Replaced {
            rule: self.rule(Kind::Redact, own.rule),
            start: own.start,
            end: own.end,
            text: own.text.clone(),
        });
        let mut story = Story {
            lines: Vec::new(),
            seen,
            format: parsed.format,
            sources,
            decisions,
            handling: Arc::clone(&told.handling),
            sent,
            replaced: replaced.collect(),
            plain,
            plain_format,
            is_annotated: told.is_annotated,
            workload: Arc::clone(&told.workload),
            unannotated: Arc::clone(&told.unannotated),
        };
        story.follow_annotations();
        story
    }

    /// Name of a rule: the chain has them in the order of the config's tables.
    fn rule(&self, kind: Kind, rule: usize) -> String {
        let process = &self.config.process;
        let name = match kind {
            Kind::Drop => process.drop.keys().nth(rule).map(String::as_str),
            Kind::Sample => process.sample.keys().nth(rule).map(String::as_str),
            Kind::Limit => process.limit.keys().nth(rule).map(String::as_str),
            Kind::Dedup | Kind::Recorder | Kind::Annotation => None,
            Kind::Redact => Some(self.settings.chain.redaction(rule)),
        };
        name.unwrap_or_default().to_owned()
    }
}

fn batch(workload: &Arc<Workload>, arena: Vec<u8>, records: Vec<Record>) -> Arc<Batch> {
    let budget = Budget::new(u64::MAX, Arc::<Signal>::default());
    let path = format!("/var/log/pods/{}.log", workload.container.key());
    let position = Position::default();
    Arc::new(Batch {
        workload: Arc::clone(workload),
        path: path.into(),
        start: position,
        end: position,
        arena,
        records,
        catching_up: false,
        sealed_unix_nano: 0,
        permit: budget.overdraw(0),
    })
}

/// The lines as the runtime wrote them.
fn physical_lines(bytes: &[u8]) -> Vec<Physical> {
    let (mut lines, mut offset) = (Vec::new(), 0_u64);
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let end = line.len() - usize::from(line.ends_with(b"\n"));
        let mut arena = line[..end].to_vec();
        let fragment = frame::fragment(&mut arena, 0, end, offset);
        let header = fragment.header;
        // A docker payload was unescaped behind the line.
        let docker = header.well_formed && line.first() == Some(&b'{');
        lines.push(Physical {
            number: index + 1,
            offset,
            form: match (header.well_formed, docker) {
                (false, _) => NO_HEADER,
                (true, true) => "docker json-file",
                (true, false) => "CRI",
            },
            time_unix_nano: header.time_unix_nano,
            stream: header.stream.name(),
            full: header.full,
            text: line[..end].to_vec(),
        });
        offset += line.len() as u64;
    }
    lines
}

/// Text of a span.
fn text_of(span: Span, text: &[u8]) -> String {
    String::from_utf8_lossy(span.of(text)).into_owned()
}

/// The fields of a record that are not empty, by the names of `[record] fields`, as text.
fn fields_of(record: &Record, text: &[u8]) -> Vec<(&'static str, String)> {
    let ascii = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = vec![
        ("level", record.severity.level().to_owned()),
        ("trace_id", record.trace_id.map(|id| ascii(&id.hex())).unwrap_or_default()),
        ("span_id", record.span_id.map(|id| ascii(&id.hex())).unwrap_or_default()),
        ("request_id", text_of(record.request_id, text)),
        ("http_method", text_of(record.http_method, text)),
        ("http_route", text_of(record.http_route, text)),
        ("url_path", text_of(record.url_path, text)),
        ("http_status", if record.http_status == 0 { String::new() } else { record.http_status.to_string() }),
        ("duration_ms", text_of(record.duration_ms, text)),
        (
            "app_time",
            if record.app_time_unix_nano == 0 { String::new() } else { time(record.app_time_unix_nano) },
        ),
    ];
    fields.retain(|(_, value)| !value.is_empty());
    fields
}

/// A time as RFC 3339 has it.
fn time(unix_nano: u64) -> String {
    let mut out = Vec::new();
    crate::sink::json::write_rfc3339(unix_nano, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests;
