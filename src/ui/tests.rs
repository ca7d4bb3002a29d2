//! The listener as a whole: what is answered, with which headers, and that nothing from outside becomes markup.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use tower_service::Service as _;

use super::*;
use crate::health::Health;
use crate::overview::{
    Burn, Issue, Level, Objective, ObjectiveState, Overview, Point, Service, Sink, Sources, Stream, Target,
    TargetState,
};
use crate::scrape::status::Board;

const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&</script>";

fn page(token: Option<&str>, extras: Extras) -> Page {
    let sources = Sources {
        node: HOSTILE.to_owned(),
        cluster: "c".into(),
        accounts: Arc::new(|| None),
        board: Board::default(),
        red: Arc::new(Arc::default),
        slos: Arc::new(|| Arc::new(crate::slo::eval::off("there are none"))),
        health: Health::new(),
    };
    Page {
        observer: Observer::new(sources),
        extras,
        explain: Arc::new(|question: Question| match question.lines.as_slice() {
            b"bad" => Err("no".to_owned()),
            _ => Ok(format!("{{\"pod\":{:?}}}", question.pod)),
        }),
        lines: Router::new().route("/api/tail", get(|| async { "tail" })),
        token: token.map(str::to_owned),
    }
}

fn router_with(token: Option<&str>, extras: Extras) -> Router {
    router("127.0.0.1:9465".parse().expect("an address"), page(token, extras), CancellationToken::new())
}

async fn ask(router: &mut Router, request: axum::http::request::Builder, body: &'static str) -> Response {
    let request: Request<Body> = request.body(Body::from(body)).expect("a request");
    router.call(request).await.unwrap_or_else(|never| match never {})
}

fn get_of(path: &str) -> axum::http::request::Builder {
    Request::get(path).header("host", "localhost:9465")
}

fn post_of(path: &str) -> axum::http::request::Builder {
    Request::post(path).header("host", "localhost:9465").header("x-nodewick", "1")
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn every_answer_forbids_what_the_page_does_not_need() {
    let mut router = router_with(None, Extras::default());
    let expected = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
    for path in ["/", "/assets/app.js", "/api/overview", "/api/tail", "/nothing", "/assets/nothing"] {
        let answer = ask(&mut router, get_of(path), "").await;
        let header =
            |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap_or("?").to_owned());
        assert_eq!(header("content-security-policy").as_deref(), Some(expected), "{path}");
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"), "{path}");
        assert_eq!(header("referrer-policy").as_deref(), Some("no-referrer"), "{path}");
        assert_eq!(header("access-control-allow-origin"), None, "{path}");
    }
    let refused = ask(&mut router, Request::get("/").header("host", "evil.example"), "").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(refused.headers().contains_key("content-security-policy"));
}

#[tokio::test]
async fn routes_of_others_stand_behind_the_same_gate() {
    let mut router = router_with(Some("correct horse battery"), Extras::default());
    for path in ["/api/tail", "/api/overview", "/api/events"] {
        assert_eq!(ask(&mut router, get_of(path), "").await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let bearer = get_of("/api/tail").header("authorization", "Bearer correct horse battery");
    assert_eq!(text(ask(&mut router, bearer, "").await).await, "tail");
    let rebound = Request::get("/api/tail").header("host", "evil.example:9465");
    assert_eq!(ask(&mut router, rebound, "").await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_form_signs_in_and_its_cookie_opens_the_page() {
    let mut router = router_with(Some("correct horse battery"), Extras::default());
    let to_door = ask(&mut router, get_of("/"), "").await;
    assert_eq!(
        (to_door.status(), to_door.headers()["location"] == "/sign-in"),
        (StatusCode::SEE_OTHER, true)
    );
    let form = || Request::post("/sign-in").header("host", "localhost:9465").header("origin", "null");
    let wrong = ask(&mut router, form(), "token=guess").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(text(wrong).await.contains("That is not the token."));
    let right = ask(&mut router, form(), "token=correct+horse%20battery").await;
    assert_eq!(right.status(), StatusCode::SEE_OTHER);
    let cookie = right.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains("horse"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let page = ask(&mut router, get_of("/").header("cookie", &cookie), "").await;
    assert_eq!(page.status(), StatusCode::OK);
    let out = ask(&mut router, post_of("/sign-out").header("cookie", &cookie), "").await;
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    let after = ask(&mut router, get_of("/").header("cookie", &cookie), "").await;
    assert_eq!(after.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn files_have_a_tag_and_are_sent_once() {
    let mut router = router_with(None, Extras::default());
    let first = ask(&mut router, get_of("/assets/style.css"), "").await;
    assert_eq!(
        (first.status(), first.headers()["content-type"] == "text/css; charset=utf-8"),
        (StatusCode::OK, true)
    );
    let tag = first.headers()["etag"].to_str().expect("text").to_owned();
    let again = ask(&mut router, get_of("/assets/style.css").header("if-none-match", &tag), "").await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(text(again).await, "");
    let gone = ask(&mut router, get_of("/assets/../Cargo.toml"), "").await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_explained_within_bounds() {
    let mut router = router_with(None, Extras::default());
    let answer = ask(&mut router, post_of("/api/explain?pod=cart-1"), "a line").await;
    assert_eq!(text(answer).await, "{\"pod\":Some(\"cart-1\")}");
    let refused = ask(&mut router, post_of("/api/explain"), "bad").await;
    assert_eq!((refused.status(), text(refused).await), (StatusCode::BAD_REQUEST, "no\n".to_owned()));
    let empty = ask(&mut router, post_of("/api/explain"), " \n").await;
    assert_eq!(empty.status(), StatusCode::BAD_REQUEST);
    let unknown = ask(&mut router, post_of("/api/explain?pood=x"), "a").await;
    assert!(text(unknown).await.contains("takes ns, pod, container and annotation"));
    let large = Body::from("x".repeat(BODY_BYTES + 1));
    let request = post_of("/api/explain").body(large).expect("a request");
    let answer = router.call(request).await.unwrap_or_else(|never| match never {});
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_button_does_what_its_owner_says_and_shows_it() {
    let pressed = Arc::new(AtomicU32::new(0));
    let (counts, shows) = (Arc::clone(&pressed), Arc::clone(&pressed));
    let action = Action {
        name: "break-checkout",
        label: Arc::new(|| "Break <checkout>".to_owned()),
        active: Arc::new(move || shows.load(Ordering::Relaxed) % 2 == 1),
        run: Arc::new(move || {
            counts.fetch_add(1, Ordering::Relaxed);
        }),
    };
    let extras = Extras { banner: Some("Time runs <60 times> faster.".into()), actions: vec![action] };
    let mut router = router_with(None, extras);
    let page = text(ask(&mut router, get_of("/"), "").await).await;
    assert!(page.contains("Time runs &lt;60 times&gt; faster."));
    assert!(
        page.contains(
            "data-action=\"break-checkout\" aria-pressed=\"false\">Break &lt;checkout&gt;</button>"
        )
    );
    let forged = Request::post("/api/actions/break-checkout").header("host", "localhost:9465");
    assert_eq!(ask(&mut router, forged, "").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(pressed.load(Ordering::Relaxed), 0);
    let answer = text(ask(&mut router, post_of("/api/actions/break-checkout"), "").await).await;
    assert!(answer.contains("\"active\":true"), "{answer}");
    assert_eq!(ask(&mut router, post_of("/api/actions/nothing"), "").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pages_that_are_kept_up_to_date_are_bounded_and_get_every_part_once() {
    let mut router = router_with(None, Extras::default());
    let mut open = Vec::new();
    for _ in 0..EVENTS {
        let answer = ask(&mut router, get_of("/api/events"), "").await;
        assert_eq!(answer.status(), StatusCode::OK);
        open.push(answer);
    }
    let refused = ask(&mut router, get_of("/api/events"), "").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        ask(&mut router, get_of("/"), "").await.status(),
        StatusCode::OK,
        "the page itself still loads"
    );
    let mut stream = open.pop().expect("one").into_body().into_data_stream();
    let mut seen = String::new();
    while !seen.contains("event: beat") {
        let chunk = futures_util::StreamExt::next(&mut stream).await.expect("more").expect("bytes");
        seen.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    for part in ["status", "issues", "actions", "pipeline", "services", "objectives", "tables", "names"] {
        assert_eq!(seen.matches(&format!("\"part\":\"{part}\"")).count(), 1, "{part}");
    }
    drop((stream, open));
    let again = ask(&mut router, get_of("/api/events"), "").await;
    assert_eq!(again.status(), StatusCode::OK, "who leaves makes room");
}

/// A picture in which every text is hostile and every list has an element of each kind.
fn hostile() -> Overview {
    let h = || HOSTILE.to_owned();
    let mut o = Overview::default();
    (o.agent.node, o.agent.cluster, o.agent.version) = (h(), h(), h());
    let states = [TargetState::Up, TargetState::Down, TargetState::Unknown, TargetState::NotScraped];
    for state in states {
        o.targets.push(Target {
            namespace: h(),
            pod: h(),
            url: h(),
            job: h(),
            state,
            reason: h(),
            message: h(),
            hint: h(),
            last_error: Some(h()),
            ..Target::default()
        });
    }
    o.streams.push(Stream {
        namespace: h(),
        pod: h(),
        container: h(),
        service: h(),
        restart: 2,
        ..Stream::default()
    });
    o.sinks.push(Sink { name: h(), up: Some(false), last_error: Some(h()), ..Sink::default() });
    for level in [Level::Notice, Level::Degraded, Level::Down] {
        o.issues.push(Issue { level, about: h(), text: h() });
    }
    let point = Point { per_second: 1.0, ..Point::default() };
    o.services.push(Service {
        namespace: h(),
        workload: h(),
        service: h(),
        source: h(),
        history: vec![point; 3],
        ..Service::default()
    });
    use ObjectiveState::{Burning, Exhausted, Firing, NoTraffic, Ok};
    o.objectives.evaluated = true;
    for state in [NoTraffic, Ok, Exhausted, Burning, Firing] {
        o.objectives.rows.push(Objective {
            id: h(),
            sli: h(),
            window: h(),
            mode: h(),
            owner: h(),
            state,
            burns: vec![Burn { severity: h(), long: h(), short: h(), is_over: true, ..Burn::default() }],
            alerts: vec![crate::overview::Alert { name: h(), state: h(), summary: h(), since_unix_ms: None }],
            problems: vec![h()],
            ..Objective::default()
        });
    }
    for of in [&mut o.pipeline.dropped, &mut o.pipeline.lost] {
        of.push(crate::overview::Loss { reason: h(), rule: h(), ..crate::overview::Loss::default() });
    }
    o
}

#[test]
fn nothing_from_outside_is_ever_markup() {
    let picture = hostile();
    let page = page::whole(&picture, &Extras::default(), &page::View::default(), true);
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert!(!page.contains("<img src=x") && !page.contains("cannot be shown"));
    // Every part has at least one of the texts, quotes escaped as well: none can leave an attribute.
    assert_eq!(page.matches("onerror=alert(1)>\"").count(), 0);
    for (part, html) in page::parts(&picture, &Extras::default(), &page::View::default()) {
        assert!(!html.contains("<img") && !html.contains("\"'&<"), "{part}");
        assert_eq!(html.contains("&lt;img"), part != "actions", "{part}");
    }
}

#[test]
fn a_page_needs_no_inline_script_or_style_and_shows_what_is_missing() {
    let page = page::whole(&Overview::default(), &Extras::default(), &page::View::default(), false);
    for forbidden in ["<style", "style=", "onclick", "onload", "javascript:", "http://", "https://"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("<script").count(), page.matches("<script src=\"/assets/").count() + 1);
    assert!(page.contains("<script type=\"module\" src=\"/assets/app.js\">"));
    for hint in [
        "No request seen yet",
        "Nothing is scraped",
        "No container log is followed",
        "Objectives are not judged",
    ] {
        assert!(page.contains(hint), "{hint}");
    }
    assert!(!page.contains("cannot be shown"));
}

#[test]
fn streams_stand_in_the_order_that_the_address_asks_for() {
    let of = |pod: &str, rate: f64, lag_bytes: u64| Stream {
        pod: pod.into(),
        bytes_per_second: Some(rate),
        lag_bytes,
        ..Stream::default()
    };
    let streams = vec![of("pod-worst", 1.0, 5), of("pod-fast", 9.0, 0), of("pod-late", 0.0, 7)];
    let picture = Overview { streams, ..Overview::default() };
    let order = |query: Option<&str>| {
        let html = page::whole(&picture, &Extras::default(), &page::View::of(query), false);
        let mut found: Vec<(usize, &str)> = ["worst", "fast", "late"]
            .into_iter()
            .filter_map(|pod| Some((html.find(&format!("pod-{pod}"))?, pod)))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, pod)| pod).collect::<Vec<_>>()
    };
    assert_eq!(order(None), ["worst", "fast", "late"]);
    assert_eq!(order(Some("streams=rate")), ["fast", "worst", "late"]);
    assert_eq!(order(Some("streams=lag&x=y")), ["late", "worst", "fast"]);
    assert_eq!(order(Some("streams=%3Cscript%3E")), ["worst", "fast", "late"]);
}

mod listening {
    use super::super::config::{Config, Listen};
    use crate::sink::http::Secret;

    fn config(listen: &str, token: Option<&str>) -> Config {
        Config { listen: listen.into(), token: token.map(|token| Secret::new(token.into())) }
    }

    #[test]
    fn what_others_can_reach_needs_a_token() {
        let at = |text: &str| Ok(Listen::At(text.parse().expect("an address")));
        assert_eq!(Config::default().listen(), Ok(Listen::Auto));
        assert_eq!(
            (config("off", None).listen(), config("", None).listen()),
            (Ok(Listen::Off), Ok(Listen::Off))
        );
        assert_eq!(config("localhost:80", None).listen(), at("127.0.0.1:80"));
        assert_eq!(config("[::1]:80", None).listen(), at("[::1]:80"));
        for open in ["0.0.0.0:9465", ":9465", "10.0.0.7:9465", "[::]:9465"] {
            let problem = config(open, None).listen().expect_err(open);
            assert!(problem.contains("set [ui] token"), "{problem}");
            assert!(config(open, Some("0123456789abcdef")).listen().is_ok(), "{open}");
        }
        assert!(config("nonsense", None).listen().is_err_and(|problem| problem.contains("\"nonsense\"")));
        assert!(config("off", Some("short")).token_problem().is_some());
        assert!(config("off", Some("short")).bind(true).is_err());
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_unless_nobody_asked_for_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        let problem = config(&address.to_string(), None).bind(false).expect_err("it is taken").to_string();
        assert!(problem.contains("change [ui] listen"), "{problem}");
        assert!(Config::default().bind(false).expect("nothing to open").is_none());
        // Whether 9465 is free here or not, "auto" finds a port.
        let (one, two) = (Config::default().bind(true), Config::default().bind(true));
        let (one, two) = (one.expect("a port").expect("wanted"), two.expect("a port").expect("wanted"));
        assert_ne!(one.address, two.address);
        assert!(two.instead_of.is_some() && two.address.ip().is_loopback());
    }
}
