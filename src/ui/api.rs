//! What the page's script asks for: the picture, its changes, explanations, buttons.
//!
//! In: requests that passed the gate. Out: JSON, or server-sent events with the parts of the page that have changed. Invariants:
//! a body has a limit and a deadline; at most [`EVENTS`] pages are kept up to date at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use xxhash_rust::xxh3::xxh3_64;

use super::session::{self, Entry};
use super::{BODY_BYTES, BODY_TIMEOUT, EVENTS, Question, page};

/// Time between two pictures of a page that is kept up to date.
const BEAT: Duration = Duration::from_secs(1);
/// Events of one stream; then the browser opens another one.
const BEATS: u32 = 600;

pub(super) fn json(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body.into()).into_response()
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text.into()).into_response()
}

/// `GET /api/overview`: the picture.
pub(super) async fn overview(State(shown): State<super::State>) -> Response {
    let picture = shown.observer.observe_with_rates().await;
    json(serde_json::to_string(&*picture).unwrap_or_default())
}

/// A page that is kept up to date.
struct Follow {
    shown: super::State,
    view: page::View,
    /// What was last sent of each part.
    sent: BTreeMap<&'static str, u64>,
    waiting: Vec<Event>,
    beats: u32,
    _permit: OwnedSemaphorePermit,
}

/// `GET /api/events`: parts of the page, whenever they have changed.
pub(super) async fn events(State(shown): State<super::State>, RawQuery(query): RawQuery) -> Response {
    let Ok(permit) = std::sync::Arc::clone(&shown.events).try_acquire_owned() else {
        let text =
            format!("{EVENTS} pages are being kept up to date already; this one asks again by itself\n");
        return plain(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let view = page::View::of(query.as_deref());
    let follow =
        Follow { shown, view, sent: BTreeMap::new(), waiting: Vec::new(), beats: 0, _permit: permit };
    let mut response = Sse::new(parts(follow)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    response
}

fn parts(follow: Follow) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(follow, |mut follow| async move {
        loop {
            if let Some(event) = follow.waiting.pop() {
                return Some((Ok(event), follow));
            }
            if follow.beats >= BEATS {
                return None;
            }
            if follow.beats > 0 {
                tokio::select! {
                    () = follow.shown.leave.cancelled() => return None,
                    () = tokio::time::sleep(BEAT) => {}
                }
            }
            follow.beats += 1;
            follow.look().await;
        }
    })
}

impl Follow {
    /// Makes an event of each part that has changed, and one that says that all is up to date.
    async fn look(&mut self) {
        let picture = self.shown.observer.observe_with_rates().await;
        let time = picture.agent.time_unix_ms.to_string();
        // What stands last is sent first.
        self.waiting.push(Event::default().event("beat").data(time).retry(Duration::from_secs(2)));
        for (name, html) in page::parts(&picture, &self.shown.extras, &self.view).into_iter().rev() {
            let hash = xxh3_64(html.as_bytes());
            if self.sent.insert(name, hash) != Some(hash) {
                let data = serde_json::json!({"part": name, "html": html}).to_string();
                self.waiting.push(Event::default().event("part").data(data));
            }
        }
    }
}

/// The whole body, or the answer to whoever sends too much or too slowly.
async fn body(request: Request) -> Result<Bytes, Response> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), BODY_BYTES));
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            Err(plain(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {} KiB are taken\n", BODY_BYTES >> 10)))
        }
        Err(_) => Err(plain(StatusCode::REQUEST_TIMEOUT, "the request took too long\n")),
    }
}

/// `POST /api/explain`: lines, as text.
pub(super) async fn explain(
    State(shown): State<super::State>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let mut question = Question::default();
    for (key, value) in pairs(query.as_deref().unwrap_or_default()) {
        let value = Some(value).filter(|value| !value.is_empty());
        match (key.as_str(), value) {
            ("ns" | "namespace", value) => question.namespace = value,
            ("pod", value) => question.pod = value,
            ("container", value) => question.container = value,
            ("annotation", Some(value)) => match value.split_once('=') {
                Some((name, value)) => question.annotations.push((name.to_owned(), value.to_owned())),
                None => return plain(StatusCode::BAD_REQUEST, "annotation takes <name>=<value>\n"),
            },
            ("annotation", None) => {}
            _ => {
                let text = format!("{key:?} is not known; explain takes ns, pod, container and annotation\n");
                return plain(StatusCode::BAD_REQUEST, text);
            }
        }
    }
    question.lines = match body(request).await {
        Ok(bytes) => bytes.to_vec(),
        Err(answer) => return answer,
    };
    if question.lines.iter().all(u8::is_ascii_whitespace) {
        return plain(StatusCode::BAD_REQUEST, "the body is to be the lines to explain, as text\n");
    }
    let explain = std::sync::Arc::clone(&shown.explain);
    // Parsing and redacting 64 KiB takes milliseconds; others have their turn meanwhile.
    match tokio::task::block_in_place(move || explain(question)) {
        Ok(answer) => json(answer),
        Err(why) => plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

/// `POST /api/actions/<name>`: a button.
pub(super) async fn action(State(shown): State<super::State>, Path(name): Path<String>) -> Response {
    let Some(action) = shown.extras.actions.iter().find(|action| action.name == name) else {
        return plain(StatusCode::NOT_FOUND, "there is no such action\n");
    };
    (action.run)();
    let (label, active) = ((action.label)(), (action.active)());
    json(serde_json::json!({"name": action.name, "label": label, "active": active}).to_string())
}

/// `POST /sign-in`: a form with the token.
pub(super) async fn sign_in(State(shown): State<super::State>, request: Request) -> Response {
    let form = match body(request).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(answer) => return answer,
    };
    let token = pairs(&form).find(|(name, _)| name == "token").map(|(_, value)| value).unwrap_or_default();
    match shown.guard.sessions().enter(token.trim()) {
        Entry::Open(cookie) => {
            let headers = [(LOCATION, "/".to_owned()), (SET_COOKIE, cookie)];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        Entry::Wrong => page::door(StatusCode::UNAUTHORIZED, "That is not the token."),
        Entry::TooMany => page::door(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many wrong tokens; nobody can sign in for a minute.",
        ),
    }
}

/// `POST /sign-out`.
pub(super) async fn sign_out(State(shown): State<super::State>, headers: HeaderMap) -> Response {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    for (name, value) in all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='))
    {
        if name == session::COOKIE {
            shown.guard.sessions().close(value);
        }
    }
    let gone = format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0", session::COOKIE);
    (StatusCode::NO_CONTENT, [(SET_COOKIE, gone)]).into_response()
}

/// Names and values of a query or a form, decoded.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &tail[2..];
                continue;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_whatever_it_holds() {
        let all: Vec<_> = pairs("a=1&b=x+y%2Bz&c&=d&%zz=%4&e=%C3%A9").collect();
        let expected = [("a", "1"), ("b", "x y+z"), ("c", ""), ("", "d"), ("%zz", "%4"), ("e", "é")];
        let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(all, expected);
    }
}
