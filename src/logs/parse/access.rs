//! Access logs: nginx, Apache, ingress-nginx, Envoy, uvicorn, gunicorn.
//!
//! In: a line with a quoted request line and a status behind it. Out: method, path, status; duration and request id
//! in ingress-nginx's form. Invariant: a status says nothing about severity; only a level word does.

use super::pick::{Pick, Picks, SYNTAX, Value};
use super::{Format, http, pairs, plain, time};
use crate::data::batch::Fields;

pub(super) fn read<'a>(line: &'a [u8], picks: &mut Picks<'a>) -> bool {
    pick(line, picks).is_some()
}

fn pick<'a>(line: &'a [u8], picks: &mut Picks<'a>) -> Option<()> {
    // The request line is the first thing in quotes.
    let head = &line[..line.len().min(512)];
    let open = memchr::memchr(b'"', head)?;
    let request = &line[open + 1..];
    let method = &request[..request.iter().take(17).position(|byte| *byte == b' ')?];
    if !http::is_known_method(method) || !method.iter().all(u8::is_ascii_uppercase) {
        return None;
    }
    let close = memchr::memchr(b'"', request)?;
    let mut words = request[method.len() + 1..close].split(|byte| *byte == b' ');
    let target = words.next()?;
    if !words.next()?.starts_with(b"HTTP/") || words.next().is_some() {
        return None;
    }
    let after = request[close + 1..].strip_prefix(b" ")?;
    let status = after.get(..3)?;
    if !status.iter().all(u8::is_ascii_digit) || after.get(3).is_some_and(|byte| *byte != b' ') {
        return None;
    }
    picks.out.format = Format::Access;
    picks.offer_as(Pick::Method, SYNTAX, Value::Bare(method));
    picks.offer_as(Pick::Url, SYNTAX, Value::Bare(target));
    picks.offer_as(Pick::Status, SYNTAX, Value::Bare(status));
    if let Some(stamp) = bracketed(&line[..open])
        && picks.want.intersects(Fields::APP_TIME)
        && let Some(time) = time::from_access_log(stamp).or_else(|| time::from_text(stamp))
    {
        picks.out.app_time_unix_nano = time;
    }
    ingress(after, picks);
    plain::level(&line[..open], picks);
    pairs::offer_ids(after, picks);
    Some(())
}

/// What stands in the last brackets of a text.
fn bracketed(text: &[u8]) -> Option<&[u8]> {
    let open = memchr::memrchr(b'[', text)?;
    let rest = &text[open + 1..];
    Some(&rest[..memchr::memchr(b']', rest)?])
}

/// `200 612 "referer" "agent" 431 0.005 [upstream] … <request id>`: two numbers and a bracket behind the user agent.
/// Source: ingress-nginx, "Log format".
fn ingress<'a>(after: &'a [u8], picks: &mut Picks<'a>) {
    let Some(last_quote) = memchr::memrchr(b'"', after) else { return };
    let mut words = after[last_quote + 1..].split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (Some(length), Some(seconds), Some(upstream)) = (words.next(), words.next(), words.next()) else {
        return;
    };
    if !length.iter().all(u8::is_ascii_digit) || !upstream.starts_with(b"[") || !seconds.contains(&b'.') {
        return;
    }
    picks.offer_as(Pick::Seconds, SYNTAX, Value::Bare(seconds));
    if let Some(id) = words.next_back().filter(|id| id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit)) {
        picks.offer_as(Pick::RequestId, SYNTAX, Value::Bare(id));
    }
}
