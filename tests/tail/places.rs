//! Finding the place in a log again: after files were deleted, among more logs than descriptors, under docker's names.

use super::*;

#[test]
fn files_that_were_deleted_while_the_agent_was_away_are_told_in_bytes() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "acknowledged"));
    rig.drain();
    // Two files behind the live one when the agent ends, nothing of them acknowledged.
    let lost = [cri(2, "lost with the first"), cri(3, "lost with the second")];
    for (n, line) in lost.iter().enumerate() {
        rig.append(&live, line);
        rig.run(12);
        rig.rotate(&live, &format!("20261122-14000{n}"));
        rig.append(&live, &cri(10 + n as u64, "x"));
        rig.run(12);
    }
    let marks = rig.kill();
    fs::remove_file(live.with_file_name("0.log.20261122-140000")).expect("remove");
    fs::remove_file(live.with_file_name("0.log.20261122-140001")).expect("remove");
    rig.append(&live, &cri(20, "y"));
    rig.start(marks);
    let texts = rig.drain();
    let bytes = lost[0].len() + cri(10, "x").len() + lost[1].len();
    assert!(texts[0].contains(&format!("\"bytes\":{bytes},")), "{bytes}: {}", texts[0]);
    assert_eq!(texts[1..], ["x", "y"]);
}

#[test]
fn last_words_are_told_once_over_all_lives() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "dying"));
    rig.append(&rig.log(POD, "1.log"), &cri(9, "again"));
    assert_eq!(rig.drain().iter().filter(|text| text.contains("nodewick.last_words")).count(), 1);
    let marks = rig.kill();
    rig.start(marks);
    assert_eq!(rig.drain(), [""; 0]);
}

#[test]
fn more_logs_than_descriptors_are_followed_over_rotations() {
    let mut rig = Rig::new();
    rig.kill();
    rig.max_open = 8;
    let log = |n: u64| format!("shop_web-{n:02}_d11c6e6d-84fc-49ec-95a1-4ee5155f{n:04}");
    let logs: Vec<_> = (0..30).map(|n| rig.log(&log(n), "0.log")).collect();
    for (n, live) in logs.iter().enumerate() {
        rig.append(live, &cri(n as u64, &format!("{n} first")));
    }
    rig.start(Marks::new());
    let mut texts = rig.drain();
    for (n, live) in logs.iter().enumerate() {
        rig.append(live, &cri(100 + n as u64, &format!("{n} second")));
        if n % 3 == 0 {
            rig.rotate(live, "20261122-140001");
            rig.append(live, &cri(200 + n as u64, &format!("{n} third")));
        }
    }
    texts.extend(rig.drain());
    let mut expected: Vec<String> =
        (0..30).flat_map(|n| [format!("{n} first"), format!("{n} second")]).collect();
    expected.extend((0..30).step_by(3).map(|n| format!("{n} third")));
    texts.sort();
    expected.sort();
    assert_eq!(texts, expected);
}

#[test]
fn a_docker_rotation_that_overtakes_a_listing_leaves_no_hole() {
    let mut rig = Rig::new();
    rig.kill();
    let docker = rig.dir.path().join("docker/api");
    fs::create_dir_all(&docker).expect("dir");
    let name =
        |n: u32| if n == 0 { docker.join("x-json.log") } else { docker.join(format!("x-json.log.{n}")) };
    let line = |at: u64, text: &str| {
        let stamp = jiff::Timestamp::from_nanosecond(i128::from(BASE + at)).expect("in range");
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"{stamp}\"}}\n")
    };
    rig.append(&name(2), &line(1, "a"));
    rig.append(&name(1), &line(2, "b"));
    rig.append(&name(0), &line(3, "c"));
    std::os::unix::fs::symlink(name(0), rig.log(POD, "0.log")).expect("link");
    // All of docker's names are in use: after the rotation they are the same, only the files are others.
    let (from, to) = ([1, 0].map(name), [2, 1].map(name));
    let (fresh, last) = (name(0), line(4, "d"));
    let rotate = move || {
        from.iter().zip(&to).for_each(|(from, to)| fs::rename(from, to).expect("rename"));
        fs::write(&fresh, last).expect("write");
    };
    *rig.overtake.lock() = Some((Call::Open, 2, Box::new(rotate)));
    rig.start(Marks::new());
    assert_eq!(rig.drain(), ["b", "c", "d"]);
}
