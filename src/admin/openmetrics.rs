//! The OpenMetrics text form of gathered metrics.
//!
//! In: families as the registry gathers them. Out: text that ends in `# EOF`. Unlike the Prometheus text, a counter's
//! family is named without `_total` and a histogram's `le` is a float in its canonical form.
//! Source: OpenMetrics 1.0, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// True when `accept` asks for OpenMetrics at least as much as for plain text.
pub fn wanted(accept: &str) -> bool {
    let mut open: Option<f32> = None;
    let mut plain = 0.0_f32;
    for part in accept.split(',') {
        let mut parameters = part.split(';').map(str::trim);
        let kind = parameters.next().unwrap_or_default();
        let mut weight = 1.0_f32;
        let mut known_version = true;
        for parameter in parameters {
            match parameter.split_once('=') {
                Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                Some(("version", value)) => {
                    known_version = matches!(value.trim_matches('"'), "1.0.0" | "0.0.1")
                }
                _ => {}
            }
        }
        if kind.eq_ignore_ascii_case("application/openmetrics-text") && known_version && weight > 0.0 {
            open = Some(open.map_or(weight, |best| best.max(weight)));
        } else if kind.eq_ignore_ascii_case("text/plain") {
            plain = plain.max(weight);
        }
    }
    open.is_some_and(|open| open >= plain)
}

/// The families as OpenMetrics text.
pub fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::with_capacity(16 << 10);
    for family in families {
        let (kind, name) = match family.get_field_type() {
            MetricType::COUNTER => ("counter", family.name().strip_suffix("_total").unwrap_or(family.name())),
            MetricType::GAUGE => ("gauge", family.name()),
            MetricType::HISTOGRAM => ("histogram", family.name()),
            MetricType::SUMMARY => ("summary", family.name()),
            // The registry's text form makes none of these.
            MetricType::UNTYPED => continue,
        };
        let _ = writeln!(out, "# TYPE {name} {kind}");
        let _ = writeln!(out, "# HELP {name} {}", escaped(family.help()));
        for metric in family.get_metric() {
            let labels = metric.get_label();
            match family.get_field_type() {
                MetricType::COUNTER => {
                    sample(&mut out, name, "_total", labels, None, metric.get_counter().get_value());
                }
                MetricType::GAUGE => sample(&mut out, name, "", labels, None, metric.get_gauge().get_value()),
                MetricType::UNTYPED => {}
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    let mut has_infinity = false;
                    for bucket in histogram.get_bucket() {
                        let bound = bucket.upper_bound();
                        has_infinity |= bound == f64::INFINITY;
                        let count = bucket.cumulative_count() as f64;
                        sample(&mut out, name, "_bucket", labels, Some(("le", float(bound))), count);
                    }
                    let count = histogram.get_sample_count() as f64;
                    if !has_infinity {
                        sample(&mut out, name, "_bucket", labels, Some(("le", "+Inf".to_owned())), count);
                    }
                    sample(&mut out, name, "_count", labels, None, count);
                    sample(&mut out, name, "_sum", labels, None, histogram.get_sample_sum());
                }
                MetricType::SUMMARY => {
                    let summary = metric.get_summary();
                    for quantile in summary.get_quantile() {
                        let label = Some(("quantile", float(quantile.quantile())));
                        sample(&mut out, name, "", labels, label, quantile.value());
                    }
                    sample(&mut out, name, "_count", labels, None, summary.sample_count() as f64);
                    sample(&mut out, name, "_sum", labels, None, summary.sample_sum());
                }
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

fn sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[LabelPair],
    extra: Option<(&str, String)>,
    value: f64,
) {
    let _ = write!(out, "{name}{suffix}");
    let own = labels.iter().map(|label| (label.name(), escaped(label.value())));
    let mut separator = '{';
    for (label, text) in own.chain(extra) {
        let _ = write!(out, "{separator}{label}=\"{text}\"");
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {}", number(value));
}

/// A value: whole numbers without a fraction.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 9e15 { format!("{value:.0}") } else { float(value) }
}

/// A float in the canonical form that the specification wants for `le` and `quantile`: `1.0`, `0.005`, `+Inf`.
fn float(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        format!("{value:?}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

    #[test]
    fn the_text_is_as_the_specification_wants_it() {
        let registry = Registry::new();
        let lost =
            IntCounterVec::new(Opts::new("lost_total", "Lost \"lines\"."), &["reason"]).expect("valid");
        lost.with_label_values(&["a\"b\\c\nd"]).inc_by(3);
        let up = Gauge::new("up", "Up.").expect("valid");
        up.set(0.5);
        let seconds =
            HistogramVec::new(HistogramOpts::new("t_seconds", "Time.").buckets(vec![0.5, 1.0]), &["sink"])
                .expect("valid");
        seconds.with_label_values(&["x"]).observe(0.75);
        registry.register(Box::new(lost)).expect("new");
        registry.register(Box::new(up)).expect("new");
        registry.register(Box::new(seconds)).expect("new");
        assert_eq!(
            encode(&registry.gather()),
            "# TYPE lost counter\n# HELP lost Lost \\\"lines\\\".\nlost_total{reason=\"a\\\"b\\\\c\\nd\"} 3\n\
             # TYPE t_seconds histogram\n# HELP t_seconds Time.\nt_seconds_bucket{sink=\"x\",le=\"0.5\"} 0\n\
             t_seconds_bucket{sink=\"x\",le=\"1.0\"} 1\nt_seconds_bucket{sink=\"x\",le=\"+Inf\"} 1\n\
             t_seconds_count{sink=\"x\"} 1\nt_seconds_sum{sink=\"x\"} 0.75\n\
             # TYPE up gauge\n# HELP up Up.\nup 0.5\n# EOF\n"
        );
    }

    #[test]
    fn the_accept_header_decides() {
        // What Prometheus 2.42 sends.
        assert!(wanted(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(!wanted("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.5"));
        assert!(!wanted("application/openmetrics-text;q=0"));
        assert!(!wanted("*/*"));
        assert!(!wanted(""));
    }
}
