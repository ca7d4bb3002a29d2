//! What a person sees, as literals.

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn entry<'a>(level: &'a str, line: &'a str) -> Entry<'a> {
    Entry {
        time: "2026-11-22T14:27:36.381204991Z".into(),
        namespace: "shop".into(),
        service_name: "checkout".into(),
        container: "api".into(),
        level: level.into(),
        line: line.into(),
        ..Entry::default()
    }
}

fn plain(entry: &Entry<'_>) -> String {
    let mut out = String::new();
    write_pretty(entry, Style::PLAIN, &mut out);
    out
}

#[test]
fn a_pino_http_line_reads_as_its_request() {
    let mut entry = entry(
        "info",
        r#"{"level":30,"time":1795356567622,"pid":19465,"hostname":"vm","req":{"id":1,"method":"GET","url":"/ok/1001","query":{},"params":{},"headers":{"host":"127.0.0.1:18081"},"remoteAddress":"127.0.0.1","remotePort":54698},"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"e44e2373aff76665","trace_flags":"01","res":{"statusCode":200,"headers":{}},"responseTime":41,"msg":"request completed"}"#,
    );
    entry.trace_id = TRACE.into();
    assert_eq!(
        plain(&entry),
        "14:27:36.381 INFO  checkout/api  request completed  GET /ok/1001 200 41ms trace=0af76519…\n"
    );
}

#[test]
fn remaining_fields_follow_in_their_order() {
    let entry = entry(
        "warn",
        r#"{"level":40,"orderId":"1001","amount":12.5,"nested":{"a":[1,2]},"note":"two words","none":null,"ok":true,"msg":"slow"}"#,
    );
    assert_eq!(
        plain(&entry),
        "14:27:36.381 WARN  checkout/api  slow  orderId=1001 amount=12.5 nested={\"a\":[1,2]} note=\"two words\" ok=true\n"
    );
}

#[test]
fn a_stack_stands_indented_below() {
    let entry = entry(
        "error",
        r#"{"level":50,"err":{"type":"TypeError","message":"boom","stack":"TypeError: boom\n    at pay (/app/pay.js:12:37)\n    at next (/app/router.js:3:1)","code":"E1"},"msg":"payment failed"}"#,
    );
    assert_eq!(
        plain(&entry),
        "14:27:36.381 ERROR checkout/api  payment failed  code=E1\n    TypeError: boom\n        at pay (/app/pay.js:12:37)\n        at next (/app/router.js:3:1)\n"
    );
}

#[test]
fn a_long_stack_is_cut_and_says_so() {
    let stack = vec!["    at f (x.js:1:1)"; 20].join("\\n");
    let line =
        format!(r#"{{"err":{{"type":"Error","message":"m","stack":"Error: m\n{stack}"}},"msg":"failed"}}"#);
    let text = plain(&entry("error", &line));
    assert_eq!(text.lines().count(), 18);
    assert!(text.ends_with("    … 5 more lines\n"), "{text}");
}

#[test]
fn structlog_and_plain_text_have_their_message_too() {
    assert_eq!(
        plain(&entry("info", r#"{"event":"order placed","level":"info","order":7}"#)),
        "14:27:36.381 INFO  checkout/api  order placed  order=7\n"
    );
    assert_eq!(
        plain(&entry("", "Server listening on 8080\r")),
        "14:27:36.381 -     checkout/api  Server listening on 8080\n"
    );
    assert_eq!(plain(&entry("", "{\"not\": closed")), "14:27:36.381 -     checkout/api  {\"not\": closed\n");
    assert_eq!(plain(&entry("", "{\"level\":30}")), "14:27:36.381 -     checkout/api  {\"level\":30}\n");
    assert_eq!(plain(&entry("", "")), "14:27:36.381 -     checkout/api\n");
}

#[test]
fn a_message_of_several_lines_stays_one_block() {
    assert_eq!(
        plain(&entry("info", r#"{"msg":"first\nsecond\n\tthird","n":1}"#)),
        "14:27:36.381 INFO  checkout/api  first  n=1\n    second\n     third\n"
    );
}

#[test]
fn hostile_text_cannot_drive_the_terminal() {
    let mut hostile = entry(
        "info",
        "{\"msg\":\"a\\u001b[2Jb\\u0007\",\"k\\u001b[1m\":\"v\\u009b31m\",\"req\":{\"method\":\"G\\u001bT\",\"url\":\"/\\r\\n\"},\"n\":{\"x\":\"\u{9b}1m\"}}",
    );
    hostile.service_name = "s\u{1b}]0;x\u{7}".into();
    assert_eq!(
        plain(&hostile),
        "14:27:36.381 INFO  s\\x1b]0;x\\x07/api  a\\x1b[2Jb\\x07  G\\x1bT /\\r\\n k\\x1b[1m=v\\u{9b}31m n={\"x\":\"\\u{9b}1m\"}\n"
    );
    let raw = entry("info", "\u{1b}[31mred\u{1b}[0m \u{202e}evil");
    assert_eq!(plain(&raw), "14:27:36.381 INFO  checkout/api  \\x1b[31mred\\x1b[0m \\u{202e}evil\n");
    let mut coloured = String::new();
    write_pretty(&raw, Style { colour: true }, &mut coloured);
    assert_eq!(coloured.matches("\u{1b}[31m").count(), 0, "red is the log's, not ours: {coloured:?}");
}

#[test]
fn colours_wrap_head_and_fields_only() {
    let mut out = String::new();
    let mut entry = entry("error", r#"{"msg":"no","n":1}"#);
    entry.trace_id = TRACE.into();
    write_pretty(&entry, Style { colour: true }, &mut out);
    assert_eq!(
        out,
        "\u{1b}[2m14:27:36.381\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m \u{1b}[96mcheckout/api\u{1b}[0m  no  \u{1b}[2mn=1 trace=0af76519…\u{1b}[0m\n"
    );
}

#[test]
fn long_values_are_cut() {
    let line = format!(r#"{{"msg":"m","dump":"{}"}}"#, "x".repeat(20_000));
    let text = plain(&entry("info", &line));
    assert!(text.ends_with("x… (+19840 bytes)\n"), "{}", &text[text.len() - 40..]);
    assert!(text.len() < 260);
}

#[test]
fn deep_json_is_one_cut_value() {
    let line = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(plain(&entry("", &line)).starts_with("14:27:36.381 -     checkout/api  a=[[["));
}
