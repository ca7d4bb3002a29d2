//! Rendered files as a verb hands them over: written below a directory, or compared with what is there.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use nodewick::data::rendered::File;

use super::print;

/// Writes `files` below `out` and lists them.
pub(super) fn write(files: &[File], out: &Path) -> anyhow::Result<ExitCode> {
    let mut list = String::new();
    for file in files {
        let path = out.join(&file.path);
        place(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(list, "{}", path.display())?;
    }
    print(&list)
}

/// Names those of `files` that are not below `out` as they should be, and fails if there are any.
pub(super) fn check(files: &[File], out: &Path) -> ExitCode {
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
