//! The listener for people: the status page, its figures, live lines, search.
//!
//! In: HTTP/1.1 from a browser on this machine or through `kubectl port-forward`. Out: one page, its few assets, `/api/…`.
//! Invariants: loopback only, unless a token is set; a request for another host's name is refused (DNS rebinding), and so is
//! one that another origin sends; nothing that came from outside is ever markup.

pub mod config;

use std::sync::Arc;

pub use config::Config;

/// What the owner of an agent inside its process adds to the page.
#[derive(Clone, Default)]
pub struct Extras {
    /// A sentence above everything.
    pub banner: Option<String>,
    /// Buttons.
    pub actions: Vec<Action>,
}

/// A button of the page: `POST /api/actions/<name>`.
#[derive(Clone)]
pub struct Action {
    /// Its name in the address: "break-checkout".
    pub name: &'static str,
    /// What stands on it just now.
    pub label: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether it is pressed in just now.
    pub active: Arc<dyn Fn() -> bool + Send + Sync>,
    /// What it does. It returns at once.
    pub run: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Action").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Extras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extras").field("banner", &self.banner).field("actions", &self.actions).finish()
    }
}
