//! Redaction: any lines of one log, in order, through every built-in rule.
//!
//! In: lines. Properties: what goes on is UTF-8 again and every span lies in the arena; a line that was a JSON object still is
//! one; a token that stands alone in a line never survives; nothing changes without the mark.

use std::sync::OnceLock;

use nodewick::data::batch::{Fields, Marks, Record, Span};
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::logs::parse::{Format, parse};
use nodewick::logs::process::config::{Config, Redact};
use nodewick::logs::process::{Chain, LogState};

/// A token of the shape that GitHub documents, made up.
const TOKEN: &str = "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";

pub(super) fn run(data: &[u8]) {
    static CHAIN: OnceLock<Chain> = OnceLock::new();
    let chain = CHAIN.get_or_init(|| {
        let redact = Redact { builtin: true, email: true, ip: true, ..Redact::default() };
        Chain::compile(&Config { redact, ..Config::default() }).expect("the built-in rules compile")
    });
    let workload = workload();
    // The framer lets only UTF-8 through.
    let text = String::from_utf8_lossy(data);
    let mut state = LogState::default();
    for line in text.split('\n') {
        let (body, marks) = redacted(chain, &mut state, &workload, line);
        assert!(
            body == line || marks.contains(Marks::REDACTED),
            "changed without the mark: {line:?} {body:?}"
        );
        let was_json = parse(line.as_bytes(), Fields::NONE).format == Format::Json;
        let is_json = parse(body.as_bytes(), Fields::NONE).format == Format::Json;
        assert!(is_json || !was_json, "no longer JSON: {line:?} {body:?}");

        let planted = format!("{line} {TOKEN} {line}");
        let (body, _) = redacted(chain, &mut LogState::default(), &workload, &planted);
        assert!(!body.contains(TOKEN), "a token survives: {planted:?}");
    }
}

/// What becomes of one line.
fn redacted(chain: &Chain, state: &mut LogState, workload: &Workload, line: &str) -> (String, Marks) {
    let mut arena = line.as_bytes().to_vec();
    let parsed = parse(&arena, Fields::ALL);
    let record = Record {
        body: Span::new(0, arena.len()),
        request_id: parsed.request_id.span,
        http_method: parsed.http_method.span,
        http_route: parsed.http_route.span,
        url_path: parsed.url_path.span,
        duration_ms: parsed.duration,
        ..Record::default()
    };
    let mut out = Vec::new();
    let dropped = chain.apply(state, workload, &mut arena, record, &mut out);
    assert_eq!((dropped.records(), out.len()), (0, 1), "redaction drops nothing");
    let record = out[0];
    let read = |span: Span| String::from_utf8(span.of(&arena).to_vec()).expect("UTF-8 stays UTF-8");
    for span in
        [record.request_id, record.http_method, record.http_route, record.url_path, record.duration_ms]
    {
        read(span);
    }
    (read(record.body), record.marks)
}

fn workload() -> Workload {
    let mut identity = PathIdentity { cluster: String::new(), node: String::new(), environment: None };
    let container =
        ContainerRef::from_path("shop_checkout_uid", "api", 0).expect("a name of the kubelet's form");
    match identity.identify(&container, std::time::Duration::ZERO) {
        Identity::Known(workload) => (*workload).clone(),
        Identity::Pending => unreachable!("a path is always known"),
    }
}
