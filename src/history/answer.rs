//! An answer of the query API.
//!
//! In: status and body. Out: [`Series`], or which of the refusals it is. Invariant: what is not Prometheus' form is foreign,
//! not empty; a text of the server is shown short and without control characters.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Refusal;

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

/// A series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Milliseconds since the epoch, and the value; those that are no number are left out.
    pub points: Vec<(i64, f64)>,
}

#[derive(Deserialize)]
struct Body {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    metric: Labels,
    #[serde(default)]
    value: Option<(f64, String)>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// Reads an answer of at most `cap` bytes.
pub(super) fn read(status: u16, body: &[u8], cap: usize) -> Result<Vec<Series>, Refusal> {
    if body.len() >= cap {
        return Err(Refusal::TooMuch(format!("more than {} MiB", cap >> 20)));
    }
    if matches!(status, 401 | 403) {
        return Err(Refusal::Credentials(status));
    }
    let foreign = |why: &str| Err(Refusal::Foreign(format!("{why} (HTTP {status})")));
    let Ok(answer) = serde_json::from_slice::<Body>(body) else {
        return match status {
            502..=504 => Err(Refusal::TooMuch(format!("HTTP {status}"))),
            429 => Err(Refusal::Query("HTTP 429: too many requests".to_owned())),
            300..=399 => foreign("it answers with a redirect"),
            404 | 405 => foreign("it does not know /api/v1/query"),
            _ => foreign("its answer is not that of a query"),
        };
    };
    if answer.status != "success" {
        let said = answer.error.unwrap_or_default();
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        let too_much =
            ["too many samples", "maximum resolution", "exceeded", "limit", "timed out", "timeout"];
        return if answer.error_type.as_deref() == Some("timeout")
            || too_much.iter().any(|words| said.contains(words))
        {
            Err(Refusal::TooMuch(said))
        } else {
            Err(Refusal::Query(said))
        };
    }
    let Some(data) = answer.data else { return foreign("its answer has no data") };
    Ok(data.result.into_iter().map(series).collect())
}

fn series(one: One) -> Series {
    let points = one.values.into_iter().chain(one.value);
    let points = points.filter_map(|(at, text)| {
        let value: f64 = text.parse().ok()?;
        value.is_finite().then_some(((at * 1e3).round() as i64, value))
    });
    Series { points: points.collect(), labels: one.metric }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_without_what_is_no_number() {
        let body = br#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1.5,"2"],[2,"NaN"],[3,"+Inf"]]}]}}"#;
        let found = read(200, body, 1 << 20).expect("series");
        assert_eq!(found, [Series { labels: [("a".into(), "b".into())].into(), points: vec![(1_500, 2.0)] }]);
    }

    #[test]
    fn refusals_are_told_apart() {
        assert_eq!(read(401, b"", 99), Err(Refusal::Credentials(401)));
        assert_eq!(
            read(404, b"not found", 99),
            Err(Refusal::Foreign("it does not know /api/v1/query (HTTP 404)".into()))
        );
        assert_eq!(
            read(200, b"<html>", 99),
            Err(Refusal::Foreign("its answer is not that of a query (HTTP 200)".into()))
        );
        assert_eq!(
            read(200, b"{\"status\":\"success\"}", 99),
            Err(Refusal::Foreign("its answer has no data (HTTP 200)".into()))
        );
        assert_eq!(read(200, &[b' '; 99], 99), Err(Refusal::TooMuch("more than 0 MiB".into())));
        let body = br#"{"status":"error","errorType":"execution","error":"query processing would load too many samples into memory"}"#;
        assert!(matches!(read(422, body, 999), Err(Refusal::TooMuch(_))));
        let body = b"{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"parse\\u001berror\"}";
        assert_eq!(read(400, body, 999), Err(Refusal::Query("parse error".into())));
    }
}
