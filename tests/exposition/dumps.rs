//! Real dumps: all of them are read whole.

use crate::support::{families, families_of_samples, open, samples, text};

pub(crate) fn dump(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/corpus/metrics/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).expect("a dump");
    match name.ends_with(".http") {
        // The answer's head ends with an empty line.
        true => bytes[bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4..].to_vec(),
        false => bytes,
    }
}

/// Counted by `grep -cv -e '^#' -e '^$'` over the body.
#[test]
fn real_dumps_are_read_whole() {
    for (name, expected) in [
        ("kubelet.prom", 1629),
        ("kubelet-cadvisor.prom", 851),
        ("prom-client-default.prom", 161),
        ("prom-client-default.http", 145),
        ("express-prom-bundle.prom", 93),
        ("py-prometheus-client.prom", 43),
    ] {
        let page = text(dump(name));
        assert_eq!(page.samples.len(), expected, "{name}");
        assert!(page.samples.iter().all(|sample| !page.text(sample.name).is_empty()), "{name}");
    }
    let page = open(dump("prom-client-openmetrics-exemplars.http"));
    assert_eq!(page.samples.len(), 136);
}

/// Every sample of these dumps is of a family that a `# TYPE` line names: counted by `grep -c '^# TYPE'`.
#[test]
fn samples_of_real_dumps_are_of_declared_families() {
    for (name, expected) in
        [("kubelet.prom", 245), ("kubelet-cadvisor.prom", 66), ("express-prom-bundle.prom", 33)]
    {
        assert_eq!(text(dump(name)).families.len(), expected, "{name}");
    }
    let page = text(dump("kubelet.prom"));
    let owners = families_of_samples(&page);
    for (sample, owner) in page.samples.iter().zip(owners) {
        assert!(page.text(sample.name).starts_with(owner), "{owner}");
    }
}

#[test]
fn exemplars_and_escapes_of_real_dumps_are_read() {
    let page = open(dump("prom-client-openmetrics-exemplars.http"));
    assert_eq!(page.exemplars.len(), 8);
    let shown = samples(&page);
    let expected = "http_request_duration_seconds_bucket{le=\"0.01\",method=\"GET\",route=\"/ok/:id\",code=\"200\"} 1 \
                    # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.007682626 @1795356568883";
    assert!(shown.iter().any(|sample| sample == expected), "{shown:#?}");
    assert_eq!(shown.last().map(String::as_str), Some("orders_total{status=\"ok\"} 3"));
    assert_eq!(
        families(&page).last().map(String::as_str),
        Some("orders|Counter|orders \"quoted\" \\ and\nnewline|")
    );
}
