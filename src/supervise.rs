//! Starts the agent's tasks, ends them together, and says which one failed.
//!
//! In: named futures and threads. Out: one [`Outcome`]. Sources stop at [`stop`](Supervisor::stop) and drop what they
//! send into; sinks end when their channels close; whoever is left at the end of the flush is told by
//! [`kill`](Supervisor::kill) to save what it has, and is aborted at the deadline.
//! Invariants: tokio tasks start here and nowhere else. A task that ends before the stop ends the process: the kubelet
//! restarts whole agents better than we restart halves.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Why a task failed.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// How long the end may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From the stop to the kill: time to flush.
    pub flush: Duration,
    /// From the stop to the exit, whatever still runs.
    pub exit: Duration,
}

impl Default for Deadlines {
    /// 20 s and 25 s: within Kubernetes' usual grace period of 30 s.
    fn default() -> Self {
        Self { flush: Duration::from_secs(20), exit: Duration::from_secs(25) }
    }
}

/// How the agent ended after it was asked to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Everything was flushed before the kill.
    pub flushed: bool,
    /// Tasks that had to be aborted at the deadline.
    pub aborted: Vec<String>,
}

/// A task ended in a way that ends the process.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It ended, without an error, before the agent was to stop.
    #[error("task {0} ended by itself; the agent stops, so that the kubelet restarts it whole")]
    EndedEarly(String),
    /// It failed.
    #[error("task {name} failed: {cause}")]
    Failed {
        /// Name of the task.
        name: String,
        /// Why.
        cause: TaskError,
    },
    /// It panicked: a bug.
    #[error("task {0} panicked; this is a bug in nodewick")]
    Panicked(String),
}

/// Owns every task of the agent.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: Group,
    companions: Group,
    stop: CancellationToken,
    kill: CancellationToken,
    leave: CancellationToken,
}

#[derive(Debug, Default)]
struct Group {
    set: JoinSet<Result<(), TaskError>>,
    names: BTreeMap<Id, String>,
}

impl Group {
    fn spawn<F>(&mut self, name: String, future: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let handle = self.set.spawn(future);
        self.names.insert(handle.id(), name);
    }

    /// The next task that ends; pending for ever when there is none.
    async fn next(&mut self) -> (String, Result<Result<(), TaskError>, JoinError>) {
        match self.set.join_next_with_id().await {
            Some(Ok((id, result))) => (self.forget(id), Ok(result)),
            Some(Err(error)) => (self.forget(error.id()), Err(error)),
            None => std::future::pending().await,
        }
    }

    fn forget(&mut self, id: Id) -> String {
        self.names.remove(&id).unwrap_or_default()
    }
}

impl Supervisor {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the agent is to stop reading.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when the time to flush is over: save what you have and end.
    pub fn kill(&self) -> CancellationToken {
        self.kill.clone()
    }

    /// Starts a task that works on the data. It ends after the stop, by itself.
    pub fn spawn<F, E>(&mut self, name: impl Into<String>, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        self.tasks.spawn(name.into(), async move { future.await.map_err(Into::into) });
    }

    /// Starts an OS thread that works on the data. It ends after the stop, by itself; it cannot be aborted.
    pub fn spawn_thread<F, E>(&mut self, name: &'static str, body: F) -> std::io::Result<()>
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
        E: Into<TaskError>,
    {
        let (done, ended) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nobody listens once the deadline has passed.
            let _ = done.send(body().map_err(Into::into));
        })?;
        self.tasks.spawn(name.to_owned(), async move {
            ended.await.unwrap_or_else(|_| Err("the thread panicked; this is a bug in nodewick".into()))
        });
        Ok(())
    }

    /// Starts a task that serves the others and outlives them: it gets a token that is cancelled when they are done.
    pub fn attend<F, E>(&mut self, name: impl Into<String>, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let future = task(self.leave.clone());
        self.companions.spawn(name.into(), async move { future.await.map_err(Into::into) });
    }

    /// Runs until `asked` resolves (to the reason) or a task ends early, then drains.
    pub async fn run(
        mut self,
        asked: impl Future<Output = &'static str>,
        deadlines: Deadlines,
    ) -> Result<Outcome, Failure> {
        match self.until(asked).await {
            Ok(reason) => {
                info!(reason, "stopping: no more is read, what was read is flushed");
                self.end(deadlines).await
            }
            Err(failure) => {
                // The failure that came first says most; the drain's outcome cannot mend it.
                let _ = self.end(deadlines).await;
                Err(failure)
            }
        }
    }

    /// Waits until `asked` resolves, to its value, or a task ends early. Nothing is stopped yet.
    pub async fn until<T>(&mut self, asked: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            value = asked => Ok(value),
            (name, ended) = self.tasks.next() => Err(judge(name, ended)),
            (name, ended) = self.companions.next() => Err(judge(name, ended)),
        }
    }

    /// Stops and drains everything.
    pub async fn end(mut self, deadlines: Deadlines) -> Result<Outcome, Failure> {
        let (outcome, failure) = self.drain(deadlines).await;
        failure.map_or(Ok(outcome), Err)
    }

    async fn drain(&mut self, deadlines: Deadlines) -> (Outcome, Option<Failure>) {
        let begin = Instant::now();
        let exit = begin + deadlines.exit;
        let mut failure = None;
        self.stop.cancel();
        let flushed =
            timeout_at(begin + deadlines.flush, finish(&mut self.tasks, &mut failure)).await.is_ok();
        if !flushed {
            let names: Vec<_> = self.tasks.names.values().cloned().collect();
            warn!(tasks = ?names, "the time to flush is over; what is not acknowledged is read again");
        }
        self.kill.cancel();
        let tasks = timeout_at(exit, finish(&mut self.tasks, &mut failure)).await;
        self.leave.cancel();
        // The companions get a moment of their own, within the exit deadline where there is time left.
        let courtesy = (Instant::now() + Duration::from_secs(1)).min(exit.max(Instant::now()));
        let companions = timeout_at(courtesy, finish(&mut self.companions, &mut failure)).await;
        let mut aborted = Vec::new();
        if tasks.is_err() {
            aborted.extend(self.tasks.names.values().cloned());
        }
        if companions.is_err() {
            aborted.extend(self.companions.names.values().cloned());
        }
        self.tasks.set.abort_all();
        self.companions.set.abort_all();
        (Outcome { flushed, aborted }, failure)
    }
}

/// Waits for every task of the group; keeps the first failure.
async fn finish(group: &mut Group, failure: &mut Option<Failure>) {
    while !group.set.is_empty() {
        let (name, ended) = group.next().await;
        if !matches!(ended, Ok(Ok(()))) {
            failure.get_or_insert(judge(name, ended));
        }
    }
}

fn judge(name: String, ended: Result<Result<(), TaskError>, JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::EndedEarly(name),
        Ok(Err(cause)) => Failure::Failed { name, cause },
        Err(_) => Failure::Panicked(name),
    }
}

/// Resolves when the process is asked to end: SIGTERM or SIGINT. The reason is the signal's name.
pub async fn asked_to_end() -> std::io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::future::{pending, ready};

    const SHORT: Deadlines = Deadlines { flush: Duration::from_millis(50), exit: Duration::from_millis(100) };

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    #[test]
    fn a_task_that_ends_early_ends_the_process_and_is_named() {
        let failure = run(async {
            let mut supervisor = Supervisor::new();
            let stop = supervisor.stop();
            supervisor.spawn("tail", async { Ok::<_, Infallible>(()) });
            supervisor.spawn("loki", async move {
                stop.cancelled().await;
                Ok::<_, Infallible>(())
            });
            supervisor.run(pending(), SHORT).await.expect_err("ended early")
        });
        assert!(matches!(failure, Failure::EndedEarly(name) if name == "tail"));
    }

    #[test]
    fn a_failure_keeps_its_cause() {
        let failure = run(async {
            let mut supervisor = Supervisor::new();
            supervisor.spawn("tail", async { Err::<(), _>("disk on fire") });
            supervisor.run(pending(), SHORT).await.expect_err("failed")
        });
        assert_eq!(failure.to_string(), "task tail failed: disk on fire");
    }

    #[test]
    fn a_panic_is_named() {
        let failure = run(async {
            let mut supervisor = Supervisor::new();
            supervisor
                .spawn_thread("logs", || -> Result<(), Infallible> { panic!("bug") })
                .expect("a thread");
            supervisor.run(pending(), SHORT).await.expect_err("panicked")
        });
        assert_eq!(failure.to_string(), "task logs failed: the thread panicked; this is a bug in nodewick");
    }

    #[test]
    fn sinks_end_when_their_sources_do_and_companions_last() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u8>(1);
        let order = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let outcome = run(async {
            let mut supervisor = Supervisor::new();
            let stop = supervisor.stop();
            supervisor.spawn("source", async move {
                stop.cancelled().await;
                drop(sender);
                Ok::<_, Infallible>(())
            });
            let seen = order.clone();
            supervisor.spawn("sink", async move {
                while receiver.recv().await.is_some() {}
                seen.lock().push("sink");
                Ok::<_, Infallible>(())
            });
            let seen = order.clone();
            supervisor.attend("admin", |leave| async move {
                leave.cancelled().await;
                seen.lock().push("admin");
                Ok::<_, Infallible>(())
            });
            supervisor.run(ready("test"), SHORT).await.expect("drains")
        });
        assert_eq!(outcome, Outcome { flushed: true, aborted: vec![] });
        assert_eq!(*order.lock(), ["sink", "admin"]);
    }

    #[test]
    fn a_stuck_task_is_killed_then_aborted() {
        let outcome = run(async {
            let mut supervisor = Supervisor::new();
            let kill = supervisor.kill();
            supervisor.spawn("slow", async move {
                kill.cancelled().await;
                Ok::<_, Infallible>(())
            });
            supervisor.spawn("stuck", pending::<Result<(), Infallible>>());
            supervisor.run(ready("test"), SHORT).await.expect("ends all the same")
        });
        assert_eq!(outcome, Outcome { flushed: false, aborted: vec!["stuck".to_owned()] });
    }
}
