//! Finds container logs below the log root.
//!
//! `<root>/<namespace>_<pod>_<uid>/<container>/<restart>.log`, as the kubelet lays them out. Anything else below
//! the root is passed over.

use std::io;
use std::path::{Path, PathBuf};

use super::env::{Entry, Env, Kind};
use crate::data::workload::ContainerRef;

/// A container log on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Whose it is.
    pub container: ContainerRef,
    /// The live file.
    pub path: PathBuf,
    /// True when that is a symbolic link: docker's logs lie elsewhere.
    pub linked: bool,
}

/// What a listing found.
#[derive(Debug, Default)]
pub struct Found {
    /// All container logs, sorted by path.
    pub logs: Vec<Candidate>,
    /// The root and the pod directories: new names here mean new containers.
    pub directories: Vec<PathBuf>,
    /// Container directories that have no log yet.
    pub empty: Vec<PathBuf>,
    /// A directory could not be listed though it is there: there may be more.
    pub incomplete: bool,
}

impl Found {
    /// The names in a directory, or nothing when it cannot be listed.
    fn names<E: Env>(&mut self, env: &E, dir: &Path) -> Option<Vec<Entry>> {
        match env.list(dir) {
            Ok(names) => Some(names),
            Err(error) => {
                self.incomplete |= error.kind() != io::ErrorKind::NotFound;
                None
            }
        }
    }
}

/// Lists the root. An error means that the root itself cannot be listed; directories that vanish meanwhile are
/// passed over.
pub fn list<E: Env>(env: &E, root: &Path) -> io::Result<Found> {
    let mut found = Found { directories: vec![root.to_owned()], ..Found::default() };
    for pod in env.list(root)? {
        if pod.kind != Kind::Directory || ContainerRef::from_path(&pod.name, "container", 0).is_none() {
            continue;
        }
        let pod_dir = root.join(&pod.name);
        let Some(containers) = found.names(env, &pod_dir) else { continue };
        found.directories.push(pod_dir.clone());
        for container in containers {
            if container.kind != Kind::Directory {
                continue;
            }
            let dir = pod_dir.join(&container.name);
            let Some(files) = found.names(env, &dir) else { continue };
            let before = found.logs.len();
            for file in files {
                // A link, or worse, is for the opener to judge and to count.
                let Some(restart) = file.name.strip_suffix(".log").and_then(|number| number.parse().ok())
                else {
                    continue;
                };
                if file.kind == Kind::Directory {
                    continue;
                }
                if let Some(container) = ContainerRef::from_path(&pod.name, &container.name, restart) {
                    let linked = file.kind == Kind::Symlink;
                    found.logs.push(Candidate { container, path: dir.join(&file.name), linked });
                }
            }
            if found.logs.len() == before {
                found.empty.push(dir);
            }
        }
    }
    found.logs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
