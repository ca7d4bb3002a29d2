//! Findings, and how a person and a program read them.

use std::fmt::Write as _;

use serde::Serialize;

/// How a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, and deserves a look.
    Warning,
    /// Must be mended.
    Failure,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check that found it.
    pub check: &'static str,
    /// What it is about where the check looks at several things: `loki.main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How it is.
    pub status: Status,
    /// What is found, one sentence without a full stop.
    pub text: String,
    /// What to do: lines of words, commands or YAML.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<String>,
}

impl Finding {
    fn new(status: Status, text: impl Into<String>) -> Self {
        Self { check: "", subject: None, status, text: text.into(), fix: Vec::new() }
    }

    /// As it should be.
    pub(super) fn ok(text: impl Into<String>) -> Self {
        Self::new(Status::Ok, text)
    }

    /// Works, and deserves a look; `fix` may have several lines.
    pub(super) fn warning(text: impl Into<String>, fix: &str) -> Self {
        Self::new(Status::Warning, text).with_fix(fix)
    }

    /// Must be mended; `fix` may have several lines.
    pub(super) fn failure(text: impl Into<String>, fix: &str) -> Self {
        Self::new(Status::Failure, text).with_fix(fix)
    }

    /// About one of several things.
    pub(super) fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    fn with_fix(mut self, fix: &str) -> Self {
        self.fix = fix.lines().map(str::to_owned).collect();
        self
    }
}

/// Everything that was found, in the order of the table of checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub bool);

impl Colour {
    /// Colours when standard output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self(wanted && std::io::IsTerminal::is_terminal(&std::io::stdout()))
    }

    /// `text` in the colour of a status.
    pub fn paint(self, status: Status, text: &str) -> String {
        let code = match status {
            Status::Ok => "32",
            Status::Warning => "33",
            Status::Failure => "31",
        };
        self.code(code, text)
    }

    /// `text` as what matters less.
    pub fn dim(self, text: &str) -> String {
        self.code("2", text)
    }

    /// `text` as a heading.
    pub fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Status {
    /// Its mark at the beginning of a line.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Ok => "√",
            Self::Warning => "‼",
            Self::Failure => "×",
        }
    }
}

impl Report {
    /// True when nothing fails.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.status != Status::Failure)
    }

    fn count(&self, status: Status) -> usize {
        self.findings.iter().filter(|finding| finding.status == status).count()
    }

    /// The report for people.
    pub fn text(&self, colour: Colour) -> String {
        let label = |finding: &Finding| finding.subject.clone().unwrap_or_else(|| finding.check.to_owned());
        let width = self.findings.iter().map(|finding| label(finding).chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for finding in &self.findings {
            let mark = colour.paint(finding.status, finding.status.mark());
            let _ = writeln!(out, "{mark} {:width$}  {}", label(finding), printable(&finding.text));
            for (at, line) in finding.fix.iter().enumerate() {
                let arrow = if at == 0 { "→" } else { " " };
                let _ = writeln!(out, "  {:width$}  {arrow} {}", "", colour.dim(&printable(line)));
            }
        }
        let failed = self.count(Status::Failure);
        let warned = self.count(Status::Warning);
        let fine = self.count(Status::Ok);
        let warnings = several(warned, "warning");
        let _ = write!(out, "\n{fine} fine, {warnings}, {failed} failed");
        let found = self.findings.iter().rev().filter(|finding| finding.status != Status::Ok);
        // Of equals the last counts, which is the first of the report.
        let worst = found.max_by_key(|finding| finding.status);
        if let Some(worst) = worst {
            let _ = write!(out, "; more: docs/reference/doctor.md#{}", worst.check);
        }
        out.push('\n');
        out
    }

    /// The report for programs.
    pub fn json(&self) -> String {
        let answer = serde_json::json!({"ok": self.is_ok(), "findings": self.findings});
        format!("{answer:#}\n")
    }
}

/// A count with its noun.
pub(super) fn several(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Text of others, on one line and without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if crate::tail::is_unsafe(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut findings = vec![
            Finding::ok("agent.toml"),
            Finding::warning("slow\u{1b}[31m", "wait").about("loki.main"),
            Finding::failure("gone", "first\n  second"),
        ];
        for (finding, check) in findings.iter_mut().zip(["config", "sinks", "log-root"]) {
            finding.check = check;
        }
        Report { findings }
    }

    #[test]
    fn a_report_is_a_list_with_what_to_do() {
        assert_eq!(
            report().text(Colour(false)),
            "√ config     agent.toml\n\
             ‼ loki.main  slow\u{fffd}[31m\n\
             \u{20}            → wait\n\
             × log-root   gone\n\
             \u{20}            → first\n\
             \u{20}                second\n\
             \n\
             1 fine, 1 warning, 1 failed; more: docs/reference/doctor.md#log-root\n"
        );
        assert!(!report().is_ok());
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        assert!(report().text(Colour(true)).starts_with("\u{1b}[32m√\u{1b}[0m config"));
        assert!(!report().text(Colour(false)).contains('\u{1b}'));
    }

    #[test]
    fn programs_get_the_same_as_json() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).expect("JSON");
        assert_eq!(json["ok"], false);
        assert_eq!(
            json["findings"][2],
            serde_json::json!({"check": "log-root", "status": "failure", "text": "gone", "fix": ["first", "  second"]})
        );
        assert_eq!(json["findings"][1]["subject"], "loki.main");
    }
}
