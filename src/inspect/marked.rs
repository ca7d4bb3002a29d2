//! What changed between two texts: the parts that went, and what stands there now.
//!
//! In: a text before and after a stage. Out: [`Part`]s in order, without overlaps. Invariant: putting each part's new
//! text in the place of its old one gives the text after. Words are the unit; texts that differ in more than
//! [`MAX_WORDS`] of them differ in one part.

/// Words of the differing middle that are compared one by one: the table has the square of it.
const MAX_WORDS: usize = 512;

/// A stretch of the text before, and what stands in its place after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Byte at which it begins in the text before.
    pub at: usize,
    /// What stood there; empty where something was put in.
    pub before: String,
    /// What stands there now; empty where something was taken out.
    pub after: String,
    /// The rule that did it, where it was one of several.
    pub rule: Option<String>,
}

/// The parts in which `after` differs from `before`.
pub(super) fn parts(before: &str, after: &str) -> Vec<Part> {
    let (old, new) = (words(before), words(after));
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let at = before.len() - words(before).iter().skip(head).map(|word| word.len()).sum::<usize>();
    let mut parts = Vec::new();
    let mut open = Open { at, before: String::new(), after: String::new() };
    if old.len() > MAX_WORDS || new.len() > MAX_WORDS {
        open.before.extend(old.iter().copied());
        open.after.extend(new.iter().copied());
    } else {
        let same = common(old, new);
        let (mut o, mut n) = (0, 0);
        while o < old.len() || n < new.len() {
            if o < old.len() && n < new.len() && old[o] == new[n] {
                open.close(&mut parts);
                open.at += old[o].len();
                (o, n) = (o + 1, n + 1);
            } else if n == new.len() || o < old.len() && same[o + 1][n] >= same[o][n + 1] {
                open.before.push_str(old[o]);
                o += 1;
            } else {
                open.after.push_str(new[n]);
                n += 1;
            }
        }
    }
    open.close(&mut parts);
    parts
}

/// A part that is being found.
struct Open {
    at: usize,
    before: String,
    after: String,
}

impl Open {
    fn close(&mut self, parts: &mut Vec<Part>) {
        if self.before.is_empty() && self.after.is_empty() {
            return;
        }
        let (before, after) = (std::mem::take(&mut self.before), std::mem::take(&mut self.after));
        let at = self.at;
        self.at += before.len();
        parts.push(Part { at, before, after, rule: None });
    }
}

/// Letters and digits together, anything else alone.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end =
            if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, behind) = rest.split_at(end);
        words.push(word);
        rest = behind;
    }
    words
}

/// Length of the longest common run of words (with gaps) from each pair of places to the ends.
fn common(old: &[&str], new: &[&str]) -> Vec<Vec<u16>> {
    let mut table = vec![vec![0_u16; new.len() + 1]; old.len() + 1];
    for o in (0..old.len()).rev() {
        for n in (0..new.len()).rev() {
            table[o][n] =
                if old[o] == new[n] { table[o + 1][n + 1] + 1 } else { table[o + 1][n].max(table[o][n + 1]) };
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewritten(before: &str, parts: &[Part]) -> String {
        let (mut out, mut kept) = (String::new(), 0);
        for part in parts {
            out.push_str(&before[kept..part.at]);
            assert_eq!(&before[part.at..part.at + part.before.len()], part.before);
            out.push_str(&part.after);
            kept = part.at + part.before.len();
        }
        out + &before[kept..]
    }

    fn plain(at: usize, before: &str, after: &str) -> Part {
        Part { at, before: before.to_owned(), after: after.to_owned(), rule: None }
    }

    #[test]
    fn only_the_words_that_changed_are_marked() {
        assert_eq!(parts("same", "same"), []);
        assert_eq!(parts("pay with 4111 now", "pay with XXXX now"), [plain(9, "4111", "XXXX")]);
        assert_eq!(
            parts("2026 stdout F a=1\n2027 stdout F b=2", "a=1\nb=2"),
            [plain(0, "2026 stdout F ", ""), plain(18, "2027 stdout F ", "")]
        );
        assert_eq!(parts("", "new"), [plain(0, "", "new")]);
        assert_eq!(parts("gone", ""), [plain(0, "gone", "")]);
    }

    #[test]
    fn texts_that_differ_everywhere_differ_in_one_part() {
        let (old, new) = ("a ".repeat(600), "b ".repeat(600));
        let found = parts(&old, &new);
        assert_eq!(found.len(), 1);
        assert_eq!(rewritten(&old, &found), new);
    }

    proptest! {
        #[test]
        fn the_parts_lead_from_one_text_to_the_other(before in "[ab=é ]{0,24}", after in "[ab=é ]{0,24}") {
            prop_assert_eq!(rewritten(&before, &parts(&before, &after)), after);
        }
    }
}
