//! The wire of the make-believe API server: one request to one answer, or to a watch.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::*;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub(super) async fn serve(
    listener: tokio::net::TcpListener,
    state: Arc<Mutex<State>>,
    bell: Arc<watch::Sender<Bell>>,
) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        if state.lock().expect("no panic in the fake").behaviour.away {
            continue;
        }
        let (state, bell) = (Arc::clone(&state), Arc::clone(&bell));
        tokio::spawn(async move {
            let away = Arc::new(AtomicBool::new(false));
            let service = service_fn(|request| {
                let (state, bell, away) = (Arc::clone(&state), Arc::clone(&bell), Arc::clone(&away));
                async move {
                    if state.lock().expect("no panic in the fake").behaviour.away {
                        away.store(true, Ordering::Relaxed);
                        return Err(std::io::Error::other("away"));
                    }
                    if request.uri().path().ends_with("/selfsubjectaccessreviews") {
                        return Ok(review(request, &state).await);
                    }
                    Ok(answer(request, &state, bell))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

fn whole(status: u16, retry_after: Option<u64>, body: String) -> Response<Body> {
    let mut builder = Response::builder().status(status).header("content-type", "application/json");
    if let Some(seconds) = retry_after {
        builder = builder.header("retry-after", seconds.to_string());
    }
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {}).boxed_unsync();
    builder.body(body).expect("an answer")
}

/// A `Status` object, as a real server words it.
fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code})
}

fn refusal(code: u16, reason: &str, message: &str) -> Response<Body> {
    whole(code, None, status(code, reason, message).to_string())
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex = [bytes.next(), bytes.next()].map(|digit| char::from(digit.unwrap_or(b'0')));
                let digit = |letter: char| letter.to_digit(16).unwrap_or(0) as u8;
                out.push(digit(hex[0]) << 4 | digit(hex[1]));
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).expect("UTF-8")
}

/// What a client asks of a list or a watch.
#[derive(Clone)]
struct Asked {
    resource: &'static str,
    query: HashMap<String, String>,
    /// Path in the object and the value it must have.
    selectors: Vec<(Vec<String>, String)>,
}

impl Asked {
    fn get(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn is(&self, name: &str) -> bool {
        matches!(self.get(name), "1" | "true")
    }

    fn wants(&self, object: &Value) -> bool {
        self.selectors.iter().all(|(path, value)| {
            let found = path.iter().fold(object, |object, key| &object[key.as_str()]);
            found.as_str().unwrap_or_default() == value
        })
    }

    /// What a change looks like through the selectors.
    fn kind(&self, change: &Change) -> Option<&'static str> {
        if change.resource != self.resource {
            return None;
        }
        let before = change.before.as_ref().is_some_and(|object| self.wants(object));
        let after = change.kind != "DELETED" && self.wants(&change.object);
        match (before, after) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }
}

fn selectors(query: &HashMap<String, String>) -> Result<Vec<(Vec<String>, String)>, String> {
    let mut found = Vec::new();
    let parts =
        |name| query.get(name).map_or("", String::as_str).split(',').filter(|part: &&str| !part.is_empty());
    for part in parts("fieldSelector") {
        let (field, value) = part.split_once('=').ok_or("invalid selector")?;
        if !["spec.nodeName", "metadata.name", "metadata.namespace", "status.phase"].contains(&field) {
            return Err(format!("field label not supported: {field}"));
        }
        let path = field.split('.').map(str::to_owned).collect();
        found.push((path, value.trim_start_matches('=').to_owned()));
    }
    for part in parts("labelSelector") {
        let (label, value) = part.split_once('=').ok_or("invalid selector")?;
        found.push((
            vec!["metadata".into(), "labels".into(), label.into()],
            value.trim_start_matches('=').into(),
        ));
    }
    Ok(found)
}

/// What the asking account may do.
async fn review(request: Request<Incoming>, state: &Arc<Mutex<State>>) -> Response<Body> {
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let mut asked: Value = serde_json::from_slice(&body).expect("JSON");
    let of = &asked["spec"]["resourceAttributes"];
    let text = |name: &str| of[name].as_str().unwrap_or_default().to_owned();
    let (verb, mut right) = (text("verb"), text("resource"));
    if !text("subresource").is_empty() {
        right = format!("{right}/{}", text("subresource"));
    }
    let state = state.lock().expect("no panic in the fake");
    let Behaviour { forbidden, granted, .. } = &state.behaviour;
    let reads = ["list", "watch"].contains(&verb.as_str())
        && ["pods", "namespaces"].contains(&right.as_str())
        && !forbidden.contains(&right.as_str());
    let allowed = reads || granted.contains(&format!("{verb} {right}").as_str());
    asked["status"] = json!({"allowed": allowed});
    whole(201, None, asked.to_string())
}

fn answer(
    request: Request<Incoming>,
    state: &Arc<Mutex<State>>,
    bell: Arc<watch::Sender<Bell>>,
) -> Response<Body> {
    let query: HashMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let (resource, right, kubelet) = match request.uri().path() {
        "/version" => return whole(200, None, json!({"gitVersion": "v1.36.0"}).to_string()),
        "/api/v1/pods" => ("pods", "pods", false),
        "/api/v1/namespaces" => ("namespaces", "namespaces", false),
        "/pods" => ("pods", "nodes/pods", true),
        _ => return refusal(404, "NotFound", "the server could not find the requested resource"),
    };
    let asked = Asked { resource, selectors: Vec::new(), query };
    let verb = match (asked.is("watch"), asked.is("sendInitialEvents")) {
        _ if kubelet => "kubelet",
        (true, true) => "streaming_list",
        (true, false) => "watch",
        (false, _) => "list",
    };
    let token =
        request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let answer = judged(asked.clone(), verb, right, token.as_deref(), state, bell);
    let mut state = state.lock().expect("no panic in the fake");
    state.seen.push(Seen {
        verb,
        resource: resource.to_owned(),
        query: asked.query,
        at: Instant::now(),
        authorization: token,
        status: answer.status().as_u16(),
    });
    answer
}

fn judged(
    mut asked: Asked,
    verb: &str,
    right: &str,
    token: Option<&str>,
    shared: &Arc<Mutex<State>>,
    bell: Arc<watch::Sender<Bell>>,
) -> Response<Body> {
    let mut state = shared.lock().expect("no panic in the fake");
    let behaviour = state.behaviour.clone();
    if let Some(wanted) = &behaviour.token
        && token != Some(&format!("Bearer {wanted}"))
    {
        return refusal(401, "Unauthorized", "Unauthorized");
    }
    if let Some(fault) = behaviour.fault {
        let mut told = status(fault.status, "TooManyRequests", "too many requests, please try again later");
        if let Some(seconds) = fault.retry_after {
            told["details"] = json!({"retryAfterSeconds": seconds});
        }
        return whole(fault.status, fault.retry_after, told.to_string());
    }
    if behaviour.forbidden.contains(&right) {
        let verb = if verb == "list" { "list" } else { "watch" };
        let message = format!(
            "{right} is forbidden: User \"system:serviceaccount:nodewick:nodewick\" cannot {verb} resource \"{right}\" in API group \"\" at the cluster scope"
        );
        return refusal(403, "Forbidden", &message);
    }
    match selectors(&asked.query) {
        Ok(found) => asked.selectors = found,
        Err(message) => return refusal(400, "BadRequest", &message),
    }
    match verb {
        "kubelet" => {
            let items: Vec<&Value> =
                state.objects.values().filter(|object| object["kind"] == "Pod").map(|o| &**o).collect();
            let body =
                json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}).to_string();
            state.sent_bytes += body.len() as u64;
            whole(200, None, body)
        }
        "list" => list(&asked, &mut state),
        _ => {
            drop(state);
            watched(asked, verb, behaviour, shared, bell)
        }
    }
}

fn list(asked: &Asked, state: &mut State) -> Response<Body> {
    let limit = asked.get("limit").parse().unwrap_or(usize::MAX).min(state.behaviour.page);
    let page = asked.get("continue");
    let (version, mut items) = if page.is_empty() {
        if !asked.get("resourceVersionMatch").is_empty() && asked.get("resourceVersion").is_empty() {
            return refusal(
                422,
                "Invalid",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        let objects = state
            .objects
            .iter()
            .filter(|((resource, ..), object)| *resource == asked.resource && asked.wants(object));
        (state.version, objects.map(|(_, object)| Arc::clone(object)).collect::<Vec<_>>())
    } else {
        if !asked.get("resourceVersion").is_empty() {
            return refusal(
                400,
                "BadRequest",
                "specifying resource version is not allowed when using continue",
            );
        }
        match state.pages.remove(page) {
            Some((version, items)) if version >= state.compacted => (version, items),
            _ => return refusal(410, "Expired", "The provided continue parameter is too old"),
        }
    };
    let rest = if items.len() > limit { items.split_off(limit) } else { Vec::new() };
    let mut meta = json!({"resourceVersion": version.to_string()});
    if !rest.is_empty() {
        let token = format!("eyJ2IjoibWV0YS5rOHMuaW8vdjEi+{}/{}=", version, rest.len());
        meta["continue"] = json!(token);
        meta["remainingItemCount"] = json!(rest.len());
        state.pages.insert(token, (version, rest));
    }
    let kind = if asked.resource == "pods" { "PodList" } else { "NamespaceList" };
    let items: Vec<&Value> = items.iter().map(|object| &**object).collect();
    let body = json!({"kind": kind, "apiVersion": "v1", "metadata": meta, "items": items}).to_string();
    state.sent_bytes += body.len() as u64;
    whole(200, None, body)
}

fn event(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(resource: &str, version: u64, ends: bool) -> String {
    let kind = if resource == "pods" { "Pod" } else { "Namespace" };
    let mut meta = json!({"resourceVersion": version.to_string()});
    if ends {
        meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    event(
        "BOOKMARK",
        &json!({"kind": kind, "apiVersion": "v1", "metadata": meta, "spec": {"containers": null}, "status": {}}),
    )
}

fn gone(version: u64, compacted: u64) -> Value {
    status(410, "Expired", &format!("too old resource version: {version} ({compacted})"))
}

fn watched(
    asked: Asked,
    verb: &str,
    behaviour: Behaviour,
    shared: &Arc<Mutex<State>>,
    bell: Arc<watch::Sender<Bell>>,
) -> Response<Body> {
    let streaming = verb == "streaming_list" && !behaviour.ancient;
    if streaming && !behaviour.streaming_lists {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return refusal(422, "Invalid", message);
    }
    if streaming && asked.get("resourceVersionMatch") != "NotOlderThan" {
        return refusal(
            422,
            "Invalid",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    }
    let (mut at, initial) = {
        let state = shared.lock().expect("no panic in the fake");
        let from = asked.get("resourceVersion");
        if streaming || from.is_empty() || from == "0" {
            let objects = state
                .objects
                .iter()
                .filter(|((resource, ..), object)| *resource == asked.resource && asked.wants(object));
            let mut text: Vec<String> = objects.map(|(_, object)| event("ADDED", object)).collect();
            if streaming && asked.is("allowWatchBookmarks") {
                text.push(bookmark(asked.resource, state.version, true));
            }
            (state.version, text)
        } else {
            let Ok(from) = from.parse::<u64>() else {
                return refusal(400, "BadRequest", "invalid resource version");
            };
            if from > state.version {
                let message =
                    format!("Timeout: Too large resource version: {from}, current: {}", state.version);
                return refusal(504, "Timeout", &message);
            }
            if from < state.compacted && behaviour.gone_as_status {
                return whole(410, None, gone(from, state.compacted).to_string());
            }
            if from < state.compacted {
                let text = event("ERROR", &gone(from, state.compacted));
                return whole(200, None, text);
            }
            (from, Vec::new())
        }
    };
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(16);
    let (shared, mut rung) = (Arc::clone(shared), bell.subscribe());
    let cuts = rung.borrow().cuts;
    tokio::spawn(async move {
        let send = async |text: String| {
            shared.lock().expect("no panic in the fake").sent_bytes += text.len() as u64;
            sender.send(Ok(Frame::data(Bytes::from(text)))).await.is_ok()
        };
        for text in initial {
            tokio::time::sleep(behaviour.slow).await;
            if !send(text).await {
                return;
            }
        }
        let seconds = asked.get("timeoutSeconds").parse().unwrap_or(1800);
        let end = tokio::time::sleep(Duration::from_secs(seconds));
        tokio::pin!(end);
        loop {
            let silent = shared.lock().expect("no panic in the fake").behaviour.silent;
            let news: Vec<(u64, Option<String>)> = {
                let state = shared.lock().expect("no panic in the fake");
                // Versions only go up: what was sent is not looked at again.
                let first = state.changes.partition_point(|change| change.version <= at);
                let news = state.changes.range(first..);
                let text = |change: &Change| asked.kind(change).map(|kind| event(kind, &change.object));
                if silent { Vec::new() } else { news.map(|change| (change.version, text(change))).collect() }
            };
            for (version, text) in news {
                at = version;
                let Some(text) = text else { continue };
                tokio::time::sleep(behaviour.slow).await;
                if !send(text).await {
                    return;
                }
            }
            tokio::select! {
                () = &mut end, if !silent => return,
                () = tokio::time::sleep(behaviour.bookmarks), if !silent && asked.is("allowWatchBookmarks") => {
                    let (version, behind) = {
                        let state = shared.lock().expect("no panic in the fake");
                        (state.version, state.changes.back().is_some_and(|change| change.version > at))
                    };
                    // Never past a change that was not sent.
                    if !behind {
                        at = version;
                        if !send(bookmark(asked.resource, at, false)).await {
                            return;
                        }
                    }
                }
                () = sender.closed() => return,
                changed = rung.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let bell = *rung.borrow_and_update();
                    if bell.cuts > cuts {
                        match bell.cut {
                            Some(Cut::Abort) => {
                                let _ = sender.send(Err(std::io::Error::other("cut"))).await;
                            }
                            Some(Cut::Gone) => {
                                let _ = send(event("ERROR", &gone(at, at + 1))).await;
                            }
                            _ => {}
                        }
                        return;
                    }
                }
            }
        }
    });
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    let body = StreamBody::new(frames.boxed()).map_err(|error| error);
    Response::builder()
        .status(200)
        .header("content-type", "application/json")
        .body(body.boxed_unsync())
        .expect("an answer")
}
