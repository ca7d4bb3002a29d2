//! Facts about masking: literals, and the normal path over masked bytes as the judge.

use super::*;
use crate::data::batch::{Fields, Record};
use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
use crate::logs::ingest::LineState;
use crate::logs::process::{Chain, Config};
use proptest::prelude::*;

const MAX_LINE: usize = 4096;

const RULES: &str = r#"
redact.builtin = true
redact.email = true
[redact.rule.account]
pattern = "acct-[0-9]{6}"
stream = "stderr"
http_status = ["500-599"]
[redact.rule.pin]
pattern = "\"pin\":[0-9]+"
"#;

fn settings(config: &str) -> Settings {
    let config: Config = toml::from_str(config).expect("config");
    Settings::new(Fields::ALL, Chain::compile(&config).expect("rules"), MAX_LINE)
}

fn workload() -> std::sync::Arc<Workload> {
    let container = ContainerRef::from_path("shop_api-6d5_u1", "api", 0).expect("a pod's directory");
    let mut paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
    match paths.identify(&container, std::time::Duration::ZERO) {
        Identity::Known(workload) => workload,
        Identity::Pending => unreachable!("paths say it all"),
    }
}

fn masked(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    mask(&settings(RULES), &workload(), &mut bytes);
    assert_eq!(bytes.len(), text.len());
    String::from_utf8(bytes).expect("UTF-8")
}

/// The normal path over a whole file: its records with the text of their lines.
fn records(settings: &Settings, bytes: &[u8]) -> Vec<(Record, String)> {
    let workload = workload();
    let (mut state, mut out) = (LineState::new(MAX_LINE), Vec::new());
    let mut arena = bytes.to_vec();
    let taken = state.ingest(settings, &workload, &mut arena, 0, 0, u64::MAX, &mut out);
    let mut texts: Vec<(Record, String)> = out.drain(..).map(|record| text_of(record, &arena)).collect();
    let mut rest = bytes[taken.bytes..].to_vec();
    state.finish(settings, &workload, &mut rest, taken.bytes as u64, &mut out);
    texts.extend(out.drain(..).map(|record| text_of(record, &rest)));
    texts
}

fn text_of(record: Record, arena: &[u8]) -> (Record, String) {
    (record, String::from_utf8(record.body.of(arena).to_vec()).expect("UTF-8"))
}

#[test]
fn a_secret_is_covered_where_it_stands() {
    assert_eq!(
        masked("2026-11-22T14:00:00Z stdout F user=1 password=hunter2hunter2 ok\n"),
        "2026-11-22T14:00:00Z stdout F user=1 password=************** ok\n"
    );
    assert_eq!(
        masked(
            "2026-11-22T14:00:00Z stdout F https://bob:s3cret-and-a-long-one-at-that@host/x a@b.example\n"
        ),
        "2026-11-22T14:00:00Z stdout F https://*********************************@host/x ***********\n"
    );
}

#[test]
fn fragments_and_the_lines_of_the_other_stream_between_them_do_not_hide_a_secret() {
    assert_eq!(
        masked(concat!(
            "2026-11-22T14:00:00Z stdout P {\"level\":\"info\",\"pass\n",
            "2026-11-22T14:00:00Z stderr F between\n",
            "2026-11-22T14:00:00Z stdout P word\":\"hun\n",
            "2026-11-22T14:00:00Z stdout F ter2\",\"n\":1}\n",
        )),
        concat!(
            "2026-11-22T14:00:00Z stdout P {\"level\":\"info\",\"pass\n",
            "2026-11-22T14:00:00Z stderr F between\n",
            "2026-11-22T14:00:00Z stdout P word\":\"***\n",
            "2026-11-22T14:00:00Z stdout F ****\",\"n\":1}\n",
        )
    );
}

#[test]
fn a_bare_number_becomes_a_string_of_its_length() {
    assert_eq!(
        masked("2026-11-22T14:00:00Z stdout F {\"card\":4111111111111111,\"pin\":123}\n"),
        "2026-11-22T14:00:00Z stdout F {\"card\":\"**************\",\"***\":\"*\"}\n"
    );
    // One byte has no room for a string.
    assert_eq!(
        masked("2026-11-22T14:00:00Z stdout F {\"pin\":5}\n"),
        "2026-11-22T14:00:00Z stdout F {\"***\":1}\n"
    );
}

#[test]
fn dockers_escapes_stay_whole() {
    assert_eq!(
        masked(concat!(
            r#"{"log":"{\"password\":\"h\\\"\u00e4x\",\"card\":4111111111111111}\n","stream":"stdout","time":"2026-11-22T14:00:00Z"}"#,
            "\n"
        )),
        concat!(
            r#"{"log":"{\"password\":\"************\",\"card\":\"************\"}\n","stream":"stdout","time":"2026-11-22T14:00:00Z"}"#,
            "\n"
        )
    );
}

#[test]
fn own_rules_hold_where_their_conditions_say() {
    let line = |stream, status| {
        format!("2026-11-22T14:00:00Z {stream} F {{\"status\":{status},\"msg\":\"acct-123456\"}}\n")
    };
    assert_eq!(
        masked(&line("stderr", 503)),
        "2026-11-22T14:00:00Z stderr F {\"status\":503,\"msg\":\"***********\"}\n"
    );
    assert_eq!(masked(&line("stderr", 200)), line("stderr", 200));
    assert_eq!(masked(&line("stdout", 503)), line("stdout", 503));
}

#[test]
fn without_redaction_nothing_is_touched() {
    let mut bytes = b"2026-11-22T14:00:00Z stdout F password=hunter2hunter2\n".to_vec();
    let before = bytes.clone();
    mask(&settings(""), &workload(), &mut bytes);
    assert_eq!(bytes, before);
}

#[test]
fn a_key_that_began_before_the_stretch_is_covered() {
    let begin = "2026-11-22T14:00:00Z stderr F -----BEGIN EC PRIVATE KEY-----\n";
    let inner =
        "2026-11-22T14:00:00Z stderr F MHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY/PuoAoGCCqGSM49\n";
    let mut masker = Masker::default();
    masker.follow(&settings(RULES), &workload(), begin.as_bytes());
    let mut bytes = inner.as_bytes().to_vec();
    assert_eq!(masker.mask(&settings(RULES), &workload(), &mut bytes, false), inner.len());
    let expected = format!("2026-11-22T14:00:00Z stderr F {}\n", "*".repeat(64));
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

#[test]
fn an_open_line_is_not_done() {
    let whole = "2026-11-22T14:00:00Z stdout F a\n";
    let open = "2026-11-22T14:00:00Z stdout P password=hun\n";
    let mut bytes = format!("{whole}{open}{}", whole.replace("stdout", "stderr")).into_bytes();
    let mut masker = Masker::default();
    assert_eq!(masker.mask(&settings(RULES), &workload(), &mut bytes, false), whole.len());
    assert_eq!(masker.mask(&settings(RULES), &workload(), &mut bytes, true), bytes.len());
    assert!(String::from_utf8_lossy(&bytes).contains("password=***\n"));
}

#[test]
fn the_rest_of_a_line_that_was_cut_is_masked_as_a_part_of_it() {
    let (settings, workload) = (settings(RULES), workload());
    let head = "2026-11-22T14:00:00Z stdout P user=1 password=hun\n";
    let other = "2026-11-22T14:00:00Z stderr F between\n";
    let rest = "2026-11-22T14:00:00Z stdout F ter2hunter2 ok\n";
    let expected = "2026-11-22T14:00:00Z stdout F *********** ok\n";
    // Cut because nothing more may wait, and read only for what it says of the rest.
    for follows in [false, true] {
        let mut masker = Masker::default();
        let mut first = head.as_bytes().to_vec();
        if follows {
            masker.follow(&settings, &workload, &first);
        } else {
            assert_eq!(masker.mask(&settings, &workload, &mut first, false), 0);
            assert_eq!(masker.mask(&settings, &workload, &mut first, true), head.len());
            assert!(first.ends_with(b"password=***\n"));
        }
        let mut between = other.as_bytes().to_vec();
        assert_eq!(masker.mask(&settings, &workload, &mut between, false), other.len());
        let mut second = format!("{rest}{other}").into_bytes();
        assert_eq!(masker.mask(&settings, &workload, &mut second, false), second.len());
        assert_eq!(String::from_utf8_lossy(&second), format!("{expected}{other}"));
        // And no more than that line.
        let mut third = rest.as_bytes().to_vec();
        masker.mask(&settings, &workload, &mut third, false);
        assert_eq!(String::from_utf8_lossy(&third), rest);
    }
}

#[test]
fn what_is_beyond_the_line_limit_is_covered_too() {
    let text =
        format!("2026-11-22T14:00:00Z stdout F {} password=hunter2hunter2\n", "x".repeat(MAX_LINE + 10));
    assert!(masked(&text).ends_with(" password=**************\n"));
}

#[test]
fn bytes_that_are_no_text_do_not_shift_the_cover() {
    let mut bytes = b"2026-11-22T14:00:00Z stdout F \xff\xfe\xe2\x82 password=hunter2hunter2 \xff\n".to_vec();
    mask(&settings(RULES), &workload(), &mut bytes);
    assert_eq!(bytes, b"2026-11-22T14:00:00Z stdout F \xff\xfe\xe2\x82 password=************** \xff\n");
}

/// One line of an application, the secrets in it, and whether it is one of several of a key.
fn content() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    let word = "[A-Za-z0-9]{12,24}";
    let one = |line: String, secrets: Vec<String>| (vec![line], secrets);
    prop_oneof![
        "[ -~]{0,40}"
            .prop_map(move |text| one(format!("plain {}", text.replace(['@', ':', '='], "")), vec![])),
        word.prop_map(move |s| one(format!("login user=bob password={s} took 5ms"), vec![s])),
        word.prop_map(move |s| one(
            format!(r#"{{"level":"warn","status":200,"apiKey":"{s}","msg":"käse \"q\" \u00e9"}}"#),
            vec![s]
        )),
        word.prop_map(move |s| one(
            format!(r#"{{"level":"error","inner":"{{\"token\":\"{s}\"}}","n":1}}"#),
            vec![s]
        )),
        word.prop_map(move |s| one(format!("GET https://bob:{s}@host/path?token={s}x HTTP/1.1"), vec![s])),
        word.prop_map(move |s| one(
            format!("level=error authorization=\"Bearer {s}{s}\" mail=joe@example.org"),
            vec![s, "joe@".into()]
        )),
        Just(one(r#"{"level":"info","card":4111111111111111,"n":2}"#.into(), vec!["41111111".into()])),
        Just(one("paid with 5500 0055 5555 5559 today".into(), vec!["5500".into(), "5559".into()])),
        prop::collection::vec("[A-Za-z0-9+/]{64}", 1..4).prop_map(|key| {
            let mut lines = vec!["-----BEGIN RSA PRIVATE KEY-----".to_owned()];
            lines.extend(key.iter().cloned());
            lines.push("-----END RSA PRIVATE KEY-----".into());
            (lines, key)
        }),
    ]
}

/// Lines of both streams as a runtime writes them, cut into fragments and mixed.
fn file() -> impl Strategy<Value = (Vec<u8>, Vec<String>)> {
    let line = (content(), any::<bool>(), prop::collection::vec(1_usize..30, 0..3));
    (prop::collection::vec(line, 1..12), any::<bool>(), any::<u64>()).prop_map(|(lines, docker, seed)| {
        let mut queues: [Vec<(String, bool)>; 2] = [vec![], vec![]];
        let mut secrets = Vec::new();
        for ((texts, found), stderr, cuts) in lines {
            secrets.extend(found);
            for text in texts {
                let mut rest: Vec<char> = text.chars().collect();
                for cut in &cuts {
                    if *cut < rest.len() {
                        let tail = rest.split_off(*cut);
                        queues[usize::from(stderr)].push((rest.into_iter().collect(), false));
                        rest = tail;
                    }
                }
                queues[usize::from(stderr)].push((rest.into_iter().collect(), true));
            }
        }
        let mut bytes = Vec::new();
        let (mut at, mut n, mut seed) = ([0, 0], 0, seed | 1);
        while at[0] < queues[0].len() || at[1] < queues[1].len() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = if at[0] == queues[0].len() {
                1
            } else if at[1] == queues[1].len() {
                0
            } else {
                (seed >> 63) as usize
            };
            let (text, full) = &queues[pick][at[pick]];
            at[pick] += 1;
            n += 1;
            let (stamp, stream) = (format!("2026-11-22T14:00:00.{n:09}Z"), ["stdout", "stderr"][pick]);
            if docker {
                let log =
                    serde_json::to_string(&format!("{text}{}", if *full { "\n" } else { "" })).expect("text");
                bytes.extend_from_slice(
                    format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"{stamp}\"}}\n").as_bytes(),
                );
            } else {
                let tag = if *full { 'F' } else { 'P' };
                bytes.extend_from_slice(format!("{stamp} {stream} {tag} {text}\n").as_bytes());
            }
        }
        (bytes, secrets)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn masked_bytes_show_no_secret_and_frame_as_before((original, secrets) in file()) {
        let (redacting, plain) = (settings(RULES), settings(""));
        let mut bytes = original.clone();
        mask(&redacting, &workload(), &mut bytes);
        prop_assert_eq!(bytes.len(), original.len());
        let shown = records(&plain, &bytes);
        for (_, text) in &shown {
            for secret in &secrets {
                prop_assert!(!text.contains(secret.as_str()), "{secret} in {text}");
            }
        }
        let (before, after) = (records(&redacting, &original), records(&redacting, &bytes));
        prop_assert_eq!(before.len(), after.len());
        for ((old, old_text), (new, new_text)) in before.iter().zip(&after) {
            prop_assert!(!new.marks.contains(Marks::REDACTED), "{old_text} became {new_text}");
            prop_assert_eq!(
                (old.offset, old.time_unix_nano, old.stream, old.severity, old.http_status),
                (new.offset, new.time_unix_nano, new.stream, new.severity, new.http_status)
            );
            let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
            prop_assert_eq!(json(old_text), json(new_text), "{} became {}", old_text, new_text);
        }
        let again = bytes.clone();
        mask(&redacting, &workload(), &mut bytes);
        prop_assert_eq!(bytes, again);
    }

    #[test]
    fn stretches_are_masked_as_the_whole_is((original, _) in file(), cut in any::<prop::sample::Index>()) {
        let settings = settings(RULES);
        let mut whole = original.clone();
        mask(&settings, &workload(), &mut whole);
        let newlines: Vec<usize> = memchr::memchr_iter(b'\n', &original).map(|at| at + 1).collect();
        let cut = *cut.get(&newlines);
        let mut masker = Masker::default();
        let mut first = original[..cut].to_vec();
        let done = masker.mask(&settings, &workload(), &mut first, false);
        let mut second = original[done..].to_vec();
        masker.mask(&settings, &workload(), &mut second, true);
        prop_assert_eq!([&first[..done], &second].concat(), whole);
    }
}
