//! From what a scrape gave to final pages: labels, times, staleness, and the series that say how the scrape went.
//!
//! In: [`Event`]s of targets, and pages that the agent makes itself. Out: to an [`Output`], first the page as the target
//! said it, then the final one. What comes out is what Prometheus 2.42 stores when it scrapes the same page, but for this:
//! series named as the synthetic ones (`up` and four more) are dropped where the target's labels are not honoured, since
//! there an application's own `up` would hide ours; of a series that stands twice on a page with two times of its own one
//! sample is taken; and after a page that breaks off in its middle all series end, not only those after the break.
//! Invariants: nothing is allocated for a sample of a series that is known; what is held of a source is eight bytes a
//! line and its names compressed; a page changes what is known only when all of it is accepted.
//!
//! Source: Prometheus 2.42 `scrape/scrape.go` (`append`, `report`, `endOfRunStaleness`) and `tsdb/head_append.go`.

mod known;
mod labels;
mod names;
#[cfg(test)]
mod tests;
mod times;

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::known::{Known, Line, Walk};
use self::labels::{Common, LabelLimits, Merge, Wrong, identity, whole_identity};
use self::names::{Entry, Reader, Writer};
use self::times::{Times, Verdict};
use super::exposition::{self, Parser};
use super::relabel::Rules;
use super::target::Target;
use super::{Config, Dialect, Event, Failure, Fetched, Output};
use crate::data::sample::{
    Family, Label, MetricKind, NO_TIME, NONE, Origin, OriginKind, Page, Sample, Span, stale,
};
use crate::metrics;

/// The series that say how a scrape went, in the order of [`Report`].
const SYNTHETIC: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// Samples before rules, for each that may be left after them.
const BEFORE_RULES: u64 = 5;

/// Entries of a buffer that one large page may leave behind; above it they are given back.
const KEEP: usize = 64 * 1024;

/// How a scrape went, as `up` and its company say it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Why the page was not taken, if it was not.
    pub failure: Option<Failure>,
    /// `scrape_samples_scraped`: samples on the page, as far as it could be read.
    pub scraped: u64,
    /// `scrape_samples_post_metric_relabeling`: those that no rule dropped.
    pub kept: u64,
    /// `scrape_series_added`: series that were not on the page before.
    pub added: u64,
    /// Series that the limit of all targets together kept out.
    pub refused: u64,
}

/// All series of all sources. Owned by one thread.
pub struct Book {
    limits: Limits,
    rules: Rules,
    sources: HashMap<u64, Source, foldhash::fast::RandomState>,
    /// Series of all targets.
    series: u64,
    parser: Parser,
    page: Page,
    work: Work,
}

/// What `[scrape]` allows.
#[derive(Debug, Clone, Copy)]
struct Limits {
    samples: u64,
    labels: LabelLimits,
    series: u64,
    parse: exposition::Limits,
}

/// Buffers that all pages share.
#[derive(Default)]
struct Work {
    common: Common,
    merge: Merge,
    walk: Walk,
    writer: Writer,
    reader: Reader,
    labels: Vec<Label>,
    counts: Counts,
}

/// What became of the samples of a page.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    taken: u64,
    rule: u64,
    duplicate: u64,
    repeated: u64,
    out_of_order: u64,
    out_of_bounds: u64,
    synthetic: u64,
    refused: u64,
    failed: u64,
    stale: u64,
}

/// A target, or something of the agent's own, with what is known of its series.
struct Source {
    origin: Arc<Origin>,
    known: Known,
    /// Time of its last page.
    last_unix_ms: i64,
    times: Option<Box<Times>>,
}

/// How a page is to be read.
#[derive(Debug, Clone, Copy)]
struct Manner {
    time_unix_ms: i64,
    honor_labels: bool,
    honor_timestamps: bool,
    /// Lines of the body are lines of the arena.
    is_text: bool,
}

impl Book {
    /// An empty book. `rules` are those for samples.
    pub fn new(config: &Config, rules: Rules) -> Self {
        // Who asks for its growth finds it at 0 first.
        metrics::SCRAPE_SAMPLES.with_label_values(&["series_limit"]);
        metrics::SCRAPE_SERIES_LIMIT.set(i64::try_from(config.series_limit).unwrap_or(i64::MAX));
        Self {
            limits: Limits::new(config, &rules),
            rules,
            sources: HashMap::default(),
            series: 0,
            parser: Parser::default(),
            page: Page::default(),
            work: Work::default(),
        }
    }

    /// From the next page on other limits and rules hold; what is known of series stays.
    pub fn configure(&mut self, config: &Config, rules: Rules) {
        self.limits = Limits::new(config, &rules);
        metrics::SCRAPE_SERIES_LIMIT.set(i64::try_from(config.series_limit).unwrap_or(i64::MAX));
        self.rules = rules;
    }

    /// Takes what came of a scrape, or the end of a target, and hands pages over.
    pub fn take(&mut self, event: Event, out: &mut dyn Output) -> Report {
        let report = match event {
            Event::Fetched(fetched) => self.fetched(fetched, out),
            Event::Removed { target, time_unix_ms } => {
                self.removed(&target, time_unix_ms, out);
                Report::default()
            }
        };
        metrics::SCRAPE_SERIES.set(self.series as i64);
        report
    }

    /// Takes a page that the agent has made itself: adds the labels of its origin where the page has none of that name,
    /// sorts, gives the time, marks series as ended that were on the origin's page before, and hands it over.
    /// The page is left as it was handed over. No limit holds for it.
    pub fn own(&mut self, origin: &Arc<Origin>, page: &mut Page, time_unix_ms: i64, out: &mut dyn Output) {
        let key = key_of(origin);
        let mut source = self.sources.remove(&key).unwrap_or_else(|| Source::new(origin));
        source.origin = Arc::clone(origin);
        if time_unix_ms > source.last_unix_ms {
            let manner = Manner { time_unix_ms, honor_labels: true, honor_timestamps: false, is_text: false };
            let mut report = Report::default();
            self.work.begin(&source.origin, page);
            let read = self.work.read(&mut source, page, &manner, None, u64::MAX, &mut report);
            match read {
                Ok(()) => self.work.settle(&mut source, page, time_unix_ms, false),
                Err(failure) => {
                    tracing::error!(error = %failure, "a page of the agent's own is malformed: this is a bug");
                    page.samples.clear();
                    self.work.lose(&mut source, page, time_unix_ms);
                }
            }
            source.last_unix_ms = time_unix_ms;
            if !page.samples.is_empty() {
                out.page(origin, page);
            }
        }
        self.sources.insert(key, source);
        self.work.counts = Counts::default();
    }

    /// Ends an origin of the agent's own: marks its series as ended and forgets it.
    pub fn forget(&mut self, origin: &Arc<Origin>, time_unix_ms: i64, out: &mut dyn Output) {
        self.end(key_of(origin), origin, time_unix_ms, out);
    }

    /// Ends every target that has said nothing since `before`, good or bad: nobody looks at it any more.
    pub fn sweep(&mut self, before_unix_ms: i64, out: &mut dyn Output) {
        let is_gone = |source: &&Source| {
            source.origin.kind == OriginKind::Target && source.last_unix_ms < before_unix_ms
        };
        let gone: Vec<Arc<Origin>> =
            self.sources.values().filter(is_gone).map(|source| Arc::clone(&source.origin)).collect();
        for origin in gone {
            self.end(key_of(&origin), &origin, before_unix_ms, out);
        }
    }

    /// The buffer of the body that was read last, for bodies to come.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.page.clear();
        std::mem::take(&mut self.page.arena)
    }

    /// Series of all targets.
    pub fn series(&self) -> u64 {
        self.series
    }

    /// Bytes held for what is known of all sources; buffers that pages share are not in it.
    pub fn state_bytes(&self) -> usize {
        let table = self.sources.capacity() * (size_of::<(u64, Source)>() + 1);
        table + self.sources.values().map(Source::bytes).sum::<usize>()
    }

    fn fetched(&mut self, fetched: Fetched, out: &mut dyn Output) -> Report {
        let Fetched { target, time_unix_ms, took, body } = fetched;
        let key = key_of(&target.origin);
        let mut source = self.sources.remove(&key).unwrap_or_else(|| Source::new(&target.origin));
        // The same labels elsewhere, as of a pod of a StatefulSet that was replaced: its series go on. Who knows the origin
        // hears of the new one before the old one is forgotten.
        let replaced = (!Arc::ptr_eq(&source.origin, &target.origin))
            .then(|| std::mem::replace(&mut source.origin, Arc::clone(&target.origin)));
        let mut page = std::mem::take(&mut self.page);
        page.clear();
        let before = source.known.live() as u64;
        let mut report = Report::default();
        let body_len = body.as_ref().map_or(0, |body| body.bytes.len());
        let is_text = body.as_ref().is_ok_and(|body| body.dialect != Dialect::Protobuf);
        let mut result = match body {
            Ok(body) => self.parser.parse(body, &self.limits.parse, &mut page),
            Err(failure) => Err(failure),
        };
        if result.is_ok() && self.rules.is_empty() && page.samples.len() as u64 > self.limits.samples {
            result = Err(self.limits.too_many());
        }
        if result.is_ok() {
            out.raw(&target, &page, time_unix_ms);
        }
        if time_unix_ms <= source.last_unix_ms {
            // The clock was set back: until it has caught up, all samples would be older than what was handed over.
            self.work.counts.out_of_order += page.samples.len() as u64 + SYNTHETIC.len() as u64;
            report.scraped = page.samples.len() as u64;
            report.failure = result.err();
        } else {
            let manner = Manner {
                time_unix_ms,
                honor_labels: target.honor_labels,
                honor_timestamps: target.honor_timestamps,
                is_text,
            };
            let room = self.limits.series.saturating_sub(self.series);
            let rules = (!self.rules.is_empty()).then_some(&self.rules);
            self.work.begin(&source.origin, &mut page);
            let scrape = Some((&self.limits, rules));
            let read = self.work.read(&mut source, &mut page, &manner, scrape, room, &mut report);
            if is_text && matches!(result, Err(Failure::Limit { key: "sample_limit", .. })) && rules.is_none()
            {
                report.scraped = sample_lines(&page.arena[..body_len]);
                report.kept = report.scraped;
            }
            match result.and(read) {
                Ok(()) => self.work.settle(&mut source, &mut page, time_unix_ms, rules.is_some()),
                Err(failure) => {
                    report.failure = Some(failure);
                    self.work.counts.fail(report.scraped);
                    page.clear();
                    self.work.begin(&source.origin, &mut page);
                    self.work.lose(&mut source, &mut page, time_unix_ms);
                }
            }
            let up = if report.failure.is_none() { 1.0 } else { 0.0 };
            let values =
                [up, took.as_secs_f64(), report.scraped as f64, report.kept as f64, report.added as f64];
            self.work.synthesise(&mut page, time_unix_ms, values);
            source.last_unix_ms = time_unix_ms;
            self.series = self.series - before + source.known.live() as u64;
            out.page(&source.origin, &page);
        }
        if let Some(before) = replaced {
            out.forget(&before);
        }
        report.refused = self.work.counts.refused;
        self.work.counts.tell();
        self.sources.insert(key, source);
        self.page = page;
        self.shrink();
        report
    }

    fn removed(&mut self, target: &Arc<Target>, time_unix_ms: i64, out: &mut dyn Output) {
        self.end(key_of(&target.origin), &target.origin, time_unix_ms, out);
    }

    fn end(&mut self, key: u64, origin: &Arc<Origin>, time_unix_ms: i64, out: &mut dyn Output) {
        let Some(mut source) = self.sources.remove(&key) else {
            out.forget(origin);
            return;
        };
        if source.last_unix_ms >= time_unix_ms {
            // It has come back meanwhile, and goes on.
            self.sources.insert(key, source);
            return;
        }
        let is_scrape = origin.kind == OriginKind::Target;
        if is_scrape {
            self.series -= source.known.live() as u64;
        }
        let mut page = std::mem::take(&mut self.page);
        page.clear();
        self.work.begin(&source.origin, &mut page);
        self.work.lose(&mut source, &mut page, time_unix_ms);
        if is_scrape {
            self.work.synthesise(&mut page, time_unix_ms, [stale(); SYNTHETIC.len()]);
        }
        if !page.samples.is_empty() {
            out.page(&source.origin, &page);
        }
        self.work.counts.tell();
        self.page = page;
        out.forget(&source.origin);
    }

    /// A page far larger than others leaves no memory behind.
    fn shrink(&mut self) {
        if self.page.samples.capacity() > KEEP || self.page.arena.capacity() > 64 * KEEP {
            self.page = Page::default();
            self.work.labels = Vec::new();
        }
        self.work.walk.shrink(KEEP);
        self.work.writer.shrink(16 * KEEP);
        self.work.reader.shrink(16 * KEEP);
    }
}

impl Limits {
    fn new(config: &Config, rules: &Rules) -> Self {
        let mut parse = exposition::Limits::from(config);
        if !rules.is_empty() {
            // The limit is on what rules leave; how much they may be given is bounded all the same.
            parse.samples = config.sample_limit.saturating_mul(BEFORE_RULES);
        }
        Self {
            samples: config.sample_limit,
            labels: LabelLimits { labels: config.label_limit, value: config.label_value_limit },
            series: config.series_limit,
            parse,
        }
    }

    fn too_many(&self) -> Failure {
        Failure::Limit { what: "the number of samples", limit: self.samples, key: "sample_limit" }
    }
}

impl Source {
    fn new(origin: &Arc<Origin>) -> Self {
        Self { origin: Arc::clone(origin), known: Known::default(), last_unix_ms: i64::MIN, times: None }
    }

    fn bytes(&self) -> usize {
        self.known.bytes() + self.times.as_ref().map_or(0, |times| size_of::<Times>() + times.bytes())
    }
}

impl Work {
    /// Begins a page of an origin.
    fn begin(&mut self, origin: &Origin, page: &mut Page) {
        self.common.lay(&origin.labels, page);
        self.merge.begin();
        self.walk.begin();
        self.writer.clear();
    }

    /// Makes the samples of a page final. Fails where the page as a whole is not taken; nothing is known then that was
    /// not known before.
    fn read(
        &mut self,
        source: &mut Source,
        page: &mut Page,
        manner: &Manner,
        scrape: Option<(&Limits, Option<&Rules>)>,
        mut room: u64,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let limits = scrape.map(|(limits, _)| limits);
        let rules = scrape.and_then(|(_, rules)| rules);
        if let Some(times) = &mut source.times {
            times.begin();
        }
        if let (Some(limits), Some(label)) =
            (limits, self.common.labels.iter().max_by_key(|label| label.value.len))
            && limits.labels.value != 0
            && u64::from(label.value.len) > limits.labels.value
            && !page.samples.is_empty()
        {
            return Err(too_long(limits));
        }
        let mut kept = 0;
        for at in 0..page.samples.len() {
            let mut sample = page.samples[at];
            report.scraped += 1;
            let raw_name = sample.name;
            let mut hash = self
                .merge
                .apply(page, &mut sample, &self.common, manner.honor_labels)
                .map_err(|Wrong::Twice(name)| twice(page, raw_name, name, at, manner))?;
            let mut whole = !self.merge.is_ordinary();
            if let Some(rules) = rules {
                if !self.relabel(rules, page, &mut sample)? {
                    self.counts.rule += 1;
                    continue;
                }
                hash = whole_identity(page, page.labels_of(&sample));
                whole = true;
            }
            let labels = sample.labels as usize..(sample.labels + sample.label_count) as usize;
            if let Some(limits) = limits {
                let longest = if rules.is_some() {
                    page.labels[labels.clone()].iter().map(|label| label.value.len).max().unwrap_or(0)
                } else {
                    self.merge.longest()
                };
                limits.check(labels.len(), longest)?;
                report.kept += 1;
                if report.kept > limits.samples {
                    page.labels.truncate(labels.start);
                    continue;
                }
                if self.is_synthetic(page, &sample, manner) {
                    // Prometheus takes it, and so its own numbers count it.
                    report.added += u64::from(source.known.live() == 0);
                    self.counts.synthetic += 1;
                    page.labels.truncate(labels.start);
                    continue;
                }
            }
            let states_time = manner.honor_timestamps && sample.time_unix_ms != NO_TIME;
            let line = self.walk.line(&source.known, hash, !states_time, &mut room);
            match line {
                Line::Refused => {
                    self.counts.refused += 1;
                    page.labels.truncate(labels.start);
                    continue;
                }
                Line::Repeated if !states_time => {
                    self.counts.duplicate += 1;
                    page.labels.truncate(labels.start);
                    continue;
                }
                _ => {}
            }
            if states_time {
                let floor = matches!(line, Line::Known { was_tracked: true }).then_some(source.last_unix_ms);
                let times = source.times.get_or_insert_default();
                let verdict = times.own(hash, sample.time_unix_ms, sample.value, manner.time_unix_ms, floor);
                if !self.counts.time(verdict) {
                    page.labels.truncate(labels.start);
                    continue;
                }
            } else {
                sample.time_unix_ms = manner.time_unix_ms;
                if let Some(times) = &source.times
                    && times.is_before(hash, manner.time_unix_ms)
                {
                    self.counts.out_of_order += 1;
                    page.labels.truncate(labels.start);
                    continue;
                }
            }
            if line == Line::New {
                report.added += 1;
            }
            if !states_time && matches!(line, Line::New | Line::Known { was_tracked: false }) {
                self.writer.push(page, &sample, &self.common, whole);
            }
            if sample.exemplar != NONE {
                date_exemplars(source, page, &mut sample, hash);
            }
            page.samples[kept] = sample;
            kept += 1;
        }
        self.counts.taken += kept as u64;
        page.samples.truncate(kept);
        match limits {
            Some(limits) if report.kept > limits.samples => Err(limits.too_many()),
            _ => Ok(()),
        }
    }

    /// Applies rules to a sample. False where they drop it.
    fn relabel(&mut self, rules: &Rules, page: &mut Page, sample: &mut Sample) -> Result<bool, Failure> {
        let start = sample.labels as usize;
        self.labels.clear();
        self.labels.extend_from_slice(&page.labels[start..]);
        page.labels.truncate(start);
        if !rules.apply(&mut page.arena, &mut self.labels) || self.labels.is_empty() {
            return Ok(false);
        }
        let name = self.labels.iter().find(|label| label.name.of(&page.arena) == labels::NAME);
        sample.name = name.ok_or(Failure::Nameless)?.value;
        sample.label_count = self.labels.len() as u32;
        page.labels.extend_from_slice(&self.labels);
        Ok(true)
    }

    /// True for a series that would pass for one of those that say how the scrape went.
    fn is_synthetic(&self, page: &Page, sample: &Sample, manner: &Manner) -> bool {
        let name = page.bytes(sample.name);
        if !matches!(name.first(), Some(b'u' | b's'))
            || SYNTHETIC.iter().all(|known| known.as_bytes() != name)
        {
            return false;
        }
        // Honoured labels may say that it is about another target; it is about this one where it has no others.
        !manner.honor_labels || {
            let own = page.labels_of(sample).iter().filter(|label| label.name != self.common.name);
            own.clone().count() == self.common.labels.len()
                && own.zip(&self.common.labels).all(|(a, b)| {
                    page.bytes(a.name) == page.bytes(b.name) && page.bytes(a.value) == page.bytes(b.value)
                })
        }
    }

    /// A page is accepted: what was on the one before and is not on this one ends.
    fn settle(&mut self, source: &mut Source, page: &mut Page, time_unix_ms: i64, by_rules: bool) {
        let samples = page.samples.len();
        if self.walk.settle(&mut source.known) {
            self.mark(source, page, time_unix_ms);
        }
        if Walk::is_worn(&source.known) {
            source.known.names.clear();
            self.writer.clear();
            for sample in page.samples[..samples].iter().filter(|sample| sample.time_unix_ms == time_unix_ms)
            {
                let whole = by_rules || !self.common.is_in(page, page.labels_of(sample));
                self.writer.push(page, sample, &self.common, whole);
            }
        }
        source.known.names.append(&mut self.writer);
        if let Some(times) = &mut source.times {
            times.end(time_unix_ms, source.known.lines());
        }
    }

    /// There is no page: all series end.
    fn lose(&mut self, source: &mut Source, page: &mut Page, time_unix_ms: i64) {
        self.writer.clear();
        if self.walk.lose_all(&mut source.known) {
            self.mark(source, page, time_unix_ms);
        }
    }

    /// Appends the mark of staleness for each series that the walk has lost.
    fn mark(&mut self, source: &Source, page: &mut Page, time_unix_ms: i64) {
        let Self { walk, reader, common, counts, .. } = self;
        let known_families = page.families.len();
        let mut last = None;
        source.known.names.read(reader, |bytes| {
            let Some(entry) = Entry::new(bytes) else { return true };
            if !walk.is_lost(identity(!entry.whole, entry.labels())) {
                return true;
            }
            let family = family_of(page, entry.family(), entry.kind, &mut last, known_families);
            let sample = entry.lay(page, common);
            page.samples.push(Sample { family, time_unix_ms, value: stale(), ..sample });
            counts.stale += 1;
            true
        });
    }

    /// Appends the series that say how a scrape went.
    fn synthesise(&mut self, page: &mut Page, time_unix_ms: i64, values: [f64; SYNTHETIC.len()]) {
        for (name, value) in SYNTHETIC.into_iter().zip(values) {
            page.begin_family(name, MetricKind::Gauge, "");
            let family = (page.families.len() - 1) as u32;
            let name = page.families[family as usize].name;
            let start = page.labels.len();
            let before = self.common.labels.partition_point(|label| page.bytes(label.name) < labels::NAME);
            page.labels.extend_from_slice(&self.common.labels[..before]);
            page.labels.push(Label { name: self.common.name, value: name });
            page.labels.extend_from_slice(&self.common.labels[before..]);
            page.samples.push(Sample {
                name,
                family,
                labels: start as u32,
                label_count: (page.labels.len() - start) as u32,
                time_unix_ms,
                value,
                ..Sample::default()
            });
        }
    }
}

impl Limits {
    /// Checks a final label set: how many labels it has, and the length of the longest value. Source: Prometheus 2.42 `verifyLabelLimits`.
    #[inline]
    fn check(&self, labels: usize, longest: u32) -> Result<(), Failure> {
        let LabelLimits { labels: count, value } = self.labels;
        if count != 0 && labels as u64 > count {
            return Err(Failure::Limit {
                what: "the number of labels of a series",
                limit: count,
                key: "label_limit",
            });
        }
        if value != 0 && u64::from(longest) > value {
            return Err(too_long(self));
        }
        Ok(())
    }
}

impl Counts {
    /// Counts what a time is judged; true where the sample is passed on.
    fn time(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Take => return true,
            Verdict::Same => self.repeated += 1,
            Verdict::OutOfOrder => self.out_of_order += 1,
            Verdict::OutOfBounds => self.out_of_bounds += 1,
        }
        false
    }

    /// The page is not taken: nothing else counts.
    fn fail(&mut self, scraped: u64) {
        *self = Self { failed: scraped, ..Self::default() };
    }

    /// Adds them to the agent's own metrics and begins anew.
    fn tell(&mut self) {
        let counts = std::mem::take(self);
        for (outcome, count) in [
            ("taken", counts.taken),
            ("rule", counts.rule),
            ("duplicate", counts.duplicate),
            ("repeated", counts.repeated),
            ("out_of_order", counts.out_of_order),
            ("out_of_bounds", counts.out_of_bounds),
            ("own_up", counts.synthetic),
            ("series_limit", counts.refused),
            ("failed", counts.failed),
        ] {
            if count > 0 {
                metrics::SCRAPE_SAMPLES.with_label_values(&[outcome]).inc_by(count);
            }
        }
        if counts.stale > 0 {
            metrics::SCRAPE_SERIES_ENDED.inc_by(counts.stale);
        }
    }
}

/// The family of a series that has ended: on the page, or begun there.
fn family_of(page: &mut Page, name: &[u8], kind: MetricKind, last: &mut Option<u32>, known: usize) -> u32 {
    let is = |family: &Family, page: &Page| family.kind == kind && page.bytes(family.name) == name;
    if let Some(at) = *last
        && is(&page.families[at as usize], page)
    {
        return at;
    }
    let at = page.families[..known].iter().position(|family| is(family, page)).unwrap_or_else(|| {
        let name = page.push_text(name);
        page.families.push(Family { name, kind, help: Span::default(), unit: Span::default() });
        page.families.len() - 1
    });
    *last = Some(at as u32);
    at as u32
}

/// Gives exemplars without a time that of their sample. One that is the last one again is left out: told anew at each
/// scrape it would look like another. Source: Prometheus 2.42 `tsdb/exemplar.go`, `validateExemplar`.
fn date_exemplars(source: &mut Source, page: &mut Page, sample: &mut Sample, hash: u64) {
    let end = sample.exemplar as usize + 1;
    for at in end - sample.exemplar_count as usize..end {
        let exemplar = page.exemplars[at];
        if exemplar.time_unix_ms != NO_TIME {
            continue;
        }
        page.exemplars[at].time_unix_ms = sample.time_unix_ms;
        if sample.exemplar_count == 1 {
            let seed = exemplar.value.to_bits();
            let content = page.exemplar_labels(&exemplar).iter().fold(seed, |seed, label| {
                xxh3_64_with_seed(page.bytes(label.value), xxh3_64_with_seed(page.bytes(label.name), seed))
            });
            if !source.times.get_or_insert_default().is_new_exemplar(hash, content) {
                sample.exemplar = NONE;
                sample.exemplar_count = 0;
            }
        }
    }
}

/// Samples of a body that has too many for all of them to be read: lines that are neither comment nor empty.
fn sample_lines(body: &[u8]) -> u64 {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_start);
    lines.filter(|line| !matches!(line.first(), None | Some(b'#'))).count() as u64
}

fn too_long(limits: &Limits) -> Failure {
    Failure::Limit {
        what: "the length of a label's value in bytes",
        limit: limits.labels.value,
        key: "label_value_limit",
    }
}

/// A label name comes twice.
fn twice(page: &Page, sample: Span, name: Span, at: usize, manner: &Manner) -> Failure {
    let what = format!("the label {:?} comes twice", page.text(name));
    let start = sample.start as usize;
    let (line, column) = if manner.is_text {
        let before = &page.arena[..start];
        let line = memchr::memchr_iter(b'\n', before).count() as u64 + 1;
        (line, start - memchr::memrchr(b'\n', before).map_or(0, |end| end + 1) + 1)
    } else {
        (at as u64 + 1, 1)
    };
    Failure::Malformed { line, column: column as u64, what }
}

/// What identifies an origin: its kind and its labels.
fn key_of(origin: &Origin) -> u64 {
    origin.labels.iter().fold(origin.kind as u64, |seed, (name, value)| {
        xxh3_64_with_seed(value.as_bytes(), xxh3_64_with_seed(name.as_bytes(), seed))
    })
}
