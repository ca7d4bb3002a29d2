//! Which records a person wants to see, asked of stored records and of those on their way.
//!
//! In: the parts of a question, and a record: stored ([`Entry`]) or in a batch. Out: whether it is to be shown.
//! Invariant: a record and its stored form get the same answer, but for fields that the config keeps from leaving the node.

use memchr::memmem;
use regex::Regex;

use super::Entry;
use crate::data::batch::{Batch, Record};
use crate::data::severity::Severity;
use crate::data::workload::Workload;

/// Which records to show. The default shows all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Exactly this namespace.
    pub namespace: Option<String>,
    /// The service's name contains this.
    pub service: Option<String>,
    /// `namespace/service/container` or `pod/container` contains this.
    pub selector: Option<String>,
    /// At least this level; lines without a level are then left out.
    pub level: Option<Severity>,
    /// The trace id begins with this, in lower case.
    pub trace: Option<String>,
    /// The line matches this.
    pub grep: Option<Regex>,
    /// The pod's name contains this.
    pub pod: Option<String>,
    /// Exactly this container.
    pub container: Option<String>,
    /// Not older than this, nanoseconds since the epoch.
    pub since_unix_nano: Option<u64>,
    /// Not newer than this, nanoseconds since the epoch.
    pub until_unix_nano: Option<u64>,
}

impl Filter {
    /// True when `entry` is to be shown.
    pub fn accepts(&self, entry: &Entry<'_>) -> bool {
        let Entry { namespace, pod, container, service_name, .. } = entry;
        self.accepts_names(namespace, pod, container, service_name)
            && self.level.is_none_or(|least| entry.severity() >= least)
            && self.trace.as_ref().is_none_or(|wanted| entry.trace_id.starts_with(wanted.as_str()))
            && (self.is_timeless()
                || entry.time_unix_nano().is_some_and(|time_unix_nano| self.accepts_time(time_unix_nano)))
            && self.grep.as_ref().is_none_or(|wanted| wanted.is_match(&entry.line))
    }

    /// True when records of `workload` may be to be shown.
    pub fn accepts_workload(&self, workload: &Workload) -> bool {
        let container = &workload.container;
        self.accepts_names(&container.namespace, &container.pod, &container.container, &workload.service_name)
    }

    /// True when a record of a workload that [is accepted](Self::accepts_workload) is to be shown.
    pub fn accepts_record(&self, batch: &Batch, record: &Record) -> bool {
        // As it is spelled when it is stored: by the name of the level, not by its finer number.
        let severity = || super::reader::severity_of(record.severity.level()).unwrap_or_default();
        let traced =
            |wanted: &String| record.trace_id.is_some_and(|id| id.hex().starts_with(wanted.as_bytes()));
        self.level.is_none_or(|least| severity() >= least)
            && self.trace.as_ref().is_none_or(traced)
            && self.accepts_time(record.time_unix_nano)
            && self
                .grep
                .as_ref()
                .is_none_or(|wanted| wanted.is_match(&String::from_utf8_lossy(batch.body(record))))
    }

    fn is_timeless(&self) -> bool {
        self.since_unix_nano.is_none() && self.until_unix_nano.is_none()
    }

    fn accepts_time(&self, time_unix_nano: u64) -> bool {
        self.since_unix_nano.is_none_or(|since| time_unix_nano >= since)
            && self.until_unix_nano.is_none_or(|until| time_unix_nano <= until)
    }

    fn accepts_names(&self, namespace: &str, pod: &str, container: &str, service: &str) -> bool {
        let selected = |wanted: &String| {
            format!("{namespace}/{service}/{container}").contains(wanted.as_str())
                || format!("{pod}/{container}").contains(wanted.as_str())
        };
        self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.service.as_ref().is_none_or(|wanted| service.contains(wanted.as_str()))
            && self.pod.as_ref().is_none_or(|wanted| pod.contains(wanted.as_str()))
            && self.container.as_ref().is_none_or(|wanted| wanted == container)
            && self.selector.as_ref().is_none_or(selected)
    }

    /// Parses `line` and returns its record if it is to be shown.
    pub(super) fn pick<'a>(&self, line: &'a [u8]) -> Option<Entry<'a>> {
        if let Some(trace) = &self.trace
            && memmem::find(line, trace.as_bytes()).is_none()
        {
            return None;
        }
        Entry::parse(line).filter(|entry| self.accepts(entry))
    }
}
