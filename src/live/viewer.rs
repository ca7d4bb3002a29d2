//! One viewer's bounded queue.
//!
//! In: lines, from the thread that reads logs. Out: the same lines in order, and in their place the number of those that
//! were left out. Invariant: at most [`QUEUE_BYTES`] wait; what comes beyond drops the oldest, and is told.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{ENTRY_BYTES, Hub, QUEUE_BYTES};
use crate::sink::local::Filter;

/// What a viewer gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record as one JSON object, without a newline.
    Line(Bytes),
    /// So many records were left out here: the viewer, or the hub, was too slow. Of those that nobody had time to look
    /// at some may not have been for this viewer.
    Skipped(u64),
}

pub(super) struct Viewer {
    pub(super) filter: Filter,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// Left out before the first item.
    skipped: u64,
    closed: bool,
}

impl Viewer {
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, queue: Mutex::default(), filled: Notify::new() }
    }

    /// Queues lines, and behind them that `skipped` records were not looked at.
    pub(super) fn push(&self, lines: impl Iterator<Item = Bytes>, skipped: u64) {
        let mut queue = self.queue.lock();
        let before = queue.items.len();
        for line in lines {
            queue.bytes += line.len() + ENTRY_BYTES;
            queue.items.push_back(Item::Line(line));
        }
        if skipped > 0 {
            match queue.items.back_mut() {
                Some(Item::Skipped(known)) => *known += skipped,
                _ => queue.items.push_back(Item::Skipped(skipped)),
            }
        }
        let changed = skipped > 0 || queue.items.len() > before;
        while queue.bytes > QUEUE_BYTES
            && let Some(oldest) = queue.items.pop_front()
        {
            match oldest {
                Item::Line(line) => {
                    queue.bytes -= line.len() + ENTRY_BYTES;
                    queue.skipped += 1;
                }
                Item::Skipped(more) => queue.skipped += more,
            }
        }
        drop(queue);
        if changed {
            self.filled.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_one();
    }

    /// The next item; an error when there is none yet, with whether one may come.
    fn pop(&self) -> Result<Item, bool> {
        let mut queue = self.queue.lock();
        if queue.skipped > 0 {
            let mut skipped = std::mem::take(&mut queue.skipped);
            if let Some(Item::Skipped(more)) = queue.items.front() {
                skipped += more;
                queue.items.pop_front();
            }
            return Ok(Item::Skipped(skipped));
        }
        let closed = queue.closed;
        let item = queue.items.pop_front().ok_or(!closed)?;
        if let Item::Line(line) = &item {
            queue.bytes -= line.len() + ENTRY_BYTES;
        }
        Ok(item)
    }
}

/// A viewer's end of the hub. Dropping it ends the watching.
pub struct Subscription {
    hub: Hub,
    viewer: Arc<Viewer>,
}

impl Subscription {
    pub(super) fn new(hub: Hub, viewer: Arc<Viewer>) -> Self {
        Self { hub, viewer }
    }

    /// The next line, or how many were left out; `None` at the end. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            match self.viewer.pop() {
                Ok(item) => return Some(item),
                Err(false) => return None,
                Err(true) => self.viewer.filled.notified().await,
            }
        }
    }

    /// What is there already.
    pub fn try_next(&mut self) -> Option<Item> {
        self.viewer.pop().ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.leave(&self.viewer);
    }
}
