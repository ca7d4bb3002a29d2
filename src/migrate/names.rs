//! Who a rule is about: label selectors and regular expressions about names, as conditions of our rules.
//!
//! In: LogQL selectors of Promtail's `match` stage, and anchored expressions of relabelling. Out: [`Conditions`] in our
//! keys, or the parts that have no counterpart. Invariant: a condition is never widened in silence: what cannot be said
//! is given back.

use serde_json::Value as Json;

/// Conditions of a rule: our keys and their values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Conditions {
    /// `namespace`, `pod`, `container`, `service` with patterns; `stream`, `level`, `regex` with one value.
    pub(super) keys: Vec<(&'static str, Vec<String>)>,
}

impl Conditions {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a condition; false when the key has another one already, as a rule holds one of each.
    pub(super) fn add(&mut self, key: &'static str, values: Vec<String>) -> bool {
        match self.keys.iter_mut().find(|(known, _)| *known == key) {
            None => self.keys.push((key, values)),
            Some((_, known)) if *known == values => {}
            // Excluding names stand beside each other and beside one list of names.
            Some((_, known)) if values.iter().all(|value| value.starts_with('!')) => {
                known.extend(values.into_iter().filter(|value| !known.contains(value)).collect::<Vec<_>>());
            }
            Some(_) => return false,
        }
        true
    }

    /// These and those; `None` when a rule cannot hold both.
    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        other.keys.iter().all(|(key, values)| both.add(key, values.clone())).then_some(both)
    }

    /// As keys of a rule's table.
    pub(super) fn json(&self) -> Vec<(String, Json)> {
        let value = |values: &[String]| match values {
            [one] => Json::from(one.as_str()),
            many => Json::from(many.to_vec()),
        };
        self.keys.iter().map(|(key, values)| ((*key).to_owned(), value(values))).collect()
    }

    /// Only those about containers: what a multiline rule may have.
    pub(super) fn about_containers(&self) -> (Self, bool) {
        let mut kept = self.clone();
        kept.keys.retain(|(key, _)| ["namespace", "pod", "container", "service"].contains(key));
        let whole = kept.keys.len() == self.keys.len();
        (kept, whole)
    }
}

/// Our condition for a label of Promtail's or Fluent Bit's world.
pub(super) fn condition_of(label: &str) -> Option<&'static str> {
    let label = label.trim_start_matches("__meta_kubernetes_");
    Some(match label {
        "namespace" | "namespace_name" | "kubernetes_namespace" | "kubernetes_namespace_name" => "namespace",
        "pod" | "pod_name" | "kubernetes_pod" | "kubernetes_pod_name" => "pod",
        "container" | "container_name" | "pod_container_name" | "kubernetes_container_name" => "container",
        "app"
        | "service"
        | "service_name"
        | "name"
        | "pod_label_app"
        | "pod_label_name"
        | "k8s_app"
        | "pod_label_app_kubernetes_io_name"
        | "pod_label_k8s_app"
        | "app_kubernetes_io_name" => "service",
        "stream" => "stream",
        "level" | "detected_level" => "level",
        _ => return None,
    })
}

/// An expression that must match a whole name, as our patterns: `a|b-.*` is `a` and `b-*`. `None` when stars cannot
/// say it.
pub(super) fn globs(expression: &str) -> Option<Vec<String>> {
    let text = expression.trim();
    let text = text.strip_prefix('^').unwrap_or(text);
    let text = text.strip_suffix('$').filter(|rest| !rest.ends_with('\\')).unwrap_or(text);
    let mut patterns = Vec::new();
    for alternative in alternatives(whole_group(text))? {
        patterns.push(glob(whole_group(alternative))?);
    }
    Some(patterns)
}

/// The inside of a group that is the whole of a text.
fn whole_group(text: &str) -> &str {
    let Some(inner) = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) else { return text };
    let inner = inner.strip_prefix("?:").unwrap_or(inner);
    // The last parenthesis must be the first one's.
    let mut depth = 0_i32;
    for c in inner.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return text,
            ')' => depth -= 1,
            _ => {}
        }
    }
    if inner.ends_with('\\') { text } else { inner }
}

/// The alternatives at the top level.
fn alternatives(text: &str) -> Option<Vec<&str>> {
    let (mut found, mut depth, mut from, mut escaped) = (Vec::new(), 0_u32, 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            '|' if depth == 0 => {
                found.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[from..]);
    Some(found)
}

/// One alternative as a pattern.
fn glob(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let any = ["(.*)", "(.+)", "(?:.*)", ".*", ".+"].iter().find(|any| rest.starts_with(**any));
        if let Some(any) = any {
            if !out.ends_with('*') {
                out.push('*');
            }
            rest = &rest[any.len()..];
            // A lazy star takes the same names.
            rest = rest.strip_prefix('?').unwrap_or(rest);
            continue;
        }
        if c == '\\' {
            let literal = rest[1..].chars().next().filter(|next| "-._/+".contains(*next))?;
            out.push(literal);
            rest = &rest[2..];
            continue;
        }
        if !(c.is_ascii_alphanumeric() || "-_/".contains(c)) {
            return None;
        }
        // A quantifier or anything else behind a letter is more than a star can say.
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    (!out.is_empty() && out != "*" && !out.starts_with('!')).then_some(out)
}

/// A LogQL selector of a `match` stage: `{app="x", namespace=~"a|b"} |= "text"`.
///
/// Returns the conditions and the parts that have none.
pub(super) fn selector(text: &str) -> Result<(Conditions, Vec<String>), String> {
    let mut conditions = Conditions::default();
    let mut rest_parts = Vec::new();
    let mut at = Cursor(text.trim());
    if !at.eat("{") {
        return Err("a selector begins with {".to_owned());
    }
    loop {
        at.space();
        if at.eat("}") {
            break;
        }
        let label = at.word();
        at.space();
        let operator = at.operator(&["=~", "!~", "!=", "="]).ok_or("expected =, !=, =~ or !~")?;
        at.space();
        let value = at.quoted().ok_or("expected a text in quotation marks")?;
        if !matcher(&mut conditions, &label, operator, &value) {
            rest_parts.push(format!("{label}{operator}{value:?}"));
        }
        at.space();
        at.eat(",");
    }
    loop {
        at.space();
        if at.0.is_empty() {
            break;
        }
        let Some(operator) = at.operator(&["|=", "!=", "|~", "!~"]) else {
            rest_parts.push(at.0.chars().take(40).collect());
            break;
        };
        at.space();
        let value = at.quoted().ok_or("expected a text in quotation marks")?;
        let added = match operator {
            "|=" => conditions.add("contains", vec![value.clone()]),
            "|~" => conditions.add("regex", vec![value.clone()]),
            _ => false,
        };
        if !added {
            rest_parts.push(format!("{operator} {value:?}"));
        }
    }
    Ok((conditions, rest_parts))
}

/// One label matcher; false when no condition says the same.
pub(super) fn matcher(conditions: &mut Conditions, label: &str, operator: &str, value: &str) -> bool {
    let Some(key) = condition_of(label) else {
        // `job` of the usual charts is `<namespace>/<app>`.
        if label == "job"
            && operator == "="
            && let Some((namespace, service)) = value.split_once('/')
        {
            return !namespace.is_empty()
                && !service.is_empty()
                && conditions.add("namespace", vec![namespace.to_owned()])
                && conditions.add("service", vec![service.to_owned()]);
        }
        return false;
    };
    let positive = operator == "=" || operator == "=~";
    let patterns = if operator.ends_with('~') {
        // Anything that is not empty: every line has that.
        if positive && matches!(value.trim_matches(['^', '$', '(', ')']), ".+" | ".*") {
            return true;
        }
        match globs(value) {
            Some(patterns) => patterns,
            None => return false,
        }
    } else {
        vec![value.to_owned()]
    };
    if patterns.iter().any(String::is_empty) {
        return false;
    }
    match key {
        "stream" => {
            let one = patterns.len() == 1 && ["stdout", "stderr"].contains(&patterns[0].as_str());
            let other = |stream: &str| if stream == "stdout" { "stderr" } else { "stdout" };
            let stream = if positive { patterns[0].clone() } else { other(&patterns[0]).to_owned() };
            one && conditions.add("stream", vec![stream])
        }
        "level" => match levels(&patterns).filter(|_| positive) {
            Some(levels) => conditions.add("level", levels),
            None => false,
        },
        key if positive => conditions.add(key, patterns),
        key => conditions.add(key, patterns.into_iter().map(|name| format!("!{name}")).collect()),
    }
}

/// Level words as ours; `None` when one of them is none.
pub(super) fn levels(words: &[String]) -> Option<Vec<String>> {
    let known = |word: &String| {
        let level = match word.to_ascii_lowercase().as_str() {
            "trace" | "verbose" => "trace",
            "debug" | "dbug" => "debug",
            "info" | "information" | "notice" => "info",
            "warn" | "warning" => "warn",
            "error" | "err" => "error",
            "fatal" | "critical" | "panic" | "emerg" | "alert" => "fatal",
            _ => return None,
        };
        Some(level.to_owned())
    };
    let mut levels = words.iter().map(known).collect::<Option<Vec<_>>>()?;
    levels.dedup();
    Some(levels)
}

struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn space(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn operator(&mut self, known: &[&'static str]) -> Option<&'static str> {
        known.iter().copied().find(|operator| self.eat(operator))
    }

    fn word(&mut self) -> String {
        let end = self.0.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.0.len());
        let word = self.0[..end].to_owned();
        self.0 = &self.0[end..];
        word
    }

    /// A text in double quotation marks with Go's escapes, or in backquotes.
    fn quoted(&mut self) -> Option<String> {
        if let Some(rest) = self.0.strip_prefix('`') {
            let end = rest.find('`')?;
            let text = rest[..end].to_owned();
            self.0 = &rest[end + 1..];
            return Some(text);
        }
        let rest = self.0.strip_prefix('"')?;
        let (mut out, mut escaped) = (String::new(), false);
        for (at, c) in rest.char_indices() {
            match c {
                _ if escaped => {
                    out.push(match c {
                        'n' => '\n',
                        't' => '\t',
                        other => other,
                    });
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.0 = &rest[at + 1..];
                    return Some(out);
                }
                c => out.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_expression_become_patterns() {
        for (expression, expected) in [
            ("kube-system|monitoring", Some(vec!["kube-system", "monitoring"])),
            ("^(kube-.*|loki)$", Some(vec!["kube-*", "loki"])),
            ("(?:a|b)", Some(vec!["a", "b"])),
            (r"shop\-.+", Some(vec!["shop-*"])),
            (".*-canary", Some(vec!["*-canary"])),
            ("(a)(b)", None),
            ("[ab]c", None),
            ("a{2}", None),
            ("", None),
            (".*", None),
            ("a||b", None),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(globs(expression), expected, "{expression}");
        }
    }

    #[test]
    fn a_selector_becomes_conditions_and_what_has_none_is_given_back() {
        let (conditions, rest) = selector(
            r#"{app="checkout", namespace=~"shop|bank", pod!="x", filename="/a"} |= "GET /healthz" != "no""#,
        )
        .expect("read");
        assert_eq!(
            conditions.keys,
            [
                ("service", vec!["checkout".to_owned()]),
                ("namespace", vec!["shop".to_owned(), "bank".to_owned()]),
                ("pod", vec!["!x".to_owned()]),
                ("contains", vec!["GET /healthz".to_owned()]),
            ]
        );
        assert_eq!(rest, [r#"filename="/a""#, r#"!= "no""#]);
        assert_eq!(selector("app=x"), Err("a selector begins with {".to_owned()));
        assert!(selector("{app=").is_err());
    }

    #[test]
    fn everything_that_is_not_empty_is_no_condition() {
        let (conditions, rest) = selector(r#"{job=~".+", namespace=~".+"}"#).expect("read");
        assert!(conditions.is_empty());
        assert_eq!(rest, [r#"job=~".+""#]);
    }
}
