//! `nodewick run --logs DIR --scrape HOST:PORT`: one's own service on one's own machine, with no cluster and no backend.
//!
//! In: a directory of logs, addresses of metrics, objectives, all from the command line. Out: a running agent, and on stderr
//! where its page is and what it found. Invariant: what the config file says holds, the command line only adds.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use nodewick::agent::{self, Agent, harden};
use nodewick::config::{Config, kube, scrape, slo};
use nodewick::data::units::Span;
use nodewick::logs::files::Around;
use nodewick::telemetry;
use nodewick::ui::Extras;

use super::exec::{self, RunArgs, say};

/// Stands for a namespace where there is none.
const NAMESPACE: &str = "local";
/// How often it is looked at what was found.
const LOOK: Duration = Duration::from_millis(250);
/// Files that are named; of more only their number is said.
const MOST_NAMED: usize = 20;
/// Whoever sits before it does not want to wait for figures.
const SOON: Span = Span::secs(5);

/// Runs the agent until it is asked to end.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let origin = args.config.origin();
    let mut loaded = origin.load()?;
    let dir = args.logs.as_deref().context("--logs names a directory")?;
    let service = exec::follow_directory(&mut loaded, dir, args.service.as_deref())?;
    let config = &mut loaded.config;
    if config.red.interval == nodewick::config::red::Config::default().interval {
        config.red.interval = SOON;
    }
    if config.evaluator.interval == slo::eval::Config::default().interval {
        config.evaluator.interval = SOON;
    }
    if !args.scrape.is_empty() || !args.slo.is_empty() {
        // What is read and what is scraped must be of one workload, and objectives are of workloads in namespaces.
        let around = Around::of_process().namespace;
        config.logs.namespace = if around.is_empty() { NAMESPACE.to_owned() } else { around };
    }
    scrape_too(config, &args.scrape, &service)?;
    hold_to(config, &args.slo, &service)?;
    // Before the first thread: each thread has its own fetters, and gives them to those that it starts.
    let hardening = harden::apply(&loaded, origin.file());
    let _telemetry = telemetry::init(&own_words(&loaded.config.telemetry))?;
    hardening.tell();
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key, problem = warning.message, help = warning.help, "config");
    }
    let has_stores = !loaded.config.sink.stores().is_empty();
    let state = loaded.config.agent.state_dir.clone();
    let path_only = loaded.config.kube.effective_mode() == kube::Mode::Path;
    let has_page = loaded.config.ui.wanted_in_run(path_only);
    let interrupted = super::interrupted()?;
    let started = if has_page {
        agent::start_with(loaded.config, Extras::default())
    } else {
        agent::start(loaded.config)
    };
    let agent = match started {
        Err(error) if error.is_config() => {
            eprintln!("nodewick: error: {error}");
            return Ok(ExitCode::from(super::BAD_CONFIG));
        }
        agent => agent?,
    };
    if let Some(page) = agent.ui_address() {
        say(&format!("the page: http://{page}/"));
    }
    if has_stores {
        say(&format!("the lines as text: nodewick tail --dir {}", state.display()));
    }
    let mut found = Found::default();
    while !interrupted.load(std::sync::atomic::Ordering::Relaxed) && !agent.has_ended() {
        found.look(&agent);
        std::thread::sleep(LOOK);
    }
    let outcome = agent.stop()?;
    if !outcome.aborted.is_empty() {
        anyhow::bail!(
            "{} did not end in time and was aborted; nothing acknowledged is lost",
            outcome.aborted.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Warnings only, unless more was asked for: what matters here is said in words of its own.
fn own_words(asked: &telemetry::Config) -> telemetry::Config {
    let mut config = asked.clone();
    if config.log == telemetry::Config::default().log {
        config.log = "warn".to_owned();
    }
    config
}

/// Adds the metrics of the service, under the name that its lines have: so that they are one workload.
fn scrape_too(config: &mut Config, targets: &[String], service: &str) -> anyhow::Result<()> {
    if targets.is_empty() {
        return Ok(());
    }
    let whole = |text: &String| {
        let is_path = text.contains('/') && !text.contains("://");
        if is_path { format!("http://{text}") } else { text.clone() }
    };
    let label = |name: &str| (name.to_owned(), service.to_owned());
    config.scrape.fixed.push(scrape::config::Static {
        targets: targets.iter().map(whole).collect(),
        job: service.to_owned(),
        labels: [
            label("service"),
            label("workload"),
            ("namespace".to_owned(), config.logs.namespace.clone()),
        ]
        .into(),
        interval: Some(SOON),
        timeout: Some(Span::secs(3)),
        ..scrape::config::Static::default()
    });
    if let Some(problem) = config.scrape.problems().into_iter().next() {
        anyhow::bail!(
            "--scrape: {}; write it like 127.0.0.1:3000 or 127.0.0.1:3000/metrics",
            problem.message
        );
    }
    Ok(())
}

/// Adds objectives of the service.
fn hold_to(config: &mut Config, objectives: &[String], service: &str) -> anyhow::Result<()> {
    for text in objectives {
        let (name, declared) = declared(text, &config.logs.namespace, service).with_context(|| {
            format!("--slo {text}: write it like availability=99.9% or latency=99%<300ms")
        })?;
        anyhow::ensure!(
            config.slo.declared.insert(name.clone(), declared).is_none(),
            "--slo {text}: there is an objective {name} already"
        );
    }
    if let Some(problem) =
        config.slo.problems().into_iter().find(|problem| problem.level == slo::Level::Error)
    {
        anyhow::bail!("--slo: {} {}", problem.key.join("."), problem.message);
    }
    Ok(())
}

/// The objective that an argument means, with its name.
fn declared(text: &str, namespace: &str, service: &str) -> anyhow::Result<(String, slo::config::Declared)> {
    let (sli, objective) = text.split_once('=').context("there is no \"=\" in it")?;
    let (objective, threshold) = objective
        .split_once('<')
        .map_or((objective, None), |(objective, threshold)| (objective, Some(threshold)));
    let mut table = serde_json::json!({
        "match": {"namespace": namespace, "workload": service}, "sli": sli, "objective": objective.trim(), "mode": "alert",
    });
    match (sli, threshold) {
        ("latency", Some(threshold)) => table["threshold"] = threshold.trim().into(),
        ("latency", None) => anyhow::bail!("a latency needs a threshold"),
        (_, Some(_)) => anyhow::bail!("only a latency has a threshold"),
        _ => {}
    }
    Ok((sli.to_owned(), serde_json::from_value(table)?))
}

/// What was found and said.
#[derive(Default)]
struct Found {
    files: BTreeSet<String>,
    targets: BTreeSet<(String, String)>,
}

impl Found {
    fn look(&mut self, agent: &Agent) {
        if let Some(registry) = &*agent.registry().load() {
            for account in registry.accounts().0 {
                let key = account.name().4.to_owned();
                let path = key.strip_prefix("file:").unwrap_or(&key);
                if !self.files.insert(path.to_owned()) {
                    continue;
                }
                match self.files.len() {
                    count if count <= MOST_NAMED => say(&format!("found {path}")),
                    count if count == MOST_NAMED + 1 => say("found more files; the page lists them all"),
                    _ => {}
                }
            }
        }
        let rows: Vec<serde_json::Value> = serde_json::from_str(&agent.targets()).unwrap_or_default();
        for row in rows {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let (url, state) = (text("url"), text("state"));
            if !["up", "down"].contains(&state.as_str()) {
                continue;
            }
            let is_new = self.targets.insert((url.clone(), state.clone()));
            self.targets.retain(|(own, said)| *own != url || *said == state);
            if is_new {
                let detail = match row["samples"].as_u64() {
                    Some(samples) if state == "up" => format!("{samples} samples"),
                    _ => [text("message"), text("hint")]
                        .into_iter()
                        .filter(|part| !part.is_empty())
                        .collect::<Vec<_>>()
                        .join("; "),
                };
                say(&format!("scraping {url}: {state}, {detail}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        format!("{:#}", declared(text, "local", "shop").expect_err(text))
    }

    #[test]
    fn an_objective_fits_in_one_argument() {
        let (name, found) = declared("availability=99.9%", "local", "shop").expect("one");
        assert_eq!((name.as_str(), found.selector.workload.as_deref()), ("availability", Some("shop")));
        assert_eq!((found.objective.to_string().as_str(), found.threshold), ("99.9%", None));
        let (name, found) = declared("latency=99%<300ms", "local", "shop").expect("one");
        assert_eq!((name.as_str(), found.threshold), ("latency", Some(Span::millis(300))));
        assert!(problem("availability").contains("no \"=\""));
        assert!(problem("latency=99%").contains("threshold"));
        assert!(problem("availability=99%<1s").contains("only a latency"));
        assert!(problem("speed=99%").contains("speed"));
        assert!(problem("availability=101%").contains("101%"));
        let mut config = Config::default();
        config.logs.namespace = "local".into();
        hold_to(&mut config, &["availability=99.9%".into(), "latency=99%<300ms".into()], "shop")
            .expect("two");
        let ids: Vec<_> = config.slo.specs().iter().map(slo::Spec::id).collect();
        assert_eq!(ids, ["local/shop/availability", "local/shop/latency"]);
        assert!(hold_to(&mut config, &["latency=99%<1s".into()], "shop").is_err(), "twice");
    }

    #[test]
    fn metrics_are_of_the_service_whose_lines_are_followed() {
        let mut config = Config::default();
        scrape_too(&mut config, &["127.0.0.1:3000".into(), "localhost:9000/internal/metrics".into()], "shop")
            .expect("targets");
        let fixed = &config.scrape.fixed[0];
        assert_eq!(fixed.targets, ["127.0.0.1:3000", "http://localhost:9000/internal/metrics"]);
        assert_eq!((fixed.job.as_str(), fixed.labels["workload"].as_str()), ("shop", "shop"));
        let error = scrape_too(&mut Config::default(), &["nowhere".into()], "shop").expect_err("no port");
        assert!(error.to_string().contains("127.0.0.1:3000/metrics"), "{error}");
    }
}
