//! `[[scrape.static]]`: addresses that the operator names.
//!
//! In: `host:port` or a URL. Out: where that is. Invariant: no user, password or fragment is ever part of a target.

use crate::scrape::target::Scheme;

/// Where a static target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// http or https.
    pub scheme: Scheme,
    /// Host name or IP address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// How to write one.
const HELP: &str =
    "write \"127.0.0.1:3000\", \"[::1]:3000\", \"db.internal:9187\" or \"http://db.internal:9187/metrics\"";

impl Address {
    /// Reads an address; `scheme` and `path` are those of an address that says none. The error is cause and help.
    pub fn parse(text: &str, scheme: Scheme, path: &str) -> Result<Self, (String, &'static str)> {
        let text = text.trim();
        // A user's password is not repeated.
        let (scheme, rest, is_url) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest, true),
            Some(("https", rest)) => (Scheme::Https, rest, true),
            Some(_) => return Err(("the scheme is neither http nor https".to_owned(), HELP)),
            None => (scheme, text, false),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = match rest.split_at(end) {
            (authority, "" | "/") if is_url => (authority, path.to_owned()),
            (authority, "") => (authority, path.to_owned()),
            (authority, after) if is_url && after.starts_with('?') => {
                (authority, format!("{}{after}", path.split('?').next().unwrap_or_default()))
            }
            (authority, after) if is_url => (authority, after.to_owned()),
            _ => {
                let message = format!("{text:?} has a path and no scheme");
                return Err((message, "begin it with http://, or set the path with the key path"));
            }
        };
        if authority.contains('@') {
            let help = "leave user and password out: the agent sends no credentials to targets";
            return Err(("a target has no user or password".to_owned(), help));
        }
        let wrong = |what: &str| (format!("{text:?} {what}"), HELP);
        let (host, port) = split(authority).ok_or_else(|| wrong("is no address"))?;
        let port = match port {
            Some(port) => number(port).ok_or_else(|| wrong("has no port from 1 to 65535"))?,
            None if is_url => scheme.default_port(),
            None => return Err(wrong("has no port")),
        };
        if !path.starts_with('/') {
            return Err((format!("the path {path:?} does not begin with /"), "write it like \"/metrics\""));
        }
        if path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'#') {
            let help = "write it as it stands in a URL, other letters as %20";
            return Err((format!("the path {path:?} holds a blank, a # or what is not ASCII"), help));
        }
        Ok(Self { scheme, host: host.to_owned(), port, path })
    }
}

/// Host and port of an authority; an IPv6 address loses its brackets.
pub(super) fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(inside) = authority.strip_prefix('[') {
        let (host, after) = inside.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match after {
            "" => Some((host, None)),
            _ => Some((host, Some(after.strip_prefix(':')?))),
        };
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_host = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    is_host.then_some((host, port))
}

/// A port by its number, digits only.
pub(super) fn number(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let found = Address::parse(text, Scheme::Http, "/metrics").map_err(|(message, _)| message)?;
        Ok(format!("{:?} {} {} {}", found.scheme, found.host, found.port, found.path))
    }

    #[test]
    fn an_address_is_host_and_port_or_a_url() {
        let ok = |text: &str, expected: &str| assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        ok("127.0.0.1:3000", "Http 127.0.0.1 3000 /metrics");
        ok("[::1]:3000", "Http ::1 3000 /metrics");
        ok("db.internal:9187", "Http db.internal 9187 /metrics");
        ok("http://db.internal", "Http db.internal 80 /metrics");
        ok("https://db.internal/", "Https db.internal 443 /metrics");
        ok("https://db.internal:8443/probe?target=a:b/c", "Https db.internal 8443 /probe?target=a:b/c");
        ok("http://db.internal?x=1", "Http db.internal 80 /metrics?x=1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, message) in [
            ("db.internal", "\"db.internal\" has no port"),
            ("db.internal:0", "\"db.internal:0\" has no port from 1 to 65535"),
            ("db.internal:65536", "\"db.internal:65536\" has no port from 1 to 65535"),
            ("db.internal:+80", "\"db.internal:+80\" has no port from 1 to 65535"),
            ("::1:80", "\"::1:80\" is no address"),
            ("", "\"\" is no address"),
            ("a b:80", "\"a b:80\" is no address"),
            ("ftp://a:21", "the scheme is neither http nor https"),
            ("http://me:secret@a:80/", "a target has no user or password"),
            ("a:80/metrics", "\"a:80/metrics\" has a path and no scheme"),
            ("http://a/x#y", "the path \"/x#y\" holds a blank, a # or what is not ASCII"),
        ] {
            assert_eq!(parsed(text).as_ref().map_err(String::as_str), Err(message), "{text}");
        }
    }
}
