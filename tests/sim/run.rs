//! One run: a node, an agent that lives and dies, a Loki that fails, and an oracle that watches.
//!
//! Everything happens on one thread, in the order of a simulated clock; what is due at the same moment goes in an
//! order that the seed chooses. The agent's parts are those of production: `Tail`, `Lane`, `Keeper`, `Store`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use nodewick::data::batch::Fields;
use nodewick::data::budget::{Budget, Signal};
use nodewick::data::delivery::Fanout;
use nodewick::data::workload::PathIdentity;
use nodewick::logs::checkpoint::{Marks, Store};
use nodewick::logs::disk::Disk;
use nodewick::logs::keeper::Keeper;
use nodewick::logs::registry::Registry;
use nodewick::logs::spill::{self, Spill};
use nodewick::logs::tail::{Next, Options, Start, Tail};
use nodewick::sink::lane::Lane;
use nodewick::sink::loki::Loki as Wire;
use nodewick::sink::{Answer, Wire as _};
use parking_lot::Mutex;

use crate::chance::{Rng, note};
use crate::disk::{self, SimDisk};
use crate::entrance::{Entrance, Inbox};
use crate::loki::{self, Limits, Loki};
use crate::plan::{Fault, Outcome, Plan, Planted};
use crate::red;
use crate::world::{MILLI, ROOT, SECOND, Shared, SimEnv, World};

/// Longest line of these runs.
const MAX_LINE: usize = 64 << 10;
/// One read may be turned into records that take more than was reserved for it: the budget's slack.
const SLACK: u64 = 2 << 20;
/// All must be in Loki this long after the last fault.
const SETTLE: u64 = 180 * SECOND;
/// As the client has it: no answer for this long is no answer.
const TIMEOUT: u64 = 30 * SECOND;
/// An agent that is told to stop is killed after this long.
const GRACE: u64 = 25 * SECOND;

#[derive(Debug)]
enum Event {
    Arrive { life: u32, id: u64, body: Vec<u8>, fault: Option<Fault> },
    Answered { life: u32, id: u64, answer: Answer },
    End,
    Start,
    Churn(u8),
    DiskFails,
    Probe,
}

struct Timed(u64, u64, Event);

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct Agent {
    tail: Option<Tail<SimEnv>>,
    lane: Lane<Wire>,
    keeper: Keeper,
    registry: Arc<Registry>,
    budget: Arc<Budget>,
    signal: Arc<Signal>,
    inbox: Inbox,
    tail_due: u64,
    keeper_due: u64,
    retry_state: Option<u64>,
    /// Told to stop: killed at this time at the latest.
    stop_by: Option<u64>,
    seen_version: (u64, u64),
}

pub struct Sim {
    plan: Plan,
    rng: Rng,
    world: Shared,
    disk: SimDisk,
    loki: Loki,
    agent: Option<Agent>,
    life: u32,
    events: BinaryHeap<Reverse<Timed>>,
    next_event: u64,
    settling: Option<u64>,
    probing: bool,
    outcome: Outcome,
    /// When lines were stored, to bound what a kill may repeat.
    stored_at: std::collections::VecDeque<u64>,
    red: red::Counts,
    /// When counts are saved: of its own, so that all else goes as it went without.
    rng_saves: Rng,
}

const PODS: [(&str, &str, &str); 5] = [
    ("shop", "checkout-d994d45d6-5h9zr", "api"),
    ("shop", "checkout-d994d45d6-k2x4p", "api"),
    ("shop", "orders-7d9f8b6c5-p2x4k", "web"),
    ("kube-system", "dns-x7k2p", "dns"),
    ("team-a", "postgres-0", "db"),
];

impl Sim {
    pub fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0xabcd);
        let world = World::new(rng.fork(), plan.nature.clone());
        let disk = SimDisk::new(rng.fork());
        let loki = Loki::new(plan.limits.clone());
        let mut sim = Self {
            rng,
            world: Arc::new(Mutex::new(world)),
            disk,
            loki,
            agent: None,
            life: 0,
            events: BinaryHeap::new(),
            next_event: 0,
            settling: None,
            probing: false,
            outcome: Outcome::default(),
            stored_at: std::collections::VecDeque::new(),
            red: red::Counts::default(),
            rng_saves: Rng::new(plan.seed ^ 0x5a5e),
            plan,
        };
        {
            let mut world = sim.world.lock();
            world.flip = sim.plan.planted == Planted::FlipsAByte;
            world.oracle.any_order = !sim.plan.limits.shard_streams;
            world.oracle.pieces_allowed =
                !sim.plan.nature.strict || sim.plan.corrupt > 0 || sim.plan.nature.copytruncate;
            for at in 0..sim.plan.pods {
                let (namespace, pod, container) = PODS[at % PODS.len()];
                world.start_pod(namespace, pod, container);
            }
        }
        let first = sim.rng.below(2 * SECOND);
        sim.at(first, Event::Start);
        for at in sim.plan.kills.clone() {
            sim.at(at, Event::End);
        }
        sim.at(sim.plan.disk_from, Event::DiskFails);
        let (restarts, deletions, pods) = sim.plan.churn;
        for (count, kind) in [(restarts, 0), (deletions, 1), (pods, 2)] {
            for _ in 0..count {
                let at = sim.rng.below(sim.plan.duration);
                sim.at(at, Event::Churn(kind));
            }
        }
        sim
    }

    pub fn disk(&self) -> SimDisk {
        self.disk.clone()
    }

    fn now(&self) -> u64 {
        self.world.lock().now
    }

    fn at(&mut self, due: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse(Timed(due, self.next_event, event)));
    }

    fn after(&mut self, delay: u64, event: Event) {
        let now = self.now();
        self.at(now + delay, event);
    }

    /// Runs to the end; what went wrong otherwise.
    pub fn run(mut self) -> Result<Outcome, String> {
        loop {
            let now = self.now();
            if let Some(failure) = self.world.lock().oracle.failure.take() {
                return Err(format!("{failure} (at {:.6} s)", now as f64 / 1e9));
            }
            if self.settling.is_none() && now >= self.plan.duration {
                self.settle();
            }
            if let Some(since) = self.settling {
                if self.is_settled() {
                    if !self.probing {
                        self.probing = true;
                        self.outcome.settled_in = now - since;
                        // What comes in addition comes soon; then one more line of everyone.
                        self.after(2 * SECOND, Event::Probe);
                    } else if self.events.is_empty() {
                        return self.finish();
                    }
                } else if now > since + SETTLE + if self.probing { 60 * SECOND } else { 0 } {
                    return Err(self.stuck());
                }
            }
            self.turn();
        }
    }

    fn stuck(&self) -> String {
        let world = self.world.lock();
        let (missing, open) = (world.oracle.missing(), world.oracle.open);
        let counts = self.red.lock().check(&world.oracle.lines, &world.away);
        let counts = counts.err().unwrap_or_default();
        let agent = self.agent.as_ref().map(|agent| {
            format!(
                "lane idle {}, up {}, lane holds {}, budget {} of {}, logs {:?}",
                agent.lane.is_idle(),
                agent.lane.is_up(),
                agent.lane.held_bytes(),
                agent.budget.held(),
                agent.budget.limit(),
                agent.tail.as_ref().map(Tail::open_logs)
            )
        });
        format!("{open} lines lost ({agent:?}):\n  {}\n{counts}", missing.join("\n  "))
    }

    fn is_settled(&self) -> bool {
        let Some(agent) = &self.agent else { return false };
        agent.tail.is_some()
            && self.world.lock().oracle.open == 0
            && agent.lane.is_idle()
            && agent.inbox.lock().is_empty()
            && agent.registry.is_settled()
            // A request behind a line that is still open is counted when that line ends, or its log.
            && self.check_counts().is_ok()
    }

    fn check_counts(&self) -> Result<(u64, u64), String> {
        let world = self.world.lock();
        self.red.lock().check(&world.oracle.lines, &world.away)
    }

    fn settle(&mut self) {
        let now = self.now();
        note(|| format!("{:>11.6} the faults end", now as f64 / 1e9));
        self.settling = Some(now);
        self.world.lock().become_quiet();
        self.disk.set_faults(disk::Faults::default());
        self.loki.limit(Limits::default());
        self.plan.weather.clear();
        self.plan.ack_lost = 0;
        self.plan.latency = (MILLI, 20 * MILLI);
        if self.agent.is_none() {
            self.at(now, Event::Start);
        } else if self.agent.as_ref().is_some_and(|agent| agent.stop_by.is_some()) {
            self.end_agent();
            self.at(now, Event::Start);
        }
    }

    fn finish(mut self) -> Result<Outcome, String> {
        let agent = self.agent.as_ref().expect("settled");
        if agent.budget.held() != 0 && !self.plan.nature.recorder {
            return Err(format!("{} bytes of the budget are held by nobody", agent.budget.held()));
        }
        let mut world = self.world.lock();
        self.outcome.released = crate::recorder::check(&self.plan.nature, &agent.registry, &world.oracle)?;
        let marks = agent.registry.marks();
        for (key, mark) in &marks {
            world.oracle.check_position(key, &mark.position, true);
        }
        if let Some(failure) = world.oracle.failure.take() {
            return Err(failure);
        }
        (self.outcome.requests_counted, self.outcome.requests_missed) =
            self.red.lock().check(&world.oracle.lines, &world.away)?;
        self.outcome.figures = world.oracle.figures;
        let pieces_allowed = world.oracle.pieces_allowed;
        self.outcome.rotations = world.rotations;
        self.outcome.cut = world.cut_lines.iter().map(|(_, age)| *age).collect();
        drop(world);
        let figures = self.outcome.figures;
        if figures.cut > 0 && figures.gaps == 0 && !pieces_allowed {
            return Err(format!("{} lines came in pieces, and no gap is told", figures.cut));
        }
        let expected = self.outcome.duplicates_expected;
        if self.plan.duplicates_bounded && figures.received_twice > expected {
            return Err(format!(
                "{} lines were received twice; after these kills {expected} were to be expected at most",
                figures.received_twice
            ));
        }
        self.outcome.statuses = self.loki.statuses.iter().map(|(status, n)| (*status, *n)).collect();
        self.outcome.statuses.sort_unstable();
        self.outcome.masked = self.loki.masked();
        self.outcome.state_files = self.disk.files();
        Ok(self.outcome)
    }

    /// Lets whoever is next do one thing.
    fn turn(&mut self) {
        let now = self.now();
        let world_due = self.world.lock().next_due();
        let event_due = self.events.peek().map(|Reverse(timed)| timed.0);
        let (mut tail, mut keeper, mut lane) = (None, None, None);
        if let Some(agent) = &mut self.agent {
            if agent.tail.is_some() {
                if agent.signal.wait(Duration::ZERO) {
                    agent.tail_due = agent.tail_due.min(now);
                }
                tail = Some(agent.tail_due);
            }
            keeper = Some(agent.keeper_due);
            lane = agent.lane.wake_at().map(|at| at.as_nanos() as u64);
            if !agent.inbox.lock().is_empty() {
                lane = Some(now);
            }
            if let Some(stop_by) = agent.stop_by {
                lane = Some(lane.unwrap_or(u64::MAX).min(stop_by));
            }
        }
        let dues = [world_due, event_due, tail, keeper, lane];
        let Some(due) = dues.iter().flatten().min().copied() else { return };
        let due = due.max(now);
        let ready: Vec<usize> =
            (0..dues.len()).filter(|at| dues[*at].is_some_and(|other| other <= due)).collect();
        let who = ready[self.rng.below(ready.len() as u64) as usize];
        if who == 0 {
            self.world.lock().advance(due);
            return;
        }
        {
            // What the world does at the same moment comes later.
            let mut world = self.world.lock();
            world.now = world.now.max(due);
        }
        match who {
            1 => {
                if let Some(Reverse(Timed(_, _, event))) = self.events.pop() {
                    self.event(event);
                }
            }
            2 => self.step_tail(),
            3 => self.step_keeper(),
            _ => self.step_lane(),
        }
    }

    fn late(&mut self) -> u64 {
        // A thread that the scheduler forgets for a while.
        if self.rng.once_in(200) {
            self.rng.below(self.plan.sloth * 20)
        } else {
            self.rng.below(self.plan.sloth)
        }
    }

    fn step_tail(&mut self) {
        let late = self.late();
        let Some(agent) = &mut self.agent else { return };
        let Some(tail) = &mut agent.tail else { return };
        let next = tail.step();
        if self.rng_saves.once_in(self.plan.saves) {
            self.red.lock().save();
        }
        let held = agent.budget.held();
        self.outcome.held = self.outcome.held.max(held);
        let limit = agent.budget.limit();
        let mut world = self.world.lock();
        agent.tail_due = match next {
            Next::Now => world.now + 10_000,
            Next::Wait(wait) => world.now + wait.as_nanos() as u64 + late,
        };
        if held > limit + SLACK {
            world.oracle.fail(|| format!("{held} bytes are held of a budget of {limit}"));
        }
    }

    fn step_keeper(&mut self) {
        let late = self.late();
        let Some(agent) = &mut self.agent else { return };
        let (now, wall) = {
            let world = self.world.lock();
            (world.now, world.wall())
        };
        if agent.keeper.is_detached() && agent.retry_state.is_none_or(|at| now >= at) {
            agent.retry_state = Some(now + 5 * SECOND);
            agent.keeper.attach(Arc::new(self.disk.clone()));
        }
        let wait = agent.keeper.step(Duration::from_nanos(now), wall / SECOND, false);
        agent.keeper_due = now + wait.as_nanos() as u64 + late;
        self.check_marks();
    }

    /// What may become durable must be in Loki.
    fn check_marks(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let version = agent.registry.version();
        if version == agent.seen_version {
            return;
        }
        agent.seen_version = version;
        let marks = agent.registry.marks();
        let mut world = self.world.lock();
        for (key, mark) in &marks {
            world.oracle.check_position(key, &mark.position, false);
        }
    }

    fn step_lane(&mut self) {
        let now = self.now();
        let Some(agent) = &mut self.agent else { return };
        let shipments = std::mem::take(&mut *agent.inbox.lock());
        let at = Duration::from_nanos(now);
        for shipment in shipments {
            agent.lane.offer(shipment, at);
        }
        self.pump();
        let Some(agent) = &self.agent else { return };
        if let Some(stop_by) = agent.stop_by
            && (now >= stop_by || agent.lane.is_idle())
        {
            self.finish_orderly();
        }
    }

    fn pump(&mut self) {
        let (now, wall) = {
            let world = self.world.lock();
            (world.now, world.wall())
        };
        let Some(agent) = &mut self.agent else { return };
        let mut sent = Vec::new();
        while let Some(dispatch) = agent.lane.next(Duration::from_nanos(now), wall) {
            let mut body = Vec::new();
            agent.lane.wire().encode(&dispatch.parcels, &mut body);
            sent.push((dispatch.id, body));
        }
        for (id, body) in sent {
            self.send(id, body, now);
        }
    }

    fn send(&mut self, id: u64, body: Vec<u8>, now: u64) {
        self.outcome.requests += 1;
        let mut fault = self
            .plan
            .weather
            .iter()
            .find(|(from, to, _)| (*from..*to).contains(&now))
            .map(|(_, _, fault)| *fault);
        if fault.is_none() && self.rng.once_in(self.plan.ack_lost) {
            fault = Some(self.rng.pick(&[Fault::AckLost, Fault::Hang]));
        }
        let (from, to) = self.plan.latency;
        let latency = self.rng.range(from, to);
        let life = self.life;
        note(|| {
            format!("{:>11.6} request {id} of life {life}, {} B, {fault:?}", now as f64 / 1e9, body.len())
        });
        let lost = |error: &str| Answer::Unreachable { error: error.to_owned() };
        match fault {
            None => self.at(now + latency, Event::Arrive { life, id, body, fault }),
            Some(Fault::Refused) => {
                self.at(now + MILLI, Event::Answered { life, id, answer: lost("connection refused") });
            }
            Some(Fault::Closed) => {
                self.at(now + latency, Event::Answered { life, id, answer: lost("connection reset") });
            }
            Some(Fault::AckLost) => self.at(now + latency, Event::Arrive { life, id, body, fault }),
            Some(Fault::Hang) => {
                self.at(now + TIMEOUT, Event::Answered { life, id, answer: lost("timed out") });
                match self.rng.below(3) {
                    0 => {}
                    1 => self.at(now + latency, Event::Arrive { life, id, body, fault }),
                    // Taken when nobody waits for it any more.
                    _ => {
                        let at = now + self.rng.below(TIMEOUT + 5 * SECOND);
                        self.at(at, Event::Arrive { life, id, body, fault });
                    }
                }
            }
            Some(Fault::EmptyRing) => {
                self.at(now + latency, Event::Answered { life, id, answer: loki::answer(500, "empty ring") });
            }
            Some(Fault::Status(status, text)) => {
                self.at(now + latency, Event::Answered { life, id, answer: loki::answer(status, text) });
            }
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Arrive { life, id, body, fault } => self.arrive(life, id, &body, fault),
            Event::Answered { life, id, answer } => {
                if life != self.life || self.agent.is_none() {
                    return;
                }
                note(|| {
                    format!("{:>11.6} answer to {id}: {answer:?}", now as f64 / 1e9)
                        .chars()
                        .take(240)
                        .collect()
                });
                let Some(agent) = &mut self.agent else { return };
                let outcome = agent.lane.answer(id, &answer, Duration::from_nanos(now));
                let mut world = self.world.lock();
                for refusal in outcome.refused {
                    let batch = &refusal.parcel.batch;
                    for record in refusal.parcel.records() {
                        let container = &batch.workload.container;
                        let labels = format!(
                            "{{cluster=\"c1\", container=\"{}\", namespace=\"{}\", node=\"n1\", service_name=\"{}\"}}",
                            container.container, container.namespace, batch.workload.service_name
                        );
                        let text = String::from_utf8_lossy(batch.body(record)).into_owned();
                        let stream = record.stream.name();
                        let why = format!("{:?}: {}", refusal.reason, refusal.message);
                        world.oracle.refused(
                            &labels,
                            &container.pod,
                            stream,
                            record.time_unix_nano,
                            &text,
                            &why,
                        );
                    }
                }
                drop(world);
                self.pump();
            }
            Event::End => self.end(),
            Event::Start => {
                if self.agent.is_none() {
                    let missed = self.world.lock().missed_rotations();
                    let wanted =
                        self.plan.missed_rotations.filter(|_| self.life > 0 && self.settling.is_none());
                    if wanted.is_some_and(|wanted| missed < wanted) {
                        self.after(50 * MILLI, Event::Start);
                    } else {
                        self.outcome.missed = self.outcome.missed.max(missed);
                        self.start();
                    }
                }
            }
            Event::Churn(kind) => self.churn(kind),
            Event::DiskFails => {
                if self.settling.is_none() {
                    self.disk.set_faults(self.plan.disk);
                }
            }
            Event::Probe => {
                let mut world = self.world.lock();
                for log in world.running() {
                    world.write_probe(log);
                }
            }
        }
    }

    fn arrive(&mut self, life: u32, id: u64, body: &[u8], fault: Option<Fault>) {
        let now = self.now();
        let mut request = loki::decode(body);
        self.plant(&mut request, now);
        let answer = self.loki.push(request, body.len(), now);
        let mut world = self.world.lock();
        for got in self.loki.received.drain(..) {
            if got.fresh {
                self.stored_at.push_back(now);
            }
            world.oracle.received(&got.labels, got.time, &got.line, &got.metadata, got.fresh, now);
        }
        drop(world);
        let answer = match fault {
            None => answer,
            Some(Fault::AckLost) => Answer::Unreachable { error: "connection reset".to_owned() },
            // The timeout answers.
            _ => return,
        };
        let back = self.rng.below(5 * MILLI);
        self.at(now + back, Event::Answered { life, id, answer });
    }

    fn plant(&mut self, request: &mut loki::wire::PushRequest, now: u64) {
        match self.plan.planted {
            Planted::WrongStream
                if now > 8 * SECOND
                    && request.streams.len() > 1
                    && !request.streams[0].entries.is_empty() =>
            {
                let entry = request.streams[0].entries.remove(0);
                request.streams[1].entries.push(entry);
            }
            Planted::SendTime => {
                for entry in request.streams.iter_mut().flat_map(|stream| &mut stream.entries) {
                    let pair = loki::wire::Pair { name: "sent".to_owned(), value: now.to_string() };
                    entry.metadata.push(pair);
                }
            }
            Planted::Swaps if now > 8 * SECOND => {
                for stream in &mut request.streams {
                    let len = stream.entries.len();
                    if len > 1 {
                        stream.entries.swap(len - 1, len - 2);
                    }
                }
            }
            _ => {}
        }
    }

    // Lives.

    fn start(&mut self) {
        self.life += 1;
        self.outcome.lives += 1;
        let now = self.now();
        note(|| format!("{:>11.6} agent starts, life {}", now as f64 / 1e9, self.life));
        let spill = Spill::new(&spill::Config::default());
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let _ = spill.attach(Arc::clone(&disk));
        let (store, marks) = match Store::open(disk) {
            Ok((store, opened)) => (Some(store), opened.marks),
            Err(_) => (None, Marks::new()),
        };
        if store.is_none() {
            self.world.lock().oracle.pieces_allowed = true;
        }
        {
            let mut world = self.world.lock();
            world.expect_pieces(&marks);
            let gone = |line: &crate::oracle::Line| world.is_gone(line);
            self.red.lock().give_up(&world.oracle.lines, &gone);
            for (key, mark) in &marks {
                note(|| format!("             resumes {key} at {:?}", mark.position));
                world.oracle.check_position(key, &mark.position, true);
            }
        }
        let registry = Registry::new(marks);
        let signal = Arc::<Signal>::default();
        let budget = Budget::new(self.plan.memory, Arc::clone(&signal));
        let settings = crate::recorder::settings(&self.plan.nature, MAX_LINE);
        let keeper = Keeper::new(Arc::clone(&registry), Arc::clone(&spill), settings.warm_up_reach(), store);
        let inbox = Inbox::default();
        let entrance =
            Entrance { inbox: Arc::clone(&inbox), planted: self.plan.planted, offered: Mutex::new(0) };
        let options = Options {
            root: ROOT.into(),
            tick: Duration::from_nanos(self.plan.tick),
            rescan: Duration::from_secs(10),
            start: Start::Oldest,
            per_log: self.plan.per_log,
            max_open: 1000,
            held_deleted: 1 << 30,
            last_words: false,
            own_pod: None,
        };
        let tail = Tail::new(
            SimEnv(Arc::clone(&self.world)),
            options,
            settings,
            Box::new(PathIdentity { cluster: "c1".into(), node: "n1".into(), environment: None }),
            Fanout::new(vec![Box::new(entrance)]),
            Arc::clone(&budget),
            Arc::clone(&signal),
            Arc::clone(&registry),
            spill,
        )
        .with_tap(Some(Box::new(red::Tap(Arc::clone(&self.red)))));
        let mut jitter = self.rng.fork();
        let wire = Wire::new(None, false, Fields::ALL);
        let lane = Lane::new(wire, self.plan.lane.clone(), Box::new(move || jitter.next()));
        self.world.lock().agent_lives(Arc::clone(&signal));
        self.agent = Some(Agent {
            tail: Some(tail),
            lane,
            keeper,
            registry,
            budget,
            signal,
            inbox,
            tail_due: now,
            keeper_due: now,
            retry_state: Some(now + 5 * SECOND),
            stop_by: None,
            seen_version: (u64::MAX, u64::MAX),
        });
    }

    fn end(&mut self) {
        if self.agent.is_none() || self.settling.is_some() {
            return;
        }
        {
            // Where nothing may be lost, nobody dies on whom alone a line depends.
            let world = self.world.lock();
            if self.plan.nature.strict && world.lives_by_handles() {
                drop(world);
                self.after(100 * MILLI, Event::End);
                return;
            }
        }
        if self.rng.once_in(self.plan.orderly) {
            let now = self.now();
            note(|| format!("{:>11.6} agent is told to stop", now as f64 / 1e9));
            let Some(agent) = &mut self.agent else { return };
            if agent.stop_by.is_none() {
                agent.stop_by = Some(now + GRACE);
                // What only the tail holds open is gone with it.
                self.world.lock().agent_dies();
                agent.tail = None;
                agent.lane.drain();
            }
            return;
        }
        self.end_agent();
        self.come_back();
    }

    fn finish_orderly(&mut self) {
        let (now, wall) = {
            let world = self.world.lock();
            (world.now, world.wall())
        };
        if let Some(agent) = &mut self.agent {
            if self.rng_saves.once_in(2) {
                self.red.lock().save();
            }
            agent.keeper.step(Duration::from_nanos(now), wall / SECOND, true);
        }
        self.check_marks();
        self.end_agent();
        self.come_back();
    }

    fn come_back(&mut self) {
        let (from, to) = self.plan.downtime;
        let downtime = self.rng.range(from, to);
        self.after(downtime, Event::Start);
    }

    /// kill -9, or the power goes.
    fn end_agent(&mut self) {
        let now = self.now();
        let recently = self.stored_at.iter().filter(|at| **at + 3 * SECOND >= now).count() as u64;
        self.outcome.duplicates_expected += recently;
        note(|| format!("{:>11.6} agent ends", now as f64 / 1e9));
        self.world.lock().agent_dies();
        let Some(agent) = self.agent.take() else { return };
        drop(agent);
        self.red.lock().fall_back();
        if self.rng.once_in(self.plan.power_loss) {
            self.disk.crash();
        }
        if self.rng.once_in(self.plan.corrupt) {
            let mut rng = self.rng.fork();
            self.disk.corrupt(&mut rng);
        }
    }

    fn churn(&mut self, kind: u8) {
        if self.settling.is_some() {
            return;
        }
        let mut world = self.world.lock();
        let running = world.running();
        match kind {
            0 if !running.is_empty() => {
                let log = self.rng.pick(&running);
                world.restart_after(log, 0);
            }
            1 if running.len() > 1 => {
                let log = self.rng.pick(&running);
                world.delete_after(log, 0);
            }
            2 => {
                let (namespace, pod, container) = self.rng.pick(&PODS);
                let log = world.start_pod(namespace, pod, container);
                if self.rng.once_in(2) {
                    let life = self.rng.range(300 * MILLI, 3 * SECOND);
                    world.delete_after(log, life);
                }
            }
            _ => {}
        }
    }
}
