//! The page's few files, compiled in.
//!
//! In: a name. Out: the file, with a tag by which a browser asks whether it has changed. Invariant: nothing is read from disk,
//! and nothing comes from another host.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [(&str, &str, &str); 6] = [
    ("style.css", STYLE, include_str!("assets/style.css")),
    ("theme.js", SCRIPT, include_str!("assets/theme.js")),
    ("app.js", SCRIPT, include_str!("assets/app.js")),
    ("lines.js", SCRIPT, include_str!("assets/lines.js")),
    ("explain.js", SCRIPT, include_str!("assets/explain.js")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// One file.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&name, &headers)
}

/// What browsers ask for by themselves.
pub(super) async fn icon(headers: HeaderMap) -> Response {
    file("icon.svg", &headers)
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(own, ..)| *own == name) else {
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    };
    let tag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
    // A browser asks each time, and mostly gets nothing: after an upgrade no old script meets a new page.
    let fixed = [(CACHE_CONTROL, "no-cache".to_owned()), (ETAG, tag.clone())];
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if known.split(',').any(|own| own.trim().trim_start_matches("W/") == tag) {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    (fixed, [(CONTENT_TYPE, *kind)], *text).into_response()
}
