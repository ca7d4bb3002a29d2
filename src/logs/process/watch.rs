//! What each rule decided about each record, for a person who asks (`nodewick explain`, `nodewick test`).
//!
//! In: notes of the [`Chain`](super::Chain) while it does its work on a state that is
//! [watched](super::LogState::watch). Out: [`Step`]s in the order in which they were taken, and what was redacted.
//! Invariant: a state that is not watched pays one test for each rule that is compiled, and decides alike; what is
//! watched counts in no metric.

/// Which kind of rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[process.drop.<name>]`.
    Drop,
    /// `[process.sample.<name>]`.
    Sample,
    /// `[process.dedup]`.
    Dedup,
    /// `[process.limit.<name>]`.
    Limit,
    /// `[process.redact]`.
    Redact,
    /// `[process.recorder]`, or the annotation that switches it on.
    Recorder,
    /// An annotation of the pod, which stands before all rules.
    Annotation,
}

impl Kind {
    /// Its name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Sample => "sample",
            Self::Dedup => "dedup",
            Self::Limit => "limit",
            Self::Redact => "redact",
            Self::Recorder => "recorder",
            Self::Annotation => "annotation",
        }
    }
}

/// What a rule said of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its conditions about containers do not hold here.
    OtherContainer,
    /// Its other conditions do not hold for this record.
    NoMatch,
    /// It is about this record and lets it pass.
    Kept,
    /// It dropped the record.
    Dropped,
    /// Held back: a copy of the line before, until it is known how many follow; or by the flight recorder.
    Held,
    /// The flight recorder let it through, since its trace or request failed.
    Released,
    /// A copy that the one held back stands for.
    Folded,
    /// It replaced text in so many places.
    Redacted(u32),
}

/// One decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Offset of the record that it is about.
    pub offset: u64,
    /// Kind of the rule.
    pub kind: Kind,
    /// Which one of its kind: the rules of the config by name; for redaction, what
    /// [`Chain::redaction`](super::Chain::redaction) names.
    pub rule: usize,
    /// The decision.
    pub verdict: Verdict,
}

/// A text that redaction put in the place of another one in a record's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Offset of the record.
    pub offset: u64,
    /// The redaction rule, as in [`Step::rule`].
    pub rule: usize,
    /// The first byte that was replaced, from the line's start.
    pub start: usize,
    /// The end of what was replaced, exclusive.
    pub end: usize,
    /// What stands there now.
    pub text: Vec<u8>,
}

/// What was noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// Decisions, in the order in which they were taken.
    pub steps: Vec<Step>,
    /// Redacted texts; those of one record in the order of its line.
    pub replaced: Vec<Replaced>,
}

/// Steps that are remembered; more than any input of a person's size takes.
const MAX_STEPS: usize = 1 << 20;

/// The notes of one log, while somebody watches.
#[derive(Debug, Default)]
pub(super) struct Notes(Option<Noted>);

impl Notes {
    /// Begins to take notes.
    pub(super) fn begin(&mut self) {
        self.0.get_or_insert_default();
    }

    /// True while notes are taken.
    #[inline]
    pub(super) fn wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Takes a note.
    #[inline]
    pub(super) fn add(&mut self, offset: u64, kind: Kind, rule: usize, verdict: Verdict) {
        if let Some(noted) = self.0.as_mut().filter(|noted| noted.steps.len() < MAX_STEPS) {
            noted.steps.push(Step { offset, kind, rule, verdict });
        }
    }

    /// Takes note of a text that was replaced.
    pub(super) fn add_replaced(&mut self, replaced: impl Iterator<Item = Replaced>) {
        if let Some(noted) = &mut self.0 {
            let left = MAX_STEPS.saturating_sub(noted.replaced.len());
            noted.replaced.extend(replaced.take(left));
        }
    }

    /// The notes so far.
    pub(super) fn take(&mut self) -> Noted {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
