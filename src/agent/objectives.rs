//! Declared objectives as rate, errors and durations count them.
//!
//! In: `[slo]`. Out: what [`Red`](crate::red::Red) counts exactly from access lines, and the thresholds that need a bucket of
//! their own because it cannot: objectives of a service or a route are measured by the histogram.

use crate::config::{red, slo};
use crate::data::units::Span;

/// Objectives of whole workloads, counted as `slo_events_total`.
pub(super) fn counted(config: &slo::Config) -> Vec<red::Slo> {
    let specs = config.specs().into_iter().filter(slo::Spec::is_counted);
    specs
        .map(|spec| red::Slo {
            id: spec.id(),
            matcher: red::Matcher {
                namespace: Some(spec.selector.namespace.clone()),
                workload: spec.selector.workload.clone(),
            },
            kind: match spec.sli {
                slo::Sli::Availability => red::Kind::Availability,
                slo::Sli::Latency { threshold } => red::Kind::Latency {
                    threshold_nano: u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX),
                },
            },
            exclude_routes: spec.exclude_routes,
        })
        .collect()
}

/// `[red]` with a bucket at the threshold of every objective that the histogram measures.
pub(super) fn with_buckets(red: &red::Config, config: &slo::Config) -> red::Config {
    let mut red = red.clone();
    for spec in config.specs().iter().filter(|spec| !spec.is_counted()) {
        if let slo::Sli::Latency { threshold } = spec.sli
            && !red.thresholds.contains(&Span(threshold))
        {
            red.thresholds.push(Span(threshold));
        }
    }
    red
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> slo::Config {
        toml::from_str(
            "[fast]\nmatch = { namespace = \"shop\", workload = \"api\" }\nsli = \"latency\"\nobjective = \"99%\"\nthreshold = \
             \"200ms\"\nexclude_routes = [\"/healthz\"]\n[pay]\nmatch = { namespace = \"shop\", service = \"api\" }\nsli = \
             \"latency\"\nobjective = \"99%\"\nthreshold = \"300ms\"\n",
        )
        .expect("a config")
    }

    #[test]
    fn objectives_of_workloads_are_counted_and_others_get_a_bucket() {
        let counted = counted(&config());
        assert_eq!(counted.len(), 1);
        assert_eq!(
            (counted[0].id.as_str(), counted[0].exclude_routes.as_slice()),
            ("shop/api/fast", &["/healthz".to_owned()][..])
        );
        assert_eq!(counted[0].kind, red::Kind::Latency { threshold_nano: 200_000_000 });
        assert!(counted[0].matches("shop", "api") && !counted[0].matches("bank", "api"));
        let red = with_buckets(&red::Config::default(), &config());
        assert_eq!(red.thresholds, [Span::millis(300)]);
    }
}
