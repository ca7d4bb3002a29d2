//! A changed config while the agent runs: when it is looked for, and what becomes of a bad one.
//!
//! In: SIGHUP, changes of the config file and of the files that it refers to with `${file:…}`. Out: configs that are
//! valid, fit the container's memory and differ from the running one ([`Reloads::next`]).
//! Invariants: a config that cannot be used changes nothing and ends nothing; it is told once, by log, metric and
//! health. What is looked at is content, not times: a touched file is no change. Nothing depends on the file system's
//! events, since everything is read anew every [`POLL`].

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::Watcher as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::harden::Sandbox;
use super::keys;
use crate::config::memory::cgroup_limit;
use crate::config::tree::{self, Place, Step, Table, Value};
use crate::config::{self, Config, Diagnostics, Loaded, Sources};
use crate::data::clock;
use crate::health::Health;
use crate::metrics;

/// How often the files are read, whatever the file system's events say.
pub const POLL: Duration = Duration::from_secs(10);
/// An editor writes a file in several steps: how long it must have been left alone, and how long it is waited for.
const QUIET: (Duration, u32) = (Duration::from_millis(150), 10);
/// Bytes of a file that count; configs and secrets are at most this long.
const FILE_LIMIT: u64 = 1 << 20;

/// Where the process has its config from.
#[derive(Debug, Clone)]
pub struct Origin {
    file: Option<PathBuf>,
    set: Vec<String>,
}

impl Origin {
    /// A file, if there is one, below the environment and `set`, the command line's `key.path=value`.
    pub fn new(file: Option<PathBuf>, set: Vec<String>) -> Self {
        Self { file, set }
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The config as it is now.
    pub fn load(&self) -> Result<Loaded, Diagnostics> {
        config::load(&Sources::of_process(self.file.as_deref(), self.set.clone())?)
    }
}

/// Content of a file; `None` when it cannot be read.
type Fingerprint = Vec<(PathBuf, Option<u128>)>;

/// The configs to come. Dropping it ends the looking.
pub struct Reloads {
    looking: Option<Looking>,
    health: Option<Health>,
}

struct Looking {
    origin: Origin,
    sandbox: Option<Sandbox>,
    hangup: Signal,
    /// One inotify instance; `None` when the system has none left: then polling alone serves.
    watcher: Option<notify::RecommendedWatcher>,
    changed: mpsc::Receiver<()>,
    directories: BTreeSet<PathBuf>,
    /// Files whose content makes the config.
    files: Vec<PathBuf>,
    seen: Fingerprint,
    running: Identity,
    /// What is handed out and not yet decided on, with how it is shown.
    pending: Option<(Identity, String, Vec<&'static keys::Row>)>,
}

/// What tells one config from another: a hash of all values that a reload can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u128);

impl Reloads {
    /// Never a new config.
    pub fn none() -> Self {
        Self { looking: None, health: None }
    }

    /// Looks for changes of what `loaded` came from; configs must keep to `sandbox`, if there is one. Call it in the async runtime; from here on SIGHUP is a reload.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn of(origin: Origin, loaded: &Loaded, sandbox: Option<Sandbox>) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let (sender, changed) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error is a lost event, so it counts as a change. One that waits already says it all.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        })
        .inspect_err(
            |error| warn!(%error, "cannot watch the config file; it is read every 10 seconds instead"),
        )
        .ok();
        let mut looking = Looking {
            origin,
            sandbox,
            hangup,
            watcher,
            changed,
            directories: BTreeSet::new(),
            files: Vec::new(),
            seen: Vec::new(),
            running: Identity::of(loaded),
            pending: None,
        };
        looking.follow(&loaded.tree);
        looking.seen = looking.fingerprint();
        show(&shown(&loaded.tree));
        metrics::CONFIG_RELOAD_SUCCESSFUL.set(1);
        metrics::CONFIG_RELOAD_TIMESTAMP.set(unix_secs());
        metrics::CONFIG_RESTART_KEYS.set(0);
        Ok(Self { looking: Some(looking), health: None })
    }

    /// Notes in `health` what a person should know of the config. It fails no probe: what runs is a good config.
    pub fn report_to(&mut self, health: &Health) {
        self.health = Some(health.clone());
    }

    fn note(&self, text: Option<String>) {
        if let Some(health) = &self.health {
            health.note("config", text);
        }
    }

    /// The next config that is to take the place of `running`. Answer with [`applied`](Self::applied) or
    /// [`refused`](Self::refused). Never resolves when there is none to come.
    pub async fn next(&mut self, running: &Config) -> Box<Config> {
        loop {
            let Some(looking) = &mut self.looking else { return std::future::pending().await };
            let asked = looking.wait().await;
            let now = looking.fingerprint();
            if !asked && now == looking.seen {
                continue;
            }
            looking.seen = now;
            match looking.attempt(running) {
                Ok(Some(next)) => return next,
                Ok(None) => self.applied(),
                Err(why) => self.refused(&why),
            }
        }
    }

    /// The config that was handed out runs.
    pub fn applied(&mut self) {
        let Some(looking) = &mut self.looking else { return };
        let Some((identity, shown, kept)) = looking.pending.take() else { return };
        looking.running = identity;
        show(&shown);
        let keys: Vec<&str> = kept.iter().map(|row| row.key).collect();
        for row in &kept {
            warn!(
                key = row.key,
                why = row.why,
                "a changed key takes effect at the next restart of nodewick only"
            );
        }
        info!("config reloaded");
        metrics::CONFIG_RELOAD_SUCCESSFUL.set(1);
        metrics::CONFIG_RELOAD_TIMESTAMP.set(unix_secs());
        metrics::CONFIG_RESTART_KEYS.set(keys.len() as i64);
        let restart = || format!("restart nodewick for {} to take effect", keys.join(", "));
        self.note((!keys.is_empty()).then(restart));
    }

    /// A config cannot be used, for the reason `why`; the running one stays.
    pub fn refused(&mut self, why: &str) {
        if let Some(looking) = &mut self.looking {
            looking.pending = None;
        }
        error!(error = why, "the new config cannot be used; the last good one stays in force");
        metrics::CONFIG_RELOAD_SUCCESSFUL.set(0);
        let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        // No content of the file: the health page is for anyone who reaches the listener.
        self.note(Some(format!(
            "the last good config is in force; the one of {at} cannot be used (the log says why, so does nodewick check)"
        )));
    }
}

impl Looking {
    /// Waits for a reason to look; true when a person asked.
    async fn wait(&mut self) -> bool {
        tokio::select! {
            Some(()) = self.hangup.recv() => {
                info!("SIGHUP: reading the config anew");
                return true;
            }
            Some(()) = self.changed.recv() => {}
            () = tokio::time::sleep(POLL) => return false,
        }
        for _ in 0..QUIET.1 {
            if tokio::time::timeout(QUIET.0, self.changed.recv()).await.is_err() {
                break;
            }
        }
        false
    }

    /// Loads the config; `Ok(None)` when there is nothing to apply.
    fn attempt(&mut self, running: &Config) -> Result<Option<Box<Config>>, String> {
        let loaded = self.origin.load().map_err(|bad| self.explained(bad.to_string()))?;
        self.follow(&loaded.tree);
        self.seen = self.fingerprint();
        for warning in &loaded.warnings {
            warn!(key = warning.key, problem = warning.message, help = warning.help, "config");
        }
        let identity = Identity::of(&loaded);
        let mut next = loaded.config;
        let kept = keys::keep_running(running, &mut next);
        if let Some(why) = self.sandbox.as_ref().and_then(|sandbox| sandbox.refuses(&next, &loaded.tree)) {
            return Err(why);
        }
        let limit = cgroup_limit();
        let _ = next.fit(limit);
        next.memory_bound().fits(limit).map_err(|error| error.to_string())?;
        let same = identity == self.running;
        self.pending = Some((identity, shown(&loaded.tree), kept));
        Ok((!same).then(|| Box::new(next)))
    }

    /// What cannot be read may lie outside of the sandbox.
    fn explained(&self, mut why: String) -> String {
        if self.sandbox.is_some() && why.contains("Permission denied") {
            why.push_str("\nthis process may read only what the config named at its start (Landlock); restart nodewick to apply the config");
        }
        why
    }

    /// Watches what the config is made of: its file and the files that it refers to.
    fn follow(&mut self, tree: &Table) {
        let mut files: Vec<PathBuf> = self.origin.file.iter().cloned().chain(references(tree)).collect();
        files.sort();
        files.dedup();
        self.files = files;
        // A directory tells of files that are replaced by a rename, and of the `..data` link that the kubelet swaps.
        let directories: BTreeSet<PathBuf> = self
            .files
            .iter()
            .filter_map(|file| file.parent())
            .map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
            .map(Path::to_owned)
            .collect();
        if let Some(watcher) = &mut self.watcher {
            for gone in self.directories.difference(&directories) {
                let _ = watcher.unwatch(gone);
            }
            for new in directories.difference(&self.directories) {
                if let Err(error) = watcher.watch(new, notify::RecursiveMode::NonRecursive) {
                    warn!(directory = %new.display(), %error, "cannot watch a directory of the config; its files are read every 10 seconds instead");
                }
            }
        }
        self.directories = directories;
    }

    fn fingerprint(&self) -> Fingerprint {
        self.files.iter().map(|file| (file.clone(), content(file))).collect()
    }
}

impl Identity {
    fn of(loaded: &Loaded) -> Self {
        let mut tree = loaded.tree.clone();
        let hash = |tree: &Table| xxhash_rust::xxh3::xxh3_128(tree::to_json(tree).to_string().as_bytes());
        for row in keys::RESTART_ONLY {
            let key = row.key.strip_suffix(".*").unwrap_or(row.key);
            let path: Vec<Step> = key.split('.').map(|key| Step::Key(key.to_owned())).collect();
            tree::remove(&mut tree, &path);
        }
        // A table that is written and empty says nothing.
        tree.retain(|_, entry| !matches!(&entry.node.value, Value::Table(table) if table.is_empty()));
        Self(hash(&tree))
    }
}

/// What tells rollouts apart from outside: eight digits of a hash of what is written in the config. What is another value on
/// each node, or secret, is in it only as where it is taken from.
fn shown(tree: &Table) -> String {
    let mut tree = tree.clone();
    let node = ["agent", "node"].map(|key| Step::Key(key.to_owned()));
    tree::remove(&mut tree, &node);
    tree.values_mut().for_each(|entry| veil(&mut entry.node));
    let hash = xxhash_rust::xxh3::xxh3_64(tree::to_json(&tree).to_string().as_bytes());
    format!("{:08x}", hash >> 32)
}

/// Puts where values were taken from in their place.
fn veil(node: &mut tree::Node) {
    if let Place::Env(name) = &node.place {
        node.value = Value::Text(name.clone());
    }
    if let Some(from) = &node.taken_from {
        node.value = Value::Text(from.clone());
    }
    match &mut node.value {
        Value::Table(table) => table.values_mut().for_each(|entry| veil(&mut entry.node)),
        Value::Array(items) => items.iter_mut().for_each(veil),
        _ => {}
    }
}

/// Shows the hash of the config in force, and no other.
fn show(hash: &str) {
    metrics::CONFIG_INFO.reset();
    metrics::CONFIG_INFO.with_label_values(&[hash]).set(1);
}

/// The files that values were taken from.
pub(super) fn references(table: &Table) -> Vec<PathBuf> {
    let mut found = Vec::new();
    table.values().for_each(|entry| references_of(&entry.node, &mut found));
    found
}

fn references_of(node: &tree::Node, found: &mut Vec<PathBuf>) {
    let taken = node.taken_from.iter().flat_map(|from| from.split(", "));
    found.extend(taken.filter_map(|from| from.strip_prefix("file:")).map(PathBuf::from));
    match &node.value {
        Value::Table(table) => table.values().for_each(|entry| references_of(&entry.node, found)),
        Value::Array(items) => items.iter().for_each(|item| references_of(item, found)),
        _ => {}
    }
}

/// A hash of what a file holds.
fn content(path: &Path) -> Option<u128> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_LIMIT + 1).read_to_end(&mut bytes).ok()?;
    Some(xxhash_rust::xxh3::xxh3_128(&bytes))
}

fn unix_secs() -> i64 {
    clock::since_epoch().as_secs() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str, env: &[(&str, &str)]) -> String {
        let file = Some(("agent.toml".to_owned(), text.to_owned()));
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let loaded = config::load(&Sources { file, env, ..Sources::default() });
        shown(&loaded.unwrap_or_else(|bad| panic!("{bad}")).tree)
    }

    #[test]
    fn the_shown_hash_is_that_of_what_is_written_for_all_nodes() {
        let text = "[agent]\ncluster = \"${env:CLUSTER}\"\nnode = \"n1\"\n";
        let one = hash(text, &[("CLUSTER", "a"), ("NODEWICK_LOGS_MAX_LINE", "64KiB")]);
        assert!(one.len() == 8 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
        let same = text.replace("n1", "n2");
        assert_eq!(hash(&same, &[("CLUSTER", "b"), ("NODEWICK_LOGS_MAX_LINE", "32KiB")]), one);
        assert_ne!(
            hash(&text.replace("CLUSTER", "OTHER"), &[("OTHER", "a"), ("NODEWICK_LOGS_MAX_LINE", "64KiB")]),
            one
        );
        assert_ne!(hash(&format!("{text}[logs]\nmax_line = \"32KiB\"\n"), &[("CLUSTER", "a")]), one);
    }
}
