//! Prometheus' protobuf: what its own tests hold, written with messages of our own.

use nodewick::data::sample::{BucketSpan, Counts, Page};
use nodewick::scrape::exposition::{Limits, NORMAL_NAN};
use nodewick::scrape::{Dialect, Failure};
use prost::Message;

use crate::messages::{
    Bucket, Counter, Exemplar, Gauge, Histogram, LabelPair, Metric, MetricFamily, Quantile, Span, Summary,
    Timestamp, Untyped,
};
use crate::support::{families, limits, read, read_within, samples};

const COUNTER: i32 = 0;
const GAUGE: i32 = 1;
const SUMMARY: i32 = 2;
const UNTYPED: i32 = 3;
const HISTOGRAM: i32 = 4;
const GAUGE_HISTOGRAM: i32 = 5;

fn wire(families: &[MetricFamily]) -> Vec<u8> {
    families.iter().flat_map(MetricFamily::encode_length_delimited_to_vec).collect()
}

fn page(families: &[MetricFamily]) -> Page {
    read(wire(families), Dialect::Protobuf).unwrap_or_else(|failure| panic!("{failure}"))
}

fn family(name: &str, kind: i32, metric: Vec<Metric>) -> MetricFamily {
    MetricFamily { name: name.into(), help: format!("Help of {name}."), kind, metric, unit: String::new() }
}

fn label(name: &str, value: &str) -> LabelPair {
    LabelPair { name: name.into(), value: value.into() }
}

fn exemplar(id: &str, value: f64, time: Option<(i64, i32)>) -> Exemplar {
    let timestamp = time.map(|(seconds, nanos)| Timestamp { seconds, nanos });
    Exemplar { label: vec![label("dummyID", id)], value, timestamp }
}

fn histogram(name: &str, kind: i32, histogram: Histogram) -> MetricFamily {
    family(name, kind, vec![Metric { histogram: Some(histogram), ..Metric::default() }])
}

fn classic() -> Histogram {
    let bucket = |cumulative_count, upper_bound, exemplar| Bucket {
        cumulative_count,
        upper_bound,
        exemplar,
        cumulative_count_float: 0.0,
    };
    Histogram {
        sample_count: 175,
        sample_sum: 0.000828,
        bucket: vec![
            bucket(2, -0.00048, None),
            bucket(4, -0.00038, Some(exemplar("59727", -0.00038, Some((1_625_851_153, 146_848_499))))),
            bucket(16, 1.0, Some(exemplar("5617", -0.000295, None))),
        ],
        ..Histogram::default()
    }
}

fn native() -> Histogram {
    let span = |offset, length| Span { offset, length };
    Histogram {
        schema: 3,
        zero_threshold: 2.938735877055719e-39,
        zero_count: 2,
        negative_span: vec![span(-162, 1), span(23, 4)],
        negative_delta: vec![1, 3, -2, -1, 1],
        positive_span: vec![span(-161, 1), span(8, 3)],
        positive_delta: vec![1, 2, -1, -1],
        ..classic()
    }
}

#[test]
fn simple_metrics_are_read() {
    let labels = vec![label("checksum", ""), label("path", "github.com/x"), label("v.1", "(devel)")];
    let gauge = Metric { label: labels, gauge: Some(Gauge { value: 1.0 }), ..Metric::default() };
    let counter = Metric {
        counter: Some(Counter {
            value: 1.546544e+06,
            exemplar: Some(exemplar("42", 12.0, Some((1_625_851_151, 233_181_499)))),
            created: Some(Timestamp { seconds: 1, nanos: 2 }),
        }),
        ..Metric::default()
    };
    let untyped =
        Metric { untyped: Some(Untyped { value: 42.0 }), timestamp_ms: 1_234_567, ..Metric::default() };
    let mut alloc = family("go_memstats_alloc_bytes_total", COUNTER, vec![counter]);
    alloc.unit = "bytes".into();
    let page = page(&[
        family("go_build_info", GAUGE, vec![gauge]),
        alloc,
        family("nothing", GAUGE, vec![]),
        family("something_untyped", UNTYPED, vec![untyped, Metric::default()]),
    ]);
    assert_eq!(
        samples(&page),
        [
            "go_build_info{checksum=\"\",path=\"github.com/x\",v.1=\"(devel)\"} 1",
            "go_memstats_alloc_bytes_total 1546544 # {dummyID=\"42\"} 12 @1625851151233",
            "something_untyped 42 @1234567",
            "something_untyped 0",
        ]
    );
    assert_eq!(
        families(&page),
        [
            "go_build_info|Gauge|Help of go_build_info.|",
            "go_memstats_alloc_bytes_total|Counter|Help of go_memstats_alloc_bytes_total.|bytes",
            "something_untyped|Unknown|Help of something_untyped.|",
        ]
    );
}

#[test]
fn a_summary_is_its_count_its_sum_and_its_quantiles() {
    let quantile = vec![
        Quantile { quantile: 0.5, value: 6.442786329648548e-07 },
        Quantile { quantile: 0.99, value: f64::NAN },
        Quantile { quantile: 1.0, value: 4.0 },
    ];
    let summary = Summary { sample_count: 262, sample_sum: 0.25, quantile, created: None };
    let metric = |summary| Metric {
        label: vec![label("service", "exponential")],
        summary: Some(summary),
        ..Metric::default()
    };
    let bare = Summary { sample_count: 42, sample_sum: 1.234, ..Summary::default() };
    let page = page(&[
        family("rpc_seconds", SUMMARY, vec![metric(summary)]),
        family("without_quantiles", SUMMARY, vec![metric(bare)]),
    ]);
    assert_eq!(
        samples(&page),
        [
            "rpc_seconds_count{service=\"exponential\"} 262",
            "rpc_seconds_sum{service=\"exponential\"} 0.25",
            "rpc_seconds{service=\"exponential\",quantile=\"0.5\"} 0.0000006442786329648548",
            "rpc_seconds{service=\"exponential\",quantile=\"0.99\"} NaN",
            "rpc_seconds{service=\"exponential\",quantile=\"1.0\"} 4",
            "without_quantiles_count{service=\"exponential\"} 42",
            "without_quantiles_sum{service=\"exponential\"} 1.234",
        ]
    );
    assert_eq!(page.samples[3].value.to_bits(), NORMAL_NAN);
}

#[test]
fn a_classic_histogram_is_its_count_its_sum_and_its_buckets() {
    let page = page(&[histogram("h", HISTOGRAM, classic())]);
    assert_eq!(
        samples(&page),
        [
            "h_count 175",
            "h_sum 0.000828",
            "h_bucket{le=\"-0.00048\"} 2",
            "h_bucket{le=\"-0.00038\"} 4 # {dummyID=\"59727\"} -0.00038 @1625851153146",
            "h_bucket{le=\"1.0\"} 16 # {dummyID=\"5617\"} -0.000295",
            "h_bucket{le=\"+Inf\"} 175",
        ]
    );
    assert!(page.histograms.is_empty());
    assert!(page.samples.iter().all(|sample| sample.family == 0));
}

#[test]
fn a_bucket_without_end_that_is_said_is_the_last() {
    let mut said = classic();
    said.bucket[2].upper_bound = f64::INFINITY;
    said.bucket.push(Bucket { upper_bound: 7.0, ..Bucket::default() });
    let page = page(&[histogram("h", GAUGE_HISTOGRAM, said)]);
    assert_eq!(samples(&page)[4], "h_bucket{le=\"+Inf\"} 16 # {dummyID=\"5617\"} -0.000295");
    assert_eq!(page.samples.len(), 5);
}

#[test]
fn float_counts_win_over_integers() {
    let mut float = Histogram { sample_count_float: 17.5, ..classic() };
    float.bucket[0].cumulative_count_float = 2.5;
    let page = page(&[histogram("h", HISTOGRAM, float)]);
    assert_eq!(samples(&page)[0], "h_count 17.5");
    assert_eq!(
        samples(&page)[2..4],
        [
            "h_bucket{le=\"-0.00048\"} 2.5".to_owned(),
            "h_bucket{le=\"-0.00038\"} 4 # {dummyID=\"59727\"} -0.00038 @1625851153146".to_owned(),
        ]
    );
    assert_eq!(samples(&page)[5], "h_bucket{le=\"+Inf\"} 17.5");
}

#[test]
fn a_native_histogram_is_one_sample() {
    for (kind, gauge) in [(HISTOGRAM, false), (GAUGE_HISTOGRAM, true)] {
        let page = page(&[histogram("h", kind, native())]);
        // Of the classic buckets' exemplars only the one with a time.
        assert_eq!(samples(&page), ["h 0.000828 # {dummyID=\"59727\"} -0.00038 @1625851153146"]);
        let histogram = page.histogram_of(&page.samples[0]).expect("native");
        assert_eq!(
            *histogram,
            nodewick::data::sample::Histogram {
                counts: Counts::Integer {
                    count: 175,
                    zero: 2,
                    negative: vec![1, 3, -2, -1, 1],
                    positive: vec![1, 2, -1, -1],
                },
                sum: 0.000828,
                schema: 3,
                zero_threshold: 2.938735877055719e-39,
                negative_spans: vec![
                    BucketSpan { offset: -162, length: 1 },
                    BucketSpan { offset: 23, length: 4 }
                ],
                positive_spans: vec![
                    BucketSpan { offset: -161, length: 1 },
                    BucketSpan { offset: 8, length: 3 }
                ],
                gauge,
            }
        );
    }
}

#[test]
fn a_native_histogram_of_floats_is_read() {
    let float = Histogram {
        sample_count_float: 5.0,
        sample_sum: 12.1,
        schema: 3,
        positive_span: vec![Span { offset: 8, length: 2 }],
        positive_count: vec![2.0, 3.0],
        ..Histogram::default()
    };
    let page = page(&[histogram("h", HISTOGRAM, float)]);
    let Counts::Float { count, zero, negative, positive } = &page.histograms[0].counts else {
        panic!("not of floats");
    };
    assert_eq!((*count, *zero, negative.len(), positive.as_slice()), (5.0, 0.0, 0, &[2.0, 3.0][..]));
}

#[test]
fn an_empty_span_makes_a_histogram_native() {
    let empty = Histogram { positive_span: vec![Span::default()], ..Histogram::default() };
    let page = page(&[histogram("h", HISTOGRAM, empty)]);
    assert_eq!(samples(&page), ["h 0"]);
    assert_eq!(page.histograms[0].positive_spans, [BucketSpan { offset: 0, length: 0 }]);
}

#[test]
fn a_native_histograms_own_exemplars_come_oldest_first_and_with_a_time() {
    let own = Histogram {
        exemplars: vec![
            exemplar("59772", -0.00052, Some((1_625_851_160, 156_848_499))),
            exemplar("5617", -0.00029, None),
            exemplar("59780", -0.00039, Some((1_625_851_155, 146_848_499))),
        ],
        ..native()
    };
    let page = page(&[histogram("h", HISTOGRAM, own)]);
    assert_eq!(
        samples(&page),
        [
            "h 0.000828 # {dummyID=\"59780\"} -0.00039 @1625851155146 # {dummyID=\"59772\"} -0.00052 @1625851160156"
        ]
    );
    assert_eq!(page.samples[0].exemplar, 1);
}

#[test]
fn metrics_of_a_family_share_their_bounds() {
    let metric = |path: &str| Metric {
        label: vec![label("path", path)],
        histogram: Some(classic()),
        ..Metric::default()
    };
    let page = page(&[family("h", HISTOGRAM, vec![metric("/a"), metric("/b")])]);
    assert_eq!(samples(&page)[8], "h_bucket{path=\"/b\",le=\"-0.00048\"} 2");
    let bound = |sample: usize| page.labels_of(&page.samples[sample])[1];
    assert_eq!(bound(2), bound(8));
}

fn refusal(families: &[MetricFamily]) -> String {
    read(wire(families), Dialect::Protobuf).expect_err("malformed").to_string()
}

#[test]
fn what_prometheus_refuses_is_refused_with_the_number_of_the_message() {
    let good = || family("good", GAUGE, vec![Metric::default()]);
    let twice = Metric { label: vec![label("le", "1")], histogram: Some(classic()), ..Metric::default() };
    let unfit = Histogram { positive_delta: vec![1, 2], ..native() };
    let below = Histogram { positive_delta: vec![1, 2, -4, 0], ..native() };
    let over = Histogram { positive_delta: vec![i64::MAX, 0, 0, 1], ..native() };
    let schema = Histogram { schema: 9, ..native() };
    for (bad, expected) in [
        (family("", GAUGE, vec![Metric::default()]), "expected a name that is not empty"),
        (family("m", 6, vec![Metric::default()]), "expected a metric type"),
        (
            family("m", GAUGE, vec![Metric { label: vec![label("", "x")], ..Metric::default() }]),
            "expected a name that is not empty",
        ),
        (family("m", HISTOGRAM, vec![twice]), "expected every label once"),
        (histogram("m", HISTOGRAM, unfit), "expected as many native buckets as their spans have"),
        (histogram("m", HISTOGRAM, below), "expected no native bucket below zero"),
        (histogram("m", HISTOGRAM, over), "expected no native bucket below zero"),
        (histogram("m", HISTOGRAM, schema), "expected a native histogram's schema from -4 to 8"),
    ] {
        let said = refusal(&[good(), bad]);
        assert!(said.starts_with("line 2, column ") && said.contains(expected), "{said}");
    }
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let mut whole = wire(&[histogram("h", HISTOGRAM, native()), histogram("c", HISTOGRAM, classic())]);
    assert!(read(whole.clone(), Dialect::Protobuf).is_ok());
    let first = wire(&[histogram("h", HISTOGRAM, native())]).len();
    while whole.len() > 1 {
        whole.pop();
        let read = read(whole.clone(), Dialect::Protobuf);
        assert_eq!(read.is_ok(), whole.len() == first, "{} bytes", whole.len());
    }
    assert_eq!(read(Vec::new(), Dialect::Protobuf).expect("nothing").samples.len(), 0);
}

#[test]
fn strings_that_are_no_text_are_refused() {
    let mut body = wire(&[family("xyz", GAUGE, vec![Metric::default()])]);
    let place = body.windows(3).position(|three| three == b"xyz").expect("the name");
    body[place + 1] = 0xff;
    let failure = read(body, Dialect::Protobuf).expect_err("malformed").to_string();
    assert!(failure.starts_with("line 1, column 5: expected UTF-8"), "{failure}");
}

#[test]
fn limits_hold_for_what_is_expanded() {
    let within = |families: &[MetricFamily], limits: &Limits| match read_within(
        wire(families),
        Dialect::Protobuf,
        limits,
    ) {
        Err(Failure::Limit { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    let few = Limits { samples: 5, ..limits() };
    assert_eq!(within(&[histogram("h", HISTOGRAM, classic())], &few), "sample_limit");
    let labels = Limits { labels: 0, ..limits() };
    assert_eq!(within(&[histogram("h", HISTOGRAM, classic())], &labels), "label_limit");
    // 16 buckets or spans a sample.
    let many = Histogram {
        positive_span: vec![Span { offset: 0, length: 16 }],
        positive_delta: vec![0; 16],
        ..Histogram::default()
    };
    let one = Limits { samples: 1, ..limits() };
    assert_eq!(within(&[histogram("h", HISTOGRAM, many)], &one), "sample_limit");
}
