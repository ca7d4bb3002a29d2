//! From bytes on disk to sealed batches.
//!
//! [`tail`] is the step machine that does the work; [`Config`] is its section of the config file and
//! [`spawn`] the thread that drives it in the real world, with a second one that makes checkpoints durable.

pub mod annotated;
pub mod chain;
pub mod checkpoint;
pub mod copies;
pub mod count;
pub mod coverage;
pub mod discover;
pub mod disk;
pub mod driver;
pub mod env;
pub mod files;
pub mod frame;
pub mod frozen;
pub mod gz;
pub mod ingest;
pub mod inherit;
pub mod keeper;
pub mod mask;
pub mod multiline;
pub mod notice;
pub mod os;
pub mod parse;
pub mod private;
pub mod process;
pub mod publish;
pub mod registry;
pub mod requests;
pub mod resume;
pub mod source;
pub mod spill;
pub mod stamp;
pub mod tail;
pub mod vitals;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use driver::{Driver, Legacy, spawn};
pub use tail::Start;

use crate::data::units::{ByteSize, Span};

/// `[logs]`: where container logs are and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the kubelet's pod logs: `<root>/<namespace>_<pod>_<uid>/<container>/<restart>.log`. Empty means that
    /// no pod's logs are read. Where `[logs.files]` are configured it need not exist.
    pub root: PathBuf,
    /// Where to begin with logs that the checkpoint does not know: "oldest" line on disk, or "newest" to skip what
    /// was there before the agent's first start.
    pub start: Start,
    /// How often logs are looked at for new lines. Shorter means fresher lines and more CPU.
    pub tick: Span,
    /// How often all directories are listed anew, whatever the file system's events said.
    pub rescan: Span,
    /// Directories outside `root` that a log file may be a symbolic link into: docker's json files.
    pub symlink_roots: Vec<PathBuf>,
    /// Longest line in bytes. Longer ones are cut and marked `truncated`. Loki's default limit is the same.
    pub max_line: ByteSize,
    /// Bytes of one container log that may be in flight, so that one loud container cannot take all of
    /// `[agent] memory`.
    pub per_log: ByteSize,
    /// What is kept when the kubelet deletes logs faster than the backend takes them.
    pub spill: spill::Config,
    /// When a container ended badly, or was restarted and nobody says how it ended, tell its last lines, with their
    /// trace id, as one event of its stream.
    pub last_words: bool,
    /// Leave out the agent's own pod (known by the environment variables POD_NAMESPACE and POD_NAME).
    pub exclude_self: bool,
    /// Stack traces become one record each.
    pub multiline: multiline::Config,
    /// Log files that applications write themselves, by a name for each group.
    pub files: BTreeMap<String, files::Config>,
    /// What a process under the agent's care writes; never configured.
    #[serde(skip)]
    pub spool: Option<files::Spool>,
    /// What stands for the namespace of files outside of Kubernetes; never configured.
    #[serde(skip)]
    pub namespace: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/log/pods".into(),
            start: Start::Oldest,
            tick: Span::millis(200),
            rescan: Span::secs(10),
            symlink_roots: vec!["/var/lib/docker/containers".into()],
            max_line: ByteSize::kib(256),
            per_log: ByteSize::mib(1),
            spill: spill::Config::default(),
            last_words: true,
            exclude_self: true,
            multiline: multiline::Config::default(),
            files: BTreeMap::new(),
            spool: None,
            namespace: String::new(),
        }
    }
}

impl Config {
    /// True when pods' logs are to be read: there is a root for them, or nothing else to read.
    pub fn reads_pods(&self) -> bool {
        let other = !self.files.is_empty() || self.spool.is_some();
        !self.root.as_os_str().is_empty() && (!other || self.root.exists())
    }

    /// The log files that applications write. Beside the logs of pods they are the node's; alone they are those of the
    /// pod or host that the environment tells.
    pub fn sources(&self) -> Result<files::Sources, files::Error> {
        let mut around =
            if self.reads_pods() { files::Around::default() } else { files::Around::of_process() };
        if around.namespace.is_empty() {
            around.namespace.clone_from(&self.namespace);
        }
        Ok(files::Sources::compile(&self.files, around)?.with_spool(self.spool.as_ref()))
    }
}
