//! The tail beside a watch of pods: waiting for labels, what stays frozen, annotations that change, how containers end.

use std::sync::Arc;

use nodewick::data::account::Account;
use nodewick::data::pods::{Container, Pod, Traits, Writer, directory};
use nodewick::data::tally::Dropping;
use nodewick::data::workload::{Exit, Handling, LineFormat, Workload};
use nodewick::logs::checkpoint::Store;

use super::*;

const UID: &str = "d11c6e6d-84fc-49ec-95a1-4ee5155f656a";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A rig whose agent asks the watch.
fn watched() -> (Rig, Writer) {
    let mut rig = Rig::new();
    rig.kill();
    let (writer, pods) = directory();
    rig.pods = Some(pods);
    rig.start(Marks::new());
    (rig, writer)
}

/// The checkout pod with one container.
fn pod(change: impl FnOnce(&mut Container)) -> Pod {
    let traits = Traits {
        service_name: "till".into(),
        service_version: Some("1.2".into()),
        environment: Some("prod".into()),
        labels: vec![("team".into(), "money".into())],
        attributes: vec![("k8s.deployment.name".into(), "checkout".into())],
        tenant: Some("shop".into()),
    };
    let mut container = Container { name: "api".into(), traits: Arc::new(traits), ..Container::default() };
    change(&mut container);
    Pod {
        uid: UID.into(),
        namespace: "shop".into(),
        name: "checkout-d994d45d6-5h9zr".into(),
        containers: vec![container],
        ..Pod::default()
    }
}

fn handled(handling: Handling) -> Pod {
    pod(|container| container.handling = Arc::new(handling))
}

fn off() -> Pod {
    handled(Handling { off: true, ..Handling::default() })
}

fn exited(exits: &[(u32, i32, &str)]) -> Pod {
    let exit = |(restart, code, reason): &(u32, i32, &str)| {
        (*restart, Exit { code: *code, reason: (*reason).to_owned() })
    };
    pod(|container| container.exits = exits.iter().map(exit).collect())
}

impl Rig {
    /// Whose the shipped batches are; nothing is acknowledged.
    fn workloads(&self) -> Vec<Arc<Workload>> {
        self.sink.0.lock().iter().map(|shipment| Arc::clone(&shipment.batch.workload)).collect()
    }

    fn account(&self) -> Account {
        self.registry.accounts().0.into_iter().next().expect("a log")
    }

    /// Every byte that was written is in one of the sums.
    fn assert_balanced(&self) {
        let account = self.account();
        assert_eq!(account.sums.remainder(), 0, "{account:?}");
    }

    /// kill -9 with a checkpoint that went through the disk.
    fn kill_over_disk(&mut self) -> Marks {
        let marks = self.kill();
        let dir = tempfile::tempdir().expect("temp dir");
        let disk = || Arc::new(OsDisk::new(dir.path()));
        let (mut store, _) = Store::open(disk()).expect("opens");
        store.write(marks.iter().map(|(key, mark)| (key.as_str(), mark))).expect("writable");
        let read = Store::open(disk()).expect("opens").1.marks;
        assert_eq!(read, marks);
        read
    }
}

#[test]
fn a_log_waits_for_its_pod_and_goes_at_once_when_it_is_known() {
    let (mut rig, mut writer) = watched();
    let log = rig.log(POD, "0.log");
    rig.append(&log, &cri(1, "a"));
    rig.run(30);
    assert_eq!(rig.ack(), [""; 0]);
    writer.enter(pod(|_| {}));
    rig.run(2);
    let workload = rig.workloads().pop().expect("shipped");
    assert_eq!((workload.service_name.as_str(), workload.service_name_guessed), ("till", false));
    assert_eq!(rig.ack(), ["a"]);
}

#[test]
fn a_log_goes_with_its_path_after_ten_seconds_and_stays_so() {
    let (mut rig, mut writer) = watched();
    let log = rig.log(POD, "0.log");
    rig.append(&log, &cri(1, "a"));
    rig.run(99);
    assert_eq!(rig.ack(), [""; 0]);
    rig.run(6);
    assert_eq!(rig.workloads()[0].service_name, "checkout");
    assert_eq!(rig.ack(), ["a"]);
    // Known in the end: the stream's labels do not change under it, here and in later lives.
    writer.enter(pod(|_| {}));
    rig.append(&log, &cri(2, "b"));
    rig.run(4);
    assert_eq!((rig.workloads()[0].service_name.as_str(), rig.workloads()[0].labels.len()), ("checkout", 0));
    let marks = rig.kill_over_disk();
    rig.start(marks);
    rig.run(4);
    let workload = rig.workloads().pop().expect("shipped");
    assert_eq!((workload.service_name.as_str(), workload.service_name_guessed), ("checkout", true));
    assert_eq!((workload.labels.len(), workload.tenant.as_deref()), (0, None));
}

#[test]
fn files_that_go_while_a_log_waits_for_its_pod_are_not_lost() {
    let (mut rig, mut writer) = watched();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "oldest"));
    rig.run(2);
    rig.rotate(&live, "20261122-140000");
    rig.append(&live, &cri(2, "middle"));
    rig.run(2);
    rig.rotate(&live, "20261122-140001");
    rig.append(&live, &cri(3, "newest"));
    fs::remove_file(live.with_file_name("0.log.20261122-140000")).expect("remove");
    rig.run(2);
    writer.enter(pod(|_| {}));
    assert_eq!(rig.drain(), ["oldest", "middle", "newest"]);

    // And a pod that has come and gone before anybody told us of it.
    let short = "shop_checkout-d994d45d6-5h9zr_short";
    let log = rig.log(short, "0.log");
    rig.append(&log, &cri(4, "short"));
    rig.run(12);
    fs::remove_dir_all(rig.root().join(short)).expect("remove");
    rig.run(12);
    assert_eq!(rig.ack(), [""; 0]);
    rig.run(100);
    assert_eq!(rig.drain(), ["short"]);
    assert_eq!(rig.registry.marks().len(), 1);
}

#[test]
fn what_only_the_spill_has_waits_for_its_pod_no_longer_than_others() {
    let (mut rig, mut writer) = watched();
    writer.enter(pod(|_| {}));
    rig.kill();
    rig.keep_spill();
    rig.start(Marks::new());
    rig.append(&rig.log(POD, "0.log"), &cri(1, "spilled"));
    rig.run(4);
    fs::remove_dir_all(rig.root().join(POD)).expect("remove");
    rig.run(30);
    rig.spill.sync().expect("durable");
    let marks = rig.kill_over_disk();
    rig.keep_spill();
    // The pod is deleted: the watch of the next life never hears of it.
    let (_writer, pods) = directory();
    rig.pods = Some(pods);
    rig.start(marks);
    rig.run(95);
    assert_eq!(rig.workloads(), []);
    rig.run(15);
    assert_eq!(rig.workloads()[0].service_name, "till");
    assert_eq!(rig.ack(), ["spilled"]);
}

#[test]
fn a_replay_after_a_restart_carries_what_the_first_sending_did() {
    let (mut rig, mut writer) = watched();
    writer.enter(pod(|_| {}));
    let log = rig.log(POD, "0.log");
    rig.append(&log, &cri(1, "a"));
    rig.run(4);
    let first = rig.workloads().pop().expect("shipped");
    let marks = rig.kill_over_disk();
    // Meanwhile everything about the pod has become another thing.
    writer.enter(pod(|container| {
        container.traits = Arc::new(Traits { service_name: "other".into(), ..Traits::default() });
    }));
    rig.start(marks);
    rig.run(4);
    assert_eq!(rig.workloads(), [first]);
    assert_eq!(rig.ack(), ["a"]);
    // Another instance of the container takes what holds now.
    rig.append(&rig.log(POD, "1.log"), &cri(2, "b"));
    rig.run(12);
    assert_eq!(rig.workloads()[0].service_name, "other");
}

#[test]
fn a_log_that_is_switched_off_moves_on_unshipped_and_its_account_balances() {
    let (mut rig, mut writer) = watched();
    writer.enter(pod(|_| {}));
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    assert_eq!(rig.drain(), ["a"]);
    writer.enter(off());
    rig.run(1);
    let hidden = [cri(2, "hidden"), cri(3, "behind a rotation"), cri(4, "begun and")];
    rig.append(&live, &hidden[0]);
    rig.run(4);
    rig.rotate(&live, "20261122-140000");
    rig.append(&live, &hidden[1]);
    rig.append(&live, &hidden[2][..45]);
    assert_eq!(rig.drain(), [""; 0]);
    rig.append(&live, &hidden[2][45..]);
    assert_eq!(rig.drain(), [""; 0]);
    let excluded = rig.account().sums.dropped[Dropping::Excluded as usize];
    assert_eq!((excluded.records, excluded.bytes), (0, hidden.concat().len() as u64));
    rig.assert_balanced();

    // What is there at the moment of switching on stays out, also in a new file.
    rig.rotate(&live, "20261122-140001");
    rig.append(&live, &cri(5, "too early"));
    rig.run(1);
    writer.enter(pod(|_| {}));
    rig.run(1);
    rig.append(&live, &cri(6, "b"));
    assert_eq!(rig.drain(), ["b"]);
    rig.assert_balanced();
    let excluded = rig.account().sums.dropped[Dropping::Excluded as usize].bytes;
    assert_eq!(excluded, (hidden.concat().len() + cri(5, "too early").len()) as u64);
    assert_eq!(rig.account().sums.lost_bytes(), 0);
}

#[test]
fn a_log_that_is_off_at_first_sight_is_not_opened_and_begins_at_its_end() {
    let (mut rig, mut writer) = watched();
    writer.enter(off());
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    assert_eq!(rig.drain(), [""; 0]);
    assert_eq!(rig.tail.as_ref().expect("running").open_logs(), 0);
    // The mark outlives an agent, and the time after which logs that are gone are forgotten.
    let marks = rig.kill_over_disk();
    rig.start(marks);
    rig.run(700);
    let marks = rig.kill_over_disk();
    assert_eq!(marks.len(), 1);
    rig.append(&live, &cri(2, "b"));
    rig.start(marks);
    rig.run(2);
    writer.enter(pod(|_| {}));
    rig.run(2);
    rig.append(&live, &cri(3, "c"));
    assert_eq!(rig.drain(), ["c"]);
    rig.assert_balanced();
}

#[test]
fn a_log_that_was_switched_off_and_vanished_is_forgotten() {
    let (mut rig, mut writer) = watched();
    writer.enter(off());
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    rig.run(700);
    assert_eq!(rig.registry.marks().len(), 1);
    fs::remove_dir_all(rig.root().join(POD)).expect("remove");
    rig.run(12);
    assert_eq!(rig.registry.marks().len(), 0);
}

#[test]
fn an_agent_that_dies_while_a_log_is_off_ships_nothing_of_that_time() {
    let (mut rig, mut writer) = watched();
    writer.enter(pod(|_| {}));
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    rig.drain();
    writer.enter(off());
    rig.run(2);
    rig.append(&live, &cri(2, "hidden"));
    let marks = rig.kill_over_disk();
    writer.enter(pod(|_| {}));
    rig.start(marks);
    rig.run(2);
    rig.append(&live, &cri(3, "b"));
    assert_eq!(rig.drain(), ["b"]);
}

#[test]
fn a_sampled_log_keeps_whole_traces_and_the_same_ones_in_a_replay() {
    let (mut rig, mut writer) = watched();
    writer.enter(handled(Handling { sample: Some(0.25), ..Handling::default() }));
    let log = rig.log(POD, "0.log");
    let mut written = 0;
    for n in 0..4000_u64 {
        let text = match n % 4 {
            3 => format!("no trace {n}"),
            part => format!("{{\"trace_id\":\"{:032x}\",\"part\":{part}}}", n / 4 + 1),
        };
        let line = cri(n, &text);
        written += line.len();
        rig.append(&log, &line);
    }
    rig.run(4);
    let marks = rig.kill();
    rig.start(marks.clone());
    let first = rig.drain();
    let traces = |part: u64| -> Vec<String> {
        let end = format!("\"part\":{part}}}");
        let of: Vec<String> =
            first.iter().filter_map(|line| Some(line.strip_suffix(&end)?.to_owned())).collect();
        of
    };
    assert!((200..300).contains(&traces(0).len()), "{} traces of 1000", traces(0).len());
    assert!(traces(0) == traces(1) && traces(1) == traces(2));
    let plain = first.iter().filter(|line| line.starts_with("no trace")).count();
    assert!((200..300).contains(&plain), "{plain} lines of 1000");
    let dropped = rig.account().sums.dropped[Dropping::Sample as usize];
    assert_eq!(dropped.records as usize, 4000 - first.len());
    assert!(dropped.bytes > written as u64 / 3);
    rig.assert_balanced();
    rig.kill();
    rig.start(marks);
    assert_eq!(rig.drain(), first);
}

#[test]
fn annotated_keys_and_formats_hold_from_the_next_line_on() {
    let (mut rig, mut writer) = watched();
    writer.enter(pod(|_| {}));
    let log = rig.log(POD, "0.log");
    let line = format!("{{\"ctx\":{{\"t\":\"{TRACE}\"}},\"sev\":\"error\"}}");
    rig.append(&log, &cri(1, &line));
    rig.drain();
    let named = Handling {
        level_field: Some("sev".into()),
        trace_field: Some("ctx.t".into()),
        ..Handling::default()
    };
    writer.enter(handled(named.clone()));
    rig.append(&log, &cri(2, &line));
    rig.run(4);
    let severities = |rig: &Rig| -> Vec<u8> {
        let shipments = rig.sink.0.lock();
        shipments.iter().flat_map(|s| &s.batch.records).map(|record| record.severity.number()).collect()
    };
    assert_eq!(severities(&rig), [17]);
    rig.ack();
    writer.enter(handled(Handling { format: LineFormat::Text, ..Handling::default() }));
    rig.append(&log, &cri(3, "{\"level\":\"error\"}"));
    rig.run(4);
    assert_eq!(severities(&rig), [0]);
    rig.ack();
    writer.enter(pod(|_| {}));
    rig.append(&log, &cri(4, "{\"level\":\"error\"}"));
    rig.run(4);
    assert_eq!(severities(&rig), [17]);
    rig.ack();
    let traces: Vec<_> = rig.shipped.iter().map(|line| line.trace.as_deref()).collect();
    assert_eq!(traces, [None, Some(TRACE), None, None]);
}

#[test]
fn an_annotated_multiline_mode_begins_and_ends_between_records() {
    let (mut rig, mut writer) = watched();
    writer.enter(handled(Handling { multiline: Some("off".into()), ..Handling::default() }));
    let log = rig.log(POD, "0.log");
    let panic = ["panic: boom", "", "goroutine 1 [running]:", "main.main()", "\t/main.go:3 +0x1d"];
    // Stamped as it is written: groups of lines are not closed for their age.
    let mut at = 12 * HOUR;
    let mut write = |rig: &Rig, lines: &[&str]| {
        for line in lines {
            at += 1;
            rig.append(&log, &cri(at, line));
        }
    };
    write(&rig, &panic);
    assert_eq!(rig.drain(), panic);
    // Taken back: what is configured holds again.
    writer.enter(pod(|_| {}));
    rig.run(1);
    write(&rig, &panic[..3]);
    rig.run(1);
    // A trace is open when the mode changes: it is one record all the same.
    writer.enter(handled(Handling { multiline: Some("start=^#".into()), ..Handling::default() }));
    rig.run(1);
    write(&rig, &panic[3..]);
    write(&rig, &["# one", "more", "# two"]);
    rig.run(1);
    writer.enter(handled(Handling { multiline: Some("python".into()), ..Handling::default() }));
    rig.run(1);
    write(&rig, &["end", "# three"]);
    write(&rig, &panic[..2]);
    assert_eq!(rig.drain(), [&panic.join("\n"), "# one\nmore", "# two\nend", "# three", "panic: boom", ""],);
}

fn last_words(texts: &[String]) -> Vec<&String> {
    texts.iter().filter(|text| text.contains("nodewick.last_words")).collect()
}

#[test]
fn a_container_that_ended_well_has_no_last_words() {
    let (mut rig, mut writer) = watched();
    writer.enter(exited(&[(0, 0, "Completed")]));
    rig.append(&rig.log(POD, "0.log"), &cri(1, "done"));
    rig.append(&rig.log(POD, "1.log"), &cri(2, "again"));
    rig.run(200);
    assert_eq!(last_words(&rig.ack()), [""; 0]);
    // Known for later lives too, without the watch.
    let marks = rig.kill_over_disk();
    rig.pods = None;
    rig.start(marks);
    assert_eq!(last_words(&rig.drain()), [""; 0]);
}

#[test]
fn a_crash_is_told_with_its_exit_code_once_it_is_known() {
    let (mut rig, mut writer) = watched();
    writer.enter(pod(|_| {}));
    rig.append(&rig.log(POD, "0.log"), &cri(1, "dying"));
    rig.append(&rig.log(POD, "1.log"), &cri(2, "again"));
    rig.run(60);
    assert_eq!(last_words(&rig.ack()), [""; 0]);
    writer.enter(exited(&[(0, 137, "OOMKilled")]));
    let texts = rig.drain();
    let told = r#"{"level":"error","msg":"container api ended with exit code 137 (OOMKilled): its last line","event":"nodewick.last_words","restart":0,"exit_code":137,"exit_reason":"OOMKilled","lines":["dying"]}"#;
    assert_eq!(texts, [told]);
}

#[test]
fn an_end_of_which_nothing_is_told_is_told_as_a_restart_after_ten_seconds() {
    let (mut rig, mut writer) = watched();
    writer.enter(pod(|_| {}));
    rig.append(&rig.log(POD, "0.log"), &cri(1, "dying"));
    rig.append(&rig.log(POD, "1.log"), &cri(2, "again"));
    rig.run(95);
    assert_eq!(last_words(&rig.ack()), [""; 0]);
    let texts = rig.drain();
    assert_eq!(last_words(&texts).len(), 1);
    assert!(texts[0].contains("ended (restart 1 began)") && !texts[0].contains("exit"), "{}", texts[0]);
}

#[test]
fn a_failed_container_that_is_not_restarted_is_told_once_and_to_its_last_line() {
    let (mut rig, mut writer) = watched();
    writer.enter(pod(|_| {}));
    let log = rig.log(POD, "0.log");
    rig.append(&log, &cri(1, "working"));
    rig.drain();
    writer.enter(exited(&[(0, 1, "Error")]));
    rig.run(2);
    // What the runtime still had of it, ending in a line that is none.
    rig.append(&log, &cri(2, "fatal"));
    rig.append(&log, &cri(3, "half a li").replace(" F ", " P "));
    let texts = rig.drain();
    assert_eq!(texts[..2], ["fatal", "half a li"]);
    assert!(
        texts[2].contains(r#""exit_code":1,"exit_reason":"Error","lines":["working","fatal","half a li"]"#)
    );
    assert_eq!(texts.len(), 3);
    // The restart comes late: it is not told again, nor in another life.
    rig.append(&rig.log(POD, "1.log"), &cri(9, "again"));
    assert_eq!(rig.drain(), ["again"]);
    let marks = rig.kill_over_disk();
    rig.start(marks);
    assert_eq!(rig.drain(), [""; 0]);
}
