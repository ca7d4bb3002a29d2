//! What a well-typed config can still get wrong.
//!
//! In: a [`Config`]. Out: findings by key path, placed by the loader. Pure: no file and no network is touched.

use super::diagnostics::Level;
use super::{Config, logs, process, scrape, slo};
use crate::data::batch::{FIELD_NAMES, Fields};
use crate::data::units::ByteSize;
use crate::scrape::config::Mode;
use crate::sink::otlp::Signal;

/// Something that is wrong or odd about a key.
pub(super) struct Finding {
    /// Keys; `[0]` is a place in a list.
    pub(super) path: Vec<String>,
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Least memory with which the agent makes progress: a few batches per sink.
const LEAST_MEMORY: ByteSize = ByteSize::mib(1);

/// Everything that is wrong or odd.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |level, path: &[&str], message: String, help: &str| {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        found.push(Finding {
            path,
            level,
            message,
            help: Some(help.to_owned()).filter(|help| !help.is_empty()),
        });
    };
    if config.agent.memory < LEAST_MEMORY {
        let message = format!("{} is too little to make progress", config.agent.memory);
        add(Level::Error, &["agent", "memory"], message, "give at least 1MiB; the default is 32MiB");
    }
    if !config.agent.state_dir.is_absolute() && config.agent.state_dir.as_os_str().is_empty() {
        let message = "needs a directory: without it a restart would read every log again".to_owned();
        add(Level::Error, &["agent", "state_dir"], message, "the default is /var/lib/nodewick");
    }
    for (kind, name, url) in endpoints(config) {
        let key = if kind == "otlp" { "endpoint" } else { "url" };
        let path = ["sink", kind, name, key];
        if url.is_empty() {
            let example = match kind {
                "loki" => "url = \"http://loki:3100\"",
                "otlp" => "endpoint = \"http://collector:4317\"",
                _ => "url = \"http://prometheus:9090/api/v1/write\"",
            };
            add(Level::Error, &path, "not set".to_owned(), &format!("write {example}"));
        } else if let Err((message, help)) = url_is_usable(&with_scheme(kind, url)) {
            add(Level::Error, &path, message, &help);
        }
    }
    if let Err(error) = process::Chain::compile(&config.process) {
        add(Level::Error, &["process"], error.to_string(), "");
    }
    if let Err(error) = logs::multiline::Rules::compile(&config.logs.multiline) {
        let path: Vec<&str> = error.key.split('.').collect();
        add(Level::Error, &path, error.reason.clone(), "");
    }
    if let Err(error) = config.logs.sources() {
        let path: Vec<&str> = ["logs", "files"].into_iter().chain(error.key.split('.')).collect();
        add(Level::Error, &path, error.reason.clone(), "");
    }
    for (name, sink) in config.sink.loki.iter().filter(|(_, sink)| url_is_usable(&sink.url).is_ok()) {
        if let Err(error) = sink.client() {
            add(Level::Error, &["sink", "loki", name], error.to_string(), "");
        }
    }
    for (name, sink) in &config.sink.otlp {
        if url_is_usable(&with_scheme("otlp", &sink.endpoint)).is_ok()
            && let Err(error) = sink.build(config.record.fields.0)
        {
            add(Level::Error, &["sink", "otlp", name], error.to_string(), "");
        }
    }
    for (name, sink) in config.sink.remote_write.iter().filter(|(_, sink)| url_is_usable(&sink.url).is_ok()) {
        if let Err(error) = sink.client() {
            add(Level::Error, &["sink", "remote_write", name], error.to_string(), "");
        }
        if has_no_path(&sink.url) {
            let message = "has no path: samples would be posted to /".to_owned();
            let help = "Prometheus and VictoriaMetrics take them at /api/v1/write, Mimir at /api/v1/push, Thanos at \
                        /api/v1/receive";
            add(Level::Warning, &["sink", "remote_write", name, "url"], message, help);
        }
    }
    for (name, sink) in &config.sink.otlp {
        let path = ["sink", "otlp", name, "signals"];
        match &sink.signals {
            Some(signals) if signals.is_empty() => {
                add(
                    Level::Error,
                    &path,
                    "nothing is sent".to_owned(),
                    "write signals = [\"logs\", \"metrics\"]",
                );
            }
            Some(_) if sink.takes(Signal::Metrics) && sink.is_loki() => {
                let message = "Loki takes no metrics".to_owned();
                add(Level::Error, &path, message, "write signals = [\"logs\"], or leave the key out");
            }
            _ => {}
        }
    }
    for kind in ["loki", "otlp", "remote_write", "stdout", "local"] {
        for name in sink_names(config, kind) {
            if !is_name(name) {
                let message = "a sink's name is 1 to 63 letters, digits, '-' or '_'".to_owned();
                add(Level::Error, &["sink", kind, name], message, "");
            }
        }
    }
    let takes_logs =
        !config.sink.loki.is_empty() || config.sink.otlp.values().any(|sink| sink.takes(Signal::Logs));
    if config.agent.cluster.is_empty() && (takes_logs || config.sink.takes_metrics()) {
        let what = if takes_logs { "lines" } else { "series" };
        let message = format!("not set: {what} of several clusters could not be told apart in the backend");
        add(Level::Warning, &["agent", "cluster"], message, "set [agent] cluster or NODEWICK_AGENT_CLUSTER");
    }
    if let Err(message) = config.ui.listen() {
        add(Level::Error, &["ui", "listen"], message, "write \"auto\", \"off\" or \"127.0.0.1:9465\"");
    }
    if let Some(message) = config.ui.token_problem() {
        add(Level::Error, &["ui", "token"], message, "openssl rand -hex 24 makes a good one");
    }
    if config.record.fields.0 == Fields::NONE {
        let message = "no field is sent: traces and levels cannot be found from the lines".to_owned();
        add(
            Level::Warning,
            &["record", "fields"],
            message,
            &format!("known fields: {}", FIELD_NAMES.join(", ")),
        );
    }
    for problem in config.kube.problems() {
        let path: Vec<&str> = std::iter::once("kube").chain(problem.key.iter().copied()).collect();
        add(Level::Error, &path, problem.message, problem.help);
    }
    for problem in config.slo.problems() {
        let level = if problem.level == slo::Level::Error { Level::Error } else { Level::Warning };
        let path: Vec<&str> = std::iter::once("slo").chain(problem.key.iter().map(String::as_str)).collect();
        add(level, &path, problem.message, &problem.help);
    }
    if let Some(message) = config.evaluator.problem() {
        add(Level::Error, &["evaluator", "interval"], message, "the rules are made for \"30s\"");
    }
    if let Some((message, help)) =
        config.evaluator.compression_problem(config.red.interval, !config.alertmanager.is_empty())
    {
        add(Level::Error, &["evaluator", "compression"], message, &help);
    }
    if config.evaluates().is_ok() && !config.red.enabled {
        let message =
            "no requests are counted: [red] enabled is false, so every objective is without data".to_owned();
        add(
            Level::Warning,
            &["evaluator"],
            message,
            "write [red] enabled = true, or [evaluator] mode = \"off\"",
        );
    }
    for (name, sink) in &config.alertmanager {
        let path = ["alertmanager", name.as_str(), "url"];
        if !is_name(name) {
            let message = "an Alertmanager's name is 1 to 63 letters, digits, '-' or '_'".to_owned();
            add(Level::Error, &["alertmanager", name], message, "");
        }
        if sink.url.is_empty() {
            add(Level::Error, &path, "not set".to_owned(), "write url = \"http://alertmanager:9093\"");
        } else if let Err((message, help)) = url_is_usable(&sink.url) {
            add(Level::Error, &path, message, &help);
        } else if let Err(error) = sink.client() {
            add(Level::Error, &["alertmanager", name], error.to_string(), "");
        }
        if let Err(reason) = config.evaluates() {
            let message = format!("it is told nothing: {reason}");
            add(Level::Warning, &["alertmanager", name], message, "");
        }
    }
    for problem in config.scrape.problems() {
        let path: Vec<&str> =
            std::iter::once("scrape").chain(problem.key.iter().map(String::as_str)).collect();
        add(Level::Error, &path, problem.message, &problem.help);
    }
    for (index, range) in config.scrape.deny.iter().enumerate() {
        if let Err(message) = scrape::guard::Range::parse(range) {
            let help =
                "a range is an address and the length of its prefix; an address alone is a range of one";
            add(Level::Error, &["scrape", "deny", &format!("[{index}]")], message, help);
        }
    }
    if unreceived(config) {
        let message = "nothing receives the samples: no sink takes metrics, and the page is off".to_owned();
        let help = "write [sink.remote_write.main] url = \"http://prometheus:9090/api/v1/write\"; or leave this key out, \
                    and fetch /metrics/workloads from the agent; or scrape nothing: [scrape] mode = \"off\"";
        add(Level::Warning, &["admin", "workloads"], message, help);
    }
    if let Err(message) = config.admin.address() {
        let help = "write it like \"0.0.0.0:9464\", or \"off\" for no listener";
        add(Level::Error, &["admin", "listen"], message, help);
    }
    found
}

/// True when somebody has asked for samples that go nowhere.
fn unreceived(config: &Config) -> bool {
    let asked = !config.scrape.fixed.is_empty() || config.host.enabled || config.scrape.mode != Mode::Off;
    let page_is_off = config.admin.workloads == crate::admin::Workloads::Off;
    asked && page_is_off && !config.sink.takes_metrics()
}

/// Kind, name and URL of every sink with a backend.
fn endpoints(config: &Config) -> impl Iterator<Item = (&'static str, &str, &str)> {
    let loki = config.sink.loki.iter().map(|(name, sink)| ("loki", name.as_str(), sink.url.as_str()));
    let otlp = config.sink.otlp.iter().map(|(name, sink)| ("otlp", name.as_str(), sink.endpoint.as_str()));
    let remote_write = config
        .sink
        .remote_write
        .iter()
        .map(|(name, sink)| ("remote_write", name.as_str(), sink.url.as_str()));
    loki.chain(otlp).chain(remote_write)
}

/// What a sink may be called: its name is a part of labels and of directories.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// True for a URL that names a host and nothing on it.
fn has_no_path(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|url| url.path().is_empty() || url.path() == "/")
}

/// Names of the sinks of one kind.
fn sink_names<'a>(config: &'a Config, kind: &str) -> Vec<&'a str> {
    match kind {
        "loki" => config.sink.loki.keys().map(String::as_str).collect(),
        "otlp" => config.sink.otlp.keys().map(String::as_str).collect(),
        "remote_write" => config.sink.remote_write.keys().map(String::as_str).collect(),
        "stdout" => config.sink.stdout.keys().map(String::as_str).collect(),
        _ => config.sink.local.keys().map(String::as_str).collect(),
    }
}

/// OTLP endpoints are often written `host:4317`, as the collector's own examples do: that means plain http.
fn with_scheme<'a>(kind: &str, url: &'a str) -> std::borrow::Cow<'a, str> {
    if kind == "otlp" && !url.contains("://") { format!("http://{url}").into() } else { url.into() }
}

/// An absolute http or https URL with a host; the error is cause and help. The URL itself is never repeated, since it
/// may hold a password.
fn url_is_usable(url: &str) -> Result<(), (String, String)> {
    let help = "write it like \"https://loki.example.com\"".to_owned();
    let Some((scheme, rest)) = url.split_once("://") else {
        let help = if url.contains(char::is_whitespace) {
            help
        } else {
            "begin it with http:// or https://".to_owned()
        };
        return Err(("not a URL: the scheme is missing".to_owned(), help));
    };
    if !matches!(scheme, "http" | "https") {
        return Err((
            "the scheme is neither http nor https".to_owned(),
            "begin it with http:// or https://".to_owned(),
        ));
    }
    let uri: http::Uri = url.parse().map_err(|cause| (format!("not a URL: {cause}"), help.clone()))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(("not a URL: the host is missing".to_owned(), help));
    }
    // `http::Uri` takes any authority; a port must be a number that fits.
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let after_host = authority.rsplit('@').next().unwrap_or_default().rsplit(']').next().unwrap_or_default();
    if let Some((_, port)) = after_host.rsplit_once(':')
        && port.parse::<u16>().is_err()
    {
        return Err(("not a URL: the port is not a number from 1 to 65535".to_owned(), help));
    }
    if rest.contains('#') {
        return Err(("a fragment (#…) has no meaning here".to_owned(), help));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_http_urls_pass() {
        for good in ["http://loki:3100", "https://user:pw@loki.example.com/base", "http://[::1]:3100"] {
            assert_eq!(url_is_usable(good), Ok(()), "{good}");
        }
        for bad in [
            "loki:3100",
            "tcp://loki",
            "http://",
            "http://loki:99999",
            "http://lo ki",
            "http://:3100",
            "http://h/#x",
        ] {
            assert!(url_is_usable(bad).is_err(), "{bad}");
        }
    }
}
