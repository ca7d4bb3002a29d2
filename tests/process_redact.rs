//! Canary: secrets in every form and place of `tests/corpus/redact`, none of which may be seen afterwards.

use nodewick::data::batch::{Marks, Record, Span};
use nodewick::data::workload::{Identify, Identity, PathIdentity, Workload};
use nodewick::logs::process::{Chain, Config, LogState};

const TOKENS: &str = include_str!("corpus/redact/tokens.txt");
const EMBEDDINGS: &str = include_str!("corpus/redact/embeddings.txt");
const NAMED: &str = include_str!("corpus/redact/named.txt");
const VALUES: &str = include_str!("corpus/redact/values.txt");
const CLEAN: &str = include_str!("corpus/redact/clean.txt");

fn lines(corpus: &'static str) -> impl Iterator<Item = &'static str> + Clone {
    corpus.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn workload() -> Workload {
    let mut identity = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
    let container =
        nodewick::data::workload::ContainerRef::from_path("shop_checkout-d994d45d6-5h9zr_u-1", "api", 0)
            .expect("valid");
    match identity.identify(&container, std::time::Duration::ZERO) {
        Identity::Known(workload) => (*workload).clone(),
        Identity::Pending => panic!("a path is enough"),
    }
}

fn chain(toml: &str) -> Chain {
    Chain::compile(&toml::from_str::<Config>(toml).expect("valid toml")).expect("valid rules")
}

fn builtin() -> Chain {
    chain("redact.builtin = true")
}

/// The record after redaction and its arena.
fn pass(chain: &Chain, line: &str) -> (Record, Vec<u8>) {
    // Something before it, so that positions in the line and in the arena differ.
    let mut arena = b"earlier".to_vec();
    arena.extend_from_slice(line.as_bytes());
    let record = Record { body: Span::new(7, arena.len()), time_unix_nano: 1, ..Record::default() };
    let mut out = Vec::new();
    chain.apply(&mut LogState::default(), &workload(), &mut arena, record, &mut out);
    assert_eq!(out.len(), 1);
    (out[0], arena)
}

fn redacted(chain: &Chain, line: &str) -> String {
    let (record, arena) = pass(chain, line);
    String::from_utf8(record.body.of(&arena).to_vec()).expect("still UTF-8")
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Passes the line; gives complaints.
fn check(chain: &Chain, line: &str, secret: &str, rule: &str, complaints: &mut Vec<String>) {
    let (record, arena) = pass(chain, line);
    let text = String::from_utf8_lossy(record.body.of(&arena)).into_owned();
    if text.contains(secret) {
        complaints.push(format!("survives: {line}\n       -> {text}"));
    } else if !text.contains("[REDACTED:") || !record.marks.contains(Marks::REDACTED) {
        complaints.push(format!("no mark: {line}\n      -> {text}"));
    } else if !rule.is_empty() && !text.contains(&format!("[REDACTED:{rule}]")) {
        complaints.push(format!("not {rule}: {line}\n      -> {text}"));
    } else if line.starts_with('{') && is_json(line) && !is_json(&text) {
        complaints.push(format!("no JSON: {line}\n      -> {text}"));
    }
    let again = redacted(chain, &text);
    if again != text {
        complaints.push(format!("not stable: {text}\n      -> {again}"));
    }
}

#[test]
fn no_token_survives_in_any_place() {
    let chain = builtin();
    let mut complaints = Vec::new();
    for entry in lines(TOKENS) {
        let (rule, secret) = entry.split_once('\t').expect("rule, tab, secret");
        let secret = secret.replace('~', "");
        for place in lines(EMBEDDINGS) {
            check(&chain, &place.replace("{}", &secret), &secret, rule, &mut complaints);
        }
    }
    assert!(complaints.is_empty(), "{} of them:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn no_named_secret_survives() {
    let chain = builtin();
    let mut complaints = Vec::new();
    for entry in lines(NAMED) {
        let (rule, place) = entry.split_once('\t').expect("rule, tab, line");
        for secret in lines(VALUES) {
            // A raw `/` ends a URL's user info for everyone who reads it.
            if rule == "url_userinfo" && secret.contains('/') && place.contains("\\/") {
                continue;
            }
            check(&chain, &place.replace("{}", secret), secret, rule, &mut complaints);
        }
    }
    assert!(complaints.is_empty(), "{} of them:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn what_only_looks_like_a_secret_is_left_alone() {
    let chain = builtin();
    for line in lines(CLEAN) {
        let (record, arena) = pass(&chain, line);
        assert_eq!(String::from_utf8_lossy(record.body.of(&arena)), line);
        assert_eq!(record.marks, Marks::NONE);
        assert_eq!(record.body, Span::new(7, 7 + line.len()), "the line is not even copied");
    }
}

#[test]
fn a_replacement_says_which_rule_made_it_and_keeps_the_rest() {
    let chain = builtin();
    for (line, expected) in [
        (r#"{"a":1,"password":"x\"y","b":2}"#, r#"{"a":1,"password":"[REDACTED:password]","b":2}"#),
        (r#"{"password":12345}"#, r#"{"password":"[REDACTED:password]"}"#),
        (r#"{"pan":4111111111111111,"n":1}"#, r#"{"pan":"[REDACTED:card]","n":1}"#),
        (
            r#"{"msg":"pans:4111111111111111,5555555555554444"}"#,
            r#"{"msg":"pans:[REDACTED:card],[REDACTED:card]"}"#,
        ),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer [REDACTED:authorization]"),
        ("GET https://bob:pw@host/x", "GET https://[REDACTED:url_userinfo]@host/x"),
        ("user=a password=b;c role=d", "user=a password=[REDACTED:password] role=d"),
        ("a=1, password=abc, b=2", "a=1, password=[REDACTED:password], b=2"),
        ("Basic auth Basic Ym9iOmh1bnRlcjI= ok", "Basic auth Basic [REDACTED:authorization] ok"),
    ] {
        assert_eq!(redacted(&chain, line), expected);
    }
}

#[test]
fn a_private_key_goes_in_one_line_and_over_many() {
    let chain = builtin();
    let begin = concat!("-----BEGIN RSA PRIV", "ATE KEY-----");
    let end = concat!("-----END RSA PRIV", "ATE KEY-----");
    let inner = "MIIEpAIBAAKCAQEA7bq1kTz0Hc2xg8nq1kTz0Hc2xg8nq1kTz0Hc2xg8nq1kTz0H";
    assert_eq!(
        redacted(&chain, &format!(r#"{{"key":"{begin}\n{inner}\nAbC=\n{end}\n","b":1}}"#)),
        r#"{"key":"[REDACTED:private_key]\n","b":1}"#
    );
    assert_eq!(redacted(&chain, &format!("key {begin} {inner} cut")), "key [REDACTED:private_key]");

    let mut state = LogState::default();
    let (workload, mut arena, mut out) = (workload(), Vec::new(), Vec::new());
    for line in ["start", begin, inner, inner, "short==", end, "after", inner] {
        let from = arena.len();
        arena.extend_from_slice(line.as_bytes());
        let record = Record { body: Span::new(from, arena.len()), ..Record::default() };
        chain.apply(&mut state, &workload, &mut arena, record, &mut out);
    }
    let seen: Vec<_> = out.iter().map(|r| String::from_utf8_lossy(r.body.of(&arena)).into_owned()).collect();
    let gone = "[REDACTED:private_key]";
    assert_eq!(seen, ["start", gone, gone, gone, gone, gone, "after", inner]);
}

#[test]
fn spans_show_no_secret_either() {
    let chain = chain("redact.builtin = true\nredact.rule.customer = { pattern = 'cust-[0-9]+' }");
    let line = r#"{"reqId":"cust-12345678","url":"/c/cust-12345678/x","method":"GET"}"#;
    let copy = "r/cust-12345678/:id";
    let mut arena = format!("{line}{copy}").into_bytes();
    let at = |text: &str| {
        let from = line.find(text).expect("in the line");
        Span::new(from, from + text.len())
    };
    let record = Record {
        body: Span::new(0, line.len()),
        request_id: at("cust-12345678"),
        url_path: at("/c/cust-12345678/x"),
        http_method: at("GET"),
        http_route: Span::new(line.len(), line.len() + copy.len()),
        ..Record::default()
    };
    let mut out = Vec::new();
    chain.apply(&mut LogState::default(), &workload(), &mut arena, record, &mut out);
    let text = |span: Span| String::from_utf8_lossy(span.of(&arena)).into_owned();
    assert_eq!(
        text(out[0].body),
        r#"{"reqId":"[REDACTED:customer]","url":"/c/[REDACTED:customer]/x","method":"GET"}"#
    );
    assert_eq!(text(out[0].request_id), "[REDACTED:customer]");
    assert_eq!(text(out[0].url_path), "/c/[REDACTED:customer]/x");
    assert_eq!(text(out[0].http_method), "GET");
    assert_eq!(text(out[0].http_route), "r/[REDACTED:customer]/:id");
}

#[test]
fn a_rule_of_ones_own_replaces_with_its_groups() {
    let chain = chain(
        r#"
        [redact.rule.iban]
        pattern = '\b([A-Z]{2})[0-9]{18,20}\b'
        replace = '$1***'
        [redact.rule.ssn]
        pattern = '"ssn":"[^"]*"'
        "#,
    );
    assert_eq!(redacted(&chain, "to DE12345678901234567890 sent"), "to DE*** sent");
    assert_eq!(
        redacted(&chain, r#"{"ssn":"123","b":"DE12345678901234567890"}"#),
        r#"{"[REDACTED:ssn]":"[REDACTED:ssn]","b":"DE***"}"#
    );
}

#[test]
fn addresses_go_only_when_asked_for() {
    let chain = chain("redact = { email = true, ip = true }");
    for (line, expected) in [
        ("mail bob.x+y@mail.example.com.", "mail [REDACTED:email]."),
        (r#"{"msg":"\nbob@example.com"}"#, r#"{"msg":"\n[REDACTED:email]"}"#),
        ("from 10.0.0.7:8080 to ::1", "from [REDACTED:ip]:8080 to [REDACTED:ip]"),
        ("peer [2001:db8::7]:443", "peer [[REDACTED:ip]]:443"),
        ("at 14:27:36.380, v1.2.3, 1.2.3.4.5, a@b", "at 14:27:36.380, v1.2.3, 1.2.3.4.5, a@b"),
        ("password=x", "password=x"),
    ] {
        assert_eq!(redacted(&chain, line), expected);
    }
}

#[test]
fn hits_are_counted_by_rule() {
    let chain = chain("redact.rule.counted-here = { pattern = 'zz[0-9]' }");
    redacted(&chain, "zz1 zz2 zz3");
    let count = nodewick::metrics::REDACTIONS.with_label_values(&["counted-here"]).get();
    assert_eq!(count, 3);
}

#[test]
fn any_line_stays_text_and_json_stays_json() {
    // Pieces that meet in odd ways: every pair of them, as text and inside a JSON string.
    let pieces = [
        "password=",
        "\\\"",
        "\\\\",
        "\\n",
        "\\u0041",
        "\"",
        "'",
        "{",
        "}",
        "token\\\":",
        ":",
        "=",
        ",",
        "://",
        "a:b@",
        "eyJ",
        "Bearer ",
        "4111111111111111",
        "é",
        "secret",
        " ",
        "-----BEGIN PRIVATE KEY-----",
        "[",
        "0",
    ];
    let chain =
        chain("redact = { builtin = true, email = true, ip = true, rule.w = { pattern = 'u00|n[4a]' } }");
    let mut json = 0;
    for a in pieces {
        for b in pieces {
            for c in pieces {
                let line = format!(r#"{{"m":"{a}{b}{c}","n":4111111111111111}}"#);
                let text = redacted(&chain, &line);
                if is_json(&line) {
                    json += 1;
                    assert!(is_json(&text), "{line}\n{text}");
                }
                redacted(&chain, &format!("{a}{b}{c}"));
            }
        }
    }
    assert!(json > 3000, "{json} lines were JSON");
}
