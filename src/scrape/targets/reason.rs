//! Why a pod is not scraped: a word of a closed set, a sentence, and what to do about it.

use crate::scrape::config::Mode;

/// Why there is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No pod is.
    #[error("[scrape] mode is \"off\"")]
    Off,
    /// Nothing asks for it.
    #[error("{}", match .mode {
        Mode::All => "no annotation asks for it, and no port is named metrics or http-metrics",
        _ => "no annotation asks for it",
    })]
    NotAnnotated {
        /// Which pods are scraped.
        mode: Mode,
    },
    /// Its annotation says no.
    #[error("prometheus.io/scrape is \"false\"")]
    Declined,
    /// Its annotation is neither yes nor no.
    #[error("prometheus.io/scrape is {0:?}, which is neither \"true\" nor \"false\"")]
    Scrape(String),
    /// The agent shows its own metrics elsewhere.
    #[error("it is the agent's own pod")]
    OwnPod,
    /// It shares the node's network.
    #[error("the pod shares the node's network (hostNetwork)")]
    HostNetwork,
    /// It does not run.
    #[error("the pod is not running")]
    NotRunning,
    /// It has no address yet.
    #[error("the pod has no address yet")]
    NoAddress,
    /// The guard refuses its address.
    #[error("{0}")]
    Denied(&'static str),
    /// The annotation is no port.
    #[error("prometheus.io/port is {0:?}, which is no port number")]
    Port(String),
    /// Neither annotation nor container names a port.
    #[error("no port is known: prometheus.io/port is not set, and no container declares a TCP port")]
    NoPort,
    /// Several ports, and nothing says which.
    #[error("prometheus.io/port is not set, and none of the {} declared ports is named metrics", .0.len())]
    ManyPorts(Vec<u16>),
    /// The path may not be asked for.
    #[error("prometheus.io/path is {path:?}: {why}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another scheme.
    #[error("prometheus.io/scheme is {0:?}, which is neither \"http\" nor \"https\"")]
    Scheme(String),
    /// A rule drops it.
    #[error("a rule of [[scrape.relabel]] drops it")]
    Dropped,
    /// Rules leave something that cannot be scraped.
    #[error("[[scrape.relabel]] leaves {name} = {value:?}: {why}")]
    Relabelled {
        /// The label.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Reason {
    /// The reason as a label value: one word of a closed set.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NotAnnotated { .. } => "not_annotated",
            Self::Declined => "declined",
            Self::Scrape(_) => "bad_scrape",
            Self::OwnPod => "own_pod",
            Self::HostNetwork => "host_network",
            Self::NotRunning => "not_running",
            Self::NoAddress => "no_address",
            Self::Denied(_) => "denied_address",
            Self::Port(_) => "bad_port",
            Self::NoPort => "no_port",
            Self::ManyPorts(_) => "several_ports",
            Self::Path { .. } => "bad_path",
            Self::Scheme(_) => "bad_scheme",
            Self::Dropped => "dropped",
            Self::Relabelled { .. } => "bad_relabel",
        }
    }

    /// What a person can do, where there is something.
    pub fn hint(&self) -> String {
        match self {
            Self::Off => "set [scrape] mode = \"annotated\"".to_owned(),
            Self::NotAnnotated { .. } => {
                "annotate the pod: prometheus.io/scrape: \"true\" and prometheus.io/port: \"<port>\"".to_owned()
            }
            Self::Declined | Self::NotRunning | Self::NoAddress => String::new(),
            Self::Scrape(_) => "write prometheus.io/scrape: \"true\"".to_owned(),
            Self::OwnPod => "its own metrics are on [admin] listen; name them in [[scrape.static]] to send them".to_owned(),
            Self::HostNetwork => {
                "name it in [[scrape.static]] targets = [\"127.0.0.1:<port>\"], or set [scrape] host_network = true"
                    .to_owned()
            }
            Self::Denied(_) => "if you mean this address, name it in [[scrape.static]]".to_owned(),
            Self::Port(_) => "write a number from 1 to 65535: prometheus.io/port: \"3000\"".to_owned(),
            Self::NoPort => "annotate the pod: prometheus.io/port: \"<port>\"".to_owned(),
            Self::ManyPorts(ports) => {
                let some: Vec<String> = ports.iter().take(8).map(u16::to_string).collect();
                format!(
                    "set prometheus.io/port to one of {}, or name the port metrics in the pod's spec",
                    some.join(", ")
                )
            }
            Self::Path { .. } => "write it like prometheus.io/path: \"/metrics\"".to_owned(),
            Self::Scheme(_) => "write prometheus.io/scheme: \"https\", or leave it out".to_owned(),
            Self::Dropped | Self::Relabelled { .. } => "look at [[scrape.relabel]]".to_owned(),
        }
    }
}
