//! What annotations say, key by key: precedence, malformed values, Fluent Bit, bounds.

use super::*;
use crate::kube::problem::MAX_PROBLEMS;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn map(pairs: Pairs<'_>) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What the annotations of a pod with the containers `api` and `istio-proxy` say, and what is wrong with them.
fn said(pod: Pairs<'_>, namespace: Pairs<'_>) -> (Annotations, Vec<String>) {
    let mut problems = Problems::of("shop", "checkout-1");
    let tenants = ["team-a".to_owned(), "a/b".to_owned()];
    let containers = ["api", "istio-proxy"];
    let found = read(Some(&map(pod)), Some(&map(namespace)), &containers, &tenants, &mut problems);
    (found, problems.into_vec().iter().map(ToString::to_string).collect())
}

fn handling(pod: Pairs<'_>, namespace: Pairs<'_>) -> Handling {
    let (found, problems) = said(pod, namespace);
    assert_eq!(problems, [""; 0]);
    found.handling("api")
}

/// The one thing that is wrong with a value of the pod's annotation.
fn wrong(key: &str, value: &str) -> String {
    let name = format!("{PREFIX}{key}");
    let (found, mut problems) = said(&[(&name, value)], &[]);
    assert_eq!(found.handling("api"), Handling::default(), "the default applies");
    assert_eq!(problems.len(), 1, "{key} {value}: {problems:?}");
    problems
        .remove(0)
        .strip_prefix("pod shop/checkout-1: annotation nodewick.dev/")
        .expect("the place")
        .to_owned()
}

#[test]
fn every_key_does_what_it_says() {
    let found = handling(
        &[
            ("nodewick.dev/logs", "off"),
            ("nodewick.dev/parser", "nginx"),
            ("nodewick.dev/level-field", "lvl"),
            ("nodewick.dev/trace-field", "my.trace"),
            ("nodewick.dev/sample", "10%"),
            ("nodewick.dev/multiline", r"start=^\d{4}-"),
            ("nodewick.dev/flight-recorder", "on"),
        ],
        &[],
    );
    let expected = Handling {
        off: true,
        format: LineFormat::Nginx,
        level_field: Some("lvl".into()),
        trace_field: Some("my.trace".into()),
        sample: Some(0.1),
        multiline: Some(r"start=^\d{4}-".into()),
        recorder: Some(true),
    };
    assert_eq!(found, expected);
    let (found, problems) = said(&[("nodewick.dev/tenant", "team-a")], &[]);
    assert_eq!((found.tenant("api").as_deref(), problems.len()), (Some("team-a"), 0));
    assert_eq!(handling(&[], &[]), Handling::default());
}

#[test]
fn values_are_read_as_people_write_them() {
    for (value, off) in [("off", true), (" Off ", true), ("false", true), ("on", false), ("true", false)] {
        assert_eq!(handling(&[("nodewick.dev/logs", value)], &[]).off, off, "{value}");
    }
    for (value, on) in [("on", true), ("TRUE", true), ("off", false), (" false ", false)] {
        assert_eq!(handling(&[("nodewick.dev/flight-recorder", value)], &[]).recorder, Some(on), "{value}");
    }
    let both =
        handling(&[("nodewick.dev/flight-recorder.api", "off")], &[("nodewick.dev/flight-recorder", "on")]);
    assert_eq!(both.recorder, Some(false), "the container's own word stands before its namespace's");
    for (value, share) in [
        ("0.25", Some(0.25)),
        ("10%", Some(0.1)),
        ("0.5 %", Some(0.005)),
        (".5", Some(0.5)),
        ("1", None),
        ("100%", None),
    ] {
        assert_eq!(handling(&[("nodewick.dev/sample", value)], &[]).sample, share, "{value}");
    }
    for (value, format) in [
        ("auto", LineFormat::Auto),
        ("JSON", LineFormat::Json),
        ("logfmt", LineFormat::Logfmt),
        ("klog", LineFormat::Klog),
        ("text", LineFormat::Text),
    ] {
        assert_eq!(handling(&[("nodewick.dev/parser", value)], &[]).format, format, "{value}");
    }
}

#[test]
fn the_pod_stands_before_its_namespace_and_the_container_before_the_pod() {
    const GENERAL: &str = "nodewick.dev/parser";
    const SPECIAL: &str = "nodewick.dev/parser.api";
    for (pod, namespace, format) in [
        (
            &[(GENERAL, "json"), (SPECIAL, "klog")][..],
            &[(GENERAL, "text"), (SPECIAL, "nginx")][..],
            LineFormat::Klog,
        ),
        (&[(GENERAL, "json")], &[(GENERAL, "text"), (SPECIAL, "nginx")], LineFormat::Json),
        (&[], &[(GENERAL, "text"), (SPECIAL, "nginx")], LineFormat::Nginx),
        (&[], &[(GENERAL, "text")], LineFormat::Text),
        (&[("nodewick.dev/parser.istio-proxy", "json")], &[], LineFormat::Auto),
        (&[(GENERAL, "auto")], &[(GENERAL, "text")], LineFormat::Auto),
    ] {
        assert_eq!(handling(pod, namespace).format, format, "{pod:?} {namespace:?}");
    }
    let (found, _) = said(&[("nodewick.dev/sample", "1")], &[("nodewick.dev/sample", "10%")]);
    assert_eq!(found.handling("api").sample, None, "a pod takes its namespace's sampling back");
}

#[test]
fn a_container_is_matched_exactly() {
    let (found, problems) = said(&[("nodewick.dev/logs.istio-proxy", "off")], &[]);
    assert!(found.handling("istio-proxy").off && !found.handling("api").off);
    assert_eq!(problems.len(), 0);
    let (found, problems) =
        said(&[("nodewick.dev/logs.istio-prox", "off")], &[("nodewick.dev/logs.other", "off")]);
    assert!(!found.handling("istio-proxy").off);
    assert_eq!(
        problems,
        ["pod shop/checkout-1: annotation nodewick.dev/logs.istio-prox = \"off\": the pod has no container \
          istio-prox; did you mean nodewick.dev/logs.istio-proxy?"],
        "pods of a namespace may have other containers"
    );
}

#[test]
fn a_malformed_value_is_told_with_its_place_and_fix() {
    for (key, value, expected) in [
        (
            "logs",
            "maybe",
            r#"logs = "maybe": is neither on nor off, so the logs are shipped; write "on" or "off""#,
        ),
        ("parser", "jsno", r#"parser = "jsno": is not a format that is known; did you mean "json"?"#),
        (
            "sample",
            "0",
            r#"sample = "0": a share of 0 keeps no line; write nodewick.dev/logs: "off" to ship none"#,
        ),
        ("level-field", "", r#"level-field = "": names no field; write the key as the lines have it"#),
        (
            "tenant",
            "team-b",
            r#"tenant = "team-b": the agent's config does not allow this tenant; have the operator add it to [kube] tenants, or remove the annotation"#,
        ),
        ("lgos", "off", r#"lgos = "off": there is no such annotation; did you mean nodewick.dev/logs?"#),
        (
            "scrape",
            "x\r\ny",
            r#"scrape = "x\r\ny": there is no such annotation; there are logs, parser, level-field, trace-field, sample, multiline, flight-recorder, tenant"#,
        ),
    ] {
        assert_eq!(wrong(key, value), expected);
    }
    for (key, value) in [
        ("sample", "lots"),
        ("sample", "50"),
        ("sample", "101%"),
        ("sample", "-0.5"),
        ("sample", "NaN"),
        ("sample", "inf"),
        ("sample", "1e-400"),
        ("sample", "%"),
        ("sample", "0.0000%"),
        ("parser", "yaml"),
        ("multiline", "cobol"),
        ("multiline", "start=("),
        ("multiline", r"start=(\w{200}){200}"),
        ("tenant", "a/b"),
        ("tenant", ".."),
        ("tenant", ""),
        ("trace-field", "a\nb"),
        ("logs.", "off"),
        ("logs.a.b", "off"),
        ("", "off"),
    ] {
        wrong(key, value);
    }
    let long = "x".repeat(200_000);
    assert_eq!(
        wrong("level-field", &long),
        format!("level-field = \"{}…\": has 200000 bytes, more than 1024; shorten it", "x".repeat(64))
    );
    let (_, problems) = said(&[], &[("nodewick.dev/logs", "no")]);
    assert!(
        problems[0].starts_with("namespace shop: annotation nodewick.dev/logs = \"no\": "),
        "{problems:?}"
    );
}

#[test]
fn a_malformed_value_does_not_hide_what_is_inherited() {
    let (found, problems) = said(&[("nodewick.dev/logs", "offf")], &[("nodewick.dev/logs", "off")]);
    assert!(found.handling("api").off);
    assert_eq!(problems.len(), 1);
}

#[test]
fn fluent_bits_exclude_is_honoured() {
    for (pod, namespace, api, proxy) in [
        (&[("fluentbit.io/exclude", "true")][..], &[][..], true, true),
        (&[("fluentbit.io/exclude", "false")], &[], false, false),
        (&[("fluentbit.io/exclude-istio-proxy", "true")], &[], false, true),
        (&[("fluentbit.io/exclude", "true"), ("fluentbit.io/exclude-api", "false")], &[], false, true),
        (
            &[("fluentbit.io/exclude_stdout", "true"), ("fluentbit.io/exclude_stderr", "true")],
            &[],
            true,
            true,
        ),
        (&[("fluentbit.io/exclude", "true"), ("nodewick.dev/logs", "on")], &[], false, false),
        (&[("fluentbit.io/exclude", "true")], &[("nodewick.dev/logs", "on")], true, true),
        (&[("fluentbit.io/exclude", "false")], &[("nodewick.dev/logs", "off")], false, false),
        (&[], &[("fluentbit.io/exclude", "true")], true, true),
        (&[("fluentbit.io/parser", "apache")], &[], false, false),
    ] {
        let (found, problems) = said(pod, namespace);
        assert_eq!(problems, [""; 0]);
        let off = (found.handling("api").off, found.handling("istio-proxy").off);
        assert_eq!(off, (api, proxy), "{pod:?} {namespace:?}");
    }
}

#[test]
fn what_fluent_bit_can_and_we_cannot_is_told() {
    let (found, problems) = said(&[("fluentbit.io/exclude_stdout-api", "true")], &[]);
    assert!(!found.handling("api").off);
    assert_eq!(
        problems,
        [
            "pod shop/checkout-1: annotation fluentbit.io/exclude_stdout = \"true\": one stream alone is not excluded: \
          both of container api are shipped; drop it by a rule of the agent's config, [process.drop] with stream = \
          \"stdout\""
        ]
    );
    for (name, value) in [("fluentbit.io/exclude", "maybe"), ("fluentbit.io/exclude_stdin", "true")] {
        let (found, problems) = said(&[(name, value)], &[]);
        assert_eq!((found.handling("api").off, problems.len()), (false, 1), "{name}");
    }
}

#[test]
fn resource_annotations_become_attributes() {
    let (found, problems) = said(
        &[
            ("resource.opentelemetry.io/team", " payments "),
            ("resource.opentelemetry.io/service.namespace", "storefront"),
            ("resource.opentelemetry.io/empty", ""),
        ],
        &[("resource.opentelemetry.io/team", "platform"), ("resource.opentelemetry.io/tier", "gold")],
    );
    assert_eq!(problems, [""; 0]);
    let expected = map(&[("service.namespace", "storefront"), ("team", "payments"), ("tier", "gold")]);
    assert_eq!(found.resource, expected);
}

#[test]
fn a_resource_annotation_that_cannot_be_is_told() {
    let long = "v".repeat(1025);
    for (key, value) in [
        ("k8s.pod.name", "other"),
        ("k8s.cluster.name", "other"),
        ("nodewick.service_name_guessed", "x"),
        ("", "x"),
        ("-a", "x"),
        ("a b", "x"),
        ("ä", "x"),
        ("a", "x\0y"),
        ("a", "x\r\ny"),
        ("a", &long),
    ] {
        let (found, problems) = said(&[(&format!("{RESOURCE}{key}"), value)], &[]);
        assert_eq!((found.resource.len(), problems.len()), (0, 1), "{key:?} {value:?}");
    }
}

#[test]
fn more_resource_annotations_than_a_sink_takes_are_told() {
    let many: Vec<_> = (0..60).map(|n| format!("resource.opentelemetry.io/key-{n:02}")).collect();
    let short: Vec<_> = many.iter().map(|name| (name.as_str(), "x")).collect();
    let (found, problems) = said(&short, &[]);
    assert_eq!((found.resource.len(), problems.len()), (48, 12));
    let long = "x".repeat(1000);
    let long: Vec<_> = many.iter().take(6).map(|name| (name.as_str(), long.as_str())).collect();
    let (found, problems) = said(&long, &[]);
    assert_eq!((found.resource.len(), problems.len()), (4, 2));
}

#[test]
fn only_so_many_regular_expressions_are_compiled() {
    let many: Vec<_> = (0..200).map(|n| format!("nodewick.dev/multiline.c{n:03}")).collect();
    let hostile = r"start=(\w{40}){8}";
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), hostile)).collect();
    let (found, problems) = said(&[], &many);
    let told =
        problems.iter().filter(|told| told.contains("is one of more than 8 regular expressions")).count();
    assert_eq!((found.statements.len(), told), (0, 8), "{problems:?}");
}

#[test]
fn annotations_for_others_are_kept_as_they_are() {
    let (found, problems) = said(
        &[
            ("prometheus.io/port", "3000"),
            ("slo.nodewick.dev/checkout", "99.9% in 300ms"),
            ("nodewick.dev/logs", "on"),
            ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        ],
        &[("prometheus.io/port", "9090"), ("prometheus.io/scrape", "true")],
    );
    assert_eq!(problems, [""; 0]);
    let expected = map(&[
        ("nodewick.dev/logs", "on"),
        ("prometheus.io/port", "3000"),
        ("prometheus.io/scrape", "true"),
        ("slo.nodewick.dev/checkout", "99.9% in 300ms"),
    ]);
    assert_eq!(found.kept, expected);
}

#[test]
fn a_quarter_of_a_mebibyte_of_annotations_is_not_kept() {
    let huge = "x".repeat(256 << 10);
    let (found, problems) = said(&[("slo.nodewick.dev/a", &huge), ("prometheus.io/path", "/metrics")], &[]);
    assert_eq!(found.kept, map(&[("prometheus.io/path", "/metrics")]));
    assert_eq!(problems.len(), 1);
    let many: Vec<_> = (0..10_000).map(|n| format!("slo.nodewick.dev/objective-{n:05}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "99.9%")).collect();
    let (found, problems) = said(&many, &[]);
    let bytes: usize = found.kept.iter().map(|(name, value)| name.len() + value.len()).sum();
    // 32 bytes a name, 5 a value.
    assert_eq!((found.kept.len(), bytes, problems.len()), (442, 16_354, MAX_PROBLEMS));
}

#[test]
fn what_is_accepted_here_is_accepted_where_it_is_used() {
    let languages = crate::logs::multiline::Language::NAMED.map(crate::logs::multiline::Language::name);
    let others =
        ["auto", "off", "start=^x", " auto ", "cobol", "start=(", "start=", "Auto", r"start=(\w{200}){200}"];
    for mode in others.into_iter().chain(languages) {
        let here = read_multiline(mode.trim(), &[]).is_ok();
        assert_eq!(here, mode.parse::<crate::logs::multiline::Mode>().is_ok(), "{mode}");
    }
    // The same function serves both; what it says is held here.
    for tenant in ["a", "team-a", "!-_.*'()", &"x".repeat(150)] {
        assert!(is_tenant(tenant), "{tenant}");
    }
    for tenant in ["a/b", ".", "..", "", "a|b", "é", &"x".repeat(151)] {
        assert!(!is_tenant(tenant), "{tenant}");
    }
}
