//! What a row found: checks that a row asserts, and a record of it from which the scoreboard is rendered.
//!
//! One JSON file a row below `target/faults/ci` or `target/faults/soak`. A row that cannot run here is recorded as
//! skipped, one that waits for a part of the product as pending; neither passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::Outcome;

/// What a row must keep to. The default is the table's default pass.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Lines that may be lost.
    pub lost: u64,
    /// Lines that may be received twice; `None` is any number.
    pub duplicated: Option<u64>,
    /// Lines that may be stored twice.
    pub duplicated_stored: u64,
    /// Lines that may arrive late in their stream.
    pub reordered: u64,
    /// Gaps that may be told of in the streams; `None` is any number.
    pub gaps: Option<u64>,
    /// Peak resident memory of the agent, in MiB.
    pub rss_mib: u64,
    /// Time from the fault's end until everything has arrived.
    pub recovery: Duration,
}

impl Default for Pass {
    fn default() -> Self {
        Self {
            lost: 0,
            duplicated: None,
            duplicated_stored: 0,
            reordered: 0,
            gaps: Some(0),
            rss_mib: 96,
            recovery: Duration::from_secs(30),
        }
    }
}

/// A row that runs. When dropped without [`finish`](Self::finish), it is recorded as failed.
pub struct Row {
    number: u32,
    /// Of a row that is several tests: which.
    part: &'static str,
    title: &'static str,
    injected: String,
    notes: Vec<String>,
    failed: Vec<String>,
    pending: Option<String>,
    began: Instant,
    done: bool,
}

impl Row {
    /// Begins a row. `injected` says what is done, in a few words.
    pub fn begin(number: u32, title: &'static str, injected: impl Into<String>) -> Self {
        let row = Self {
            number,
            part: "",
            title,
            injected: injected.into(),
            notes: Vec::new(),
            failed: Vec::new(),
            pending: None,
            began: Instant::now(),
            done: false,
        };
        let condemned =
            run_id().is_some_and(|id| fs::read_to_string(row.verdict_file()).is_ok_and(|of| of == id));
        assert!(
            !condemned,
            "row {number} lost, broke, moved or doubled lines in this run: no second attempt"
        );
        row
    }

    /// Where a run says that a row may not be tried again.
    fn verdict_file(&self) -> PathBuf {
        directory().join(format!("row-{:02}.condemned", self.number))
    }

    /// A machine that is too slow for a moment earns a second attempt; lines that are lost or wrong never do.
    fn condemn(&self) {
        let written = run_id()
            .map(|id| fs::create_dir_all(directory()).and_then(|()| fs::write(self.verdict_file(), id)));
        assert!(!matches!(written, Some(Err(_))), "{}: {written:?}", self.verdict_file().display());
    }

    /// Names this part of a row that is several tests.
    pub fn part(mut self, part: &'static str) -> Self {
        self.part = part;
        self
    }

    /// Says anew what is done.
    pub fn injected(&mut self, injected: impl Into<String>) {
        self.injected = injected.into();
    }

    /// A fact for the scoreboard.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A criterion of the row. All are looked at before the row fails.
    pub fn check(&mut self, holds: bool, criterion: impl Into<String>) {
        if !holds {
            self.failed.push(criterion.into());
        }
    }

    /// The product cannot pass yet, for this reason: failing is recorded and is no failure of the test.
    pub fn pending(&mut self, reason: impl Into<String>) {
        self.pending = Some(reason.into());
    }

    /// The row cannot run here.
    #[expect(clippy::print_stderr, reason = "a skipped row is said, not hidden")]
    pub fn skip(mut self, reason: &str) {
        eprintln!("SKIP row {}: {reason}", self.number);
        self.notes.push(reason.to_owned());
        self.record(None, "skipped");
    }

    /// Judges the outcome by `pass` and the row's own checks, records it, and fails the test if need be.
    #[expect(clippy::print_stderr, reason = "a row says what it found")]
    pub fn finish(mut self, outcome: &Outcome, pass: Pass) {
        let tally = outcome.tally;
        let mut limits = vec![
            ("lost", tally.lost, pass.lost),
            ("corrupt", tally.corrupt, 0),
            ("misattributed", tally.misattributed, 0),
            ("stored twice", tally.duplicated_stored, pass.duplicated_stored),
            ("reordered", tally.reordered, pass.reordered),
            ("probes that did not arrive", outcome.probes_missing as u64, 0),
            ("MiB resident", outcome.peak_rss_bytes >> 20, pass.rss_mib),
        ];
        limits.extend(pass.gaps.map(|limit| ("gaps told", tally.gaps, limit)));
        limits.extend(pass.duplicated.map(|limit| ("received twice", tally.duplicated, limit)));
        for (index, (what, found, limit)) in limits.into_iter().enumerate() {
            if index < 4 && found > limit {
                self.condemn();
            }
            self.check(found <= limit, format!("{found} {what}, {limit} allowed"));
        }
        self.check(outcome.recovery <= pass.recovery, format!("recovery took {:?}", outcome.recovery));
        self.check(tally.lines > 0, "no line was written");
        let verdict = match (self.failed.is_empty(), &self.pending) {
            (true, _) => "pass",
            (false, Some(_)) => "pending",
            (false, None) => "fail",
        };
        self.record(Some(outcome), verdict);
        let (number, failed) = (self.number, self.failed.join("\n  "));
        eprintln!("row {number}: {verdict} {:?} {tally:?} {:?}", self.notes, self.failed);
        if let (Some(reason), false) = (&self.pending, self.failed.is_empty()) {
            eprintln!("PENDING row {number}: {reason}");
        }
        let (broken, moved) = (&outcome.broken, outcome.moved());
        assert!(
            verdict != "fail",
            "row {number}, {}:\n  {failed}\nbroken lines: {broken:#?}\nmetrics: {moved:#?}",
            self.title
        );
    }

    fn record(&mut self, outcome: Option<&Outcome>, verdict: &str) {
        self.done = true;
        let mut notes = self.notes.clone();
        notes.extend(
            self.pending.iter().filter(|_| verdict == "pending").map(|reason| format!("pending: {reason}")),
        );
        notes.extend(self.failed.iter().cloned());
        let mut record = json!({
            "row": self.number,
            "part": self.part,
            "title": self.title,
            "injected": self.injected,
            "verdict": verdict,
            "note": notes.join("; "),
            "seconds": self.began.elapsed().as_secs_f64(),
        });
        if let Some(outcome) = outcome {
            let tally = outcome.tally;
            let figures = json!({
                "lines": tally.lines,
                "lost": tally.lost,
                "duplicated": tally.duplicated,
                "after_dedup": tally.duplicated_stored,
                "corrupt": tally.corrupt,
                "misattributed": tally.misattributed,
                "reordered": tally.reordered,
                "worst_latency_ms": tally.worst_latency_millis,
                "peak_rss_mib": outcome.peak_rss_bytes as f64 / 1048576.0,
                "recovery_s": outcome.recovery.as_secs_f64(),
            });
            let (record, figures) = (record.as_object_mut(), figures.as_object().cloned());
            if let (Some(record), Some(figures)) = (record, figures) {
                record.extend(figures);
            }
        }
        let directory = directory();
        let file = directory.join(format!("row-{:02}{}.json", self.number, self.part.replace(' ', "-")));
        let written = fs::create_dir_all(&directory).and_then(|()| fs::write(&file, format!("{record}\n")));
        assert!(written.is_ok() || std::thread::panicking(), "{}: {written:?}", file.display());
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if !self.done {
            self.failed.push("the row did not come to its end".to_owned());
            self.record(None, "fail");
        }
    }
}

/// The test runner's name for this run, the same for every attempt at a test.
fn run_id() -> Option<String> {
    std::env::var("NEXTEST_RUN_ID").ok()
}

/// Where the records lie.
fn directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    target.join("faults").join(if crate::rig::Scale::of_run().soak { "soak" } else { "ci" })
}
