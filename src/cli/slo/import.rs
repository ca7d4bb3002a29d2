//! `nodewick slo import`: other tools' objectives as tables of the config on stdout, what is rejected on stderr.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use nodewick::slo::Window;
use nodewick::slo::import::{self, MAX_INPUT, Options, Source};

use super::super::files::{NoText, name_of, read_text};
use super::print;

/// Exit code for a file that cannot be read (`EX_CONFIG` of sysexits.h).
const UNREADABLE: u8 = 78;

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// Files of OpenSLO v1, Sloth or Pyrra; `-` is standard input. References hold across them.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Write the tables there instead of to stdout.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Namespace of objectives whose queries name none.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Window of Sloth's objectives, whose files name none: 7d, 28d, 30d, 90d.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    window: Window,
}

pub(super) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let mut texts = Vec::new();
    for path in &args.files {
        match read(path) {
            Ok(found) => texts.push(found),
            Err(message) => {
                eprintln!("{message}");
                return Ok(ExitCode::from(UNREADABLE));
            }
        }
    }
    let sources: Vec<Source<'_>> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    let options = Options { namespace: args.namespace.clone(), window: args.window };
    let done = match import::read(&sources, &options) {
        Ok(done) => done,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(UNREADABLE));
        }
    };
    for rejected in &done.rejected {
        eprintln!("{rejected}");
    }
    for one in done.imported.iter().filter(|one| !one.notes.is_empty()) {
        for note in &one.notes {
            eprintln!("{}: note: {}: {note}", one.place, one.spec.name);
        }
    }
    eprintln!("{}", done.summary());
    match &args.out {
        Some(path) => {
            std::fs::write(path, done.toml()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => {
            print(&done.toml())?;
        }
    }
    Ok(if done.rejected.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file's name in messages and its text.
fn read(path: &Path) -> Result<(String, String), String> {
    let name = name_of(path);
    match read_text(path, MAX_INPUT) {
        Ok(text) => Ok((name, text)),
        Err(NoText::Unreadable(cause)) => {
            Err(format!("{name}: error: cannot read it: {cause}\n  = name files of OpenSLO, Sloth or Pyrra"))
        }
        Err(NoText::TooLarge) => Err(format!("{name}: error: larger than 1MiB\n  = split the file")),
        Err(NoText::NotUtf8(line)) => {
            Err(format!("{name}:{line}:1: error: not valid UTF-8\n  = save the file as UTF-8"))
        }
    }
}
