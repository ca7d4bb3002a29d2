//! An evaluator as bytes, and back: samples, slices and the state of alerts over restarts.
//!
//! In: an evaluator. Out: its values as [`pack`](crate::data::pack) writes them, for a file of the form [`FORM`]. Invariants: what does not
//! check is taken back as a whole or not at all; counts are believed only as far as there are bytes for them; an objective
//! that counts something else than before begins anew, but the end of its alerts is still told.

use std::sync::Arc;

use super::Evaluator;
use super::alert::{Alert, State};
use super::objective::Objective;
use super::records::{One, Steps};
use super::ring::Ring;
use super::store::{Labels, Store};
use crate::data::pack::{Reader, Writer};
use crate::durable::{Damage, Form};

/// What the file is; neither packed nor plain are there ever more than 128 MiB.
pub const FORM: Form = Form { magic: b"NWICKSLO", version: 1, most: 128 << 20 };

impl Evaluator {
    /// Everything that a restart must not forget.
    pub fn save(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.int(self.last_ms.unwrap_or(-1));
        self.store.save(&mut out);
        out.count(self.objectives.len());
        for objective in &self.objectives {
            objective.save(&mut out);
        }
        out.0
    }

    /// Takes back what was saved. On an error nothing is known, as at a first start.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        let restored = self.read(&mut Reader(bytes));
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
        for _ in 0..from.many()? {
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

impl Objective {
    fn save(&self, out: &mut Writer) {
        out.text(&self.id);
        out.number(self.fingerprint);
        out.count(self.records.series.len());
        for (name, series) in &self.records.series {
            out.text(name);
            out.count(series.len());
            series.iter().for_each(|one| put_one(out, one));
        }
        out.count(self.alerting().count());
        for alerting in self.alerting() {
            out.text(alerting.name);
            out.count(alerting.alerts.all.len());
            for (labels, alert) in &alerting.alerts.all {
                put_labels(out, labels);
                put_alert(out, alert);
            }
        }
    }

    /// Reads one, into `own` where there still is one of that name.
    fn restore(mut own: Option<&mut Self>, from: &mut Reader<'_>) -> Option<()> {
        let fingerprint = from.number()?;
        let is_same = own.as_ref().is_some_and(|own| own.fingerprint == fingerprint);
        for _ in 0..from.many()? {
            let name = from.text()?;
            for _ in 0..from.many()? {
                let one = one(from)?;
                let Some(own) = own.as_mut().filter(|_| is_same || name == "ALERTS") else { continue };
                // What rules need now decides how much is kept.
                let mut fitted = own.records.begin(name, one.labels);
                fitted.newest = one.newest;
                fitted.recent = one.recent;
                if let (Some(kept), Some(saved)) = (&mut fitted.steps, one.steps)
                    && kept.step_ms == saved.step_ms
                {
                    let over = saved.values.len().saturating_sub(kept.most);
                    kept.newest = saved.newest;
                    kept.values.extend(saved.values.into_iter().skip(over));
                }
                own.records.series.entry(name.to_owned()).or_default().push(fitted);
            }
        }
        for _ in 0..from.many()? {
            let name = from.text()?;
            let mut all = Vec::new();
            for _ in 0..from.many()? {
                all.push((labels(from)?, alert(from)?));
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
            put_labels(out, labels);
            out.bytes(&ring.save());
        }
    }

    fn restore(&mut self, from: &mut Reader<'_>) -> Option<()> {
        let base = from.number()?;
        let mut times = Vec::new();
        let mut before = 0_i64;
        for _ in 0..from.many()? {
            before = before.checked_add(from.int()?)?;
            times.push(before);
        }
        if !times.is_sorted() {
            return None;
        }
        self.begin(base, times);
        for _ in 0..from.many()? {
            let name = from.text()?;
            let labels = labels(from)?;
            let ring = Ring::restore(from.bytes()?)?;
            self.adopt(name, &labels, ring);
        }
        Some(())
    }
}

fn put_labels(out: &mut Writer, labels: &Labels) {
    out.count(labels.len());
    for (name, value) in labels.iter() {
        out.text(name);
        out.text(value);
    }
}

fn put_one(out: &mut Writer, one: &One) {
    put_labels(out, &one.labels);
    let newest = one.newest.unwrap_or((-1, 0.0));
    out.int(newest.0);
    out.float(newest.1);
    out.count(one.recent.len());
    for (at, value) in &one.recent {
        out.int(*at);
        out.float(*value);
    }
    let Some(steps) = &one.steps else { return out.number(0) };
    out.number(steps.step_ms as u64);
    out.int(steps.newest);
    out.count(steps.values.len());
    steps.values.iter().for_each(|value| out.float(*value));
}

fn put_alert(out: &mut Writer, alert: &Alert) {
    out.number(match alert.state {
        State::Pending => 0,
        State::Firing => 1,
        State::Resolved => 2,
    });
    for time in [alert.active_unix_ms, alert.fired_unix_ms, alert.resolved_unix_ms] {
        out.int(time);
    }
    out.float(alert.value);
    out.count(alert.annotations.len());
    for (name, text) in &alert.annotations {
        out.text(name);
        out.text(text);
    }
}

fn labels(from: &mut Reader<'_>) -> Option<Labels> {
    let mut all: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    for _ in 0..from.many()? {
        all.push((from.text()?.into(), from.text()?.into()));
    }
    Some(all.into())
}

fn one(from: &mut Reader<'_>) -> Option<One> {
    let labels = labels(from)?;
    let newest = Some((from.int()?, from.float()?)).filter(|(at, _)| *at >= 0);
    let mut recent = std::collections::VecDeque::new();
    for _ in 0..from.many()? {
        recent.push_back((from.int()?, from.float()?));
    }
    let step_ms = i64::try_from(from.number()?).ok()?;
    let steps = if step_ms == 0 {
        None
    } else {
        let newest = from.int()?;
        let mut values = std::collections::VecDeque::new();
        for _ in 0..from.many()? {
            values.push_back(from.float()?);
        }
        Some(Steps { step_ms, most: values.len(), newest, values })
    };
    Some(One { labels, newest, recent, steps })
}

fn alert(from: &mut Reader<'_>) -> Option<Alert> {
    let state = match from.number()? {
        0 => State::Pending,
        1 => State::Firing,
        2 => State::Resolved,
        _ => return None,
    };
    let (active_unix_ms, fired_unix_ms, resolved_unix_ms) = (from.int()?, from.int()?, from.int()?);
    let value = from.float()?;
    let mut annotations = std::collections::BTreeMap::new();
    for _ in 0..from.many()? {
        annotations.insert(from.text()?.to_owned(), from.text()?.to_owned());
    }
    Some(Alert { state, active_unix_ms, fired_unix_ms, resolved_unix_ms, value, annotations })
}
