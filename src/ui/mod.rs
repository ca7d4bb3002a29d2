//! The listener for people: the status page, its figures, live lines, search.
//!
//! In: HTTP/1.1 from a browser on this machine or through `kubectl port-forward`. Out: one page, its few assets, `/api/…`.
//! Invariants: loopback only, unless a token is set; a request for another host's name is refused (DNS rebinding), and so is
//! one that another origin sends; nothing that came from outside is ever markup.

mod api;
mod assets;
pub mod config;
pub mod guard;
pub mod lines;
mod page;
pub mod session;
mod words;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admin::listener;
use crate::overview::Observer;

pub use config::Config;
use guard::Guard;
use session::Sessions;

/// Bytes of a request's body.
pub const BODY_BYTES: usize = 64 << 10;
/// Time for a client to send it.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time until a connection is closed, whatever it does: a page opens another one by itself.
pub const CONNECTION_LIFE: Duration = Duration::from_secs(900);
/// Pages that are kept up to date at once; with them and those who watch lines, the page itself always finds a connection.
pub const EVENTS: usize = 16;
/// Bodies that are read at once.
pub const BODIES: usize = 2;
/// Most memory that the listener takes: the heads of all connections, some bodies with what is made of them, and the parts of
/// each page that is kept up to date.
pub const MEMORY_BOUND: u64 =
    (listener::CONNECTIONS * listener::HEAD_BYTES + BODIES * 4 * BODY_BYTES + EVENTS * (64 << 10)) as u64;

/// Lines explained: who wrote them, and the lines. Out comes JSON, or what cannot be used in words.
pub type Explain = Arc<dyn Fn(Question) -> Result<String, String> + Send + Sync>;

/// What somebody wants to have explained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace of the pod that wrote the lines.
    pub namespace: Option<String>,
    /// Its name.
    pub pod: Option<String>,
    /// The container.
    pub container: Option<String>,
    /// Annotations of the pod.
    pub annotations: Vec<(String, String)>,
    /// The lines.
    pub lines: Vec<u8>,
}

/// What the page shows and does.
pub struct Page {
    /// Who looks at the agent.
    pub observer: Observer,
    /// What the owner of the process adds.
    pub extras: Extras,
    /// Explains lines.
    pub explain: Explain,
    /// Further routes, behind the same gate: live lines and search.
    pub lines: Router,
    /// What people sign in with.
    pub token: Option<String>,
}

struct Shown {
    observer: Observer,
    extras: Extras,
    explain: Explain,
    guard: Guard,
    events: Arc<Semaphore>,
    bodies: Semaphore,
    leave: CancellationToken,
}

type State = Arc<Shown>;

/// Serves the page at an open listener until `leave` is cancelled.
pub async fn serve(bound: config::Bound, page: Page, leave: CancellationToken) -> Result<(), Infallible> {
    let address = bound.address;
    // It was opened by this process and is not blocking; without a runtime's reactor there is no page, and nobody is hurt.
    let Ok(listener) = tokio::net::TcpListener::from_std(bound.listener) else { return Ok(()) };
    let router = router(address, page, leave.clone());
    listener::serve(&listener, &router, CONNECTION_LIFE, &leave).await;
    Ok(())
}

fn router(address: std::net::SocketAddr, page: Page, leave: CancellationToken) -> Router {
    let Page { observer, extras, explain, lines, token } = page;
    let guard = Guard::new(address, Sessions::new(token));
    let (events, bodies) = (Arc::new(Semaphore::new(EVENTS)), Semaphore::new(BODIES));
    let state: State = Arc::new(Shown { observer, extras, explain, guard, events, bodies, leave });
    Router::new()
        .route("/", get(page::page))
        .route("/sign-in", get(page::sign_in).post(api::sign_in))
        .route("/sign-out", post(api::sign_out))
        .route("/assets/{name}", get(assets::asset))
        .route("/favicon.ico", get(assets::icon))
        .route("/api/overview", get(api::overview))
        .route("/api/events", get(api::events))
        .route("/api/explain", post(api::explain))
        .route("/api/actions/{name}", post(api::action))
        .with_state(Arc::clone(&state))
        .merge(lines)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(state, guard::gate))
}

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

#[cfg(test)]
mod tests;
