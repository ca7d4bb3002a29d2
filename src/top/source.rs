//! Where pictures come from: the listener for machines, or the one for people.
//!
//! In: an address as a person writes it. Out: one [`Overview`] a look. Invariant: what is wrong is said with what to do.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::admin::client::Client;
use crate::overview::Overview;

/// The picture at the listener for machines, and at the one for people.
const PATHS: [&str; 2] = ["/overview", "/api/overview"];

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or not in time.
    #[error(
        "no agent answers at {address}: {cause}; for one in a cluster: kubectl -n nodewick port-forward ds/nodewick 9464"
    )]
    Silent {
        /// Where it was looked for.
        address: SocketAddr,
        /// What happened.
        cause: io::Error,
    },
    /// It has no such page.
    #[error(
        "what answers at {0} has no /overview: it is no nodewick, or one that is older than `top`; `nodewick status` knows older ones"
    )]
    Old(SocketAddr),
    /// It wants to know who asks.
    #[error(
        "{0} is the listener for people and asks for a token; look at the one for machines, [admin] listen"
    )]
    Closed(SocketAddr),
    /// It answers something else.
    #[error("what {address} answers cannot be read: {cause}; is it another version of nodewick?")]
    Foreign {
        /// Where it was looked for.
        address: SocketAddr,
        /// What is wrong.
        cause: String,
    },
    /// The text cannot be written.
    #[error("cannot write to stdout: {0}")]
    Out(io::Error),
}

/// A running agent.
#[derive(Debug, Clone, Copy)]
pub struct Source(Client);

impl Source {
    /// The agent at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self(Client::new(address))
    }

    /// The agent at `http://HOST:PORT`, or `HOST:PORT`.
    ///
    /// # Errors
    /// Says what is wrong with the text, and how to write it.
    pub fn of_url(url: &str) -> Result<Self, String> {
        let help = "write http://HOST:PORT, such as http://127.0.0.1:9464";
        if url.starts_with("https://") {
            return Err(format!("the agent's listeners have no TLS; {help}"));
        }
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let host = rest.split('/').next().unwrap_or(rest);
        let mut found = host.to_socket_addrs().map_err(|cause| format!("{url}: {cause}; {help}"))?;
        found.next().map(Self::new).ok_or_else(|| format!("{url} has no address; {help}"))
    }

    /// Where it is looked for.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// How the agent is now.
    ///
    /// # Errors
    /// Says why there is no picture.
    pub fn look(&self) -> Result<Overview, Error> {
        let address = self.address();
        for path in PATHS {
            let page = self.0.get(path).map_err(|cause| Error::Silent { address, cause })?;
            match page.status {
                200 => {
                    let read: Result<Overview, _> = serde_json::from_str(&page.body);
                    return match read {
                        Ok(overview) if !overview.agent.version.is_empty() => Ok(overview),
                        Ok(_) => Err(Error::Foreign { address, cause: "it has no version".to_owned() }),
                        Err(cause) => Err(Error::Foreign { address, cause: cause.to_string() }),
                    };
                }
                401 | 403 => return Err(Error::Closed(address)),
                404 => {}
                status => {
                    return Err(Error::Foreign { address, cause: format!("HTTP status {status}") });
                }
            }
        }
        Err(Error::Old(address))
    }
}
