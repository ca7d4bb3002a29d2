//! `nodewick completions` and `nodewick man`, made from the definition of the command line itself.

use std::process::ExitCode;

use clap::{CommandFactory as _, ValueEnum};

use super::{Cli, print, reference};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Markdown with every verb, flag, exit code and variable, instead of roff.
    #[arg(long)]
    markdown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The command with every verb in sight: what the first screen leaves out is completed and documented all the same.
fn command() -> clap::Command {
    let names: Vec<String> =
        Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    names
        .into_iter()
        .fold(Cli::command(), |command, name| command.mut_subcommand(name, |verb| verb.hide(false)))
}

pub(super) fn completions(args: &Args) -> anyhow::Result<ExitCode> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command(), "nodewick", &mut out);
    print(&String::from_utf8_lossy(&out))
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    if args.markdown {
        return print(&reference::markdown(command()));
    }
    let mut out = Vec::new();
    clap_mangen::Man::new(command().after_help("")).render(&mut out)?;
    print(&String::from_utf8_lossy(&out))
}
