//! Narrows what the process may do, before it reads any input.
//!
//! In: the config. Out: a process without new privileges and without core dumps, that reads what the config names and
//! what TLS and name resolution need, writes the state directory and the local stores, and binds its own port
//! (Landlock, as far as the kernel has it). [`Sandbox`] tells later what lies outside.
//!
//! Invariants: it is called by `run` only and before any thread starts, since each of these holds for the calling
//! thread and for what that one starts. It never fails: what the kernel does not have is said and left out. A path
//! that does not exist yet is granted by the directory above it, so that hardening costs no line.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing::{info, warn};

use crate::config::tree::{Table, Value};
use crate::config::{Config, Loaded, kube, ui};
use crate::ui::config::Listen;

/// What is asked of the kernel. An older one grants less; a newer one would forbid what was never tried here.
const WANTED: ABI = ABI::V6;

/// What every agent reads beside what its config names.
///
/// `/proc` as a whole, since the kernel makes the entries of a process anew each time; what is private to other
/// processes stays out of reach, as Landlock also forbids tracing. The directories of libraries are for the name
/// service modules that the C library loads.
const SYSTEM: &[&str] = &[
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
    "/dev/null",
];

/// What of `/etc` is read where the container runtime has put `/etc/resolv.conf` there. Elsewhere that file is
/// replaced when the network changes, and a rule for the old one would end name resolution: all of `/etc` is granted.
const ETC: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/nodewick",
];

/// What holds for the process now.
#[derive(Debug)]
pub struct Hardening {
    /// What is in force, in a few words each.
    in_force: Vec<String>,
    /// What was asked for and is not in force, and why.
    missing: Vec<String>,
    sandbox: Option<Sandbox>,
}

/// What the process may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

/// A path that the config names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    /// The key, as people write it.
    key: String,
    /// What is granted: for a file, its directory.
    path: PathBuf,
    /// The file, where a file is named.
    file: Option<PathBuf>,
    writes: bool,
}

impl Named {
    fn file(key: &str, file: PathBuf) -> Self {
        Self { key: key.to_owned(), path: room_of(&file), file: Some(file), writes: false }
    }
}

/// Hardens the process. Call it first thing, before any thread is started; tell the outcome with [`Hardening::tell`]
/// once there is somewhere to tell it.
pub fn apply(loaded: &Loaded, config_file: Option<&Path>) -> Hardening {
    let mut hardening = Hardening { in_force: Vec::new(), missing: Vec::new(), sandbox: None };
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count());
    if threads > 1 {
        hardening.missing.push(format!("{} threads were started before it and are not covered", threads - 1));
    }
    if loaded.config.agent.landlock {
        match restrict(loaded, config_file) {
            Ok((status, sandbox)) => hardening.landlock(&status, sandbox),
            Err(error) => hardening.missing.push(format!("landlock: {error}")),
        }
    } else {
        hardening.missing.push("landlock: off by [agent] landlock".to_owned());
    }
    hardening.note("no_new_privs", rustix::thread::set_no_new_privs(true));
    // The limit keeps files from being written; the flag also keeps the kernel from piping a dump to a program.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let dumps = setrlimit(Resource::Core, none).and(set_dumpable_behavior(DumpableBehavior::NotDumpable));
    hardening.note("no core dumps", dumps);
    hardening
}

impl Hardening {
    fn note(&mut self, what: &str, done: rustix::io::Result<()>) {
        match done {
            Ok(()) => self.in_force.push(what.to_owned()),
            Err(error) => self.missing.push(format!("{what}: {error}")),
        }
    }

    fn landlock(&mut self, status: &RestrictionStatus, sandbox: Sandbox) {
        let abi = match &status.landlock {
            LandlockStatus::Available { effective_abi, kernel_abi } => {
                kernel_abi.unwrap_or(*effective_abi as i32)
            }
            LandlockStatus::NotEnabled => {
                self.missing.push(
                    "landlock: not enabled in this kernel (add it to the boot parameter lsm=)".to_owned(),
                );
                return;
            }
            LandlockStatus::NotImplemented => {
                self.missing.push("landlock: this kernel has none (Linux 5.13 or newer has)".to_owned());
                return;
            }
        };
        if status.ruleset == RulesetStatus::NotEnforced {
            self.missing.push("landlock: the kernel enforces nothing of it".to_owned());
            return;
        }
        self.in_force.push(format!("landlock abi {abi}"));
        self.sandbox = Some(sandbox);
    }

    /// Says in the log what is in force.
    pub fn tell(&self) {
        let in_force = if self.in_force.is_empty() { "nothing".to_owned() } else { self.in_force.join(", ") };
        if self.missing.is_empty() {
            info!("hardening: {in_force}");
        } else {
            warn!(missing = self.missing.join("; "), "hardening: {in_force}");
        }
    }

    /// What the process may reach; `None` without Landlock.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }
}

impl Sandbox {
    /// What a process with this config may reach.
    fn of(loaded: &Loaded, config_file: Option<&Path>) -> Self {
        let mut sandbox = Self::default();
        sandbox.read.extend(SYSTEM.iter().map(PathBuf::from));
        sandbox.read.extend(etc());
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            sandbox.read.extend(std::env::var_os(name).into_iter().flat_map(|paths| {
                std::env::split_paths(&paths).map(|path| room_of(&path)).collect::<Vec<_>>()
            }));
        }
        let names = named(&loaded.config, &loaded.tree);
        for file in config_file.into_iter().chain(names.iter().filter_map(|named| named.file.as_deref())) {
            sandbox.read.push(room_of(file));
            // Where it is a link: what it leads to.
            sandbox.read.extend(file.canonicalize().ok().as_deref().map(room_of));
        }
        sandbox
            .read
            .extend(names.iter().filter(|named| named.key.ends_with("kubeconfig")).flat_map(mentioned));
        for Named { path, writes, key, .. } in names {
            if writes {
                // The agent makes it all the same, only later.
                let _ = DirBuilder::new().recursive(true).mode(0o700).create(&path);
                sandbox.write.push(nearest_directory(&path));
            } else if matches!(key.as_str(), "logs.root" | "logs.files") {
                sandbox.read.push(nearest_directory(&path));
            } else {
                sandbox.read.push(path);
            }
        }
        for list in [&mut sandbox.read, &mut sandbox.write] {
            let real: Vec<PathBuf> = list.iter().filter_map(|path| path.canonicalize().ok()).collect();
            list.extend(real);
            list.retain(|path| path.exists());
            list.sort();
            list.dedup();
        }
        sandbox
    }

    /// Why a config cannot be used by this process: the first path that it names and the process cannot reach.
    pub fn refuses(&self, config: &Config, tree: &Table) -> Option<String> {
        let outside = |path: &Path, list: &[PathBuf]| {
            let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            !list.iter().any(|granted| path.starts_with(granted) || real.starts_with(granted))
        };
        named(config, tree).into_iter().find_map(|Named { key, path, writes, .. }| {
            let (list, what) = if writes { (&self.write, "write to") } else { (&self.read, "read") };
            // A directory for docker's files, or of figures, that does not exist is no reason to refuse.
            let idle = matches!(key.as_str(), "logs.symlink_roots" | "host.root") && !path.exists();
            (!idle && outside(&path, list)).then(|| {
                format!(
                    "{key}: {} is outside of what this process may {what} since its start (Landlock); restart nodewick to apply the config",
                    path.display()
                )
            })
        })
    }
}

/// Applies the rules of a config to this thread and to all that it starts.
fn restrict(
    loaded: &Loaded,
    config_file: Option<&Path>,
) -> Result<(RestrictionStatus, Sandbox), RulesetError> {
    let sandbox = Sandbox::of(loaded, config_file);
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(WANTED))?
        .create()?;
    // Nothing may be executed, wherever it lies.
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    for (list, access) in [(&sandbox.read, read), (&sandbox.write, write)] {
        for path in list {
            // It was there a moment ago; if it is not, there is nothing to grant.
            let (Ok(fd), Ok(meta)) = (PathFd::new(path), std::fs::metadata(path)) else { continue };
            let access = if meta.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
            rules = rules.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    for port in ports(loaded) {
        rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    Ok((rules.restrict_self()?, sandbox))
}

/// Every path that the config names, with its key.
fn named(config: &Config, tree: &Table) -> Vec<Named> {
    let mut found = vec![Named {
        key: "agent.state_dir".into(),
        path: config.agent.state_dir.clone(),
        file: None,
        writes: true,
    }];
    // A sidecar reads no pods' logs.
    if !config.logs.root.as_os_str().is_empty() {
        let path = config.logs.root.clone();
        found.push(Named { key: "logs.root".into(), path, file: None, writes: false });
    }
    for path in config.logs.sources().map(|sources| sources.roots()).unwrap_or_default() {
        found.push(Named { key: "logs.files".into(), path, file: None, writes: false });
    }
    for path in &config.logs.symlink_roots {
        found.push(Named { key: "logs.symlink_roots".into(), path: path.clone(), file: None, writes: false });
    }
    for (name, store) in config.sink.stores() {
        let path = store.directory(name, &config.agent.state_dir);
        found.push(Named { key: format!("sink.local.{name}.dir"), path, file: None, writes: true });
    }
    if config.host.enabled {
        // Where the node's are not mounted, these are the machine's own, which every agent may read.
        for path in [config.host.proc(), config.host.cgroup()] {
            found.push(Named { key: "host.root".into(), path, file: None, writes: false });
        }
    }
    files(tree, &mut String::new(), &mut found);
    for file in super::reload::references(tree) {
        found.push(Named::file("${file:…}", file));
    }
    for named in &mut found {
        named.path = std::path::absolute(&named.path).unwrap_or_else(|_| named.path.clone());
    }
    found
}

/// The files that keys name, whatever table they stand in: the directories that hold them, since
/// a mounted secret is replaced in its directory.
fn files(table: &Table, path: &mut String, found: &mut Vec<Named>) {
    for (key, entry) in table {
        let before = path.len();
        if before > 0 {
            path.push('.');
        }
        path.push_str(key);
        let is_file = key.ends_with("_file") || matches!(key.as_str(), "kubeconfig" | "ca");
        match &entry.node.value {
            Value::Table(inner) => files(inner, path, found),
            Value::Text(text) if is_file && !text.is_empty() => {
                found.push(Named::file(path, PathBuf::from(text)));
            }
            Value::Array(items) if is_file => {
                for item in items {
                    if let Value::Text(text) = &item.value {
                        found.push(Named::file(path, PathBuf::from(text)));
                    }
                }
            }
            _ => {}
        }
        path.truncate(before);
    }
}

/// The directories of the files that a kubeconfig refers to.
fn mentioned(kubeconfig: &Named) -> Vec<PathBuf> {
    const KEYS: [&str; 4] = ["certificate-authority", "client-certificate", "client-key", "tokenFile"];
    let text =
        kubeconfig.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.trim().trim_start_matches("- ").split_once(':'));
    let files =
        pairs.filter(|(key, _)| KEYS.contains(key)).map(|(_, path)| path.trim().trim_matches(['"', '\'']));
    files.map(|file| room_of(&kubeconfig.path.join(file))).collect()
}

/// The directory that holds `file`, up to the first part with a wildcard; the file itself where that is the root.
fn room_of(file: &Path) -> PathBuf {
    let fixed: PathBuf = file
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']))
        .collect();
    let room = if fixed == file { file.parent().map(Path::to_owned).unwrap_or_default() } else { fixed };
    match room.to_str() {
        Some("") => PathBuf::from("."),
        Some("/") => file.to_owned(),
        _ => room,
    }
}

/// `path`, or the nearest directory above it that is there.
fn nearest_directory(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// What of `/etc` is read.
fn etc() -> Vec<PathBuf> {
    let device = |path: &str| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    let bound =
        matches!((device("/etc/resolv.conf"), device("/etc")), (Some(file), Some(dir)) if file != dir);
    if bound || device("/etc/resolv.conf").is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
    {
        return ETC.iter().map(PathBuf::from).collect();
    }
    // The file may be a link to where a resolver keeps it.
    let real = Path::new("/etc/resolv.conf").canonicalize().ok();
    let room = real.and_then(|real| real.parent().map(Path::to_owned)).filter(|room| room != Path::new("/"));
    room.into_iter().chain([PathBuf::from("/etc")]).collect()
}

/// Ports that the process listens on; 0 is any that is free.
fn ports(loaded: &Loaded) -> Vec<u16> {
    let config = &loaded.config;
    let machines = config.admin.address().ok().flatten().map(|address| address.port());
    let path_only = config.kube.effective_mode() == kube::Mode::Path;
    let people = match config.ui.listen() {
        Ok(Listen::At(address)) => vec![address.port()],
        // Where its own port is taken it takes a free one, which is what 0 stands for.
        Ok(Listen::Auto) if config.ui.wanted_in_run(path_only) => vec![ui::config::DEFAULT.port(), 0],
        _ => Vec::new(),
    };
    machines.into_iter().chain(people).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn loaded(text: &str) -> Loaded {
        let file = Some(("agent.toml".to_owned(), text.to_owned()));
        load(&Sources { file, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_the_config_names_is_granted_and_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("there");
        for name in ["pods", "certs", "stores"] {
            std::fs::create_dir(dir.join(name)).expect("made");
        }
        let config = loaded(&format!(
            "[agent]\nstate_dir = {:?}\n[logs]\nroot = {:?}\n[sink.loki.a]\nurl = \"https://loki\"\n\
             tls.ca_file = {:?}\n[sink.local.b]\ndir = {:?}\n",
            dir.join("state"),
            dir.join("pods"),
            dir.join("certs/ca.pem"),
            dir.join("stores/b"),
        ));
        let sandbox = Sandbox::of(&config, Some(Path::new("/etc/hostname")));
        let below = |list: &[PathBuf]| {
            list.iter()
                .filter_map(|path| path.strip_prefix(&dir).ok())
                .map(Path::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(below(&sandbox.read), [Path::new("certs"), Path::new("pods")]);
        assert_eq!(below(&sandbox.write), [Path::new("state"), Path::new("stores/b")], "made on the way");
        assert!(!sandbox.read.contains(&PathBuf::from("/")) && !sandbox.write.contains(&PathBuf::from("/")));
        assert_eq!(sandbox.refuses(&config.config, &config.tree), None);

        let elsewhere = loaded(&format!(
            "[agent]\nstate_dir = {:?}\n[logs]\nroot = {:?}\n[sink.loki.a]\nurl = \"https://loki\"\nauth.token_file = {:?}\n",
            dir.join("state"),
            dir.join("pods"),
            dir.join("tokens/t"),
        ));
        assert_eq!(
            sandbox.refuses(&elsewhere.config, &elsewhere.tree).expect("outside"),
            format!(
                "sink.loki.a.auth.token_file: {} is outside of what this process may read since its start (Landlock); restart nodewick to apply the config",
                dir.join("tokens").display()
            )
        );
    }

    #[test]
    fn the_nodes_figures_the_scrapes_authorities_and_reds_counters_are_in_reach() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("there");
        for name in ["host/proc", "host/sys/fs/cgroup", "host/etc", "certs", "state"] {
            std::fs::create_dir_all(dir.join(name)).expect("made");
        }
        let config = |enabled: bool| {
            loaded(&format!(
                "[agent]\nstate_dir = {:?}\n[host]\nenabled = {enabled}\nroot = {:?}\n[scrape.tls]\nca_file = {:?}\n",
                dir.join("state"),
                dir.join("host"),
                dir.join("certs/ca.pem"),
            ))
        };
        let below = |list: &[PathBuf]| {
            list.iter()
                .filter_map(|path| path.strip_prefix(&dir).ok())
                .map(Path::to_owned)
                .collect::<Vec<_>>()
        };
        let (on, off) = (config(true), config(false));
        let sandbox = Sandbox::of(&on, None);
        let read = below(&sandbox.read);
        assert_eq!(read, [Path::new("certs"), Path::new("host/proc"), Path::new("host/sys/fs/cgroup")]);
        assert!(below(&sandbox.write).contains(&PathBuf::from("state")), "red.state is written there");
        assert_eq!(below(&Sandbox::of(&off, None).read), [Path::new("certs")], "only where they are wanted");
        let refused = Sandbox::of(&off, None).refuses(&on.config, &on.tree).expect("it was not granted");
        assert!(refused.starts_with("host.root: ") && refused.contains("restart nodewick"), "{refused}");
        // Without the mounts they are the machine's own.
        let own = loaded(&format!("[host]\nenabled = true\nroot = {:?}\n", dir.join("nothing")));
        assert_eq!(Sandbox::of(&own, None).refuses(&own.config, &own.tree), None);
    }

    #[test]
    fn the_room_of_a_file_is_its_directory_and_never_the_root() {
        for (file, room) in [
            ("/etc/nodewick/agent.toml", "/etc/nodewick"),
            ("agent.toml", "."),
            ("/token", "/token"),
            ("/var/log/app/*.log", "/var/log/app"),
            ("/var/log/*/x.log", "/var/log"),
        ] {
            assert_eq!(room_of(Path::new(file)), Path::new(room), "{file}");
        }
        assert_eq!(nearest_directory(Path::new("/proc/not-there/at-all")), Path::new("/proc"));
    }

    #[test]
    fn the_files_that_a_kubeconfig_refers_to_are_in_reach() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config");
        let text = "clusters:\n- cluster:\n    certificate-authority: /pki/ca.crt\n    server: https://a\nusers:\n- user:\n    client-key: keys/k.pem\n    tokenFile: \"/run/t/token\"\n";
        std::fs::write(&file, text).expect("written");
        let rooms = mentioned(&Named::file("kube.kubeconfig", file));
        assert_eq!(rooms, [PathBuf::from("/pki"), dir.path().join("keys"), PathBuf::from("/run/t")]);
    }
}
