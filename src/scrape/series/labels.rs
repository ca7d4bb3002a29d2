//! From a sample's own labels to its final label set, and what identifies a series within its source.
//!
//! In: a page with the target's own labels and the labels of its origin. Out: for each sample, its final labels appended to
//! the page, sorted by name, `__name__` among them, and the hash that identifies the series.
//! Invariants: nothing is allocated for a sample; which label goes where is worked out once for a run of samples with the
//! same label names, as samples of one family have. Two series of one source have equal hashes when their final label sets
//! are equal, and (but for one chance in 2^62 for each pair) only then.
//!
//! Source: Prometheus 2.42 `scrape/scrape.go`, `mutateSampleLabels` and `resolveConflictingExposedLabels`.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::data::sample::{Label, Page, Sample, Span};

/// The name of the label that a metric's name is.
pub(super) const NAME: &[u8] = b"__name__";
const EXPORTED: &[u8] = b"exported_";
/// Bits of a hash that [`super::known`] uses for itself.
pub(super) const FLAGS: u64 = 0b11;

/// The labels of an origin in the arena of a page: pushed once a page, so that equal spans are equal labels.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// The text `__name__`.
    pub(super) name: Span,
    /// Labels, sorted, none empty.
    pub(super) labels: Vec<Label>,
}

impl Common {
    /// Puts the labels of an origin into the arena.
    pub(super) fn lay(&mut self, labels: &[(String, String)], page: &mut Page) {
        self.name = page.push_text(NAME);
        self.labels.clear();
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            let name = page.push_text(name.as_bytes());
            let value = page.push_text(value.as_bytes());
            self.labels.push(Label { name, value });
        }
    }

    /// True when a label set has each of these names, perhaps with another value.
    pub(super) fn is_in(&self, page: &Page, labels: &[Label]) -> bool {
        self.labels
            .iter()
            .all(|ours| labels.iter().any(|label| page.bytes(label.name) == page.bytes(ours.name)))
    }

    /// True for a label that is one of these itself, not one that merely says the same.
    #[inline]
    pub(super) fn is_of(&self, label: &Label) -> bool {
        self.labels.iter().any(|common| common.name == label.name && common.value == label.value)
    }
}

/// Where a final label comes from. A label of the origin's counts for the hash only where it does not follow from the rest.
#[derive(Debug, Clone, Copy)]
enum From {
    /// The origin: as it stands.
    Common(Label),
    /// The metric's name.
    Name,
    /// The sample's own, by its index there.
    Own(u32),
}

/// What is wrong with a label set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A label name comes twice.
    Twice(Span),
}

/// How many labels and how long their values may be; 0 is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LabelLimits {
    /// Labels of a final label set.
    pub(super) labels: u64,
    /// Bytes of a value.
    pub(super) value: u64,
}

/// Where each final label of samples with certain label names comes from.
#[derive(Debug, Default)]
struct Plan {
    /// Own label names, as they came, and whether their values were empty.
    names: Vec<(Span, bool)>,
    slots: Vec<(Span, From)>,
    /// The final labels; the values of those that vary are missing.
    template: Vec<Label>,
    /// Where in it which value belongs, in order. What follows from the rest is there already.
    varying: Vec<(u32, From)>,
    seed: u64,
    /// The final label set follows from the labels that are the sample's own, by the ordinary rule.
    ordinary: bool,
    /// It has been made without an error.
    holds: bool,
}

/// Plans that are kept for a page: the lines of a histogram go between two of them.
const PLANS: usize = 8;

/// Builds final label sets.
#[derive(Debug, Default)]
pub(super) struct Merge {
    plans: Vec<Plan>,
    /// Plans of this page.
    used: usize,
    /// Of the last sample.
    current: usize,
    /// The plan to be overwritten next.
    next: usize,
    longest: u32,
    conflicts: Vec<(Span, u32)>,
}

impl Merge {
    /// Another page: spans of the last one mean nothing.
    pub(super) fn begin(&mut self) {
        self.used = 0;
        self.current = 0;
        self.next = 0;
    }

    /// Appends the final labels of a sample to the page and gives it them. The hash identifies the series; where labels
    /// are changed afterwards it has to be taken again, with [`whole_identity`].
    #[inline]
    pub(super) fn apply(
        &mut self,
        page: &mut Page,
        sample: &mut Sample,
        common: &Common,
        honor: bool,
    ) -> Result<u64, Wrong> {
        let first = sample.labels as usize;
        let count = sample.label_count as usize;
        let own = first..first + count;
        if self.current >= self.used || !self.plans[self.current].fits(page, own.clone()) {
            let known = (0..self.used).find(|at| self.plans[*at].fits(page, own.clone()));
            self.current = match known {
                Some(at) => at,
                None => self.plan(page, sample, common, honor)?,
            };
        }
        let plan = &self.plans[self.current];
        let start = page.labels.len();
        let mut hash = plan.seed;
        let mut longest = 0;
        page.labels.extend_from_slice(&plan.template);
        for (slot, from) in &plan.varying {
            let value = match *from {
                From::Common(label) => label.value,
                From::Name => sample.name,
                From::Own(at) => page.labels[first + at as usize].value,
            };
            longest = longest.max(value.len);
            hash = xxh3_64_with_seed(value.of(&page.arena), hash);
            page.labels[start + *slot as usize].value = value;
        }
        self.longest = longest;
        sample.labels = start as u32;
        sample.label_count = (page.labels.len() - start) as u32;
        Ok(hash & !FLAGS)
    }

    /// True where the ordinary rule gives back the final labels from those that are the series' own.
    pub(super) fn is_ordinary(&self) -> bool {
        self.plans.get(self.current).is_some_and(|plan| plan.ordinary)
    }

    /// Bytes of the longest value among the labels that are the sample's own.
    pub(super) fn longest(&self) -> u32 {
        self.longest
    }

    #[cold]
    fn plan(
        &mut self,
        page: &mut Page,
        sample: &Sample,
        common: &Common,
        honor: bool,
    ) -> Result<usize, Wrong> {
        let index = if self.used < PLANS { self.used } else { self.next };
        if self.plans.len() <= index {
            self.plans.push(Plan::default());
        }
        let plan = &mut self.plans[index];
        plan.holds = false;
        let first = sample.labels as usize;
        let own = first..first + sample.label_count as usize;
        plan.names.clear();
        plan.names.extend(page.labels[own.clone()].iter().map(|label| (label.name, label.value.is_empty())));
        plan.slots.clear();
        self.conflicts.clear();
        plan.ordinary = true;
        plan.slots.push((common.name, From::Name));
        for (at, label) in page.labels[own].iter().enumerate() {
            let name = page.bytes(label.name);
            let clash = common.labels.iter().any(|ours| page.bytes(ours.name) == name);
            if clash && !honor {
                if !label.value.is_empty() {
                    self.conflicts.push((label.name, at as u32));
                }
            } else if label.value.is_empty() {
                // A target that says a label of ours empty takes it away, where its word counts.
                plan.ordinary &= !clash;
            } else {
                plan.slots.push((label.name, From::Own(at as u32)));
            }
        }
        for label in &common.labels {
            if honor && plan.names.iter().any(|(name, _)| page.bytes(*name) == page.bytes(label.name)) {
                continue;
            }
            plan.slots.push((label.name, From::Common(*label)));
        }
        plan.rename(&mut self.conflicts, page, common);
        plan.slots.sort_unstable_by(|(a, _), (b, _)| a.of(&page.arena).cmp(b.of(&page.arena)));
        let twice = plan.slots.windows(2).find(|pair| page.bytes(pair[0].0) == page.bytes(pair[1].0));
        if let Some(pair) = twice {
            return Err(Wrong::Twice(pair[0].0));
        }
        plan.seed = seed(plan.ordinary);
        plan.template.clear();
        plan.varying.clear();
        for (slot, (name, from)) in plan.slots.iter().enumerate() {
            let label = match from {
                From::Common(label) => *label,
                _ => Label { name: *name, value: Span::default() },
            };
            plan.template.push(label);
            if !plan.ordinary || !matches!(from, From::Common(_)) {
                plan.varying.push((slot as u32, *from));
                plan.seed = xxh3_64_with_seed(page.bytes(*name), plan.seed);
            }
        }
        plan.holds = true;
        if self.used < PLANS {
            self.used += 1;
        }
        self.next = (index + 1) % PLANS;
        Ok(index)
    }
}

impl Plan {
    /// The plan is that of a sample with the same names in the same order, the same of them without a value.
    #[inline]
    fn fits(&self, page: &Page, own: Range<usize>) -> bool {
        self.holds
            && self.names.len() == own.len()
            && page.labels[own].iter().zip(&self.names).all(|(label, (name, empty))| {
                label.value.is_empty() == *empty
                    && (label.name == *name || label.name.of(&page.arena) == name.of(&page.arena))
            })
    }

    /// Gives own labels that clash with ours a name with `exported_` before it, again and again while that one exists.
    fn rename(&mut self, conflicts: &mut Vec<(Span, u32)>, page: &mut Page, common: &Common) {
        if conflicts.is_empty() {
            return;
        }
        conflicts.sort_by(|(a, _), (b, _)| {
            a.len.cmp(&b.len).then_with(|| a.of(&page.arena).cmp(b.of(&page.arena)))
        });
        // The same name twice: the first counts, and the second is overwritten by ours.
        conflicts.dedup_by(|(b, _), (a, _)| a.of(&page.arena) == b.of(&page.arena));
        for at in 0..conflicts.len() {
            let (name, own) = conflicts[at];
            let start = page.arena.len();
            let text = name.start as usize..(name.start + name.len) as usize;
            page.arena.extend_from_slice(EXPORTED);
            page.arena.extend_from_within(text.clone());
            let mut span = Span::new(start, page.arena.len());
            while self.taken(page, common, span, &conflicts[..at]) {
                // One more: `exported_` + what stands there.
                let start = page.arena.len();
                page.arena.extend_from_slice(EXPORTED);
                page.arena.extend_from_within(span.start as usize..(span.start + span.len) as usize);
                span = Span::new(start, page.arena.len());
            }
            conflicts[at].0 = span;
            self.slots.push((span, From::Own(own)));
        }
    }

    fn taken(&self, page: &Page, common: &Common, span: Span, before: &[(Span, u32)]) -> bool {
        let name = page.bytes(span);
        self.names.iter().any(|(known, _)| page.bytes(*known) == name)
            || common.labels.iter().any(|label| page.bytes(label.name) == name)
            || before.iter().any(|(known, _)| page.bytes(*known) == name)
    }
}

/// Where the hash of a series begins.
const fn seed(ordinary: bool) -> u64 {
    if ordinary { 0x6e6f_6465_7769_636b } else { 0x6b63_6977_6564_6f6e }
}

/// The hash of a series whose own labels are these, sorted: as [`Merge::apply`] takes it.
pub(super) fn identity<'a>(
    ordinary: bool,
    labels: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> u64 {
    let named = labels.clone().fold(seed(ordinary), |hash, (name, _)| xxh3_64_with_seed(name, hash));
    labels.fold(named, |hash, (_, value)| xxh3_64_with_seed(value, hash)) & !FLAGS
}

/// The hash of a series whose labels follow no ordinary rule: over all of them.
pub(super) fn whole_identity(page: &Page, labels: &[Label]) -> u64 {
    identity(false, labels.iter().map(|label| (page.bytes(label.name), page.bytes(label.value))))
}
