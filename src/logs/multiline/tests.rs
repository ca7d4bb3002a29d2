//! What only the joiner itself can tell. Whole logs are in `tests/multiline.rs`.

use std::sync::Arc;

use super::*;
use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};

fn workload() -> Arc<Workload> {
    let container = ContainerRef::from_path("shop_api-0_uid", "api", 0).expect("a path");
    let mut identity = PathIdentity { cluster: String::new(), node: String::new(), environment: None };
    let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
        panic!("known from the path")
    };
    workload
}

fn framed(arena: &mut Vec<u8>, offset: u64, stream: Stream, line: &str) -> Framed {
    let start = arena.len();
    arena.extend_from_slice(line.as_bytes());
    Framed {
        time_unix_nano: 1_000 + offset,
        stream,
        body: Span::new(start, arena.len()),
        offset,
        marks: Marks::NONE,
        original_len: 0,
        skipping: Skipping(0),
        carried: false,
        ago: 0,
        known: false,
        first: false,
    }
}

#[test]
fn what_begins_no_trace_passes_unseen_until_a_group_is_open() {
    let (rules, workload, mut arena) = (Rules::default(), workload(), Vec::new());
    let mut joiner = Joiner::new(1 << 18);
    assert!(!joiner.passes(b"{"), "the mode is not known yet");
    let line = framed(&mut arena, 0, Stream::Stdout, "up");
    assert!(joiner.take(&rules, &workload, &mut arena, line));
    assert!(joiner.passes(b"{\"a\":1}") && joiner.passes(b"x") && joiner.passes(b""));
    assert!(!joiner.passes(b"panic: x"), "a trace may begin here");
    let line = framed(&mut arena, 10, Stream::Stderr, "Error: x");
    joiner.take(&rules, &workload, &mut arena, line);
    assert!(!joiner.passes(b"{"));
    let line = framed(&mut arena, 20, Stream::Stderr, "{");
    joiner.take(&rules, &workload, &mut arena, line);
    assert!(joiner.passes(b"{"));
}

#[test]
fn a_line_that_stays_alone_stays_in_place() {
    let (rules, workload, mut arena) = (Rules::default(), workload(), Vec::new());
    let mut joiner = Joiner::new(1 << 18);
    let held = framed(&mut arena, 0, Stream::Stdout, "Error: x");
    joiner.take(&rules, &workload, &mut arena, held);
    assert_eq!(joiner.take_ready(), []);
    let next = framed(&mut arena, 10, Stream::Stdout, "next");
    let len = arena.len();
    joiner.take(&rules, &workload, &mut arena, next);
    let ready = [Ready { framed: held, kind: Kind::Alone }, Ready { framed: next, kind: Kind::Passed }];
    assert_eq!(joiner.take_ready(), ready);
    assert_eq!(arena.len(), len);
}

#[test]
fn overlapping_groups_hold_the_position_no_longer_than_their_span() {
    let (rules, workload) = (Rules::default(), workload());
    let max_line = 1000;
    let mut joiner = Joiner::new(max_line);
    let mut furthest = 0;
    for n in 0..4000_u64 {
        let mut arena = Vec::new();
        let stream = if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
        let mut line = framed(&mut arena, n * 100, stream, "Error: every line begins a group and ends one");
        line.time_unix_nano = 1;
        joiner.take(&rules, &workload, &mut arena, line);
        joiner.leave(&arena);
        let ready = joiner.take_ready();
        joiner.put_back(ready);
        let (pinned, _) = joiner.pinned().expect("a group is open");
        furthest = furthest.max(n * 100 - pinned);
        let pin = joiner.pinned().map(|(offset, _)| offset);
        joiner.prune(pin);
        assert!(joiner.closed.len() <= MAX_CLOSED);
    }
    // 16 000 bytes of lines of 85 each, their headers among them, at 100 bytes of file a line.
    assert!((15_000..20_000).contains(&furthest), "{furthest}");
}

#[test]
fn modes_are_read_as_annotations_write_them() {
    assert!(matches!("auto".parse(), Ok(Mode::Auto)));
    assert!(matches!(" off ".parse(), Ok(Mode::Off)));
    assert!(matches!("start=^x".parse::<Mode>(), Ok(Mode::Start(regex)) if regex.as_str() == "^x"));
    assert_eq!("start=(".parse::<Mode>().expect_err("bad"), "bad regular expression \"(\": unclosed group");
    assert!(matches!("java".parse(), Ok(Mode::Only(Language::Java))));
    let expected = "\"cobol\" is none of auto, off, java, python, go, node, dotnet, ruby, rust, php and start=<regular expression>";
    assert_eq!("cobol".parse::<Mode>().expect_err("unknown"), expected);
}

#[test]
fn a_mode_for_one_language_leaves_the_traces_of_others_alone() {
    let (workload, mut arena) = (workload(), Vec::new());
    let lines = [
        "panic: boom",
        "",
        "goroutine 1 [running]:",
        "java.lang.IllegalStateException: no",
        "\tat com.example.Till.main(Till.java:3)",
        "Traceback (most recent call last):",
        "  File \"a.py\", line 1, in <module>",
        "ValueError: x",
        "after",
    ];
    for (mode, joined) in [(Language::Java, 3..5), (Language::Go, 0..3), (Language::Python, 5..8)] {
        let mut joiner = Joiner::new(1 << 18);
        joiner.set_mode(Mode::Only(mode));
        for (n, line) in lines.iter().enumerate() {
            let line = framed(&mut arena, n as u64 * 100, Stream::Stdout, line);
            if joiner.passes(line.body.of(&arena)) {
                joiner.ready.push(Ready { framed: line, kind: Kind::Passed });
            } else {
                joiner.take(&Rules::default(), &workload, &mut arena, line);
            }
        }
        joiner.close_idle(u64::MAX, &mut arena);
        let ready = joiner.take_ready();
        let texts: Vec<_> = ready
            .iter()
            .map(|line| String::from_utf8_lossy(line.framed.body.of(&arena)).into_owned())
            .collect();
        let mut expected: Vec<String> = lines[..joined.start].iter().map(|line| (*line).to_owned()).collect();
        expected.push(lines[joined.clone()].join("\n"));
        expected.extend(lines[joined.end..].iter().map(|line| (*line).to_owned()));
        assert_eq!(texts, expected, "{mode:?}");
    }
}
