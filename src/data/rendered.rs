//! A file that was made of declarations: rules, dashboards, pages.

/// Where it belongs, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path below the directory that was asked for.
    pub path: String,
    /// Its text.
    pub text: String,
}
