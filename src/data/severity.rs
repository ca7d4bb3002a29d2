//! Severity numbers of the OpenTelemetry log data model: 1–24 in six ranges of four, 0 for unspecified.
//!
//! Source: OpenTelemetry Logs Data Model, "Field: SeverityNumber".

/// A severity number: 1 TRACE, 5 DEBUG, 9 INFO, 13 WARN, 17 ERROR, 21 FATAL; 0 when the line does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Severity(u8);

impl Severity {
    /// The line does not say.
    pub const UNSPECIFIED: Self = Self(0);
    /// Finer than debug.
    pub const TRACE: Self = Self(1);
    /// For developers.
    pub const DEBUG: Self = Self(5);
    /// Something happened.
    pub const INFO: Self = Self(9);
    /// Normal but significant (syslog `notice`).
    pub const NOTICE: Self = Self(10);
    /// Not an error, yet more important than info.
    pub const WARN: Self = Self(13);
    /// Something went wrong.
    pub const ERROR: Self = Self(17);
    /// A critical error in syslog's sense (`crit`): above an error, short of the end.
    pub const CRITICAL: Self = Self(18);
    /// The program ends.
    pub const FATAL: Self = Self(21);

    /// The severity with this OpenTelemetry number; 0 and numbers above 24 are unspecified.
    pub const fn new(number: u8) -> Self {
        if number <= 24 { Self(number) } else { Self(0) }
    }

    /// The OpenTelemetry number, 0 when unspecified.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// True when the line said nothing about its severity.
    pub const fn is_unspecified(self) -> bool {
        self.0 == 0
    }

    /// The range's short lower-case name, as Loki and Grafana spell levels; empty when unspecified.
    pub const fn level(self) -> &'static str {
        match self.0 {
            1..=4 => "trace",
            5..=8 => "debug",
            9..=12 => "info",
            13..=16 => "warn",
            17..=20 => "error",
            21..=24 => "fatal",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_the_names_of_the_data_model() {
        assert_eq!(Severity::new(9).level(), "info");
        assert_eq!(Severity::new(12).level(), "info");
        assert_eq!(Severity::new(24).level(), "fatal");
        assert_eq!(Severity::new(25), Severity::UNSPECIFIED);
        assert_eq!(Severity::UNSPECIFIED.level(), "");
    }
}
