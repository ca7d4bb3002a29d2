//! The check of the node's clock, by what others say the time is.

use super::{Check, Finding, Site, Stage};
use crate::data::clock;

pub(super) const CLOCK: Check = Check {
    name: "clock",
    looks_at: "This node's clock against the `Date` header of the backends and of the Kubernetes API.",
    means: "More than 5 s apart: lines get wrong times, Loki refuses what is 10 minutes ahead, certificates seem not yet or \
            no more valid. Set up NTP on the node (chrony, systemd-timesyncd), or on the backend if the others agree.",
    pre: true,
    stage: Stage::Last,
    run: clock,
};

/// Seconds that clocks may differ.
const TOLERANCE: f64 = 5.0;

/// A clock that was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Whose.
    pub(super) whose: String,
    /// How far it is ahead of ours, seconds.
    pub(super) ahead: f64,
}

fn now() -> f64 {
    clock::since_epoch().as_secs_f64()
}

impl Site {
    /// Takes note of a `Date` header that answers a request sent `took` seconds ago.
    pub(super) fn saw_clock(&self, whose: &str, date: &str, took: f64) {
        let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
        if let Ok(at) = parser.parse_timestamp(date.trim()) {
            // The header has whole seconds, cut off; it was written some time while we waited.
            let ahead = at.as_second() as f64 + 0.5 - (now() - took / 2.0);
            self.clocks.lock().push(Seen { whose: whose.to_owned(), ahead });
        }
    }
}

fn clock(site: &Site) -> Vec<Finding> {
    judge(&site.clocks.lock()).into_iter().collect()
}

fn judge(clocks: &[Seen]) -> Option<Finding> {
    let worst = clocks.iter().max_by(|a, b| a.ahead.abs().total_cmp(&b.ahead.abs()))?;
    let mut whose: Vec<&str> = clocks.iter().map(|seen| seen.whose.as_str()).collect();
    whose.sort_unstable();
    if worst.ahead.abs() <= TOLERANCE {
        return Some(Finding::ok(format!("agrees with {}", whose.join(", "))));
    }
    let apart = crate::data::units::Span(std::time::Duration::from_secs(worst.ahead.abs().round() as u64));
    let direction = if worst.ahead > 0.0 { "behind" } else { "ahead of" };
    let others = clocks.iter().filter(|seen| (seen.ahead - worst.ahead).abs() > TOLERANCE).count();
    let fix = if others > 0 {
        "the others agree with this node: set up NTP where that clock runs"
    } else {
        "set up NTP on the node: `timedatectl set-ntp true`, or chrony; see `timedatectl status`"
    };
    Some(Finding::warning(format!("this node is {apart} {direction} {}", worst.whose), fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(whose: &str, ahead: f64) -> Seen {
        Seen { whose: whose.to_owned(), ahead }
    }

    #[test]
    fn clocks_may_differ_by_five_seconds() {
        assert_eq!(judge(&[]), None);
        let text = |clocks: &[Seen]| judge(clocks).map(|finding| (finding.text, finding.fix.join(" ")));
        let fine = text(&[seen("loki.main", 4.9), seen("the API server", -1.0)]);
        assert_eq!(fine, Some(("agrees with loki.main, the API server".to_owned(), String::new())));
        let (behind, fix) = text(&[seen("loki.main", 3600.2)]).expect("a finding");
        assert_eq!(behind, "this node is 1h behind loki.main");
        assert!(fix.starts_with("set up NTP on the node"), "{fix}");
        let (ahead, fix) = text(&[seen("loki.main", -90.0), seen("the API server", 0.3)]).expect("a finding");
        assert_eq!(ahead, "this node is 90s ahead of loki.main");
        assert!(fix.starts_with("the others agree"), "{fix}");
    }
}
