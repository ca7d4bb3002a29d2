//! `nodewick test`: unit tests of processing rules.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nodewick::config::diagnostics::{Diagnostic, Diagnostics, Spot};
use nodewick::config::load;
use nodewick::inspect::{Pipeline, cases};

use super::{ConfigArgs, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Files with cases; default: beside the config file, `agent.toml` has its cases in `agent.test.toml`.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print failing cases and the summary only.
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = args.config.load()?;
    let pipeline = Pipeline::new(&loaded.config)?;
    let mut files = args.files.clone();
    if files.is_empty() {
        let config = args.config.config.clone().or_else(load::default_file);
        let Some(config) = config else {
            anyhow::bail!("no file with cases: name one, or give the config with -c and put them beside it");
        };
        files.push(config.with_extension("test.toml"));
    }
    let (mut known, mut bad) = (Vec::new(), Vec::new());
    for file in &files {
        let found = read_file(file).and_then(|(name, text)| Ok((cases::read(&name, &text)?, name)));
        match found {
            Ok((cases, name)) => known.push((name, cases)),
            Err(Diagnostics(more)) => bad.extend(more),
        }
    }
    if !bad.is_empty() {
        return Err(Diagnostics(bad).into());
    }
    let (mut out, mut count, mut failed) = (String::new(), 0, 0);
    for (name, cases) in &known {
        for case in cases {
            let differences = case.run(&pipeline);
            count += 1;
            failed += usize::from(!differences.is_empty());
            if !args.quiet || !differences.is_empty() {
                let problems = pipeline.problems(&case.who);
                out.push_str(&cases::report(name, case, &problems, &differences));
            }
        }
    }
    out.push_str(&cases::summary(count, failed));
    print(&out)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Bytes that a file of cases may have.
const FILE_LIMIT: u64 = 4 << 20;

/// A file's name in messages, and its text.
fn read_file(path: &Path) -> Result<(String, String), Diagnostics> {
    let name = path.display().to_string();
    let fail = |message: String, help: &str| {
        let diagnostic = Diagnostic::error("", message, Spot::File(name.clone()));
        Err(Diagnostics(vec![diagnostic.help(Some(help.to_owned()))]))
    };
    let mut bytes = Vec::new();
    if let Err(cause) = File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)) {
        return fail(
            format!("cannot read the file of cases: {cause}"),
            "name a TOML file with [[case]] tables",
        );
    }
    if bytes.len() as u64 > FILE_LIMIT {
        return fail(
            "the file of cases is larger than 4MiB".to_owned(),
            "split it: several files may be named",
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(_) => {
            fail("not valid UTF-8".to_owned(), "save the file as UTF-8; write other bytes as \\u escapes")
        }
    }
}
