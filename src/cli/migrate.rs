//! `nodewick migrate`: another agent's config as ours on stdout, what is different on stderr.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nodewick::config::diagnostics::{Diagnostic, Diagnostics, Spot};
use nodewick::migrate::{self, MAX_INPUT};

use super::print;

/// Exit code for a translation that something was left out of.
const LOSSY: u8 = 3;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Translate a Promtail config: YAML, or a ConfigMap that holds it.
    Promtail(Args),
    /// Translate a Fluent Bit config: classic or YAML, or a ConfigMap that holds it.
    FluentBit(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    let done = match verb {
        Verb::Promtail(args) => {
            let (name, text) = read(&args.file)?;
            migrate::promtail(&name, &text)?
        }
        Verb::FluentBit(args) => {
            let (name, text) = read(&args.file)?;
            migrate::fluent_bit(&name, &text)?
        }
    };
    print(&done.toml)?;
    eprintln!("{done}");
    Ok(if done.is_lossy() { ExitCode::from(LOSSY) } else { ExitCode::SUCCESS })
}

/// The file's name in messages and its text; the next step refuses what is too large.
fn read(path: &Path) -> Result<(String, String), Diagnostics> {
    let stdin = path == Path::new("-");
    let name = if stdin { "<stdin>".to_owned() } else { path.display().to_string() };
    let fail = |message: String, help: &str| {
        let diagnostic = Diagnostic::error("", message, Spot::File(name.clone()));
        Err(Diagnostics(vec![diagnostic.help(Some(help.to_owned()))]))
    };
    let mut bytes = Vec::new();
    let limit = MAX_INPUT as u64 + 1;
    let read = if stdin {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    if let Err(cause) = read {
        return fail(format!("cannot read the config: {cause}"), "name the config file of the other agent");
    }
    if bytes.len() > MAX_INPUT {
        return fail("larger than 1MiB".to_owned(), "name one config file");
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            fail(format!("line {line} is not valid UTF-8"), "save the file as UTF-8")
        }
    }
}
