//! Real dumps: all of them are read whole.

use nodewick::data::sample::{MetricKind, NO_TIME};
use nodewick::scrape::Dialect;

use crate::support::{families, open, samples, text};

fn dump(name: &str) -> Vec<u8> {
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
