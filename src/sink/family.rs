//! Which part of its metric a sample is.
//!
//! In: a family's type and name, a sample's name. Out: the metric's own name and the part. Invariant: a name that is the
//! family's own is never cut, so a counter called `orders_created` stays one.

use crate::data::sample::MetricKind;

/// The part of a metric that a sample tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The value itself, a quantile, or a native histogram.
    Value,
    /// `_bucket`: observations up to `le`.
    Bucket,
    /// `_sum`.
    Sum,
    /// `_count`.
    Count,
    /// `_created`: when the metric began, seconds since the epoch.
    Created,
}

/// The metric that a sample called `name` belongs to, and its part of it. `family` is the name in the `# TYPE` line.
pub fn part_of<'a>(kind: MetricKind, family: &[u8], name: &'a [u8]) -> (&'a [u8], Part) {
    let parts: &[(&[u8], Part)] = match kind {
        _ if name == family => &[],
        MetricKind::Counter => &[(b"_created", Part::Created)],
        MetricKind::Summary => {
            &[(b"_sum", Part::Sum), (b"_count", Part::Count), (b"_created", Part::Created)]
        }
        MetricKind::Histogram => &[
            (b"_bucket", Part::Bucket),
            (b"_sum", Part::Sum),
            (b"_count", Part::Count),
            (b"_created", Part::Created),
        ],
        _ => &[],
    };
    for (suffix, part) in parts {
        if let Some(base) = name.strip_suffix(*suffix)
            && !base.is_empty()
        {
            return (base, *part);
        }
    }
    (name, Part::Value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_count_where_their_type_has_them() {
        for (kind, family, name, base, part) in [
            (MetricKind::Histogram, "h", "h_bucket", "h", Part::Bucket),
            (MetricKind::Histogram, "h", "h_sum", "h", Part::Sum),
            (MetricKind::Histogram, "h", "h", "h", Part::Value),
            (MetricKind::Summary, "s", "s_bucket", "s_bucket", Part::Value),
            (MetricKind::Summary, "s", "s_count", "s", Part::Count),
            (MetricKind::Counter, "c", "c_created", "c", Part::Created),
            (MetricKind::Counter, "orders_created", "orders_created", "orders_created", Part::Value),
            (MetricKind::Counter, "c", "c_total", "c_total", Part::Value),
            (MetricKind::Gauge, "g", "g_sum", "g_sum", Part::Value),
            (MetricKind::Histogram, "renamed", "_bucket", "_bucket", Part::Value),
        ] {
            let found = part_of(kind, family.as_bytes(), name.as_bytes());
            assert_eq!(found, (base.as_bytes(), part), "{name}");
        }
    }
}
