//! The address guard: where a scrape of a pod may go, whatever its annotations say.

use std::net::IpAddr;

/// What no pod's target may reach.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    own: Vec<IpAddr>,
}

impl Guard {
    /// Whether a pod may have this address, or why not.
    pub fn allows(&self, ip: IpAddr) -> Result<(), &'static str> {
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if ip.is_loopback() {
            Err("the address is a loopback address")
        } else if link_local {
            Err("the address is link-local; clouds keep credentials there")
        } else if self.own.contains(&ip) {
            Err("the address is this node's or the agent's own")
        } else {
            Ok(())
        }
    }
}

/// Whether a pod's annotations may ask for this path, or why not.
pub fn path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("the path does not begin with /");
    }
    if path.len() > 256 {
        return Err("the path is longer than 256 bytes");
    }
    if path.contains("..") {
        return Err("the path contains ..");
    }
    if path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || matches!(byte, b'@' | b'\\' | b'#')) {
        return Err("the path contains @, #, a backslash, a blank, or what is no printable ASCII");
    }
    Ok(())
}
