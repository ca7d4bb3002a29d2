//! The answer as a person and a program read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Answer, Container, Count, Flow, Lines, metrics};
use crate::config::memory::Human;
use crate::doctor::status::age;
use crate::doctor::{Colour, Status, printable};

impl Answer {
    /// The answer for people.
    pub fn text(&self, colour: Colour) -> String {
        let mut out = String::new();
        if let Some(note) = &self.note {
            for (at, line) in note.lines().enumerate() {
                let mark =
                    if self.pods.is_empty() { colour.paint(Status::Failure, "×") } else { colour.dim("·") };
                let _ = writeln!(out, "{} {}", if at == 0 { mark } else { " ".to_owned() }, printable(line));
            }
        }
        for (at, name) in self.did_you_mean.iter().enumerate() {
            let head = if at == 0 { "did you mean" } else { "" };
            let _ = writeln!(out, "  {head:12} {}", printable(name));
        }
        for (at, pod) in self.pods.iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            let full_name = printable(&format!("{}/{}", pod.namespace, pod.name));
            if let Some(source) = &pod.source {
                let of =
                    if pod.name.is_empty() { String::new() } else { colour.dim(&format!(" {full_name}")) };
                let _ = writeln!(out, "{}{of}", colour.bold(&printable(&format!("[logs.files.{source}]"))));
            } else {
                let name = colour.bold(&full_name);
                let older = if at > 0 { ", an older pod of this name" } else { "" };
                let _ =
                    writeln!(out, "{name} {}", colour.dim(&format!("uid {}{older}", printable(&pod.uid))));
            }
            for note in &pod.notes {
                let _ = writeln!(
                    out,
                    "{} {}",
                    colour.paint(Status::Warning, Status::Warning.mark()),
                    printable(note)
                );
            }
            for container in &pod.containers {
                container.write(&mut out, colour);
            }
            for target in &pod.metrics {
                metrics::write(target, &mut out, colour);
            }
        }
        for sink in self.sinks.iter().filter(|sink| !sink.up) {
            let said = sink
                .refusal
                .as_ref()
                .map_or_else(String::new, |(text, seconds)| format!(": {text} ({} ago)", age(*seconds)));
            let mark = colour.paint(Status::Failure, Status::Failure.mark());
            let _ = writeln!(out, "{mark} {} is down{}", printable(&sink.name), printable(&said));
        }
        out
    }

    /// The answer for programs.
    pub fn json(&self) -> String {
        format!("{:#}\n", serde_json::to_value(self).unwrap_or_default())
    }
}

impl Container {
    fn write(&self, out: &mut String, colour: Colour) {
        let status = match self.flow {
            Flow::Flowing => Status::Ok,
            Flow::Idle => Status::Warning,
            Flow::Stopped => Status::Failure,
        };
        let mark = colour.paint(status, status.mark());
        let _ = writeln!(out, "{mark} {}: {}", printable(&self.name), printable(&self.verdict));
        let mut row = |name: &str, text: String| {
            let _ = writeln!(out, "    {} {}", colour.dim(&format!("{name:9}")), printable(&text));
        };
        for (at, line) in self.fix.lines().enumerate() {
            row(if at == 0 { "do" } else { "" }, line.to_owned());
        }
        if let Some(files) = &self.files {
            let noun = if files.count == 1 { "file" } else { "files" };
            let restart =
                if self.restart > 0 { format!(", restart {}", self.restart) } else { String::new() };
            row(
                "on disk",
                format!(
                    "{} {noun}, {}, last written {} ago{restart}",
                    files.count,
                    Human(files.bytes),
                    age(files.age_seconds)
                ),
            );
        }
        if let Some(account) = &self.account {
            row(
                "read",
                format!(
                    "{} written, {} sent, {} in flight, {} waiting{}",
                    Human(account.written_bytes),
                    Human(account.sent_bytes),
                    Human(account.in_flight_bytes),
                    Human(account.waiting_bytes),
                    if account.spilled_bytes > 0 {
                        format!(" ({} of it spilled)", Human(account.spilled_bytes))
                    } else {
                        String::new()
                    },
                ),
            );
            if !account.service_name.is_empty() {
                let guess = if account.service_name_guessed { " (guessed from the pod's name)" } else { "" };
                let environment = account
                    .environment
                    .as_ref()
                    .map(|name| format!(", environment {name}"))
                    .unwrap_or_default();
                let tenant =
                    account.tenant.as_ref().map(|name| format!(", tenant {name}")).unwrap_or_default();
                row("service", format!("{}{guess}{environment}{tenant}", account.service_name));
            }
            let recorded = account.dropped.get("recorder").map_or(0, |count| count.records);
            if account.held_records + account.released_records + recorded > 0 {
                row(
                    "recorder",
                    format!(
                        "{} debug lines held back ({}), {} released, {recorded} dropped when their time was over",
                        account.held_records,
                        Human(account.held_bytes),
                        account.released_records,
                    ),
                );
            }
            if !account.dropped.is_empty() {
                row("dropped", counts(&account.dropped));
            }
            if !account.lost.is_empty() {
                row("lost", format!("{}; docs/how-to/ledger.md#when-bytes-are-lost", counts(&account.lost)));
            }
        }
        if let Some(lines) = &self.lines {
            row("lines", shape(lines));
        }
        for letters in &self.dead_letters {
            row(
                "refused",
                format!(
                    "{} lines by {} for good, {}: {}",
                    letters.count, letters.sink, letters.reason, letters.message
                ),
            );
        }
        if let Some(logql) = &self.logql {
            row("find", logql.clone());
        }
        if let Some(curl) = &self.curl {
            row("", curl.clone());
        }
    }
}

/// Counts by reason.
fn counts(reasons: &BTreeMap<String, Count>) -> String {
    let shown: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| {
            if count.records > 0 {
                format!("{} lines ({reason})", count.records)
            } else {
                format!("{} ({reason})", Human(count.bytes))
            }
        })
        .collect();
    shown.join(", ")
}

/// Format and coverage of the last lines.
fn shape(lines: &Lines) -> String {
    let mut formats: Vec<(&str, u64)> = lines.formats.iter().map(|(name, count)| (*name, *count)).collect();
    formats.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let names: Vec<&str> = formats.iter().map(|(name, _)| *name).collect();
    let share = |count: u64| format!("{}%", count * 100 / lines.seen.max(1));
    let mut text = format!(
        "{}; of the last {}: level {}, trace id {}, request id {}",
        names.join(", "),
        lines.seen,
        share(lines.level),
        share(lines.trace_id),
        share(lines.request_id)
    );
    if lines.trace_id == 0 {
        text.push_str(" (no trace can be followed to these lines)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Account, Files, Pod, Sink};
    use super::*;

    #[test]
    fn an_answer_fits_a_screen_and_shows_the_verdict_first() {
        let account = Account {
            written_bytes: 2048,
            sent_bytes: 2048,
            delivered_records: 12,
            service_name: "checkout".into(),
            service_name_guessed: true,
            ..Account::default()
        };
        let container = Container {
            name: "api".into(),
            restart: 2,
            flow: Flow::Flowing,
            verdict: "flowing: 12 lines sent, none waiting".into(),
            fix: String::new(),
            files: Some(Files { count: 1, bytes: 2048, age_seconds: 3, refused: None }),
            account: Some(account),
            lines: Some(Lines {
                seen: 12,
                formats: [("JSON", 12)].into(),
                level: 12,
                trace_id: 6,
                request_id: 0,
            }),
            dead_letters: Vec::new(),
            logql: Some("{namespace=\"shop\"}".into()),
            curl: None,
        };
        let pod = Pod {
            namespace: "shop".into(),
            name: "checkout-0".into(),
            uid: "u1".into(),
            source: None,
            notes: Vec::new(),
            metrics: Vec::new(),
            containers: vec![container],
        };
        let sinks = vec![Sink { name: "loki.main".into(), up: true, refusal: None }];
        let answer = Answer { flowing: true, pods: vec![pod], sinks, note: None, did_you_mean: Vec::new() };
        assert_eq!(
            answer.text(Colour(false)),
            "shop/checkout-0 uid u1\n\
             √ api: flowing: 12 lines sent, none waiting\n\
             \u{20}   on disk   1 file, 2 KiB, last written 3s ago, restart 2\n\
             \u{20}   read      2 KiB written, 2 KiB sent, 0B in flight, 0B waiting\n\
             \u{20}   service   checkout (guessed from the pod's name)\n\
             \u{20}   lines     JSON; of the last 12: level 100%, trace id 50%, request id 0%\n\
             \u{20}   find      {namespace=\"shop\"}\n"
        );
        assert_eq!(answer.json().matches("\"flow\": \"flowing\"").count(), 1);
    }
}
