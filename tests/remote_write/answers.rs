//! What the sink makes of answers: nothing lost that a receiver would take, nothing sent for ever that it would not.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nodewick::data::units;
use nodewick::sink::http::Auth;
use nodewick::sink::remote_write::Protocol;
use nodewick::sink::said;

use super::pages::{Builder, Sink, config, load, lost, origin, samples};
use super::support::remote_write::{Receiver, Reply, Seen};

const AT: i64 = 1_800_000_000_000;

/// A counter for a rule.
fn turns() -> impl FnMut() -> usize + Send {
    let turn = AtomicUsize::new(0);
    move || turn.fetch_add(1, Ordering::Relaxed)
}

/// Refuses requests in which a series is called one of these, whole, as Prometheus does.
fn poisoned_by(names: &'static [&'static str], status: u16) -> impl FnMut(&Seen) -> Reply + Send {
    move |seen| match seen.series.iter().find(|series| names.contains(&series.label("series"))) {
        Some(series) => {
            Reply::saying(status, &format!("out of order sample: series {}", series.label("series")))
        }
        None => Reply::status(204),
    }
}

#[test]
fn requests_that_fail_are_sent_again_until_they_arrive() {
    let mut turn = turns();
    let receiver = Receiver::start(move |_| match turn() {
        0 | 1 => Reply::status(503),
        2 => Reply { close: true, ..Reply::default() },
        3 => Reply::status(500),
        _ => Reply::status(200),
    });
    let mut sink = Sink::start("rw.again", &config(&receiver.url()));
    sink.page(&origin("a"), &load(&origin("a"), 10, 0.0, AT));
    sink.end();
    assert_eq!(receiver.statuses(), [503, 503, 0, 500, 200]);
    assert_eq!(receiver.taken().len(), 10);
    assert_eq!((samples("rw.again", "delivered"), samples("rw.again", "retried")), (10, 40));
    assert_eq!((samples("rw.again", "dropped"), samples("rw.again", "refused")), (0, 0));
    assert!(said::all().iter().any(|said| said.sink == "rw.again" && said.error == "status 500"));
}

#[test]
fn a_receiver_that_asks_for_patience_gets_it() {
    let mut turn = turns();
    let receiver = Receiver::start(move |_| match turn() {
        0 => Reply::saying(429, "slow down").with("Retry-After", 2),
        _ => Reply::status(204),
    });
    let mut sink = Sink::start("rw.429", &config(&receiver.url()));
    sink.page(&origin("a"), &load(&origin("a"), 10, 0.0, AT));
    sink.end();
    let seen = receiver.seen();
    assert_eq!(receiver.statuses(), [429, 204]);
    assert!(seen[1].at.duration_since(seen[0].at) >= Duration::from_secs(2));
    assert_eq!(samples("rw.429", "delivered"), 10);
}

#[test]
fn one_refused_series_among_thousands_is_found() {
    let receiver = Receiver::start(poisoned_by(&["17", "1400"], 400));
    let mut sink = Sink::start("rw.poison", &config(&receiver.url()));
    sink.page(&origin("a"), &load(&origin("a"), 2000, 0.0, AT));
    sink.end();
    let taken: Vec<String> =
        receiver.taken().iter().map(|series| series.label("series").to_owned()).collect();
    let expected: Vec<String> =
        (0..2000).map(|at| at.to_string()).filter(|name| name != "17" && name != "1400").collect();
    assert_eq!(taken, expected, "all others, each once, in order");
    assert_eq!((samples("rw.poison", "delivered"), samples("rw.poison", "refused")), (1998, 2));
    assert_eq!(lost("rw.poison", "refused"), 2);
    assert!(receiver.seen().len() <= 1 + 4 * 11, "{} requests", receiver.seen().len());
    let said = said::all().into_iter().find(|said| said.sink == "rw.poison").expect("its words are kept");
    assert_eq!(said.error, "status 400: out of order sample: series 1400");
}

#[test]
fn a_receiver_that_refuses_everything_is_not_asked_for_ever() {
    let receiver = Receiver::start(|_| Reply::saying(400, "no"));
    let mut sink = Sink::start("rw.refuse", &config(&receiver.url()));
    sink.page(&origin("a"), &load(&origin("a"), 5000, 0.0, AT));
    sink.end();
    assert_eq!(samples("rw.refuse", "refused"), 5000);
    assert!(receiver.seen().len() <= 260, "{} requests", receiver.seen().len());
}

#[test]
fn a_status_that_is_about_the_whole_request_is_not_bisected() {
    let receiver = Receiver::start(|_| Reply::status(404));
    let mut sink = Sink::start("rw.404", &config(&receiver.url()));
    sink.page(&origin("a"), &load(&origin("a"), 100, 0.0, AT));
    sink.end();
    assert_eq!(receiver.statuses(), [404]);
    assert_eq!(lost("rw.404", "refused"), 100);
}

#[test]
fn a_series_to_which_a_receiver_always_answers_500_does_not_block_the_others() {
    let receiver = Receiver::start(poisoned_by(&["5"], 500));
    let mut sink = Sink::start("rw.poison500", &config(&receiver.url()));
    sink.page(&origin("a"), &load(&origin("a"), 8, 0.0, AT));
    sink.end();
    assert_eq!(receiver.taken().len(), 7);
    assert_eq!((samples("rw.poison500", "delivered"), lost("rw.poison500", "refused")), (7, 1));
}

#[test]
fn what_is_too_large_is_halved_until_it_fits() {
    let receiver = Receiver::start(|seen| Reply::status(if seen.series.len() > 300 { 413 } else { 204 }));
    let mut sink = Sink::start("rw.413", &config(&receiver.url()));
    sink.page(&origin("a"), &load(&origin("a"), 1000, 0.0, AT));
    sink.end();
    assert_eq!(receiver.taken().len(), 1000);
    assert_eq!(receiver.statuses(), [413, 413, 204, 204, 413, 204, 204]);
    receiver.rule(|_| Reply::status(413));
    let mut sink = Sink::start("rw.413all", &config(&receiver.url()));
    sink.page(&origin("a"), &load(&origin("a"), 2, 0.0, AT));
    sink.end();
    assert_eq!(lost("rw.413all", "too_large"), 2);
}

#[test]
fn a_rotated_token_is_read_again_and_nothing_is_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    fs::write(&file, "old").expect("a token");
    let receiver = Receiver::start(|seen| {
        let good = seen.headers.get("authorization").is_some_and(|value| value == "Bearer new");
        Reply::status(if good { 204 } else { 401 })
    });
    let mut config = config(&receiver.url());
    config.limits.max_samples = 10;
    config.auth = Auth { token_file: Some(file.clone()), ..Auth::default() };
    let mut sink = Sink::start("rw.token", &config);
    sink.page(&origin("a"), &load(&origin("a"), 10, 0.0, AT));
    receiver.wait_until(|seen| seen.len() > 1);
    fs::write(&file, "new").expect("a token");
    sink.end();
    assert_eq!(receiver.taken().len(), 10);
    assert_eq!((samples("rw.token", "delivered"), samples("rw.token", "refused")), (10, 0));
}

#[test]
fn a_full_buffer_drops_the_oldest_and_counts_each_sample_once() {
    let receiver = Receiver::start(|_| Reply::status(503));
    let mut config = config(&receiver.url());
    config.limits.buffer = units::ByteSize::mib(1);
    config.limits.max_samples = 1000;
    config.limits.shards = 1;
    let mut sink = Sink::start("rw.full", &config);
    let mut taken = 0;
    // Texts that never repeat fill it.
    for round in 0..40 {
        let mut page = Builder::new(&origin("a"), AT + round);
        for at in 0..1000 {
            page.sample("m", &[("text", &noise(round as u64 * 1000 + at))], round as f64);
        }
        sink.page(&origin("a"), &page.page);
        taken += 1000;
        if round == 0 {
            // The first is in flight from now on.
            receiver.wait_until(|seen| !seen.is_empty());
        }
    }
    let held = nodewick::metrics::SINK_QUEUE_BYTES.with_label_values(&["rw.full"]).get();
    assert!((900_000..=1 << 20).contains(&held), "{held} bytes");
    let dropped = lost("rw.full", "buffer_full");
    assert!(dropped > 20_000 && dropped < 40_000, "{dropped}");
    receiver.rule(|_| Reply::status(204));
    sink.end();
    let arrived: Vec<i64> = receiver.taken().iter().map(|series| series.samples[0].1 - AT).collect();
    assert_eq!(arrived.len() as u64 + dropped, taken);
    assert_eq!(samples("rw.full", "delivered"), arrived.len() as u64);
    assert_eq!(samples("rw.full", "dropped"), dropped);
    assert!(arrived.is_sorted());
    assert_eq!(arrived[0], 0, "what was in flight");
    assert_eq!(arrived[1000] as u64, dropped / 1000 + 1, "then the newest without a gap");
    assert_eq!(arrived.last(), Some(&39));
}

fn noise(seed: u64) -> String {
    (0..8_u64)
        .map(|at| format!("{:016x}", (seed * 8 + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)))
        .collect()
}

#[test]
fn what_waits_too_long_is_dropped_and_counted() {
    let receiver = Receiver::start(|_| Reply::status(503));
    let mut config = config(&receiver.url());
    config.limits.buffer_age = units::Span(Duration::from_millis(300));
    config.limits.max_samples = 10;
    config.limits.shards = 1;
    let mut sink = Sink::start("rw.old", &config);
    sink.page(&origin("a"), &load(&origin("a"), 100, 0.0, AT));
    sink.end();
    assert_eq!(lost("rw.old", "too_old"), 100);
    assert_eq!((samples("rw.old", "dropped"), samples("rw.old", "delivered")), (100, 0));
}

#[test]
fn a_killed_sink_counts_what_it_leaves() {
    let receiver = Receiver::start(|_| Reply::status(503));
    let mut config = config(&receiver.url());
    config.limits.max_samples = 10;
    let mut sink = Sink::start("rw.killed", &config);
    sink.page(&origin("a"), &load(&origin("a"), 95, 0.0, AT));
    receiver.wait_until(|seen| !seen.is_empty());
    sink.kill();
    assert_eq!(lost("rw.killed", "shutdown"), 95);
}

#[test]
fn a_slow_receiver_delays_and_loses_nothing() {
    let receiver = Receiver::start(|_| Reply { delay: Duration::from_millis(100), ..Reply::status(204) });
    let mut config = config(&receiver.url());
    config.limits.max_samples = 100;
    let mut sink = Sink::start("rw.slow", &config);
    for round in 0..10 {
        sink.page(&origin("a"), &load(&origin("a"), 100, 0.0, AT + round));
    }
    sink.end();
    let times: Vec<i64> = receiver.taken().iter().map(|series| series.samples[0].1 - AT).collect();
    assert_eq!(times.len(), 1000);
    assert!(times.is_sorted(), "one request in flight for each series");
}

#[test]
fn version_2_is_spoken_once_the_receiver_says_so() {
    let receiver = Receiver::start(Reply::written);
    let mut config = config(&receiver.url());
    config.protocol = Protocol::Auto;
    config.limits.max_samples = 10;
    let mut sink = Sink::start("rw.auto2", &config);
    receiver.wait_until(|seen| seen.iter().any(|seen| seen.is_v2 && seen.series.is_empty()));
    let mut rounds = 0;
    while !receiver.seen().iter().any(|seen| seen.is_v2) {
        sink.page(&origin("a"), &load(&origin("a"), 10, 0.0, AT + rounds));
        rounds += 1;
        assert!(rounds < 3000, "it is spoken");
        std::thread::sleep(Duration::from_millis(10));
    }
    sink.end();
    assert_eq!(receiver.taken().len() as i64, rounds * 10);
}

#[test]
fn receivers_of_version_1_get_version_1_however_they_answer_the_question() {
    type Answer = fn() -> Reply;
    let answers: [(&str, Answer); 4] = [
        ("rw.auto415", || Reply::status(415)),
        ("rw.auto400", || Reply::saying(400, "cannot decode")),
        ("rw.auto204", || Reply::status(204)),
        ("rw.auto200", || Reply::status(200)),
    ];
    for (name, answer) in answers {
        let receiver = Receiver::start(move |seen| if seen.is_v2 { answer() } else { Reply::status(204) });
        let mut config = config(&receiver.url());
        config.protocol = Protocol::Auto;
        let mut sink = Sink::start(name, &config);
        receiver.wait_until(|seen| seen.iter().any(|seen| seen.is_v2));
        sink.page(&origin("a"), &load(&origin("a"), 10, 0.0, AT));
        sink.end();
        let seen = receiver.seen();
        assert!(seen.len() == 1 && !seen[0].is_v2 && seen[0].series.len() == 10, "{name}");
    }
}

/// Speaks version 2 for the question, and then as `later` says.
fn changes_its_mind(later: fn(&Seen) -> Reply) -> impl FnMut(&Seen) -> Reply + Send {
    move |seen| if seen.series.is_empty() { Reply::written(seen) } else { later(seen) }
}

#[test]
fn a_receiver_that_no_longer_takes_version_2_gets_the_same_samples_in_version_1() {
    type Later = fn(&Seen) -> Reply;
    let laters: [(&str, Later); 3] = [
        ("rw.down415", |seen| Reply::status(if seen.is_v2 { 415 } else { 204 })),
        // It ignores the content type and reads an empty request.
        ("rw.down204", |_| Reply::status(204)),
        // Success, and nothing written.
        ("rw.down0", |seen| {
            let reply = Reply::status(200);
            if seen.is_v2 { reply.with("X-Prometheus-Remote-Write-Samples-Written", 0) } else { reply }
        }),
    ];
    for (name, later) in laters {
        let receiver = Receiver::start(changes_its_mind(later));
        let mut config = config(&receiver.url());
        config.protocol = Protocol::Auto;
        config.limits.max_samples = 10;
        let mut sink = Sink::start(name, &config);
        receiver.wait_until(|seen| !seen.is_empty());
        let mut rounds = 0;
        while !receiver.seen().iter().any(|seen| seen.is_v2) {
            sink.page(&origin("a"), &load(&origin("a"), 10, 0.5, AT + rounds));
            rounds += 1;
            assert!(rounds < 3000, "{name}: version 2 is tried");
            std::thread::sleep(Duration::from_millis(10));
        }
        sink.end();
        let taken: Vec<_> =
            receiver.seen().into_iter().filter(|seen| !seen.is_v2).flat_map(|seen| seen.series).collect();
        let times: Vec<i64> = taken.iter().map(|series| series.samples[0].1 - AT).collect();
        assert_eq!(times, (0..rounds).flat_map(|round| [round; 10]).collect::<Vec<_>>(), "{name}");
        assert_eq!(taken.last().map(|series| f64::from_bits(series.samples[0].0)), Some(9.5));
        assert_eq!(samples(name, "delivered") as i64, rounds * 10);
    }
}

#[test]
fn a_receiver_of_version_2_alone_gets_what_was_written_in_version_1() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let receiver = Receiver::start(move |seen| {
        if seen.is_v2 {
            if seen.series.is_empty() && count.fetch_add(1, Ordering::Relaxed) == 0 {
                // The question is lost, so that the first samples are written before it is answered.
                return Reply { close: true, ..Reply::default() };
            }
            return Reply::written(seen);
        }
        Reply::status(415)
    });
    let mut config = config(&receiver.url());
    config.protocol = Protocol::Auto;
    let mut sink = Sink::start("rw.only2", &config);
    sink.page(&origin("a"), &load(&origin("a"), 10, 0.5, AT));
    sink.end();
    let taken = receiver.taken();
    assert_eq!(taken.len(), 10);
    assert_eq!(taken[3].label("series"), "3");
    assert_eq!(taken[3].samples, [(3.5_f64.to_bits(), AT)]);
}

#[test]
fn a_configured_version_that_is_not_spoken_is_refused_and_said() {
    let receiver = Receiver::of_v1();
    let mut config = config(&receiver.url());
    config.protocol = Protocol::V2;
    let mut sink = Sink::start("rw.fixed2", &config);
    sink.page(&origin("a"), &load(&origin("a"), 10, 0.0, AT));
    sink.end();
    assert_eq!(lost("rw.fixed2", "unsupported"), 10);
    assert_eq!(receiver.statuses(), [415]);
}

#[test]
fn a_partial_write_of_version_2_counts_what_was_written() {
    let receiver = Receiver::start(|_| {
        Reply::saying(400, "3 samples out of order").with("X-Prometheus-Remote-Write-Samples-Written", 7)
    });
    let mut config = config(&receiver.url());
    config.protocol = Protocol::V2;
    let mut sink = Sink::start("rw.partial", &config);
    sink.page(&origin("a"), &load(&origin("a"), 10, 0.0, AT));
    sink.end();
    assert_eq!(receiver.statuses(), [400], "it is not sent again");
    assert_eq!((samples("rw.partial", "delivered"), lost("rw.partial", "refused")), (7, 3));
}

#[test]
fn a_poisoned_request_of_version_2_is_bisected_too() {
    let receiver = Receiver::start(|seen| {
        if seen.series.iter().any(|series| series.label("series") == "42") {
            Reply::saying(400, "invalid")
        } else {
            Reply::written(seen)
        }
    });
    let mut config = config(&receiver.url());
    config.protocol = Protocol::V2;
    config.send_metadata = true;
    let mut sink = Sink::start("rw.poison2", &config);
    sink.page(&origin("a"), &load(&origin("a"), 100, 0.0, AT));
    sink.end();
    let taken = receiver.taken();
    assert_eq!(taken.len(), 99);
    for series in &taken {
        let number: f64 = series.label("series").parse().expect("a number");
        assert_eq!(series.samples, [(number.to_bits(), AT)]);
        assert_eq!(series.metadata, Some((2, "Load.".to_owned(), String::new())));
    }
}
