//! Objectives of other tools as ours: OpenSLO v1, Sloth in both its forms, Pyrra.
//!
//! ```text
//! YAML ─► documents ─┬─► openslo ─┐
//!                    ├─► sloth   ─┼─► query (whose requests, what is good) ─► Imported ─► TOML
//!                    └─► pyrra   ─┘                    └─► Rejected: place, reason, fix
//! ```
//!
//! In: the texts of files. Out: an [`Import`]. Invariants: what is imported means what it meant; what cannot be honoured
//! exactly is rejected with its place, and a difference beside the objective itself is told in a note; no file is touched.

mod families;
mod openslo;
mod promql;
mod pyrra;
mod query;
mod sloth;
pub(in crate::slo) mod write;

use std::collections::BTreeMap;
use std::fmt;

use super::objective::{Objective, Window};
use super::spec::{self, MOST_PER_WORKLOAD, Mode, Spec};
use crate::data::yaml::{self, Limits, Node, Value};
use query::Measured;

/// Bytes of one file that are read.
pub const MAX_INPUT: usize = 1 << 20;

const LIMITS: Limits = Limits { bytes: MAX_INPUT, nodes: 100_000, documents: 1_000, verbatim: true };

/// A file by its name in messages, and its text.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// As messages name it.
    pub name: &'a str,
    /// What it holds.
    pub text: &'a str,
}

/// What the files do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Namespace of queries whose labels name none.
    pub namespace: Option<String>,
    /// Window of Sloth's objectives, whose files name none; 30d is Sloth's own.
    pub window: Window,
}

/// What became of all files.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// In the order of the files.
    pub imported: Vec<Imported>,
    /// In the order of the files.
    pub rejected: Vec<Rejected>,
}

/// An objective that means what it meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Where it stood: `slo.yaml:12:5`.
    pub place: String,
    /// What it was: `Sloth prometheus/v1, service "myservice", SLO "availability"`.
    pub origin: String,
    /// The objective.
    pub spec: Spec,
    /// What is not as it was, beside the objective itself.
    pub notes: Vec<String>,
}

/// An objective, or a document, that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where the reason stands: `slo.yaml:12:5`.
    pub place: String,
    /// What it is: `SLO "availability"`.
    pub what: String,
    /// Why, lower case, no full stop.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: rejected: {}: {}\n  = {}", self.place, self.what, self.message, self.help)
    }
}

/// A file that cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: error: {message}\n  = {help}")]
pub struct Unreadable {
    /// `slo.yaml:12:5`, or the file's name.
    pub place: String,
    /// Why.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}

/// Reads all files; references hold across them.
///
/// # Errors
/// A text is no YAML, or none that is read: larger than [`MAX_INPUT`], too deep, too many aliases, a key twice.
pub fn read(sources: &[Source<'_>], options: &Options) -> Result<Import, Unreadable> {
    let mut documents = Vec::new();
    for source in sources {
        let found = yaml::read(source.text, LIMITS).map_err(|error| Unreadable {
            place: match error.line {
                0 => shown(source.name),
                line => format!("{}:{line}:{}", shown(source.name), error.column.max(1)),
            },
            message: error.message,
            help: if error.line == 0 {
                "split the file"
            } else {
                "give the file itself, after Helm or other templates were filled in"
            },
        })?;
        if found.is_empty() {
            let message = "no document is in it".to_owned();
            let help = "name a file of OpenSLO, Sloth or Pyrra";
            return Err(Unreadable { place: shown(source.name), message, help });
        }
        for root in found {
            flatten(source.name, root, &mut documents);
        }
    }
    let mut reader = Reader { options, imported: Vec::new(), rejected: Vec::new() };
    let library = openslo::Library::new(&documents, &mut reader);
    for document in &documents {
        reader.document(document, &library);
    }
    Ok(reader.finish())
}

/// One object of a file.
struct Document {
    file: String,
    root: Node,
}

/// The items of a `kind: List` are documents of their own, as `kubectl get -o yaml` prints them.
fn flatten(file: &str, root: Node, out: &mut Vec<Document>) {
    let is_list = root.text_at("kind").is_some_and(|kind| kind.ends_with("List"));
    match root.get("items") {
        Some(items) if is_list => {
            for item in items.items() {
                out.push(Document { file: file.to_owned(), root: item.clone() });
            }
        }
        _ => out.push(Document { file: file.to_owned(), root }),
    }
}

/// Why something cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reason {
    message: String,
    help: String,
}

impl Reason {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    /// With the place where it stands.
    fn at(self, node: &Node) -> Refusal {
        Refusal { at: node.at, reason: self }
    }
}

/// A reason and its place in the file.
struct Refusal {
    at: (usize, usize),
    reason: Reason,
}

type Honoured<T> = Result<T, Refusal>;

/// What a tool's file says of one objective.
struct Draft {
    /// Before it is made a name of ours.
    name: String,
    origin: String,
    at: (usize, usize),
    measured: Measured,
    objective: Objective,
    /// Where the objective stands.
    objective_at: (usize, usize),
    window: Window,
    mode: Mode,
    owner: String,
    runbook: String,
    notes: Vec<String>,
}

struct Reader<'a> {
    options: &'a Options,
    imported: Vec<Imported>,
    rejected: Vec<Rejected>,
}

impl Reader<'_> {
    fn document(&mut self, document: &Document, library: &openslo::Library<'_>) {
        let root = &document.root;
        let version = root.text_at("apiVersion").or_else(|| root.text_at("version")).unwrap_or_default();
        let kind = root.text_at("kind").unwrap_or_default();
        match (version, kind) {
            ("prometheus/v1", "") => sloth::plain(document, self),
            ("sloth.slok.dev/v1", "PrometheusServiceLevel") => sloth::resource(document, self),
            ("pyrra.dev/v1alpha1", "ServiceLevelObjective") => pyrra::read(document, self),
            ("openslo/v1", "SLO") => openslo::read(document, library, self),
            (
                "openslo/v1",
                "SLI"
                | "Service"
                | "DataSource"
                | "AlertPolicy"
                | "AlertCondition"
                | "AlertNotificationTarget",
            ) => {}
            _ => self.unknown(document, version, kind),
        }
    }

    fn unknown(&mut self, document: &Document, version: &str, kind: &str) {
        let root = &document.root;
        let (message, help) = if !matches!(root.value, Value::Map(_)) {
            ("it is no object with keys".to_owned(), "name a file of OpenSLO, Sloth or Pyrra")
        } else if version.starts_with("openslo/") && version != "openslo/v1" {
            (format!("{version:?} is not read"), "write it as apiVersion: openslo/v1")
        } else if kind == "AlertWindows" {
            (
                "custom alert windows cannot be honoured: the tiers are those of the SRE Workbook".to_owned(),
                "leave the document out, and look at `nodewick slo simulate` for when the tiers alert",
            )
        } else if version.is_empty() {
            (
                "it has neither apiVersion nor version".to_owned(),
                "begin with apiVersion: openslo/v1, sloth.slok.dev/v1, pyrra.dev/v1alpha1, or version: prometheus/v1",
            )
        } else {
            (
                format!("{version:?} {kind:?} is no objective that is known"),
                "there are SLO of openslo/v1, prometheus/v1, PrometheusServiceLevel of sloth.slok.dev/v1 and \
                 ServiceLevelObjective of pyrra.dev/v1alpha1",
            )
        };
        self.reject(document, "document", Reason::new(message, help).at(root));
    }

    fn reject(&mut self, document: &Document, what: &str, refusal: Refusal) {
        self.rejected.push(Rejected {
            place: place(&document.file, refusal.at),
            what: shown(what),
            message: shown(&refusal.reason.message),
            help: shown(&refusal.reason.help),
        });
    }

    /// Takes a draft, unless the loader would refuse it.
    fn take(&mut self, document: &Document, what: &str, draft: Draft) {
        if let Err(refusal) = self.accept(document, draft) {
            self.reject(document, what, refusal);
        }
    }

    fn accept(&mut self, document: &Document, mut draft: Draft) -> Honoured<()> {
        let refuse =
            |at, message: String, help: &str| Err(Refusal { at, reason: Reason::new(message, help) });
        let name = name_of(&draft.name);
        draft.notes.append(&mut draft.measured.notes);
        if name != draft.name {
            draft.notes.push(format!("its name was {:?}", draft.name));
        }
        if name == "defaults" || !spec::is_name(&name) {
            let message = format!("{:?} cannot be the name of an objective", draft.name);
            let help = "call it with letters, digits and dashes, at most 63, and not \"defaults\"";
            return refuse(draft.at, message, help);
        }
        if let Some(first) = self.imported.iter().find(|known| known.spec.name == name) {
            let message = format!("{name} is already the name of the objective at {}", first.place);
            return refuse(draft.at, message, "give one of the two another name");
        }
        let mut selector = draft.measured.selector;
        if selector.namespace.is_empty() {
            match &self.options.namespace {
                Some(namespace) => {
                    selector.namespace.clone_from(namespace);
                    draft.notes.push("its namespace is that of --namespace: no label names one".to_owned());
                }
                None => {
                    let message = "no label of its queries names the namespace".to_owned();
                    let help = "give it with --namespace, or add a matcher like namespace=\"shop\"";
                    return refuse(draft.at, message, help);
                }
            }
        }
        let spec = Spec {
            name,
            selector,
            sli: draft.measured.sli,
            objective: draft.objective,
            window: draft.window,
            mode: draft.mode,
            page_min_bad_events: super::config::Defaults::default().page_min_bad_events,
            ticket_min_bad_events: super::config::Defaults::default().ticket_min_bad_events,
            exclude_routes: draft.measured.exclude_routes,
            owner: draft.owner,
            runbook: draft.runbook,
        };
        if let Some(problem) = spec::problems(&spec, &[]).into_iter().next() {
            let is_objective = problem.key.first().is_some_and(|key| key == "objective");
            let at = if is_objective { draft.objective_at } else { draft.at };
            let key = problem.key.join(".");
            let message = if is_objective { problem.message } else { format!("{key} {}", problem.message) };
            return refuse(at, message, &problem.help);
        }
        let same = |known: &&Imported| {
            let selector = &known.spec.selector;
            selector.workload.is_some()
                && (&selector.namespace, &selector.workload)
                    == (&spec.selector.namespace, &spec.selector.workload)
        };
        if self.imported.iter().filter(same).count() == MOST_PER_WORKLOAD {
            let message = format!("its workload has {MOST_PER_WORKLOAD} objectives already");
            return refuse(draft.at, message, "nobody can answer for so many: keep those that users notice");
        }
        self.imported.push(Imported {
            place: place(&document.file, draft.at),
            origin: shown(&draft.origin),
            spec,
            notes: draft.notes.iter().map(|note| shown(note)).collect(),
        });
        Ok(())
    }

    fn finish(self) -> Import {
        Import { imported: self.imported, rejected: self.rejected }
    }
}

impl Import {
    /// The objectives as tables of `agent.toml`, each under a comment that says where it came from.
    pub fn toml(&self) -> String {
        write::toml(&self.imported)
    }

    /// What happened in one line: `3 imported, 1 rejected`.
    pub fn summary(&self) -> String {
        format!("{} imported, {} rejected", self.imported.len(), self.rejected.len())
    }
}

fn place(file: &str, (line, column): (usize, usize)) -> String {
    format!("{}:{line}:{column}", shown(file))
}

/// A text of the file as one line that moves no cursor.
fn shown(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let short: String = text.chars().take(1_000).collect();
    short.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// A name as ours are: `My_SLO` is `my-slo`.
fn name_of(text: &str) -> String {
    let plain = text.to_ascii_lowercase();
    let mut out = String::new();
    for c in plain.chars() {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            '-' | '_' | '.' | ' ' | '/' | ':' if !out.ends_with('-') => out.push('-'),
            '-' | '_' | '.' | ' ' | '/' | ':' => {}
            other => out.push(other),
        }
    }
    out.trim_matches('-').to_owned()
}

/// A key that must be there.
fn need<'n>(parent: &'n Node, key: &str) -> Honoured<&'n Node> {
    parent.get(key).ok_or_else(|| Reason::new(format!("{key} is missing"), format!("add {key}")).at(parent))
}

/// The text of a key that must be there.
fn need_text<'n>(parent: &'n Node, key: &str) -> Honoured<&'n str> {
    let node = need(parent, key)?;
    node.text().ok_or_else(|| Reason::new(format!("{key} is no text"), format!("write {key}: …")).at(node))
}

/// Refuses keys that mean something which is not known here.
fn only(node: &Node, known: &[&str]) -> Honoured<()> {
    if let Some((key, value)) = node.entries().iter().find(|(key, _)| !known.contains(&key.as_str())) {
        let message = format!("{key:?} is no key that is known here");
        let help = format!("there are {}; take it away if it may be left out", known.join(", "));
        return Err(Refusal { at: (value.line, value.at.1), reason: Reason::new(message, help) });
    }
    Ok(())
}

/// A percentage like `99.9`.
fn percentage(node: &Node) -> Honoured<Objective> {
    number(node).and_then(|percent| objective(percent, node))
}

/// A number that is plainly written.
fn number(node: &Node) -> Honoured<f64> {
    let found =
        node.text().and_then(|text| text.trim().parse::<f64>().ok()).filter(|value| value.is_finite());
    found.ok_or_else(|| {
        let text = node.text().unwrap_or("this");
        Reason::new(format!("{text:?} is no number"), "write the objective like 99.9").at(node)
    })
}

fn objective(percent: f64, node: &Node) -> Honoured<Objective> {
    format!("{}%", super::number::shortest(percent)).parse().map_err(
        |error: super::objective::ObjectiveError| {
            Reason::new(error.to_string(), "change it where it is declared").at(node)
        },
    )
}

/// A window in the shorthand of Prometheus and OpenSLO: `30d`, `4w`, `720h`, `1w2d`.
fn window(node: &Node) -> Honoured<Window> {
    let text = node.text().unwrap_or_default();
    let minutes = duration(text).map(|duration| duration.as_secs() / 60);
    Window::ALL.into_iter().find(|window| Some(u64::from(window.minutes())) == minutes).ok_or_else(|| {
        let message = format!("a window of {text:?} cannot be honoured");
        Reason::new(message, "windows are 7d, 28d (4w), 30d and 90d, always rolling").at(node)
    })
}

/// A duration in Prometheus' own form: numbers with `ms`, `s`, `m`, `h`, `d`, `w`.
fn duration(text: &str) -> Option<std::time::Duration> {
    let (mut rest, mut millis) = (text.trim(), 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        let number: u64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, length) =
            [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))?;
        millis = millis.checked_add(number.checked_mul(length)?)?;
        rest = &rest[unit.len()..];
    }
    Some(std::time::Duration::from_millis(millis))
}

/// Who is called, by a map of labels: `owner`, else `team`; the others are told.
fn owner(maps: &[Option<&Node>], notes: &mut Vec<String>) -> String {
    let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, node) in maps.iter().flatten().flat_map(|node| node.entries()) {
        labels.insert(key, node.text().unwrap_or_default());
    }
    let key = ["owner", "team"].into_iter().find(|key| labels.contains_key(key));
    let owner = key.and_then(|key| labels.remove(key)).unwrap_or_default().to_owned();
    if !labels.is_empty() {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        notes.push(format!(
            "labels that its series and alerts no longer have: {}; route alerts by slo_id, slo or owner",
            labels.join(", ")
        ));
    }
    owner
}

/// Parses the query that a node holds.
fn parsed(node: &Node) -> Honoured<promql::Expr> {
    let text = node.text().unwrap_or_default();
    promql::parse(text).map_err(|reason| reason.at(node))
}
