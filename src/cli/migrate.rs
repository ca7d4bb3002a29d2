//! `nodewick migrate`: another agent's config as ours on stdout, what is different on stderr.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nodewick::config::diagnostics::{Diagnostic, Diagnostics, Spot};
use nodewick::migrate::{self, MAX_INPUT};

use super::files::{NoText, name_of, read_text};
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

/// The file's name in messages and its text.
fn read(path: &Path) -> Result<(String, String), Diagnostics> {
    let name = name_of(path);
    let (message, help) = match read_text(path, MAX_INPUT) {
        Ok(text) => return Ok((name, text)),
        Err(NoText::Unreadable(cause)) => {
            (format!("cannot read the config: {cause}"), "name the config file of the other agent")
        }
        Err(NoText::TooLarge) => ("larger than 1MiB".to_owned(), "name one config file"),
        Err(NoText::NotUtf8(line)) => (format!("line {line} is not valid UTF-8"), "save the file as UTF-8"),
    };
    let diagnostic = Diagnostic::error("", message, Spot::File(name));
    Err(Diagnostics(vec![diagnostic.help(Some(help.to_owned()))]))
}
