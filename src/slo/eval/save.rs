//! An evaluator as bytes, and back: samples, slices and the state of alerts over restarts.
//!
//! In: an evaluator. Out: `magic(8) version(4) plain length(4) crc32c(4)`, little endian, then the payload packed by zstd; the
//! checksum covers all but itself. Numbers in it are LEB128, texts have their length before them. Invariants: what does not
//! check is taken back as a whole or not at all; counts are believed only as far as there are bytes for them; an objective
//! that counts something else than before begins anew, but the end of its alerts is still told.

use std::sync::Arc;

use super::Evaluator;
use super::alert::{Alert, State};
use super::objective::Objective;
use super::records::{One, Steps};
use super::ring::Ring;
use super::store::{Labels, Store};

const MAGIC: &[u8; 8] = b"NWICKSLO";
const VERSION: u32 = 1;
const HEADER: usize = 20;
/// Neither packed nor plain are there ever more bytes.
pub const MOST_SAVED: usize = 128 << 20;

/// Why bytes are no evaluator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Another file.
    #[error("it is no file of the evaluator")]
    Foreign,
    /// Another version of this file.
    #[error("it is of another version")]
    Version,
    /// Bits have changed, or bytes are missing.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum holds and the content does not.
    #[error("it breaks off")]
    Short,
}

impl Evaluator {
    /// Everything that a restart must not forget. `None`: it would be too much.
    pub fn save(&self) -> Option<Vec<u8>> {
        let mut out = Writer(Vec::new());
        out.int(self.last_ms.unwrap_or(-1));
        self.store.save(&mut out);
        out.count(self.objectives.len());
        for objective in &self.objectives {
            objective.save(&mut out);
        }
        let plain = out.0;
        if plain.len() > MOST_SAVED {
            return None;
        }
        let packed = zstd::bulk::compress(&plain, 1).ok()?;
        let mut bytes = Vec::with_capacity(HEADER + packed.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(plain.len()).ok()?.to_le_bytes());
        let checked = crc32c::crc32c_append(crc32c::crc32c(&bytes), &packed);
        bytes.extend_from_slice(&checked.to_le_bytes());
        bytes.extend_from_slice(&packed);
        Some(bytes)
    }

    /// Takes back what was saved. On an error nothing is known, as at a first start.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        let plain = unpack(bytes)?;
        let restored = self.read(&mut Reader(&plain));
        if restored.is_none() {
            self.store.clear();
            self.last_ms = None;
            for objective in &mut self.objectives {
                objective.records.series.clear();
                objective.alerting_mut().for_each(|alerting| alerting.alerts.all.clear());
            }
        }
        restored.ok_or(Damage::Short)
    }

    fn read(&mut self, from: &mut Reader<'_>) -> Option<()> {
        self.last_ms = Some(from.int()?).filter(|last| *last >= 0);
        self.store.restore(from)?;
        for _ in 0..from.count()? {
            let id = from.text()?;
            let own = self.objectives.iter_mut().find(|objective| objective.id == id);
            Objective::restore(own, from)?;
        }
        Some(())
    }

    /// After a restart: alerts that fired go on from `now_ms`, however long nothing ran.
    pub fn resume(&mut self, now_ms: i64) {
        let now_ms = self.own_ms(now_ms);
        for objective in &mut self.objectives {
            objective.records.renew("ALERTS", now_ms);
        }
    }
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Damage> {
    if bytes.len() < HEADER || &bytes[..8] != MAGIC {
        return Err(Damage::Foreign);
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if number(8) != VERSION {
        return Err(Damage::Version);
    }
    let checked = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[HEADER..]);
    if number(16) != checked || number(12) as usize > MOST_SAVED {
        return Err(Damage::Checksum);
    }
    zstd::bulk::decompress(&bytes[HEADER..], number(12) as usize).map_err(|_| Damage::Short)
}

impl Objective {
    fn save(&self, out: &mut Writer) {
        out.text(&self.id);
        out.number(self.fingerprint);
        out.count(self.records.series.len());
        for (name, series) in &self.records.series {
            out.text(name);
            out.count(series.len());
            series.iter().for_each(|one| out.one(one));
        }
        out.count(self.alerting().count());
        for alerting in self.alerting() {
            out.text(alerting.name);
            out.count(alerting.alerts.all.len());
            for (labels, alert) in &alerting.alerts.all {
                out.labels(labels);
                out.alert(alert);
            }
        }
    }

    /// Reads one, into `own` where there still is one of that name.
    fn restore(mut own: Option<&mut Self>, from: &mut Reader<'_>) -> Option<()> {
        let fingerprint = from.number()?;
        let is_same = own.as_ref().is_some_and(|own| own.fingerprint == fingerprint);
        for _ in 0..from.count()? {
            let name = from.text()?;
            for _ in 0..from.count()? {
                let one = from.one()?;
                let Some(own) = own.as_mut().filter(|_| is_same || name == "ALERTS") else { continue };
                // What rules need now decides how much is kept.
                let mut fitted = own.records.begin(&name, one.labels);
                fitted.newest = one.newest;
                fitted.recent = one.recent;
                if let (Some(kept), Some(saved)) = (&mut fitted.steps, one.steps)
                    && kept.step_ms == saved.step_ms
                {
                    let over = saved.values.len().saturating_sub(kept.most);
                    kept.newest = saved.newest;
                    kept.values.extend(saved.values.into_iter().skip(over));
                }
                own.records.series.entry(name.clone()).or_default().push(fitted);
            }
        }
        for _ in 0..from.count()? {
            let name = from.text()?;
            let mut all = Vec::new();
            for _ in 0..from.count()? {
                all.push((from.labels()?, from.alert()?));
            }
            let mut rules = own.iter_mut().flat_map(|own| own.alerting_mut());
            if let Some(alerting) = rules.find(|alerting| alerting.name == name) {
                alerting.alerts.all.extend(all);
            }
        }
        Some(())
    }
}

impl Store {
    fn save(&self, out: &mut Writer) {
        let (base, times) = self.ticks();
        out.number(base);
        out.count(times.len());
        let mut before = 0;
        for time in times {
            out.int(time - before);
            before = *time;
        }
        let series: Vec<_> = self.all().collect();
        out.count(series.len());
        for (name, labels, ring) in series {
            out.text(name);
            out.labels(labels);
            out.bytes(&ring.save());
        }
    }

    fn restore(&mut self, from: &mut Reader<'_>) -> Option<()> {
        let base = from.number()?;
        let mut times = Vec::new();
        let mut before = 0_i64;
        for _ in 0..from.count()? {
            before = before.checked_add(from.int()?)?;
            times.push(before);
        }
        if !times.is_sorted() {
            return None;
        }
        self.begin(base, times);
        for _ in 0..from.count()? {
            let name = from.text()?;
            let labels = from.labels()?;
            let ring = Ring::restore(from.bytes()?)?;
            self.adopt(&name, &labels, ring);
        }
        Some(())
    }
}

/// Appends to bytes.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn int(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    pub(super) fn float(&mut self, number: f64) {
        self.0.extend_from_slice(&number.to_bits().to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn labels(&mut self, labels: &Labels) {
        self.count(labels.len());
        for (name, value) in labels.iter() {
            self.text(name);
            self.text(value);
        }
    }

    fn one(&mut self, one: &One) {
        self.labels(&one.labels);
        let newest = one.newest.unwrap_or((-1, 0.0));
        self.int(newest.0);
        self.float(newest.1);
        self.count(one.recent.len());
        for (at, value) in &one.recent {
            self.int(*at);
            self.float(*value);
        }
        let Some(steps) = &one.steps else { return self.number(0) };
        self.number(steps.step_ms as u64);
        self.int(steps.newest);
        self.count(steps.values.len());
        steps.values.iter().for_each(|value| self.float(*value));
    }

    fn alert(&mut self, alert: &Alert) {
        self.number(match alert.state {
            State::Pending => 0,
            State::Firing => 1,
            State::Resolved => 2,
        });
        for time in [alert.active_unix_ms, alert.fired_unix_ms, alert.resolved_unix_ms] {
            self.int(time);
        }
        self.float(alert.value);
        self.count(alert.annotations.len());
        for (name, text) in &alert.annotations {
            self.text(name);
            self.text(text);
        }
    }
}

/// Takes from bytes.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            if shift > 63 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
            shift += 7;
        }
    }

    /// How many follow: each of them has a byte at least.
    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len())
    }

    fn int(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn float(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(f64::from_bits(u64::from_le_bytes(*bytes)))
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.count()?;
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn labels(&mut self) -> Option<Labels> {
        let mut all: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for _ in 0..self.count()? {
            all.push((self.text()?.into(), self.text()?.into()));
        }
        Some(all.into())
    }

    fn one(&mut self) -> Option<One> {
        let labels = self.labels()?;
        let newest = Some((self.int()?, self.float()?)).filter(|(at, _)| *at >= 0);
        let mut recent = std::collections::VecDeque::new();
        for _ in 0..self.count()? {
            recent.push_back((self.int()?, self.float()?));
        }
        let step_ms = i64::try_from(self.number()?).ok()?;
        let steps = if step_ms == 0 {
            None
        } else {
            let newest = self.int()?;
            let mut values = std::collections::VecDeque::new();
            for _ in 0..self.count()? {
                values.push_back(self.float()?);
            }
            Some(Steps { step_ms, most: values.len(), newest, values })
        };
        Some(One { labels, newest, recent, steps })
    }

    fn alert(&mut self) -> Option<Alert> {
        let state = match self.number()? {
            0 => State::Pending,
            1 => State::Firing,
            2 => State::Resolved,
            _ => return None,
        };
        let (active_unix_ms, fired_unix_ms, resolved_unix_ms) = (self.int()?, self.int()?, self.int()?);
        let value = self.float()?;
        let mut annotations = std::collections::BTreeMap::new();
        for _ in 0..self.count()? {
            annotations.insert(self.text()?, self.text()?);
        }
        Some(Alert { state, active_unix_ms, fired_unix_ms, resolved_unix_ms, value, annotations })
    }
}
