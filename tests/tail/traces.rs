//! Stack traces through the tail: rotation, death, quiet, truncation.

use super::*;

const TRACE: [&str; 2] = ["java.lang.Error: x", "\tat org.example.Shop.buy(Shop.java:42)"];

#[test]
fn a_trace_that_a_rotation_splits_is_one_record_even_when_the_agent_dies() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(12 * HOUR, "up"));
    rig.append(&live, &cri(12 * HOUR + 1, TRACE[0]));
    rig.run(5);
    assert_eq!(rig.ack(), ["up"]);
    rig.rotate(&live, "20261123-020000");
    rig.append(&live, &cri(12 * HOUR + 2, TRACE[1]));
    rig.run(12);
    assert_eq!(rig.ack(), [""; 0]);
    let marks = rig.kill();
    rig.start(marks);
    rig.append(&live, &cri(12 * HOUR + 3, "down"));
    assert_eq!(rig.drain(), [TRACE.join("\n"), "down".to_owned()]);
    let marks = rig.kill();
    rig.start(marks);
    assert_eq!(rig.drain(), [""; 0], "the position has passed the trace");
}

#[test]
fn a_trace_at_the_end_of_a_quiet_log_leaves_after_three_seconds() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(12 * HOUR, TRACE[0]));
    rig.append(&live, &cri(12 * HOUR + 1, TRACE[1]));
    rig.run(30);
    assert_eq!(rig.ack(), [""; 0]);
    rig.run(2);
    assert_eq!(rig.ack(), [TRACE.join("\n")]);
}

#[test]
fn a_trace_that_is_open_when_its_log_is_truncated_is_not_lost() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(12 * HOUR, TRACE[0]));
    rig.append(&live, &cri(12 * HOUR + 1, TRACE[1]));
    rig.run(3);
    assert_eq!(rig.ack(), [""; 0]);
    fs::write(&live, cri(12 * HOUR + 2, "new")).expect("truncated");
    assert_eq!(rig.drain(), [TRACE.join("\n"), "new".to_owned()]);
}
