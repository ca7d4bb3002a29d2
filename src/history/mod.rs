//! Samples of the past from a Prometheus-compatible query API.
//!
//! ```text
//! query × Grid ─► pieces of at most 11,000 points ─► two requests at a time ─► one line of values a series
//!                    ▲ halved when the server says that it is too much
//! ```
//!
//! In: queries and a [`Grid`] of times. Out: [`Lines`]. Invariants: a request ends within its timeout; an answer, and all
//! of them together, are bounded; no credential reaches an error.

mod answer;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::data::units::Span;
use crate::sink::Answer;
use crate::sink::http::{self as outgoing, Auth, Client, Secret, Tls};

pub use answer::{Labels, Series};

/// Points of one request: Prometheus answers no more.
pub const MOST_POINTS: usize = 11_000;
/// Requests at a time.
const AT_ONCE: usize = 2;
/// Bytes of one answer.
const ANSWER: usize = 64 << 20;
/// Values that are kept of all answers together: 160 MB.
const MOST_VALUES: usize = 20_000_000;
/// A piece that is not halved any more.
const SMALLEST: usize = 8;

/// How the API is reached.
#[derive(Debug, Clone)]
pub struct Config {
    /// `http://prometheus:9090`, with a path where it has one; user information is a credential.
    pub url: String,
    /// Limit on one request.
    pub timeout: Duration,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Certificates to trust instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// Tenant of Mimir, Cortex or Thanos.
    pub tenant: Option<String>,
}

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] outgoing::Error),
    /// Nobody answers.
    #[error("cannot reach {url}: {error}; check the address, and that the server runs")]
    Unreachable {
        /// Whom we asked.
        url: String,
        /// What went wrong.
        error: String,
    },
    /// The credential is missing or wrong.
    #[error(
        "{url} refuses us with {status}; give a token with --token-file, or user and password in the URL"
    )]
    Refused {
        /// Whom we asked.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// Something else answers.
    #[error(
        "{url} is not a Prometheus API: {why}; give the address that Grafana's data source has, without /api/v1"
    )]
    Foreign {
        /// Whom we asked.
        url: String,
        /// What speaks against it.
        why: String,
    },
    /// The server cannot answer this query.
    #[error("{url} cannot answer: {why}; ask for less with --last, --namespace or --slo, or raise --timeout")]
    Query {
        /// Whom we asked.
        url: String,
        /// In its own words.
        why: String,
    },
    /// More than is kept.
    #[error(
        "the history of {series} series is more than is kept in memory; ask for less with --last or --namespace"
    )]
    Large {
        /// Series of one query.
        series: usize,
    },
}

/// Times at equal distances, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// The first.
    pub start: i64,
    /// Between two.
    pub step: i64,
    /// How many.
    pub points: usize,
}

impl Grid {
    /// The time of a point.
    pub fn at(&self, index: usize) -> i64 {
        self.start + self.step * i64::try_from(index).unwrap_or(i64::MAX / self.step.max(1))
    }
}

/// The values of a query's series on a grid, by their labels; NaN where there is no sample.
pub type Lines = BTreeMap<Labels, Vec<f64>>;

/// A query API.
#[derive(Debug)]
pub struct Api {
    client: Client,
    base: String,
}

impl Api {
    /// Refuses settings that would show a credential to others. Nothing is asked yet.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let timeouts = outgoing::Timeouts {
            connect: Span(config.timeout.min(Duration::from_secs(10))),
            total: Span(config.timeout),
            idle: Span(config.timeout),
        };
        let mut settings = outgoing::Config {
            tls: Tls { ca_file: config.ca_file.clone(), ..Tls::default() },
            auth: Auth { token_file: config.token_file.clone(), ..Auth::default() },
            timeouts,
            ..outgoing::Config::default()
        };
        if let Some(name) = &config.tenant {
            settings.headers.insert("X-Scope-OrgID".to_owned(), Secret::new(name.clone()));
        }
        let client = Client::new(&config.url, &settings)?;
        let path = client.url().path().trim_end_matches('/');
        let base = path.strip_suffix("/api/v1").unwrap_or(path).to_owned();
        Ok(Self { client, base })
    }

    /// Who is asked, as it may be shown.
    pub fn url(&self) -> &str {
        self.client.shown_url()
    }

    /// The series of a query at one time, seconds since the epoch.
    pub async fn instant(&self, query: &str, at: i64) -> Result<Vec<Series>, Error> {
        let form = form(&[("query", query), ("time", &at.to_string())]);
        self.ask("/api/v1/query", form).await.map_err(|refusal| self.error(refusal))
    }

    /// The values of each query on the grid, `chunk` points a request at most. `progress` hears of finished and all
    /// requests.
    pub async fn lines(
        &self,
        queries: &[String],
        grid: Grid,
        chunk: usize,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Vec<Lines>, Error> {
        let chunk = chunk.clamp(1, MOST_POINTS);
        let mut found: Vec<Lines> = vec![Lines::new(); queries.len()];
        let mut waiting: VecDeque<(usize, usize, usize)> = VecDeque::new();
        for from in (0..grid.points).step_by(chunk) {
            let to = (from + chunk).min(grid.points);
            waiting.extend((0..queries.len()).map(|query| (query, from, to)));
        }
        let (mut done, mut all) = (0, waiting.len());
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < AT_ONCE
                && let Some((query, from, to)) = waiting.pop_front()
            {
                let (start, end) = (grid.at(from).to_string(), grid.at(to - 1).to_string());
                let step = grid.step.to_string();
                let body =
                    form(&[("query", &queries[query]), ("start", &start), ("end", &end), ("step", &step)]);
                running.push(async move { (query, from, to, self.ask("/api/v1/query_range", body).await) });
            }
            let Some((query, from, to, answer)) = running.next().await else { return Ok(found) };
            match answer {
                Ok(series) => {
                    let lines = &mut found[query];
                    for one in series {
                        let line = lines.entry(one.labels).or_insert_with(|| vec![f64::NAN; grid.points]);
                        for (at, value) in one.points {
                            // To the nearest point: times come back as decimals of seconds.
                            let index =
                                (at - grid.start * 1_000 + grid.step * 500).div_euclid(grid.step * 1_000);
                            if let Some(slot) =
                                usize::try_from(index).ok().and_then(|index| line.get_mut(index))
                            {
                                *slot = value;
                            }
                        }
                    }
                    if found.iter().map(BTreeMap::len).sum::<usize>().saturating_mul(grid.points)
                        > MOST_VALUES
                    {
                        return Err(Error::Large { series: found.iter().map(BTreeMap::len).sum() });
                    }
                    done += 1;
                }
                Err(Refusal::TooMuch(_)) if to - from >= SMALLEST => {
                    let middle = from + (to - from) / 2;
                    waiting.push_front((query, middle, to));
                    waiting.push_front((query, from, middle));
                    all += 1;
                }
                Err(refusal) => return Err(self.error(refusal)),
            }
            progress(done, all);
        }
    }

    async fn ask(&self, path: &str, form: String) -> Result<Vec<Series>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let path = format!("{}{path}", self.base);
        match self.client.ask(&path, headers, Bytes::from(form), ANSWER).await {
            Answer::Http { status, body, .. } => answer::read(status, &body, ANSWER),
            Answer::Unreachable { error } => Err(Refusal::Unreachable(error)),
            Answer::Grpc { code, .. } => Err(Refusal::Foreign(format!("it answers in gRPC with {code}"))),
        }
    }

    fn error(&self, refusal: Refusal) -> Error {
        let url = self.url().to_owned();
        match refusal {
            Refusal::Unreachable(error) => Error::Unreachable { url, error },
            Refusal::Credentials(status) => Error::Refused { url, status },
            Refusal::Foreign(why) => Error::Foreign { url, why },
            Refusal::TooMuch(why) | Refusal::Query(why) => Error::Query { url, why },
        }
    }
}

/// What an answer can be instead of series.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Unreachable(String),
    Credentials(u16),
    Foreign(String),
    /// Less may be answered.
    TooMuch(String),
    Query(String),
}

/// A form body.
fn form(fields: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte))
                }
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}
