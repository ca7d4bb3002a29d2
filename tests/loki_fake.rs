//! The fake Loki against the recorded answers of a real one: what the other tests stand on.

use nodewick::sink::Answer;
use nodewick::sink::http::{Client, Config};

#[path = "support/fake_loki.rs"]
mod fake_loki;

use fake_loki::wire::{Entry, Pair, PushRequest, Stream, Timestamp};
use fake_loki::{FakeLoki, Fault, Limits, now_unix_nano};

const SECOND: i128 = 1_000_000_000;
const MINUTE: i128 = 60 * SECOND;
const HOUR: i128 = 60 * MINUTE;
const DAY: i128 = 24 * HOUR;
const X: &str = "{case=\"x\"}";
const Y: &str = "{case=\"y\"}";

struct Bench {
    loki: FakeLoki,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

type Lines<'a> = &'a [(i128, &'a str)];

impl Bench {
    fn new(limits: Limits) -> Self {
        let loki = FakeLoki::start(limits);
        let client =
            Client::new(&format!("{}/loki/api/v1/push", loki.url()), &Config::default()).expect("valid");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { loki, client, runtime }
    }

    fn send(&self, body: Vec<u8>) -> (u16, String) {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/x-protobuf"));
        match self.runtime.block_on(self.client.post(headers, body.into())) {
            Answer::Http { status, body, .. } => (status, String::from_utf8_lossy(&body).into_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn push(&self, streams: &[(&str, Lines<'_>)]) -> (u16, String) {
        let streams = streams.iter().map(|(labels, lines)| Stream {
            labels: (*labels).to_owned(),
            entries: lines.iter().map(|(time, line)| entry(*time, line, &[])).collect(),
        });
        self.send(compressed(&PushRequest { streams: streams.collect() }))
    }
}

fn entry(time: i128, line: &str, metadata: &[(&str, &str)]) -> Entry {
    let stamp = Timestamp {
        seconds: i64::try_from(time.div_euclid(SECOND)).expect("fits"),
        nanos: i32::try_from(time.rem_euclid(SECOND)).expect("fits"),
    };
    let pair = |(name, value): &(&str, &str)| Pair { name: (*name).to_owned(), value: (*value).to_owned() };
    Entry { timestamp: Some(stamp), line: line.to_owned(), metadata: metadata.iter().map(pair).collect() }
}

fn compressed(request: &PushRequest) -> Vec<u8> {
    let raw = prost::Message::encode_to_vec(request);
    snap::raw::Encoder::new().compress_vec(&raw).expect("compresses")
}

/// Replaces each RFC 3339 or Go timestamp by `T`, so that texts compare.
fn without_times(text: &str) -> String {
    let stamp =
        regex::Regex::new(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)").expect("valid");
    stamp.replace_all(text, "T").into_owned()
}

#[test]
fn bodies_that_are_no_push_are_refused_with_the_recorded_texts() {
    let bench = Bench::new(Limits { max_body: 20_000, ..Limits::default() });
    assert_eq!(bench.send(b"not snappy".to_vec()), (400, "snappy: corrupt input\n".to_owned()));
    let not_protobuf = snap::raw::Encoder::new().compress_vec(&[0xff; 9]).expect("compresses");
    assert_eq!(bench.send(not_protobuf), (400, "proto: illegal wireType 7\n".to_owned()));
    let large = "request body too large: message size too large than max (40783 vs 20000)\n";
    assert_eq!(bench.send(vec![0; 40_783]), (413, large.to_owned()));
    let empty = "error at least one valid stream is required for ingestion\n";
    assert_eq!(bench.push(&[]), (422, empty.to_owned()));
    assert_eq!(bench.push(&[(X, &[])]).0, 204);
    let (status, text) =
        bench.push(&[("{a-b=\"c\"}", &[(now_unix_nano(), "lost")]), (X, &[(now_unix_nano(), "too")])]);
    let unparsable = "couldn't parse labels: 1:3: parse error: unexpected character inside braces: '-'\n";
    assert_eq!((status, text.as_str()), (400, unparsable));
    assert!(bench.loki.lines("x").is_empty(), "the whole request is lost");
}

#[test]
fn an_entry_is_stored_once_unless_its_metadata_differs() {
    let bench = Bench::new(Limits::default());
    let now = now_unix_nano();
    let with = |metadata: &[(&str, &str)]| {
        let stream = Stream { labels: X.to_owned(), entries: vec![entry(now, "line", metadata)] };
        bench.send(compressed(&PushRequest { streams: vec![stream] })).0
    };
    for metadata in [&[][..], &[][..], &[("a", "1")][..], &[("a", "1")][..], &[("a", "2")][..]] {
        assert_eq!(with(metadata), 204);
    }
    assert_eq!(bench.loki.lines("x").len(), 3);
    assert_eq!(with(&[("", "no name")]), 500);
}

#[test]
fn the_window_is_sixty_minutes_to_the_nanosecond() {
    let bench = Bench::new(Limits::default());
    let now = now_unix_nano();
    assert_eq!(bench.push(&[(X, &[(now, "newest"), (now - HOUR, "edge")])]).0, 204);
    let (status, text) = bench.push(&[(X, &[(now - HOUR - 1, "gone"), (now, "kept")])]);
    let expected = "entry with timestamp T ignored, reason: 'entry too far behind, entry timestamp is: T, oldest acceptable timestamp is: T',\nuser 'fake', total ignored: 1 out of 2 for stream: {case=\"x\", service_name=\"unknown_service\"}\n";
    assert_eq!((status, without_times(&text).as_str()), (400, expected));
    assert_eq!(bench.loki.lines("x"), ["newest", "edge", "kept"]);
    assert_eq!(bench.push(&[(Y, &[(now - 6 * DAY, "old in a new stream")])]).0, 204);
    let (status, text) = bench.push(&[(Y, &[(now - 8 * DAY, "a")])]);
    let old = "entry for stream '{case=\"y\", service_name=\"unknown_service\"}' has timestamp too old: T, oldest acceptable timestamp is: T\n";
    assert_eq!((status, without_times(&text).as_str()), (400, old));
    let (status, text) = bench.push(&[(Y, &[(now + 11 * MINUTE, "a")])]);
    let new = "entry for stream '{case=\"y\", service_name=\"unknown_service\"}' has timestamp too new: T\n";
    assert_eq!((status, without_times(&text).as_str()), (400, new));
}

#[test]
fn the_last_stream_decides_the_answer() {
    let now = now_unix_nano();
    let behind: Lines<'_> = &[(now - 2 * HOUR, "behind")];
    let good: Lines<'_> = &[(now, "good")];
    for (last_is_good, status) in [(true, 204), (false, 400)] {
        let bench = Bench::new(Limits::default());
        assert_eq!(bench.push(&[(X, &[(now, "newest")])]).0, 204);
        let request = if last_is_good { [(X, behind), (Y, good)] } else { [(Y, good), (X, behind)] };
        assert_eq!(bench.push(&request).0, status);
        assert_eq!(bench.loki.lines("\"y\""), ["good"]);
        assert_eq!(bench.loki.lines("\"x\""), ["newest"]);
    }
    let bench = Bench::new(Limits { max_streams: 1, ..Limits::default() });
    assert_eq!(bench.push(&[(Y, good)]).0, 204);
    let again: Lines<'_> = &[(now + 1, "again")];
    assert_eq!(bench.push(&[(X, good), (Y, again)]).0, 204, "X was refused for the stream limit");
    let (status, text) = bench.push(&[(X, good)]);
    assert_eq!(status, 429);
    let limit = "maximum active stream limit exceeded when trying to create stream {case=\"x\", service_name=\"unknown_service\"}, reduce";
    assert!(text.starts_with(limit), "{text}");
    assert_eq!(bench.loki.streams().len(), 1);
}

#[test]
fn a_distributors_refusal_passes_the_rest_on() {
    let bench = Bench::new(Limits::default());
    let now = now_unix_nano();
    let lines: Lines<'_> = &[(now, "good"), (now - 8 * DAY, "a"), (now - 8 * DAY, "b"), (now + DAY, "c")];
    let (status, text) = bench.push(&[(X, lines)]);
    let s = "{case=\"x\", service_name=\"unknown_service\"}";
    let expected = format!(
        "2 errors like: entry for stream '{s}' has timestamp too old: T, oldest acceptable timestamp is: T; 1 errors like: entry for stream '{s}' has timestamp too new: T\n"
    );
    assert_eq!((status, without_times(&text)), (400, expected));
    assert_eq!(bench.loki.lines("x"), ["good"]);
    let large = "x".repeat(262_145);
    let (status, text) = bench.push(&[(X, &[(now, &large)])]);
    let size = format!(
        "max entry size '262144' bytes exceeded for stream '{s}' while adding an entry with length '262145' bytes\n"
    );
    assert_eq!((status, text), (400, size));
}

#[test]
fn one_stream_above_its_rate_answers_as_recorded() {
    let now = now_unix_nano();
    let line = "x".repeat(800);
    let four: Vec<(i128, &str)> = (1..5).map(|at| (now + at, line.as_str())).collect();
    let behind = (now - 2 * HOUR, "behind");
    let bench = |shard_streams| {
        let limits = Limits { shard_streams, stream_rate: (2048.0, 2048.0), ..Limits::default() };
        let bench = Bench::new(limits);
        assert_eq!(bench.push(&[(X, &[(now, "n")])]).0, 204);
        std::thread::sleep(std::time::Duration::from_millis(10));
        bench
    };
    let ignored = |text: &str| text.rsplit_once("total ignored: ").expect("counted").1[..10].to_owned();
    let cases = [
        (true, four.clone(), 429, "4 out of 4", 0),
        (true, [&[behind], four.as_slice()].concat(), 429, "4 out of 5", 0),
        (false, four.clone(), 429, "2 out of 4", 2),
        (false, [&[behind], four.as_slice()].concat(), 429, "3 out of 5", 2),
        (false, [four.as_slice(), &[behind]].concat(), 400, "3 out of 5", 2),
    ];
    for (shard_streams, lines, status, counted, stored) in cases {
        let bench = bench(shard_streams);
        let (answered, text) = bench.push(&[(X, &lines)]);
        assert_eq!((answered, ignored(&text).as_str()), (status, counted), "{text}");
        assert!(text.contains("Per stream rate limit exceeded (limit: 2KB/sec) while attempting to ingest for stream '{case=\"x\", service_name=\"unknown_service\"}' totaling 800B, consider"), "{text}");
        assert_eq!(bench.loki.lines("x").len(), stored + 1);
    }
}

#[test]
fn a_tenant_above_its_rate_stores_nothing() {
    let bench = Bench::new(Limits { tenant_rate: (20_971.0, 20_971.0), ..Limits::default() });
    let line = "x".repeat(1000);
    let lines: Vec<(i128, &str)> = (0..30).map(|at| (now_unix_nano() + at, line.as_str())).collect();
    let (status, text) = bench.push(&[(X, &lines)]);
    assert_eq!(status, 429);
    assert_eq!(
        text,
        "ingestion rate limit exceeded for user fake (limit: 20971 bytes/sec) while attempting to ingest '30' lines totaling '30000' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased\n"
    );
    assert!(bench.loki.lines("x").is_empty());
}

#[test]
fn tenants_and_phases_answer_as_recorded() {
    let bench = Bench::new(Limits { auth: true, ..Limits::default() });
    assert_eq!(bench.push(&[(X, &[(now_unix_nano(), "l")])]), (401, "no org id\n".to_owned()));
    bench.loki.limit(|limits| limits.auth = false);
    bench.loki.inject([Fault::EmptyRing]);
    assert_eq!(bench.push(&[(X, &[(now_unix_nano(), "l")])]), (500, "empty ring\n".to_owned()));
    assert_eq!(bench.push(&[(X, &[(now_unix_nano(), "l")])]), (204, String::new()));
}
