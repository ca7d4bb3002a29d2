//! Routes of one workload: at most 50, whatever paths come.
//!
//! In: a route template, or a path in which ids may have been replaced already. Out: the number of a route.
//! A template is taken as it is. In a path, segments that look like ids become `{id}`; so does a segment at which many
//! values have been seen where everything else is equal. A path that nothing answers (404, 405) never becomes a route.
//! Invariant: no more than [`MAX_ROUTES`] routes and the two that stand for all others; a number never means another
//! route while somebody could still hold it.

use foldhash::HashMap;
use xxhash_rust::xxh3::xxh3_64;

/// Routes of a workload, the two special ones aside.
pub const MAX_ROUTES: usize = 50;
/// Where requests of further routes go.
pub const OTHER: &str = "__other__";
/// Where paths go that nothing answers.
pub const UNMATCHED: &str = "__unmatched__";
/// Where requests go of which no path is known.
pub const UNKNOWN: &str = "__unknown__";
/// Longest route in bytes; longer ones are no routes.
pub const MAX_LENGTH: usize = 200;

/// Paths whose route is remembered.
const MAX_REMEMBERED: usize = 1024;
/// Values of an inner segment that show it to be an id, everything else equal.
const INNER_VALUES: usize = 5;
/// Values of a last segment that show it to be an id, if they hardly repeat; a service has many routes side by side.
const LAST_VALUES: usize = 12;
/// Requests a value on average, below which values hardly repeat.
const HARDLY: u64 = 4;
/// Values of a last segment that show it to be an id however often they repeat.
const LAST_VALUES_ANYWAY: usize = 30;

/// Number of a route in its workload. Never given a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// Requests beyond the limit of routes.
pub const OTHER_ID: RouteId = RouteId(0);
/// Paths that nothing answers.
pub const UNMATCHED_ID: RouteId = RouteId(1);
/// No path known.
pub const UNKNOWN_ID: RouteId = RouteId(2);
const FIRST_ID: u32 = 3;

/// A route of a workload.
#[derive(Debug, Clone)]
pub struct Route {
    /// As published.
    pub text: Box<str>,
    /// When it last had a request, on the book's clock.
    pub seen_ms: u64,
    /// Bits of the workload's objectives in which it has no say.
    pub excluded: u32,
    /// Requests since it is a route.
    hits: u64,
    /// It came from paths and has a segment that was learned to be an id.
    learned: bool,
    /// Another route has taken its place; it stays until its series end.
    retired: bool,
}

/// The routes of one workload.
#[derive(Debug, Default)]
pub struct Routes {
    routes: HashMap<RouteId, Route>,
    by_text: HashMap<u64, RouteId>,
    remembered: HashMap<u64, RouteId>,
    next: u32,
    scratch: Vec<u8>,
    /// Routes other than the special ones.
    count: usize,
}

/// What a request says of its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// A line, answered by something.
    Line,
    /// A line whose answer says that there is no such path.
    Unanswered,
    /// The application's own metrics have it as it is: nothing is to be learned from it.
    Own,
}

/// A route that was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// The route.
    pub id: RouteId,
    /// It is one just now.
    pub is_new: bool,
}

impl Routes {
    /// The route of a request.
    #[inline]
    pub fn resolve(&mut self, raw: &[u8], hint: Hint, now_ms: u64) -> Resolved {
        let hash = xxh3_64(raw);
        if let Some(&id) = self.remembered.get(&hash)
            && let Some(route) = self.routes.get_mut(&id)
        {
            route.seen_ms = now_ms;
            route.hits += 1;
            return Resolved { id, is_new: false };
        }
        self.look_up(raw, hash, hint, now_ms)
    }

    fn look_up(&mut self, raw: &[u8], hash: u64, hint: Hint, now_ms: u64) -> Resolved {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let shape = normalise(raw, &mut scratch);
        let resolved = match (shape, std::str::from_utf8(&scratch)) {
            (Shape::Nothing, _) if hint == Hint::Unanswered => self.special(UNMATCHED_ID, now_ms),
            (Shape::Nothing, _) => self.special(UNKNOWN_ID, now_ms),
            (Shape::TooLong, _) | (_, Err(_)) => self.special(OTHER_ID, now_ms),
            (shape, Ok(text)) => self.known_or_new(text, shape == Shape::Template, hint, now_ms),
        };
        self.scratch = scratch;
        if resolved.id.0 >= FIRST_ID {
            if self.remembered.len() >= MAX_REMEMBERED {
                self.remembered.clear();
            }
            self.remembered.insert(hash, resolved.id);
        }
        resolved
    }

    fn known_or_new(&mut self, text: &str, template: bool, hint: Hint, now_ms: u64) -> Resolved {
        if template && let Some(id) = stands_for_others(text) {
            return self.special(id, now_ms);
        }
        let known = self.by_text.get(&xxh3_64(text.as_bytes())).copied();
        let known = known.or_else(|| if template { None } else { self.learned_like(text) });
        if let Some(id) = known
            && let Some(route) = self.routes.get_mut(&id)
        {
            route.seen_ms = now_ms;
            route.hits += 1;
            return Resolved { id, is_new: false };
        }
        if !template && hint == Hint::Unanswered {
            return self.special(UNMATCHED_ID, now_ms);
        }
        if self.count >= MAX_ROUTES {
            return self.special(OTHER_ID, now_ms);
        }
        if !template
            && hint == Hint::Line
            && let Some(segment) = self.variable_segment(text)
        {
            return self.learn(text, segment, now_ms);
        }
        let id = self.admit(text, false, now_ms);
        Resolved { id, is_new: true }
    }

    fn special(&mut self, id: RouteId, now_ms: u64) -> Resolved {
        let is_new = !self.routes.contains_key(&id);
        let text = match id {
            UNMATCHED_ID => UNMATCHED,
            UNKNOWN_ID => UNKNOWN,
            _ => OTHER,
        };
        let route = self.routes.entry(id).or_insert_with(|| Route::new(text, false, now_ms));
        route.seen_ms = now_ms;
        route.hits += 1;
        Resolved { id, is_new }
    }

    fn admit(&mut self, text: &str, learned: bool, now_ms: u64) -> RouteId {
        self.next = self.next.max(FIRST_ID);
        let id = RouteId(self.next);
        self.next += 1;
        self.count += 1;
        self.by_text.insert(xxh3_64(text.as_bytes()), id);
        self.routes.insert(id, Route::new(text, learned, now_ms));
        id
    }

    /// A learned route that a path fits.
    fn learned_like(&self, text: &str) -> Option<RouteId> {
        let fits = |route: &Route| {
            route.learned && segments(&route.text).count() == segments(text).count() && {
                segments(&route.text).zip(segments(text)).all(|(own, other)| own == "{id}" || own == other)
            }
        };
        self.routes.iter().filter(|(_, route)| fits(route)).map(|(id, _)| *id).min()
    }

    /// The segment of a path that is an id by what other routes show.
    fn variable_segment(&self, text: &str) -> Option<usize> {
        let length = segments(text).count();
        let mut same: Vec<(usize, u64)> = vec![(0, 0); length];
        for route in self.routes.values().filter(|route| !route.retired && is_path(&route.text)) {
            if segments(&route.text).count() != length {
                continue;
            }
            let mut differing = segments(&route.text)
                .zip(segments(text))
                .enumerate()
                .filter(|(_, (own, other))| own != other)
                .map(|(index, (own, _))| (index, own));
            if let (Some((index, own)), None) = (differing.next(), differing.next())
                && own != "{id}"
            {
                same[index].0 += 1;
                same[index].1 += route.hits;
            }
        }
        same.iter().enumerate().position(|(index, &(values, hits))| {
            if index + 1 < length {
                values >= INNER_VALUES
            } else {
                values >= LAST_VALUES_ANYWAY || values >= LAST_VALUES && hits < HARDLY * values as u64
            }
        })
    }

    /// Makes a route with `{id}` at a segment, in place of those that it covers.
    fn learn(&mut self, text: &str, segment: usize, now_ms: u64) -> Resolved {
        let mut learned = String::with_capacity(text.len());
        for (index, own) in segments(text).enumerate() {
            learned.push('/');
            learned.push_str(if index == segment { "{id}" } else { own });
        }
        if let Some(&id) = self.by_text.get(&xxh3_64(learned.as_bytes()))
            && let Some(route) = self.routes.get_mut(&id)
        {
            route.learned = true;
            route.seen_ms = now_ms;
            route.hits += 1;
            return Resolved { id, is_new: false };
        }
        // What it covers gets no further request, and ends once it is idle.
        let covered: Vec<RouteId> = self
            .routes
            .iter()
            .filter(|(id, route)| {
                id.0 >= FIRST_ID
                    && !route.retired
                    && segments(&route.text).count() == segments(&learned).count()
                    && segments(&learned)
                        .zip(segments(&route.text))
                        .all(|(own, it)| own == "{id}" || own == it)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in covered {
            if let Some(route) = self.routes.get_mut(&id) {
                route.retired = true;
                self.by_text.remove(&xxh3_64(route.text.as_bytes()));
            }
        }
        self.remembered.clear();
        let id = self.admit(&learned, true, now_ms);
        Resolved { id, is_new: true }
    }

    /// A route by its number.
    pub fn get(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(&id)
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = (RouteId, &Route)> {
        self.routes.iter().map(|(id, route)| (*id, route))
    }

    /// Sets in which objectives each route has no say.
    pub fn exclude(&mut self, excluded: impl Fn(&str) -> u32) {
        for route in self.routes.values_mut() {
            route.excluded = excluded(&route.text);
        }
    }

    /// The same for one route.
    pub fn exclude_one(&mut self, id: RouteId, excluded: impl Fn(&str) -> u32) {
        if let Some(route) = self.routes.get_mut(&id) {
            route.excluded = excluded(&route.text);
        }
    }

    /// Takes a route as it was kept, with its number.
    pub fn restore(&mut self, id: RouteId, text: &str, learned: bool, retired: bool, now_ms: u64) {
        let mut route = Route::new(text, learned, now_ms);
        route.retired = retired;
        // It was a route before: it has repeated as far as anyone knows.
        route.hits = HARDLY;
        if id.0 >= FIRST_ID {
            self.count += 1;
            self.next = self.next.max(id.0.saturating_add(1));
            if !retired {
                self.by_text.insert(xxh3_64(text.as_bytes()), id);
            }
        }
        self.routes.insert(id, route);
    }

    /// Ends routes that had no request since `before_ms`, and says which.
    pub fn expire(&mut self, before_ms: u64) -> Vec<RouteId> {
        let idle: Vec<RouteId> =
            self.routes.iter().filter(|(_, route)| route.seen_ms < before_ms).map(|(id, _)| *id).collect();
        for id in &idle {
            if let Some(route) = self.routes.remove(id)
                && id.0 >= FIRST_ID
            {
                self.count -= 1;
                let hash = xxh3_64(route.text.as_bytes());
                if self.by_text.get(&hash) == Some(id) {
                    self.by_text.remove(&hash);
                }
            }
        }
        if !idle.is_empty() {
            self.remembered.clear();
        }
        idle
    }
}

impl Route {
    fn new(text: &str, learned: bool, now_ms: u64) -> Self {
        Self { text: text.into(), seen_ms: now_ms, excluded: 0, hits: 1, learned, retired: false }
    }

    /// True when one of its segments was learned to be an id.
    pub fn is_learned(&self) -> bool {
        self.learned
    }

    /// True when another route has taken its place.
    pub fn is_retired(&self) -> bool {
        self.retired
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
}

/// What a text turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Nothing,
    Template,
    Path,
    TooLong,
}

/// The special route that a library's word stands for: our own three, and what fastify-metrics (`__unknown__`), FastAPI
/// (`none`), Spring (`NOT_FOUND`, `UNKNOWN`), django-prometheus (`<unnamed view>`) and handwritten middleware (`unmatched`)
/// call a path that nothing answers.
fn stands_for_others(text: &str) -> Option<RouteId> {
    match text {
        OTHER => Some(OTHER_ID),
        UNMATCHED | UNKNOWN | "none" | "NOT_FOUND" | "<unnamed view>" | "unmatched" | "not_found" => {
            Some(UNMATCHED_ID)
        }
        "UNKNOWN" => Some(UNKNOWN_ID),
        _ => None,
    }
}

/// Writes a route as it is published: without query, a template as it is, ids of a path replaced.
fn normalise(raw: &[u8], out: &mut Vec<u8>) -> Shape {
    if raw.is_empty() {
        return Shape::Nothing;
    }
    // An absolute form, as proxies are asked for: the path alone matters.
    let raw = match raw.iter().take(8).position(|byte| *byte == b':') {
        Some(colon) if raw[colon..].starts_with(b"://") => {
            let rest = &raw[colon + 3..];
            rest.iter().position(|byte| *byte == b'/').map_or(&b"/"[..], |slash| &rest[slash..])
        }
        _ => raw,
    };
    let template = raw.first() != Some(&b'/') || raw.split(|byte| *byte == b'/').any(is_placeholder);
    if template {
        out.extend_from_slice(&raw[..raw.len().min(MAX_LENGTH + 1)]);
    } else {
        let path =
            &raw[..raw.iter().position(|byte| matches!(byte, b'?' | b'#' | b';')).unwrap_or(raw.len())];
        for segment in path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()) {
            out.push(b'/');
            out.extend_from_slice(if is_id(segment) { b"{id}" } else { segment });
            if out.len() > MAX_LENGTH {
                break;
            }
        }
        if out.is_empty() {
            out.push(b'/');
        }
    }
    if out.len() > MAX_LENGTH || out.iter().any(u8::is_ascii_control) {
        return Shape::TooLong;
    }
    if template { Shape::Template } else { Shape::Path }
}

/// A placeholder of a framework: `:id`, `{name}`, `<int:id>`, `[slug]`, `*`. `{id}` alone may be our own.
fn is_placeholder(segment: &[u8]) -> bool {
    match segment {
        b"{id}" => false,
        [b':', next, ..] => next.is_ascii_alphabetic() || *next == b'_',
        [b'{', .., b'}'] | [b'<', .., b'>'] | [b'[', .., b']'] | [b'*', ..] => true,
        _ => false,
    }
}

/// True for a segment that names one of many: numbers, uuids, hex, addresses, long tokens.
fn is_id(segment: &[u8]) -> bool {
    if segment == b"{id}" {
        return true;
    }
    let digits = segment.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == segment.len() {
        return true;
    }
    if segment.contains(&b'@') || segment.windows(3).any(|three| three == b"%40") {
        return true;
    }
    let hex = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    if segment.len() >= 8 && digits >= 2 && segment.iter().all(hex) {
        return true;
    }
    let signed =
        matches!(segment, [b'-', rest @ ..] if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit));
    // Version numbers are no ids, dates are.
    let dated =
        digits >= 6 && segment.iter().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'.' | b'_'));
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=' | b'.' | b'~');
    let long = segment.len() >= 20 && digits >= 3 && segment.iter().all(token);
    let prefixed = segment.len() >= 12 && digits >= 4 && segment.iter().all(token);
    signed || dated || long || prefixed || segment.len() > 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(routes: &Routes, resolved: Resolved) -> &str {
        &routes.get(resolved.id).expect("a route").text
    }

    fn resolve(path: &str) -> String {
        let mut routes = Routes::default();
        let resolved = routes.resolve(path.as_bytes(), Hint::Line, 0);
        text(&routes, resolved).to_owned()
    }

    #[test]
    fn ids_of_a_path_are_replaced_and_templates_are_kept() {
        for (path, route) in [
            ("/", "/"),
            ("/ok/1001?verbose=1", "/ok/{id}"),
            ("/v1/users/42/orders/", "/v1/users/{id}/orders"),
            ("//a//b#top", "/a/b"),
            ("/o/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x", "/o/{id}/x"),
            ("/c/4bf92f3577b34da6a3ce929d0e0e4736", "/c/{id}"),
            ("/u/ann.b%40example.co.uk", "/u/{id}"),
            ("/s/cus_Na6dX7aXxi11N4", "/s/{id}"),
            ("/day/2026-11-23", "/day/{id}"),
            ("/api/v2/internationalization", "/api/v2/internationalization"),
            ("/deadbeef/cafe", "/deadbeef/cafe"),
            ("http://host:80/x/7", "/x/{id}"),
            ("/users/:userId/orders/12", "/users/:userId/orders/12"),
            ("/users/{userId}", "/users/{userId}"),
            ("/files/*", "/files/*"),
            ("users/<int:pk>/", "users/<int:pk>/"),
            ("/ok/{id}", "/ok/{id}"),
            ("", "__unknown__"),
        ] {
            assert_eq!(resolve(path), route, "{path}");
        }
        assert_eq!(resolve(&format!("/{}", "abcdefgh/".repeat(40))), "__other__");
        assert_eq!(resolve("/a\u{7}b"), "__other__");
    }

    #[test]
    fn the_fifty_first_route_is_other_until_one_is_idle() {
        let mut routes = Routes::default();
        // Templates are never learned away.
        for n in 0..50 {
            assert!(routes.resolve(format!("/r{n}/:x").as_bytes(), Hint::Line, 0).is_new);
        }
        let over = routes.resolve(b"/late/:x", Hint::Line, 10);
        assert_eq!(text(&routes, over), "__other__");
        for n in 1..50 {
            assert!(!routes.resolve(format!("/r{n}/:x").as_bytes(), Hint::Line, 20).is_new);
        }
        assert_eq!(routes.expire(15).len(), 2, "/r0 and __other__ are idle");
        let admitted = routes.resolve(b"/late/:x", Hint::Line, 30);
        assert_eq!(text(&routes, admitted), "/late/:x");
        let again = routes.resolve(b"/r0/:x", Hint::Line, 30);
        assert_eq!(text(&routes, again), "__other__");
    }

    #[test]
    fn scans_take_no_route() {
        let mut routes = Routes::default();
        let found = routes.resolve(b"/users/ann", Hint::Line, 0);
        for n in 0..1000 {
            let scan = routes.resolve(format!("/wp-admin/x{n}.php").as_bytes(), Hint::Unanswered, 0);
            assert_eq!(scan.id, UNMATCHED_ID);
        }
        assert_eq!(
            routes.resolve(b"/users/ann", Hint::Unanswered, 0).id,
            found.id,
            "a known route may answer 404"
        );
        let template = routes.resolve(b"/orders/:id", Hint::Unanswered, 0);
        assert_eq!(text(&routes, template), "/orders/:id", "a template is a route whatever it answers");
        assert_eq!(routes.routes.len(), 3);
    }

    #[test]
    fn a_segment_with_many_values_is_learned() {
        let mut routes = Routes::default();
        for name in ["ann", "bob", "cid", "dan", "eve"] {
            let route = routes.resolve(format!("/users/{name}/cart").as_bytes(), Hint::Line, 0);
            assert_eq!(text(&routes, route), format!("/users/{name}/cart"));
        }
        for name in ["fay", "gus", "ann"] {
            let route = routes.resolve(format!("/users/{name}/cart").as_bytes(), Hint::Line, 0);
            assert_eq!(text(&routes, route), "/users/{id}/cart");
        }
        let other = routes.resolve(b"/users/gus/orders", Hint::Line, 0);
        assert_eq!(text(&routes, other), "/users/gus/orders");
    }

    #[test]
    fn routes_side_by_side_that_repeat_are_no_ids() {
        let mut routes = Routes::default();
        for n in 0..25 {
            let path = format!("/api/thing{}", (b'a' + n) as char);
            for _ in 0..5 {
                let route = routes.resolve(path.as_bytes(), Hint::Line, 0);
                assert_eq!(text(&routes, route), path);
            }
        }
        let mut slugs = Routes::default();
        for n in 0..40 {
            slugs.resolve(format!("/blog/post-{}", (b'a' + n) as char).as_bytes(), Hint::Line, 0);
        }
        let slug = slugs.resolve(b"/blog/another", Hint::Line, 0);
        assert_eq!(text(&slugs, slug), "/blog/{id}");
    }
}
