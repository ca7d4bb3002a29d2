//! The account against literals, and the ledger's sums against a model.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::data::delivery::{Reason, Ticket};
use crate::data::position::Position;

fn at(ordinal: u64, offset: u64) -> Position {
    Position { ordinal, offset, ..Position::default() }
}

fn container() -> ContainerRef {
    ContainerRef::from_path("shop_api-0_u1", "api", 2).expect("a pod's directory")
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn drops(reason: Dropping, records: u64, bytes: u64) -> Drops {
    let mut drops = Drops::default();
    drops[reason as usize] = Tally { records, bytes };
    drops
}

#[test]
fn an_account_balances_and_says_how_long_there_is() {
    let ledger = Ledger::new(at(1, 0), Arc::default());
    let sight = Sight::default();
    sight.look(secs(0.0), Look { written_bytes: 1000, ..Look::default() });
    sight.look(
        secs(10.0),
        Look {
            written_bytes: 2000,
            waiting_bytes: 1200,
            spilled_bytes: 200,
            headroom_bytes: 11_200,
            newest_ordinal: 3,
            ..Look::default()
        },
    );
    ledger.count_dropped(&drops(Dropping::Sample, 2, 100));
    let first = ledger.issue(at(1, 400), 400, 10, 1).next().expect("a ticket");
    let _second = ledger.issue(at(1, 600), 200, 5, 1).next().expect("a ticket");
    let mut first_ticket = first;
    first_ticket.lose(Reason::TooOld, 1, 30);
    first_ticket.delivered();
    ledger.lose_bytes(Loss::SpillFull, 150);

    let account = Account::of(&container(), &ledger, &sight);
    let sums = &account.sums;
    assert_eq!((sums.written, sums.sent, sums.in_flight, sums.waiting), (2000, 270, 200, 1200));
    assert_eq!((sums.dropped_bytes(), sums.lost_bytes()), (100, 180));
    // 2000 = 270 + 200 + 1200 + 100 + 180 + 50.
    assert_eq!(sums.remainder(), 50);
    assert_eq!(account.generation_lag, 2);
    assert_eq!(account.write_rate, Some(100.0));
    assert_eq!(account.time_to_loss, Some(100.0));
    sight.set_unexplained(sums.remainder());
    let json = serde_json::to_value(Account::of(&container(), &ledger, &sight)).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({
            "namespace": "shop", "pod": "api-0", "uid": "u1", "container": "api", "restart": 2,
            "written_bytes": 2000, "sent_bytes": 270, "in_flight_bytes": 200, "waiting_bytes": 1200,
            "spilled_bytes": 200, "unexplained_bytes": 50, "delivered_records": 9,
            "dropped": {"sample": {"records": 2, "bytes": 100}},
            "lost": {"spill_full": {"records": 0, "bytes": 150}, "too_old": {"records": 1, "bytes": 30}},
            "generation_lag": 2, "headroom_bytes": 11_200, "write_bytes_per_second": 100.0,
            "time_to_loss_seconds": 100.0, "gone": false,
        })
    );
}

#[test]
fn a_log_that_is_not_written_has_no_time_to_loss() {
    let ledger = Ledger::new(at(0, 0), Arc::default());
    let sight = Sight::default();
    assert_eq!(sight.write_rate(), None);
    let look = Look { written_bytes: 500, waiting_bytes: 500, headroom_bytes: 10, ..Look::default() };
    sight.look(secs(0.0), look);
    assert_eq!(sight.write_rate(), None);
    sight.look(secs(2.0), look);
    let quiet = Account::of(&container(), &ledger, &sight);
    assert_eq!((quiet.write_rate, quiet.time_to_loss), (Some(0.0), None));
    sight.look(secs(4.0), Look { written_bytes: 700, ..look });
    let written = Account::of(&container(), &ledger, &sight);
    assert!(written.write_rate.is_some_and(|rate| rate > 0.0 && rate < 100.0));
    assert_eq!(written.time_to_loss, Some(0.0), "more is unread than the kubelet keeps");
    sight.set_gone();
    assert_eq!(Account::of(&container(), &ledger, &sight).time_to_loss, None);
}

#[test]
fn the_write_rate_forgets_a_burst_within_minutes() {
    let sight = Sight::default();
    let mut written = 0;
    for second in 0..=60 {
        written += 1000;
        sight.look(secs(f64::from(second)), Look { written_bytes: written, ..Look::default() });
    }
    let burst = sight.write_rate().expect("known");
    assert!((burst - 1000.0).abs() < 1e-6, "{burst}");
    // Three times the window: e⁻³ of it is left.
    for second in 61..=150 {
        sight.look(secs(f64::from(second)), Look { written_bytes: written, ..Look::default() });
    }
    let rest = sight.write_rate().expect("known");
    assert!((rest - 49.787).abs() < 0.01, "{rest}");
    for second in 151..=1000 {
        sight.look(secs(f64::from(second)), Look { written_bytes: written, ..Look::default() });
    }
    assert_eq!(sight.write_rate(), Some(0.0));
}

#[test]
fn a_log_that_was_never_looked_at_owes_nothing() {
    let ledger = Ledger::new(at(0, 0), Arc::default());
    ledger.issue(at(0, 10), 10, 1, 1).for_each(Ticket::delivered);
    let sums = Sums::of(&ledger, &Sight::default());
    assert_eq!((sums.written, sums.sent, sums.remainder()), (10, 10, 0));
}

#[test]
fn what_is_open_when_a_log_is_forgotten_is_unexplained() {
    let sums = Sums { written: 100, sent: 60, in_flight: 10, waiting: 25, ..Sums::default() }.closed();
    assert_eq!((sums.in_flight, sums.waiting, sums.unexplained), (0, 0, 40));
}

#[test]
fn the_worst_comes_first() {
    let account = |pod: &str, lag, waiting| Account {
        pod: pod.to_owned(),
        generation_lag: lag,
        sums: Sums { waiting, ..Sums::default() },
        ..Account::of(&container(), &Ledger::new(at(0, 0), Arc::default()), &Sight::default())
    };
    let mut accounts = vec![
        account("quiet", 0, 0),
        account("b", 1, 5),
        account("a", 1, 5),
        account("big", 0, 9),
        account("old", 2, 1),
    ];
    sort_worst_first(&mut accounts);
    let pods: Vec<&str> = accounts.iter().map(|account| account.pod.as_str()).collect();
    assert_eq!(pods, ["old", "a", "b", "big", "quiet"]);
    assert_eq!(accounts.iter().map(Account::is_behind).collect::<Vec<_>>(), [true, true, true, true, false]);
}

/// A step in the life of a ledger.
#[derive(Debug, Clone)]
enum Step {
    /// Reads a stretch with records, some dropped and by which reason, for so many sinks.
    Read { bytes: u64, records: u64, dropped: u64, reason: usize, sinks: u32 },
    /// Settles one of the open tickets after refusing records.
    Settle { which: prop::sample::Index, refused: u64, bytes: u64, reason: usize },
    /// Loses bytes before they are read.
    Lose { bytes: u64, reason: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..1000, 0_u64..20, 0_u64..1500, 0_usize..4, 0_u32..3).prop_map(
            |(bytes, records, dropped, reason, sinks)| Step::Read { bytes, records, dropped, reason, sinks }
        ),
        4 => (any::<prop::sample::Index>(), 0_u64..4, 0_u64..2000, 0_usize..6)
            .prop_map(|(which, refused, bytes, reason)| Step::Settle { which, refused, bytes, reason }),
        1 => (0_u64..500, 0_usize..5).prop_map(|(bytes, reason)| Step::Lose { bytes, reason }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// The model knows each stretch's life; the ledger only sums. Dropped bytes are said before their stretch, and
    /// may exceed it: then they belong to the ones after it.
    #[test]
    fn the_sums_are_those_of_a_model(steps in prop::collection::vec(step(), 0..60)) {
        struct Stretch { bytes: u64, dropped: u64, open: u32, worst: [Tally; 6] }
        let ledger = Ledger::new(at(0, 0), Arc::default());
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut tickets: Vec<(usize, Ticket)> = Vec::new();
        let (mut waiting_drops, mut placed) = ([0_u64; Dropping::COUNT], [0_u64; Dropping::COUNT]);
        let mut unread: HashMap<usize, u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Read { bytes, records, dropped, reason, sinks } => {
                    ledger.count_dropped(&drops(Dropping::ALL[reason], 1, dropped));
                    waiting_drops[reason] += dropped;
                    let mut stretch = Stretch { bytes, dropped: 0, open: sinks, worst: Default::default() };
                    for (waiting, placed) in waiting_drops.iter_mut().zip(&mut placed) {
                        let fits = (*waiting).min(bytes - stretch.dropped);
                        *waiting -= fits;
                        *placed += fits;
                        stretch.dropped += fits;
                    }
                    stretches.push(stretch);
                    let index = stretches.len() - 1;
                    tickets.extend(ledger.issue(at(0, index as u64 + 1), bytes, records, sinks).map(|t| (index, t)));
                }
                Step::Settle { which, refused, bytes, reason } if !tickets.is_empty() => {
                    let (index, mut ticket) = tickets.remove(which.index(tickets.len()));
                    if refused > 0 {
                        ticket.lose(Reason::ALL[reason], refused, bytes);
                        let stretch = &mut stretches[index];
                        if refused > Tally::sum(&stretch.worst).records {
                            stretch.worst = Default::default();
                            stretch.worst[reason] = Tally { records: refused, bytes };
                        }
                    }
                    stretches[index].open -= 1;
                    ticket.delivered();
                }
                Step::Settle { .. } => {}
                Step::Lose { bytes, reason } => {
                    ledger.lose_bytes(Loss::ALL[reason], bytes);
                    *unread.entry(reason).or_default() += bytes;
                }
            }
            let done = stretches.iter().position(|s| s.open > 0).unwrap_or(stretches.len());
            let mut lost = [Tally::default(); Loss::COUNT];
            for (reason, bytes) in &unread {
                lost[*reason].bytes += bytes;
            }
            let mut sent = 0;
            for stretch in &stretches[..done] {
                let mut room = stretch.bytes - stretch.dropped;
                for (reason, tally) in stretch.worst.iter().enumerate() {
                    let bytes = tally.bytes.min(room);
                    room -= bytes;
                    lost[5 + reason] += Tally { records: tally.records, bytes };
                }
                sent += room;
            }
            let in_flight: u64 = stretches[done..].iter().map(|s| s.bytes - s.dropped).sum();
            let sums = Sums::of(&ledger, &Sight::default());
            prop_assert_eq!(sums.lost, lost);
            prop_assert_eq!((sums.sent, sums.in_flight), (sent, in_flight));
            prop_assert_eq!(sums.dropped.map(|tally| tally.bytes), placed);
            let read: u64 = stretches.iter().map(|s| s.bytes).sum();
            let refused: u64 = lost[5..].iter().map(|tally| tally.bytes).sum();
            prop_assert_eq!(read, sent + in_flight + refused + placed.iter().sum::<u64>());
            prop_assert_eq!(ledger.committed(), at(0, done as u64));
        }
    }
}

#[test]
fn the_oldest_unread_line_came_after_what_was_read() {
    let sight = Sight::default();
    let unix = |seconds: u64| 1_795_000_000_000_000_000 + seconds * 1_000_000_000;
    assert_eq!(sight.oldest_unread(secs(1.0), unix(1)), None, "never looked at");
    let backlog = Look { waiting_bytes: 100, ..Look::default() };
    sight.look(secs(10.0), backlog);
    assert_eq!(sight.oldest_unread(secs(25.0), unix(25)), Some(secs(15.0)), "since it was found");
    // Lines of an hour ago are being read.
    sight.look(secs(30.0), Look { read_unix_nano: unix(30) - 3600 * 1_000_000_000, ..backlog });
    assert_eq!(sight.oldest_unread(secs(30.0), unix(30)), Some(secs(3600.0)));
    sight.look(secs(40.0), Look { waiting_bytes: 0, read_unix_nano: unix(39), ..backlog });
    assert_eq!(sight.oldest_unread(secs(50.0), unix(50)), None, "all is read");
    // Nothing was written for a day, then a line: it has waited since the last look at most.
    sight.look(secs(86_440.0), Look { waiting_bytes: 0, read_unix_nano: unix(39), ..backlog });
    sight.look(secs(86_441.0), Look { read_unix_nano: unix(39), ..backlog });
    assert_eq!(sight.oldest_unread(secs(86_441.0), unix(86_441)), Some(secs(1.0)));
    sight.set_gone();
    assert_eq!(sight.oldest_unread(secs(86_450.0), unix(86_450)), None, "nobody waits for it");
}
