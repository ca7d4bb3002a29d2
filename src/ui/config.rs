//! `[ui]`: where people look at the agent.
//!
//! In: two keys. Out: where to listen, or nowhere, or why not. Invariant: an address that others can reach needs a token.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sink::http::Secret;

/// Where the page is when nobody says otherwise.
pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);
/// A token shorter than this can be guessed.
pub const LEAST_TOKEN: usize = 16;

/// `[ui]`: the listener for people: the status page, live lines, search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port of the status page. "auto": `127.0.0.1:9465` in `demo` and in `run` where there is no cluster and
    /// the container's memory limit has room for it, else none; "off"; or an address. It shows what containers log, so it listens on loopback addresses only unless `token` is
    /// set. In a cluster write "127.0.0.1:9465" and use `kubectl port-forward`.
    pub listen: String,
    /// What people sign in with: at least 16 characters, as `${env:NAME}` or `${file:/path}`. Without it whoever may connect
    /// to the address sees the page.
    pub token: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "auto".to_owned(), token: None }
    }
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// At [`DEFAULT`], or on a free port where that is taken; nowhere where the process has no use for it.
    Auto,
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl Config {
    /// Where to listen; a mistake in words.
    pub fn listen(&self) -> Result<Listen, String> {
        let text = self.listen.trim();
        match text {
            "auto" => return Ok(Listen::Auto),
            "" | "off" => return Ok(Listen::Off),
            _ => {}
        }
        // `:9465` is how other agents write "every address".
        let full = if text.starts_with(':') {
            format!("0.0.0.0{text}")
        } else {
            text.replacen("localhost:", "127.0.0.1:", 1)
        };
        let address: SocketAddr = full
            .parse()
            .map_err(|_| format!("{text:?} is not \"auto\", \"off\" or an IP address with a port"))?;
        if !address.ip().is_loopback() && self.token.is_none() {
            return Err(format!(
                "{address} can be reached by others, and the page shows log lines: set [ui] token, \
                 or listen on 127.0.0.1 and use kubectl port-forward"
            ));
        }
        Ok(Listen::At(address))
    }

    /// What is wrong with the token.
    pub fn token_problem(&self) -> Option<String> {
        let length = self.token.as_ref()?.expose().chars().count();
        (length < LEAST_TOKEN)
            .then(|| format!("{length} characters can be guessed: take {LEAST_TOKEN} or more"))
    }

    /// Whether "auto" means a page in `run`: not in a pod, and with nobody to ask for pods.
    pub fn wanted_in_run(&self, path_only: bool) -> bool {
        let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
        path_only && !in_pod
    }

    /// True when the process listens; `wanted`: whether "auto" means so.
    pub fn is_on(&self, wanted: bool) -> bool {
        match self.listen() {
            Ok(Listen::Auto) => wanted,
            Ok(Listen::At(_)) => true,
            Ok(Listen::Off) | Err(_) => false,
        }
    }

    /// Opens the listener; `wanted`: whether "auto" means so. At once, so that a port in use is an error of the start.
    pub fn bind(&self, wanted: bool) -> Result<Option<Bound>, BindError> {
        let refused = |reason| BindError::Config(reason);
        if let Some(problem) = self.token_problem() {
            return Err(refused(format!("token: {problem}")));
        }
        let (address, fallback) =
            match self.listen().map_err(|reason| refused(format!("listen: {reason}")))? {
                Listen::Auto if wanted => (DEFAULT, true),
                Listen::Auto | Listen::Off => return Ok(None),
                Listen::At(address) => (address, false),
            };
        let taken = |cause: &io::Error| cause.kind() == io::ErrorKind::AddrInUse;
        let listener = match TcpListener::bind(address) {
            Err(cause) if fallback && taken(&cause) => TcpListener::bind((address.ip(), 0)),
            other => other,
        };
        let fail = |cause: io::Error| match taken(&cause) {
            true => BindError::InUse(address),
            false => BindError::Other { address, cause },
        };
        let listener = listener.map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let real = listener.local_addr().map_err(fail)?;
        Ok(Some(Bound {
            listener,
            address: real,
            instead_of: (fallback && real != address).then_some(address),
        }))
    }
}

/// The listener, open and not yet served.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: TcpListener,
    /// Where it listens, with the real port.
    pub address: SocketAddr,
    /// The address that was taken.
    pub instead_of: Option<SocketAddr>,
}

/// The listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The config says what cannot be.
    #[error("[ui] {0}")]
    Config(String),
    /// Something else listens there.
    #[error(
        "cannot listen on {0}: the port is in use; stop what uses it, or change [ui] listen (NODEWICK_UI_LISTEN)"
    )]
    InUse(SocketAddr),
    /// Any other cause.
    #[error("cannot listen on {address}: {cause}; change [ui] listen (NODEWICK_UI_LISTEN)")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
}
