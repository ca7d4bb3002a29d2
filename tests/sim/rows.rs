//! The rows of the fault table that a simulation can show, one scenario each, over a few seeds.

use nodewick::data::units::ByteSize;

use crate::chance::Rng;
use crate::disk::Faults;
use crate::plan::{Fault, Outcome, Plan, Planted};
use crate::run::Sim;
use crate::world::{Events, MILLI, SECOND};
use crate::{METRICS, attempt};

/// Runs `change` over seeds and looks at each outcome.
pub fn over(seeds: std::ops::Range<u64>, change: impl Fn(&mut Plan), look: impl Fn(&Outcome)) {
    let _shared = METRICS.read();
    for seed in seeds {
        let plan = || {
            let mut plan = Plan::calm(seed);
            change(&mut plan);
            plan
        };
        match attempt(&|| Sim::new(plan())) {
            Ok(outcome) => {
                assert!(outcome.figures.written > 0, "seed {seed}: nothing was written");
                look(&outcome);
            }
            Err(failure) => panic!("{failure}\nseed {seed} of this scenario: {:?}", plan()),
        }
    }
}

fn nothing_excused(outcome: &Outcome) {
    assert_eq!(outcome.figures.excused, 0, "{outcome:?}");
}

#[test]
fn row_1_rotation_under_load_loses_and_repeats_nothing() {
    let change = |plan: &mut Plan| {
        plan.nature.rotate = (1200 * MILLI, 2 * SECOND);
        plan.nature.pace = (2 * MILLI, 20 * MILLI);
    };
    over(0..4, change, |outcome| {
        nothing_excused(outcome);
        assert!(outcome.rotations > 10);
        assert_eq!(outcome.figures.received_twice, 0);
    });
}

#[test]
fn row_2_an_agent_that_is_held_up_goes_on_in_the_compressed_file() {
    let change = |plan: &mut Plan| {
        plan.nature.rotate = (2 * SECOND, 4 * SECOND);
        plan.sloth = 250 * MILLI;
    };
    over(0..4, change, |outcome| {
        nothing_excused(outcome);
        assert_eq!(outcome.figures.received_twice, 0);
    });
}

#[test]
fn row_3_downtime_of_up_to_four_rotations_loses_nothing() {
    for rotations in 1..=4 {
        let change = |plan: &mut Plan| {
            plan.nature.rotate = (2 * SECOND, 3 * SECOND);
            plan.duration = 40 * SECOND;
            plan.kills = vec![8 * SECOND];
            plan.missed_rotations = Some(rotations);
            plan.duplicates_bounded = true;
        };
        over(0..3, change, |outcome| {
            nothing_excused(outcome);
            assert!(outcome.missed >= rotations, "{outcome:?}");
            assert_eq!(outcome.lives, 2);
        });
    }
}

#[test]
fn row_4_what_rotated_away_meanwhile_is_counted_and_nothing_stalls() {
    let _alone = METRICS.write();
    for seed in 0..4 {
        let before = nodewick::metrics::LOG_GAPS.get();
        let plan = || {
            let mut plan = Plan::calm(seed);
            plan.nature.strict = false;
            plan.nature.rotate = (2 * SECOND, 3 * SECOND);
            plan.duration = 50 * SECOND;
            plan.kills = vec![8 * SECOND];
            plan.missed_rotations = Some(8);
            plan
        };
        let outcome =
            attempt(&|| Sim::new(plan())).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        assert!(outcome.figures.excused > 0, "{outcome:?}");
        assert!(outcome.missed >= 8);
        // One a log, and no more than there are logs.
        let gaps = nodewick::metrics::LOG_GAPS.get() - before;
        assert!((1..=3).contains(&gaps), "{gaps} gaps");
    }
}

#[test]
fn row_5_copytruncate_loses_no_more_than_what_no_tick_has_seen() {
    let change = |plan: &mut Plan| {
        plan.nature.copytruncate = true;
        plan.nature.rotate = (2 * SECOND, 3 * SECOND);
    };
    over(0..4, change, |outcome| {
        let oldest = outcome.cut.iter().max().copied().unwrap_or(0);
        assert!(oldest < 700 * MILLI, "a line of {oldest} ns was cut off");
        assert_eq!(outcome.figures.received_twice, 0);
        assert!(outcome.figures.stored > outcome.figures.excused * 10);
    });
}

#[test]
fn row_6_numbers_of_files_that_are_used_again_mislead_nobody() {
    let change = |plan: &mut Plan| {
        plan.pods = 4;
        plan.nature.rotate = (1200 * MILLI, 2 * SECOND);
        plan.nature.pace = (50 * MILLI, 500 * MILLI);
        plan.nature.copies = 2;
        plan.churn = (4, 3, 6);
        plan.kills = vec![4 * SECOND, 9 * SECOND, 14 * SECOND];
    };
    over(0..8, change, nothing_excused_but_the_short);
}

fn nothing_excused_but_the_short(outcome: &Outcome) {
    assert!(outcome.figures.excused * 5 < outcome.figures.written, "{outcome:?}");
}

#[test]
fn row_7_pods_that_come_and_go_during_an_outage_are_read_to_their_end() {
    let change = |plan: &mut Plan| {
        plan.churn = (0, 4, 12);
        plan.nature.events = Events::Prompt;
        plan.weather = vec![(4 * SECOND, 14 * SECOND, Fault::Refused)];
    };
    over(0..6, change, nothing_excused_but_the_short);
}

#[test]
fn row_13_fragments_of_two_streams_are_joined_over_rotations_and_restarts() {
    let change = |plan: &mut Plan| {
        plan.nature.long = 2;
        plan.nature.torn = 4;
        plan.nature.rotate = (1200 * MILLI, 2 * SECOND);
        plan.kills = vec![7 * SECOND, 13 * SECOND];
    };
    over(0..6, change, nothing_excused);
}

#[test]
fn row_16_any_number_of_kills_loses_nothing_and_repeats_little() {
    let change = |plan: &mut Plan| {
        plan.nature.long = 0;
        plan.duration = 40 * SECOND;
        let mut rng = Rng::new(plan.seed);
        plan.kills = (0..12).map(|n| n * 3 * SECOND + rng.below(3 * SECOND)).collect();
        plan.downtime = (MILLI, SECOND);
        plan.duplicates_bounded = true;
    };
    over(0..4, change, |outcome| {
        nothing_excused(outcome);
        assert!(outcome.lives > 8, "{outcome:?}");
    });
}

#[test]
fn row_17_power_losses_cost_duplicates_only() {
    let change = |plan: &mut Plan| {
        plan.duration = 40 * SECOND;
        let mut rng = Rng::new(plan.seed);
        plan.kills = (0..10).map(|_| rng.below(plan.duration)).collect();
        plan.kills.sort_unstable();
        plan.downtime = (MILLI, SECOND);
        plan.power_loss = 1;
        plan.duplicates_bounded = true;
        plan.nature.long = 0;
    };
    over(0..4, change, nothing_excused);
}

#[test]
fn row_20_corrupt_state_costs_duplicates_only() {
    let change = |plan: &mut Plan| {
        plan.kills = vec![5 * SECOND, 9 * SECOND, 13 * SECOND];
        plan.corrupt = 1;
    };
    over(0..8, change, nothing_excused);
}

#[test]
fn row_21_the_checkpoint_advances_on_a_full_disk() {
    let change = |plan: &mut Plan| {
        plan.disk = Faults { full: true, ..Faults::default() };
        plan.disk_from = 4 * SECOND;
        plan.kills = vec![15 * SECOND];
        plan.duplicates_bounded = true;
        plan.nature.long = 0;
    };
    over(0..4, change, |outcome| {
        nothing_excused(outcome);
        assert!(outcome.lives == 2 && outcome.figures.stored > 200, "{outcome:?}");
    });
}

#[test]
fn row_22_failing_syncs_and_a_read_only_disk_make_nothing_durable_that_is_not() {
    for faults in [
        Faults { sync: 2, ..Faults::default() },
        Faults { sync: 1, ..Faults::default() },
        Faults { write: 3, sync: 3, open: 5, ..Faults::default() },
        Faults { read_only: true, ..Faults::default() },
    ] {
        let change = |plan: &mut Plan| {
            plan.disk = faults;
            plan.disk_from = 3 * SECOND;
            plan.kills = vec![9 * SECOND, 15 * SECOND];
            plan.power_loss = 1;
        };
        over(0..3, change, nothing_excused);
    }
}

#[test]
fn row_24_an_outage_of_an_hour_with_a_kill_in_it_is_spilled() {
    let change = |plan: &mut Plan| {
        plan.pods = 2;
        plan.duration = 4000 * SECOND;
        plan.tick = SECOND;
        plan.nature.strict = false;
        plan.nature.pace = (SECOND, 3 * SECOND);
        plan.nature.rotate = (300 * SECOND, 400 * SECOND);
        plan.weather = vec![(100 * SECOND, 3700 * SECOND, Fault::Refused)];
        plan.kills = vec![3000 * SECOND];
    };
    over(0..2, change, nothing_excused);
}

#[test]
fn row_46_two_replicas_catch_up_after_two_hours_and_none_is_too_far_behind() {
    let change = |plan: &mut Plan| {
        plan.pods = 2;
        plan.duration = 7600 * SECOND;
        plan.tick = SECOND;
        plan.sloth = 50 * MILLI;
        plan.nature.races = false;
        plan.nature.rotate = (0, 0);
        plan.nature.pace = (4 * SECOND, 12 * SECOND);
        plan.weather = vec![(200 * SECOND, 7400 * SECOND, Fault::Refused)];
        plan.per_log = 16 << 10;
        plan.kills = if plan.seed.is_multiple_of(2) { Vec::new() } else { vec![7000 * SECOND] };
    };
    over(0..2, change, |outcome| {
        nothing_excused(outcome);
        assert_eq!(outcome.figures.refused, 0);
    });
}

#[test]
fn row_47_no_success_hides_a_refusal() {
    let change = |plan: &mut Plan| {
        plan.pods = 5;
        plan.nature.pace = (5 * MILLI, 40 * MILLI);
        plan.limits.stream_rate = (12_000.0, 30_000.0);
        plan.lane.stream_rate = ByteSize(12_000);
        plan.limits.shard_streams = plan.seed.is_multiple_of(2);
        plan.weather = vec![(3 * SECOND, 8 * SECOND, Fault::EmptyRing)];
    };
    over(0..4, change, |outcome| {
        nothing_excused(outcome);
        assert!(outcome.statuses.iter().any(|(status, _)| *status == 429), "{outcome:?}");
    });
}

#[test]
#[ignore = "known: a limit lower than the configured one can be hidden behind a 204 before it is learned"]
fn row_47_no_success_hides_a_refusal_by_a_limit_lower_than_configured() {
    let change = |plan: &mut Plan| {
        plan.pods = 5;
        plan.nature.pace = (5 * MILLI, 40 * MILLI);
        plan.limits.stream_rate = (20_000.0, 40_000.0);
        plan.weather = vec![(3 * SECOND, 8 * SECOND, Fault::EmptyRing)];
    };
    over(0..40, change, nothing_excused);
}

#[test]
fn poison_lost_acknowledgements_and_small_limits_cost_the_poison_only() {
    let change = |plan: &mut Plan| {
        plan.nature.poison = 40;
        plan.ack_lost = 6;
        plan.limits.max_body = 3000;
        plan.limits.tenant_rate = (30_000.0, 60_000.0);
    };
    over(0..4, change, |outcome| {
        nothing_excused(outcome);
        assert!(outcome.figures.refused > 0);
        assert_eq!(outcome.figures.refused + outcome.figures.stored, outcome.figures.written);
    });
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let _shared = METRICS.read();
    let run = || Sim::new(Plan::random(12)).run().map(|outcome| format!("{outcome:?}"));
    assert_eq!(run(), run());
}

/// Every planted defect is found, by the rule that is meant to find it.
#[test]
fn the_oracle_finds_every_planted_defect() {
    let _shared = METRICS.read();
    for (planted, complaint) in [
        (Planted::AcksEarly, "passes a line that Loki does not have"),
        (Planted::DropsABatch, "passes a line that Loki does not have"),
        (Planted::FlipsAByte, "corrupt"),
        (Planted::WrongStream, "misattributed"),
        (Planted::SendTime, "stored twice"),
        (Planted::Swaps, "out of order"),
    ] {
        let found = (0..3).any(|seed| {
            let mut plan = Plan::calm(seed);
            plan.planted = planted;
            plan.kills = vec![7 * SECOND, 12 * SECOND];
            let result = Sim::new(plan).run();
            result.is_err_and(|failure| failure.contains(complaint))
        });
        assert!(found, "{planted:?} was not found");
    }
}

#[test]
fn syncs_that_lie_are_found_by_the_bound_on_duplicates() {
    let _shared = METRICS.read();
    let mut plan = Plan::calm(1);
    plan.nature.long = 0;
    plan.kills = vec![15 * SECOND];
    plan.power_loss = 1;
    plan.duplicates_bounded = true;
    assert!(Sim::new(plan.clone()).run().is_ok());
    let sim = Sim::new(plan);
    sim.disk().forget_syncs();
    let failure = sim.run().expect_err("nothing was durable");
    assert!(failure.contains("received twice"), "{failure}");
}
