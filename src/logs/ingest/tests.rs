//! Routes and durations of records.

use super::*;

fn route(path: &str) -> String {
    let mut arena = path.as_bytes().to_vec();
    let span = Span::new(0, arena.len());
    let route = route_of(&mut arena, span);
    String::from_utf8(route.of(&arena).to_vec()).expect("UTF-8")
}

#[test]
fn id_like_segments_of_a_path_become_a_template() {
    assert_eq!(route("/healthz"), "/healthz");
    assert_eq!(route("/ok/1001"), "/ok/{id}");
    assert_eq!(route("/v1/users/42/orders/"), "/v1/users/{id}/orders/");
    assert_eq!(route("/o/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x"), "/o/{id}/x");
    assert_eq!(route("/api/v2/cart"), "/api/v2/cart");
    assert_eq!(route("/u/ann@example.com/cart"), "/u/{id}/cart");
    assert_eq!(route("/u/ann.b%40example.co.uk"), "/u/{id}");
    assert_eq!(route("/npm/@scope/name"), "/npm/@scope/name");
    assert_eq!(route("/s/cus_Na6dX7aXxi11N4"), "/s/{id}");
}

#[test]
fn durations_come_out_in_milliseconds() {
    for (text, unit, expected) in [
        ("40.34382299999925", DurationUnit::Millis, "40.34382299999925"),
        ("0.25", DurationUnit::Seconds, "250"),
        ("1203000000", DurationUnit::Nanos, "1203"),
        ("15", DurationUnit::Micros, "0.015"),
        ("junk", DurationUnit::Seconds, ""),
    ] {
        let mut arena = text.as_bytes().to_vec();
        let span = Span::new(0, arena.len());
        let out = millis(&mut arena, 0, span, unit);
        assert_eq!(String::from_utf8_lossy(out.of(&arena)), expected);
    }
}
