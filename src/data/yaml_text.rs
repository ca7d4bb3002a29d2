//! The little YAML that rendered files need.
//!
//! In: texts. Out: scalars that every YAML reader takes for the same text, whatever is in them.

/// A scalar on one line: bare where nothing in it can be misread, else in single quotes.
pub fn scalar(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_word = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    if starts_well && text.chars().all(bare) && !is_word && !text.ends_with(':') && !text.contains(": ") {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// The value of a key: on the same line, or as a block below it, `indent` spaces deep.
pub fn value(text: &str, indent: usize) -> String {
    if !text.contains('\n') {
        return scalar(text);
    }
    let mut out = String::from("|-");
    for line in text.lines() {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(line);
    }
    out
}

/// `text` with every line that is not empty moved right.
pub fn indented(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{pad}{line}\n") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_quoted_where_yaml_would_misread_them() {
        assert_eq!(scalar("shop/api/availability"), "shop/api/availability");
        assert_eq!(scalar("0.9995"), "'0.9995'");
        assert_eq!(scalar("yes"), "'yes'");
        assert_eq!(scalar("it's"), "'it''s'");
        assert_eq!(scalar("a: b"), "'a: b'");
        assert_eq!(scalar(""), "''");
        assert_eq!(value("a\n  b", 4), "|-\n    a\n      b");
    }
}
