//! Framing, as literals.

use super::*;

/// Frames whole physical lines and gives (stream, text, offset, truncated, lossy).
fn frame(framer: &mut Framer, file: &str) -> Vec<(Stream, String, u64)> {
    let mut arena = file.as_bytes().to_vec();
    let mut out = Vec::new();
    let mut start = 0;
    for line in file.split_inclusive('\n') {
        let fragment = fragment(&mut arena, start, start + line.len() - 1, start as u64);
        if let Some(framed) = framer.accept(&mut arena, fragment) {
            let text = String::from_utf8(framed.body.of(&arena).to_vec()).expect("UTF-8");
            out.push((framed.stream, text, framed.offset));
        }
        start += line.len();
    }
    out
}

#[test]
fn cri_headers_of_both_runtimes_are_read() {
    let containerd = cri_header(b"2026-11-22T14:11:42.93228Z stderr P half");
    assert_eq!(containerd.time_unix_nano, 1_795_356_702_932_280_000);
    assert_eq!((containerd.stream, containerd.full, containerd.well_formed), (Stream::Stderr, false, true));
    let conmon = b"2026-11-22T15:11:42.932284897+01:00 stdout F whole";
    let header = cri_header(conmon);
    assert_eq!(header.time_unix_nano, 1_795_356_702_932_284_897);
    assert_eq!(&conmon[header.payload..], b"whole");
    let tagged = b"2026-11-22T14:11:42.932284897Z stdout F:extra:tags payload";
    assert_eq!(&tagged[cri_header(tagged).payload..], b"payload");
    for empty in
        [&b"2026-11-22T14:11:42.932284897Z stdout F "[..], b"2026-11-22T14:11:42.932284897Z stdout F"]
    {
        assert_eq!(cri_header(empty).payload, empty.len());
    }
    for bad in [&b""[..], b"x", b"2026-11-22T14:11:42Z stdin F x", b"2026-11-22T14:11:42Z stdout X x", b"{"] {
        assert!(!cri_header(bad).well_formed);
    }
}

#[test]
fn a_stamp_may_have_any_number_of_digits() {
    for digits in 1..=9 {
        let line = format!("2026-11-22T14:11:42.{}Z stderr P half", &"123456789"[..digits]);
        let header = cri_header(line.as_bytes());
        assert!(header.well_formed && !header.full, "{line}");
        assert_eq!(&line[header.payload..], "half");
    }
}

#[test]
fn fragments_join_per_stream() {
    let mut framer = Framer::new(1 << 18);
    let lines = frame(
        &mut framer,
        "2026-11-22T14:11:42.1Z stdout P ab\n2026-11-22T14:11:42.2Z stderr P xy\n\
         2026-11-22T14:11:42.3Z stdout F cd\n2026-11-22T14:11:42.4Z stderr F z\n",
    );
    assert_eq!(lines, [(Stream::Stdout, "abcd".into(), 0), (Stream::Stderr, "xyz".into(), 35)]);
    assert_eq!(framer.pinned(), None);
}

#[test]
fn an_open_fragment_pins_the_position() {
    let mut framer = Framer::new(1 << 18);
    let lines = frame(
        &mut framer,
        "2026-11-22T14:11:42.1Z stdout F one\n2026-11-22T14:11:42.2Z stderr P xy\n2026-11-22T14:11:42.3Z stdout F two\n",
    );
    assert_eq!(lines.len(), 2);
    assert_eq!(framer.pinned(), Some((36, Skipping(0))));
}

#[test]
fn a_resume_within_the_other_streams_line_does_not_give_its_rest_as_a_line() {
    let file = "2026-11-22T14:11:42.1Z stdout P ab\n2026-11-22T14:11:42.2Z stderr P xy\n\
                2026-11-22T14:11:42.3Z stdout F cd\n";
    let mut framer = Framer::new(1 << 18);
    assert_eq!(frame(&mut framer, file), [(Stream::Stdout, "abcd".into(), 0)]);
    assert_eq!(framer.pinned(), Some((35, Skipping(1))));
    let mut resumed = Framer::new(1 << 18);
    resumed.resume(Skipping(1));
    let rest = [&file[35..], "2026-11-22T14:11:42.4Z stderr F z\n2026-11-22T14:11:42.4Z stdout F next\n"];
    let lines: Vec<_> = frame(&mut resumed, &rest.concat()).into_iter().map(|line| line.1).collect();
    assert_eq!(lines, ["xyz", "next"]);
}

#[test]
fn docker_lines_are_unescaped_and_joined() {
    let mut framer = Framer::new(1 << 18);
    let lines = frame(
        &mut framer,
        concat!(
            r#"{"log":"say \"hi\"\n","stream":"stderr","time":"2026-11-22T14:11:42.1Z"}"#,
            "\n",
            r#"{"log":"half ","stream":"stdout","time":"2026-11-22T14:11:42.2Z"}"#,
            "\n",
            r#"{"log":"whole\n","stream":"stdout","time":"2026-11-22T14:11:42.3Z"}"#,
            "\n",
        ),
    );
    assert_eq!(lines[0], (Stream::Stderr, "say \"hi\"".into(), 0));
    assert_eq!((lines[1].0, lines[1].1.as_str()), (Stream::Stdout, "half whole"));
}

#[test]
fn a_resume_between_the_ends_of_two_interleaved_lines_brings_no_piece_of_the_first() {
    let begin = "2026-11-22T14:11:42.1Z stdout P one \n2026-11-22T14:11:42.2Z stderr P two \n";
    let end = "2026-11-22T14:11:42.3Z stdout F line\n";
    let mut framer = Framer::new(1 << 18);
    assert_eq!(frame(&mut framer, &format!("{begin}{end}")).len(), 1);
    let (offset, skipping) = framer.pinned().expect("the second line is open");
    assert_eq!((offset, skipping), (37, Skipping(1)));
    let mut resumed = Framer::new(1 << 18);
    resumed.resume(skipping);
    let rest = format!("{}{end}2026-11-22T14:11:42.4Z stderr F line\n", &begin[37..]);
    let lines = frame(&mut resumed, &rest);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((lines[0].0, lines[0].1.as_str()), (Stream::Stderr, "two line"));
    // Warm: the first line is put together, since later lines learn from it, and is not given out.
    let mut warm = Framer::new(1 << 18);
    assert_eq!(frame(&mut warm, &begin[..37]), []);
    warm.resume(skipping);
    assert_eq!(warm.pinned(), None);
    let mut arena = format!("{}{end}", &begin[37..]).into_bytes();
    let open = fragment(&mut arena, 0, 36, 37);
    assert_eq!(warm.accept(&mut arena, open), None);
    let len = arena.len();
    let last = fragment(&mut arena, 37, len - 1, 74);
    let framed = warm.accept(&mut arena, last).expect("whole");
    assert_eq!((framed.body.of(&arena), framed.known), (&b"one line"[..], true));
}

#[test]
fn an_over_long_line_is_cut_marked_and_its_rest_skipped() {
    let mut framer = Framer::new(8);
    let mut file = String::from("2026-11-22T14:11:42.1Z stdout P 0123456\n");
    file.push_str("2026-11-22T14:11:42.1Z stdout F 789\n");
    let mut arena = file.as_bytes().to_vec();
    let first = fragment(&mut arena, 0, 39, 0);
    assert_eq!(framer.accept(&mut arena, first), None);
    let second = fragment(&mut arena, 40, 75, 40);
    let framed = framer.accept(&mut arena, second).expect("whole");
    assert_eq!(framed.body.of(&arena), b"01234567");
    assert!(framed.marks.contains(Marks::TRUNCATED));
    assert_eq!(framed.original_len, 10);
}

#[test]
fn endless_fragments_are_sealed_and_do_not_pin() {
    let mut framer = Framer::new(4);
    let mut sealed = 0;
    for n in 0..100_u64 {
        let mut arena = b"2026-11-22T14:11:42.1Z stdout P 0123456".to_vec();
        let end = arena.len();
        let piece = fragment(&mut arena, 0, end, n * 40);
        sealed += u32::from(framer.accept(&mut arena, piece).is_some());
    }
    assert_eq!(sealed, 1);
    assert_eq!(framer.pinned(), None);
    assert_eq!(framer.skipping(), Skipping(1));
    assert_eq!(frame(&mut framer, "2026-11-22T14:11:42.1Z stdout F end\n"), []);
    assert_eq!(frame(&mut framer, "2026-11-22T14:11:42.1Z stdout F next\n").len(), 1);
}

#[test]
fn a_long_physical_line_comes_out_once() {
    let mut framer = Framer::new(8);
    framer.more(b"2026-11-22T14:11:42.1Z stderr F abcdef", 100);
    framer.more(b"ghijkl", 138);
    assert_eq!(framer.pinned(), Some((100, Skipping(0))));
    let mut arena = Vec::new();
    let framed = framer.end_long(&mut arena).expect("ends");
    assert_eq!((framed.body.of(&arena), framed.original_len), (&b"abcdefgh"[..], 12));
    assert_eq!(framed.stream, Stream::Stderr);
    assert_eq!(framer.pinned(), None);
}

#[test]
fn an_endless_fragment_of_a_line_that_is_being_skipped_does_not_end_the_skipping() {
    let mut framer = Framer::new(4);
    framer.resume(Skipping(1));
    framer.more(b"2026-11-22T14:11:42.1Z stdout P ", 0);
    framer.more(&[b'x'; 65], 32);
    let mut arena = Vec::new();
    assert_eq!(framer.seal_long(&mut arena), None);
    assert_eq!(framer.end_long(&mut arena), None);
    assert_eq!(framer.skipping(), Skipping(1));
}

#[test]
fn a_line_that_was_read_far_beyond_its_limit_says_sixteen_times_the_limit() {
    let mut framer = Framer::new(4);
    let mut arena = b"2026-11-22T14:11:42.1Z stdout F ".to_vec();
    arena.extend_from_slice(&[b'x'; 1000]);
    let end = arena.len();
    let piece = fragment(&mut arena, 0, end, 0);
    assert_eq!(framer.accept(&mut arena, piece).map(|framed| framed.original_len), Some(64));
}

#[test]
fn tags_without_an_end_do_not_swallow_the_line() {
    let line = format!("2026-11-22T14:11:42Z stdout F:{}", "x".repeat(70));
    assert!(!cri_header(line.as_bytes()).well_formed);
    assert_eq!(cri_header(&line.as_bytes()[..60]).payload, 60);
}

#[test]
fn a_docker_line_over_the_limit_is_waited_for() {
    assert_eq!(patience(b"2026-11-22T14:11:42Z stdout F x", 4096), 4160);
    assert_eq!(patience(b"{\"log\":", 4096), 131_072);
    assert_eq!(patience(b"{\"log\":", 1 << 18), 262_208);
}

#[test]
fn bytes_that_are_not_utf8_are_replaced_and_marked() {
    let mut framer = Framer::new(1 << 18);
    let mut arena = b"2026-11-22T14:11:42.1Z stdout F a\xffb\0".to_vec();
    let end = arena.len();
    let piece = fragment(&mut arena, 0, end, 0);
    let framed = framer.accept(&mut arena, piece).expect("whole");
    assert_eq!(framed.body.of(&arena), "a\u{fffd}b\0".as_bytes());
    assert!(framed.marks.contains(Marks::LOSSY));
}

#[test]
fn a_final_fragment_comes_out_when_the_container_has_ended() {
    let mut framer = Framer::new(1 << 18);
    assert_eq!(frame(&mut framer, "2026-11-22T14:11:42.1Z stdout P bye\n"), []);
    let mut arena = Vec::new();
    let last: Vec<_> = framer.finish(&mut arena).collect();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].body.of(&arena), b"bye");
}
