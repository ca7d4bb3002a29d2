//! The flight recorder over real files: what is held, what releases it, and that kill -9 changes nothing of it.

use std::sync::Arc;

use nodewick::data::account::Account;
use nodewick::data::pods::{Container, Pod, Traits, Writer, directory};
use nodewick::data::tally::Dropping;
use nodewick::data::workload::{Exit, Handling};

use super::*;

const OTHER: &str = "shop_payments-d994d45d6-5h9zr_e22d7f7e-84fc-49ec-95a1-4ee5155f656a";
const T1: &str = "0af7651916cd43dd8448eb211c80319c";
const T2: &str = "b7ad6b7169203331b7ad6b7169203331";

/// The pod of a log directory, with its flight recorder as the annotation says.
fn pod(dir: &str, recorder: Option<bool>, exits: &[(u32, i32)]) -> Pod {
    let mut parts = dir.splitn(3, '_').map(str::to_owned);
    let mut next = || parts.next().expect("namespace, name, uid");
    let traits = Traits { service_name: "till".into(), ..Traits::default() };
    let exit = |(restart, code): &(u32, i32)| (*restart, Exit { code: *code, reason: "Error".into() });
    Pod {
        namespace: next(),
        name: next(),
        uid: next(),
        containers: vec![Container {
            name: "api".into(),
            traits: Arc::new(traits),
            handling: Arc::new(Handling { recorder, ..Handling::default() }),
            exits: exits.iter().map(exit).collect(),
            ..Container::default()
        }],
        ..Pod::default()
    }
}

fn recorded(pods: &[&str]) -> (Rig, Writer) {
    let mut rig = Rig::new();
    rig.kill();
    let (mut writer, known) = directory();
    rig.pods = Some(known);
    rig.start(Marks::new());
    for name in pods {
        writer.enter(pod(name, Some(true), &[]));
    }
    (rig, writer)
}

fn line(level: &str, trace: &str, text: &str) -> String {
    format!(r#"{{"level":"{level}","trace_id":"{trace}","msg":"{text}"}}"#)
}

impl Rig {
    /// Writes lines, each a millisecond after the one before, and steps until they are read.
    fn says(&mut self, dir: &str, from: u64, lines: &[&str]) {
        let log = self.log(dir, "0.log");
        for (n, line) in lines.iter().enumerate() {
            self.append(&log, &cri((from + n as u64) * 1_000_000, line));
        }
        self.run(3);
    }

    fn of(&self, pod: &str) -> Account {
        let name = pod.split('_').nth(1).expect("a name");
        let accounts = self.registry.accounts().0;
        accounts.into_iter().find(|account| account.pod == name).expect("a log")
    }

    /// Held, released, dropped by the recorder; and every byte that was written is somewhere.
    fn recorder(&self, pod: &str) -> (u64, u64, u64) {
        let account = self.of(pod);
        assert_eq!(account.sums.remainder(), 0, "{account:?}");
        let dropped = account.sums.dropped[Dropping::Recorder as usize].records;
        (account.sums.held_records, account.sums.released_records, dropped)
    }
}

#[test]
fn debug_lines_go_out_when_their_trace_fails_and_only_they() {
    let (mut rig, _writer) = recorded(&[POD]);
    let (d1, d2) = (line("debug", T1, "cart has 3 items"), line("debug", T2, "fine"));
    let (info, error) = (line("info", T1, "paying"), line("error", T1, "declined"));
    rig.says(POD, 1, &[&d1, &d2, &info]);
    assert_eq!(rig.ack(), [info.as_str()], "what is not below info is sent at once");
    assert_eq!(rig.recorder(POD), (2, 0, 0));
    assert!(rig.budget.held() > 0, "what is held counts in the budget");
    rig.says(POD, 10, &[&error]);
    assert_eq!(rig.ack(), [d1.as_str(), error.as_str()]);
    assert_eq!(rig.recorder(POD), (1, 1, 0));
    let first = &rig.shipped[1];
    assert_eq!((first.text.as_str(), first.time), (d1.as_str(), BASE + 1_000_000), "with its own time");
    assert!(
        first.marks.contains(RecordMarks::RELEASED) && !rig.shipped[2].marks.contains(RecordMarks::RELEASED)
    );
    // What follows of a trace that has failed is not held any more.
    let late = line("trace", T1, "rolled back");
    rig.says(POD, 20, &[&late]);
    assert_eq!(rig.ack(), [late.as_str()]);
    assert!(rig.shipped[3].marks.contains(RecordMarks::RELEASED));
    assert_eq!(rig.recorder(POD).0, 1);
}

#[test]
fn kill_9_brings_back_what_was_held_and_sends_nothing_again() {
    let (mut rig, _writer) = recorded(&[POD]);
    let (d1, d2, d3) = (line("debug", T1, "one"), line("debug", T1, "two"), line("debug", T2, "three"));
    let (info, error) = (line("info", T2, "seen"), line("fatal", T1, "dead"));
    rig.says(POD, 1, &[&d1, &info, &d3, &d2]);
    rig.ack();
    let marks = rig.kill();
    rig.start(marks);
    rig.run(10);
    assert_eq!(rig.ack(), [""; 0], "all but the held lines was acknowledged");
    assert_eq!(rig.recorder(POD), (3, 0, 0), "held again");
    rig.says(POD, 10, &[&error]);
    let expected = [d1.as_str(), d2.as_str(), error.as_str()];
    // Killed before anybody had them: they come again, the same ones.
    assert_eq!(rig.sink.0.lock().iter().map(|shipment| shipment.batch.records.len()).sum::<usize>(), 3);
    let marks = rig.kill();
    rig.start(marks);
    rig.run(10);
    assert_eq!(rig.ack(), expected);
    assert_eq!(rig.recorder(POD), (1, 2, 0));
    let marks = rig.kill();
    rig.start(marks);
    rig.run(10);
    let d4 = line("debug", T1, "four");
    rig.says(POD, 20, &[&d4]);
    assert_eq!(
        rig.ack(),
        [d4.as_str()],
        "nothing is sent again, and the trace is still known to have failed"
    );
    assert_eq!(rig.recorder(POD).0, 1);
}

#[test]
fn a_container_that_dies_gives_out_all_that_it_held() {
    let (mut rig, mut writer) = recorded(&[POD]);
    let (d1, d2) = (line("debug", T1, "allocating"), r#"{"level":"debug","msg":"no trace"}"#);
    rig.says(POD, 1, &[&d1, d2]);
    assert_eq!(rig.ack(), [""; 0]);
    writer.enter(pod(POD, Some(true), &[(0, 137)]));
    rig.run(40);
    // Killed before it is acknowledged: it is told again.
    assert!(!rig.sink.0.lock().is_empty());
    let marks = rig.kill();
    rig.start(marks);
    rig.run(40);
    let texts = rig.ack();
    assert_eq!(texts[..2], [d1.as_str(), d2]);
    assert!(texts.len() == 3 && texts[2].contains("nodewick.last_words"), "{texts:?}");
    assert!(rig.shipped[0].marks.contains(RecordMarks::RELEASED));
    assert_eq!(rig.recorder(POD), (0, 2, 0));
    // Once it is acknowledged the checkpoint knows.
    rig.run(40);
    let marks = rig.kill();
    rig.start(marks);
    rig.run(40);
    assert_eq!(rig.ack(), [""; 0]);
    assert_eq!(rig.recorder(POD), (0, 0, 0));
}

#[test]
fn a_container_that_ends_well_takes_its_debug_lines_with_it() {
    let (mut rig, mut writer) = recorded(&[POD]);
    let (debug, info) = (line("debug", T1, "hidden"), line("info", T1, "bye"));
    rig.says(POD, 1, &[&debug, &info]);
    writer.enter(pod(POD, Some(true), &[(0, 0)]));
    rig.run(40);
    assert_eq!(rig.ack(), [info.as_str()]);
    assert_eq!(rig.recorder(POD), (0, 0, 1));
    assert_eq!(
        rig.of(POD).sums.dropped[Dropping::Recorder as usize].bytes,
        debug.len() as u64,
        "a dropped line counts with its own length"
    );
}

#[test]
fn what_is_held_is_dropped_and_counted_when_the_file_is_rotated() {
    let (mut rig, _writer) = recorded(&[POD]);
    let (debug, info) = (line("debug", T1, "old"), line("info", T1, "x"));
    rig.says(POD, 1, &[&debug, &info]);
    let log = rig.log(POD, "0.log");
    rig.rotate(&log, "20261122-140000");
    let error = line("error", T1, "later");
    rig.says(POD, 10, &[&error]);
    rig.run(30);
    assert_eq!(rig.ack(), [info.as_str(), error.as_str()]);
    assert_eq!(rig.recorder(POD), (0, 0, 1));
}

#[test]
fn an_error_in_one_container_brings_out_its_neighbours_lines_of_that_trace() {
    let (mut rig, _writer) = recorded(&[POD, OTHER]);
    let (mine, theirs) = (line("debug", T1, "calling payments"), line("debug", T1, "card refused"));
    let quiet = line("debug", T2, "quiet");
    rig.says(POD, 1, &[&mine]);
    rig.says(OTHER, 2, &[&theirs, &quiet]);
    assert_eq!(rig.ack(), [""; 0]);
    let error = line("error", T1, "checkout failed");
    rig.says(POD, 10, &[&error]);
    assert_eq!(rig.ack(), [mine.as_str(), error.as_str(), theirs.as_str()]);
    // Also what the neighbour says of it later.
    let later = line("debug", T1, "cleaning up");
    rig.says(OTHER, 20, &[&later]);
    assert_eq!(rig.ack(), [later.as_str()]);
    assert_eq!((rig.recorder(POD), rig.recorder(OTHER)), ((0, 1, 0), (1, 2, 0)));
}

#[test]
fn without_the_annotation_nothing_is_held_and_switching_it_off_gives_up_what_was() {
    let (mut rig, mut writer) = recorded(&[]);
    writer.enter(pod(POD, None, &[]));
    let debug = line("debug", T1, "as ever");
    rig.says(POD, 1, &[&debug]);
    assert_eq!(rig.ack(), [debug.as_str()]);
    writer.enter(pod(POD, Some(true), &[]));
    rig.run(2);
    rig.says(POD, 10, &[&debug]);
    assert_eq!((rig.ack(), rig.recorder(POD)), (vec![], (1, 0, 0)));
    writer.enter(pod(POD, Some(false), &[]));
    rig.run(2);
    rig.says(POD, 20, &[&debug]);
    assert_eq!((rig.ack(), rig.recorder(POD)), (vec![debug.clone()], (0, 0, 1)));
}

#[test]
fn all_rings_together_keep_within_their_memory() {
    let (mut rig, _writer) = recorded(&[POD, OTHER]);
    // A quarter of the agent's memory is the most, whatever is configured.
    let marks = rig.kill();
    rig.start_with(marks, Start::Oldest, 1 << 20);
    let text = "x".repeat(8 << 10);
    let debug = line("debug", T2, &text);
    let few: Vec<&str> = std::iter::repeat_n(debug.as_str(), 20).collect();
    rig.says(OTHER, 1, &few[..5]);
    for round in 0..3 {
        rig.says(POD, 100 + round * 20, &few);
        rig.run(20);
        rig.ack();
    }
    let (held, released, dropped) = rig.recorder(POD);
    assert_eq!((held + dropped, released), (60, 0));
    assert_eq!(rig.recorder(OTHER), (5, 0, 0), "who holds less keeps it");
    assert!(rig.budget.held() <= 256 << 10, "{}", rig.budget.held());
    assert!(held >= 20, "{held}");
}
