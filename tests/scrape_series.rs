//! The book of series end to end: texts of pages in, final pages out.
//!
//! Expected lines are `name{labels} value @time`; what they are was read off Prometheus 2.42 `scrape/scrape.go`.

use std::sync::Arc;
use std::time::Duration;

use nodewick::data::sample::{MetricKind, Origin, OriginKind, Page, is_stale};
use nodewick::scrape::relabel::{self, Rules};
use nodewick::scrape::series::{Book, Report};
use nodewick::scrape::target::{Scheme, Target};
use nodewick::scrape::{Body, Config, Dialect, Event, Failure, Fetched, Output};

const SYNTHETIC: [&str; 5] = [
    "scrape_duration_seconds",
    "scrape_samples_post_metric_relabeling",
    "scrape_samples_scraped",
    "scrape_series_added",
    "up",
];

/// What came out, as text, and whether it keeps the promises of a final page.
#[derive(Default)]
struct Seen {
    pages: Vec<Vec<String>>,
    raw: Vec<Vec<String>>,
    exemplars: Vec<String>,
    forgotten: usize,
    last: std::collections::HashMap<String, i64>,
}

impl Seen {
    fn labels(page: &Page, sample: &nodewick::data::sample::Sample) -> String {
        let labels = page.labels_of(sample).iter();
        let labels = labels.filter(|label| page.text(label.name) != "__name__");
        let labels: Vec<String> =
            labels.map(|label| format!("{}={:?}", page.text(label.name), page.text(label.value))).collect();
        labels.join(",")
    }
}

impl Output for Seen {
    fn raw(&mut self, _target: &Arc<Target>, page: &Page, _time_unix_ms: i64) {
        let line = |sample: &nodewick::data::sample::Sample| {
            format!("{}{{{}}}", page.text(sample.name), Self::labels(page, sample))
        };
        self.raw.push(page.samples.iter().map(line).collect());
    }

    fn page(&mut self, _origin: &Arc<Origin>, page: &Page) {
        let mut lines = Vec::new();
        for sample in &page.samples {
            let names: Vec<&str> = page.labels_of(sample).iter().map(|label| page.text(label.name)).collect();
            assert!(names.is_sorted_by(|a, b| a < b), "sorted, none twice: {names:?}");
            assert!(page.labels_of(sample).iter().all(|label| !label.value.is_empty()));
            assert_eq!(page.label(sample, b"__name__"), Some(page.bytes(sample.name)));
            assert!((sample.family as usize) < page.families.len());
            let series = format!("{}{{{}}}", page.text(sample.name), Self::labels(page, sample));
            let before = self.last.insert(series.clone(), sample.time_unix_ms);
            assert!(before.is_none_or(|before| before < sample.time_unix_ms), "{series} goes back in time");
            let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
            lines.push(format!("{series} {value} @{}", sample.time_unix_ms));
            for exemplar in page.exemplars_of(sample) {
                self.exemplars.push(format!("{series} {} @{}", exemplar.value, exemplar.time_unix_ms));
            }
        }
        let mut series: Vec<&str> = lines.iter().map(|line| &line[..line.rfind(" @").unwrap()]).collect();
        series.sort_unstable();
        assert!(series.windows(2).all(|pair| pair[0] != pair[1]), "each series once: {lines:#?}");
        self.pages.push(lines);
    }

    fn forget(&mut self, _origin: &Arc<Origin>) {
        self.forgotten += 1;
    }
}

fn target(labels: &[(&str, &str)]) -> Target {
    let mut labels: Vec<(String, String)> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    labels.sort();
    Target {
        origin: Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() }),
        scheme: Scheme::Http,
        host: "10.0.0.7".to_owned(),
        port: 9090,
        path: "/metrics".to_owned(),
        pod: None,
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(10),
        honor_labels: false,
        honor_timestamps: true,
    }
}

struct Scraper {
    book: Book,
    seen: Seen,
    target: Arc<Target>,
}

impl Scraper {
    fn new(target: Target) -> Self {
        Self::with(target, &Config::default(), Rules::default())
    }

    fn with(target: Target, config: &Config, rules: Rules) -> Self {
        Self { book: Book::new(config, rules), seen: Seen::default(), target: Arc::new(target) }
    }

    fn of(&mut self, target: &Arc<Target>, time_unix_ms: i64, body: Result<Body, Failure>) -> Report {
        let took = Duration::from_millis(250);
        let fetched = Fetched { target: Arc::clone(target), time_unix_ms, took, body };
        self.book.take(Event::Fetched(fetched), &mut self.seen)
    }

    fn report(&mut self, time_unix_ms: i64, text: &str) -> Report {
        let body = Body { bytes: text.as_bytes().to_vec(), dialect: Dialect::Text };
        let target = Arc::clone(&self.target);
        self.of(&target, time_unix_ms, Ok(body))
    }

    /// The lines of the page that a scrape gives, but for the synthetic ones.
    fn scrape(&mut self, time_unix_ms: i64, text: &str) -> Vec<String> {
        self.report(time_unix_ms, text);
        self.last_page().into_iter().filter(|line| !is_synthetic(line)).collect()
    }

    fn fail(&mut self, time_unix_ms: i64) -> Vec<String> {
        let target = Arc::clone(&self.target);
        self.of(&target, time_unix_ms, Err(Failure::Status(500)));
        self.last_page()
    }

    fn remove(&mut self, time_unix_ms: i64) -> Vec<String> {
        let target = Arc::clone(&self.target);
        self.book.take(Event::Removed { target, time_unix_ms }, &mut self.seen);
        self.last_page()
    }

    fn last_page(&mut self) -> Vec<String> {
        self.seen.pages.pop().unwrap_or_default()
    }
}

fn is_synthetic(line: &str) -> bool {
    SYNTHETIC.iter().any(|name| line.starts_with(&format!("{name}{{")))
}

/// `up`, duration, scraped, after relabelling, added.
fn synthetic(page: &[String]) -> Vec<&str> {
    let lines = page.iter().filter(|line| is_synthetic(line));
    lines.map(|line| line.split("} ").nth(1).unwrap()).collect()
}

#[test]
fn the_targets_labels_are_added_and_the_scrapes_time_given() {
    let mut scraper = Scraper::new(target(&[("job", "shop/checkout"), ("instance", "shop.pod.app")]));
    let page = scraper.scrape(1000, "b{z=\"1\",a=\"2\",empty=\"\"} 3\na 4\n");
    assert_eq!(
        page,
        [
            r#"b{a="2",instance="shop.pod.app",job="shop/checkout",z="1"} 3 @1000"#,
            r#"a{instance="shop.pod.app",job="shop/checkout"} 4 @1000"#,
        ]
    );
    assert_eq!(scraper.seen.raw, [[r#"b{z="1",a="2",empty=""}"#, "a{}"]]);
}

#[test]
fn labels_that_clash_are_exported_until_the_name_is_free() {
    let mut scraper = Scraper::new(target(&[("job", "ours"), ("exported_team", "ours")]));
    let text = "a{job=\"x\"} 1\nb{job=\"x\",exported_job=\"y\"} 1\nc{exported_team=\"x\"} 1\nd{job=\"\"} 1\n\
                e{job=\"x\",exported_job=\"\"} 1\n";
    assert_eq!(
        scraper.scrape(1000, text),
        [
            r#"a{exported_job="x",exported_team="ours",job="ours"} 1 @1000"#,
            r#"b{exported_exported_job="x",exported_job="y",exported_team="ours",job="ours"} 1 @1000"#,
            r#"c{exported_exported_team="x",exported_team="ours",job="ours"} 1 @1000"#,
            r#"d{exported_team="ours",job="ours"} 1 @1000"#,
            r#"e{exported_exported_job="x",exported_team="ours",job="ours"} 1 @1000"#,
        ]
    );
}

#[test]
fn honoured_labels_win_and_an_empty_one_takes_ours_away() {
    let target = Target { honor_labels: true, ..target(&[("job", "ours"), ("zone", "z")]) };
    let mut scraper = Scraper::new(target);
    let text = "a{job=\"x\"} 1\na{job=\"\"} 2\na 3\n";
    assert_eq!(
        scraper.scrape(1000, text),
        [r#"a{job="x",zone="z"} 1 @1000"#, r#"a{zone="z"} 2 @1000"#, r#"a{job="ours",zone="z"} 3 @1000"#]
    );
    assert_eq!(
        scraper.scrape(2000, "b 1\n"),
        [
            r#"b{job="ours",zone="z"} 1 @2000"#,
            r#"a{job="x",zone="z"} stale @2000"#,
            r#"a{zone="z"} stale @2000"#,
            r#"a{job="ours",zone="z"} stale @2000"#,
        ]
    );
}

#[test]
fn a_series_that_goes_ends_at_once_and_may_come_back() {
    let mut scraper = Scraper::new(target(&[("job", "j")]));
    scraper.scrape(1000, "a 1\nb{x=\"1\"} 2\nc 3\n");
    assert_eq!(
        scraper.scrape(2000, "a 1\nc 3\n"),
        [r#"a{job="j"} 1 @2000"#, r#"c{job="j"} 3 @2000"#, r#"b{job="j",x="1"} stale @2000"#]
    );
    assert_eq!(scraper.scrape(3000, "a 1\nc 3\n"), [r#"a{job="j"} 1 @3000"#, r#"c{job="j"} 3 @3000"#]);
    assert_eq!(
        scraper.scrape(4000, "b{x=\"1\"} 9\nc 3\na 1\n"),
        [r#"b{job="j",x="1"} 9 @4000"#, r#"c{job="j"} 3 @4000"#, r#"a{job="j"} 1 @4000"#]
    );
    assert_eq!(scraper.scrape(5000, "b{x=\"1\"} 9\nc 3\na 1\n").len(), 3);
}

#[test]
fn the_same_labels_in_another_order_are_the_same_series() {
    let mut scraper = Scraper::new(target(&[]));
    scraper.scrape(1000, "a{x=\"1\",y=\"2\"} 1\n");
    assert_eq!(scraper.scrape(2000, "a{y=\"2\",x=\"1\"} 2\n"), [r#"a{x="1",y="2"} 2 @2000"#]);
    assert_eq!(scraper.scrape(3000, "a{y=\"2\",x=\"1\",z=\"\"} 3\n"), [r#"a{x="1",y="2"} 3 @3000"#]);
    // Names and values are told apart.
    assert_eq!(scraper.scrape(4000, "a{x=\"2\",y=\"1\"} 4\n").len(), 2);
}

#[test]
fn of_a_series_that_stands_twice_the_first_is_taken() {
    let mut scraper = Scraper::new(target(&[]));
    let text = "a{x=\"1\"} 1\na{x=\"1\"} 2\na{x=\"1\",y=\"\"} 3\nb 4\n";
    for time in [1000, 2000] {
        let report = scraper.report(time, text);
        assert_eq!((report.scraped, report.kept), (4, 4));
        let page = scraper.last_page();
        assert_eq!(page[..2], [format!("a{{x=\"1\"}} 1 @{time}"), format!("b{{}} 4 @{time}")]);
        assert_eq!(page.len(), 2 + 5);
    }
}

#[test]
fn the_scrape_says_how_it_went() {
    let mut scraper = Scraper::new(target(&[("job", "j"), ("Z", "before __name__")]));
    scraper.report(1000, "a 1\nb 2\n");
    let page = scraper.last_page();
    assert_eq!(page[2], r#"up{Z="before __name__",job="j"} 1 @1000"#);
    assert_eq!(synthetic(&page), ["1 @1000", "0.25 @1000", "2 @1000", "2 @1000", "2 @1000"]);
    scraper.report(2000, "a 1\nb 2\nc 3\n");
    assert_eq!(synthetic(&scraper.last_page()), ["1 @2000", "0.25 @2000", "3 @2000", "3 @2000", "1 @2000"]);
}

#[test]
fn a_failed_scrape_ends_all_series_once() {
    let mut scraper = Scraper::new(target(&[]));
    let page = scraper.fail(500);
    assert_eq!(synthetic(&page), ["0 @500", "0.25 @500", "0 @500", "0 @500", "0 @500"]);
    assert_eq!(page.len(), 5);
    scraper.scrape(1000, "a 1\nb 2\n");
    let page = scraper.fail(2000);
    assert_eq!(page[..2], ["a{} stale @2000", "b{} stale @2000"]);
    assert_eq!(synthetic(&page), ["0 @2000", "0.25 @2000", "0 @2000", "0 @2000", "0 @2000"]);
    assert_eq!(scraper.fail(3000).len(), 5);
    // Prometheus still knows them: none is added, and the one that did not come back has ended already.
    let report = scraper.report(4000, "a 1\n");
    assert_eq!(report.added, 0);
    assert_eq!(scraper.last_page().len(), 1 + 5);
    assert_eq!(scraper.scrape(5000, "c 1\n"), ["c{} 1 @5000", "a{} stale @5000"]);
}

#[test]
fn a_page_that_breaks_off_is_not_taken() {
    let mut scraper = Scraper::new(target(&[]));
    scraper.scrape(1000, "a 1\nb 2\n");
    let report = scraper.report(2000, "a 1\nnew 1\nb{ 2\n");
    assert!(matches!(report.failure, Some(Failure::Malformed { line: 3, .. })), "{:?}", report.failure);
    let page = scraper.last_page();
    assert_eq!(page[..2], ["a{} stale @2000", "b{} stale @2000"]);
    assert_eq!(synthetic(&page), ["0 @2000", "0.25 @2000", "2 @2000", "2 @2000", "1 @2000"]);
    assert_eq!(scraper.seen.raw.len(), 1);
}

#[test]
fn a_removed_target_ends_with_all_its_series_at_the_tick_that_it_missed() {
    let mut scraper = Scraper::new(target(&[("job", "j")]));
    assert!(scraper.remove(500).is_empty());
    scraper.scrape(1000, "a 1\n");
    let page = scraper.remove(2000);
    assert_eq!(page[0], r#"a{job="j"} stale @2000"#);
    assert_eq!(synthetic(&page), ["stale @2000"; 5]);
    assert_eq!(scraper.seen.forgotten, 2);
    assert_eq!(scraper.book.series(), 0);
    assert!(scraper.remove(3000).is_empty());
}

#[test]
fn a_target_that_came_back_before_it_was_removed_goes_on() {
    let mut scraper = Scraper::new(target(&[]));
    scraper.scrape(1000, "a 1\n");
    scraper.scrape(2500, "a 1\n");
    assert!(scraper.remove(2000).is_empty());
    assert_eq!(scraper.seen.forgotten, 0);
    assert_eq!(scraper.scrape(3000, "b 1\n"), ["b{} 1 @3000", "a{} stale @3000"]);
}

#[test]
fn series_that_a_successor_with_the_same_labels_has_do_not_end() {
    let mut scraper = Scraper::new(target(&[("job", "j")]));
    scraper.scrape(1000, "a 1\nb 1\n");
    let old = Arc::clone(&scraper.target);
    scraper.target = Arc::new(Target { host: "10.0.0.8".to_owned(), ..(*old).clone() });
    assert_eq!(scraper.scrape(2500, "a 5\n"), [r#"a{job="j"} 5 @2500"#, r#"b{job="j"} stale @2500"#]);
    let successor = std::mem::replace(&mut scraper.target, old);
    assert!(scraper.remove(2000).is_empty());
    // And when it goes, everything ends: nothing of the one before is left.
    scraper.target = successor;
    assert_eq!(scraper.book.series(), 1);
    let page = scraper.remove(4500);
    assert_eq!(page[0], r#"a{job="j"} stale @4500"#);
    assert_eq!(synthetic(&page), ["stale @4500"; 5]);
    assert_eq!(scraper.book.series(), 0);
}

#[test]
fn who_follows_under_the_same_labels_with_another_resource_takes_the_place_of_the_one_before() {
    let mut scraper = Scraper::new(target(&[("job", "j")]));
    scraper.scrape(1000, "a 1\n");
    let mut origin = (*scraper.target.origin).clone();
    origin.resource = vec![("k8s.pod.uid".to_owned(), "second".to_owned())];
    scraper.target = Arc::new(Target { origin: Arc::new(origin), ..(*scraper.target).clone() });
    assert_eq!(scraper.scrape(2000, "a 2\n"), [r#"a{job="j"} 2 @2000"#]);
    assert_eq!(scraper.seen.forgotten, 1, "whoever keeps something by origin lets the first one go");
}

#[test]
fn an_applications_own_up_does_not_hide_ours() {
    let mut scraper = Scraper::new(target(&[("job", "j")]));
    scraper.report(1000, "up 0\nscrape_series_added 7\nup_to_date 1\n");
    let page = scraper.last_page();
    assert_eq!(page[0], r#"up_to_date{job="j"} 1 @1000"#);
    assert_eq!(synthetic(&page), ["1 @1000", "0.25 @1000", "3 @1000", "3 @1000", "3 @1000"]);

    let mut honest = Scraper::new(Target { honor_labels: true, ..target(&[("job", "j")]) });
    honest.report(1000, "up{job=\"other\"} 0\nup 0\n");
    let page = honest.last_page();
    assert_eq!(page[..2], [r#"up{job="other"} 0 @1000"#, r#"up{job="j"} 1 @1000"#]);
}

#[test]
fn times_of_the_targets_own_are_kept_and_such_series_do_not_end() {
    let mut scraper = Scraper::new(target(&[]));
    let now = 10_000_000;
    let page = scraper.scrape(now, "a 1 9999000\nb 2\nold 1 6399999\nahead 1 10600001\nedge 1 6400000\n");
    assert_eq!(page, ["a{} 1 @9999000", "b{} 2 @10000000", "edge{} 1 @6400000"]);
    // The same again, then an older one, then a newer one.
    assert_eq!(scraper.scrape(now + 1000, "a 1 9999000\nb 2\n"), ["b{} 2 @10001000"]);
    assert_eq!(scraper.scrape(now + 2000, "a 1 9998000\nb 2\n"), ["b{} 2 @10002000"]);
    assert_eq!(scraper.scrape(now + 3000, "a 3 9999001\nb 2\n"), ["a{} 3 @9999001", "b{} 2 @10003000"]);
    // It goes without a mark; when it comes back its times still only go up.
    assert_eq!(scraper.scrape(now + 4000, "b 2\n"), ["b{} 2 @10004000"]);
    assert_eq!(scraper.scrape(now + 5000, "b 2\na 3 9999001\n"), ["b{} 2 @10005000"]);
    assert_eq!(scraper.scrape(now + 6000, "b 2\na 3 9999002\n").len(), 2);
}

#[test]
fn a_series_with_the_scrapes_time_that_states_one_later_does_not_go_back() {
    let mut scraper = Scraper::new(target(&[]));
    scraper.scrape(10_000, "a 1\n");
    assert_eq!(scraper.scrape(20_000, "a 1 9000\n").len(), 0);
    assert_eq!(scraper.scrape(30_000, "a 1 40000\n"), ["a{} 1 @40000"]);
    assert_eq!(scraper.scrape(35_000, "a 1\n").len(), 0);
    assert_eq!(scraper.scrape(45_000, "a 1\n"), ["a{} 1 @45000"]);
}

#[test]
fn times_that_are_not_honoured_are_the_scrapes() {
    let mut scraper = Scraper::new(Target { honor_timestamps: false, ..target(&[]) });
    assert_eq!(scraper.scrape(1000, "a 1 5\n"), ["a{} 1 @1000"]);
    assert_eq!(scraper.scrape(2000, "b 1\n"), ["b{} 1 @2000", "a{} stale @2000"]);
}

#[test]
fn a_clock_that_is_set_back_gives_nothing_until_it_has_caught_up() {
    let mut scraper = Scraper::new(target(&[]));
    scraper.scrape(5000, "a 1\n");
    scraper.report(4000, "a 1\n");
    scraper.report(5000, "a 1\n");
    assert!(scraper.seen.pages.is_empty());
    assert_eq!(scraper.scrape(6000, "a 1\n"), ["a{} 1 @6000"]);
}

#[test]
fn more_samples_than_allowed_are_none() {
    let config = Config { sample_limit: 2, ..Config::default() };
    let mut scraper = Scraper::with(target(&[]), &config, Rules::default());
    scraper.scrape(1000, "a 1\nb 2\n");
    let report = scraper.report(2000, "# HELP a x\na 1\nb 2\n\nc 3\nd 4\n");
    let failure = report.failure.map(|failure| failure.to_string()).unwrap_or_default();
    assert!(failure.contains("sample_limit"), "{failure}");
    let page = scraper.last_page();
    assert_eq!(page[..2], ["a{} stale @2000", "b{} stale @2000"]);
    assert_eq!(synthetic(&page), ["0 @2000", "0.25 @2000", "4 @2000", "4 @2000", "0 @2000"]);
    assert_eq!(scraper.seen.raw.len(), 1);
}

#[test]
fn labels_beyond_the_limits_fail_the_scrape() {
    let config = Config { label_limit: 3, label_value_limit: 5, ..Config::default() };
    let mut scraper = Scraper::with(target(&[("job", "j")]), &config, Rules::default());
    assert_eq!(scraper.report(1000, "a{x=\"12345\"} 1\n").failure, None);
    let Some(Failure::Limit { key, limit, .. }) = scraper.report(2000, "a{x=\"1\",y=\"2\"} 1\n").failure
    else {
        panic!("four labels with ours and the name");
    };
    assert_eq!((key, limit), ("label_limit", 3));
    let Some(Failure::Limit { key, .. }) = scraper.report(3000, "a{x=\"123456\"} 1\n").failure else {
        panic!("six bytes");
    };
    assert_eq!(key, "label_value_limit");
}

#[test]
fn above_the_limit_of_all_series_known_ones_go_on_and_new_ones_are_refused() {
    let config = Config { series_limit: 3, ..Config::default() };
    let mut scraper = Scraper::with(target(&[]), &config, Rules::default());
    scraper.scrape(1000, "a 1\nb 2\n");
    let report = scraper.report(2000, "c 3\nd 4\na 1\nb 2\nd 5\n");
    assert_eq!((report.refused, report.added, report.failure), (2, 1, None));
    assert_eq!(scraper.last_page()[..3], ["c{} 3 @2000", "a{} 1 @2000", "b{} 2 @2000"]);
    assert_eq!(scraper.book.series(), 3);
    let other = Arc::new(target(&[("job", "other")]));
    let body = Body { bytes: b"e 1\n".to_vec(), dialect: Dialect::Text };
    assert_eq!(scraper.of(&other, 2000, Ok(body)).refused, 1);
    scraper.last_page();
    // One goes, so that one may come at the next scrape.
    assert_eq!(scraper.scrape(3000, "a 1\nb 2\n").len(), 3);
    assert_eq!(scraper.scrape(4000, "a 1\nb 2\nd 5\n").len(), 3);
}

#[test]
fn rules_drop_and_rename_and_what_they_make_equal_is_one_series() {
    let rule = |source: &str, regex: &str, action| relabel::Config {
        source_labels: vec![source.to_owned()],
        regex: regex.to_owned(),
        action,
        ..relabel::Config::default()
    };
    let rules = [
        rule("__name__", "go_.*", relabel::Action::Drop),
        relabel::Config {
            action: relabel::Action::LabelDrop,
            regex: "id".to_owned(),
            ..relabel::Config::default()
        },
        relabel::Config {
            target_label: "__name__".to_owned(),
            replacement: "new".to_owned(),
            ..rule("__name__", "old", relabel::Action::Replace)
        },
    ];
    let rules = Rules::compile(&rules).expect("the rules are right");
    let mut scraper = Scraper::with(target(&[("job", "j")]), &Config::default(), rules);
    let report = scraper.report(1000, "go_x 1\na{id=\"1\"} 1\na{id=\"2\"} 2\nold 3\n");
    assert_eq!((report.scraped, report.kept), (4, 3));
    assert_eq!(scraper.last_page()[..2], [r#"a{job="j"} 1 @1000"#, r#"new{job="j"} 3 @1000"#]);
    assert_eq!(
        scraper.scrape(2000, "go_x 1\n"),
        [r#"a{job="j"} stale @2000"#, r#"new{job="j"} stale @2000"#]
    );
}

#[test]
fn an_exemplar_without_a_time_is_told_once() {
    let mut scraper = Scraper::new(target(&[]));
    let text = "# TYPE a counter\na_total 1 # {t=\"x\"} 0.5\n# EOF\n";
    let target = Arc::clone(&scraper.target);
    for (time, text) in [(1000, text), (2000, text), (3000, &text.replace("0.5", "0.6"))] {
        let body = Body { bytes: text.as_bytes().to_vec(), dialect: Dialect::OpenMetrics };
        assert_eq!(scraper.of(&target, time, Ok(body)).failure, None);
    }
    assert_eq!(scraper.seen.exemplars, ["a_total{} 0.5 @1000", "a_total{} 0.6 @3000"]);
}

#[test]
fn names_survive_any_number_of_changes() {
    let mut scraper = Scraper::new(target(&[("job", "j")]));
    // Each page has ten series, of which one goes and one comes.
    for first in 0..200 {
        let text: String = (first..first + 10).map(|n| format!("a{{n=\"{n}\"}} {n}\n")).collect();
        let page = scraper.scrape(1000 + first, &text);
        let stale: Vec<&String> = page.iter().filter(|line| line.contains("stale")).collect();
        if first > 0 {
            assert_eq!(stale, [&format!("a{{job=\"j\",n=\"{}\"}} stale @{}", first - 1, 1000 + first)]);
        }
        assert_eq!(page.len(), 10 + stale.len());
    }
    assert!(scraper.book.state_bytes() < 4096, "{} bytes", scraper.book.state_bytes());
    assert_eq!(scraper.fail(5000).len(), 10 + 5);
}

#[test]
fn pages_of_the_agents_own_are_completed_and_end_too() {
    let mut scraper = Scraper::new(target(&[]));
    let labels = vec![("cluster".to_owned(), "c".to_owned()), ("node".to_owned(), "n".to_owned())];
    let origin = Arc::new(Origin { kind: OriginKind::Red, labels, resource: Vec::new() });
    let mut make = |time, routes: &[&str]| {
        let mut page = Page::default();
        page.begin_family("red_requests_total", MetricKind::Counter, "Requests.");
        for route in routes {
            page.push_sample("red_requests_total", [("route", *route), ("node", "own")], 1.0);
        }
        scraper.book.own(&origin, &mut page, time, &mut scraper.seen);
        scraper.seen.pages.pop().unwrap_or_default()
    };
    assert_eq!(
        make(1000, &["/b", "/a"]),
        [
            r#"red_requests_total{cluster="c",node="own",route="/b"} 1 @1000"#,
            r#"red_requests_total{cluster="c",node="own",route="/a"} 1 @1000"#,
        ]
    );
    assert_eq!(
        make(2000, &["/b"]),
        [
            r#"red_requests_total{cluster="c",node="own",route="/b"} 1 @2000"#,
            r#"red_requests_total{cluster="c",node="own",route="/a"} stale @2000"#,
        ]
    );
    assert!(make(2000, &["/b"]).is_empty());
    scraper.book.forget(&origin, 3000, &mut scraper.seen);
    assert_eq!(scraper.last_page(), [r#"red_requests_total{cluster="c",node="own",route="/b"} stale @3000"#]);
    assert_eq!((scraper.seen.forgotten, scraper.book.series()), (1, 0));
}

#[test]
fn a_hundred_kubelets_take_little_memory() {
    let text = include_str!("corpus/metrics/kubelet.prom");
    let mut scraper = Scraper::new(target(&[]));
    for n in 0..100 {
        let instance = format!("10.0.0.{n}:10250");
        let target = Arc::new(target(&[("instance", &instance), ("job", "kubelet"), ("node", "n-1")]));
        for time in [1000, 2000] {
            let body = Body { bytes: text.as_bytes().to_vec(), dialect: Dialect::Text };
            let report = scraper.of(&target, time, Ok(body));
            assert_eq!((report.failure, report.scraped), (None, 1629));
            assert_eq!(scraper.last_page().len(), 1629 + 5);
        }
    }
    assert_eq!(scraper.book.series(), 162_900);
    let bytes = scraper.book.state_bytes();
    assert!(bytes < 4 << 20, "{bytes} bytes, {} a series", bytes / 162_900);
}
