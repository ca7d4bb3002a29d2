//! Objectives declared once: rules, unit tests, alerts and runbooks made of them, all of it text and arithmetic.
//!
//! ```text
//! [slo.*] ────────┐
//!                 ├─► Spec ─► burn (tiers, thresholds, times) ─► render ─► files
//! annotations ────┤                                         ├─► simulate ─► when it would page
//! import ─────────┘                               history ─► └─► backtest, suggest
//! ```
//!
//! In: the config's tables and the annotations of pods. Out: text, byte for byte the same for the same declarations.
//! Invariant: pure, no file and no network is touched; what cannot be honoured is refused, never silently changed.

pub mod annotations;
pub mod backtest;
pub mod burn;
pub mod config;
pub mod eval;
pub mod import;
pub mod manifests;
pub mod number;
pub mod objective;
pub mod observed;
pub mod render;
pub mod simulate;
pub mod spec;
pub mod suggest;

pub use config::Config;
pub use objective::{Objective, Window};
pub use spec::{Level, Mode, Problem, Sli, Spec};
