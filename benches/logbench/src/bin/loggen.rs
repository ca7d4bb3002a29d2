//! Writes container logs for the benchmark.
//!
//! ```text
//! loggen backlog --dir DIR [--files 50] [--lines 1500000]           all at once, stamped over the last ten minutes
//! loggen steady  --dir DIR [--files 50] [--rate 10000] [--secs 60] [--start 0]      appended as time passes
//! loggen idle    --dir DIR [--files 100]                            ten lines a file, then silence
//! ```
//! Prints one JSON object: lines, bytes, files.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use logbench::line::{Container, Token, Writer};
use logbench::{now_micros, option};

/// A backlog is stamped as if it had been written over this time.
const BACKLOG_MICROS: u64 = 600_000_000;

/// Containers write whenever they like: here, whatever has fallen due every five milliseconds.
const STEADY_TICK: Duration = Duration::from_millis(5);

struct Log {
    pod: String,
    file: File,
    pending: Vec<u8>,
    bytes: u64,
}

impl Log {
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.bytes += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

fn main() -> std::io::Result<()> {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let root: PathBuf = option("--dir", PathBuf::new());
    assert!(!root.as_os_str().is_empty(), "--dir is missing");
    let files: usize = option("--files", if mode == "idle" { 100 } else { 50 });
    let mut logs = Vec::with_capacity(files);
    for index in 0..files {
        let container = Container::new(&root, index);
        fs::create_dir_all(container.log.parent().expect("a log has a directory"))?;
        let file = OpenOptions::new().create(true).append(true).open(&container.log)?;
        logs.push(Log { pod: container.pod, file, pending: Vec::new(), bytes: 0 });
    }
    let lines = match mode.as_str() {
        "backlog" => backlog(&mut logs, option("--lines", 1_500_000))?,
        "idle" => backlog(&mut logs, 10 * files)?,
        "steady" => steady(&mut logs, option("--rate", 10_000), option("--secs", 60), option("--start", 0))?,
        _ => panic!("usage: loggen backlog|steady|idle --dir DIR ..."),
    };
    let bytes: u64 = logs.iter().map(|log| log.bytes).sum();
    println!("{{\"lines\":{lines},\"bytes\":{bytes},\"files\":{files}}}");
    Ok(())
}

fn backlog(logs: &mut [Log], lines: usize) -> std::io::Result<usize> {
    let (mut writer, each) = (Writer::default(), lines / logs.len());
    let first = now_micros() - BACKLOG_MICROS;
    for (file, log) in logs.iter_mut().enumerate() {
        for seq in 0..each {
            let written_micros = first + seq as u64 * BACKLOG_MICROS / each as u64;
            writer.append(&mut log.pending, Token { file, seq, written_micros }, &log.pod);
            if log.pending.len() >= 1 << 20 {
                log.flush()?;
            }
        }
        log.flush()?;
    }
    Ok(each * logs.len())
}

fn steady(logs: &mut [Log], rate: u64, secs: u64, start: usize) -> std::io::Result<usize> {
    let (mut writer, began, mut written) = (Writer::default(), Instant::now(), 0usize);
    while began.elapsed() < Duration::from_secs(secs) {
        let due = (began.elapsed().as_micros() as u64 * rate / 1_000_000) as usize;
        while written < due {
            let (file, round) = (written % logs.len(), written / logs.len());
            let token = Token { file, seq: start + round, written_micros: now_micros() };
            let log = &mut logs[file];
            writer.append(&mut log.pending, token, &log.pod);
            written += 1;
        }
        for log in logs.iter_mut().filter(|log| !log.pending.is_empty()) {
            log.flush()?;
        }
        std::thread::sleep(STEADY_TICK);
    }
    Ok(written)
}
