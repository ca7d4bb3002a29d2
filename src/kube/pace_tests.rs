//! The pace of one node, and of 5,000.

use super::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A pace by seed.
fn pace(seed: u64) -> Pace {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    Pace::new(Box::new(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }))
}

#[test]
fn failures_are_spread_and_grow_to_a_minute() {
    let mut pace = pace(1);
    let waits: Vec<Duration> = (0..12).map(|_| pace.after(Outcome::Failed(None), secs(0)).most).collect();
    for (n, wait) in waits.iter().enumerate() {
        let base = secs(1 << n.min(6)).min(secs(60));
        assert!(*wait >= base / 2 && *wait <= (base * 3 / 2).min(secs(60)), "{n}: {wait:?}");
    }
    pace.succeed();
    assert!(pace.after(Outcome::Failed(None), secs(0)).most <= Duration::from_millis(1500));
}

#[test]
fn a_server_that_says_when_to_come_back_is_obeyed_to_five_minutes() {
    let mut pace = pace(2);
    let wait = pace.after(Outcome::Failed(Some(secs(30))), secs(0));
    assert!(wait.most >= secs(30) && wait.most <= secs(38), "{wait:?}");
    assert_eq!(wait.most, wait.wanted, "whoever waits meanwhile");
    let wait = pace.after(Outcome::Failed(Some(secs(86_400))), secs(0)).most;
    assert!(wait >= secs(300) && wait <= secs(375), "{wait:?}");
}

#[test]
fn lists_that_follow_each_other_stand_further_and_further_apart() {
    let mut pace = pace(3);
    let (mut now, mut lists) = (secs(0), Vec::new());
    while now < secs(3600) {
        pace.after(Outcome::Listed, now);
        lists.push(now);
        // Every watch is answered 410 at once, and a log always waits.
        now += pace.after(Outcome::Expired, now).wanted;
    }
    let first = lists.iter().filter(|at| **at < secs(300)).count();
    assert!(first <= 7, "{first} lists in the first five minutes");
    let later = lists.iter().filter(|at| **at >= secs(1800)).count();
    assert!(later <= 6, "{later} lists in the last half hour");
}

#[test]
fn one_expiry_is_answered_within_two_seconds_where_a_log_waits() {
    let mut pace = pace(4);
    pace.after(Outcome::Listed, secs(0));
    let wait = pace.after(Outcome::Expired, secs(100));
    assert!(wait.wanted <= secs(2), "{wait:?}");
    assert!(wait.most <= secs(60), "{wait:?}");
}

#[test]
fn watches_end_five_to_ten_minutes_after_they_began() {
    let mut pace = pace(5);
    let all: Vec<Duration> = (0..1000).map(|_| pace.watch_timeout()).collect();
    assert!(all.iter().all(|time| (secs(300)..=secs(600)).contains(time)));
    assert!(all.iter().any(|time| *time < secs(320)) && all.iter().any(|time| *time > secs(580)));
}

/// What reaches the server of a cluster, second by second.
fn arrivals(first: impl Fn(&mut Pace) -> Duration, answered: impl Fn(u64, u32) -> bool) -> Vec<u32> {
    let mut seconds = vec![0_u32; 600];
    let mut nodes: Vec<(Duration, Pace)> = (0..5000)
        .map(|seed| {
            let mut pace = pace(seed + 17);
            (first(&mut pace), pace)
        })
        .collect();
    // Second by second, so that what the server takes in each is known.
    for second in 0..600_u64 {
        let mut taken = 0;
        for (due, pace) in &mut nodes {
            if due.as_secs() != second || *due == Duration::MAX {
                continue;
            }
            seconds[second as usize] += 1;
            if answered(second, taken) {
                taken += 1;
                *due = Duration::MAX;
            } else {
                // 429 with Retry-After: 1, as API Priority and Fairness answers.
                let wait = pace.after(Outcome::Failed(Some(Duration::from_secs(1))), *due).most;
                *due = (*due + wait).max(Duration::from_secs(second + 1));
            }
        }
    }
    assert!(nodes.iter().all(|(due, _)| *due == Duration::MAX), "some node has no list after ten minutes");
    seconds
}

#[test]
fn five_thousand_nodes_whose_place_to_resume_from_is_gone_list_over_a_minute() {
    let expire = |pace: &mut Pace| {
        pace.after(Outcome::Listed, Duration::ZERO);
        pace.after(Outcome::Expired, Duration::ZERO).most
    };
    let seconds = arrivals(expire, |_, _| true);
    assert_eq!(seconds.iter().sum::<u32>(), 5000);
    let (worst, last) = (*seconds.iter().max().expect("some"), seconds.iter().rposition(|n| *n > 0));
    assert!(worst <= 130, "{worst} lists in one second");
    assert_eq!(last, Some(59));
}

#[test]
fn five_thousand_nodes_that_start_together_are_all_served_by_a_server_that_takes_a_hundred_a_second() {
    let seconds = arrivals(|_| Duration::ZERO, |_, taken| taken < 100);
    let last = seconds.iter().rposition(|n| *n > 0).expect("some");
    let asked: u32 = seconds.iter().sum();
    // 5,000 lists at a hundred a second are 50 s at best.
    assert!((49..240).contains(&last), "the last list in second {last}");
    assert!(asked <= 5000 * 8, "{asked} requests for 5,000 lists");
    let crowd = seconds[60..].iter().max().copied().unwrap_or(0);
    assert!(crowd <= 500, "{crowd} requests in one second after the first minute");
}
