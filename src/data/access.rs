//! What log lines say about served requests: the way from logs to RED.
//!
//! `logs` finds the requests in the lines that it reads anyway and hands them over a stretch at a time, with the position
//! up to which the log is counted. `red` counts, and keeps counts and positions together, so that a line that is read a
//! second time (after a crash, a reload, or because delivery had been blocked) is never counted a second time.
//!
//! What is counted is made durable by `red` when it likes, later than the checkpoint of what is delivered. After a crash
//! `logs` therefore reads again, for their requests alone, lines that are delivered and behind the counted position; where
//! they are gone from disk by then it says so ([`RED_MISSED`](crate::metrics::RED_MISSED)).

use std::sync::Arc;

use super::batch::Span;
use super::position::Position;
use super::trace::TraceId;
use super::workload::Workload;

/// What a request's line says of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// It has begun: fastify's `incoming request`, which alone names method and path.
    Begun,
    /// It was answered.
    #[default]
    Done,
    /// The client went away before it was answered.
    Aborted,
}

/// What one line says about a request. Text lies in the text handed over with it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Request {
    /// When the line was written, nanoseconds since the epoch.
    pub time_unix_nano: u64,
    /// Where the line begins in its file.
    pub offset: u64,
    /// Whether it has ended.
    pub phase: Phase,
    /// Method as written, empty when absent.
    pub method: Span,
    /// Route template, or path with its ids replaced; empty when absent.
    pub route: Span,
    /// Response status, 0 when absent.
    pub status: u16,
    /// How long it took, nanoseconds; `None` when the line does not say.
    pub duration_nano: Option<u64>,
    /// Request id, empty when absent.
    pub request_id: Span,
    /// Trace id of the line.
    pub trace_id: Option<TraceId>,
}

/// Takes requests found in logs. Called by the thread that reads logs, so it never blocks for long.
pub trait AccessTap: Send {
    /// Up to where the log `key` has been counted, by this life of the agent or an earlier one.
    fn counted(&self, key: &str) -> Option<Position>;

    /// True when counts of an earlier life were taken up: a log that [`counted`](Self::counted) does not know was begun
    /// after these were saved, so none of it is counted.
    fn is_resumed(&self) -> bool {
        false
    }

    /// Counts the `requests` of a stretch of the log `key`, whose text lies in `text`; from now on the log is counted up
    /// to `until`. Called with no request too, so that the position moves.
    fn count(
        &mut self,
        key: &Arc<str>,
        workload: &Arc<Workload>,
        requests: &[Request],
        text: &[u8],
        until: Position,
    );

    /// How far counting is behind the newest line of the log, in nanoseconds of the log's own time; 0 when it is not.
    fn lag(&mut self, key: &str, workload: &Arc<Workload>, nanos: u64);

    /// Logs of which `is_there` says no are gone.
    fn forget(&mut self, is_there: &dyn Fn(&str) -> bool);
}
