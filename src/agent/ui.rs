//! Wiring of what people see: the page's listener and what it shows.
//!
//! In: a config, and what the owner of the process adds. Out: an open listener, served as long as the process lives, over
//! reloads. Invariant: where there is no page nothing is kept for one.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::{info, warn};

use crate::config::{Config, kube};
use crate::data::clock;
use crate::inspect::{self, Who};
use crate::overview::{Observer, Sources};
use crate::supervise::Supervisor;
use crate::ui::config::{BindError, Bound};
use crate::ui::{self, Explain, Extras, Question};

use super::Lasting;

/// The people's listener, and what the owner of the process adds to its page.
pub(super) struct People {
    bound: Option<Bound>,
    extras: Extras,
}

/// What `run` adds to the page where "auto" means one: without a cluster.
pub(super) fn in_run(config: &Config) -> Option<Extras> {
    config.ui.wanted_in_run(config.kube.effective_mode() == kube::Mode::Path).then(Extras::default)
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
    pub(super) fn attend(
        self,
        config: &Config,
        observer: Observer,
        lasting: &mut Lasting,
        attendants: &mut Supervisor,
    ) {
        let Some(bound) = self.bound else { return };
        if let Some(taken) = bound.instead_of {
            warn!(%taken, "the port of the status page is in use, perhaps by another nodewick; it is at a free one");
        }
        info!(address = %format!("http://{}/", bound.address), "listening for people: the status page");
        let current = Arc::new(ArcSwap::from_pointee(config.clone()));
        lasting.current = Some(Arc::clone(&current));
        let page = ui::Page {
            observer,
            extras: self.extras,
            explain: explain(current),
            lines: lasting.lines.as_ref().map(super::lines::Lines::routes).unwrap_or_default(),
            token: config.ui.token.as_ref().map(|token| token.expose().to_owned()),
        };
        attendants.attend("ui", |leave| ui::serve(bound, page, leave));
    }
}

/// Who looks at the agent, for both listeners.
pub(super) fn observer(config: &Config, lasting: &Lasting) -> Observer {
    let registry = Arc::clone(&lasting.registry);
    let accounts = move || {
        let known = registry.load();
        let known = known.as_ref()?;
        let (accounts, sums) = known.accounts();
        let oldest = known.oldest_unread(clock::now(), clock::since_epoch().as_nanos() as u64);
        Some((accounts, sums, oldest))
    };
    let (red, slos) = (Arc::clone(&lasting.red), Arc::clone(&lasting.slos));
    Observer::new(Sources {
        node: config.agent.node.clone(),
        cluster: config.agent.cluster.clone(),
        accounts: Arc::new(accounts),
        board: lasting.board.clone(),
        red: Arc::new(move || red.load_full()),
        slos: Arc::new(move || slos.report()),
        health: lasting.health.clone(),
    })
}

/// Explains lines by the config that runs.
fn explain(current: Arc<ArcSwap<Config>>) -> Explain {
    Arc::new(move |question: Question| {
        let Question { namespace, pod, container, annotations, lines } = question;
        let who = Who { namespace, pod, container, annotations, ..Who::default() };
        let now = clock::since_epoch().as_nanos() as u64;
        inspect::explain::answer(&current.load(), &who, &lines, now).map_err(|error| error.to_string())
    })
}
