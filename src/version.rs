//! What was built: for `nodewick version` and `nodewick_build_info`.

use std::sync::LazyLock;

/// Facts about this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// Version of the crate.
    pub version: &'static str,
    /// Git revision, where the build was told (`NODEWICK_GIT_HASH`).
    pub revision: Option<&'static str>,
    /// Version of the compiler.
    pub rustc: &'static str,
}

/// This build.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: option_env!("NODEWICK_GIT_HASH"),
    rustc: env!("NODEWICK_RUSTC"),
};

/// `0.1.0 (1a2b3c4, rustc 1.95.0)`.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| match BUILD.revision {
        Some(revision) => format!("{} ({revision}, rustc {})", BUILD.version, BUILD.rustc),
        None => format!("{} (rustc {})", BUILD.version, BUILD.rustc),
    });
    &TEXT
}
