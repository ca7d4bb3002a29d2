//! `nodewick tail --url`: the lines of an agent elsewhere, through its listener for people; `--search`: what its files hold.
//!
//! In: what to select, and where the agent is. Out: the same forms as of the local store. Invariants: a connection that ends
//! is told and made anew, and goes on behind the newest line shown; a record that a search has shown is not shown again by
//! the tail that follows it.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::http::{Lines, Next, Refusal, Remote, add};
use super::{Args, Error, Style, render};
use crate::sink::local::Entry;

/// First and longest pause before a connection is made anew.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// How far before the beginning of a search a tail begins that follows it: what was read then may come out late.
const OVERLAP: Duration = Duration::from_secs(10);
/// Lines that a tail begins with at most.
const MOST_LINES: usize = 10_000;
/// Bytes of records that are put in order of their times.
const SORTED_BYTES: usize = 64 << 20;

/// Beside the records.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Notice {
    skipped: Option<u64>,
    searched: Option<Searched>,
}

/// What was searched, as the agent says at the end.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Searched {
    complete: bool,
    cut: Option<String>,
    logs: u64,
    files: u64,
    bytes: u64,
    matches: u64,
    shown: u64,
    milliseconds: u64,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Skipped {
    file: String,
    reason: String,
}

/// Where things are shown.
struct Screen<'a> {
    args: &'a Args,
    style: Style,
    on_terminal: bool,
    out: &'a mut dyn Write,
    notices: &'a mut dyn Write,
}

impl Screen<'_> {
    fn render(&self, entry: &Entry<'_>, stored: &[u8], text: &mut String) {
        render(entry, stored, self.args.output, self.style, self.on_terminal, text);
    }

    /// False when nobody reads any more.
    fn print(&mut self, text: &str) -> Result<bool, Error> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            other => other.map(|()| true).map_err(Error::Output),
        }
    }

    fn say(&mut self, notice: &str) {
        // What another process said may reach a terminal.
        let mut escaped = String::new();
        super::escape(notice, &mut escaped);
        let _ = writeln!(self.notices, "{escaped}");
    }
}

/// Shows what `args` select of the lines of `remote`, until `stop` is set when following. False when a search found nothing.
///
/// # Errors
/// When nobody answers at first, when the agent refuses the question, or when `out` refuses.
pub fn run(
    args: &Args,
    remote: &Remote,
    style: Style,
    on_terminal: bool,
    out: &mut dyn Write,
    notices: &mut dyn Write,
    stop: &AtomicBool,
) -> Result<bool, Error> {
    let mut screen = Screen { args, style, on_terminal, out, notices };
    let begun = SystemTime::now();
    let mut shown = HashSet::new();
    if args.search || args.since.is_some() {
        let Some(found) = search(remote, &mut screen, &mut shown, stop)? else { return Ok(true) };
        if args.search || args.no_follow {
            return Ok(found > 0);
        }
    }
    let since = args.since.map(|_| rfc3339(begun - OVERLAP));
    follow(remote, &mut screen, since, &shown, stop)?;
    Ok(true)
}

/// Follows the live lines. Those whose hash is in `shown` are passed over.
fn follow(
    remote: &Remote,
    screen: &mut Screen<'_>,
    mut since: Option<String>,
    shown: &HashSet<u64>,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let mut pause = PAUSE.0;
    let mut connected_before = false;
    while !stop.load(Ordering::Relaxed) {
        let lines = if since.is_some() { MOST_LINES } else { screen.args.lines };
        let mut path = question("/api/tail", screen.args, since.as_deref());
        add(&mut path, "limit", &lines.min(MOST_LINES).to_string());
        if screen.args.no_follow {
            add(&mut path, "follow", "no");
        }
        let cause = match remote.get(&path) {
            Ok(Ok(mut stream)) => {
                if connected_before {
                    screen.say(&format!("connected to {} again", remote.url()));
                }
                connected_before = true;
                pause = PAUSE.0;
                match show_stream(&mut stream, screen, &mut since, shown, stop)? {
                    Ended::Stopped => return Ok(()),
                    Ended::ByAgent if screen.args.no_follow => return Ok(()),
                    Ended::ByAgent => "it ended".to_owned(),
                    Ended::Broken(error) => error.to_string(),
                }
            }
            Ok(Err(refusal)) if !connected_before => return Err(refused(remote, refusal)),
            Ok(Err(refusal)) => refusal.text,
            Err(cause) if !connected_before => return Err(Error::NoAgent { url: remote.url(), cause }),
            Err(error) => error.to_string(),
        };
        screen.say(&format!("the connection to {} is gone ({cause}); connecting again", remote.url()));
        wait(pause, stop);
        pause = (pause * 2).min(PAUSE.1);
    }
    Ok(())
}

/// How a stream ended.
enum Ended {
    Stopped,
    ByAgent,
    Broken(io::Error),
}

fn show_stream(
    stream: &mut Lines,
    screen: &mut Screen<'_>,
    since: &mut Option<String>,
    shown: &HashSet<u64>,
    stop: &AtomicBool,
) -> Result<Ended, Error> {
    let mut text = String::new();
    let mut newest = since.clone().unwrap_or_default();
    while !stop.load(Ordering::Relaxed) {
        match stream.next() {
            Ok(Next::Line([])) | Ok(Next::Nothing) => {}
            Ok(Next::Line(line)) => match Entry::parse(line) {
                Some(entry) => {
                    if *entry.time > *newest {
                        newest = entry.time.clone().into_owned();
                    }
                    if !shown.contains(&xxh3_64(line)) {
                        screen.render(&entry, line, &mut text);
                    }
                }
                None => {
                    let notice: Notice = serde_json::from_slice(line).unwrap_or_default();
                    if let Some(skipped) = notice.skipped {
                        screen.say(&format!(
                            "{skipped} records were left out here: more came than could be shown"
                        ));
                    }
                }
            },
            Ok(Next::End) => return Ok(Ended::ByAgent),
            Err(error) => return Ok(Ended::Broken(error)),
        }
        if !text.is_empty() && (!stream.has_more() || text.len() > 64 << 10) {
            if !screen.print(&text)? {
                return Ok(Ended::Stopped);
            }
            text.clear();
            // What comes after a new connection begins behind this.
            if !newest.is_empty() {
                *since = Some(behind(&newest));
            }
        }
    }
    Ok(Ended::Stopped)
}

/// Searches the node's files; how many records were shown. `None` when stopped, or when nobody reads any more.
fn search(
    remote: &Remote,
    screen: &mut Screen<'_>,
    shown: &mut HashSet<u64>,
    stop: &AtomicBool,
) -> Result<Option<u64>, Error> {
    let args = screen.args;
    let mut path = question("/api/search", args, None);
    if let Some(since) = args.since {
        add(&mut path, "since", &since.to_string());
    }
    if let Some(limit) = args.limit {
        add(&mut path, "limit", &limit.to_string());
    }
    if let Some(timeout) = args.timeout {
        add(&mut path, "timeout", &timeout.to_string());
    }
    let lost = |cause| Error::NoAgent { url: remote.url(), cause };
    let mut stream = remote.get(&path).map_err(lost)?.map_err(|refusal| refused(remote, refusal))?;
    let mut found: Vec<(String, String)> = Vec::new();
    let (mut bytes, mut searched) = (0, None);
    while !stop.load(Ordering::Relaxed) {
        match stream.next().map_err(lost)? {
            Next::Line(line) => match Entry::parse(line) {
                Some(entry) => {
                    let mut text = String::new();
                    screen.render(&entry, line, &mut text);
                    shown.insert(xxh3_64(line));
                    bytes += text.len();
                    found.push((entry.time.into_owned(), text));
                }
                None => {
                    let notice: Notice = serde_json::from_slice(line).unwrap_or_default();
                    searched = notice.searched.or(searched);
                }
            },
            Next::Nothing => {}
            Next::End => break,
        }
        if bytes > SORTED_BYTES {
            bytes = 0;
            if !screen.print(&in_order(&mut found))? {
                return Ok(None);
            }
        }
    }
    if stop.load(Ordering::Relaxed) || !screen.print(&in_order(&mut found))? {
        return Ok(None);
    }
    match searched {
        Some(searched) => {
            screen.say(&summary(&searched));
            for skipped in &searched.skipped {
                screen.say(&format!("not searched: {}: {}", skipped.file, skipped.reason));
            }
            Ok(Some(searched.shown))
        }
        None => Err(lost(io::Error::new(io::ErrorKind::UnexpectedEof, "the search broke off"))),
    }
}

/// Records in the order of their times; those of one container keep theirs.
fn in_order(found: &mut Vec<(String, String)>) -> String {
    // The times are RFC 3339 of equal length in UTC, so they sort as text.
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.drain(..).map(|(_, text)| text).collect()
}

fn summary(searched: &Searched) -> String {
    let Searched { logs, files, bytes, matches, shown, milliseconds, .. } = searched;
    let mib = *bytes as f64 / f64::from(1 << 20);
    let seconds = *milliseconds as f64 / 1e3;
    let mut text = format!(
        "searched {logs} logs, {files} files, {mib:.1} MiB in {seconds:.1} s: {matches} records found"
    );
    let why = match searched.cut.as_deref() {
        _ if searched.complete => return text,
        Some("deadline") => "the time was over: raise --timeout, or narrow the search",
        Some("bytes") => "it had read enough: narrow the search with --since, -n or --pod",
        Some("limit") if shown < matches => "only the newest are shown: raise --limit, or narrow the search",
        Some("limit") => "there may be more: raise --limit, or narrow the search",
        Some("stopping") => "the agent stops or takes up a new config: search again",
        _ => "it was cut short",
    };
    text.push_str("; not all: ");
    text.push_str(why);
    text
}

/// The filter as a question.
fn question(path: &str, args: &Args, since: Option<&str>) -> String {
    let mut path = path.to_owned();
    add(&mut path, "format", "ndjson");
    for (key, value) in [
        ("ns", args.namespace.as_deref()),
        ("service", args.service.as_deref()),
        ("pod", args.pod.as_deref()),
        ("container", args.container.as_deref()),
        ("selector", args.selector.as_deref()),
        ("level", args.level.map(|level| level.level())),
        ("trace", args.trace.as_deref()),
        ("grep", args.grep.as_ref().map(regex::Regex::as_str)),
        ("since", since),
    ] {
        if let Some(value) = value {
            add(&mut path, key, value);
        }
    }
    if let Some(until) = args.until {
        add(&mut path, "until", &until.to_string());
    }
    path
}

fn refused(remote: &Remote, refusal: Refusal) -> Error {
    Error::Refused { url: remote.url(), status: refusal.status, text: refusal.text }
}

fn rfc3339(time: SystemTime) -> String {
    let nanos = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut text = Vec::new();
    crate::sink::json::write_rfc3339(u64::try_from(nanos).unwrap_or(0), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A nanosecond later.
fn behind(time: &str) -> String {
    let nanos =
        time.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    let mut text = Vec::new();
    crate::sink::json::write_rfc3339(nanos.map_or(0, |nanos| nanos + 1), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Sleeps, unless stopped.
fn wait(time: Duration, stop: &AtomicBool) {
    let begun = Instant::now();
    while begun.elapsed() < time && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_says_how_far_it_came_and_what_to_do() {
        let searched: Notice = serde_json::from_str(
            r#"{"searched":{"complete":false,"cut":"deadline","logs":3,"files":5,"files_out_of_range":1,"files_skipped":0,"bytes":1572864,"matches":7,"shown":7,"milliseconds":10000}}"#,
        )
        .expect("as the agent writes it");
        assert_eq!(
            summary(&searched.searched.expect("there")),
            "searched 3 logs, 5 files, 1.5 MiB in 10.0 s: 7 records found; not all: the time was over: raise --timeout, or narrow the search"
        );
        let whole = Searched { complete: true, logs: 1, files: 1, ..Searched::default() };
        assert_eq!(summary(&whole), "searched 1 logs, 1 files, 0.0 MiB in 0.0 s: 0 records found");
    }

    #[test]
    fn a_new_connection_goes_on_a_nanosecond_later() {
        assert_eq!(behind("2026-11-22T14:51:07.999999999Z"), "2026-11-22T14:51:08.000000000Z");
    }
}
