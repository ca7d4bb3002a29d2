//! What backends refused for good of one pod: counted from the dead-letter file. Its lines are passed over unread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;

use super::Letters;
use crate::sink::deliver::{DEAD_LETTERS, DeadLetters};

/// A letter, less its line.
#[derive(Deserialize)]
struct Letter {
    sink: String,
    reason: String,
    message: String,
    namespace: String,
    pod: String,
    container: String,
}

/// Characters of what a backend said.
const MESSAGE: usize = 300;

/// The letters of a container, by sink and reason.
pub(super) fn of(state_dir: &Path, namespace: &str, pod: &str, container: &str) -> Vec<Letters> {
    let mut found: BTreeMap<(String, String), (u64, String)> = BTreeMap::new();
    for name in [format!("{DEAD_LETTERS}.1"), DEAD_LETTERS.to_owned()] {
        let Ok(file) = File::open(state_dir.join(name)) else { continue };
        // One line may be as long as a log line may be, so the file's own limit is the bound.
        for line in BufReader::new(file.take(2 * DeadLetters::LIMIT)).split(b'\n').map_while(Result::ok) {
            let Ok(letter) = serde_json::from_slice::<Letter>(&line) else { continue };
            if letter.namespace == namespace && letter.pod == pod && letter.container == container {
                let of = found.entry((letter.sink, letter.reason)).or_default();
                of.0 += 1;
                of.1 =
                    letter.message.trim().lines().next().unwrap_or_default().chars().take(MESSAGE).collect();
            }
        }
    }
    let letters = found.into_iter();
    letters.map(|((sink, reason), (count, message))| Letters { sink, reason, count, message }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted_without_their_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let letter = |pod: &str, reason: &str, message: &str| {
            format!(
                "{{\"sink\":\"loki.main\",\"reason\":\"{reason}\",\"message\":\"{message}\",\"namespace\":\"shop\",\"pod\":\"{pod}\",\
                 \"container\":\"api\",\"line\":\"CANARY\"}}\n"
            )
        };
        let first = letter("web-0", "too_old", "old one") + &letter("web-1", "too_old", "another pod's");
        std::fs::write(dir.path().join("dead-letter.jsonl.1"), first).expect("written");
        let second = letter("web-0", "too_old", "new one") + "torn {\n" + &letter("web-0", "invalid", "bad");
        std::fs::write(dir.path().join("dead-letter.jsonl"), second).expect("written");
        let found = of(dir.path(), "shop", "web-0", "api");
        let letters = |reason: &str, count, message: &str| Letters {
            sink: "loki.main".to_owned(),
            reason: reason.to_owned(),
            count,
            message: message.to_owned(),
        };
        assert_eq!(found, [letters("invalid", 1, "bad"), letters("too_old", 2, "new one")]);
        assert_eq!(of(dir.path(), "shop", "web-0", "other"), []);
    }
}
