//! One resource followed from its first list through every event: the client's half of Kubernetes' list and watch.
//!
//! In: the answers of the API server. Out: calls of a [`Follower`]. Streaming lists where the server has them, plain ones
//! taken apart while they arrive where it has not; a watch that ends is taken up again at the last version that was seen,
//! without a list; 410 leads to a list, at a time of its own.
//!
//! Why not `kube`'s own watcher: it holds whole pages of whole objects, does not tell what `Retry-After` says, does not
//! fall back from streaming lists, and takes no hint that somebody waits.
//! Invariant: nothing here ends but by being dropped.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::client::{Api, Failure, PIECE_WITHIN, Pieces, Reason, Status};
use super::object;
use super::pace::{Outcome, Pace, Pause};
use super::split::{LONGEST_OBJECT, Malformed, Splitter};
use crate::data::clock;
use crate::metrics;

/// Bookmarks come about once a minute: a silence that is longer is doubted when a log waits.
/// Source: Kubernetes, `staging/src/k8s.io/apiserver/pkg/storage/cacher`, `bookmarkFrequency`.
const DOUBTFUL: Duration = Duration::from_secs(75);

/// How often a wait looks whether a log waits too.
const LOOK: Duration = Duration::from_millis(100);

/// Objects of a page where the server pages at all.
const PAGE: u32 = 500;

/// How long silences are borne; shorter in tests.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After which time the server is to end a watch; `None` for five to ten minutes.
    pub watch: Option<Duration>,
    /// How much longer than that nothing may come.
    pub grace: Duration,
    /// A silence that is doubted when a log waits.
    pub doubtful: Duration,
    /// How long the end of a streaming list may be in coming: a server that does not know them never tells it.
    pub initial: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { watch: None, grace: seconds(15), doubtful: DOUBTFUL, initial: seconds(20) }
    }
}

/// Who is told.
pub(super) trait Follower {
    /// Name of the resource: a label value, and the end of its path.
    const RESOURCE: &'static str;
    /// A list begins.
    fn begin(&mut self);
    /// An object as it is now; its version.
    fn set(&mut self, json: &[u8]) -> serde_json::Result<String>;
    /// An object was deleted; its version.
    fn delete(&mut self, json: &[u8]) -> serde_json::Result<String>;
    /// The list is whole.
    fn whole(&mut self);
    /// True when a log waits for something that is not known.
    fn wanted(&mut self) -> bool;
    /// A request was answered as it should be, or not.
    fn fare(&mut self, failure: Option<&Failure>);
}

/// See the module's header.
pub(super) struct Watch<F> {
    follower: F,
    pace: Pace,
    patience: Patience,
    /// Field selector, as it stands in a query; empty for all.
    selector: String,
    /// Where to resume.
    version: Option<String>,
    /// Whether the server knows streaming lists, as far as we know.
    streaming: bool,
    /// When something came last.
    contact: Instant,
    /// A log waited at the last look while nothing came.
    doubted: bool,
}

/// How a watch is begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// With everything that there is.
    Initial,
    /// At the version.
    Resume,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl<F: Follower> Watch<F> {
    pub(super) fn new(follower: F, pace: Pace, patience: Patience, selector: &str) -> Self {
        Self {
            follower,
            pace,
            patience,
            selector: if selector.is_empty() { String::new() } else { format!("&fieldSelector={selector}") },
            version: None,
            streaming: true,
            contact: Instant::now(),
            doubted: false,
        }
    }

    /// Follows the resource for ever. `connect` makes a way to the server; it is made anew when nobody answers.
    pub(super) async fn run<C: Future<Output = Result<Api, Failure>>>(mut self, connect: impl Fn() -> C) {
        let mut api = None;
        loop {
            let done = match &api {
                None => match connect().await {
                    Ok(new) => {
                        api = Some(new);
                        continue;
                    }
                    Err(failure) => Err(failure),
                },
                Some(api) => self.step(api).await,
            };
            if done.as_ref().is_err_and(Failure::may_be_the_way) {
                // Another address, another authority, another token: whatever has changed, it is read anew.
                api = None;
            }
            let pause = self.judge(done);
            self.wait(pause).await;
        }
    }

    /// One list or one watch, to its end.
    async fn step(&mut self, api: &Api) -> Result<Outcome, Failure> {
        match (&self.version, self.streaming) {
            (Some(_), _) => self.watch(api, Begin::Resume).await,
            (None, true) => self.watch(api, Begin::Initial).await,
            (None, false) => self.list(api).await,
        }
    }

    /// What the end of a step means for the next one.
    fn judge(&mut self, done: Result<Outcome, Failure>) -> Pause {
        let resource = F::RESOURCE;
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(failure) => {
                metrics::KUBE_ERRORS.with_label_values(&[resource, failure.reason.name()]).inc();
                match failure.reason {
                    _ if self.version.is_some() && is_no_place(&failure) => {
                        self.version = None;
                        Outcome::Expired
                    }
                    Reason::Expired => {
                        debug!(resource, error = %failure, "the place to resume from is gone; listing anew");
                        self.version = None;
                        Outcome::Expired
                    }
                    // Not a failure of the server: the connection has died, and the place to resume from is known.
                    Reason::Silent if self.version.is_some() => {
                        self.follower.fare(Some(&failure));
                        Outcome::Ended(Duration::MAX)
                    }
                    _ => {
                        self.follower.fare(Some(&failure));
                        Outcome::Failed(failure.retry_after)
                    }
                }
            }
        };
        self.pace.after(outcome, clock::now())
    }

    async fn wait(&mut self, pause: Pause) {
        let begin = Instant::now();
        // Who waited before has its answer or has gone without; who still waits says so again at once.
        self.follower.wanted();
        while begin.elapsed() < pause.most {
            let left = pause.most - begin.elapsed();
            tokio::time::sleep(left.min(LOOK)).await;
            if begin.elapsed() >= pause.wanted && pause.wanted < pause.most && self.follower.wanted() {
                return;
            }
        }
    }

    fn request(&self, verb: &str) {
        metrics::KUBE_REQUESTS.with_label_values(&[F::RESOURCE, verb]).inc();
    }

    /// Something came.
    fn touch(&mut self) {
        self.contact = Instant::now();
        contact(F::RESOURCE);
    }

    // Lists.

    async fn list(&mut self, api: &Api) -> Result<Outcome, Failure> {
        self.follower.begin();
        let mut next_page = String::new();
        loop {
            self.request("list");
            // Version 0: what the server has at hand, without a question to etcd. Every page of a list has the first's.
            let from = if next_page.is_empty() {
                "&resourceVersion=0&resourceVersionMatch=NotOlderThan".to_owned()
            } else {
                format!("&continue={}", encoded(&next_page))
            };
            let path = format!("/api/v1/{}?limit={PAGE}{}{from}", F::RESOURCE, self.selector);
            let mut pieces = api.get(&path).await?;
            let mut splitter = Splitter::default();
            loop {
                let piece = match timeout(PIECE_WITHIN, pieces.next()).await {
                    Err(_) => return Err(Failure::new(Reason::Silent, "the list stopped half-way")),
                    Ok(None) => break,
                    Ok(Some(piece)) => piece?,
                };
                self.touch();
                let follower = &mut self.follower;
                splitter.feed(&piece, &mut |object| {
                    take(follower.set(object), F::RESOURCE);
                    Ok::<_, Malformed>(())
                })?;
            }
            let ending = splitter.finish()?;
            if ending.next_page.is_empty() {
                self.follower.whole();
                self.follower.fare(None);
                self.version = Some(ending.resource_version).filter(|version| !version.is_empty());
                return match self.version {
                    Some(_) => Ok(Outcome::Listed),
                    None => Err(Failure::new(Reason::Malformed, "the list has no resourceVersion")),
                };
            }
            next_page = ending.next_page;
        }
    }

    // Watches.

    async fn watch(&mut self, api: &Api, begin: Begin) -> Result<Outcome, Failure> {
        let ends = self.patience.watch.unwrap_or_else(|| self.pace.watch_timeout());
        let from = match (&self.version, begin) {
            (Some(version), Begin::Resume) => format!("&resourceVersion={}", encoded(version)),
            _ => "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0".to_owned(),
        };
        let path = format!(
            "/api/v1/{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={}{}{from}",
            F::RESOURCE,
            ends.as_secs(),
            self.selector
        );
        self.request(if begin == Begin::Initial { "streaming_list" } else { "watch" });
        let mut pieces = match api.get(&path).await {
            Ok(pieces) => pieces,
            // Servers without streaming lists refuse the parameters (422), or what stands in their way does (400).
            Err(failure) if begin == Begin::Initial && matches!(failure.status, 400 | 422) => {
                return Ok(self.list_plainly());
            }
            Err(failure) => return Err(failure),
        };
        self.touch();
        let (since, mut initial) = (Instant::now(), begin == Begin::Initial);
        if initial {
            self.follower.begin();
        } else {
            self.follower.fare(None);
        }
        let silent_after = ends + self.patience.grace;
        let mut line = Vec::new();
        loop {
            let piece = match self.next(&mut pieces, silent_after).await {
                // The end of a connection that was cut is as good as any other.
                Ok(None) | Err(Failure { reason: Reason::Unreachable, .. }) if !initial => {
                    return Ok(Outcome::Ended(since.elapsed()));
                }
                Ok(None) => return Err(Failure::new(Reason::Unreachable, "the list stopped half-way")),
                Ok(Some(piece)) => piece,
                Err(failure) => return Err(failure),
            };
            if let Some(piece) = piece {
                self.touch();
                if self.lines(&piece, &mut line, &mut initial)? {
                    let _ = self.pace.after(Outcome::Listed, clock::now());
                }
            }
            if initial && since.elapsed() > self.patience.initial {
                return Ok(self.list_plainly());
            }
        }
    }

    fn list_plainly(&mut self) -> Outcome {
        info!(
            resource = F::RESOURCE,
            "the API server has no streaming lists (Kubernetes 1.32 and newer have); listing plainly"
        );
        self.streaming = false;
        Outcome::Unsupported
    }

    /// The next piece of a watch: `None` at its end, an empty one for a look around.
    async fn next(
        &mut self,
        pieces: &mut Pieces,
        silent_after: Duration,
    ) -> Result<Option<Option<Bytes>>, Failure> {
        match timeout(Duration::from_secs(1), pieces.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(piece)) => piece.map(|piece| Some(Some(piece))),
            Err(_) => {
                let silence = self.contact.elapsed();
                let wanted = silence > self.patience.doubtful && self.follower.wanted();
                let doubtful = std::mem::replace(&mut self.doubted, wanted) && wanted;
                if doubtful {
                    // It may as well be nothing: as if it had ended, which costs a request and no list.
                    self.doubted = false;
                    metrics::KUBE_ERRORS.with_label_values(&[F::RESOURCE, Reason::Silent.name()]).inc();
                    return Ok(None);
                }
                if silence > silent_after {
                    let text = format!("nothing came for {} s", silence.as_secs());
                    return Err(Failure::new(Reason::Silent, text));
                }
                Ok(Some(None))
            }
        }
    }

    /// Takes the events of a piece. True when the initial ones have ended with it.
    fn lines(&mut self, piece: &[u8], line: &mut Vec<u8>, initial: &mut bool) -> Result<bool, Failure> {
        let mut ended = false;
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (head, tail) = rest.split_at(end);
            rest = &tail[1..];
            let event = if line.is_empty() {
                head
            } else {
                line.extend_from_slice(head);
                line.as_slice()
            };
            if !event.trim_ascii().is_empty() {
                ended |= self.event(event, initial)?;
            }
            line.clear();
            if line.capacity() > 256 << 10 {
                *line = Vec::new();
            }
        }
        if line.len() + rest.len() > LONGEST_OBJECT {
            return Err(Malformed::TooLong.into());
        }
        line.extend_from_slice(rest);
        Ok(ended)
    }

    fn event(&mut self, text: &[u8], initial: &mut bool) -> Result<bool, Failure> {
        let malformed =
            |error: serde_json::Error| Failure::new(Reason::Malformed, format!("not a watch event: {error}"));
        let event: Event<'_> = serde_json::from_slice(text).map_err(malformed)?;
        let object = event.object.get().as_bytes();
        let (kind, version) = match event.kind {
            "ADDED" => ("added", take(self.follower.set(object), F::RESOURCE)),
            "MODIFIED" => ("modified", take(self.follower.set(object), F::RESOURCE)),
            "DELETED" => ("deleted", take(self.follower.delete(object), F::RESOURCE)),
            "BOOKMARK" => {
                let (version, ends) = object::bookmark(object).map_err(malformed)?;
                metrics::KUBE_EVENTS.with_label_values(&[F::RESOURCE, "bookmark"]).inc();
                let whole = ends && std::mem::take(initial);
                if whole {
                    self.follower.whole();
                    self.follower.fare(None);
                }
                self.advance(version, *initial);
                return Ok(whole);
            }
            "ERROR" => {
                metrics::KUBE_EVENTS.with_label_values(&[F::RESOURCE, "error"]).inc();
                let status: Status = serde_json::from_slice(object).map_err(malformed)?;
                return Err(Failure::of_status(&status, status.code, None));
            }
            // A kind that is newer than this program.
            _ => return Ok(false),
        };
        metrics::KUBE_EVENTS.with_label_values(&[F::RESOURCE, kind]).inc();
        self.pace.succeed();
        self.advance(version.unwrap_or_default(), *initial);
        Ok(false)
    }

    /// Half a list is no place to resume from.
    fn advance(&mut self, version: String, initial: bool) {
        if !initial && !version.is_empty() {
            self.version = Some(version);
        }
    }
}

/// True when the server will never know the version that is to be resumed from: it was restored from a backup, or the
/// version is no number to it.
fn is_no_place(failure: &Failure) -> bool {
    failure.status == 400 || failure.status == 504 && failure.text.contains("Too large resource version")
}

/// Something came, for the metrics.
pub(super) fn contact(resource: &str) {
    let secs = clock::since_epoch().as_secs() as i64;
    metrics::KUBE_LAST_CONTACT.with_label_values(&[resource]).set(secs);
}

/// An object that cannot be read is counted and costs nothing but itself.
pub(super) fn take(read: serde_json::Result<String>, resource: &'static str) -> Option<String> {
    match read {
        Ok(version) => Some(version),
        Err(error) => {
            let count = metrics::KUBE_ERRORS.with_label_values(&[resource, Reason::Malformed.name()]);
            count.inc();
            if count.get() <= 1 {
                warn!(resource, %error, "an object cannot be read and is left out");
            }
            None
        }
    }
}

impl From<Malformed> for Failure {
    fn from(error: Malformed) -> Self {
        Self::new(Reason::Malformed, error.to_string())
    }
}

/// Percent-encoded for a query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
