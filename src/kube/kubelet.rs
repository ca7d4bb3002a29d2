//! The node's own kubelet, asked by turns: no load on the API server, and a right that ends at `nodes/pods`.
//!
//! In: `GET /pods`, every [`poll`](super::config::Kubelet::poll) and sooner when a log waits for its labels, at most once
//! a second. Out: the same calls of a [`Follower`] as from a watch, each answer being a whole list.
//! Never `nodes/proxy`: with it a GET may execute commands in containers.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};

use super::client::{Api, Failure, PIECE_WITHIN, Reason};
use super::pace::{Outcome, Pace};
use super::split::{Malformed, Splitter};
use super::watch::Follower;
use crate::data::clock;
use crate::metrics;

/// Least time between two requests.
const SOONEST: Duration = Duration::from_secs(1);

/// How often it is looked whether a log waits.
const LOOK: Duration = Duration::from_millis(100);

/// Polls for ever. `connect` makes a way to the kubelet; it is made anew when nobody answers.
pub(super) async fn run<F: Follower, C: Future<Output = Result<Api, Failure>>>(
    mut follower: F,
    mut pace: Pace,
    poll: Duration,
    connect: impl Fn() -> C,
) {
    let mut api = None;
    loop {
        let begin = Instant::now();
        let done = match &api {
            None => match connect().await {
                Ok(new) => {
                    api = Some(new);
                    continue;
                }
                Err(failure) => Err(failure),
            },
            Some(api) => ask(api, &mut follower).await,
        };
        let (most, wanted) = match done {
            Ok(()) => {
                pace.succeed();
                (poll, SOONEST)
            }
            Err(failure) => {
                metrics::KUBE_ERRORS.with_label_values(&[F::RESOURCE, failure.reason.name()]).inc();
                if failure.may_be_the_way() {
                    api = None;
                }
                follower.fare(Some(&failure));
                let pause = pace.after(Outcome::Failed(failure.retry_after), clock::now());
                (pause.most, pause.most)
            }
        };
        while begin.elapsed() < most {
            tokio::time::sleep((most - begin.elapsed()).min(LOOK)).await;
            if begin.elapsed() >= wanted && follower.wanted() {
                break;
            }
        }
    }
}

/// One answer, whole or not at all.
async fn ask<F: Follower>(api: &Api, follower: &mut F) -> Result<(), Failure> {
    metrics::KUBE_REQUESTS.with_label_values(&[F::RESOURCE, "get"]).inc();
    // Who asks from now on is not served by this answer for sure.
    follower.wanted();
    let mut pieces = api.get("/pods").await?;
    let mut splitter = Splitter::default();
    follower.begin();
    loop {
        let piece = match timeout(PIECE_WITHIN, pieces.next()).await {
            Err(_) => return Err(Failure::new(Reason::Silent, "the list stopped half-way")),
            Ok(None) => break,
            Ok(Some(piece)) => piece?,
        };
        splitter.feed(&piece, &mut |object| {
            super::watch::take(follower.set(object), F::RESOURCE);
            Ok::<_, Malformed>(())
        })?;
    }
    splitter.finish()?;
    super::watch::contact(F::RESOURCE);
    follower.whole();
    follower.fare(None);
    Ok(())
}
