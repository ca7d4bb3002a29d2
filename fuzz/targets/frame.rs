//! Framing: any bytes as a container log of CRI or docker lines.
//!
//! In: the file, and three bytes behind it that choose the line limit and where reads end. Properties: however the file is cut into
//! reads, the records are the same, and those that a plain model of the format gives: each line once, joined, cut and cleaned;
//! each is UTF-8 and within the limit; the position that a checkpoint would save never goes back, and reading on from any such
//! position gives the identical rest.

use std::sync::Arc;

use nodewick::data::batch::{Fields, Marks, Record, Stream};
use nodewick::data::position::Skipping;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::logs::frame;
use nodewick::logs::ingest::{LineState, Settings};
use nodewick::logs::multiline::{self, Rules};
use nodewick::logs::process::{Chain, config};
use nodewick::logs::stamp;

/// Line limits that are tried. Not below the longest header: the agent's least is far above.
const LIMITS: [usize; 4] = [4096, 80, 100, 257];
/// Fragments of a line add up to this many times the limit before it is given out as it is.
const SEAL_FACTOR: u64 = 16;
/// Bit of `Skipping`: up to the next newline.
const SKIP_PHYSICAL: u8 = 4;
/// Saved positions that are resumed at, a run.
const RESUMES: usize = 6;

pub(super) fn run(data: &[u8]) {
    let Some((file, [limit, seed, first])) = super::split_control::<3>(data) else { return };
    let max_line = LIMITS[usize::from(limit) % LIMITS.len()];
    let chain = Chain::compile(&config::Config::default()).expect("nothing is configured");
    // The model knows nothing of traces: each line is a record.
    let config = multiline::Config { mode: multiline::Automatic::Off, ..multiline::Config::default() };
    let apart = Rules::compile(&config).expect("the mode alone is configured");
    let settings = Settings::new(Fields::ALL, chain, max_line).with_multiline(apart);
    let log = Log { file, settings, workload: workload() };

    let whole = log.read(LineState::new(max_line), 0, &mut || file.len().max(1));
    let expected = model(file, max_line);
    let got: Vec<Line> = whole.lines.iter().map(Seen::line).collect();
    assert_eq!(got, expected, "not what the format says");

    let mut pace = Pace { seed: u32::from(seed), mean: 1 + usize::from(first) };
    let pieces = log.read(LineState::new(max_line), 0, &mut || pace.next());
    assert_eq!(pieces.lines, whole.lines, "the records depend on where reads end");

    for line in &whole.lines {
        assert!(line.body.len() <= max_line);
        assert!(line.offset <= file.len() as u64);
    }
    let step = (pieces.saved.len() / RESUMES).max(1);
    for saved in pieces.saved.iter().step_by(step) {
        log.resumes(saved, &whole.lines, &mut || pace.next());
    }
}

/// A position that a checkpoint would hold.
#[derive(Debug, Clone, Copy)]
struct Saved {
    offset: u64,
    skipping: Skipping,
}

/// What came of reading a log from somewhere to its end.
#[derive(Default)]
struct Outcome {
    lines: Vec<Seen>,
    saved: Vec<Saved>,
}

/// A record with its text.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    stream: Stream,
    offset: u64,
    time_unix_nano: u64,
    body: String,
    marks: Marks,
    original_len: u32,
    rest: String,
}

impl Seen {
    fn new(record: &Record, arena: &[u8]) -> Self {
        let text = |span: nodewick::data::batch::Span| {
            String::from_utf8(span.of(arena).to_vec()).expect("a record's text is UTF-8")
        };
        let fields =
            [record.request_id, record.http_method, record.http_route, record.url_path, record.duration_ms]
                .map(text);
        Self {
            stream: record.stream,
            offset: record.offset,
            time_unix_nano: record.time_unix_nano,
            body: text(record.body),
            marks: record.marks,
            original_len: record.original_len,
            rest: format!("{fields:?} {:?} {:?} {}", record.trace_id, record.severity, record.http_status),
        }
    }

    fn line(&self) -> Line {
        Line {
            stream: self.stream,
            offset: self.offset,
            body: self.body.clone(),
            cut: self.marks.contains(Marks::TRUNCATED),
            lossy: self.marks.contains(Marks::LOSSY),
        }
    }
}

/// Lengths of reads: of a mean, and now and then one byte.
struct Pace {
    seed: u32,
    mean: usize,
}

impl Pace {
    fn next(&mut self) -> usize {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let draw = (self.seed >> 16) as usize;
        if draw.is_multiple_of(8) { 1 } else { 1 + draw % (2 * self.mean) }
    }
}

struct Log<'a> {
    file: &'a [u8],
    settings: Settings,
    workload: Arc<Workload>,
}

impl Log<'_> {
    /// Reads from `offset` to the end as the tail does: what is not taken is read again, with more behind it.
    fn read(&self, mut state: LineState, offset: usize, next: &mut dyn FnMut() -> usize) -> Outcome {
        let mut outcome = Outcome::default();
        let (mut at, mut want) = (offset, next());
        loop {
            let end = (at + want).min(self.file.len());
            let (mut arena, mut records) = (self.file[at..end].to_vec(), Vec::new());
            let taken = state.ingest(
                &self.settings,
                &self.workload,
                &mut arena,
                0,
                at as u64,
                u64::MAX,
                &mut records,
            );
            assert_eq!(taken.framed, records.len() as u64);
            outcome.lines.extend(records.iter().map(|record| Seen::new(record, &arena)));
            at += taken.bytes;
            assert!(at <= end, "more is taken than was read");
            outcome.save(&state, at as u64);
            if taken.bytes == 0 && end == self.file.len() {
                break;
            }
            want = if taken.bytes == 0 { want * 2 } else { next() };
        }
        let (mut arena, mut records) = (self.file[at..].to_vec(), Vec::new());
        state.finish(&self.settings, &self.workload, &mut arena, at as u64, &mut records);
        outcome.lines.extend(records.iter().map(|record| Seen::new(record, &arena)));
        assert_eq!(state.pinned(), None, "something is kept back at the end");
        outcome
    }

    /// Reads on from a saved position after a restart.
    fn resumes(&self, saved: &Saved, whole: &[Seen], next: &mut dyn FnMut() -> usize) {
        let offset = saved.offset as usize;
        let mut state = LineState::new(self.settings.max_line);
        state.begin_warm_up();
        let (mut arena, mut records) = (self.file[..offset].to_vec(), Vec::new());
        state.ingest(&self.settings, &self.workload, &mut arena, 0, 0, u64::MAX, &mut records);
        state.resume(&self.settings, &self.workload, saved.skipping);
        let mut rest = self.read(state, offset, next).lines;
        let mut expected: Vec<Seen> =
            whole.iter().filter(|line| line.offset >= saved.offset).cloned().collect();
        if saved.skipping.0 & SKIP_PHYSICAL != 0 {
            // Within a line that was given out before its end: what is read for warmth does not see its stamp.
            rest.iter_mut().chain(&mut expected).for_each(|line| line.time_unix_nano = 0);
        }
        assert_eq!(rest, expected, "a restart at {saved:?} gives something else");
    }
}

impl Outcome {
    fn save(&mut self, state: &LineState, read_to: u64) {
        let (offset, skipping) = state.pinned().unwrap_or((read_to, state.skipping()));
        assert!(offset <= read_to, "a position beyond what was read");
        if let Some(before) = self.saved.last() {
            assert!(offset >= before.offset, "the position goes back from {} to {offset}", before.offset);
            if offset == before.offset {
                return;
            }
        }
        self.saved.push(Saved { offset, skipping });
    }
}

/// A line as the format means it.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    stream: Stream,
    offset: u64,
    body: String,
    cut: bool,
    lossy: bool,
}

/// The format once more, on the whole file at once: physical lines, their headers, fragments up to their `F`.
fn model(file: &[u8], max_line: usize) -> Vec<Line> {
    struct Open {
        offset: u64,
        text: Vec<u8>,
    }
    let mut lines = Vec::new();
    let mut open: [Option<Open>; 2] = [None, None];
    let mut skipping = [false; 2];
    let mut offset = 0;
    for physical in file.split_inclusive(|byte| *byte == b'\n') {
        let text = physical.strip_suffix(b"\n").unwrap_or(physical);
        let (stream, full, payload) =
            docker(text).or_else(|| cri(text)).unwrap_or((Stream::Stdout, true, text.to_vec()));
        let of = stream as usize;
        if skipping[of] {
            skipping[of] = !full;
        } else {
            let line = open[of].get_or_insert(Open { offset, text: Vec::new() });
            line.text.extend_from_slice(&payload);
            let sealed = line.text.len() as u64 > max_line as u64 * SEAL_FACTOR;
            if (full || sealed)
                && let Some(line) = open[of].take()
            {
                skipping[of] = !full;
                lines.push(clean(stream, line.offset, &line.text, max_line));
            }
        }
        offset += physical.len() as u64;
    }
    let mut rest: Vec<Line> = [Stream::Stdout, Stream::Stderr]
        .into_iter()
        .filter_map(|stream| Some((stream, open[stream as usize].take()?)))
        .map(|(stream, line)| clean(stream, line.offset, &line.text, max_line))
        .collect();
    rest.sort_by_key(|line| line.offset);
    lines.extend(rest);
    lines
}

/// At most `max_line` bytes, in UTF-8.
fn clean(stream: Stream, offset: u64, text: &[u8], max_line: usize) -> Line {
    let mut kept = &text[..text.len().min(max_line)];
    let mut cut = kept.len() < text.len();
    if cut
        && let Err(error) = std::str::from_utf8(kept)
        && error.error_len().is_none()
    {
        kept = &kept[..error.valid_up_to()];
    }
    let lossy = std::str::from_utf8(kept).is_err();
    let mut body = String::from_utf8_lossy(kept).into_owned();
    while body.len() > max_line {
        body.pop();
        cut = true;
    }
    Line { stream, offset, body, cut, lossy }
}

fn cri(line: &[u8]) -> Option<(Stream, bool, Vec<u8>)> {
    let space = line.iter().take(frame::MAX_HEADER).position(|byte| *byte == b' ')?;
    stamp::parse(&line[..space])?;
    let rest = &line[space + 1..];
    let (stream, rest) = match rest.strip_prefix(b"stdout ") {
        Some(rest) => (Stream::Stdout, rest),
        None => (Stream::Stderr, rest.strip_prefix(b"stderr ")?),
    };
    let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let tags = &rest[..end];
    if end >= frame::MAX_HEADER {
        return None;
    }
    let full = match tags {
        [b'F'] | [b'F', b':', ..] => true,
        [b'P'] | [b'P', b':', ..] => false,
        _ => return None,
    };
    Some((stream, full, rest.get(end + 1..).unwrap_or_default().to_vec()))
}

/// A docker line by the product's own reading, held against serde_json where that has no doubt.
fn docker(line: &[u8]) -> Option<(Stream, bool, Vec<u8>)> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let mut arena = line.to_vec();
    let fragment = frame::fragment(&mut arena, 0, line.len(), 0);
    let header = fragment.header;
    if !header.well_formed {
        return None;
    }
    let payload = fragment.body.of(&arena).to_vec();
    let value: serde_json::Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        // A surrogate alone, which serde_json takes in no string.
        Err(_) => return Some((header.stream, header.full, payload)),
    };
    let log = value["log"].as_str().expect("a docker line has text");
    assert_eq!(header.full, log.ends_with('\n'));
    assert_eq!(payload, log.strip_suffix('\n').unwrap_or(log).as_bytes());
    assert_eq!(header.stream == Stream::Stderr, value["stream"] == "stderr");
    Some((header.stream, header.full, payload))
}

fn workload() -> Arc<Workload> {
    let mut identity = PathIdentity { cluster: String::new(), node: String::new(), environment: None };
    let container =
        ContainerRef::from_path("shop_checkout_uid", "api", 0).expect("a name of the kubelet's form");
    match identity.identify(&container, std::time::Duration::ZERO) {
        Identity::Known(workload) => workload,
        Identity::Pending => unreachable!("a path is always known"),
    }
}
