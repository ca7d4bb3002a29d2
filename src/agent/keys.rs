//! Which keys a reload cannot change, and why: the one table of them.
//!
//! In: the running config and a new one. Out: the new one with the running values of these keys, and what was put
//! back. Every key that is not here takes effect at once. `docs/how-to/reload.md` shows the table; a test compares.

use crate::config::Config;

/// A key, or a whole section (`telemetry.*`), whose change waits for a restart.
#[derive(Debug)]
pub struct Row {
    /// The key as people write it.
    pub key: &'static str,
    /// Why it cannot change while the process lives.
    pub why: &'static str,
    /// Puts the running value into the new config; true when it had changed.
    keep: fn(&Config, &mut Config) -> bool,
}

/// Puts the running value back.
fn keep<T: PartialEq + Clone>(running: &T, new: &mut T) -> bool {
    let changed = running != new;
    if changed {
        new.clone_from(running);
    }
    changed
}

/// Every key that a reload leaves as it is.
pub const RESTART_ONLY: &[Row] = &[
    Row {
        key: "agent.state_dir",
        why: "its lock is held, and the positions and spilled lines in it are in use",
        keep: |running, new| keep(&running.agent.state_dir, &mut new.agent.state_dir),
    },
    Row {
        key: "agent.landlock",
        why: "what the process has given up it cannot take back",
        keep: |running, new| keep(&running.agent.landlock, &mut new.agent.landlock),
    },
    Row {
        key: "admin.listen",
        why: "probes must be answered without a gap, and hardening allows the process no other port",
        keep: |running, new| keep(&running.admin.listen, &mut new.admin.listen),
    },
    Row {
        key: "admin.workloads",
        why: "the listener's pages are set up with it",
        keep: |running, new| keep(&running.admin.workloads, &mut new.admin.workloads),
    },
    Row {
        key: "ui.*",
        why: "who looks at the page must not lose it, and hardening allows the process no other port",
        keep: |running, new| keep(&running.ui, &mut new.ui),
    },
    Row {
        key: "telemetry.*",
        why: "the agent's own logs are set up before everything else",
        keep: |running, new| keep(&running.telemetry, &mut new.telemetry),
    },
];

/// Puts the running values of [`RESTART_ONLY`] into `new`; the rows that had changed.
pub fn keep_running(running: &Config, new: &mut Config) -> Vec<&'static Row> {
    RESTART_ONLY.iter().filter(|row| (row.keep)(running, new)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_keeps_its_running_value_and_is_named() {
        let running = Config::default();
        let mut new = Config::default();
        new.agent.state_dir = "/elsewhere".into();
        new.agent.cluster = "b".into();
        new.telemetry.log = "debug".into();
        let rows: Vec<_> = keep_running(&running, &mut new).iter().map(|row| row.key).collect();
        assert_eq!(rows, ["agent.state_dir", "telemetry.*"]);
        assert_eq!(new.agent.state_dir, running.agent.state_dir);
        assert_eq!(new.telemetry, running.telemetry);
        assert_eq!(new.agent.cluster, "b", "the rest holds");
        assert!(keep_running(&running, &mut new).is_empty());
    }

    #[test]
    fn the_table_stands_in_the_documentation() {
        let page = include_str!("../../docs/how-to/reload.md");
        for row in RESTART_ONLY {
            assert!(page.contains(&format!("| `{}` | {} |", row.key, row.why)), "{} is not shown", row.key);
        }
        assert_eq!(
            page.matches("\n| `").count(),
            RESTART_ONLY.len(),
            "the page shows keys that are not in the table"
        );
    }
}
