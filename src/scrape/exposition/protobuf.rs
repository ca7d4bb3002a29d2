//! Prometheus' delimited protobuf: messages `io.prometheus.client.MetricFamily`, each behind its length.
//!
//! In: the body. Out: families and samples in the builder, expanded as Prometheus does it: `_count`, `_sum`, then quantiles or
//! buckets with `le`. A histogram with native buckets is one sample under the family's own name, and its classic buckets are left out.
//! Created times are read over: nothing behind the page takes them.
//! Source: Prometheus `prompb/io/prometheus/client/metrics.proto`, `model/textparse/protobufparse.go`.

use super::build::Builder;
use super::histogram;
use super::number::canonical;
use super::wire::{Fields, Stretch};
use super::{Fault, Parsed};
use crate::data::sample::{MetricKind, NO_TIME, Span};

/// Reads all of it.
pub(super) fn read(builder: &mut Builder<'_>) -> Parsed<()> {
    let text = builder.text;
    let mut messages = Fields::new(text, Stretch { start: 0, end: text.len() });
    while messages.at < text.len() {
        let at = messages.at;
        builder.message += 1;
        let message = messages.delimited()?;
        family(builder, at, message)?;
    }
    Ok(())
}

/// What the metrics of a family have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) id: u32,
    pub(super) kind: MetricKind,
    pub(super) name: Span,
    pub(super) count: Span,
    pub(super) sum: Span,
    pub(super) bucket: Span,
}

fn family(builder: &mut Builder<'_>, at: usize, message: Stretch) -> Parsed<()> {
    let text = builder.text;
    let (mut name, mut help, mut unit) = (Stretch::default(), Stretch::default(), Stretch::default());
    let (mut kind, mut metrics) = (0, 0_usize);
    let mut fields = Fields::new(text, message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => name = fields.bytes(value)?,
            2 => help = fields.bytes(value)?,
            3 => kind = fields.whole(value)?,
            4 => metrics += usize::from(fields.bytes(value).is_ok()),
            5 => unit = fields.bytes(value)?,
            _ => {}
        }
    }
    if metrics == 0 {
        return Ok(());
    }
    let kind = match kind {
        0 => MetricKind::Counter,
        1 => MetricKind::Gauge,
        2 => MetricKind::Summary,
        3 => MetricKind::Unknown,
        4 => MetricKind::Histogram,
        5 => MetricKind::GaugeHistogram,
        _ => return Fault::at(at, "expected a metric type"),
    };
    builder.check_utf8(name.start, name.end)?;
    let span = Span::new(name.start, name.end);
    let id = builder.family(at, span)?;
    builder.kind(id, kind);
    builder.plain_help(id, help.start, help.end)?;
    builder.unit(id, unit.start, unit.end)?;
    let mut family = Family { id, kind, name: span, count: span, sum: span, bucket: span };
    if matches!(kind, MetricKind::Summary | MetricKind::Histogram | MetricKind::GaugeHistogram) {
        let name = &text[name.start..name.end];
        family.count = builder.push(&[name, b"_count"]);
        family.sum = builder.push(&[name, b"_sum"]);
        if kind != MetricKind::Summary {
            family.bucket = builder.push(&[name, b"_bucket"]);
        }
    }
    let mut fields = Fields::new(text, message);
    while let Some((field, value)) = fields.next()? {
        if field == 4 {
            metric(builder, &family, fields.bytes(value)?)?;
        }
    }
    Ok(())
}

/// A metric as far as it is the same for all types.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Metric {
    /// Where it stands.
    pub(super) at: usize,
    /// What it measures: counter, gauge, summary, untyped or histogram.
    pub(super) inner: Stretch,
    pub(super) time_unix_ms: i64,
    /// Its labels in the page.
    pub(super) labels: usize,
    pub(super) label_count: usize,
}

fn metric(builder: &mut Builder<'_>, family: &Family, message: Stretch) -> Parsed<()> {
    let text = builder.text;
    let inner = match family.kind {
        MetricKind::Gauge => 2,
        MetricKind::Counter => 3,
        MetricKind::Summary => 4,
        MetricKind::Histogram | MetricKind::GaugeHistogram => 7,
        _ => 5,
    };
    let mut metric = Metric { at: message.start, time_unix_ms: NO_TIME, ..Metric::default() };
    builder.begin();
    metric.labels = builder.page.labels.len();
    let mut fields = Fields::new(text, message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                let (name, content) = label_pair(builder, fields.bytes(value)?)?;
                builder.label(fields.at, name, content)?;
            }
            // No time and the epoch cannot be told apart.
            6 => {
                metric.time_unix_ms =
                    Some(fields.whole(value)? as i64).filter(|time| *time != 0).unwrap_or(NO_TIME)
            }
            _ if field == inner => metric.inner = fields.bytes(value)?,
            _ => {}
        }
    }
    metric.label_count = builder.page.labels.len() - metric.labels;
    match family.kind {
        MetricKind::Summary => summary(builder, family, &metric),
        MetricKind::Histogram | MetricKind::GaugeHistogram => histogram::read(builder, family, &metric),
        _ => simple(builder, family, &metric),
    }
}

fn label_pair(builder: &Builder<'_>, message: Stretch) -> Parsed<(Span, Span)> {
    let (mut name, mut content) = (Stretch::default(), Stretch::default());
    let mut fields = Fields::new(builder.text, message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => name = fields.bytes(value)?,
            2 => content = fields.bytes(value)?,
            _ => {}
        }
    }
    builder.check_utf8(name.start, name.end)?;
    builder.check_utf8(content.start, content.end)?;
    Ok((Span::new(name.start, name.end), Span::new(content.start, content.end)))
}

/// A counter, a gauge or an untyped metric.
fn simple(builder: &mut Builder<'_>, family: &Family, metric: &Metric) -> Parsed<()> {
    let (mut number, mut exemplar) = (0.0, None);
    let mut fields = Fields::new(builder.text, metric.inner);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => number = fields.float(value)?,
            2 if family.kind == MetricKind::Counter => exemplar = Some(fields.bytes(value)?),
            _ => {}
        }
    }
    builder.sample_of(family.id, family.name, canonical(number), metric.time_unix_ms)?;
    if let Some(message) = exemplar
        && let Some(place) = read_exemplar(builder, message, false)?
    {
        builder.attach(place, 1);
    }
    Ok(())
}

fn summary(builder: &mut Builder<'_>, family: &Family, metric: &Metric) -> Parsed<()> {
    let (mut count, mut sum) = (0, 0.0);
    let mut fields = Fields::new(builder.text, metric.inner);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => count = fields.whole(value)?,
            2 => sum = fields.float(value)?,
            _ => {}
        }
    }
    builder.sample_of(family.id, family.count, count as f64, metric.time_unix_ms)?;
    builder.repeat(metric.labels, metric.label_count);
    builder.sample_of(family.id, family.sum, canonical(sum), metric.time_unix_ms)?;
    let mut fields = Fields::new(builder.text, metric.inner);
    let mut place = 0;
    while let Some((field, value)) = fields.next()? {
        if field != 3 {
            continue;
        }
        let (mut quantile, mut number) = (0.0, 0.0);
        let mut inside = Fields::new(builder.text, fields.bytes(value)?);
        while let Some((field, value)) = inside.next()? {
            match field {
                1 => quantile = inside.float(value)?,
                2 => number = inside.float(value)?,
                _ => {}
            }
        }
        labelled(builder, metric, b"quantile", place, quantile)?;
        builder.sample_of(family.id, family.name, canonical(number), metric.time_unix_ms)?;
        place += 1;
    }
    Ok(())
}

/// The metric's labels once more, and `le` or `quantile`. `place` is the bucket's or the quantile's in its metric.
pub(super) fn labelled(
    builder: &mut Builder<'_>,
    metric: &Metric,
    name: &'static [u8],
    place: usize,
    bound: f64,
) -> Parsed<()> {
    let (name, bound) = builder.bound(name, place, bound);
    builder.repeat(metric.labels, metric.label_count);
    builder.label(metric.at, name, bound)
}

/// An exemplar's place in the page; `None` where Prometheus drops it. A native histogram's must have a time.
pub(super) fn read_exemplar(builder: &mut Builder<'_>, message: Stretch, timed: bool) -> Parsed<Option<u32>> {
    let (mut number, mut time) = (0.0, NO_TIME);
    builder.begin_exemplar();
    let mut fields = Fields::new(builder.text, message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                let (name, content) = label_pair(builder, fields.bytes(value)?)?;
                builder.exemplar_label(name, content);
            }
            2 => number = fields.float(value)?,
            3 => time = timestamp(builder, fields.bytes(value)?)?,
            _ => {}
        }
    }
    if timed && time == NO_TIME {
        builder.discard_exemplar();
        return Ok(None);
    }
    Ok(builder.end_exemplar(canonical(number), time))
}

/// `google.protobuf.Timestamp` in milliseconds, cut off.
fn timestamp(builder: &Builder<'_>, message: Stretch) -> Parsed<i64> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    let mut fields = Fields::new(builder.text, message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => seconds = fields.whole(value)? as i64,
            2 => nanos = fields.whole(value)? as i32,
            _ => {}
        }
    }
    let millis = seconds.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000));
    Ok(millis.max(NO_TIME + 1))
}
