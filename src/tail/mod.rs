//! `nodewick tail`: what the local store holds, or what an agent reads, for human eyes, live.
//!
//! In: a store's directory or an agent's address, and what to select. Out: records as pretty text, as the store's JSON, or
//! as the raw line.
//! Invariant: in every form that may reach a terminal, control characters of log text are escaped.

mod escape;
mod http;
mod pretty;
pub mod remote;

pub use escape::{escape, is_unsafe};
pub use http::{BadRemote, Remote};
pub use pretty::{Style, write_pretty};

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use regex::Regex;

use crate::data::severity::Severity;
use crate::data::units;
use crate::sink::local::{Entry, Filter, From, Reader};

/// How often a store that was read to its end is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Follow the logs of this node as people read them.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Show only sources whose `namespace/service/container` or `pod/container` contains this.
    pub selector: Option<String>,
    /// Show only this trace; the first digits of its id are enough.
    #[arg(long, value_name = "ID", value_parser = trace_prefix)]
    pub trace: Option<String>,
    /// Show only lines of at least this level: trace, debug, info, warn, error, fatal.
    #[arg(long, value_parser = level)]
    pub level: Option<Severity>,
    /// Show only this namespace.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Show only services whose name contains this.
    #[arg(short, long)]
    pub service: Option<String>,
    /// Show only pods whose name contains this.
    #[arg(long)]
    pub pod: Option<String>,
    /// Show only this container.
    #[arg(long)]
    pub container: Option<String>,
    /// Show only lines that match this regular expression.
    #[arg(short, long, value_name = "REGEX")]
    pub grep: Option<Regex>,
    /// Begin at the first line not older than this (like 5m), rather than with the last lines. Of a running agent
    /// (--url) the node's log files are searched first.
    #[arg(long, value_name = "DURATION")]
    pub since: Option<units::Span>,
    /// Show no line younger than this (like 1m); with --search.
    #[arg(long, value_name = "DURATION", requires = "search")]
    pub until: Option<units::Span>,
    /// Search the log files of the agent's node (live, rotated, compressed, spilled) rather than follow live lines: for
    /// when the backend is down. Ends with status 1 when nothing is found.
    #[arg(long, conflicts_with_all = ["dir", "config", "follow"])]
    pub search: bool,
    /// Show at most so many records of a search, the newest of each container.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Search no longer than this; at most 60s.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<units::Span>,
    /// Begin with this many of the last lines that match.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub lines: usize,
    /// Wait for further lines (the default).
    #[arg(short, long, conflicts_with = "no_follow")]
    pub follow: bool,
    /// End at the newest line rather than wait for more.
    #[arg(long)]
    pub no_follow: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Pretty)]
    pub output: Output,
    /// Directory of the local store, or a state directory that holds one.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub dir: Option<PathBuf>,
    /// Config file of the agent whose local store to read.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of a running agent's status page: `http://127.0.0.1:9465`, perhaps through `kubectl port-forward`.
    #[arg(long, value_name = "URL", conflicts_with_all = ["dir", "config"])]
    pub url: Option<String>,
    /// File that holds the token of the status page, where it has one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "config"])]
    pub token_file: Option<PathBuf>,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Text for people.
    Pretty,
    /// The stored record, one JSON object a line.
    Json,
    /// The line alone as the container wrote it (control characters escaped on a terminal).
    Raw,
}

fn level(text: &str) -> Result<Severity, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "trace" => Severity::TRACE,
        "debug" => Severity::DEBUG,
        "info" => Severity::INFO,
        "warn" | "warning" => Severity::WARN,
        "error" => Severity::ERROR,
        "fatal" | "critical" => Severity::FATAL,
        _ => return Err("not a level; use trace, debug, info, warn, error or fatal".to_owned()),
    })
}

fn trace_prefix(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('…').to_ascii_lowercase();
    let valid = (4..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if valid { Ok(text) } else { Err("not a trace id; give 4 to 32 hex digits".to_owned()) }
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no store, and there is nothing to wait for.
    #[error(
        "no local store at {}; give its directory with --dir, or run the agent with a [sink.local.<name>] table",
        .0.display()
    )]
    NoStore(PathBuf),
    /// The store cannot be read.
    #[error("cannot read the local store at {}: {source}", .dir.display())]
    Unreadable {
        /// The store's directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// Nobody answers, or somebody else.
    #[error(
        "cannot reach the agent at {url}: {cause}; switch its status page on ([ui] listen = \"127.0.0.1:9465\") and, in a \
         cluster, run kubectl port-forward to its pod"
    )]
    NoAgent {
        /// Where.
        url: String,
        /// Why.
        cause: io::Error,
    },
    /// The agent does not answer the question.
    #[error("{url} answers: {text}")]
    Refused {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it says.
        text: String,
    },
    /// There is neither.
    #[error(
        "there is no local store ({store}) and no agent listens at {url}; name a store with --dir, or a running agent with \
         --url (its status page; in a cluster through kubectl port-forward)"
    )]
    Neither {
        /// Where a store was looked for, or why not.
        store: String,
        /// Where an agent was looked for.
        url: String,
    },
}

/// The store that `dir` names: itself, or the one below a state directory.
pub fn find_store(dir: &Path) -> PathBuf {
    let below = dir.join("local");
    let Ok(entries) = std::fs::read_dir(&below) else { return dir.to_owned() };
    let mut stores: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    stores.sort();
    stores.into_iter().next().unwrap_or_else(|| dir.to_owned())
}

impl Args {
    /// The filter that the arguments ask for, at time `now`.
    pub fn filter(&self, now: SystemTime) -> Filter {
        let since = self.since.map(|since| {
            let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(now.saturating_sub(since.0).as_nanos()).unwrap_or(0)
        });
        Filter {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            selector: self.selector.clone(),
            level: self.level,
            trace: self.trace.clone(),
            grep: self.grep.clone(),
            pod: self.pod.clone(),
            container: self.container.clone(),
            since_unix_nano: since,
            until_unix_nano: None,
        }
    }
}

/// Appends `entry`, whose stored line is `stored`, in the form `output`. `on_terminal` says that raw lines must be
/// escaped too.
pub fn render(
    entry: &Entry<'_>,
    stored: &[u8],
    output: Output,
    style: Style,
    on_terminal: bool,
    out: &mut String,
) {
    match output {
        Output::Pretty => write_pretty(entry, style, out),
        // The store's JSON holds its control characters escaped already; a foreign file in its place may not.
        Output::Json => {
            for char in String::from_utf8_lossy(stored).chars() {
                if char.is_control() {
                    use std::fmt::Write;
                    let _ = write!(out, "\\u{:04x}", u32::from(char));
                } else {
                    out.push(char);
                }
            }
            out.push('\n');
        }
        Output::Raw => {
            if on_terminal {
                escape(&entry.line, out);
            } else {
                out.push_str(&entry.line);
            }
            out.push('\n');
        }
    }
}

/// What is new in the store as pretty text, in the order of the records' times as far as they arrived together, and
/// whether there may be more at once.
///
/// # Errors
/// Those of reading.
pub fn poll_pretty(reader: &mut Reader, style: Style) -> io::Result<(String, bool)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let more = reader.poll(&mut |entry, _| {
        let mut text = String::new();
        write_pretty(entry, style, &mut text);
        found.push((entry.time.clone().into_owned(), text));
        Ok(())
    })?;
    // The times are RFC 3339 of equal length in UTC, so they sort as text; lines of one container keep their order.
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((found.into_iter().map(|(_, text)| text).collect(), more))
}

/// Shows what `args` select from the store in `dir`, until `stop` is set when following. Data goes to `out`, notices
/// to `notices`. A reader of `out` that goes away ends it without an error.
///
/// # Errors
/// When there is no store and nothing to wait for, when it cannot be read, or when `out` refuses.
pub fn run(
    args: &Args,
    dir: &Path,
    style: Style,
    on_terminal: bool,
    out: &mut dyn Write,
    notices: &mut dyn Write,
    stop: &AtomicBool,
) -> Result<(), Error> {
    if !dir.is_dir() {
        if args.no_follow {
            return Err(Error::NoStore(dir.to_owned()));
        }
        let _ = writeln!(notices, "no local store at {} yet: waiting for it", dir.display());
    }
    let from = if args.since.is_some() { From::Start } else { From::Last(args.lines) };
    let unreadable = |source| Error::Unreadable { dir: dir.to_owned(), source };
    let mut reader = Reader::open(dir, from, args.filter(SystemTime::now())).map_err(unreadable)?;
    let mut missed = 0;
    while !stop.load(Ordering::Relaxed) {
        let (text, more) = if args.output == Output::Pretty {
            poll_pretty(&mut reader, style).map_err(unreadable)?
        } else {
            let mut text = String::new();
            let more = reader.poll(&mut |entry, stored| {
                render(entry, stored, args.output, style, on_terminal, &mut text);
                Ok(())
            });
            (text, more.map_err(unreadable)?)
        };
        if !text.is_empty() {
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                other => other.map_err(Error::Output)?,
            }
        }
        if reader.missed_segments() > missed {
            missed = reader.missed_segments();
            let _ = writeln!(notices, "the store removed {missed} segments before they were shown");
        }
        if !more {
            if args.no_follow {
                return Ok(());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Cli::try_parse_from(std::iter::once("tail").chain(words.iter().copied())).map(|cli| cli.args)
    }

    #[test]
    fn the_command_line_reads_as_documented() {
        let args =
            parse(&["checkout", "--trace", "0AF76519…", "--level", "warning", "-n", "shop", "-o", "raw"])
                .expect("valid");
        assert_eq!(args.selector.as_deref(), Some("checkout"));
        assert_eq!(args.trace.as_deref(), Some("0af76519"));
        assert_eq!(args.level, Some(Severity::WARN));
        assert_eq!((args.output, args.lines, args.no_follow), (Output::Raw, 20, false));
        for wrong in [&["--trace", "xyz"][..], &["--level", "loud"], &["-g", "("], &["-f", "--no-follow"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_store_and_nothing_to_wait_for_is_said() {
        let dir = Path::new("/nonexistent/store");
        let args = parse(&["--no-follow"]).expect("valid");
        let (mut out, mut notices) = (Vec::new(), Vec::new());
        let error = run(&args, dir, Style::PLAIN, false, &mut out, &mut notices, &AtomicBool::new(false));
        assert_eq!(
            error.expect_err("no store").to_string(),
            "no local store at /nonexistent/store; give its directory with --dir, or run the agent with a [sink.local.<name>] table"
        );
    }

    #[test]
    fn each_form_keeps_its_promise_about_control_characters() {
        let entry = Entry { line: "a\u{1b}[1m\u{9b}".into(), ..Entry::default() };
        let shown = |output, on_terminal| {
            let mut out = String::new();
            render(&entry, "{\"line\":\"\u{9b}\"}".as_bytes(), output, Style::PLAIN, on_terminal, &mut out);
            out
        };
        assert_eq!(shown(Output::Json, false), "{\"line\":\"\\u009b\"}\n");
        assert_eq!(shown(Output::Raw, true), "a\\x1b[1m\\u{9b}\n");
        assert_eq!(shown(Output::Raw, false), "a\u{1b}[1m\u{9b}\n");
    }
}
