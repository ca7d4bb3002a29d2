//! Dashboards as Grafana's classic JSON.
//!
//! In: a [`Board`]. Out: its text, which Grafana 10 and later read. Invariant: keys are sorted, ids count from 1 in reading
//! order, and panels are laid out line by line, so equal tables give equal bytes.

use serde_json::{Value, json};

use super::model::{Board, Column, Kind, Level, Need, Panel, Query, Source, Variable};
use super::promql::text;

/// Grafana 10's `schemaVersion`; later ones migrate it when they load it.
const SCHEMA_VERSION: u32 = 39;

/// A new pod template of a Deployment makes a new ReplicaSet: the value is when, in milliseconds.
pub(super) const DEPLOYS: &str = "1000 * max by (cluster, namespace, replicaset) (kube_replicaset_created{@C}) \
     * on (cluster, namespace, replicaset) group_left (owner_name) \
     max by (cluster, namespace, replicaset, owner_name) (kube_replicaset_owner{@C,owner_kind=\"Deployment\"})";

/// Alerts about objectives, the agent and workloads.
pub(super) const ALERTS: &str = "max by (alertname, severity, slo_id, namespace, node) (ALERTS{@C,alertstate=\"firing\",alertname=~\"SLO.+|Nodewick.+|Workload.+\"})";

/// The dashboard's text.
pub(super) fn render(board: &Board) -> String {
    let value = json!({
        "annotations": {"list": annotations(board)},
        "description": board.about,
        "editable": false,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": null,
        "links": [{
            "asDropdown": true, "icon": "external link", "includeVars": true, "keepTime": true, "tags": ["nodewick"],
            "targetBlank": false, "title": "nodewick", "tooltip": "The other dashboards", "type": "dashboards", "url": "",
        }],
        "liveNow": false,
        "panels": panels(board),
        "refresh": "1m",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["nodewick"],
        "templating": {"list": variables(board)},
        "time": {"from": board.from, "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": board.title,
        "uid": board.uid,
        "version": 1,
        "weekStart": "",
    });
    // Alternate form: two spaces, and a line end at the end of the file.
    format!("{value:#}\n")
}

fn datasource(source: Source) -> Value {
    match source {
        Source::Prometheus => json!({"type": "prometheus", "uid": "${prometheus_datasource}"}),
        Source::Loki => json!({"type": "loki", "uid": "${loki_datasource}"}),
        Source::Tempo => json!({"type": "tempo", "uid": "${tempo_datasource}"}),
    }
}

fn annotations(board: &Board) -> Vec<Value> {
    let has = |name: &str| board.variables.iter().any(|variable| variable.name == name);
    let mut deploys = text(DEPLOYS);
    let mut alerts = text(ALERTS);
    if !has("cluster") {
        deploys = deploys.replace("cluster=~\"$cluster\",", "").replace("{cluster=~\"$cluster\"}", "");
        alerts = alerts.replace("cluster=~\"$cluster\",", "");
    }
    // What is shown of a dashboard about one namespace or workload is about it too.
    if has("namespace") {
        deploys = deploys.replace(
            "_created{cluster=~\"$cluster\"}",
            "_created{cluster=~\"$cluster\",namespace=~\"$namespace\"}",
        );
    }
    if has("workload") {
        deploys = deploys
            .replace("owner_kind=\"Deployment\"", "owner_kind=\"Deployment\",owner_name=~\"$workload\"");
    }
    if has("slo_id") {
        alerts = alerts.replace("alertname=~", "slo_id=\"$slo_id\",alertname=~");
    }
    let annotation = |name: &str,
                      color: &str,
                      expr: String,
                      title: &str,
                      body: &str,
                      tags: &str,
                      value: bool| {
        json!({
            "datasource": datasource(Source::Prometheus), "enable": true, "expr": expr, "hide": false, "iconColor": color,
            "name": name, "step": "30s", "tagKeys": tags, "textFormat": body, "titleFormat": title,
            "useValueForTime": value,
        })
    };
    vec![
        json!({
            "builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": true, "hide": true,
            "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
        }),
        annotation(
            "Deploys",
            "blue",
            deploys,
            "Deploy of {{namespace}}/{{owner_name}}",
            "new ReplicaSet {{replicaset}}",
            "namespace,owner_name",
            true,
        ),
        annotation(
            "Alerts",
            "red",
            alerts,
            "{{alertname}} ({{severity}})",
            "{{slo_id}} {{namespace}} {{node}}",
            "alertname,severity",
            false,
        ),
    ]
}

fn variables(board: &Board) -> Vec<Value> {
    let uses = |source: Source| {
        board
            .rows
            .iter()
            .flat_map(|row| &row.panels)
            .flat_map(|panel| &panel.queries)
            .any(|q| q.source == source)
    };
    let mut found: Vec<Value> = [
        ("prometheus_datasource", "Prometheus", "prometheus", Source::Prometheus),
        ("loki_datasource", "Loki", "loki", Source::Loki),
        ("tempo_datasource", "Tempo", "tempo", Source::Tempo),
    ]
    .into_iter()
    .map(|(name, label, query, source)| {
        json!({
            "current": {}, "hide": if uses(source) { 0 } else { 2 }, "includeAll": false, "label": label, "multi": false,
            "name": name, "options": [], "query": query, "refresh": 1, "regex": "", "skipUrlSync": false,
            "type": "datasource",
        })
    })
    .collect();
    found.extend(board.variables.iter().map(variable));
    found
}

fn variable(of: &Variable) -> Value {
    let hide = if of.hidden { 2 } else { 0 };
    if let Need::Fixed(first) = of.need {
        let values: Vec<&str> = of.query.split(',').map(str::trim).collect();
        let options: Vec<Value> = values
            .iter()
            .map(|value| json!({"selected": *value == first, "text": value, "value": value}))
            .collect();
        return json!({
            "current": {"selected": true, "text": first, "value": first}, "hide": hide, "includeAll": false,
            "label": of.label, "multi": false, "name": of.name, "options": options, "query": values.join(","),
            "skipUrlSync": false, "type": "custom",
        });
    }
    let (all, listed) = match of.need {
        Need::All(regex) => (Some(regex), true),
        Need::Listed => (None, true),
        _ => (None, false),
    };
    let current =
        if listed { json!({"selected": true, "text": ["All"], "value": ["$__all"]}) } else { json!({}) };
    json!({
        "allValue": all, "current": current, "datasource": datasource(Source::Prometheus), "definition": of.query,
        "hide": hide, "includeAll": listed, "label": of.label, "multi": listed, "name": of.name, "options": [],
        "query": {"qryType": 1, "query": of.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2, "regex": "", "skipUrlSync": false, "sort": 1, "type": "query",
    })
}

fn panels(board: &Board) -> Vec<Value> {
    let (mut found, mut id, mut top) = (Vec::new(), 0, 0);
    for row in &board.rows {
        if !row.title.is_empty() {
            id += 1;
            found.push(json!({
                "collapsed": false, "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}, "id": id, "panels": [],
                "title": row.title, "type": "row",
            }));
            top += 1;
        }
        let (mut left, mut line) = (0, 0);
        for of in &row.panels {
            if left + of.width > 24 {
                top += line;
                (left, line) = (0, 0);
            }
            id += 1;
            found.push(panel(of, id, json!({"h": of.height, "w": of.width, "x": left, "y": top})));
            left += of.width;
            line = line.max(of.height);
        }
        top += line;
    }
    found
}

fn panel(of: &Panel, id: u32, place: Value) -> Value {
    let source = of.queries.first().map_or(Source::Prometheus, |query| query.source);
    let targets: Vec<Value> =
        of.queries.iter().enumerate().map(|(at, query)| target(of, query, at)).collect();
    json!({
        "datasource": datasource(source),
        "description": about(of),
        "fieldConfig": {"defaults": defaults(of), "overrides": overrides(of)},
        "gridPos": place,
        "id": id,
        "options": options(of),
        "targets": targets,
        "title": of.title,
        "transformations": transformations(of),
        "type": match of.kind {
            Kind::Stat => "stat",
            Kind::Series | Kind::Stacked => "timeseries",
            Kind::Table | Kind::Traces => "table",
            Kind::Heatmap => "heatmap",
            Kind::Timeline => "state-timeline",
            Kind::Logs => "logs",
        },
    })
}

/// The description, and what colours mean in words.
fn about(of: &Panel) -> String {
    let mut out = of.about.to_owned();
    for level in of.levels.iter().skip(1).filter(|level| level.word.is_empty()) {
        let value = match of.unit {
            "percentunit" => format!("{}%", (level.from * 1e4).round() / 1e2),
            "s" => format!("{} s", level.from),
            _ => level.from.to_string(),
        };
        let color = color_word(level.color);
        out.push_str(&format!(" {color} from {value}."));
    }
    out
}

fn color_word(color: &str) -> String {
    let mut letters = color.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn letter(at: usize) -> String {
    char::from_u32('A' as u32 + at as u32).unwrap_or('Z').to_string()
}

fn target(of: &Panel, query: &Query, at: usize) -> Value {
    let mut target = json!({
        "datasource": datasource(query.source), "editorMode": "code", "expr": query.expr, "refId": letter(at),
    });
    match query.source {
        Source::Prometheus => {
            let format = match of.kind {
                Kind::Table => "table",
                Kind::Heatmap => "heatmap",
                _ => "time_series",
            };
            target["format"] = format.into();
            target["instant"] = query.instant.into();
            target["range"] = (!query.instant).into();
            target["exemplar"] = query.exemplars.into();
            target["legendFormat"] = if query.legend.is_empty() { "__auto" } else { query.legend }.into();
        }
        Source::Loki => {
            target["queryType"] = if query.instant { "instant" } else { "range" }.into();
            target["legendFormat"] = query.legend.into();
            if of.kind == Kind::Logs {
                target["maxLines"] = 200.into();
            }
        }
        Source::Tempo => {
            target = json!({
                "datasource": datasource(query.source), "limit": 20, "query": query.expr, "queryType": "traceql",
                "refId": letter(at), "tableType": "traces",
            });
        }
    }
    target
}

fn steps(levels: &[Level]) -> Value {
    let mut steps: Vec<Value> = levels
        .iter()
        .enumerate()
        .map(|(at, level)| {
            let value = if at == 0 { Value::Null } else { number(level.from) };
            json!({"color": level.color, "value": value})
        })
        .collect();
    if steps.is_empty() {
        steps.push(json!({"color": "text", "value": null}));
    }
    json!({"mode": "absolute", "steps": steps})
}

/// Whole numbers without a fraction, as people write them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// Words in place of numbers, where levels have words: their numbers are whole and nothing lies between.
fn mappings(levels: &[Level]) -> Vec<Value> {
    let worded = levels.iter().enumerate().filter(|(_, level)| !level.word.is_empty());
    let words: serde_json::Map<String, Value> = worded
        .map(|(at, level)| {
            (level.from.to_string(), json!({"color": level.color, "index": at, "text": level.word}))
        })
        .collect();
    if words.is_empty() { Vec::new() } else { vec![json!({"options": words, "type": "value"})] }
}

fn links(link: Option<(&str, &str)>) -> Vec<Value> {
    link.map(|(title, url)| json!({"targetBlank": false, "title": title, "url": url})).into_iter().collect()
}

fn defaults(of: &Panel) -> Value {
    let mut found = json!({
        "color": {"mode": if of.kind == Kind::Stat || of.kind == Kind::Timeline { "thresholds" } else { "palette-classic" }},
        "links": links(of.link),
        "mappings": mappings(&of.levels),
        "noValue": of.none,
        "thresholds": steps(&of.levels),
        "unit": of.unit,
    });
    if let Some(max) = of.max {
        found["max"] = number(max);
    }
    match of.kind {
        Kind::Series | Kind::Stacked => {
            let stacked = of.kind == Kind::Stacked;
            found["custom"] = json!({
                "axisBorderShow": false, "axisLabel": "", "axisPlacement": "auto", "drawStyle": "line",
                "fillOpacity": if stacked { 30 } else { 5 }, "gradientMode": "none",
                "hideFrom": {"legend": false, "tooltip": false, "viz": false}, "lineInterpolation": "linear",
                "lineWidth": 1, "pointSize": 4, "scaleDistribution": {"type": "linear"}, "showPoints": "auto",
                "spanNulls": false, "stacking": {"group": "A", "mode": if stacked { "normal" } else { "none" }},
                "thresholdsStyle": {"mode": if of.marked { "dashed" } else { "off" }},
            });
            if !of.signed {
                found["min"] = json!(0);
            }
        }
        Kind::Table | Kind::Traces => {
            found["custom"] = json!({"align": "auto", "cellOptions": {"type": "auto"}, "filterable": true, "inspect": false});
        }
        Kind::Timeline => {
            found["custom"] = json!({"fillOpacity": 80, "lineWidth": 0, "spanNulls": false});
        }
        Kind::Stat | Kind::Heatmap | Kind::Logs => {}
    }
    found
}

fn overrides(of: &Panel) -> Vec<Value> {
    of.columns.iter().map(column).collect()
}

fn column(of: &Column) -> Value {
    // What stands there when the whole table is empty would otherwise stand in each empty cell.
    let mut properties = vec![json!({"id": "noValue", "value": "–"})];
    if !of.unit.is_empty() {
        properties.push(json!({"id": "unit", "value": of.unit}));
    }
    if !of.levels.is_empty() {
        properties.push(json!({"id": "thresholds", "value": steps(&of.levels)}));
        properties.push(json!({"id": "mappings", "value": mappings(&of.levels)}));
        properties.push(json!({"id": "color", "value": {"mode": "thresholds"}}));
        properties.push(json!({"id": "custom.cellOptions", "value": {"type": "color-text"}}));
    }
    if of.link.is_some() {
        properties.push(json!({"id": "links", "value": links(of.link)}));
    }
    json!({"matcher": {"id": "byName", "options": of.title}, "properties": properties})
}

/// Names that a column's field may have: with one query Grafana calls its value `Value`, with several `Value #A`.
fn fields(of: &Column) -> Vec<String> {
    match of.field.strip_prefix('#').and_then(|at| at.parse::<usize>().ok()) {
        Some(0) => vec!["Value".to_owned(), "Value #A".to_owned()],
        Some(at) => vec![format!("Value #{}", letter(at))],
        None => vec![of.field.clone()],
    }
}

fn transformations(of: &Panel) -> Vec<Value> {
    if of.kind != Kind::Table {
        return Vec::new();
    }
    let (mut names, mut places) = (serde_json::Map::new(), serde_json::Map::new());
    for (at, column) in of.columns.iter().enumerate() {
        for field in fields(column) {
            names.insert(field.clone(), column.title.into());
            places.insert(field, at.into());
        }
    }
    let mut found = Vec::new();
    if of.queries.iter().any(|query| query.source == Source::Loki) {
        found.push(json!({"id": "labelsToFields", "options": {"mode": "columns"}}));
    }
    found.push(json!({"id": "merge", "options": {}}));
    found.push(json!({
        "id": "organize",
        "options": {"excludeByName": {"Time": true}, "indexByName": places, "renameByName": names},
    }));
    found
}

fn options(of: &Panel) -> Value {
    match of.kind {
        Kind::Stat => json!({
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            // Several series are several tiles, each with its name.
            "textMode": if of.queries.iter().any(|query| query.legend.contains("{{")) { "value_and_name" } else { "auto" },
            "wideLayout": true,
        }),
        Kind::Series | Kind::Stacked => json!({
            "legend": {
                "calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": true,
                "sortBy": "Max", "sortDesc": true,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }),
        Kind::Table => {
            let sorted: Vec<Value> =
                of.sorted.iter().map(|(title, most)| json!({"desc": most, "displayName": title})).collect();
            json!({
                "cellHeight": "sm", "footer": {"countRows": false, "fields": "", "reducer": ["sum"], "show": false},
                "showHeader": true, "sortBy": sorted,
            })
        }
        Kind::Traces => json!({"cellHeight": "sm", "showHeader": true}),
        Kind::Heatmap => json!({
            "calculate": false, "cellGap": 1, "cellValues": {"unit": "reqps"},
            "color": {"exponent": 0.5, "mode": "scheme", "scale": "exponential", "scheme": "Oranges", "steps": 64},
            "exemplars": {"color": "rgba(0,120,255,0.8)"}, "filterValues": {"le": 1e-9},
            "legend": {"show": true}, "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": true}, "yAxis": {"axisPlacement": "left", "unit": "s"},
        }),
        Kind::Timeline => json!({
            "alignValue": "left", "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
            "mergeValues": true, "rowHeight": 0.8, "showValue": "auto", "tooltip": {"mode": "single", "sort": "none"},
        }),
        Kind::Logs => json!({
            "dedupStrategy": "none", "enableLogDetails": true, "prettifyLogMessage": false, "showCommonLabels": false,
            "showLabels": false, "showTime": true, "sortOrder": "Descending", "wrapLogMessage": true,
        }),
    }
}
