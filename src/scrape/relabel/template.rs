//! `$1`, `${name}`: texts that a rule fills in with the groups of its pattern, as Go's `Regexp.Expand` does.
//!
//! In: what the operator wrote, once. Out: bytes appended to the caller's. Allocates nothing when filled in.

use super::pattern::{Groups, Pattern};

/// A text with places for groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Group(usize),
}

impl Template {
    /// Reads a template. A group that the pattern does not have is empty text; a `$` that begins no name is itself.
    pub(super) fn new(text: &str, pattern: &Pattern) -> Self {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                literal.push(b'$');
                rest = after;
                continue;
            }
            let Some((name, after)) = name(rest) else {
                literal.push(b'$');
                continue;
            };
            rest = after;
            let number = name.bytes().all(|b| b.is_ascii_digit()).then(|| name.parse().ok());
            if let Some(group) = number.unwrap_or_else(|| pattern.group(name)) {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Group(group));
            }
        }
        literal.extend_from_slice(rest.as_bytes());
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Self(parts)
    }

    /// Appends the text to `arena`. `groups` gives ranges within the value that begins at `value` of the arena.
    pub(super) fn fill(&self, value: usize, groups: &Groups<'_>, arena: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => arena.extend_from_slice(text),
                Part::Group(group) => {
                    if let Some((start, end)) = groups.get(*group) {
                        arena.extend_from_within(value + start..value + end);
                    }
                }
            }
        }
    }
}

/// The name that `text` begins with, in braces or not, and what comes after it.
fn name(text: &str) -> Option<(&str, &str)> {
    let is_of_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let (inside, braced) = text.strip_prefix('{').map_or((text, false), |inside| (inside, true));
    let end = inside.find(|letter| !is_of_name(letter)).unwrap_or(inside.len());
    let (name, after) = inside.split_at(end);
    let after = if braced { after.strip_prefix('}')? } else { after };
    (!name.is_empty()).then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pattern: &str, template: &str, value: &str) -> String {
        let pattern = Pattern::new(pattern).expect("a pattern");
        let template = Template::new(template, &pattern);
        let mut arena = format!("before{value}").into_bytes();
        let value = arena.split_off(6);
        arena.extend_from_slice(&value);
        let groups = pattern.captures(&value).expect("the value matches");
        template.fill(6, &groups, &mut arena);
        String::from_utf8(arena.split_off(6 + value.len())).expect("text")
    }

    #[test]
    fn groups_are_filled_in_as_go_does() {
        assert_eq!(filled("f(.*)", "ch${1}-ch$1", "foo"), "choo-choo");
        assert_eq!(filled("f(.*)", "$1x", "foo"), "", "the longest name is taken: 1x");
        assert_eq!(filled("f(.*)", "${1}x$0", "foo"), "ooxfoo");
        assert_eq!(filled("(?P<who>.*)", "$who/${who}/$whom", "me"), "me/me/");
        assert_eq!(filled("f(x)?.*", "[$1]", "foo"), "[]");
        assert_eq!(filled("(.*)", "$1$2$9", "a"), "a");
        assert_eq!(filled("(.*)", "$99999999999999999999", "a"), "");
    }

    #[test]
    fn a_dollar_that_begins_no_name_is_itself() {
        assert_eq!(filled("(.*)", "$$1 $ ${ ${} ${a-b} ${1", "a"), "$1 $ ${ ${} ${a-b} ${1");
        assert_eq!(filled("(.*)", "5$", "a"), "5$");
    }
}
