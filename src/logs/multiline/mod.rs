//! Joins the lines of a stack trace into one record.
//!
//! In: the whole lines of one container log, in order, as the framer gives them. Out: the same lines, those of one
//! trace as one, their text joined by `\n` at the arena's end; a line that stays alone stays in place. Each stream
//! is joined for itself.
//!
//! Invariant: what is joined depends on the log's bytes and the config alone. A group ends by a line that is none
//! of it, by its limits of lines, bytes and stamps, or by [`SPAN`]. The clock closes a group only once no line can
//! belong to it any more. What is open, with everything that came out meanwhile, begins at
//! [`pinned`](Joiner::pinned): at such a place no group is open, so who resumes there joins the same lines. Places
//! within a stretch over which groups were open are none to resume at: [`floor`](Joiner::floor) gives its beginning.

mod config;
mod traces;

pub use config::{Automatic, Config, Limits, Mode, Rule, Rules};
pub use traces::Language;

use super::frame::Framed;
use crate::data::batch::{Marks, Span, Stream};
use crate::data::position::Skipping;
use crate::data::workload::Workload;
use crate::metrics;
use traces::{Shape, Verdict};

/// Bytes of lines over which groups may be open without a break, as a multiple of the line limit: groups of both
/// streams may overlap again and again, and the log's position must not wait for ever.
const SPAN: u64 = 16;

/// What a line counts for in [`SPAN`] beside its text.
const LINE_BYTES: u64 = 40;

/// A quiet log's group is closed this long after its last line could have come, nanoseconds: the time that a
/// runtime may take between stamping a line and writing it.
const SLACK_NANOS: u64 = 1_000_000_000;

/// Lines that may wait for the one that says whether they belong to the group.
const MAX_WAITING: usize = 4;

/// Stretches remembered within which one cannot resume; beyond, the oldest two become one.
const MAX_CLOSED: usize = 128;

/// What a line that comes out is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line that was not held back.
    Passed,
    /// A line that was held back and stays alone.
    Alone,
    /// Several lines of a trace.
    Joined(Language),
}

/// A line that comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The line.
    pub framed: Framed,
    /// What it is.
    pub kind: Kind,
}

/// What the open group's lines came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A trace of some language.
    Trace(Shape),
    /// By a configured expression.
    Text,
}

/// A line that waits for the one that says whether it belongs to the group: its text stands in the group's.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// Its body is a range of the group's text.
    framed: Framed,
}

/// The open group of one stream.
#[derive(Debug)]
struct Group {
    form: Form,
    language: Language,
    /// Order in which the groups were opened.
    sequence: u64,
    /// The first line; its body is meant for the present arena, while that is there and the line is alone.
    first: Framed,
    in_arena: bool,
    /// The lines that belong to it, joined, then those that wait, each behind a newline.
    text: Vec<u8>,
    /// How much of it belongs to the group.
    text_len: usize,
    lines: u32,
    marks: Marks,
    /// Length before truncation.
    original: u64,
    waiting: Vec<Waiting>,
}

/// A stretch of the log over which groups are open without a break.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// Where it begins.
    start: (u64, Skipping),
    /// It begins in an earlier generation: `start` is not of this file.
    carried: bool,
    /// Offset of the newest line in this generation that came while it was open.
    last: Option<u64>,
    /// Bytes of lines that came while it was open.
    seen: u64,
}

/// Joins the lines of one container log. See the module's header.
#[derive(Debug)]
pub struct Joiner {
    max_line: usize,
    mode: Option<Mode>,
    /// How lines are joined from the next place on at which no group is open.
    next: Option<Mode>,
    limits: Limits,
    /// Each line must be looked at: a group is open, or not only traces are joined.
    busy: bool,
    /// Nothing is ever joined.
    off: bool,
    groups: [Option<Box<Group>>; 2],
    sequence: u64,
    open: Option<Stretch>,
    /// Stretches that are over, within which another line's fate is still open. Oldest first.
    closed: Vec<Stretch>,
    ready: Vec<Ready>,
    warming_up: bool,
    /// Nothing is counted.
    quiet: bool,
}

impl Joiner {
    /// A joiner of records of at most `max_line` bytes.
    pub fn new(max_line: usize) -> Self {
        Self {
            max_line,
            mode: None,
            next: None,
            limits: Limits { lines: 0, wait_nanos: 0 },
            busy: true,
            off: false,
            groups: [None, None],
            sequence: 0,
            open: None,
            closed: Vec::new(),
            ready: Vec::new(),
            warming_up: false,
            quiet: false,
        }
    }

    /// From now on nothing is counted: the lines are read once more.
    pub fn set_quiet(&mut self) {
        self.quiet = true;
    }

    /// While true, lines are read again only for warmth: nothing is counted.
    pub fn set_warming_up(&mut self, warming_up: bool) {
        self.warming_up = warming_up;
    }

    /// True when a line need not be [taken](Self::take): it can be no part of a trace.
    #[inline]
    pub fn passes(&self, body: &[u8]) -> bool {
        // Not busy and not off: traces are joined, and none is open.
        !self.busy && (self.off || body.first() == Some(&b'{') || traces::begins(body).is_none())
    }

    /// Takes the next line; what comes out stands in [`ready`](Self::take_ready). False when the line joined a
    /// group that was open.
    pub fn take(&mut self, rules: &Rules, workload: &Workload, arena: &mut Vec<u8>, framed: Framed) -> bool {
        if self.mode.is_none() {
            self.limits = rules.limits();
            self.next.get_or_insert_with(|| rules.for_workload(workload));
        }
        self.change_mode();
        if framed.known {
            self.take_known(arena, framed);
            return true;
        }
        if self.open.is_none() && !matches!(self.mode, Some(Mode::Start(_))) {
            // The usual case: nothing is open.
            match self.begins(framed.body.of(arena)) {
                None => {
                    self.busy = false;
                    self.ready.push(Ready { framed, kind: Kind::Passed });
                }
                Some(form) => self.begin(form, framed),
            }
            return true;
        }
        let fresh = self.take_among_groups(arena, framed);
        self.busy = self.is_busy();
        fresh
    }

    /// Joins lines in another way, from the next place on at which no group is open.
    pub fn set_mode(&mut self, mode: Mode) {
        self.next = Some(mode);
        self.busy = true;
    }

    fn change_mode(&mut self) {
        if self.open.is_none()
            && let Some(mode) = self.next.take()
        {
            self.off = matches!(mode, Mode::Off);
            self.mode = Some(mode);
        }
    }

    /// Each line must be looked at.
    fn is_busy(&self) -> bool {
        self.open.is_some() || self.next.is_some() || matches!(self.mode, None | Some(Mode::Start(_)))
    }

    /// What a line begins when no group is open.
    fn begins(&self, body: &[u8]) -> Option<Form> {
        match self.mode {
            Some(Mode::Start(_)) => Some(Form::Text),
            Some(Mode::Auto) => traces::begins(body).map(Form::Trace),
            Some(Mode::Only(_)) => {
                traces::begins(body).filter(|shape| admits(&self.mode, *shape)).map(Form::Trace)
            }
            Some(Mode::Off) | None => None,
        }
    }

    /// Takes a line that was out before the resume, which began within it: it weighs on the groups of the other stream
    /// as it did, and is in none itself. Had it been in one with other lines, the resume would have begun before it.
    #[cold]
    fn take_known(&mut self, arena: &mut Vec<u8>, framed: Framed) {
        self.close_outlived(arena, framed);
        let held = self.begins(framed.body.of(arena)).is_some();
        self.ready.push(Ready { framed, kind: if held { Kind::Alone } else { Kind::Passed } });
        self.busy = self.is_busy();
    }

    /// Closes the groups that are over by the stamp of a line that has come, or by what they span with it.
    fn close_outlived(&mut self, arena: &mut Vec<u8>, framed: Framed) {
        self.close_if(arena, |group, wait| {
            framed.time_unix_nano > group.first.time_unix_nano.saturating_add(wait)
        });
        if let Some(stretch) = &mut self.open {
            stretch.seen += u64::from(framed.body.len) + LINE_BYTES;
            if stretch.seen > SPAN * self.max_line as u64 {
                self.close_if(arena, |_, _| true);
            }
        }
    }

    fn take_among_groups(&mut self, arena: &mut Vec<u8>, framed: Framed) -> bool {
        self.close_outlived(arena, framed);
        let body = framed.body.of(arena);
        let starts = match &self.mode {
            Some(Mode::Start(start)) => start.is_match(body),
            _ => false,
        };
        let stream = framed.stream as usize;
        let mut continues = None;
        if let Some(group) = &mut self.groups[stream] {
            let verdict = match group.form {
                Form::Trace(shape) => match traces::follows(shape, body) {
                    Verdict::Joins(shape) | Verdict::Waits(shape) if !admits(&self.mode, shape) => {
                        Verdict::Ends
                    }
                    verdict => verdict,
                },
                Form::Text if starts => Verdict::Ends,
                Form::Text => Verdict::Joins(Shape::Done),
            };
            let fits = group.lines as usize + group.waiting.len() < self.limits.lines as usize
                && group.text_len() + 1 + body.len() <= self.max_line;
            match verdict {
                Verdict::Joins(shape) if fits => {
                    group.join(arena, framed, shape);
                    self.note(framed);
                    return false;
                }
                Verdict::Waits(shape) if fits && group.waiting.len() < MAX_WAITING => {
                    group.wait(arena, framed, shape);
                    self.note(framed);
                    return false;
                }
                // What is too long for one record goes on in another one.
                Verdict::Joins(shape) => {
                    continues = Some(match group.form {
                        Form::Trace(_) => Form::Trace(shape),
                        Form::Text => Form::Text,
                    });
                }
                Verdict::Waits(_) | Verdict::Ends => {}
            }
            let language = group.language;
            self.close(arena, stream);
            if let Some(form) = continues {
                // The stretch is not over: who begins here would not know what the line continues.
                self.begin(form, framed);
                if let Some(group) = &mut self.groups[stream] {
                    group.language = language;
                }
                return true;
            }
        }
        self.end_stretch();
        self.change_mode();
        match self.begins(framed.body.of(arena)) {
            Some(form) => self.begin(form, framed),
            None => {
                self.note(framed);
                self.ready.push(Ready { framed, kind: Kind::Passed });
            }
        }
        true
    }

    /// A line came while groups are open.
    fn note(&mut self, framed: Framed) {
        if let Some(stretch) = &mut self.open {
            let offset = if framed.carried { 0 } else { framed.offset };
            stretch.last = Some(stretch.last.map_or(offset, |last| last.max(offset)));
        }
    }

    /// Opens a group with its first line.
    fn begin(&mut self, form: Form, framed: Framed) {
        self.busy = true;
        self.sequence += 1;
        let place = (framed.offset, framed.skipping);
        match &mut self.open {
            None => {
                self.open = Some(Stretch { start: place, carried: framed.carried, last: None, seen: 0 });
            }
            Some(stretch) => {
                stretch.carried |= framed.carried;
                if !framed.carried && place.0 < stretch.start.0 {
                    stretch.start = place;
                }
            }
        }
        self.note(framed);
        self.groups[framed.stream as usize] = Some(Box::new(Group {
            form,
            language: match form {
                Form::Trace(shape) => shape.language(),
                Form::Text => Language::Other,
            },
            sequence: self.sequence,
            first: framed,
            in_arena: true,
            text: Vec::new(),
            text_len: 0,
            lines: 1,
            marks: framed.marks,
            original: original_len(framed),
            waiting: Vec::new(),
        }));
    }

    /// Closes the groups of which `over` says that they are over, oldest first.
    fn close_if(&mut self, arena: &mut Vec<u8>, over: impl Fn(&Group, u64) -> bool) {
        let wait = self.limits.wait_nanos;
        let age = |group: &Option<Box<Group>>| group.as_ref().map_or(u64::MAX, |group| group.sequence);
        let order = if age(&self.groups[0]) <= age(&self.groups[1]) { [0, 1] } else { [1, 0] };
        for stream in order {
            if self.groups[stream].as_ref().is_some_and(|group| over(group, wait)) {
                self.close(arena, stream);
            }
        }
        self.end_stretch();
    }

    /// Gives out a stream's group.
    fn close(&mut self, arena: &mut Vec<u8>, stream: usize) {
        let Some(group) = self.groups[stream].take() else { return };
        let mut framed = Framed { marks: group.marks, original_len: 0, ..group.first };
        if !group.in_arena {
            let start = arena.len();
            arena.extend_from_slice(&group.text[..group.text_len]);
            framed.body = Span::new(start, arena.len());
        }
        if framed.marks.contains(Marks::TRUNCATED) {
            framed.original_len = u32::try_from(group.original).unwrap_or(u32::MAX);
        }
        let kind = if group.lines > 1 {
            if !self.warming_up && !self.quiet {
                metrics::LOG_MULTILINE.with_label_values(&[group.language.name()]).inc();
            }
            Kind::Joined(group.language)
        } else {
            Kind::Alone
        };
        self.ready.push(Ready { framed, kind });
        for Waiting { framed } in group.waiting {
            let start = arena.len();
            arena.extend_from_slice(framed.body.of(&group.text));
            let framed = Framed { body: Span::new(start, arena.len()), ..framed };
            self.ready.push(Ready { framed, kind: Kind::Passed });
        }
    }

    /// Once no group is open, a stretch is over.
    fn end_stretch(&mut self) {
        if self.groups.iter().any(Option::is_some) {
            return;
        }
        let Some(stretch) = self.open.take() else { return };
        if stretch.last.is_none_or(|last| !stretch.carried && last <= stretch.start.0) {
            return;
        }
        if self.closed.len() == MAX_CLOSED {
            let oldest = self.closed.remove(0);
            let next = &mut self.closed[0];
            *next = Stretch { last: next.last.max(oldest.last), ..oldest };
        }
        self.closed.push(stretch);
    }

    /// What came out, in order. Give the emptied list back with [`put_back`](Self::put_back).
    pub fn take_ready(&mut self) -> Vec<Ready> {
        std::mem::take(&mut self.ready)
    }

    /// Takes the list back for the next lines.
    pub fn put_back(&mut self, mut ready: Vec<Ready>) {
        ready.clear();
        self.ready = ready;
    }

    /// The arena is about to go: keeps what is still needed of it.
    pub fn leave(&mut self, arena: &[u8]) {
        for group in self.groups.iter_mut().flatten() {
            group.leave(arena);
        }
    }

    /// Closes the groups to which no line can belong any more at the time `now_unix_nano`; at `u64::MAX` all.
    pub fn close_idle(&mut self, now_unix_nano: u64, arena: &mut Vec<u8>) {
        if self.open.is_some() {
            self.close_if(arena, |group, wait| {
                let last = group.first.time_unix_nano.saturating_add(wait);
                now_unix_nano == u64::MAX || now_unix_nano > last.saturating_add(SLACK_NANOS)
            });
            self.busy = self.is_busy();
        }
    }

    /// A new generation of the log begins: what is open goes on, but began in an old one.
    pub fn next_generation(&mut self) {
        self.closed.clear();
        if let Some(stretch) = &mut self.open {
            stretch.carried = true;
            stretch.last = None;
        }
        for group in self.groups.iter_mut().flatten() {
            group.first.carried = true;
            for waiting in &mut group.waiting {
                waiting.framed.carried = true;
            }
        }
    }

    /// True while lines are open that began in an earlier generation, or while one cannot resume at `pin` for
    /// their sake.
    pub fn carries(&self, pin: Option<(u64, Skipping)>) -> bool {
        self.open.is_some_and(|stretch| stretch.carried) || pin.is_some_and(|pin| self.reach(pin).1)
    }

    /// Where the stretch begins over which groups are open; 0 when in an earlier generation.
    pub fn pinned(&self) -> Option<(u64, Skipping)> {
        self.open.map(|stretch| if stretch.carried { (0, Skipping(0)) } else { stretch.start })
    }

    /// The last place at or before `place` at which no group was open.
    pub fn floor(&self, place: (u64, Skipping)) -> (u64, Skipping) {
        self.reach(place).0
    }

    /// The same, and whether it lies in an earlier generation.
    fn reach(&self, mut place: (u64, Skipping)) -> ((u64, Skipping), bool) {
        let mut carried = false;
        for stretch in self.closed.iter().rev() {
            if stretch.holds(place.0) {
                carried |= stretch.carried;
                place = stretch.start;
            }
        }
        (place, carried)
    }

    /// Forgets the stretches that do not matter to `pin`, the oldest place to which one may still come back.
    pub fn prune(&mut self, pin: Option<u64>) {
        let Some(mut pin) = pin else {
            self.closed.clear();
            return;
        };
        for at in (0..self.closed.len()).rev() {
            let stretch = self.closed[at];
            if stretch.last.is_some_and(|last| pin <= last) {
                pin = if stretch.carried { 0 } else { pin.min(stretch.start.0) };
            } else {
                self.closed.remove(at);
            }
        }
    }
}

impl Stretch {
    /// True when groups were open at a place of the present generation.
    fn holds(&self, offset: u64) -> bool {
        (self.carried || self.start.0 < offset) && self.last.is_some_and(|last| offset <= last)
    }
}

impl Group {
    fn leave(&mut self, arena: &[u8]) {
        if self.in_arena {
            self.in_arena = false;
            self.text.extend_from_slice(self.first.body.of(arena));
            self.text_len = self.text.len();
        }
    }

    /// Bytes of all lines so far, joined, those that wait among them.
    fn text_len(&self) -> usize {
        if self.in_arena { self.first.body.len as usize } else { self.text.len() }
    }

    /// A line that belongs to the group, and with it those that waited.
    fn join(&mut self, arena: &[u8], framed: Framed, shape: Shape) {
        self.append(arena, framed);
        self.text_len = self.text.len();
        for line in self.waiting.drain(..).map(|waiting| waiting.framed).chain([framed]) {
            self.lines += 1;
            self.marks.insert(line.marks);
            self.original += 1 + original_len(line);
        }
        self.become_of(shape);
    }

    /// A line that belongs to the group if the next one does.
    fn wait(&mut self, arena: &[u8], framed: Framed, shape: Shape) {
        let start = self.append(arena, framed);
        let body = Span::new(start, self.text.len());
        self.waiting.push(Waiting { framed: Framed { body, ..framed } });
        if let Form::Trace(form) = &mut self.form {
            *form = shape;
        }
    }

    fn append(&mut self, arena: &[u8], framed: Framed) -> usize {
        self.leave(arena);
        self.text.push(b'\n');
        let start = self.text.len();
        self.text.extend_from_slice(framed.body.of(arena));
        start
    }

    fn become_of(&mut self, shape: Shape) {
        if let Form::Trace(form) = &mut self.form {
            *form = shape;
            // What the end of a trace looks like says no more whose it was.
            if shape.language() != Language::Other {
                self.language = shape.language();
            }
        }
    }
}

/// True for traces that are joined: of all languages, or of the one that is named and of what may become one.
fn admits(mode: &Option<Mode>, shape: Shape) -> bool {
    match mode {
        Some(Mode::Only(only)) => [*only, Language::Other].contains(&shape.language()),
        _ => true,
    }
}

fn original_len(framed: Framed) -> u64 {
    u64::from(if framed.original_len > 0 { framed.original_len } else { framed.body.len })
}

/// Streams of a log, in the order of their groups.
const _: () = assert!(Stream::Stdout as usize == 0 && Stream::Stderr as usize == 1);

#[cfg(test)]
mod tests;
