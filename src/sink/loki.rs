//! Loki: the push protocol, and what Loki's answers mean.
//!
//! In: parcels. Out: `POST /loki/api/v1/push` bodies, protobuf in a snappy block, and verdicts.
//! Invariant: the same records always give the same bytes, since Loki stores an entry once only if timestamp,
//! line and structured metadata are equal; nothing that Loki calls invalid for its form is ever sent (empty
//! names, unparsable label sets, over-long labels).
//!
//! Answers are those of Loki 3 as recorded from a running one: errors are plain text, there is never a
//! `Retry-After`, and a success says nothing about the streams before the last one of a request.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::deliver::{self, DeadLetters, Transport};
use super::http::{Auth, Client, Secret, Timeouts, Tls};
use super::{Answer, Lesson, Parcel, StreamKey, Verdict, Wire, http as outgoing, lane};
use crate::data::batch::{Batch, Fields};
use crate::data::delivery::Outlet;
use crate::data::workload::Workload;
pub use crate::data::workload::is_tenant;

mod entry;
pub(super) mod judge;
pub mod preview;
#[cfg(test)]
mod tests;

use entry::Known;

const PUSH_PATH: &str = "/loki/api/v1/push";
const TENANT_HEADER: HeaderName = HeaderName::from_static("x-scope-orgid");

/// One Loki.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Base URL; `/loki/api/v1/push` is appended. A URL that ends in that path is taken as it is.
    pub url: String,
    /// Tenant, sent as `X-Scope-OrgID`, for workloads that have none of their own. Needed when Loki's
    /// `auth_enabled` is on.
    pub tenant: Option<String>,
    /// Also make the environment a stream label, `env`. Changing it starts new streams.
    pub env_as_label: bool,
    /// Logs do not wait for this sink: what it cannot take in time is dropped and counted.
    pub optional: bool,
    /// How requests are made up.
    pub limits: lane::Config,
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

/// Why a Loki cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint or its credentials.
    #[error(transparent)]
    Endpoint(#[from] outgoing::Error),
    /// Loki would refuse the tenant.
    #[error(
        "tenant {0:?} is not one that Loki takes: 1 to 150 letters, digits and !-_.*'(), not '.' or '..'"
    )]
    Tenant(String),
}

impl Config {
    /// The URL that is posted to.
    pub fn push_url(&self) -> String {
        let url = self.url.trim().trim_end_matches('/');
        if url.ends_with(PUSH_PATH) { url.to_owned() } else { format!("{url}{PUSH_PATH}") }
    }

    /// What the HTTP client is made of.
    pub fn http(&self) -> outgoing::Config {
        outgoing::Config {
            tls: self.tls.clone(),
            auth: self.auth.clone(),
            headers: self.headers.clone(),
            proxy: self.proxy.clone(),
            timeouts: self.timeouts.clone(),
        }
    }

    /// Checks everything that can be checked without a connection, and makes the client.
    pub fn client(&self) -> Result<Client, Error> {
        if let Some(tenant) = &self.tenant
            && !is_tenant(tenant)
        {
            return Err(Error::Tenant(tenant.clone()));
        }
        Ok(Client::new(&self.push_url(), &self.http())?)
    }
}

/// Starts a Loki sink: the entrance to its queue, and the task that empties it until the queue is closed and
/// everything is settled, or `kill` is cancelled. Refused lines go to `dead-letter.jsonl` in `state_dir`.
pub fn sink(
    name: &str,
    config: &Config,
    fields: Fields,
    state_dir: Option<&Path>,
    kill: CancellationToken,
) -> Result<(Box<dyn Outlet>, impl Future<Output = ()> + Send + use<>), Error> {
    let transport = Push { client: config.client()? };
    let wire = Loki::new(config.tenant.clone(), config.env_as_label, fields);
    let dead = state_dir.map(|dir| DeadLetters::new(dir.join(deliver::DEAD_LETTERS)));
    Ok(deliver::spawn(name, wire, transport, config.limits.clone(), !config.optional, dead, kill))
}

/// Posts push requests.
#[derive(Debug)]
struct Push {
    client: Client,
}

impl Transport for Push {
    async fn send(&self, tenant: Option<&str>, body: Bytes) -> Answer {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if let Some(tenant) = tenant.and_then(|tenant| HeaderValue::from_str(tenant).ok()) {
            headers.insert(TENANT_HEADER, tenant);
        }
        self.client.post(headers, body).await
    }

    fn target(&self) -> &str {
        self.client.shown_url()
    }
}

/// What is the same for all records of a workload, by the address of the workload. The weak reference keeps the
/// address from being used again.
type KnownByAddress = HashMap<usize, (Weak<Workload>, Arc<Known>), foldhash::fast::RandomState>;

/// Loki's push protocol.
#[derive(Debug)]
pub struct Loki {
    tenant: Option<String>,
    env_as_label: bool,
    fields: Fields,
    known: RefCell<KnownByAddress>,
    raw: Vec<u8>,
    /// Room for a compressed request, kept at its length.
    packed: Vec<u8>,
    snappy: snap::raw::Encoder,
    text: String,
}

impl Loki {
    /// The protocol with `fields` as structured metadata. `tenant` serves workloads without one.
    pub fn new(tenant: Option<String>, env_as_label: bool, fields: Fields) -> Self {
        Self {
            tenant,
            env_as_label,
            fields,
            known: RefCell::default(),
            raw: Vec::new(),
            packed: Vec::new(),
            snappy: snap::raw::Encoder::new(),
            text: String::new(),
        }
    }

    fn known(&self, workload: &Arc<Workload>) -> Arc<Known> {
        let address = Arc::as_ptr(workload).addr();
        let mut cache = self.known.borrow_mut();
        if let Some((_, known)) = cache.get(&address) {
            return Arc::clone(known);
        }
        if cache.len().is_power_of_two() {
            cache.retain(|_, (workload, _)| workload.strong_count() > 0);
        }
        let known = Arc::new(Known::new(workload, self.fields, self.env_as_label));
        cache.insert(address, (Arc::downgrade(workload), Arc::clone(&known)));
        known
    }
}

impl Wire for Loki {
    fn stream(&self, batch: &Batch) -> StreamKey {
        self.known(&batch.workload).key
    }

    fn tenant<'a>(&'a self, batch: &'a Batch) -> Option<&'a str> {
        batch.workload.tenant.as_deref().filter(|tenant| is_tenant(tenant)).or(self.tenant.as_deref())
    }

    fn encode(&mut self, parcels: &[Parcel], out: &mut Vec<u8>) {
        let mut raw = std::mem::take(&mut self.raw);
        raw.clear();
        let mut open: Option<(StreamKey, usize)> = None;
        for parcel in parcels {
            let known = self.known(&parcel.batch.workload);
            if open.is_none_or(|(key, _)| key != known.key) {
                if let Some((_, start)) = open {
                    entry::close_stream(&mut raw, start);
                }
                open = Some((known.key, entry::open_stream(&mut raw, &known)));
            }
            for record in parcel.records() {
                known.entry(&mut raw, &parcel.batch, record, self.fields, &mut self.text);
            }
        }
        if let Some((_, start)) = open {
            entry::close_stream(&mut raw, start);
        }
        // The room that snappy asks for is zeroed when it grows and not for each request.
        let room = snap::raw::max_compress_len(raw.len());
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        let written = self
            .snappy
            .compress(&raw, &mut self.packed)
            .expect("the output has the size that snappy asks for");
        out.extend_from_slice(&self.packed[..written]);
        if raw.capacity() > 8 * raw.len().max(64 << 10) {
            // A backlog is over: what it needed is not needed while little happens.
            raw.shrink_to(2 * raw.len());
            self.packed = Vec::new();
        }
        self.raw = raw;
    }

    fn judge(&self, answer: &Answer, records: u64) -> Verdict {
        judge::verdict(answer, records)
    }

    fn lesson(&self, answer: &Answer) -> Lesson {
        judge::lesson(answer)
    }

    fn success_can_mask(&self) -> bool {
        true
    }
}
