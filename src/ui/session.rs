//! Who is signed in, where a token is asked for.
//!
//! In: a token from a header or a form. Out: yes or no, and a cookie that stands for it. Invariants: the token itself never
//! goes into a cookie; texts are compared in a time that does not tell how much of them is right; at most [`MOST`] sessions.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Name of the cookie.
pub const COOKIE: &str = "nodewick";
/// Sessions at once; the oldest ends for a new one.
pub const MOST: usize = 64;
/// How long a session lasts.
pub const LASTS: Duration = Duration::from_secs(12 * 3600);
/// Wrong tokens in [`WINDOW`] after which nobody can sign in for the rest of it.
pub const TRIES: u32 = 20;
/// See [`TRIES`].
pub const WINDOW: Duration = Duration::from_secs(60);

/// The token and the sessions that were opened with it.
pub struct Sessions {
    token: Option<String>,
    open: Mutex<VecDeque<(String, Instant)>>,
    wrong: Mutex<(Option<Instant>, u32)>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("needed", &self.are_needed()).finish_non_exhaustive()
    }
}

/// What came of a try to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The header `Set-Cookie`.
    Open(String),
    /// That is not the token.
    Wrong,
    /// Too many were wrong just now.
    TooMany,
}

impl Sessions {
    /// Sessions for this token; without one nobody needs any.
    pub fn new(token: Option<String>) -> Self {
        Self { token, open: Mutex::default(), wrong: Mutex::default() }
    }

    /// True where a token is asked for.
    pub fn are_needed(&self) -> bool {
        self.token.is_some()
    }

    /// True for the token.
    pub fn is_token(&self, text: &str) -> bool {
        self.token.as_deref().is_some_and(|token| is_equal(token, text))
    }

    /// Signs in with what somebody typed.
    pub fn enter(&self, text: &str) -> Entry {
        let now = Instant::now();
        let mut wrong = self.wrong.lock();
        if wrong.0.is_none_or(|begun| now.duration_since(begun) >= WINDOW) {
            *wrong = (Some(now), 0);
        }
        if wrong.1 >= TRIES {
            return Entry::TooMany;
        }
        if !self.is_token(text) {
            wrong.1 += 1;
            return Entry::Wrong;
        }
        drop(wrong);
        self.open().map_or(Entry::TooMany, Entry::Open)
    }

    /// A new session: the header `Set-Cookie`. `None` when the system gives no random bytes.
    pub fn open(&self) -> Option<String> {
        let mut bytes = [0_u8; 32];
        rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).ok()?;
        let id = bytes.iter().fold(String::new(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        });
        let mut open = self.open.lock();
        if open.len() >= MOST {
            open.pop_front();
        }
        open.push_back((id.clone(), Instant::now()));
        Some(format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", LASTS.as_secs()))
    }

    /// True when this cookie is of an open session.
    pub fn is_open(&self, name: &str, value: &str) -> bool {
        if name != COOKIE {
            return false;
        }
        let mut open = self.open.lock();
        open.retain(|(_, since)| since.elapsed() < LASTS);
        // All of them are looked at, whichever it is.
        open.iter().fold(false, |found, (id, _)| found | is_equal(id, value))
    }

    /// Ends a session.
    pub fn close(&self, value: &str) {
        self.open.lock().retain(|(id, _)| !is_equal(id, value));
    }
}

/// Whether two texts are the same, in a time that depends on the length of `given` alone.
fn is_equal(known: &str, given: &str) -> bool {
    let known = known.as_bytes();
    let mut differs = u8::from(known.len() != given.len());
    for (at, byte) in given.bytes().enumerate() {
        let own = known.get(at % known.len().max(1)).copied().unwrap_or_default();
        differs |= black_box(own ^ byte);
    }
    black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let sessions = Sessions::new(Some("abcabc".into()));
        assert!(sessions.is_token("abcabc"));
        for wrong in ["", "abc", "abcab", "abcabcabcabc", "abcabd", "ABCABC"] {
            assert!(!sessions.is_token(wrong), "{wrong:?}");
        }
        assert!(!Sessions::new(None).is_token(""));
    }

    #[test]
    fn a_session_opens_with_the_token_and_its_cookie_is_not_the_token() {
        let sessions = Sessions::new(Some("correct horse battery".into()));
        assert_eq!(sessions.enter("wrong"), Entry::Wrong);
        let Entry::Open(cookie) = sessions.enter("correct horse battery") else { panic!("it is right") };
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200"), "{cookie}");
        let value =
            cookie.strip_prefix("nodewick=").and_then(|rest| rest.split(';').next()).expect("a value");
        assert_eq!(value.len(), 64);
        assert!(sessions.is_open("nodewick", value) && !sessions.is_open("other", value));
        assert!(!sessions.is_open("nodewick", "") && !sessions.is_open("nodewick", &"0".repeat(64)));
        sessions.close(value);
        assert!(!sessions.is_open("nodewick", value));
    }

    #[test]
    fn guessing_ends_after_some_tries_and_sessions_are_bounded() {
        let sessions = Sessions::new(Some("correct horse battery".into()));
        let first = sessions.open().expect("random bytes");
        (0..MOST).for_each(|_| drop(sessions.open()));
        assert_eq!(sessions.open.lock().len(), MOST);
        let value = first.strip_prefix("nodewick=").and_then(|rest| rest.split(';').next()).expect("a value");
        assert!(!sessions.is_open("nodewick", value), "the oldest has ended");
        for _ in 0..TRIES {
            assert_eq!(sessions.enter("guess"), Entry::Wrong);
        }
        assert_eq!(sessions.enter("correct horse battery"), Entry::TooMany);
    }
}
