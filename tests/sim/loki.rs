//! The Loki of the simulation: bodies in, the answers of a real one out, by the simulation's clock.
//!
//! What a Loki takes and how it says no is in the rules that it shares with the fake server.

use std::collections::HashMap;

use bytes::Bytes;
use nodewick::sink::Answer;

#[path = "../support/fake_loki/rules.rs"]
mod rules;

pub use rules::{Limits, wire};
use rules::{Reply, Rules};

use crate::chance::note;
use crate::world::BASE;

/// The tenant of a Loki without authentication.
const TENANT: &str = "fake";

/// An entry that came through.
#[derive(Debug)]
pub struct Received {
    pub labels: String,
    pub time: u64,
    pub line: String,
    pub metadata: Vec<(String, String)>,
    /// It was not there before.
    pub fresh: bool,
}

#[derive(Debug, Default)]
pub struct Loki {
    rules: Rules,
    /// Everything that came through since it was last looked at.
    pub received: Vec<Received>,
    /// Answers by status, for the figures.
    pub statuses: HashMap<u16, u64>,
}

/// The answer with a text, as Loki ends it.
pub fn answer(status: u16, text: &str) -> Answer {
    let body = if status == 204 { Bytes::new() } else { Bytes::from(format!("{text}\n")) };
    Answer::Http { status, retry_after: None, body }
}

/// Decodes a push.
pub fn decode(body: &[u8]) -> wire::PushRequest {
    let raw = snap::raw::Decoder::new().decompress_vec(body).expect("the agent sends snappy blocks");
    prost::Message::decode(raw.as_slice()).expect("the agent sends push requests")
}

impl Loki {
    /// One with these limits.
    pub fn new(limits: Limits) -> Self {
        Self { rules: Rules::new(limits), ..Self::default() }
    }

    /// Other limits from now on.
    pub fn limit(&mut self, limits: Limits) {
        self.rules.limits = limits;
    }

    /// Streams that were refused behind a 204.
    pub fn masked(&self) -> u64 {
        self.rules.masked
    }

    /// Takes a push at `now`.
    pub fn push(&mut self, request: wire::PushRequest, compressed: usize, now: u64) -> Answer {
        let streams: Vec<_> = request.streams.iter().map(|s| (s.labels.len(), s.entries.len())).collect();
        let (status, text) = self.decide(request, compressed, now).err().unwrap_or((204, String::new()));
        note(|| {
            let text: String = text.chars().take(300).collect();
            format!("{:>11.6} loki: {status} {text:?} to {} B, {streams:?}", now as f64 / 1e9, compressed)
        });
        *self.statuses.entry(status).or_default() += 1;
        answer(status, &text)
    }

    fn decide(&mut self, request: wire::PushRequest, compressed: usize, now: u64) -> Result<(), Reply> {
        self.rules.admit(compressed)?;
        // A rule in front of Loki: one bad line and nothing of the request passes.
        if request.streams.iter().flat_map(|s| &s.entries).any(|entry| entry.line.contains("POISON")) {
            return Err((400, "request blocked: a line matches rule 941100".to_owned()));
        }
        let Self { rules, received, .. } = self;
        rules.push(request, TENANT, i128::from(BASE + now), &mut |arrival| {
            received.push(Received {
                labels: arrival.labels.to_owned(),
                time: arrival.entry.time_unix_nano as u64,
                line: arrival.entry.line.clone(),
                metadata: arrival.entry.metadata.clone(),
                fresh: arrival.stored,
            });
            false
        })
    }
}
