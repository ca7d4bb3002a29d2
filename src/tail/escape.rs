//! Log text made safe for a terminal.
//!
//! In: any text. Out: text in which nothing drives the terminal or hides other text: control characters (C0, DEL,
//! C1), bidirectional overrides, invisible and line-breaking characters are written as escapes. Invariant: the output
//! holds no character below U+0020 and none of U+007F–U+009F.

use std::fmt::Write;

/// Appends `text`, escaped.
pub fn escape(text: &str, out: &mut String) {
    for char in text.chars() {
        push(char, out);
    }
}

/// Appends at most `limit` characters of `text`, escaped, and how many bytes were left out if any were.
pub(super) fn escape_within(text: &str, limit: usize, out: &mut String) {
    for (count, (at, char)) in text.char_indices().enumerate() {
        if count == limit {
            let _ = write!(out, "… (+{} bytes)", text.len() - at);
            return;
        }
        push(char, out);
    }
}

/// True when `char` may not reach a terminal as it is.
pub fn is_unsafe(char: char) -> bool {
    matches!(char,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push(char: char, out: &mut String) {
    match char {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..='\u{1f}' | '\u{7f}' => {
            let _ = write!(out, "\\x{:02x}", u32::from(char));
        }
        char if is_unsafe(char) => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(char));
        }
        char => out.push(char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        escape(text, &mut out);
        out
    }

    #[test]
    fn nothing_that_drives_a_terminal_comes_through() {
        assert_eq!(escaped("\u{1b}[31mred\u{1b}]0;title\u{7}"), "\\x1b[31mred\\x1b]0;title\\x07");
        assert_eq!(escaped("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(escaped("a\u{202e}txt.exe"), "a\\u{202e}txt.exe");
        assert_eq!(escaped("a\nb\tc\r\0\u{7f}"), "a\\nb\\tc\\r\\x00\\x7f");
        assert_eq!(escaped("Zürich — 東京 🚀"), "Zürich — 東京 🚀");
    }

    #[test]
    fn no_control_character_survives_whatever_comes() {
        let all: String = (0..0x2_ffff).filter_map(char::from_u32).collect();
        assert!(!escaped(&all).chars().any(|char| char.is_control() || is_unsafe(char)));
    }

    #[test]
    fn a_cut_says_how_much_is_missing() {
        let mut out = String::new();
        escape_within("größer", 3, &mut out);
        assert_eq!(out, "grö… (+4 bytes)");
    }
}
