//! Whether a container's lines flow, in one sentence, and what to do when they do not.
//!
//! Pure: everything that is known comes in as [`Facts`]. The causes are tried in the order in which a line meets them.

use super::{Account, Files, Flow, Sink};
use crate::config::memory::Human;
use crate::doctor::status::age;

/// What is known of a container.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// An agent answers.
    pub(super) agent: bool,
    /// Where it was asked.
    pub(super) address: String,
    /// Why its logs are left out, and what to do.
    pub(super) excluded: Option<(String, String)>,
    /// It is a log file of an application, and no container's.
    pub(super) is_file: bool,
    /// Its files.
    pub(super) files: Option<&'a Files>,
    /// What the agent says of it.
    pub(super) account: Option<&'a Account>,
    /// Bytes that were sent between two looks, and seconds between them; where there was a second.
    pub(super) moved: Option<(u64, f64)>,
    /// The sinks.
    pub(super) sinks: &'a [Sink],
}

/// What it comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) flow: Flow,
    pub(super) text: String,
    pub(super) fix: String,
}

fn verdict(flow: Flow, text: impl Into<String>, fix: impl Into<String>) -> Verdict {
    Verdict { flow, text: text.into(), fix: fix.into() }
}

fn count(records: u64) -> String {
    if records == 1 { "1 line".to_owned() } else { format!("{records} lines") }
}

/// The verdict.
pub(super) fn judge(facts: &Facts<'_>) -> Verdict {
    if let Some((why, fix)) = &facts.excluded {
        return verdict(Flow::Stopped, format!("left out: {why}"), fix.as_str());
    }
    if !facts.agent {
        let text = format!("no agent answers at {}", facts.address);
        return verdict(Flow::Stopped, text, "nodewick status; give its address with --address");
    }
    if let Some(refused) = facts.files.and_then(|files| files.refused.as_deref()) {
        return verdict(
            Flow::Stopped,
            format!("its log file is not read: {refused}"),
            if facts.is_file {
                "nodewick doctor says what to do (log-files)"
            } else {
                "nodewick doctor says what to do (log-root, log-links)"
            },
        );
    }
    let Some(account) = facts.account else { return unknown(facts) };
    flow(facts, account)
}

/// On disk, and the agent does not follow it.
fn unknown(facts: &Facts<'_>) -> Verdict {
    match facts.files {
        Some(files) if files.bytes == 0 => verdict(Flow::Idle, "it has written nothing yet", ""),
        Some(files) if files.age_seconds <= 30 => verdict(
            Flow::Stopped,
            "found on disk, and not read yet: it may wait for its labels, ten seconds at most",
            "ask again in a moment; `nodewick doctor` tells whether the Kubernetes API answers",
        ),
        Some(_) if facts.is_file => verdict(
            Flow::Stopped,
            "found on disk, and the agent does not follow it",
            "does the running agent have this source? compare its config, and see its log for this path",
        ),
        Some(_) => verdict(
            Flow::Stopped,
            "found on disk, and the agent does not follow it",
            "does the agent read this directory? compare [logs] root; see its log for this pod's name",
        ),
        None => verdict(
            Flow::Stopped,
            "it has no log file on this node",
            "has the container started? kubectl describe pod",
        ),
    }
}

fn flow(facts: &Facts<'_>, account: &Account) -> Verdict {
    let backlog = account.waiting_bytes + account.in_flight_bytes;
    let dropped: u64 = account.dropped.values().map(|count| count.records).sum();
    let lost: u64 = account.lost.values().map(|count| count.bytes).sum();
    if backlog > 0 {
        return behind(facts, account, backlog);
    }
    if account.delivered_records == 0 && dropped > 0 {
        let rules: Vec<&str> = account.dropped.keys().map(String::as_str).collect();
        let text = format!(
            "all {} since the agent's start were dropped by your rules ({})",
            count(dropped),
            rules.join(", ")
        );
        return verdict(
            Flow::Stopped,
            text,
            "see [process] and the pod's annotations; `nodewick explain` shows which rule takes a line",
        );
    }
    if account.delivered_records == 0 && lost > 0 {
        return verdict(
            Flow::Stopped,
            "its lines were lost, see below",
            "docs/how-to/ledger.md#when-bytes-are-lost",
        );
    }
    if account.written_bytes == 0 {
        return match facts.files {
            Some(files) if files.bytes > 0 => verdict(
                Flow::Flowing,
                format!(
                    "up to date; nothing new since the agent's start, last written {} ago",
                    age(files.age_seconds)
                ),
                "",
            ),
            _ => verdict(Flow::Idle, "it has written nothing yet", ""),
        };
    }
    let ended = if account.gone { "; its files are gone from the node" } else { "" };
    verdict(
        Flow::Flowing,
        format!("flowing: {} sent, none waiting{ended}", count(account.delivered_records)),
        "",
    )
}

/// Something waits: it moves, or something holds it.
fn behind(facts: &Facts<'_>, account: &Account, backlog: u64) -> Verdict {
    let left = match account.time_to_loss_seconds {
        Some(seconds) if account.generation_lag > 0 => {
            format!("; the oldest is deleted in {} at this rate", age(seconds as u64))
        }
        _ => String::new(),
    };
    if let Some((sent, seconds)) = facts.moved.filter(|(sent, _)| *sent > 0) {
        let rate = Human((sent as f64 / seconds.max(0.001)) as u64);
        let text = format!(
            "flowing: {} sent, {} behind, {rate}/s{left}",
            count(account.delivered_records),
            Human(backlog)
        );
        return verdict(Flow::Flowing, text, "");
    }
    let cause =
        facts.sinks.iter().find(|sink| !sink.up).or_else(|| facts.sinks.iter().find(|sink| is_fresh(sink)));
    let text = format!("held: {} wait{left}", Human(backlog));
    match cause {
        Some(sink) => {
            let said = sink.refusal.as_ref().map_or_else(String::new, |(text, _)| format!(": {text}"));
            let fix = if said.contains("Per stream rate limit") {
                "raise per_stream_rate_limit in Loki's limits_config, or reduce the container by [process]"
            } else {
                "nodewick doctor says where the backend fails; nothing is lost while it is kept on disk"
            };
            verdict(Flow::Stopped, format!("{text}; {} takes nothing{said}", sink.name), fix)
        }
        None => verdict(
            Flow::Stopped,
            text,
            "is it a line without its end, or a trace held together ([logs.multiline])? ask again in some seconds; then nodewick status",
        ),
    }
}

/// The sink refused something within the last minute.
fn is_fresh(sink: &Sink) -> bool {
    sink.refusal.as_ref().is_some_and(|(_, seconds)| *seconds <= 60)
}

#[cfg(test)]
mod tests {
    use super::super::Count;
    use super::*;

    fn facts<'a>(account: Option<&'a Account>, files: Option<&'a Files>, sinks: &'a [Sink]) -> Facts<'a> {
        Facts { agent: true, address: "127.0.0.1:9464".into(), account, files, sinks, ..Facts::default() }
    }

    fn told(facts: &Facts<'_>) -> (Flow, String) {
        let found = judge(facts);
        (found.flow, found.text)
    }

    #[test]
    fn lines_that_are_all_sent_flow() {
        let account =
            Account { written_bytes: 90, sent_bytes: 90, delivered_records: 1, ..Account::default() };
        assert_eq!(
            told(&facts(Some(&account), None, &[])),
            (Flow::Flowing, "flowing: 1 line sent, none waiting".into())
        );
        let quiet = Account::default();
        let files = Files { count: 1, bytes: 10, age_seconds: 90, refused: None };
        assert_eq!(
            told(&facts(Some(&quiet), Some(&files), &[])),
            (
                Flow::Flowing,
                "up to date; nothing new since the agent's start, last written 1m 30s ago".into()
            )
        );
        assert_eq!(
            told(&facts(Some(&quiet), Some(&Files::default()), &[])),
            (Flow::Idle, "it has written nothing yet".into())
        );
    }

    #[test]
    fn a_backlog_flows_while_it_shrinks_and_else_names_who_holds_it() {
        let account = Account {
            written_bytes: 4096,
            waiting_bytes: 2048,
            delivered_records: 7,
            generation_lag: 1,
            time_to_loss_seconds: Some(120.0),
            ..Account::default()
        };
        let mut moving = facts(Some(&account), None, &[]);
        moving.moved = Some((1024, 1.0));
        assert_eq!(
            told(&moving),
            (
                Flow::Flowing,
                "flowing: 7 lines sent, 2 KiB behind, 1 KiB/s; the oldest is deleted in 2m at this rate"
                    .into()
            )
        );
        let limited = [Sink {
            name: "loki.main".into(),
            up: true,
            refusal: Some(("status 429: Per stream rate limit exceeded (limit: 3MB/sec)".into(), 3)),
        }];
        let found = judge(&facts(Some(&account), None, &limited));
        assert_eq!(
            found.text,
            "held: 2 KiB wait; the oldest is deleted in 2m at this rate; loki.main takes nothing: status 429: Per stream rate limit \
             exceeded (limit: 3MB/sec)"
        );
        assert!(found.fix.starts_with("raise per_stream_rate_limit"), "{}", found.fix);
    }

    #[test]
    fn what_is_dropped_or_left_out_does_not_flow() {
        let mut account = Account { written_bytes: 90, ..Account::default() };
        account.dropped.insert("sample".into(), Count { records: 3, bytes: 90 });
        assert_eq!(
            told(&facts(Some(&account), None, &[])),
            (Flow::Stopped, "all 3 lines since the agent's start were dropped by your rules (sample)".into())
        );
        let mut excluded = facts(Some(&account), None, &[]);
        excluded.excluded = Some(("annotation nodewick.dev/logs = \"off\"".into(), "remove it".into()));
        assert_eq!(
            told(&excluded),
            (Flow::Stopped, "left out: annotation nodewick.dev/logs = \"off\"".into())
        );
    }

    #[test]
    fn what_is_not_followed_says_so() {
        let old = Files { count: 1, bytes: 10, age_seconds: 90, refused: None };
        assert_eq!(told(&facts(None, Some(&old), &[])).1, "found on disk, and the agent does not follow it");
        let refused = Files { refused: Some("not a regular file".into()), ..old };
        assert_eq!(told(&facts(None, Some(&refused), &[])).1, "its log file is not read: not a regular file");
        let silent = Facts { agent: false, address: "127.0.0.1:9464".into(), ..Facts::default() };
        assert_eq!(told(&silent).1, "no agent answers at 127.0.0.1:9464");
    }
}
