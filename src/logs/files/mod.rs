//! Log files that applications write themselves: `[logs.files.<name>]`.
//!
//! In: the sources as configured, and what the environment says of the pod or host. Out: which files there are to
//! follow ([`Sources::find`]) and who writes them ([`Identity`]). Reading, rotation, the checkpoint and the spill are
//! those of container logs ([decision](https://github.com/nodewick/nodewick/blob/main/docs/design/0003-files.md)).
//! Invariants: a file is followed once, whatever number of patterns match it; what rotation left of a file is never
//! taken for a log of its own while that file is there or was followed.

pub mod around;
pub mod glob;
pub mod identity;
pub mod naming;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::discover::{Candidate, Found};
use super::env::{Entry, Env, Kind};
use super::frame::Framing;
use crate::data::workload::{ContainerRef, LineFormat, Origin};
pub use around::Around;
use glob::Glob;
pub use identity::Identity;

/// Longest path that is followed; state files hold no longer key.
const MAX_PATH: usize = 1900;

/// `[logs.files.<name>]`: log files that applications write, outside the kubelet's care: on a volume shared with a
/// sidecar, or on a host without Kubernetes. Rotation by rename, compression and copytruncate are followed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which files: absolute paths, with `*` and `?` within a name and `**` for any number of directories. Rotated
    /// files need no pattern of their own.
    #[schemars(example = vec!["/var/log/app/*.log"])]
    pub paths: Vec<String>,
    /// Which of them not.
    pub exclude: Vec<String>,
    /// Name of the service that writes them. Empty means OTEL_SERVICE_NAME where the agent is a sidecar, else this
    /// table's name.
    pub service: String,
    /// Deployment environment. Empty means that of `[agent]`.
    pub environment: String,
    /// Further labels: structured metadata in Loki, resource attributes in OTLP.
    pub labels: BTreeMap<String, String>,
    /// Format of the lines; "auto" looks at each one.
    pub format: Format,
}

/// Format of a source's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As each line looks.
    #[default]
    Auto,
    /// JSON only.
    Json,
    /// logfmt only.
    Logfmt,
    /// klog only.
    Klog,
    /// nginx access and error lines only.
    Nginx,
    /// Plain text.
    Text,
}

impl From<Format> for LineFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Auto => Self::Auto,
            Format::Json => Self::Json,
            Format::Logfmt => Self::Logfmt,
            Format::Klog => Self::Klog,
            Format::Nginx => Self::Nginx,
            Format::Text => Self::Text,
        }
    }
}

/// A source cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Error {
    /// The key at fault, below `logs.files`: `app.paths`.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// A source that can be looked for.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub name: String,
    globs: Vec<Glob>,
    exclude: Vec<Glob>,
    /// Name of the service, when configured.
    pub service: Option<String>,
    /// The service's name is a guess.
    pub guessed: bool,
    /// Environment, when configured.
    pub environment: Option<String>,
    /// Further labels, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Format of the lines.
    pub format: LineFormat,
    /// The files hold what a process wrote to its standard streams, and were written by the agent itself.
    pub spool: bool,
    /// Lines with a time of their own have that.
    pub own_times: bool,
}

impl Source {
    fn matches(&self, path: &Path) -> bool {
        self.globs.iter().any(|glob| glob.matches(path)) && !self.excludes(path)
    }

    fn excludes(&self, path: &Path) -> bool {
        self.exclude.iter().any(|glob| glob.matches(path))
    }

    fn container(&self, path: &str, around: &Around) -> ContainerRef {
        let of = if self.spool { ContainerRef::of_process } else { ContainerRef::of_file };
        of(path, &self.name, &around.namespace, &around.pod)
    }
}

/// All sources, and where they are.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    list: Vec<Source>,
    around: Around,
}

impl Sources {
    /// Makes sources of their config. `around` says in which pod or host the files are.
    pub fn compile(files: &BTreeMap<String, Config>, around: Around) -> Result<Self, Error> {
        let list = files.iter().map(|(name, config)| source(name, config)).collect::<Result<_, _>>()?;
        Ok(Self { list, around })
    }

    /// Adds the file in which the agent keeps what a process writes.
    #[must_use]
    pub fn with_spool(mut self, spool: Option<&Spool>) -> Self {
        if let Some(Spool { path, service, guessed, own_times }) = spool
            && let Ok(glob) = Glob::new(&path.to_string_lossy())
        {
            self.list.push(Source {
                name: "process".to_owned(),
                globs: vec![glob],
                exclude: Vec::new(),
                service: Some(service.clone()),
                guessed: *guessed,
                environment: None,
                labels: Vec::new(),
                format: LineFormat::Auto,
                spool: true,
                own_times: *own_times,
            });
        }
        self
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In which pod or host the files are.
    pub fn around(&self) -> &Around {
        &self.around
    }

    /// The directories below which all files lie.
    pub fn roots(&self) -> Vec<PathBuf> {
        let globs = self.list.iter().flat_map(|source| &source.globs);
        globs.map(|glob| glob.base().to_owned()).collect()
    }

    /// The source of a log.
    pub fn of(&self, container: &ContainerRef) -> Option<&Source> {
        self.list.iter().find(|source| source.name == container.container)
    }

    /// How the bytes of a log are framed.
    pub fn framing_of(&self, container: &ContainerRef) -> Framing {
        match container.origin() {
            Origin::Container => Framing::Runtime,
            Origin::File(path) => Framing::lines(path),
            Origin::Process => match self.of(container) {
                Some(source) if source.own_times => Framing::Taken,
                _ => Framing::Runtime,
            },
        }
    }

    /// Who writes the log with this key, which is no container's. The first source that matches it has it; one whose
    /// source is no longer configured belongs to none.
    pub fn container_of_key(&self, key: &str) -> Option<ContainerRef> {
        let path = ContainerRef::path_of_key(key)?;
        let source = self.list.iter().find(|source| source.matches(Path::new(path)));
        let container = match source {
            Some(source) => source.container(path, &self.around),
            None => ContainerRef::of_file(path, "", &self.around.namespace, &self.around.pod),
        };
        (container.key() == key).then_some(container)
    }

    /// Adds the files of all sources to what was found. `unclaimed` are keys of logs that an earlier life followed and
    /// that have not been found yet; `is_followed` says which logs are being followed. Both tell that a file which
    /// looks like a rotated one is one, though the live file is missing for the moment.
    pub fn find<E: Env>(
        &self,
        env: &E,
        unclaimed: &HashSet<String>,
        is_followed: &dyn Fn(&str) -> bool,
        found: &mut Found,
    ) {
        let mut listings: HashMap<PathBuf, Option<Vec<Entry>>> = HashMap::new();
        let mut incomplete = false;
        let mut paths: BTreeMap<String, (usize, bool)> = BTreeMap::new();
        for (index, source) in self.list.iter().enumerate() {
            for glob in &source.globs {
                let mut list = |dir: &Path| {
                    let listing = listings.entry(dir.to_owned()).or_insert_with(|| match env.list(dir) {
                        Ok(entries) => Some(entries),
                        Err(error) => {
                            incomplete |= error.kind() != std::io::ErrorKind::NotFound;
                            None
                        }
                    });
                    listing.clone()
                };
                for one in glob.find(&mut list, &mut found.directories) {
                    // A link may lead anywhere: only one that the operator names is given to the opener, to be told.
                    let passes = one.kind == Kind::File || glob.is_literal();
                    let path = one.dir.join(&one.name);
                    let Some(text) = path.to_str().filter(|text| text.len() <= MAX_PATH) else { continue };
                    if passes && !naming::is_never_live(&one.name) && !source.excludes(&path) {
                        paths.entry(text.to_owned()).or_insert((index, one.kind == Kind::Symlink));
                    }
                }
            }
        }
        found.incomplete |= incomplete;
        let known = |path: &str| {
            let keys = [format!("file:{path}"), format!("process:{path}")];
            keys.iter().any(|key| unclaimed.contains(key) || is_followed(key))
        };
        for (text, (index, _)) in &paths {
            let path = Path::new(text);
            let lives = naming::live_names(path.file_name().and_then(|name| name.to_str()).unwrap_or(""));
            let rotated = lives.iter().any(|live| {
                let live = path.with_file_name(live).to_string_lossy().into_owned();
                paths.contains_key(&live) || known(&live)
            });
            if !rotated {
                let container = self.list[*index].container(text, &self.around);
                found.logs.push(Candidate { container, path: path.to_owned(), linked: false });
            }
        }
        self.find_without_live(env, unclaimed, &paths, found);
        found.directories.sort();
        found.directories.dedup();
    }

    /// Adds logs of which only rotated files are left: their last lines may not have been read.
    fn find_without_live<E: Env>(
        &self,
        env: &E,
        unclaimed: &HashSet<String>,
        paths: &BTreeMap<String, (usize, bool)>,
        found: &mut Found,
    ) {
        for key in unclaimed {
            let Some(path) = ContainerRef::path_of_key(key).filter(|path| !paths.contains_key(*path)) else {
                continue;
            };
            let Some(container) = self.container_of_key(key).filter(|found| !found.container.is_empty())
            else {
                continue;
            };
            if naming::has_rotated(env, Path::new(path), true) {
                found.logs.push(Candidate { container, path: path.into(), linked: false });
            }
        }
    }
}

/// The file in which the agent keeps what a process writes to its standard streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// The live file.
    pub path: PathBuf,
    /// Name of the service.
    pub service: String,
    /// That name is a guess.
    pub guessed: bool,
    /// Lines with a time of their own have that, rather than that at which they were taken.
    pub own_times: bool,
}

fn source(name: &str, config: &Config) -> Result<Source, Error> {
    let error = |key: &str, reason: String| Error { key: format!("{name}.{key}"), reason };
    let valid = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !valid {
        let reason = "a source's name is 1 to 63 letters, digits, '-' or '_'".to_owned();
        return Err(Error { key: name.to_owned(), reason });
    }
    if config.paths.is_empty() {
        return Err(error(
            "paths",
            "not set: write which files, paths = [\"/var/log/app/*.log\"]".to_owned(),
        ));
    }
    let globs = |key: &str, patterns: &[String]| -> Result<Vec<Glob>, Error> {
        let glob = |pattern: &String| {
            Glob::new(pattern).map_err(|reason| error(key, format!("{pattern:?} {reason}")))
        };
        patterns.iter().map(glob).collect()
    };
    if let Some((odd, _)) = config.labels.iter().find(|(key, _)| key.is_empty()) {
        return Err(error("labels", format!("{odd:?} is no name for a label")));
    }
    let set = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(Source {
        name: name.to_owned(),
        globs: globs("paths", &config.paths)?,
        exclude: globs("exclude", &config.exclude)?,
        service: set(&config.service),
        guessed: false,
        environment: set(&config.environment),
        labels: config.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        format: config.format.into(),
        spool: false,
        own_times: true,
    })
}
