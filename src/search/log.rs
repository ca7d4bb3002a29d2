//! One log of the node, from its oldest file to its newest, through the agent's own stages.
//!
//! In: the log's files in order ([`resume::plan`](crate::logs::resume::plan)), who wrote it, and what is looked for. Out:
//! the records that are looked for, encoded, in the log's order. Invariants: a record that comes out is the one that the
//! agent sends, for it was framed, joined, parsed, processed and redacted by the same code from far enough back; one whose
//! line has no end yet does not come out, since a secret may not have its end either.
//!
//! Where what is looked for must stand in the raw bytes, they are only looked through ("cold") until it is found; the
//! stages begin a stretch before that and go on for a stretch behind it ("warm").

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::job::{Cut, Job};
use super::needle::Needle;
use crate::data::batch::{Batch, Fields, Record};
use crate::data::budget::{Budget, Signal};
use crate::data::position::Position;
use crate::data::workload::{Handling, Workload};
use crate::logs::annotated::Annotated;
use crate::logs::chain::Open;
use crate::logs::env::LogFile;
use crate::logs::frame::{self, Framing};
use crate::logs::ingest::{LineState, Settings};
use crate::logs::inherit;
use crate::logs::os::OsFile;
use crate::logs::source::{Gap, Source};
use crate::sink::json::write_json;
use crate::sink::local::Filter;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Stretch of a file that is not parted further when a time is looked for.
const STRETCH: u64 = 256 << 10;
/// How far lines of one log may be out of the order of their times.
const DISORDER: Duration = Duration::from_secs(10);
/// A file whose end has not moved for so long has no line that is being written.
const OVER: Duration = Duration::from_secs(60);
/// How much later than its file's last change a line of an application may claim to be. The framer believes no more.
const AHEAD: Duration = Duration::from_secs(600);

/// How far before what is found in it a record may begin, and how far behind a line its trace id may be taken over.
fn look_back(settings: &Settings) -> u64 {
    2 * settings.max_line as u64 + inherit::REACH
}

/// What is looked for, and how lines become records.
pub(super) struct Wanted<'a> {
    pub(super) filter: &'a Filter,
    pub(super) needle: Option<&'a Needle>,
    pub(super) settings: &'a Settings,
    pub(super) fields: Fields,
    /// Wall clock, nanoseconds since the epoch.
    pub(super) now: u64,
}

/// A log to be searched.
pub(super) struct Log<'a> {
    wanted: &'a Wanted<'a>,
    workload: Arc<Workload>,
    handling: Arc<Handling>,
    framing: Framing,
    path: Arc<str>,
    files: Vec<File>,
    at: Place,
    warm: Option<Warm>,
    /// A line did not fit the last read.
    long: bool,
    budget: Arc<Budget>,
}

/// One file.
struct File {
    source: Source<OsFile>,
    start: u64,
    end: u64,
    /// Bytes are missing before it.
    hole: bool,
    /// When it was last written to, nanoseconds since the epoch; what is spilled does not say.
    modified: Option<u64>,
    counted: bool,
}

/// A place in the log: a file by its index, and an offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: usize,
    offset: u64,
}

/// The stages at work.
struct Warm {
    lines: LineState,
    /// What begins before it is read for warmth only.
    shown_from: Place,
    /// Where what is looked for was found first.
    hit: Place,
    /// Reading began within a line.
    torn: bool,
    /// Bytes since what is looked for was last seen.
    since: u64,
}

impl<'a> Log<'a> {
    pub(super) fn new(
        wanted: &'a Wanted<'a>,
        workload: Arc<Workload>,
        handling: Arc<Handling>,
        framing: Framing,
        path: Arc<str>,
        files: impl Iterator<Item = Open<Source<OsFile>>>,
    ) -> Self {
        let file = |open: Open<Source<OsFile>>| File {
            start: open.offset,
            end: open.size,
            hole: open.missing_before.is_some(),
            modified: match &open.file {
                Source::File(file) => file.modified().ok(),
                _ => None,
            },
            source: open.file,
            counted: false,
        };
        let files: Vec<File> = files.map(file).collect();
        let at = Place { file: 0, offset: files.first().map_or(0, |file| file.start) };
        let budget = Budget::new(u64::MAX, Arc::<Signal>::default());
        Self { wanted, workload, handling, framing, path, files, at, warm: None, long: false, budget }
    }

    /// Searches all of it.
    pub(super) fn run(&mut self, job: &mut Job) -> Result<(), Cut> {
        let begin = self.first_within();
        job.passed_over(begin.file as u64);
        if begin.file == self.files.len() {
            return Ok(());
        }
        self.at = begin;
        if self.wanted.needle.is_none() {
            self.warm_up(begin);
        }
        while self.at.file < self.files.len() {
            job.check()?;
            if !self.files[self.at.file].counted {
                if self.is_past(self.at.file) {
                    job.passed_over((self.files.len() - self.at.file) as u64);
                    break;
                }
                self.files[self.at.file].counted = true;
                job.opened();
            }
            let on = if self.warm.is_some() { self.read(job) } else { self.look(job) };
            if !on? {
                break;
            }
        }
        self.end(job);
        Ok(())
    }

    /// Where the first line may stand that is not too old. Behind the last file when there is none.
    fn first_within(&self) -> Place {
        let mut at = self.at;
        let Some(since) = self.wanted.filter.since_unix_nano else { return at };
        let own_times = matches!(self.framing, Framing::Lines { .. });
        let slack = if own_times { DISORDER + AHEAD } else { DISORDER };
        let is_before = |time: u64| time.saturating_add(slack.as_nanos() as u64) < since;
        while let Some(file) = self.files.get(at.file) {
            let next = at.file + 1;
            // What an application says of its times need not grow from file to file.
            let next_begun =
                || (next < self.files.len() && !own_times).then(|| self.first_time(next)).flatten();
            if !file.modified.is_some_and(is_before) && !next_begun().is_some_and(is_before) {
                break;
            }
            at = Place { file: next, offset: self.files.get(next).map_or(0, |file| file.start) };
        }
        let Some(file) = self.files.get(at.file).filter(|_| !own_times) else { return at };
        // The content of a compressed file is read in order anyway.
        if matches!(&file.source, Source::File(OsFile::Gzip(_))) {
            return at;
        }
        let (mut low, mut high) = (file.start, file.end);
        while high - low > STRETCH {
            let middle = low + (high - low) / 2;
            match self.line_behind(at.file, middle) {
                Some((offset, time)) if is_before(time) && offset < high => low = offset,
                Some(_) => high = middle,
                None => break,
            }
        }
        Place { offset: low, ..at }
    }

    /// True when all of a file, and so of those after it, is too new.
    fn is_past(&self, file: usize) -> bool {
        let Some(until) = self.horizon() else { return false };
        self.first_time(file).is_some_and(|time| time > until)
    }

    /// Lines that are stamped later are not wanted, and nor is what follows them.
    fn horizon(&self) -> Option<u64> {
        let until = self.wanted.filter.until_unix_nano?;
        let own_times = matches!(self.framing, Framing::Lines { .. } | Framing::Taken);
        (!own_times).then(|| until.saturating_add(DISORDER.as_nanos() as u64))
    }

    /// Stamp of a file's first line.
    fn first_time(&self, file: usize) -> Option<u64> {
        let (lines, file) = (self.new_lines(), &self.files[file]);
        let mut begin = Vec::with_capacity(lines.stamp_reach());
        file.source.read_at(file.start, lines.stamp_reach(), &mut begin).ok()?;
        lines.stamp_of(&begin)
    }

    /// The first line that begins behind an offset, and its stamp.
    fn line_behind(&self, file: usize, offset: u64) -> Option<(u64, u64)> {
        let (lines, file) = (self.new_lines(), &self.files[file]);
        let mut bytes = Vec::with_capacity(CHUNK);
        file.source.read_at(offset, CHUNK, &mut bytes).ok()?;
        let newline = memchr::memchr(b'\n', &bytes)?;
        let time = lines.stamp_of(&bytes[newline + 1..])?;
        Some((offset + newline as u64 + 1, time))
    }

    fn new_lines(&self) -> LineState {
        let mut lines = LineState::new(self.wanted.settings.max_line).with_framing(self.framing).quietly();
        let annotated = Annotated::of(&self.handling);
        lines.set_annotated(annotated.map(|annotated| Box::new(annotated.quietly())));
        if let Some(Ok(mode)) = self.handling.multiline.as_deref().map(str::parse) {
            lines.set_multiline(mode);
        }
        lines
    }

    /// Sets the stages to work so far before a place that a record there is as it would be sent.
    fn warm_up(&mut self, hit: Place) {
        let settings = self.wanted.settings;
        // A record may begin some lines before what is found in it.
        let shown_from = self.before(hit, look_back(settings));
        let warm = settings.warm_up_start(shown_from.offset).saturating_sub(settings.max_line as u64);
        let begin = match shown_from.offset - warm.min(shown_from.offset) {
            back if warm > self.files[shown_from.file].start => self.before(shown_from, back),
            _ => Place { offset: self.files[shown_from.file].start, ..shown_from },
        };
        let mut lines = self.new_lines();
        lines.set_first_time(self.files[begin.file].modified.unwrap_or(self.wanted.now));
        let torn = begin.offset > self.files[begin.file].start;
        self.at = begin;
        self.long = false;
        self.warm = Some(Warm { lines, shown_from, hit, torn, since: 0 });
        self.say_when_read();
    }

    /// The place so many bytes before, in an earlier file if need be.
    fn before(&self, place: Place, mut bytes: u64) -> Place {
        let Place { mut file, mut offset } = place;
        loop {
            let start = self.files[file].start;
            let room = offset.saturating_sub(start);
            if room >= bytes || file == 0 {
                return Place { file, offset: offset.saturating_sub(bytes).max(start) };
            }
            bytes -= room;
            file -= 1;
            offset = self.files[file].end;
        }
    }

    /// Lines of an application that have no time of their own have that at which they were read; who reads them later
    /// only knows when the last of them was written.
    fn say_when_read(&mut self) {
        let Some(file) = self.files.get(self.at.file) else { return };
        if let Some(warm) = &mut self.warm {
            warm.lines.set_read_time(file.modified.unwrap_or(self.wanted.now));
        }
    }

    /// Looks through a chunk of raw bytes. False at the end.
    fn look(&mut self, job: &mut Job) -> Result<bool, Cut> {
        let Some(needle) = self.wanted.needle else { return Ok(false) };
        let file = &self.files[self.at.file];
        let want = usize::try_from(file.end - self.at.offset).unwrap_or(usize::MAX).min(CHUNK);
        if want == 0 {
            self.next_file();
            return Ok(true);
        }
        let mut bytes = job.buffer();
        let got = match file.source.read_at(self.at.offset, want, &mut bytes) {
            Ok(got) => got,
            Err(error) => {
                job.put_back(bytes);
                return Ok(self.failed(&error, job));
            }
        };
        if got == 0 {
            job.put_back(bytes);
            self.next_file();
            return Ok(true);
        }
        let at_end = self.at.offset + got as u64 >= file.end;
        let whole = memchr::memrchr(b'\n', &bytes).map(|newline| newline + 1);
        match whole {
            // A line that does not fit, or one without an end that will be read whole with what is there of it.
            None if !at_end => self.warm_up(self.at),
            _ => {
                let len = if at_end { got } else { whole.unwrap_or(got) };
                job.read(len as u64);
                match needle.find(&bytes[..len], self.framing) {
                    Some(hit) => self.warm_up(Place { offset: self.at.offset + hit as u64, ..self.at }),
                    None => self.at.offset += len as u64,
                }
            }
        }
        job.put_back(bytes);
        Ok(true)
    }

    /// Takes a chunk through the stages. False when nothing that follows is wanted.
    fn read(&mut self, job: &mut Job) -> Result<bool, Cut> {
        let settings = self.wanted.settings;
        let file = &self.files[self.at.file];
        let left = file.end.saturating_sub(self.at.offset);
        let most = if self.long { CHUNK.max(settings.max_line + 4096) } else { CHUNK };
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        if want == 0 {
            return Ok(self.leave_file(job, 0));
        }
        let (mut arena, mut records) = (job.buffer(), Vec::new());
        let got = match file.source.read_at(self.at.offset, want, &mut arena) {
            Ok(0) => return Ok(self.leave_file(job, 0)),
            Ok(got) => got,
            Err(error) => return Ok(self.failed(&error, job)),
        };
        let horizon = self.horizon().unwrap_or(u64::MAX);
        let Some(warm) = &mut self.warm else { return Ok(true) };
        let mut from = 0;
        if warm.torn {
            // A line that is longer than what is read here is passed over with what comes of it.
            from = memchr::memchr(b'\n', &arena).map_or(got, |newline| newline + 1);
            warm.torn = from == got;
        }
        let hit = self.wanted.needle.and_then(|needle| needle.find(&arena[from..], self.framing)).is_some();
        let offset = self.at.offset + from as u64;
        let taken =
            warm.lines.ingest(settings, &self.workload, &mut arena, from, offset, horizon, &mut records);
        let bytes = from + taken.bytes;
        job.read(bytes as u64);
        let reached = self.at;
        self.at.offset += bytes as u64;
        warm.since = if hit || self.at <= warm.hit { 0 } else { warm.since + bytes as u64 };
        // Far enough that the next time the stages begin behind all that is shown now.
        let cools = self.wanted.needle.is_some() && warm.since > 2 * look_back(settings);
        self.show(arena, records, reached, job);
        if taken.at_horizon {
            return Ok(false);
        }
        let was_long = std::mem::replace(&mut self.long, bytes == 0);
        if bytes == 0 && (was_long || got as u64 == left) {
            // What is left is the piece of a line.
            return Ok(self.leave_file(job, left));
        }
        if cools {
            self.cool_down(job);
        }
        Ok(true)
    }

    /// Goes on with the next file; `rest` bytes at this one's end are a line without an end. False behind the last.
    fn leave_file(&mut self, job: &mut Job, rest: u64) -> bool {
        let settings = self.wanted.settings;
        let is_last = self.at.file + 1 == self.files.len();
        let reached = self.at;
        let file = &self.files[self.at.file];
        // Of the newest file the line may be in the middle of being written.
        let over = file.modified.is_none_or(|at| at.saturating_add(OVER.as_nanos() as u64) < self.wanted.now);
        let (mut arena, mut records) = (job.buffer(), Vec::new());
        if let Some(warm) = &mut self.warm
            && (!is_last || over)
        {
            let most = rest.min((settings.max_line + frame::MAX_HEADER) as u64) as usize;
            if most > 0 && file.source.read_at(self.at.offset, most, &mut arena).is_ok() && !arena.is_empty()
            {
                warm.lines.take_torn(settings, &self.workload, &mut arena, self.at.offset, &mut records);
            }
            if is_last {
                // `take_torn` has taken what stands there.
                let (mut late, mut last) = (Vec::new(), Vec::new());
                warm.lines.finish(settings, &self.workload, &mut late, self.at.offset, &mut last);
                self.show(arena, records, reached, job);
                self.show(late, last, reached, job);
                self.next_file();
                return false;
            }
            warm.lines.next_generation(settings, &mut arena, &mut records);
            if self.files[self.at.file + 1].hole {
                let (mut late, mut last) = (Vec::new(), Vec::new());
                warm.lines.interrupt(settings, &self.workload, &mut late, &mut last);
                self.show(late, last, reached, job);
            }
        }
        self.show(arena, records, reached, job);
        self.next_file();
        !is_last
    }

    fn next_file(&mut self) {
        let file = self.at.file + 1;
        self.at = Place { file, offset: self.files.get(file).map_or(0, |file| file.start) };
        self.long = false;
        self.say_when_read();
    }

    /// Nothing that is looked for was seen for a while: what waits comes out, and bytes are only looked through.
    fn cool_down(&mut self, job: &mut Job) {
        self.release(job);
        self.warm = None;
    }

    /// Gives out groups of lines that may still grow; their lines are whole.
    fn release(&mut self, job: &mut Job) {
        let reached = self.at;
        let Some(warm) = &mut self.warm else { return };
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        warm.lines.close_idle(self.wanted.settings, &self.workload, u64::MAX, &mut arena, &mut records);
        self.show(arena, records, reached, job);
    }

    fn end(&mut self, job: &mut Job) {
        self.release(job);
        self.warm = None;
    }

    /// A read failed. True when there is something to go on with.
    fn failed(&mut self, error: &io::Error, job: &mut Job) -> bool {
        let reached = self.at;
        if let Some(warm) = &mut self.warm {
            let (mut arena, mut records) = (Vec::new(), Vec::new());
            let settings = self.wanted.settings;
            warm.lines.interrupt(settings, &self.workload, &mut arena, &mut records);
            self.show(arena, records, reached, job);
        }
        let file = &self.files[self.at.file];
        match Gap::of(error) {
            Some(gap) if gap.until < file.end => {
                self.at.offset = gap.until.max(self.at.offset + 1);
                job.skip(&self.path, "a part of it is not kept any more");
            }
            Some(_) => self.next_file(),
            None => {
                job.skip(&self.path, &error.to_string());
                self.next_file();
            }
        }
        true
    }

    /// Gives the records that are wanted to whoever asked.
    fn show(&self, arena: Vec<u8>, records: Vec<Record>, read_at: Place, job: &mut Job) {
        let shown_from = self.warm.as_ref().map_or(read_at, |warm| warm.shown_from);
        if records.is_empty() || read_at.file < shown_from.file {
            job.put_back(arena);
            return;
        }
        let mut batch = Batch {
            workload: Arc::clone(&self.workload),
            path: Arc::clone(&self.path),
            start: Position::default(),
            end: Position::default(),
            arena,
            records,
            catching_up: false,
            sealed_unix_nano: 0,
            permit: self.budget.overdraw(0),
        };
        for record in &batch.records {
            let early = read_at.file == shown_from.file && record.offset < shown_from.offset;
            if !early && self.wanted.filter.accepts_record(&batch, record) {
                let mut line = Vec::with_capacity(record.body.len as usize + 512);
                write_json(&batch, record, self.wanted.fields, &mut line);
                line.push(b'\n');
                job.found(line);
            }
        }
        job.put_back(std::mem::take(&mut batch.arena));
    }
}
