//! Promtail's `replace` stage as a redaction rule.
//!
//! Promtail replaces what the groups of an expression match; our rules replace the whole match and may put groups back.
//! In: the expression and the text that is put in. Out: our pattern and replacement, or `None` where the form has no
//! counterpart. Invariant: on every line, the translated rule changes the same bytes to the same text.

/// Pattern and replacement of our rule; `None` when the expression's groups are not in a row at its top level, or when the
/// new text is a template.
pub(super) fn replace(expression: &str, new: &str) -> Option<(String, String)> {
    // `{{ .Value }}` and its like compute the new text.
    if new.contains("{{") {
        return None;
    }
    let new = new.replace('$', "$$");
    let pieces = pieces(expression)?;
    let groups = pieces.iter().filter(|piece| piece.group).count();
    if groups == 0 {
        return None;
    }
    if let [only] = pieces.as_slice() {
        // The whole match is replaced.
        return Some((only.text.clone(), new));
    }
    let (mut pattern, mut replacement) = (String::new(), String::new());
    for (number, piece) in pieces.iter().enumerate() {
        if piece.group {
            pattern.push_str(&format!("(?:{})", piece.text));
            replacement.push_str(&new);
        } else {
            pattern.push_str(&format!("(?P<keep{number}>{})", piece.text));
            replacement.push_str(&format!("${{keep{number}}}"));
        }
    }
    Some((pattern, replacement))
}

struct Piece {
    /// A capturing group: its inside; else what stands between groups.
    group: bool,
    text: String,
}

/// The expression's top level, cut at its capturing groups. `None` for alternatives at the top level, for groups
/// within groups and for groups with a quantifier.
fn pieces(expression: &str) -> Option<Vec<Piece>> {
    let (mut pieces, mut between) = (Vec::new(), String::new());
    let mut rest = expression;
    // Flags hold for the whole expression only where they stand before it.
    if rest.starts_with("(?")
        && !rest.starts_with("(?:")
        && !rest.starts_with("(?P<")
        && !rest.starts_with("(?<")
    {
        return None;
    }
    while let Some(c) = rest.chars().next() {
        match c {
            '\\' => {
                let escaped = rest[1..].chars().next()?;
                // `\Q…\E` and classes by name are taken as they are, character by character.
                if escaped == 'Q' {
                    return None;
                }
                between.push('\\');
                between.push(escaped);
                rest = &rest[1 + escaped.len_utf8()..];
            }
            '[' => {
                let end = class_end(rest)?;
                between.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            '|' => return None,
            '(' => {
                let end = group_end(rest)?;
                let inner = &rest[1..end - 1];
                let after = rest[end..].chars().next();
                if inner.starts_with("?:") {
                    if captures(inner) {
                        return None;
                    }
                    between.push_str(&rest[..end]);
                } else {
                    let name_end = if inner.starts_with("?P<") || inner.starts_with("?<") {
                        inner.find('>')? + 1
                    } else if inner.starts_with('?') {
                        return None;
                    } else {
                        0
                    };
                    let text = &inner[name_end..];
                    if captures(text) || text.is_empty() || after.is_some_and(|c| "*+?{".contains(c)) {
                        return None;
                    }
                    if !between.is_empty() {
                        pieces.push(Piece { group: false, text: std::mem::take(&mut between) });
                    }
                    pieces.push(Piece { group: true, text: text.to_owned() });
                }
                rest = &rest[end..];
            }
            ')' => return None,
            c => {
                between.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    if !between.is_empty() {
        pieces.push(Piece { group: false, text: between });
    }
    Some(pieces)
}

/// Bytes of the character class that a text begins with.
fn class_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            // A bracket right after the opening one is literal; named classes are left alone.
            '[' => return None,
            ']' if at > 1 && &text[1..at] != "^" => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Bytes of the group that a text begins with.
fn group_end(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_u32, 0);
    while let Some(c) = text[at..].chars().next() {
        match c {
            '\\' => at += 1 + text[at + 1..].chars().next()?.len_utf8(),
            '[' => at += class_end(&text[at..])?,
            '(' => {
                depth += 1;
                at += 1;
            }
            ')' => {
                depth = depth.checked_sub(1)?;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            c => at += c.len_utf8(),
        }
    }
    None
}

/// True when a capturing group, or what may be one, is in the text.
fn captures(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('(') {
        let escaped = rest[..at].chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
        if !escaped && !rest[at..].starts_with("(?:") {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(expression: &str, new: &str, line: &str) -> Option<String> {
        let (pattern, replacement) = replace(expression, new)?;
        let regex = regex::Regex::new(&pattern).expect("valid");
        Some(regex.replace_all(line, replacement.as_str()).into_owned())
    }

    #[test]
    fn what_the_groups_match_is_replaced_and_the_rest_is_kept() {
        for (expression, new, line, expected) in [
            (r"password=(\S+)", "****", "u=1 password=abc x", "u=1 password=**** x"),
            (r"(\d{4}-\d{4})", "$card", "no 1234-5678.", "no $card."),
            (r"user=(\w+) ip=([0-9.]+)!", "-", "user=bob ip=1.2.3.4!", "user=- ip=-!"),
            (r#""token":\s*"(?P<t>[^"]*)""#, "x", r#"{"token": "s3"}"#, r#"{"token": "x"}"#),
        ] {
            assert_eq!(run(expression, new, line).as_deref(), Some(expected), "{expression}");
        }
    }

    #[test]
    fn what_has_no_counterpart_is_given_back() {
        for (expression, new) in [
            (r"(\S+)", "{{ .Value | Sha2Hash }}"),
            ("no groups", "x"),
            ("(a)|(b)", "x"),
            ("((a)b)", "x"),
            ("(a)*", "x"),
            ("(a", "x"),
            ("[a", "x"),
            ("(?i)(a)", "x"),
        ] {
            assert_eq!(replace(expression, new), None, "{expression}");
        }
    }
}
