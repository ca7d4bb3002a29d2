//! What a run is made of: the calm one that scenarios change, and whatever a seed comes up with. And what it came to.

use nodewick::data::units::{ByteSize, Span};
use nodewick::sink::lane;

use crate::chance::Rng;
use crate::disk;
use crate::loki::Limits;
use crate::oracle::Figures;
use crate::world::{Events, MILLI, Nature, SECOND};

/// What happens to requests on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Connection refused.
    Refused,
    /// No answer until the timeout; taken or not.
    Hang,
    /// Taken, and then the connection breaks.
    AckLost,
    /// The connection breaks first.
    Closed,
    /// As Loki starts and stops.
    EmptyRing,
    /// A proxy's or Loki's complaint about nothing that is in the request.
    Status(u16, &'static str),
}

/// A defect that is planted to see that the oracle finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    None,
    /// A sink settles what it has only queued.
    AcksEarly,
    /// One batch is settled and thrown away.
    DropsABatch,
    /// One byte of one read is another.
    FlipsAByte,
    /// One entry goes under another stream.
    WrongStream,
    /// Entries carry the time at which they were sent.
    SendTime,
    /// Two entries of a request change places.
    Swaps,
}

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub nature: Nature,
    pub duration: u64,
    pub pods: usize,
    /// Times at which the agent ends.
    pub kills: Vec<u64>,
    /// How long it is away, nanoseconds.
    pub downtime: (u64, u64),
    /// Stays away until the busiest log has rotated this often, instead.
    pub missed_rotations: Option<u32>,
    /// One end in so many is a power loss, is orderly, is followed by damage to the state directory.
    pub power_loss: u64,
    pub orderly: u64,
    pub corrupt: u64,
    pub disk: disk::Faults,
    /// From when on the disk fails.
    pub disk_from: u64,
    pub limits: Limits,
    pub weather: Vec<(u64, u64, Fault)>,
    /// One request in so many is taken without the agent learning it.
    pub ack_lost: u64,
    pub latency: (u64, u64),
    pub lane: lane::Config,
    pub memory: u64,
    pub per_log: u64,
    pub tick: u64,
    /// Restarts, deletions, new pods.
    pub churn: (u32, u32, u32),
    /// The agent's threads come late by up to this.
    pub sloth: u64,
    /// What the agent sent twice is bounded by what it had acknowledged within the last seconds.
    pub duplicates_bounded: bool,
    pub planted: Planted,
    /// Requests are counted, and the counts saved on one step of the reader in so many.
    pub saves: u64,
}

impl Plan {
    /// A calm run of twenty seconds: scenarios change what they are about.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            nature: Nature::default(),
            duration: 20 * SECOND,
            pods: 3,
            kills: Vec::new(),
            downtime: (SECOND, 4 * SECOND),
            missed_rotations: None,
            power_loss: 0,
            orderly: 0,
            corrupt: 0,
            disk: disk::Faults::default(),
            disk_from: 0,
            limits: Limits::default(),
            weather: Vec::new(),
            ack_lost: 0,
            latency: (MILLI, 60 * MILLI),
            lane: lane::Config::default(),
            memory: 4 << 20,
            per_log: 1 << 20,
            tick: 200 * MILLI,
            churn: (0, 0, 0),
            sloth: 3 * MILLI,
            duplicates_bounded: false,
            planted: Planted::None,
            saves: 20,
        }
    }

    /// Anything that the seed comes up with.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = Self::calm(seed);
        plan.duration = rng.range(12 * SECOND, 40 * SECOND);
        // The tap is on all the same.
        plan.nature.requests = seed % 8 != 2;
        plan.saves = [5, 50, 1000][seed as usize / 2 % 3];
        plan.pods = rng.range(1, 5) as usize;
        let nature = &mut plan.nature;
        nature.strict = !rng.once_in(4);
        nature.events = rng.pick(&[Events::Prompt, Events::Prompt, Events::Late, Events::Lost]);
        nature.pace =
            rng.pick(&[(5 * MILLI, 60 * MILLI), (20 * MILLI, 300 * MILLI), (100 * MILLI, 2 * SECOND)]);
        nature.rotate = rng.pick(&[
            (1200 * MILLI, 2 * SECOND),
            (3 * SECOND, 8 * SECOND),
            (10 * SECOND, 11 * SECOND),
            (0, 0),
        ]);
        nature.fresh_inodes = rng.once_in(4);
        nature.copies = rng.pick(&[0, 3, 20]);
        nature.long = rng.pick(&[0, 4, 20]);
        nature.torn = rng.pick(&[0, 4, 20]);
        if rng.once_in(3) {
            nature.read_error = rng.pick(&[20, 100, 500]);
        }
        if rng.once_in(3) {
            nature.open_error = rng.pick(&[20, 50, 100]);
            nature.list_error = rng.pick(&[0, 50, 100]);
            // Each failure costs a second; files must live for more than a few of them.
            nature.rotate.0 = nature.rotate.0.max(3 * SECOND).min(nature.rotate.1 * 3);
            nature.rotate.1 = if nature.rotate.1 == 0 { 0 } else { nature.rotate.1.max(8 * SECOND) };
        }
        if rng.once_in(3) {
            nature.poison = rng.pick(&[15, 80]);
        }
        for _ in 0..rng.below(4) {
            let at = rng.below(plan.duration);
            plan.kills.push(at);
        }
        plan.kills.sort_unstable();
        plan.downtime = rng.pick(&[(MILLI, SECOND), (SECOND, 6 * SECOND), (5 * SECOND, 20 * SECOND)]);
        plan.power_loss = rng.pick(&[0, 1, 2]);
        plan.orderly = rng.pick(&[0, 0, 3]);
        plan.corrupt = rng.pick(&[0, 0, 2]);
        if rng.once_in(3) {
            plan.disk = disk::Faults {
                write: rng.pick(&[0, 5, 30]),
                sync: rng.pick(&[0, 3, 30]),
                open: rng.pick(&[0, 0, 10]),
                full: rng.once_in(3),
                read_only: rng.once_in(6),
            };
        }
        if rng.once_in(3) {
            plan.limits.stream_rate = rng.pick(&[(4096.0, 16384.0), (20_000.0, 40_000.0)]);
            // As the operator must: what Loki is set to is told to the agent.
            plan.lane.stream_rate = ByteSize(plan.limits.stream_rate.0 as u64);
        }
        if rng.once_in(4) {
            plan.limits.tenant_rate = (15_000.0, 30_000.0);
        }
        if rng.once_in(4) {
            plan.limits.shard_streams = false;
        }
        if rng.once_in(5) {
            plan.limits.max_body = rng.pick(&[700, 3000]);
        }
        if rng.once_in(6) {
            plan.limits.max_streams = 2;
        }
        for _ in 0..rng.below(4) {
            let from = rng.below(plan.duration);
            let to = from + rng.range(SECOND / 2, 12 * SECOND);
            let fault = rng.pick(&[
                Fault::Refused,
                Fault::Hang,
                Fault::AckLost,
                Fault::Closed,
                Fault::EmptyRing,
                Fault::Status(503, "upstream connect error"),
                Fault::Status(429, "too many requests"),
                Fault::Status(401, "no org id"),
            ]);
            plan.weather.push((from, to, fault));
        }
        plan.ack_lost = rng.pick(&[0, 0, 5, 20]);
        plan.latency = rng.pick(&[(MILLI, 5 * MILLI), (MILLI, 80 * MILLI), (50 * MILLI, 3 * SECOND)]);
        plan.lane.max_request = ByteSize(rng.pick(&[2 << 10, 32 << 10, 1 << 20]));
        plan.lane.in_flight = rng.pick(&[1, 4]);
        plan.lane.linger = Span::millis(rng.pick(&[0, 50, 500]));
        plan.memory = rng.pick(&[256 << 10, 1 << 20, 32 << 20]);
        plan.per_log = rng.pick(&[16 << 10, 1 << 20]);
        plan.churn = (rng.below(4) as u32, rng.below(3) as u32, rng.below(4) as u32);
        plan.sloth = rng.pick(&[MILLI, 5 * MILLI, 40 * MILLI]);
        plan
    }
}

/// What a run came to.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    pub figures: Figures,
    pub lives: u32,
    pub rotations: u64,
    pub requests: u64,
    pub statuses: Vec<(u16, u64)>,
    pub masked: u64,
    /// From the end of the faults until everything was in Loki.
    pub settled_in: u64,
    /// Age of the lines that a truncation took with it.
    pub cut: Vec<u64>,
    /// Highest fill of the memory budget.
    pub held: u64,
    /// Lines received again that were not to be expected after a kill.
    pub duplicates_expected: u64,
    /// Files of the state directory and their sizes.
    pub state_files: Vec<(String, usize)>,
    pub missed: u32,
    /// Requests that were written and counted.
    pub requests_counted: u64,
    /// Requests whose bytes were gone before they could be counted again.
    pub requests_missed: u64,
    /// Debug lines that an error had to bring out, and that arrived.
    pub released: u64,
}
