//! A stream of lines from the people's listener of an agent: HTTP/1.0, as much of it as that takes.
//!
//! In: an address and a question. Out: lines as they come, or what the agent has to say against the question. Invariants: a
//! line is bounded; the caller's wish to stop is seen within [`PATIENCE`]; a token goes to a loopback address only, where a
//! port-forward ends.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};

/// How long a read may wait before the caller is asked again.
const PATIENCE: Duration = Duration::from_millis(200);
/// A connection that says nothing for so long is dead: the agent says that it lives every ten seconds.
const SILENCE: Duration = Duration::from_secs(35);
/// How long the listener may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A longer line is none of an agent's.
const LINE_BYTES: usize = 8 << 20;
/// Bytes of an answer's head, and of an error.
const HEAD_BYTES: usize = 64 << 10;

/// Where the agent is, and as whom it is asked.
#[derive(Debug)]
pub struct Remote {
    host: String,
    port: u16,
    token: Option<SecretString>,
}

/// Why the address or the token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRemote {
    /// It is not of the form.
    #[error("--url {0:?} is not an address like http://127.0.0.1:9465")]
    Url(String),
    /// The listener has no TLS.
    #[error(
        "--url {0:?}: the agent's listener for people speaks plain http; use kubectl port-forward and http://127.0.0.1:9465"
    )]
    Tls(String),
    /// The token would travel in clear text.
    #[error(
        "--url {0:?} with --token-file: the token would travel in clear text; use kubectl port-forward and http://127.0.0.1:9465"
    )]
    ClearText(String),
    /// The token's file.
    #[error("--token-file {path}: {cause}")]
    Token {
        /// Which.
        path: String,
        /// Why.
        cause: io::Error,
    },
}

impl Remote {
    /// The agent at `url`, asked with the token in a file if there is one.
    ///
    /// # Errors
    /// When the address is none, or the token may not be sent there.
    pub fn new(url: &str, token_file: Option<&Path>) -> Result<Self, BadRemote> {
        let bad = || BadRemote::Url(url.to_owned());
        if url.starts_with("https:") {
            return Err(BadRemote::Tls(url.to_owned()));
        }
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if inner.is_empty() || !inner.bytes().all(known) || inner.contains(':') != host.starts_with('[') {
            return Err(bad());
        }
        let token = match token_file {
            None => None,
            Some(path) => {
                let is_local = inner == "localhost"
                    || inner.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
                if !is_local {
                    return Err(BadRemote::ClearText(url.to_owned()));
                }
                let failed = |cause| BadRemote::Token { path: path.display().to_string(), cause };
                let text = std::fs::read_to_string(path).map_err(failed)?;
                if text.trim().contains(char::is_control) {
                    return Err(failed(io::Error::other("a token has one line")));
                }
                Some(SecretString::from(text.trim().to_owned()))
            }
        };
        Ok(Self { host: inner.to_owned(), port, token })
    }

    /// As a person writes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.authority())
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// True when somebody listens there.
    pub fn answers(&self) -> bool {
        self.connect().is_ok()
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks for `path`, with its query. `Ok(Err(text))` is what the agent says against it.
    ///
    /// # Errors
    /// When nobody answers, or not as an agent does.
    pub(super) fn get(&self, path: &str) -> io::Result<Result<Lines, Refusal>> {
        let mut connection = self.connect()?;
        connection.set_write_timeout(Some(ANSWER))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let token =
            self.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.expose_secret()));
        let head = format!(
            "GET {path} HTTP/1.0\r\nHost: {}\r\nUser-Agent: nodewick\r\nAccept: application/x-ndjson\r\n{}\r\n",
            self.authority(),
            token.unwrap_or_default()
        );
        connection.write_all(head.as_bytes())?;
        let mut lines = Lines { connection, bytes: Vec::new(), taken: 0, heard: Instant::now() };
        let foreign = || io::Error::other("what answers there is not nodewick's listener for people");
        let (status, is_lines) = loop {
            if let Some(end) = memchr::memmem::find(&lines.bytes, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&lines.bytes[..end]).to_ascii_lowercase();
                let status =
                    head.strip_prefix("http/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
                lines.taken = end + 4;
                break (status.ok_or_else(foreign)?, head.contains("application/x-ndjson"));
            }
            if lines.bytes.len() > HEAD_BYTES || lines.heard.elapsed() > ANSWER || !lines.fill()? {
                return Err(foreign());
            }
        };
        if status == 200 && is_lines {
            return Ok(Ok(lines));
        }
        let begun = Instant::now();
        while lines.bytes.len() < HEAD_BYTES && begun.elapsed() < ANSWER && lines.fill()? {}
        let text = String::from_utf8_lossy(&lines.bytes[lines.taken..]).into_owned();
        let said = serde_json::from_str::<serde_json::Value>(&text).ok();
        let said = said.and_then(|said| said.get("error")?.as_str().map(str::to_owned));
        let line = || text.lines().next().filter(|line| !line.is_empty() && line.len() < 1_000);
        Ok(Err(match (status, said) {
            (200 | 404, None) => return Err(foreign()),
            (401, _) => Refusal {
                status,
                text: "it wants a token; give the file that holds [ui] token with --token-file".to_owned(),
            },
            (status, Some(text)) => Refusal { status, text },
            (status, None) => {
                Refusal { status, text: line().map_or(format!("HTTP status {status}"), str::to_owned) }
            }
        }))
    }
}

/// What the agent says against a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) text: String,
}

/// The lines of an answer.
pub(super) struct Lines {
    connection: TcpStream,
    bytes: Vec<u8>,
    taken: usize,
    heard: Instant,
}

/// What a look for the next line brought.
pub(super) enum Next<'a> {
    /// A line, without its newline.
    Line(&'a [u8]),
    /// Nothing for now.
    Nothing,
    /// The end.
    End,
}

impl Lines {
    /// The next line; waits for [`PATIENCE`] at most.
    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        loop {
            if let Some(len) = memchr::memchr(b'\n', &self.bytes[self.taken..]) {
                let start = self.taken;
                self.taken += len + 1;
                return Ok(Next::Line(&self.bytes[start..start + len]));
            }
            if self.bytes.len() - self.taken > LINE_BYTES {
                return Err(io::Error::other("a line of it has no end"));
            }
            let before = self.bytes.len() - self.taken;
            if !self.fill()? {
                return Ok(Next::End);
            }
            if self.bytes.len() - self.taken == before {
                if self.heard.elapsed() > SILENCE {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it says nothing any more"));
                }
                return Ok(Next::Nothing);
            }
        }
    }

    /// True when a whole line is there already.
    pub(super) fn has_more(&self) -> bool {
        memchr::memchr(b'\n', &self.bytes[self.taken..]).is_some()
    }

    /// Reads what has come. False at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let len = self.bytes.len();
        self.bytes.resize(len + (64 << 10), 0);
        let read = self.connection.read(&mut self.bytes[len..]);
        self.bytes.truncate(len + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.heard = Instant::now();
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}

/// Appends `?key=value` or `&key=value` to an address.
pub(super) fn add(path: &mut String, key: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(key);
    path.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_people_write_it() {
        for (url, whole) in [
            ("http://127.0.0.1:9465", "http://127.0.0.1:9465"),
            ("http://localhost:1/", "http://localhost:1"),
            ("127.0.0.1:9465", "http://127.0.0.1:9465"),
            ("http://[::1]:9465", "http://[::1]:9465"),
        ] {
            assert_eq!(Remote::new(url, None).expect(url).url(), whole);
        }
        for wrong in
            ["http://", "http://127.0.0.1", "http://a b:1", "http://x:y", "http://::1:9465", "http://h:1/p"]
        {
            assert!(matches!(Remote::new(wrong, None), Err(BadRemote::Url(_))), "{wrong}");
        }
        assert!(matches!(Remote::new("https://127.0.0.1:9465", None), Err(BadRemote::Tls(_))));
    }

    #[test]
    fn a_token_goes_to_loopback_only_and_shows_nowhere() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("token");
        std::fs::write(&file, "correct-horse-battery\n").expect("file");
        let remote = Remote::new("http://127.0.0.1:9465", Some(&file)).expect("loopback");
        assert!(!format!("{remote:?}").contains("horse"));
        let error = Remote::new("http://10.0.0.7:9465", Some(&file)).expect_err("clear text");
        assert_eq!(
            error.to_string(),
            "--url \"http://10.0.0.7:9465\" with --token-file: the token would travel in clear text; use kubectl port-forward and http://127.0.0.1:9465"
        );
        std::fs::write(&file, "two\nlines").expect("file");
        assert!(Remote::new("http://127.0.0.1:9465", Some(&file)).is_err());
    }

    #[test]
    fn what_is_asked_is_escaped() {
        let mut path = "/api/tail".to_owned();
        add(&mut path, "grep", "a&b=c d\r\n€");
        add(&mut path, "limit", "5");
        assert_eq!(path, "/api/tail?grep=a%26b%3Dc%20d%0D%0A%E2%82%AC&limit=5");
    }
}
