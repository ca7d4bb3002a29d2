//! Files as verbs take them and hand them over: bounded input, `-` for standard input; rendered files written below a
//! directory, or compared with what is there.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use nodewick::data::rendered::File;

use super::print;

/// Why an input is no text.
pub(super) enum NoText {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is larger than what is taken.
    TooLarge,
    /// It is not UTF-8 from this line on.
    NotUtf8(usize),
}

/// A file, or standard input for `-`: at most one byte more than `limit`.
pub(super) fn read_bytes(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, limit) = (Vec::new(), limit as u64 + 1);
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The text of such a file of at most `limit` bytes.
pub(super) fn read_text(path: &Path, limit: usize) -> Result<String, NoText> {
    let bytes = read_bytes(path, limit).map_err(NoText::Unreadable)?;
    if bytes.len() > limit {
        return Err(NoText::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        NoText::NotUtf8(valid.iter().filter(|byte| **byte == b'\n').count() + 1)
    })
}

/// What such a file is called in messages.
pub(super) fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// Where rendered files go.
#[derive(Debug, clap::Args)]
pub(super) struct OutArgs {
    /// Directory to write to.
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Write nothing; exit 1 when a file differs from what would be written.
    #[arg(long)]
    check: bool,
}

impl OutArgs {
    /// Whether files are only compared.
    pub(super) fn checks(&self) -> bool {
        self.check
    }

    /// Writes `files` and lists them, or compares them with what is there.
    pub(super) fn hand_over(&self, files: &[File]) -> anyhow::Result<ExitCode> {
        if self.check { Ok(check(files, &self.out)) } else { write(files, &self.out) }
    }
}

/// Writes `files` below `out` and lists them.
fn write(files: &[File], out: &Path) -> anyhow::Result<ExitCode> {
    let mut list = String::new();
    for file in files {
        let path = out.join(&file.path);
        place(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(list, "{}", path.display())?;
    }
    print(&list)
}

/// Names those of `files` that are not below `out` as they should be, and fails if there are any.
fn check(files: &[File], out: &Path) -> ExitCode {
    let differs =
        |file: &&File| std::fs::read_to_string(out.join(&file.path)).ok().as_ref() != Some(&file.text);
    let differing: Vec<&File> = files.iter().filter(differs).collect();
    for file in &differing {
        eprintln!("{} differs from what would be written", out.join(&file.path).display());
    }
    if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn place(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, text)
}
