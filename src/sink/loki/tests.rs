//! Verdicts on Loki's texts, byte for byte as they were recorded, and the config.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::data::delivery::Reason;
use crate::sink::Scope;

const S: &str = "{case=\"x\", service_name=\"unknown_service\"}";

fn answer(status: u16, body: &str) -> Answer {
    Answer::Http { status, retry_after: None, body: Bytes::from(format!("{body}\n")) }
}

/// Reason and whether all is lost.
fn refused(body: &str, records: u64) -> (Reason, bool) {
    match judge::verdict(&answer(400, body), records) {
        Verdict::Refused { reason, all, .. } => (reason, all),
        other => panic!("{other:?} for {body}"),
    }
}

fn behind(ignored: u64, of: u64) -> String {
    let line = "entry with timestamp 2026-11-22 13:42:13.12453584 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-22T13:42:13Z, oldest acceptable timestamp is: 2026-11-22T14:42:13Z',\n";
    format!(
        "{}user 'fake', total ignored: {ignored} out of {of} for stream: {S}",
        line.repeat(ignored.min(10) as usize)
    )
}

fn rate_line() -> String {
    format!(
        "entry with timestamp 2026-11-22 14:42:13 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 2KB/sec) while attempting to ingest for stream '{S}' totaling 800B, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased',\n"
    )
}

#[test]
fn statuses_mean_what_the_server_did_with_the_lines() {
    let verdict = |status| judge::verdict(&answer(status, ""), 5);
    assert_eq!(verdict(204), Verdict::Delivered);
    assert_eq!(verdict(401), Verdict::Unauthorized);
    assert_eq!(verdict(403), Verdict::Unauthorized);
    assert_eq!(verdict(413), Verdict::Split);
    for status in [301, 404, 405, 408, 429, 500, 502, 503, 504] {
        assert_eq!(verdict(status), Verdict::Retry { after: None }, "{status}");
    }
    let patient = Answer::Http { status: 503, retry_after: Some(Duration::from_secs(7)), body: Bytes::new() };
    assert_eq!(judge::verdict(&patient, 5), Verdict::Retry { after: Some(Duration::from_secs(7)) });
}

#[test]
fn texts_name_the_reason() {
    let old = format!(
        "entry for stream '{S}' has timestamp too old: 2026-11-15T15:41:13Z, oldest acceptable timestamp is: 2026-11-15T15:42:13Z"
    );
    assert_eq!(refused(&old, 2), (Reason::TooOld, false));
    assert_eq!(refused(&old, 1), (Reason::TooOld, true));
    assert_eq!(refused(&format!("2 errors like: {old}"), 2), (Reason::TooOld, true));
    assert_eq!(refused(&format!("2 errors like: {old}"), 3), (Reason::TooOld, false));
    let new = format!("entry for stream '{S}' has timestamp too new: 2026-11-22T15:57:13Z");
    assert_eq!(refused(&new, 2), (Reason::TooNew, false));
    assert_eq!(refused(&format!("1 errors like: {old}; 1 errors like: {new}"), 2), (Reason::TooOld, true));
    let size = format!(
        "max entry size '262144' bytes exceeded for stream '{S}' while adding an entry with length '262145' bytes"
    );
    assert_eq!(refused(&size, 2), (Reason::TooLarge, false));
    assert_eq!(
        refused(
            &format!("stream '{S}' has structured metadata too large: '65537' bytes, limit: '65536' bytes."),
            2
        ),
        (Reason::TooLarge, false)
    );
    assert_eq!(
        refused("couldn't parse labels: 1:3: parse error: unexpected character inside braces: '-'", 9),
        (Reason::Invalid, true)
    );
    assert_eq!(refused("snappy: corrupt input", 9), (Reason::Invalid, false));
    assert_eq!(refused("entry for stream '{…}' has 16 label names; limit 15", 9), (Reason::Invalid, true));
}

#[test]
fn all_is_lost_only_when_the_text_leaves_no_doubt() {
    assert_eq!(refused(&behind(3, 3), 3), (Reason::TooFarBehind, true));
    assert_eq!(refused(&behind(3, 5), 5), (Reason::TooFarBehind, false));
    assert_eq!(refused(&behind(12, 12), 12), (Reason::TooFarBehind, false), "two are not listed");
    let mixed = format!("{}{}", rate_line(), behind(1, 1).replace("1 out of 1", "2 out of 2"));
    assert_eq!(refused(&mixed, 2), (Reason::TooFarBehind, false), "one is only rate limited");
}

#[test]
fn what_is_about_the_tenant_or_the_way_says_nothing_against_the_lines() {
    for text in [
        "tenant ID 'a/b' contains unsupported character '/'",
        "tenant ID is '.' or '..'",
        "multiple org IDs present",
        "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>",
        "Client sent an HTTP request to an HTTPS server.",
    ] {
        assert_eq!(judge::verdict(&answer(400, text), 5), Verdict::Retry { after: None });
    }
}

#[test]
fn answers_teach_scope_rate_and_age() {
    let stream = judge::lesson(&answer(
        429,
        &format!("{}user 'fake', total ignored: 4 out of 4 for stream: {S}", rate_line()),
    ));
    let named = Some(entry::stream_key(S));
    assert_eq!(
        stream,
        Lesson { scope: Scope::Stream, oldest_unix_nano: None, stream_rate: Some(2000), stream: named }
    );
    let odd = "{a=\"}, \\\"'\", b=\"c\"}";
    let text = format!("entry for stream '{odd}' has timestamp too new: 2026-11-22T15:57:13Z");
    assert_eq!(judge::lesson(&answer(400, &text)).stream, Some(entry::stream_key(odd)));
    assert_eq!(judge::lesson(&answer(400, "unlike Loki, stream '{")).stream, None);
    let limit = format!(
        "maximum active stream limit exceeded when trying to create stream {S}, reduce the number of active streams"
    );
    assert_eq!(judge::lesson(&answer(429, &limit)).scope, Scope::Stream);
    let tenant = "ingestion rate limit exceeded for user fake (limit: 20971 bytes/sec) while attempting to ingest '30' lines totaling '23750' bytes";
    assert_eq!(judge::lesson(&answer(429, tenant)).scope, Scope::Tenant);
    assert_eq!(judge::lesson(&answer(429, "slow down")).scope, Scope::Endpoint);
    assert_eq!(
        judge::lesson(&answer(400, &behind(12, 12))).oldest_unix_nano,
        Some(1_795_358_533_000_000_000)
    );
    assert_eq!(judge::lesson(&answer(204, "")), Lesson::default());
}

#[test]
fn the_push_path_is_appended_once() {
    for (url, push) in [
        ("http://loki:3100", "http://loki:3100/loki/api/v1/push"),
        ("http://loki:3100/", "http://loki:3100/loki/api/v1/push"),
        ("https://gw/tenant", "https://gw/tenant/loki/api/v1/push"),
        ("http://loki:3100/loki/api/v1/push", "http://loki:3100/loki/api/v1/push"),
        ("http://loki:3100/loki/api/v1/push/", "http://loki:3100/loki/api/v1/push"),
    ] {
        assert_eq!(Config { url: url.to_owned(), ..Config::default() }.push_url(), push);
    }
}

#[test]
fn a_config_that_cannot_work_is_refused_at_once() {
    let with = |text: &str| toml::from_str::<Config>(text).expect("reads").client().map(|_| ());
    assert!(with("url = 'http://127.0.0.1:3100'\ntenant = 'team-a'").is_ok());
    assert!(matches!(with("url = 'http://127.0.0.1:3100'\ntenant = 'a/b'"), Err(Error::Tenant(_))));
    assert!(matches!(with("url = 'http://127.0.0.1:3100'\ntenant = 'a|b'"), Err(Error::Tenant(_))));
    assert!(matches!(with("url = 'loki:3100'"), Err(Error::Endpoint(_))));
    assert!(matches!(with(""), Err(Error::Endpoint(_))));
    let error = toml::from_str::<Config>("url = 'http://x'\ntennant = 'a'").expect_err("unknown key");
    assert!(error.to_string().contains("tennant"));
}
