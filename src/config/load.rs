//! From a file, the environment and flags to a [`Config`], or to everything that is wrong with them.
//!
//! In: [`Sources`]. Out: [`Loaded`]. Precedence: flag, then `NODEWICK_*`, then file, then default.
//! Steps: parse, interpolate, overlay, look for unknown keys, give types, check meaning. Each step reports all that it
//! finds; a step with errors ends the loading, except that unknown keys and wrong values are reported together.
//! Invariant: a value that came from `${file:…}` or belongs to a secret key never appears in a message.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_path_to_error::Segment;

use super::diagnostics::{Diagnostic, Diagnostics, Level, Spot, nearest};
use super::interpolate;
use super::schema::{self, Shape};
use super::tree::{self, Node, Place, Step, Table, Value};
use super::values::{Unmatched, coerce, env_path, is_service_link};
use super::words::{around, explain, line_at, suggest};
use super::{Config, checks};

/// Bytes that a config file may have.
const FILE_LIMIT: u64 = 1 << 20;
/// Wrong values that are looked for before giving up.
const MAX_ERRORS: usize = 64;
/// Variables that begin with `NODEWICK_` and are no keys.
const NOT_KEYS: [&str; 4] = ["NODEWICK_LOG", "NODEWICK_CONFIG", "NODEWICK_RENDER", "NODEWICK_GIT_HASH"];

/// Parts of a key that say that its value is a secret.
const SECRET_WORDS: [&str; 8] =
    ["password", "passwd", "token", "secret", "credential", "authorization", "api_key", "apikey"];

/// Where a config comes from.
#[derive(Clone, Default)]
pub struct Sources {
    /// Name of the config file in messages, and its text.
    pub file: Option<(String, String)>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Settings of the command line, `key.path=value`.
    pub set: Vec<String>,
    /// Name of this host, for `agent.node` when nothing better is known.
    pub host: Option<String>,
}

/// A config that can be used.
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What works but is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// What was written, with places; `check` prints it.
    pub tree: Table,
    source: Source,
}

impl std::fmt::Debug for Sources {
    /// Without values: they hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.as_ref().map(|(name, _)| name);
        f.debug_struct("Sources").field("file", &file).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Loaded {
    /// Without what was written: it holds secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("file", &self.source.file).finish_non_exhaustive()
    }
}

/// The text that file places point into.
#[derive(Clone, Default)]
struct Source {
    file: String,
    text: String,
}

impl Sources {
    /// The sources of a process: `file` is read now, variables and host name are the process's own.
    pub fn of_process(file: Option<&Path>, set: Vec<String>) -> Result<Self, Diagnostics> {
        Ok(Self {
            file: file.map(read).transpose()?,
            env: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            set,
            host: host_name(),
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// Reads a config file, at most 1 MiB of it.
fn read(path: &Path) -> Result<(String, String), Diagnostics> {
    let name = path.display().to_string();
    let fail = |message: String, help: &str| {
        let diagnostic = Diagnostic::error("", message, Spot::File(name.clone()));
        Diagnostics(vec![diagnostic.help(Some(help.to_owned()))])
    };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)).map_err(|cause| {
        let help = match cause.kind() {
            std::io::ErrorKind::NotFound => {
                "check the path given with -c; without -c the built-in defaults are used"
            }
            std::io::ErrorKind::PermissionDenied => "make the file readable for the agent's user",
            _ => "give the path of a TOML file with -c",
        };
        fail(format!("cannot read the config file: {cause}"), help)
    })?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(fail(
            "the config file is larger than 1MiB".to_owned(),
            "give the path of a TOML file with -c",
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(fail(format!("line {line} is not valid UTF-8"), "save the file as UTF-8"))
        }
    }
}

/// The kernel's name of this host.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Loads a config.
pub fn load(sources: &Sources) -> Result<Loaded, Diagnostics> {
    let source = sources.file.clone().map(|(file, text)| Source { file, text }).unwrap_or_default();
    let mut loader = Loader { source, found: Vec::new(), broken: Vec::new() };
    let mut tree = loader.parse();
    loader.stop_on_errors()?;
    loader.interpolate(&mut tree, sources);
    loader.overlay_env(&mut tree, sources);
    loader.overlay_flags(&mut tree, sources);
    derive(&mut tree, sources);
    let written = tree.clone();
    loader.unknown_keys(&mut tree, schema::root(), &mut Vec::new());
    // A value without its text has been reported and has no type that could be wrong.
    for path in std::mem::take(&mut loader.broken).iter().rev() {
        tree::remove(&mut tree, path);
    }
    let config = loader.typed(&mut tree, &written);
    loader.stop_on_errors()?;
    let config = config.expect("without errors the config has its types");
    for finding in checks::check(&config) {
        let path: Vec<Step> = finding.path.iter().map(|key| Step::of_finding(key)).collect();
        let spot = loader.spot_near(&written, &path);
        loader.found.push(Diagnostic {
            level: finding.level,
            key: tree::dotted(&path),
            message: finding.message,
            help: finding.help,
            spot,
        });
    }
    loader.stop_on_errors()?;
    let Loader { source, found, .. } = loader;
    Ok(Loaded { config, warnings: found, tree: written, source })
}

/// Values that the agent works out when nobody gave them.
fn derive(tree: &mut Table, sources: &Sources) {
    let given = |tree: &Table, path: &[&str]| {
        let path: Vec<Step> = path.iter().map(|key| Step::Key((*key).to_owned())).collect();
        tree::find(tree, &path).is_some_and(|(node, _)| node.value != Value::Text(String::new()))
    };
    if !given(tree, &["agent", "node"]) {
        let path = ["agent".to_owned(), "node".to_owned()];
        let downward = sources.variable("NODE_NAME").filter(|name| !name.is_empty());
        if let Some(name) = downward {
            tree::set(tree, &path, Node::new(Value::Text(name), Place::Env("NODE_NAME".to_owned())));
        } else if let Some(name) = &sources.host {
            tree::set(tree, &path, Node::new(Value::Text(name.clone()), Place::Derived("host name")));
        }
    }
    let has_sink = match tree.get("sink").map(|entry| &entry.node.value) {
        None => false,
        Some(Value::Table(kinds)) => kinds.values().any(|entry| match &entry.node.value {
            Value::Table(sinks) => !sinks.is_empty(),
            _ => true,
        }),
        Some(_) => true,
    };
    if !has_sink {
        let path = ["sink", "local", "default"].map(str::to_owned);
        tree::set(tree, &path, Node::new(Value::Table(Table::new()), Place::Derived("no sink configured")));
    }
}

struct Loader {
    source: Source,
    found: Vec<Diagnostic>,
    /// Values whose references could not be replaced.
    broken: Vec<Vec<Step>>,
}

impl Loader {
    fn stop_on_errors(&mut self) -> Result<(), Diagnostics> {
        if !self.found.iter().any(|diagnostic| diagnostic.level == Level::Error) {
            return Ok(());
        }
        let mut found = std::mem::take(&mut self.found);
        found.retain(|diagnostic| diagnostic.level == Level::Error);
        let line = |diagnostic: &Diagnostic| match &diagnostic.spot {
            Spot::Source { line, column, .. } => (*line, *column),
            _ => (usize::MAX, 0),
        };
        found.sort_by_key(line);
        Err(Diagnostics(found))
    }

    fn spot(&self, place: &Place, redact: bool) -> Spot {
        self.source.spot(place, redact)
    }

    /// The place of the value at `path`, or of the nearest table around it.
    fn spot_near(&self, root: &Table, path: &[Step]) -> Spot {
        let redact = is_secret(path);
        for end in (1..=path.len()).rev() {
            if let Some((node, key)) = tree::find(root, &path[..end]) {
                let place = if end == path.len() && !matches!(node.value, Value::Table(_)) {
                    &node.place
                } else {
                    key.unwrap_or(&node.place)
                };
                return self.spot(place, redact);
            }
        }
        Spot::Nowhere
    }

    fn parse(&mut self) -> Table {
        match tree::parse(&self.source.text) {
            Ok(table) => table,
            Err(flaws) => {
                let mut seen = Vec::new();
                for (message, span) in flaws {
                    // One slip often breaks a line in several ways; the first says it best.
                    let line = self.source.text.as_bytes()[..span.start.min(self.source.text.len())]
                        .iter()
                        .filter(|byte| **byte == b'\n')
                        .count();
                    if seen.contains(&line) {
                        continue;
                    }
                    seen.push(line);
                    let (key, help) = around(&self.source.text, &span, &message);
                    let redact = looks_secret(&key)
                        || nearest(key.rsplit('.').next().unwrap_or_default(), SECRET_WORDS).is_some();
                    let spot = self.spot(&Place::File(span), redact);
                    self.found.push(Diagnostic::error(key, message.replace('\n', ", "), spot).help(help));
                }
                Table::new()
            }
        }
    }

    fn interpolate(&mut self, tree: &mut Table, sources: &Sources) {
        let mut path = Vec::new();
        self.interpolate_table(tree, sources, Some(schema::root()), &mut path);
    }

    fn interpolate_table(
        &mut self,
        table: &mut Table,
        sources: &Sources,
        shape: Option<Shape>,
        path: &mut Vec<Step>,
    ) {
        for (key, entry) in table {
            path.push(Step::Key(key.clone()));
            let inner = shape.and_then(|shape| shape.key(key).or_else(|| shape.named()));
            self.interpolate_node(&mut entry.node, sources, inner, path);
            path.pop();
        }
    }

    fn interpolate_node(
        &mut self,
        node: &mut Node,
        sources: &Sources,
        shape: Option<Shape>,
        path: &mut Vec<Step>,
    ) {
        match &mut node.value {
            Value::Table(table) => self.interpolate_table(table, sources, shape, path),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(Step::Index(index));
                    self.interpolate_node(item, sources, shape.and_then(Shape::items), path);
                    path.pop();
                }
            }
            Value::Text(text) => match interpolate::expand(text, &|name| sources.variable(name)) {
                Ok(None) => {}
                Ok(Some(expanded)) => {
                    if !expanded.taken_from.is_empty() {
                        node.taken_from = Some(expanded.taken_from);
                    }
                    node.value = coerce(expanded.text, shape);
                }
                Err(unresolved) => {
                    self.broken.push(path.clone());
                    let spot = self.reference_spot(&node.place, &unresolved.reference, is_secret(path));
                    self.found.push(
                        Diagnostic::error(tree::dotted(path), unresolved.message, spot)
                            .help(Some(unresolved.help)),
                    );
                }
            },
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
        }
    }

    /// The place of a reference inside the string at `place`, or of the whole string where it is escaped.
    fn reference_spot(&self, place: &Place, reference: &str, redact: bool) -> Spot {
        if let Place::File(span) = place
            && let Some(at) = self.source.text.get(span.clone()).and_then(|raw| raw.find(reference))
        {
            let start = span.start + at;
            return self.spot(&Place::File(start..start + reference.len()), false);
        }
        self.spot(place, redact)
    }

    fn overlay_env(&mut self, tree: &mut Table, sources: &Sources) {
        let mut variables: Vec<&(String, String)> = sources.env.iter().collect();
        variables.sort();
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix("NODEWICK_") else { continue };
            if NOT_KEYS.contains(&name.as_str()) || is_service_link(rest) {
                continue;
            }
            let rest = rest.to_ascii_lowercase();
            let spot = Spot::Env(name.clone());
            match env_path(schema::root(), &rest) {
                Ok((path, shape)) => {
                    let node = Node::new(coerce(value.clone(), Some(shape)), Place::Env(name.clone()));
                    if !tree::set(tree, &path, node) {
                        let message = "a plain value in the file stands where this needs a table";
                        self.found.push(Diagnostic::error(path.join("."), message, spot));
                    }
                }
                // Not ours for certain: Kubernetes itself sets NODEWICK_* variables for a service of that name.
                Err(Unmatched { section: None, candidates }) => {
                    let near = nearest(rest.split('_').next().unwrap_or_default(), candidates);
                    let help =
                        near.map(|near| format!("did you mean NODEWICK_{}_…?", near.to_ascii_uppercase()));
                    self.found.push(
                        Diagnostic::warning("", "no key answers to this variable; ignored", spot).help(help),
                    );
                }
                Err(Unmatched { section: Some(section), candidates }) => {
                    let key = rest[section.len()..].trim_matches('_');
                    let near = nearest(key, candidates);
                    let help = near.map(|near| {
                        format!(
                            "did you mean NODEWICK_{}_{}?",
                            section.to_ascii_uppercase(),
                            near.to_ascii_uppercase()
                        )
                    });
                    let message = format!("[{}] has no such key", section.replace("__", "."));
                    self.found.push(Diagnostic::error("", message, spot).help(help));
                }
            }
        }
    }

    fn overlay_flags(&mut self, tree: &mut Table, sources: &Sources) {
        for flag in &sources.set {
            let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
            let shown = format!("--set {key}");
            let spot = Spot::Flag(shown.clone());
            let fail =
                |message: &str, help: Option<String>| Diagnostic::error("", message, spot.clone()).help(help);
            if !flag.contains('=') {
                self.found.push(fail("needs a value", Some("write --set agent.cluster=prod".to_owned())));
                continue;
            }
            let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
            let mut shape = schema::root();
            let mut wrong = None;
            for (index, part) in path.iter().enumerate() {
                match shape.key(part).or_else(|| shape.named().filter(|_| !part.is_empty())) {
                    Some(inner) => shape = inner,
                    None => {
                        wrong = Some((index, nearest(part, shape.keys())));
                        break;
                    }
                }
            }
            if let Some((index, near)) = wrong {
                let help = near.map(|near| {
                    let mut meant = path[..index].to_vec();
                    meant.push(near.to_owned());
                    meant.extend_from_slice(&path[index + 1..]);
                    format!("did you mean {}?", meant.join("."))
                });
                self.found.push(fail("unknown key", help));
                continue;
            }
            let node = Node::new(coerce(value.to_owned(), Some(shape)), Place::Flag(shown.clone()));
            if !tree::set(tree, &path, node) {
                self.found.push(fail("a plain value in the file stands where this needs a table", None));
            }
        }
    }

    /// Reports keys that the schema does not know and takes them out of the tree.
    fn unknown_keys(&mut self, table: &mut Table, shape: Shape, path: &mut Vec<Step>) {
        let keys = shape.keys();
        let mut drop = Vec::new();
        for (key, entry) in table.iter_mut() {
            path.push(Step::Key(key.clone()));
            match shape.key(key).or_else(|| shape.named()) {
                Some(inner) => self.unknown_in_value(&mut entry.node, inner, path),
                None => {
                    // A misspelt `password` holds one all the same.
                    let secret = is_secret(path) || nearest(key, SECRET_WORDS).is_some();
                    let spot = self.spot(&entry.key, secret);
                    let message = if matches!(entry.node.value, Value::Table(_)) {
                        "unknown table"
                    } else {
                        "unknown key"
                    };
                    let help = suggest(key, &keys, path, entry);
                    self.found.push(Diagnostic::error(tree::dotted(path), message, spot).help(Some(help)));
                    drop.push(key.clone());
                }
            }
            path.pop();
        }
        for key in drop {
            table.remove(&key);
        }
        // `[sink.loki] url = …`: the name of the sink is missing.
        if let Some(inner) = shape.named().filter(|inner| inner.is_table()) {
            let plain: Vec<String> = table
                .iter()
                .filter(|(_, e)| !matches!(e.node.value, Value::Table(_)))
                .map(|(k, _)| k.clone())
                .collect();
            for key in plain {
                let entry = table.remove(&key).expect("listed above");
                let here = tree::dotted(path);
                let known = inner.key(&key).is_some();
                path.push(Step::Key(key.clone()));
                let message = if known {
                    format!("[{here}] holds named tables, not keys")
                } else {
                    "expected a table".to_owned()
                };
                let spot = self.spot(&entry.key, is_secret(path));
                let help = format!("give it a name: [{here}.main]");
                self.found.push(Diagnostic::error(tree::dotted(path), message, spot).help(Some(help)));
                path.pop();
            }
        }
    }

    fn unknown_in_value(&mut self, node: &mut Node, shape: Shape, path: &mut Vec<Step>) {
        match &mut node.value {
            Value::Table(table) if shape.is_table() => self.unknown_keys(table, shape, path),
            Value::Array(items) => {
                if let Some(inner) = shape.items() {
                    for (index, item) in items.iter_mut().enumerate() {
                        path.push(Step::Index(index));
                        self.unknown_in_value(item, inner, path);
                        path.pop();
                    }
                }
            }
            _ => {}
        }
    }

    /// The typed config; reports every value that does not fit.
    fn typed(&mut self, tree: &mut Table, written: &Table) -> Option<Config> {
        let mut removed: Vec<Vec<Step>> = Vec::new();
        for _ in 0..MAX_ERRORS {
            let json = tree::to_json(tree);
            let error = match serde_path_to_error::deserialize::<_, Config>(json) {
                Ok(config) => return Some(config),
                Err(error) => error,
            };
            let mut path: Vec<Step> = Vec::new();
            for segment in error.path() {
                match segment {
                    Segment::Map { key } => path.push(Step::Key(key.clone())),
                    Segment::Seq { index } => path.push(Step::Index(*index)),
                    Segment::Enum { .. } | Segment::Unknown => break,
                }
            }
            while !path.is_empty() && tree::find(tree, &path).is_none() {
                path.pop();
            }
            let cause = error.inner().to_string();
            // A key that must be given and was removed for its value is not missing.
            let is_echo = removed.iter().any(|gone| match gone.split_last() {
                Some((Step::Key(key), table)) => {
                    table == path && cause.starts_with(&format!("missing field `{key}`"))
                }
                _ => false,
            });
            if !is_echo {
                let mut diagnostic = self.misfit(tree, &path, &cause);
                diagnostic.key = tree::dotted(&as_written(tree, written, &path));
                self.found.push(diagnostic);
            }
            // The next round finds the next one.
            removed.push(path.clone());
            if !tree::remove(tree, &path) {
                return None;
            }
        }
        None
    }

    fn misfit(&self, tree: &Table, path: &[Step], cause: &str) -> Diagnostic {
        let shape = shape_at(path);
        let found = tree::find(tree, path);
        let node = found.map(|(node, _)| node);
        let secret = is_secret(path)
            || shape.is_some_and(Shape::is_secret)
            || node.and_then(|node| node.taken_from.as_ref()).is_some_and(|from| from.contains("file:"));
        let (message, help) = explain(cause, shape, node, secret);
        let spot = match found {
            Some((Node { value: Value::Table(_), .. }, Some(key))) => self.spot(key, secret),
            Some((node, _)) => self.spot(&node.place, secret),
            None => Spot::Nowhere,
        };
        Diagnostic::error(tree::dotted(path), message, spot).help(help)
    }
}

impl Source {
    fn spot(&self, place: &Place, redact: bool) -> Spot {
        match place {
            Place::File(span) => {
                // An inline table may hold a secret beside the key that is shown.
                let line = line_at(&self.text, span.start);
                let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'));
                let redact = redact || line.contains('=') && words.into_iter().any(looks_secret);
                Spot::in_source(&self.file, &self.text, span.clone(), redact)
            }
            Place::Env(name) => Spot::Env(name.clone()),
            Place::Flag(flag) => Spot::Flag(flag.clone()),
            Place::Derived(_) => Spot::Nowhere,
        }
    }
}

impl Loaded {
    /// Where a value was written, in a few words: `agent.toml:3`, `env NODEWICK_AGENT_CLUSTER`.
    pub fn origin(&self, node: &Node) -> String {
        let place = match &node.place {
            Place::File(_) => match self.source.spot(&node.place, true) {
                Spot::Source { file, line, .. } => format!("{file}:{line}"),
                _ => self.source.file.clone(),
            },
            Place::Env(name) => format!("env {name}"),
            Place::Flag(flag) => flag.clone(),
            Place::Derived(how) => (*how).to_owned(),
        };
        match &node.taken_from {
            Some(from) => format!("{place}, {from}"),
            None => place,
        }
    }
}

/// `path` with the indices that its elements had before others were taken out of their lists.
fn as_written(tree: &Table, written: &Table, path: &[Step]) -> Vec<Step> {
    let mut original: Vec<Step> = Vec::with_capacity(path.len());
    for (at, step) in path.iter().enumerate() {
        let mut step = step.clone();
        if let Step::Index(_) = step
            && let Some((element, _)) = tree::find(tree, &path[..=at])
            && let Some((list, _)) = tree::find(written, &original)
            && let Value::Array(items) = &list.value
            && let Some(index) = items.iter().position(|item| item.place == element.place)
        {
            step = Step::Index(index);
        }
        original.push(step);
    }
    original
}

/// True when the last key of `path`, or a table around it, says that the value is a secret.
pub fn is_secret(path: &[Step]) -> bool {
    path.iter().any(|step| matches!(step, Step::Key(key) if looks_secret(key)))
}

fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names_a_place = key.ends_with("_file") || key.ends_with("_path") || key.ends_with("_url");
    !names_a_place
        && (key == "headers"
            || key == "endpoint_params"
            || SECRET_WORDS.iter().any(|word| key.contains(word)))
}

/// The shape of the key at `path`.
fn shape_at(path: &[Step]) -> Option<Shape> {
    path.iter().try_fold(schema::root(), |shape, step| match step {
        Step::Key(key) => shape.key(key).or_else(|| shape.named()),
        Step::Index(_) => shape.items(),
    })
}

/// The config file that is used when none is given: the container's, if there.
pub fn default_file() -> Option<PathBuf> {
    let path = PathBuf::from("/etc/nodewick/agent.toml");
    path.exists().then_some(path)
}
