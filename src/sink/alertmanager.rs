//! Alertmanager's API v2: alerts that fire and alerts that ended.
//!
//! In: at each evaluation the list of all alerts that are, through a channel that holds the newest list only. Out: posts to
//! `/api/v2/alerts`. Invariants: an alert is told at once, and again every minute while it is in the list, long before the end
//! that was told with it; what was not taken is told again with what is true then; a list that is refused is no reason to
//! stop. Each Alertmanager has a task of its own, so that one that is down delays no other.
//!
//! Source: Prometheus 2.42, `rules/alerting.go` (`resend_delay`, four of which an alert stays valid) and `notifier`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::http::{self as outgoing, Auth, Client, Secret, Timeouts, Tls};
use super::{Answer, said};
use crate::metrics;

/// Where alerts are posted, below the address of an Alertmanager.
const PATH: &str = "/api/v2/alerts";
/// An alert is told again after this long.
pub const RESEND: Duration = Duration::from_secs(60);
/// Alerts in one request.
const BATCH: usize = 64;
/// First and longest wait before what was not taken is told again.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Time for the last words.
const LAST: Duration = Duration::from_secs(5);

/// `[alertmanager.<name>]`: an Alertmanager that the evaluator of objectives tells of its alerts. Each gets all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the Alertmanager, with its route prefix if it has one: `http://alertmanager:9093`.
    pub url: String,
    /// Certificates.
    pub tls: Tls,
    /// Credentials.
    pub auth: Auth,
    /// Further request headers, by name. Values are never shown.
    pub headers: BTreeMap<String, Secret>,
    /// URL of an HTTP proxy; default: the environment's `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    pub proxy: Option<Secret>,
    /// Limits on how long a request may take.
    pub timeouts: Timeouts,
}

impl Config {
    /// Checks everything that can be checked without a connection, and makes the client.
    pub fn client(&self) -> Result<Client, outgoing::Error> {
        let http = outgoing::Config {
            tls: self.tls.clone(),
            auth: self.auth.clone(),
            headers: self.headers.clone(),
            proxy: self.proxy.clone(),
            timeouts: self.timeouts.clone(),
        };
        Client::new(&endpoint(&self.url), &http)
    }
}

/// The address that alerts are posted to.
fn endpoint(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.is_empty() || url.ends_with(PATH) { url.to_owned() } else { format!("{url}{PATH}") }
}

/// An alert as it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Labels, `alertname` among them: they identify it.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it began to fire, milliseconds since the epoch.
    pub starts_unix_ms: i64,
    /// When it ended, or until when it is valid unless it is told again.
    pub ends_unix_ms: i64,
    /// It has ended.
    pub is_resolved: bool,
    /// Where one can see what it is about; may be empty.
    pub generator_url: String,
}

/// An alert on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: &'a BTreeMap<String, String>,
    annotations: BTreeMap<&'a str, &'a str>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL", skip_serializing_if = "str::is_empty")]
    generator_url: &'a str,
}

impl<'a> From<&'a Alert> for Posted<'a> {
    fn from(alert: &'a Alert) -> Self {
        let time = |unix_ms: i64| {
            jiff::Timestamp::from_millisecond(unix_ms)
                .unwrap_or_default()
                .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
                .to_string()
        };
        let annotations = alert.annotations.iter().filter(|(_, text)| !text.is_empty());
        Self {
            labels: &alert.labels,
            annotations: annotations.map(|(name, text)| (name.as_str(), text.as_str())).collect(),
            starts_at: time(alert.starts_unix_ms),
            ends_at: time(alert.ends_unix_ms),
            generator_url: &alert.generator_url,
        }
    }
}

/// What was told of an alert.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    starts_unix_ms: i64,
    is_resolved: bool,
}

/// Which alerts are to be told now.
#[derive(Debug, Default)]
struct Memory {
    told: HashMap<BTreeMap<String, String>, Told>,
}

impl Memory {
    fn due<'a>(&mut self, all: &'a [Alert], now: Instant) -> Vec<&'a Alert> {
        self.told.retain(|labels, _| all.iter().any(|alert| alert.labels == *labels));
        let is_due = |alert: &&Alert| match self.told.get(&alert.labels) {
            None => true,
            Some(told) => {
                told.starts_unix_ms != alert.starts_unix_ms
                    || told.is_resolved != alert.is_resolved
                    || now.duration_since(told.at) >= RESEND
            }
        };
        all.iter().filter(is_due).take(BATCH).collect()
    }

    fn tell(&mut self, alerts: &[&Alert], at: Instant) {
        for alert in alerts {
            let told = Told { at, starts_unix_ms: alert.starts_unix_ms, is_resolved: alert.is_resolved };
            self.told.insert(alert.labels.clone(), told);
        }
    }
}

/// The newest list of all alerts.
pub type List = Arc<Vec<Alert>>;

/// Tells an Alertmanager of alerts until `alerts` has no sender any more and the last list is told, or `kill` is cancelled.
/// `note` is given why it does not take them, and `None` once it does.
pub fn sink(
    label: &str,
    config: &Config,
    alerts: watch::Receiver<List>,
    kill: CancellationToken,
    note: Box<dyn Fn(Option<String>) + Send>,
) -> Result<impl Future<Output = ()> + Send + use<>, outgoing::Error> {
    let client = config.client()?;
    let name = label.to_owned();
    metrics::ALERTMANAGER_UP.with_label_values(&[label]).set(1);
    let sender = Sender { name, client, note, is_up: true };
    Ok(async move {
        tokio::select! {
            () = kill.cancelled() => {}
            () = sender.run(alerts) => {}
        }
    })
}

struct Sender {
    name: String,
    client: Client,
    note: Box<dyn Fn(Option<String>) + Send>,
    is_up: bool,
}

impl Sender {
    async fn run(mut self, mut alerts: watch::Receiver<List>) {
        let mut memory = Memory::default();
        let mut failures = 0_u32;
        loop {
            let ended = if failures == 0 {
                tokio::select! {
                    changed = alerts.changed() => changed.is_err(),
                    () = tokio::time::sleep(RESEND) => false,
                }
            } else {
                // A new list is no reason to hurry: it is told with the next try.
                let wait = (WAITS.0 * 2_u32.pow(failures.min(6) - 1)).min(WAITS.1);
                tokio::time::sleep(wait).await;
                alerts.has_changed().is_err()
            };
            loop {
                let list = Arc::clone(&alerts.borrow_and_update());
                let due = memory.due(&list, Instant::now());
                if due.is_empty() {
                    failures = 0;
                    break;
                }
                let told = tokio::time::timeout(if ended { LAST } else { Duration::MAX }, self.tell(&due));
                if !told.await.unwrap_or(false) {
                    failures = failures.saturating_add(1);
                    break;
                }
                failures = 0;
                memory.tell(&due, Instant::now());
            }
            if ended {
                return;
            }
        }
    }

    /// Posts alerts. `false`: they are to be told again soon.
    async fn tell(&mut self, alerts: &[&Alert]) -> bool {
        let posted: Vec<Posted<'_>> = alerts.iter().map(|alert| Posted::from(*alert)).collect();
        let body = serde_json::to_vec(&posted).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.client.post(headers, Bytes::from(body)).await;
        let count = |outcome: &str| {
            metrics::ALERTMANAGER_ALERTS
                .with_label_values(&[&self.name, outcome])
                .inc_by(alerts.len() as u64);
        };
        match answer {
            Answer::Http { status: 200..=299, .. } => {
                count("delivered");
                if !std::mem::replace(&mut self.is_up, true) {
                    tracing::info!(alertmanager = %self.name, "takes alerts again");
                }
                metrics::ALERTMANAGER_UP.with_label_values(&[&self.name]).set(1);
                (self.note)(None);
                true
            }
            // The same list will not be taken later either; what is in it is told again in a minute.
            Answer::Http { status: 400 | 413 | 422, .. } => {
                count("refused");
                self.down(&answer, "refuses alerts");
                true
            }
            answer => {
                count("retried");
                self.down(&answer, "does not take alerts; they are told again");
                false
            }
        }
    }

    fn down(&mut self, answer: &Answer, what: &'static str) {
        let error = answer.explain();
        said::note(&self.name, &error);
        metrics::ALERTMANAGER_UP.with_label_values(&[&self.name]).set(0);
        if std::mem::replace(&mut self.is_up, false) {
            tracing::warn!(alertmanager = %self.name, url = self.client.shown_url(), %error, what, "alerts are not taken");
        }
        (self.note)(Some(format!("{} at {} {what}: {error}", self.name, self.client.shown_url())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str, starts_unix_ms: i64, is_resolved: bool) -> Alert {
        Alert {
            labels: BTreeMap::from([("alertname".to_owned(), name.to_owned())]),
            annotations: BTreeMap::from([
                ("summary".into(), "it burns".into()),
                ("top_routes".into(), String::new()),
            ]),
            starts_unix_ms,
            ends_unix_ms: 1_700_000_240_500,
            is_resolved,
            generator_url: String::new(),
        }
    }

    #[test]
    fn addresses_get_the_path_of_the_api() {
        assert_eq!(endpoint("http://am:9093"), "http://am:9093/api/v2/alerts");
        assert_eq!(endpoint("https://x.example.com/am/"), "https://x.example.com/am/api/v2/alerts");
        assert_eq!(endpoint("http://am:9093/api/v2/alerts"), "http://am:9093/api/v2/alerts");
        assert!(Config::default().client().is_err(), "an address is needed");
        let config = Config { url: "am:9093".into(), ..Config::default() };
        assert!(config.client().expect_err("no scheme").to_string().contains("http"));
    }

    #[test]
    fn an_alert_is_told_at_once_and_again_every_minute() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let all = [alert("a", 1, false)];
        let due = memory.due(&all, now);
        assert_eq!(due.len(), 1);
        memory.tell(&due, now);
        assert!(memory.due(&all, now + Duration::from_secs(59)).is_empty());
        assert_eq!(memory.due(&all, now + RESEND).len(), 1);
        assert_eq!(memory.due(&[alert("a", 1, true)], now).len(), 1, "its end is told at once");
        assert_eq!(memory.due(&[alert("a", 2, false)], now).len(), 1, "one that comes back is a new one");
        assert!(memory.due(&[], now).is_empty() && memory.told.is_empty());
    }

    #[test]
    fn the_wire_has_times_and_no_empty_annotations() {
        let alert = alert("a", 1_700_000_000_000, false);
        let json = serde_json::to_string(&[Posted::from(&alert)]).expect("JSON");
        assert_eq!(
            json,
            "[{\"labels\":{\"alertname\":\"a\"},\"annotations\":{\"summary\":\"it burns\"},\
             \"startsAt\":\"2023-11-14T22:13:20.000Z\",\"endsAt\":\"2023-11-14T22:17:20.500Z\"}]"
        );
    }
}
