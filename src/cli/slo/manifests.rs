//! `--manifests`: objectives that Kubernetes manifests declare, beside those of the config.
//!
//! In: the config and files, `-` for standard input. Out: all objectives; problems of the files on stderr, each with its line.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use nodewick::config::Config;
use nodewick::slo::manifests;
use nodewick::slo::{Level, Spec};

use super::super::files::{NoText, name_of, read_text};

/// Manifests whose annotations declare objectives too.
#[derive(Debug, Args)]
pub(super) struct ManifestArgs {
    /// Kubernetes manifests, YAML or JSON, whose pods declare objectives by annotations; `-` is standard input. Can be given
    /// several times.
    #[arg(long = "manifests", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Namespace of objects in them that name none.
    #[arg(long, value_name = "NAME", requires = "files")]
    namespace: Option<String>,
}

/// Bytes of one file of manifests.
const MOST_MANIFESTS: usize = 32 << 20;

/// The objectives of the config, then those of manifests, over which the config's word stands.
pub(super) fn declared(config: &Config, manifests: &ManifestArgs) -> anyhow::Result<Vec<Spec>> {
    let mut specs = config.slo.specs();
    let files = manifests.files.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let found = manifests::read(&files, manifests.namespace.as_deref(), &config.slo.defaults);
    found.problems.iter().for_each(|problem| eprintln!("{problem}"));
    let errors = found.problems.iter().filter(|placed| placed.problem.level == Level::Error).count();
    if errors > 0 {
        anyhow::bail!("{errors} of the manifests' annotations cannot be honoured; mend them and try again");
    }
    for spec in found.specs {
        if specs.iter().any(|known| known.id() == spec.id()) {
            eprintln!("notice: config and manifests declare {}; the config's word stands", spec.id());
        } else {
            specs.push(spec);
        }
    }
    if specs.is_empty() {
        let where_to = match files.is_empty() {
            true => "the config declares no objective",
            false => "neither config nor manifests declare an objective",
        };
        anyhow::bail!(
            "{where_to}; write a table like [slo.checkout-availability] (docs/reference/config.md)"
        );
    }
    Ok(specs)
}

/// A file of manifests.
fn read(path: &Path) -> anyhow::Result<manifests::File> {
    let name = name_of(path);
    match read_text(path, MOST_MANIFESTS) {
        Ok(text) => Ok(manifests::File { name, text }),
        Err(NoText::Unreadable(cause)) => Err(cause).with_context(|| format!("cannot read {name}")),
        Err(NoText::TooLarge) => {
            anyhow::bail!("{name} is larger than 32MiB; give fewer manifests at a time")
        }
        Err(NoText::NotUtf8(line)) => anyhow::bail!("{name} is not UTF-8 in line {line}"),
    }
}
