//! The keys that `[logs]`, `[process]`, `[telemetry]` and the sinks have until their modules bring their own `Config`.
//!
//! Each submodule has the shape that its successor must have: a `Config` with `Default`, `Deserialize`, `JsonSchema`
//! and, where it holds memory, `memory_bound()`.
#![allow(missing_docs)]

pub mod logs {
    use crate::data::units::{ByteSize, Span};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use std::path::PathBuf;

    /// Where a log is read from when it is first seen.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Start {
        Oldest,
        Newest,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {
        /// Directory with the pods' logs, as the kubelet lays it out.
        #[schemars(with = "String")]
        pub root: PathBuf,
        /// Where to begin with a log that no checkpoint knows: at its oldest line on disk or at its newest.
        pub start: Start,
        /// How often dirty files are read. Raise it to save CPU, lower it for fresher lines.
        pub tick: Span,
        /// How often the directory is scanned beneath the file notifications.
        pub rescan: Span,
        /// Directories outside the root that a log may be a symbolic link into.
        #[schemars(with = "Vec<String>")]
        pub symlink_roots: Vec<PathBuf>,
        /// Longest line that is delivered whole; the rest of a longer one is cut off and counted.
        pub max_line: ByteSize,
        /// Leave out the agent's own logs.
        pub exclude_self: bool,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                root: "/var/log/pods".into(),
                start: Start::Oldest,
                tick: Span::millis(150),
                rescan: Span::secs(10),
                symlink_roots: vec!["/var/lib/docker/containers".into()],
                max_line: ByteSize::kib(256),
                exclude_self: true,
            }
        }
    }

    impl Config {
        pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
            vec![
                ("read buffer", 1 << 20),
                ("followed files", 8 << 20),
                ("one line being joined", self.max_line.0),
            ]
        }
    }
}

pub mod process {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {}
}

pub mod loki {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {
        /// Base URL; `/loki/api/v1/push` is appended.
        #[schemars(example = "http://loki-gateway.loki.svc")]
        pub url: String,
        /// Tenant, sent as `X-Scope-OrgID`. Empty sends none.
        pub tenant: String,
    }

    impl Config {
        pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
            vec![("encoding", 4 << 20), ("answers", 64 << 10)]
        }
    }
}

pub mod otlp {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
    pub enum Protocol {
        #[default]
        #[serde(rename = "grpc")]
        Grpc,
        #[serde(rename = "http/protobuf")]
        HttpProtobuf,
    }

    #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {
        /// URL of the receiver; over HTTP `/v1/logs` is appended.
        #[schemars(example = "http://otel-collector.observability.svc:4317")]
        pub endpoint: String,
        /// Wire protocol.
        pub protocol: Protocol,
    }

    impl Config {
        pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
            vec![("encoding", 4 << 20), ("answers", 64 << 10)]
        }
    }
}

pub mod stdout {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {}

    impl Config {
        pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
            vec![("encoding", 1 << 20)]
        }
    }
}

pub mod local {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {}

    impl Config {
        pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
            vec![("encoding", 4 << 20)]
        }
    }
}

pub mod telemetry {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    /// How the agent writes its own logs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Format {
        #[default]
        Auto,
        Json,
        Pretty,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {
        /// Which of the agent's own log events are written, as a tracing filter. `NODEWICK_LOG` wins over it.
        pub log: String,
        /// Format of the agent's own logs; `auto` is pretty on a terminal and JSON elsewhere.
        pub log_format: Format,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { log: "info".to_owned(), log_format: Format::Auto }
        }
    }
}
