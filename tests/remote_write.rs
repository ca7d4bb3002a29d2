//! The remote_write sink against real receivers.
mod support;

use support::prometheus::{Prometheus, VictoriaMetrics};

#[test]
fn real_receivers_start_and_answer() {
    let mut prometheus = Prometheus::start();
    assert_eq!(prometheus.query("vector(42)", None).into_values().collect::<Vec<_>>(), [42.0]);
    prometheus.stop();
    prometheus.launch();
    prometheus.terminate();
    let victoria = VictoriaMetrics::start();
    assert_eq!(victoria.query("vector(42)", None).into_values().collect::<Vec<_>>(), [42.0]);
    victoria.flush();
    assert!(victoria.export("{__name__=~\"none.*\"}").is_empty());
}
