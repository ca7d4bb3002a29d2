//! The page as HTML: the whole of it for the first paint, and its parts for those who follow.
//!
//! In: a picture, what the owner adds, and what the address asks for. Out: HTML. One set of templates makes both, so what a
//! reload shows and what the script puts in place are the same. Invariant: templates escape every value; nothing that came
//! from outside is marked as safe.

use std::sync::{Arc, LazyLock};

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{Html, IntoResponse, Response};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

use super::{Extras, api, words};
use crate::overview::{Overview, Stream, StreamState};

/// Rows of a table on the page; `/api/overview` has more of them.
const ROWS: usize = 100;

/// Parts of the page that are made anew, in their order.
const PARTS: [(&str, &str); 8] = [
    ("status", include_str!("assets/status.html")),
    ("issues", include_str!("assets/issues.html")),
    ("actions", include_str!("assets/actions.html")),
    ("pipeline", include_str!("assets/pipeline.html")),
    ("services", include_str!("assets/services.html")),
    ("objectives", include_str!("assets/objectives.html")),
    ("tables", include_str!("assets/tables.html")),
    ("names", include_str!("assets/names.html")),
];

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut all = Environment::new();
    // By the names: what ends in `.html` is escaped.
    let own = [
        ("page.html", include_str!("assets/page.html")),
        ("door.html", include_str!("assets/door.html")),
        ("macros.html", include_str!("assets/macros.html")),
    ];
    for (name, text) in own {
        all.add_template(name, text).expect("a template that is compiled in");
    }
    for (name, text) in PARTS {
        all.add_template_owned(format!("{name}.html"), text).expect("a template that is compiled in");
    }
    let number = |filter: fn(f64) -> String| {
        move |value: Value| f64::try_from(value).map_or_else(|_| words::UNKNOWN.to_owned(), filter)
    };
    all.add_filter("count", number(words::count));
    all.add_filter("bytes", number(words::bytes));
    all.add_filter("seconds", number(words::seconds));
    all.add_filter("percent", number(words::percent));
    all.add_filter("times", number(words::times));
    all.add_filter("share", share);
    all.add_filter("spark", spark);
    all
});

/// How much of `all` a value is, in hundredths, for the width of a bar.
fn share(value: Value, all: Value) -> f64 {
    let (Ok(value), Ok(all)) = (f64::try_from(value), f64::try_from(all)) else { return 0.0 };
    if all > 0.0 { (value / all * 1_000.0).round().clamp(0.0, 1_000.0) / 10.0 } else { 0.0 }
}

/// The points of a small line: of `key` in each step of a history, by the highest of `scale`.
fn spark(history: Value, key: String, scale: String) -> String {
    let of = |key: &str| -> Vec<f64> {
        let steps = history.try_iter().into_iter().flatten();
        steps
            .map(|step| step.get_attr(key).ok().and_then(|v| f64::try_from(v).ok()).unwrap_or_default())
            .collect()
    };
    words::points(&of(&key), of(&scale).into_iter().fold(0.0, f64::max), 120.0, 24.0)
}

/// What the address asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct View {
    order: Order,
}

/// Which container logs come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Order {
    #[default]
    Worst,
    Rate,
    Lag,
}

impl View {
    /// What the query asks for; what is not known is passed over.
    pub(super) fn of(query: Option<&str>) -> Self {
        let mut found = Self::default();
        for (name, value) in api::pairs(query.unwrap_or_default()) {
            match (name.as_str(), value.as_str()) {
                ("streams", "rate") => found.order = Order::Rate,
                ("streams", "lag") => found.order = Order::Lag,
                _ => {}
            }
        }
        found
    }

    fn name(self) -> &'static str {
        match self.order {
            Order::Worst => "worst",
            Order::Rate => "rate",
            Order::Lag => "lag",
        }
    }

    fn streams(self, overview: &Overview) -> Vec<&Stream> {
        let mut all: Vec<&Stream> = overview.streams.iter().collect();
        let rate = |of: &Stream| of.bytes_per_second.unwrap_or_default();
        match self.order {
            Order::Worst => {}
            Order::Rate => all.sort_by(|a, b| rate(b).total_cmp(&rate(a))),
            Order::Lag => all.sort_by_key(|of| std::cmp::Reverse(of.lag_bytes)),
        }
        all.truncate(ROWS);
        all
    }
}

/// Everything that templates see.
fn seen(overview: &Overview, extras: &Extras, view: &View) -> Value {
    let actions: Vec<Value> = extras
        .actions
        .iter()
        .map(|action| {
            context! { name => action.name, label => (action.label)(), active => (action.active)() }
        })
        .collect();
    let streams = view.streams(overview);
    let targets = &overview.targets[..overview.targets.len().min(ROWS)];
    let of = |state: StreamState| overview.streams.iter().filter(|stream| stream.state == state).count();
    let mut names: Vec<&str> = overview.streams.iter().map(|stream| stream.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !name.is_empty());
    names.truncate(ROWS);
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    context! {
        o => Value::from(Serde(overview)),
        banner => extras.banner.clone(),
        actions => actions,
        order => view.name(),
        streams => Value::from(Serde(&streams)),
        streams_left_out => overview.streams.len() - streams.len() + overview.omitted.streams as usize,
        streams_behind => of(StreamState::Behind) + of(StreamState::InDanger) + of(StreamState::Losing),
        targets => Value::from(Serde(targets)),
        targets_left_out => overview.targets.len() - targets.len() + overview.omitted.targets as usize,
        names => names,
    }
}

fn render(name: &str, seen: &Value) -> String {
    let made = TEMPLATES.get_template(name).and_then(|template| template.render(seen));
    // A template that fails is a bug of ours; tests render each of them with everything and with nothing.
    made.unwrap_or_else(|_| "<p>This part cannot be shown; see /api/overview.</p>".to_owned())
}

/// The parts that are made anew, by name.
pub(super) fn parts(overview: &Overview, extras: &Extras, view: &View) -> Vec<(&'static str, String)> {
    let seen = seen(overview, extras, view);
    PARTS.iter().map(|(name, _)| (*name, render(&format!("{name}.html"), &seen))).collect()
}

/// The whole page.
pub(super) fn whole(overview: &Overview, extras: &Extras, view: &View, signed_in: bool) -> String {
    let parts: std::collections::BTreeMap<&str, Value> = parts(overview, extras, view)
        .into_iter()
        .map(|(name, html)| (name, Value::from_safe_string(html)))
        .collect();
    let seen = context! { parts => parts, signed_in => signed_in, order => view.name(), node => overview.agent.node.as_str() };
    render("page.html", &seen)
}

fn html(status: StatusCode, text: String) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Html(text)).into_response()
}

/// `GET /`.
pub(super) async fn page(State(shown): State<super::State>, RawQuery(query): RawQuery) -> Response {
    let picture: Arc<Overview> = shown.observer.observe_with_rates().await;
    let signed_in = shown.guard.sessions().are_needed();
    html(StatusCode::OK, whole(&picture, &shown.extras, &View::of(query.as_deref()), signed_in))
}

/// `GET /sign-in`.
pub(super) async fn sign_in(State(shown): State<super::State>) -> Response {
    if !shown.guard.sessions().are_needed() {
        return axum::response::Redirect::to("/").into_response();
    }
    door(StatusCode::OK, "")
}

/// The form for the token, with what went wrong.
pub(super) fn door(status: StatusCode, problem: &str) -> Response {
    html(status, render("door.html", &context! { problem => problem }))
}
