//! From the queries of an objective to whose requests it is about and what is good.
//!
//! In: queries of bad (or good) and of all events. Out: [`Measured`], or a [`Reason`]. Invariant: what comes out counts the
//! same requests as the queries did: every matcher is either part of it or a reason to refuse.
//!
//! | label | becomes |
//! |---|---|
//! | `namespace`, `kubernetes_namespace`, `k8s_namespace_name`, `exported_namespace` | `match.namespace` |
//! | `workload`, `deployment`, `statefulset`, `daemonset` and `k8s_…_name` | `match.workload` |
//! | `service`, `service_name`, `app`, `application`, else `job` | `match.service` |
//! | `job="shop/checkout"` | `match.namespace` and `match.service` |
//! | `route`, `http_route`, `path`, `handler`, `uri`, `url_rule`, `endpoint`, `view` | `match.route`, negated `exclude_routes` |
//! | `code`, `status`, `status_code`, … | must tell exactly the 5xx from the rest |
//! | `le` | `threshold` |

use std::time::Duration;

use regex::RegexBuilder;

use super::Reason;
use super::families::{self, Answer, Family, Part};
use super::promql::{Expr, How, Matcher, Series};
use crate::slo::spec::{Selector, Sli};

/// What the queries of an objective say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    /// The namespace is empty when no label names it.
    pub(super) selector: Selector,
    pub(super) sli: Sli,
    pub(super) exclude_routes: Vec<String>,
    /// What a person should check.
    pub(super) notes: Vec<String>,
}

/// What the numerator counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numerator {
    Bad,
    Good,
}

/// Statuses of HTTP.
fn numbers() -> Vec<String> {
    (100..600).map(|status: u32| status.to_string()).collect()
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const OUTCOMES: [&str; 6] =
    ["INFORMATIONAL", "SUCCESS", "REDIRECTION", "CLIENT_ERROR", "SERVER_ERROR", "UNKNOWN"];
const GRPC: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// The gRPC codes that are the server's fault: OpenTelemetry semantic conventions, "gRPC status", for server spans.
const GRPC_BAD: [&str; 6] =
    ["Unknown", "DeadlineExceeded", "Unimplemented", "Internal", "Unavailable", "DataLoss"];

/// What one query counts.
struct Counted {
    family: &'static Family,
    part: Part,
    name: String,
    matchers: Vec<Matcher>,
    /// `rate 5m`; `None` of a bare series.
    over: Option<String>,
}

/// An objective's numerator and denominator.
pub(super) fn measure(numerator: Numerator, part: &Expr, total: &Expr) -> Result<Measured, Reason> {
    let total = counted(total)?;
    if total.part == Part::Bucket {
        let message = "the query of all requests counts one bucket only";
        return Err(Reason::new(message, "use the family's _count, or le=\"+Inf\""));
    }
    // `errors or vector(0)` is what every objective means by no error.
    let part = match part {
        Expr::Binary("or", left, right) if is_zero(right) => left,
        other => other,
    };
    if let Expr::Binary("-", all, rest) = part {
        let (all, rest) = (counted(all)?, counted(rest)?);
        if all.name != total.name
            || all.matchers != total.matchers
            || all.part != total.part
            || all.over != total.over
        {
            let message = "the difference is not taken from the query of all requests";
            return Err(Reason::new(message, "subtract from the same family with the same matchers"));
        }
        let other = match numerator {
            Numerator::Bad => Numerator::Good,
            Numerator::Good => Numerator::Bad,
        };
        return ratio(other, rest, total);
    }
    ratio(numerator, counted(part)?, total)
}

/// A ratio as one query: `bad / all`, or `1 - good / all`.
pub(super) fn measure_ratio(numerator: Numerator, query: &Expr) -> Result<Measured, Reason> {
    match query {
        Expr::Binary("/", part, total) => measure(numerator, part, total),
        Expr::Binary("-", one, ratio) if **one == Expr::Number(1.0) => match &**ratio {
            Expr::Binary("/", part, total) => {
                let other = if numerator == Numerator::Bad { Numerator::Good } else { Numerator::Bad };
                measure(other, part, total)
            }
            _ => Err(shape()),
        },
        _ => Err(shape()),
    }
}

/// A native histogram and the latency that is good.
pub(super) fn measure_native(total: &Expr, threshold: Duration) -> Result<Measured, Reason> {
    let mut total = counted(total)?;
    if total.part != Part::Native {
        let message = format!("{:?} is no native histogram", total.name);
        return Err(Reason::new(message, "name the histogram without _bucket, _sum or _count"));
    }
    no_status(&mut total)?;
    named(total.matchers, Sli::Latency { threshold })
}

fn shape() -> Reason {
    Reason::new(
        "the query is none of the shapes that count requests",
        "write it as sum(rate(family{…}[5m])), of bad and of all requests; \
         or declare the objective by hand in [slo.<name>]",
    )
}

fn is_zero(query: &Expr) -> bool {
    matches!(query, Expr::Call(name, inner) if name == "vector" && inner.as_slice() == [Expr::Number(0.0)])
}

/// One family of `sum(rate(family{…}[…]))`, or of the bare family.
fn counted(query: &Expr) -> Result<Counted, Reason> {
    let inner = match query {
        Expr::Aggregate(name, by, inner) if name == "sum" => {
            if let Some(label) = by.first() {
                let message = format!("sum by ({label}) is an objective for each {label}");
                return Err(Reason::new(
                    message,
                    "declare one objective for each, with the label as a matcher",
                ));
            }
            &**inner
        }
        other => other,
    };
    let (series, function) = match inner {
        Expr::Series(series) => (series, None),
        Expr::Call(name, arguments) => match (name.as_str(), arguments.as_slice()) {
            ("rate" | "increase", [Expr::Series(series)]) => (series, Some(name)),
            _ => {
                let message = format!("{name}() does not count requests");
                return Err(Reason::new(message, "use rate() or increase() of a counter"));
            }
        },
        _ => return Err(shape()),
    };
    let over = match (function, &series.range) {
        (None, None) => None,
        (Some(function), Some(range)) => Some(format!("{function} {}", range.replace(' ', ""))),
        _ => return Err(Reason::new("the range and rate() do not fit", "write sum(rate(family{…}[5m]))")),
    };
    Ok(Counted { over, ..part_of(series)? })
}

fn part_of(series: &Series) -> Result<Counted, Reason> {
    let Some((family, part)) = families::of(&series.name) else {
        let name = &series.name;
        let (message, help) = if families::is_proxy(name) {
            (
                format!("{name} is counted by a proxy, whose failures the service never sees"),
                "declare the objective on the service's own requests",
            )
        } else {
            (
                format!("{name} is none of the families of served requests that are known"),
                "use red_requests_total or red_request_duration_seconds_bucket, which the agent makes of the service's own family or log",
            )
        };
        return Err(Reason::new(message, help));
    };
    let (name, matchers) = (series.name.clone(), series.matchers.clone());
    let mut found = Counted { family, part, name, matchers, over: None };
    found.matchers.sort();
    found.matchers.dedup();
    // All of a histogram's buckets are its count.
    let all = |m: &Matcher| m.label == "le" && m.how == How::Is && m.value == "+Inf";
    if part == Part::Bucket && found.matchers.iter().any(all) {
        found.matchers.retain(|m| m.label != "le");
        found.part = Part::Count;
        found.name = format!("{}_count", family.duration);
    }
    Ok(found)
}

fn ratio(numerator: Numerator, part: Counted, mut total: Counted) -> Result<Measured, Reason> {
    if part.part == Part::Native || total.part == Part::Native {
        return Err(Reason::new(
            format!("{} is a histogram, not a counter", part.name),
            "use its _count and _bucket",
        ));
    }
    let same_family = part.name == total.name
        || part.part == Part::Bucket && total.name == format!("{}_count", total.family.duration);
    if !std::ptr::eq(part.family, total.family) || !same_family {
        let message = format!("{} and {} may count different requests", part.name, total.name);
        return Err(Reason::new(message, "take both queries from the same family"));
    }
    if part.over != total.over {
        let message = "the two queries count over different ranges";
        return Err(Reason::new(message, "give both the same function and range"));
    }
    let (answer, per_second) = (total.family.answer, total.family.per_second);
    no_status(&mut total)?;
    if part.part == Part::Bucket {
        let mut fast = part;
        let (bounds, rest): (Vec<Matcher>, Vec<Matcher>) =
            fast.matchers.into_iter().partition(|matcher| matcher.label == "le");
        fast.matchers = rest;
        let threshold = bound(&bounds, per_second)?;
        no_status(&mut fast)?;
        same(&fast.matchers, &total.matchers)?;
        if numerator == Numerator::Bad {
            let message = "the requests of a bucket are the fast ones, and count as bad here";
            return Err(Reason::new(message, "subtract them from all requests"));
        }
        return named(total.matchers, Sli::Latency { threshold });
    }
    let (status, rest): (Vec<Matcher>, Vec<Matcher>) =
        part.matchers.into_iter().partition(|matcher| families::STATUS.contains(&matcher.label.as_str()));
    same(&rest, &total.matchers)?;
    tells_errors(&status, numerator, answer)?;
    named(total.matchers, Sli::Availability)
}

/// The matchers of both queries are the same.
fn same(part: &[Matcher], total: &[Matcher]) -> Result<(), Reason> {
    let Some(odd) = part
        .iter()
        .find(|matcher| !total.contains(matcher))
        .or_else(|| total.iter().find(|matcher| !part.contains(matcher)))
    else {
        return Ok(());
    };
    let message = format!("{} stands in one query only, so they count different requests", odd.text());
    Err(Reason::new(message, "give both queries the same matchers, but for the status or le"))
}

/// Takes matchers of the status away that leave nothing out; others are refused.
fn no_status(counted: &mut Counted) -> Result<(), Reason> {
    let answer = counted.family.answer;
    for matcher in
        counted.matchers.iter().filter(|matcher| families::STATUS.contains(&matcher.label.as_str()))
    {
        for (domain, _) in domains(&matcher.label, answer) {
            if !chosen(std::slice::from_ref(matcher), &domain)?.iter().all(|is| *is) {
                let message = format!("{} leaves out requests, and here all of them count", matcher.text());
                return Err(Reason::new(message, "count every request; what is no failure is good"));
            }
        }
    }
    counted.matchers.retain(|matcher| !families::STATUS.contains(&matcher.label.as_str()));
    Ok(())
}

/// The threshold of a bucket.
fn bound(bounds: &[Matcher], per_second: f64) -> Result<Duration, Reason> {
    let wrong = |message: String| Reason::new(message, "name one bucket, like le=\"0.25\"");
    let [bound] = bounds else {
        return Err(wrong(format!("{} matchers of le name no single bucket", bounds.len())));
    };
    let plain = literals(bound).filter(|values| values.len() == 1).map(|mut values| values.remove(0));
    let value = plain.and_then(|text| text.parse::<f64>().ok());
    match value.map(|value| value / per_second) {
        Some(seconds) if seconds > 0.0 && seconds <= 3_600.0 => {
            // What division added to the shortest decimal is taken away again.
            Ok(Duration::from_secs_f64(crate::slo::number::tidy(seconds)))
        }
        _ => Err(wrong(format!("{} is no bucket's bound", bound.text()))),
    }
}

/// Values of a label, and which of them are failures.
type Domain = (Vec<String>, fn(&str) -> bool);

/// The values that the labels of a status have, with those that are failures; the first is the usual one.
fn domains(label: &str, answer: Answer) -> Vec<Domain> {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let is_grpc_number = |text: &str| ["2", "4", "12", "13", "14", "15"].contains(&text);
    match (label, answer) {
        ("code_class", _) => vec![(owned(&CLASSES), |text| text == "5xx")],
        ("outcome", _) => vec![(owned(&OUTCOMES), |text| text == "SERVER_ERROR")],
        ("grpc_code", _) | (_, Answer::Grpc) => vec![
            (owned(&GRPC), |text| GRPC_BAD.contains(&text)),
            ((0..17).map(|code: u32| code.to_string()).collect(), is_grpc_number),
        ],
        (_, Answer::Http) => {
            vec![(numbers(), |text| text.starts_with('5')), (owned(&CLASSES), |text| text == "5xx")]
        }
    }
}

/// Whether each value of a domain is matched by all matchers.
fn chosen(matchers: &[Matcher], domain: &[String]) -> Result<Vec<bool>, Reason> {
    let mut kept = vec![true; domain.len()];
    for matcher in matchers {
        let test: Box<dyn Fn(&str) -> bool> = match matcher.how {
            How::Is | How::IsNot => Box::new(|text| text == matcher.value),
            How::Like | How::Unlike => {
                let built =
                    RegexBuilder::new(&format!("^(?:{})$", matcher.value)).size_limit(1 << 20).build();
                let Ok(built) = built else {
                    let message = format!("{:?} is no regular expression", matcher.value);
                    return Err(Reason::new(message, "write the failures as code=~\"5..\""));
                };
                Box::new(move |text| built.is_match(text))
            }
        };
        let wanted = matches!(matcher.how, How::Is | How::Like);
        for (kept, value) in kept.iter_mut().zip(domain) {
            *kept &= test(value) == wanted;
        }
    }
    Ok(kept)
}

/// The matchers of a numerator tell exactly the server's failures from the rest.
fn tells_errors(status: &[Matcher], numerator: Numerator, answer: Answer) -> Result<(), Reason> {
    let failures = match answer {
        Answer::Http => "5xx",
        Answer::Grpc => "Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable and DataLoss",
    };
    let write = match answer {
        Answer::Http => "count code=~\"5..\" as bad, if that is a failure to you",
        Answer::Grpc => {
            "count grpc_code=~\"Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss\" as bad"
        }
    };
    let Some(first) = status.first() else {
        let message = "no label tells bad requests from good ones";
        return Err(Reason::new(message, write));
    };
    if status.iter().any(|matcher| matcher.label != first.label) {
        return Err(Reason::new("two labels of the status are asked at once", "keep one"));
    }
    let mut nearest: Option<Vec<String>> = None;
    // Another way to write a status counts only where the usual one is not meant: `code="5xx"` matches no number.
    let mut is_usual = false;
    for (index, (domain, is_bad)) in domains(&first.label, answer).into_iter().enumerate() {
        let kept = chosen(status, &domain)?;
        is_usual |= index == 0 && kept.iter().any(|is| *is) && kept.iter().any(|is| !*is);
        if index > 0 && is_usual {
            break;
        }
        let bad = kept.iter().map(|kept| *kept == (numerator == Numerator::Bad));
        let wrong: Vec<String> = domain
            .iter()
            .zip(bad)
            .filter(|(value, bad)| is_bad(value) != *bad)
            .map(|(value, _)| value.clone())
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        if nearest.as_ref().is_none_or(|nearest| wrong.len() < nearest.len()) {
            nearest = Some(wrong);
        }
    }
    let odd = nearest.unwrap_or_default();
    let shown = odd.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = match odd.len() {
        0..=1 => " differs",
        2..=3 => " differ",
        _ => " and others differ",
    };
    let texts = status.iter().map(Matcher::text).collect::<Vec<_>>().join(",");
    let message = format!("{texts} does not tell exactly {failures} from the rest: {shown}{more}");
    Err(Reason::new(message, write))
}

/// The plain texts that a matcher names: one, or the alternatives of a regular expression without any sign.
fn literals(matcher: &Matcher) -> Option<Vec<String>> {
    match matcher.how {
        How::Is | How::IsNot => Some(vec![matcher.value.clone()]),
        How::Like | How::Unlike => {
            let text = matcher.value.as_str();
            let text = text.strip_prefix('^').unwrap_or(text);
            let text = text.strip_suffix('$').unwrap_or(text);
            let text = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text);
            let (mut found, mut word, mut escaped) = (Vec::new(), String::new(), false);
            for c in text.chars() {
                if escaped {
                    if c.is_alphanumeric() {
                        return None;
                    }
                    word.push(c);
                    escaped = false;
                } else if c == '\\' {
                    escaped = true;
                } else if c == '|' {
                    found.push(std::mem::take(&mut word));
                } else if ".+*?()[]{}^$".contains(c) {
                    return None;
                } else {
                    word.push(c);
                }
            }
            found.push(word);
            (!escaped).then_some(found)
        }
    }
}

/// Whose requests the matchers are about; each must be understood.
fn named(matchers: Vec<Matcher>, sli: Sli) -> Result<Measured, Reason> {
    let mut selector = Selector::default();
    let (mut exclude_routes, mut jobs, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut namespace: Option<String> = None;
    for matcher in &matchers {
        let label = matcher.label.as_str();
        let is_route = families::ROUTE.contains(&label);
        let values = literals(matcher).filter(|values| values.iter().all(|value| !value.is_empty()));
        let negated = matches!(matcher.how, How::IsNot | How::Unlike);
        let known = is_route
            || label == "job"
            || families::NAMESPACE.contains(&label)
            || families::WORKLOAD.contains(&label)
            || families::SERVICE.contains(&label);
        let Some(mut values) = values.filter(|values| known && (negated && is_route || values.len() == 1))
        else {
            return Err(not_a_match(matcher, known));
        };
        if negated {
            if !is_route {
                return Err(not_a_match(matcher, known));
            }
            exclude_routes.append(&mut values);
            continue;
        }
        let value = values.remove(0);
        let slot = if families::NAMESPACE.contains(&label) {
            &mut namespace
        } else if families::WORKLOAD.contains(&label) {
            &mut selector.workload
        } else if families::SERVICE.contains(&label) {
            &mut selector.service
        } else if is_route {
            if label == "endpoint" && !value.starts_with('/') {
                return Err(not_a_match(matcher, false));
            }
            &mut selector.route
        } else {
            jobs.push(value);
            continue;
        };
        put(slot, value, label)?;
    }
    let is_named = selector.service.is_some() || selector.workload.is_some();
    for job in jobs {
        let (of, service) = match job.split_once('/') {
            Some((namespace, service)) => (Some(namespace.to_owned()), service.to_owned()),
            None => (None, job),
        };
        if let Some(of) = of {
            put(&mut namespace, of, "job")?;
        }
        if !is_named {
            notes.push(format!(
                "its service is the label job; red_requests_total must have service={service:?}"
            ));
        }
        // Where a label names the service better, the job is who scrapes it, and must agree.
        if selector.service.is_some() || selector.workload.is_none() {
            put(&mut selector.service, service, "job")?;
        } else if selector.workload.as_ref() != Some(&service) {
            let message =
                format!("job={service:?} and the workload differ, and one objective matches one of them");
            return Err(Reason::new(message, "keep the workload and take the job away"));
        }
    }
    if selector.workload.is_none() && selector.service.is_none() {
        let message = "no label names the service or workload, so the query counts the requests of all";
        return Err(Reason::new(message, "add a matcher like service=\"checkout\" or workload=\"checkout\""));
    }
    if selector.route.is_some() && !exclude_routes.is_empty() {
        let message = "a route is asked for and others are excluded";
        return Err(Reason::new(message, "keep the route that is asked for"));
    }
    exclude_routes.sort();
    exclude_routes.dedup();
    selector.namespace = namespace.unwrap_or_default();
    Ok(Measured { selector, sli, exclude_routes, notes })
}

/// Fills a key of `match`; two labels may name it if they agree.
fn put(slot: &mut Option<String>, value: String, label: &str) -> Result<(), Reason> {
    match slot {
        Some(known) if *known != value => {
            let message = format!("{label}={value:?} contradicts {known:?}, which another label names");
            Err(Reason::new(message, "keep the label that names the service best"))
        }
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn not_a_match(matcher: &Matcher, known: bool) -> Reason {
    let text = matcher.text();
    if known {
        let message = format!("{text} names no single value");
        return Reason::new(
            message,
            "match names one namespace, workload, service or route: declare one objective for each",
        );
    }
    let message = format!("{text} cannot be said: match has namespace, workload, service and route only");
    Reason::new(message, "take the matcher away from both queries if the objective may count all of them")
}
