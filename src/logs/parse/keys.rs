//! Which keys of a line mean what: one table of paths, compiled into a perfect-size hash at build time.
//!
//! In: a key and the object it stands in. Out: what to pick from its value, how good that source is, and which
//! object a nested value leads to. Invariant: a path with dots means the same whether the line nests objects or
//! writes dotted keys (`{"trace":{"id":..}}` is `{"trace.id":..}`), in any mixture.
//!
//! To teach the parser a key, add a row to [`RULES`]; nothing else.

use super::pick::Pick;
use crate::data::batch::Fields;

/// One way in which loggers write a field.
pub(super) struct Rule {
    /// Path from the root of the object, keys joined by dots.
    pub(super) path: &'static str,
    /// What its value is.
    pub(super) pick: Pick,
    /// How good a source it is: of several usable values the lowest rank wins, at equal rank the last.
    pub(super) rank: u8,
}

/// Ranks from here on are words that mean HTTP only beside other signs of HTTP.
pub(super) const WEAK: u8 = 200;

macro_rules! rules {
    ($($pick:ident: $($rank:literal $path:literal),+;)*) => {
        &[$($(Rule { path: $path, pick: Pick::$pick, rank: $rank }),+),*]
    };
}

/// Every recognised path. Sources: the loggers' documentation and genuine lines in `tests/corpus/lines`.
pub(super) static RULES: &[Rule] = RULES_CONST;
const RULES_CONST: &[Rule] = rules! {
    // Severity. Numbers are ranked by how sure their scale is.
    SeverityNumber: 0 "severity_number", 0 "severityNumber", 0 "SeverityNumber";
    Level: 1 "severity_text", 1 "severityText", 1 "SeverityText",
        2 "log.level", 3 "level", 4 "severity", 4 "Severity", 6 "levelname", 6 "levelName", 7 "lvl", 7 "log_level",
        7 "logLevel", 7 "loglevel", 7 "LogLevel", 7 "LEVEL", 8 "record.level.name";
    LevelSerilog: 5 "@l", 5 "Level";
    LevelLogback: 20 "level_value", 20 "levelValue";
    LevelPython: 21 "levelno", 21 "record.level.no";
    SerilogTime: 30 "@t";
    SerilogTemplate: 30 "@mt", 30 "@m";

    // Trace ids: the record's own, then the logging context's, then other systems' forms, then the caller's header.
    TraceHex: 0 "trace_id", 1 "traceId", 2 "traceID", 3 "TraceId", 3 "TraceID", 4 "trace.id", 5 "otelTraceID",
        5 "otelTraceId", 5 "otel.trace_id", 5 "@tr", 5 "traceid", 5 "trace.trace_id", 5 "trace.traceId", 9 "contextMap.traceId",
        9 "contextMap.trace_id", 10 "mdc.traceId", 11 "mdc.trace_id", 11 "MDC.traceId", 11 "MDC.trace_id",
        12 "attributes.trace_id", 12 "extra.trace_id", 12 "record.extra.trace_id", 12 "fields.trace_id",
        12 "span.trace_id", 12 "context.trace_id", 12 "span_context.trace_id", 12 "spanContext.traceId",
        12 "record.extra.otelTraceID";
    TraceGcp: 6 "logging.googleapis.com/trace";
    Traceparent: 14 "traceparent", 14 "traceParent", 50 "req.headers.traceparent", 51 "request.headers.traceparent",
        52 "headers.traceparent", 53 "http.request.headers.traceparent";
    TraceXray: 20 "xray_trace_id", 20 "xrayTraceId", 20 "xray.trace_id", 21 "x-amzn-trace-id", 21 "X-Amzn-Trace-Id",
        56 "req.headers.x-amzn-trace-id", 56 "headers.X-Amzn-Trace-Id", 56 "headers.x-amzn-trace-id";
    TraceB3: 22 "x_b3_traceid", 22 "x-b3-traceid", 22 "X-B3-TraceId", 22 "x_b3_trace_id", 22 "X_B3_TRACEID",
        23 "mdc.X-B3-TraceId", 23 "contextMap.X-B3-TraceId", 57 "req.headers.x-b3-traceid", 57 "headers.x-b3-traceid",
        57 "request.headers.x-b3-traceid";
    TraceDatadog: 30 "dd.trace_id", 30 "dd.traceId", 31 "mdc.dd.trace_id", 31 "contextMap.dd.trace_id",
        58 "req.headers.x-datadog-trace-id";

    SpanHex: 0 "span_id", 1 "spanId", 2 "spanID", 3 "SpanId", 3 "SpanID", 4 "span.id", 5 "otelSpanID", 5 "otelSpanId",
        5 "otel.span_id", 5 "@sp", 5 "spanid", 5 "trace.span_id", 5 "trace.spanId", 6 "logging.googleapis.com/spanId",
        9 "contextMap.spanId", 9 "contextMap.span_id", 10 "mdc.spanId", 11 "mdc.span_id", 11 "MDC.spanId",
        11 "MDC.span_id", 12 "attributes.span_id", 12 "extra.span_id", 12 "record.extra.span_id", 12 "fields.span_id",
        12 "context.span_id", 12 "span_context.span_id", 12 "spanContext.spanId", 12 "record.extra.otelSpanID",
        13 "transaction.id", 22 "x_b3_spanid", 22 "x-b3-spanid", 22 "X-B3-SpanId", 22 "x_b3_span_id",
        22 "X_B3_SPANID", 23 "mdc.X-B3-SpanId", 23 "contextMap.X-B3-SpanId", 57 "req.headers.x-b3-spanid",
        57 "headers.x-b3-spanid", 57 "request.headers.x-b3-spanid";
    SpanDatadog: 30 "dd.span_id", 30 "dd.spanId", 31 "mdc.dd.span_id", 31 "contextMap.dd.span_id",
        58 "req.headers.x-datadog-parent-id";
    TraceFlags: 0 "trace_flags", 1 "traceFlags", 2 "TraceFlags", 3 "trace.flags", 3 "trace.trace_flags",
        3 "otelTraceFlags", 9 "contextMap.trace_flags", 9 "mdc.trace_flags";
    Sampled: 10 "logging.googleapis.com/trace_sampled", 10 "otelTraceSampled", 10 "trace_sampled", 10 "traceSampled";

    // Request ids, then correlation ids.
    RequestId: 0 "reqId", 0 "req_id", 0 "reqid", 1 "request_id", 2 "requestId", 3 "requestID", 4 "RequestId",
        4 "RequestID", 4 "requestid", 5 "req.id", 6 "request.id", 6 "request.request_id", 6 "request.requestId",
        7 "http.request.id", 7 "http.request_id", 8 "x-request-id", 8 "x_request_id", 8 "X-Request-Id",
        8 "X-Request-ID", 8 "xRequestId", 9 "awsRequestId", 9 "aws_request_id", 9 "contextMap.requestId",
        9 "contextMap.request_id", 9 "mdc.requestId", 9 "mdc.request_id", 10 "record.extra.request_id",
        10 "extra.request_id", 10 "context.request_id", 12 "req.headers.x-request-id", 12 "request.headers.x-request-id",
        12 "headers.x-request-id", 12 "http.request.headers.x-request-id", 12 "request.headers.X-Request-Id",
        20 "correlation_id", 20 "correlationId", 20 "correlationID", 20 "CorrelationId", 20 "x-correlation-id",
        20 "x_correlation_id", 20 "X-Correlation-Id", 20 "X-Correlation-ID", 21 "mdc.correlationId",
        21 "contextMap.correlationId", 22 "req.headers.x-correlation-id", 22 "headers.x-correlation-id";

    // HTTP.
    Method: 0 "http.request.method", 1 "http.method", 2 "req.method", 3 "request.method", 4 "http_method", 4 "httpMethod",
        4 "request_method", 4 "requestMethod", 4 "RequestMethod", 4 "httpRequest.requestMethod",
        4 "http.request_method", 4 "verb", 200 "method", 200 "Method";
    Url: 0 "url.path", 1 "http.target", 2 "req.url", 2 "req.originalUrl", 3 "req.path", 4 "request.url", 4 "request.path",
        4 "request.uri", 5 "http.path", 5 "http.url", 5 "http.uri", 5 "url.original", 5 "url.full",
        6 "httpRequest.requestUrl", 6 "http_path", 6 "http_url", 6 "httpPath", 6 "request_uri", 6 "requestUri",
        6 "requestUrl", 6 "request_path", 6 "requestPath", 6 "RequestPath", 6 "request_url", 200 "path", 201 "uri",
        202 "url", 203 "target", 203 "Path";
    Route: 0 "http.route", 1 "route", 2 "req.route", 3 "req.route.path", 4 "routerPath", 4 "req.routerPath",
        4 "http_route", 4 "httpRoute", 5 "req.routeOptions.url", 5 "request.route", 5 "route.path", 5 "url.template",
        6 "handler_path", 6 "RouteTemplate", 6 "route_pattern";
    Status: 0 "http.response.status_code", 1 "http.status_code", 2 "res.statusCode", 3 "response.status",
        3 "response.statusCode", 3 "response.status_code", 3 "res.status", 4 "http.status", 4 "http.statusCode",
        4 "http.response.status", 4 "httpRequest.status", 5 "statusCode", 5 "status_code", 5 "http_status",
        5 "httpStatus", 5 "http_status_code", 5 "StatusCode", 5 "responseStatus", 5 "response_status",
        5 "response_code", 5 "DownstreamStatus", 9 "status", 9 "Status";
    Millis: 0 "responseTime", 1 "duration_ms", 2 "durationMs", 2 "durationMS", 3 "elapsed_ms", 3 "elapsedMs",
        3 "elapsedMilliseconds", 3 "ElapsedMilliseconds", 3 "latency_ms", 3 "latencyMs", 3 "response_time_ms",
        3 "responseTimeMs", 3 "took_ms", 4 "http.duration_ms", 4 "http.request.duration_ms", 4 "request.duration_ms",
        6 "Elapsed";
    Seconds: 5 "duration_seconds", 5 "durationSeconds", 5 "http.server.request.duration", 5 "request_time",
        5 "elapsed_seconds", 5 "latency_seconds", 5 "duration_s";
    Micros: 5 "duration_us", 5 "durationUs", 5 "latency_us", 5 "elapsed_us";
    Nanos: 5 "event.duration", 5 "duration_ns", 5 "durationNs", 5 "latency_ns", 5 "elapsed_ns";
    WithUnit: 8 "httpRequest.latency", 8 "latency_human", 9 "duration", 9 "latency", 9 "elapsed", 9 "took",
        10 "responseTime", 10 "response_time", 10 "dur";

    // The application's clock.
    Time: 0 "time", 1 "timestamp", 2 "@timestamp", 3 "ts", 4 "@t", 4 "Timestamp", 5 "asctime", 5 "timeMillis", 6 "datetime", 6 "time_iso8601",
        7 "record.time.timestamp", 7 "date_time", 7 "eventTime";
};

/// What a key leads to.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The key's first and last eight bytes: all of it, up to sixteen.
    first: u64,
    last: u64,
    /// Length of the key, and the object it stands in.
    shape: u16,
    /// The fields that this key, or anything below it, can serve.
    pub(super) serves: Fields,
    /// The object that a nested value is, [`NOWHERE`] when nothing in it is of interest.
    pub(super) child: u8,
    /// What the value itself may be: up to two readings.
    pub(super) picks: [(Pick, u8); 2],
}

/// An object without interesting keys.
pub(super) const NOWHERE: u8 = 0;
/// The outermost object.
pub(super) const ROOT: u8 = 1;

const SLOTS: usize = 2048;
/// A power of two, so that a masked index needs no check.
const MAX_ENTRIES: usize = 1024;
const MAX_NODES: usize = 96;
const EMPTY: Entry = Entry {
    first: 0,
    last: 0,
    shape: 0,
    serves: Fields::NONE,
    child: NOWHERE,
    picks: [(Pick::Nothing, u8::MAX); 2],
};

/// The rules as a hash table with open addressing, at most a third full.
struct Table {
    /// Sixteen bits of the hash, then an index into `entries`; 0 for a free slot. Most keys are unknown, and most
    /// of those end here.
    slots: [u32; SLOTS],
    /// From 1 on.
    entries: [Entry; MAX_ENTRIES],
    keys: [&'static [u8]; MAX_ENTRIES],
    /// What any key with this first byte and length can serve, in whatever object.
    sieve: [Fields; SIEVE],
}

const SIEVE: usize = 1024;

/// False when no key with this first byte and length can serve any field of `want`: the cheap look before the
/// look-up.
#[inline(always)]
pub(super) fn may_serve(first: u8, len: usize, want: Fields) -> bool {
    TABLE.sieve[sieve_of(first, len)].intersects(want)
}

#[inline(always)]
const fn sieve_of(first: u8, len: usize) -> usize {
    (len << 4 ^ first as usize) % SIEVE
}

static TABLE: Table = build();

/// Length of the longest key in the table; longer keys need no look-up.
pub(super) const LONGEST_KEY: usize = {
    let mut longest = 0;
    let mut i = 0;
    while i < RULES_CONST.len() {
        if RULES_CONST[i].path.len() > longest {
            longest = RULES_CONST[i].path.len();
        }
        i += 1;
    }
    longest
};

/// Looks a key up in an object. `first` holds its first eight bytes, little-endian, zero beyond its end.
#[inline(always)]
pub(super) fn find_word(within: u8, key: &[u8], first: u64) -> Option<&'static Entry> {
    let last = match key.last_chunk::<8>() {
        Some(tail) => u64::from_le_bytes(*tail),
        None => 0,
    };
    let shape = shape_of(within, key.len());
    let hash = hash_of(shape, first, last);
    let mut slot = slot_of(hash);
    loop {
        let found = TABLE.slots[slot % SLOTS];
        if found == 0 {
            return None;
        }
        if found >> 16 == tag_of(hash) {
            let index = found as usize % MAX_ENTRIES;
            let entry = &TABLE.entries[index];
            let differs = (entry.first ^ first) | (entry.last ^ last) | (entry.shape ^ shape) as u64;
            // Two words cover keys of up to 16 bytes.
            if differs == 0 && (key.len() <= 16 || TABLE.keys[index] == key) {
                return Some(entry);
            }
        }
        slot += 1;
    }
}

/// Looks a key up in an object.
#[inline]
pub(super) fn find(within: u8, key: &[u8]) -> Option<&'static Entry> {
    if key.len() > LONGEST_KEY {
        return None;
    }
    find_word(within, key, first_word(key))
}

/// The first eight bytes, little-endian, zero beyond the end.
const fn first_word(key: &[u8]) -> u64 {
    let mut word = 0;
    let mut i = 0;
    while i < key.len() && i < 8 {
        word |= (key[i] as u64) << (8 * i);
        i += 1;
    }
    word
}

const fn last_word(key: &[u8]) -> u64 {
    let mut word = 0;
    if key.len() >= 8 {
        let mut i = 0;
        while i < 8 {
            word |= (key[key.len() - 8 + i] as u64) << (8 * i);
            i += 1;
        }
    }
    word
}

/// Length and object in one number. Keys are shorter than 256 bytes.
#[inline(always)]
const fn shape_of(within: u8, len: usize) -> u16 {
    (len as u16) << 8 | within as u16
}

#[inline(always)]
const fn hash_of(shape: u16, first: u64, last: u64) -> u64 {
    (first ^ last.rotate_left(23) ^ (shape as u64).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline(always)]
const fn slot_of(hash: u64) -> usize {
    (hash >> (64 - SLOTS.trailing_zeros())) as usize
}

#[inline(always)]
const fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32 & 0xffff
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

const fn part(text: &'static [u8], start: usize, end: usize) -> &'static [u8] {
    text.split_at(end).0.split_at(start).1
}

/// For every rule and every pair of key boundaries in its path, one entry: so each way of nesting is found.
const fn build() -> Table {
    let mut table = Table {
        slots: [0; SLOTS],
        entries: [EMPTY; MAX_ENTRIES],
        keys: [&[]; MAX_ENTRIES],
        sieve: [Fields::NONE; SIEVE],
    };
    let mut count = 0;
    // Objects are named by their path; 0 is nowhere, 1 the root with the empty path.
    let mut nodes: [&[u8]; MAX_NODES] = [&[]; MAX_NODES];
    let mut serves = [Fields::NONE; MAX_NODES];
    let mut node_count = 2;

    let mut r = 0;
    while r < RULES_CONST.len() {
        let rule = &RULES_CONST[r];
        let path = rule.path.as_bytes();
        let wanted = rule.pick.serves();
        let mut start = 0;
        loop {
            // A key starts at 0 and behind each dot, in the object that the path before it names.
            let within = if start == 0 {
                ROOT
            } else {
                let prefix = part(path, 0, start - 1);
                let mut n = 2;
                while n < node_count && !same(nodes[n], prefix) {
                    n += 1;
                }
                n as u8
            };
            serves[within as usize] = serves[within as usize].with(wanted);
            let mut end = start + 1;
            while end <= path.len() {
                if end == path.len() || path[end] == b'.' {
                    let key = part(path, start, end);
                    let (first, last) = (first_word(key), last_word(key));
                    let shape = shape_of(within, key.len());
                    let hash = hash_of(shape, first, last);
                    let mut slot = slot_of(hash);
                    loop {
                        let found = table.slots[slot];
                        let index = found as usize % MAX_ENTRIES;
                        if found == 0 {
                            count += 1;
                            assert!(count < MAX_ENTRIES, "raise MAX_ENTRIES");
                            table.entries[count] = Entry { first, last, shape, ..EMPTY };
                            table.keys[count] = key;
                            table.slots[slot] = tag_of(hash) << 16 | count as u32;
                            break;
                        }
                        if table.entries[index].shape == shape && same(table.keys[index], key) {
                            break;
                        }
                        slot = (slot + 1) % SLOTS;
                    }
                    let entry = &mut table.entries[table.slots[slot] as usize % MAX_ENTRIES];
                    if end == path.len() {
                        let second = !matches!(entry.picks[0].0, Pick::Nothing);
                        assert!(
                            !second || matches!(entry.picks[1].0, Pick::Nothing),
                            "three readings of one key"
                        );
                        entry.picks[second as usize] = (rule.pick, rule.rank);
                    } else if entry.child == NOWHERE {
                        let prefix = part(path, 0, end);
                        let mut n = 2;
                        while n < node_count && !same(nodes[n], prefix) {
                            n += 1;
                        }
                        if n == node_count {
                            assert!(node_count < MAX_NODES, "raise MAX_NODES");
                            nodes[n] = prefix;
                            node_count += 1;
                        }
                        entry.child = n as u8;
                    }
                }
                end += 1;
            }
            while start < path.len() && path[start] != b'.' {
                start += 1;
            }
            if start == path.len() {
                break;
            }
            start += 1;
        }
        r += 1;
    }
    let mut e = 1;
    while e <= count {
        let entry = &mut table.entries[e];
        entry.serves =
            entry.picks[0].0.serves().with(entry.picks[1].0.serves()).with(serves[entry.child as usize]);
        let place = sieve_of(table.keys[e][0], table.keys[e].len());
        table.sieve[place] = table.sieve[place].with(entry.serves);
        e += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_by_its_dotted_key() {
        for rule in RULES {
            let entry = find(ROOT, rule.path.as_bytes()).expect(rule.path);
            assert!(
                entry.picks.iter().any(|(pick, rank)| *pick == rule.pick && *rank == rule.rank),
                "{}",
                rule.path
            );
        }
    }

    #[test]
    fn nested_and_half_dotted_paths_lead_to_the_same_rule() {
        let headers = find(find(ROOT, b"req").expect("req").child, b"headers").expect("headers").child;
        assert_eq!(headers, find(ROOT, b"req.headers").expect("dotted").child);
        let picks = find(headers, b"traceparent").expect("nested").picks;
        assert_eq!(picks, find(ROOT, b"req.headers.traceparent").expect("dotted").picks);
        assert_eq!(picks[0], (Pick::Traceparent, 50));
    }

    #[test]
    fn foreign_keys_are_not_found() {
        for key in
            ["", "trace_i", "trace_idx", "hostname", "k8s.namespace.name", "logging.googleapis.com/tracf"]
        {
            assert!(find(ROOT, key.as_bytes()).is_none(), "{key}");
        }
        assert!(find(NOWHERE, b"trace_id").is_none());
    }
}
