//! A look at the running agent of this node through its listener for machines.
//!
//! In: the listener's address. Out: its pages, and the samples of `/metrics`. Invariants: a look ends within
//! [`TIMEOUT`], reads at most [`PAGE_LIMIT`], and changes nothing in the agent.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Time for a whole page.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a page that are read; the ledger of a thousand container logs takes a megabyte.
pub const PAGE_LIMIT: u64 = 16 << 20;

/// The running agent, by the address of its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    address: SocketAddr,
}

/// A page of the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// The text.
    pub body: String,
}

/// One sample of `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the series.
    pub name: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty when it has none of that name.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

impl Client {
    /// The agent that listens on `address`; one that listens on every address is reached by the loopback.
    pub fn new(mut address: SocketAddr) -> Self {
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self { address }
    }

    /// Where it is looked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gets a page by its path and query.
    pub fn get(&self, path: &str) -> io::Result<Page> {
        let deadline = Instant::now() + TIMEOUT;
        let mut connection = TcpStream::connect_timeout(&self.address, Duration::from_secs(2))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        connection.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no whole answer within 5 s"));
            }
            connection.set_read_timeout(Some(left))?;
            match connection.read(&mut piece)? {
                0 => break,
                read => answer.extend_from_slice(&piece[..read]),
            }
            if answer.len() as u64 > PAGE_LIMIT {
                return Err(io::Error::other("the answer is larger than any page of the agent"));
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        let foreign = || io::Error::other("what answers there is not HTTP");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(foreign)?;
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        Ok(Page { status: status.ok_or_else(foreign)?, body: body.to_owned() })
    }

    /// The samples of `/metrics`. An error too when what answers is not the agent.
    pub fn metrics(&self) -> io::Result<Vec<Sample>> {
        let page = self.get("/metrics")?;
        let samples = samples(&page.body);
        if page.status != 200 || !samples.iter().any(|sample| sample.name == "nodewick_build_info") {
            return Err(io::Error::other("what answers there is not nodewick"));
        }
        Ok(samples)
    }
}

/// The samples of a page in the Prometheus text form; what is not one is passed over.
pub fn samples(page: &str) -> Vec<Sample> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (mut value, mut escaped, mut end) = (String::new(), false, None);
            for (at, letter) in after.char_indices() {
                match letter {
                    _ if escaped => {
                        value.push(if letter == 'n' { '\n' } else { letter });
                        escaped = false;
                    }
                    '\\' => escaped = true,
                    '"' => {
                        end = Some(at);
                        break;
                    }
                    _ => value.push(letter),
                }
            }
            labels.push((label.to_owned(), value));
            rest = after[end? + 1..].trim_start_matches(',');
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let page = "# HELP a b\na 1\nb{x=\"1,2\",y=\"a\\\"b\\\\c\\nd\"} 2.5 1700\nhalf{x=\"\nnothing\n";
        let sample = |name: &str, labels: &[(&str, &str)], value| Sample {
            name: name.to_owned(),
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            value,
        };
        let expected = [sample("a", &[], 1.0), sample("b", &[("x", "1,2"), ("y", "a\"b\\c\nd")], 2.5)];
        assert_eq!(samples(page), expected);
        assert_eq!(samples(page)[1].label("x"), "1,2");
    }

    #[test]
    fn an_agent_that_listens_everywhere_is_reached_by_the_loopback() {
        let client = |text: &str| Client::new(text.parse().expect("an address")).address().to_string();
        assert_eq!(client("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(client("[::]:9464"), "[::1]:9464");
        assert_eq!(client("10.0.0.7:9464"), "10.0.0.7:9464");
    }
}
