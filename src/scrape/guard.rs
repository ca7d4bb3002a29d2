//! The address guard: where a scrape of a pod may go, whatever its annotations say.
//!
//! In: a target, the node's pods as they are now. Out: the one address to dial, or why there is none. Invariants: for a
//! pod it is the address that the API gave for that pod, while the pod runs and still has it; never this machine, the
//! agent, the API server, a service range, or a place where clouds keep credentials, in whatever form of IPv6 it hides.
//! A static target is the operator's word and is not looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Failure;
use super::target::Target;
use crate::data::pods::Pods;

/// Longest path of a pod's target, in bytes.
pub const LONGEST_PATH: usize = 256;

/// Where clouds give credentials to whoever asks, beside the link-local addresses.
/// Sources: AWS (`fd00:ec2::254`), Alibaba, Azure (wire server), Oracle, Google (`fd20:ce::254`).
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Service ranges that distributions choose: kubeadm, k3s, EKS (two), OpenShift, MicroK8s, GKE, AKS. The API server has the
/// first address of its cluster's range, which tells the right one.
const SERVICE_RANGES: [&str; 8] = [
    "10.96.0.0/12",
    "10.43.0.0/16",
    "10.100.0.0/16",
    "172.20.0.0/16",
    "172.30.0.0/16",
    "10.152.183.0/24",
    "34.118.224.0/20",
    "10.0.0.0/16",
];

/// A range of addresses, `10.96.0.0/12` or `fd00:10:96::/112`; without a length one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    length: u8,
}

impl Range {
    /// Reads a range. The error is a sentence for the one who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a range of addresses; write it like \"10.96.0.0/12\"");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits,
            Some(length) => length.trim().parse().ok().filter(|length| *length <= bits).ok_or_else(wrong)?,
        };
        Ok(Self { first: address, length })
    }

    /// True for an address in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                same_prefix(u128::from(u32::from(first)) << 96, u128::from(u32::from(ip)) << 96, self.length)
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => same_prefix(first.into(), ip.into(), self.length),
            _ => false,
        }
    }
}

fn same_prefix(a: u128, b: u128, length: u8) -> bool {
    // A shift by all bits is none.
    (a ^ b).checked_shr(128 - u32::from(length)).unwrap_or(0) == 0
}

/// What no pod's target may reach.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    own: Vec<IpAddr>,
    api: Vec<IpAddr>,
    ranges: Vec<Range>,
    host_network: bool,
}

impl Guard {
    /// Denies, beside what is never allowed, the agent's and its node's addresses `own`, those of the API server, and
    /// `ranges`. The cluster's service range is added where the API server's address tells it.
    pub fn new(own: Vec<IpAddr>, api: Vec<IpAddr>, mut ranges: Vec<Range>) -> Self {
        let told = SERVICE_RANGES.iter().filter_map(|text| Range::parse(text).ok()).filter(|range| {
            let IpAddr::V4(first) = range.first else { return false };
            let server = IpAddr::V4(Ipv4Addr::from(u32::from(first) + 1));
            api.contains(&server)
        });
        ranges.extend(told);
        Self {
            own: own.into_iter().map(plain).collect(),
            api: api.into_iter().map(plain).collect(),
            ranges,
            host_network: false,
        }
    }

    /// Whether pods that share the node's network are scraped too: at the node's address then, for these pods alone.
    #[must_use]
    pub fn with_host_network(mut self, is_allowed: bool) -> Self {
        self.host_network = is_allowed;
        self
    }

    /// The guard of this process: its own addresses from `POD_IP`, `POD_IPS`, `HOST_IP`, `NODE_IP` and the kernel, the API
    /// server's from `KUBERNETES_SERVICE_HOST`, and what `[scrape] deny` says.
    pub fn from_env(deny: &[String]) -> Result<Self, String> {
        let named = |names: &[&str]| -> Vec<IpAddr> {
            let values = names.iter().filter_map(|name| std::env::var(name).ok());
            values.flat_map(|value| addresses(&value)).collect()
        };
        let mut own = named(&["POD_IP", "POD_IPS", "HOST_IP", "NODE_IP"]);
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        own.extend(local_v4(&read("/proc/net/fib_trie")));
        own.extend(local_v6(&read("/proc/net/if_inet6")));
        own.sort_unstable();
        own.dedup();
        let ranges = deny.iter().map(|text| Range::parse(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(own, named(&["KUBERNETES_SERVICE_HOST"]), ranges))
    }

    /// True when some range is denied: that of the cluster's services as far as it is known, or one of `[scrape] deny`.
    pub fn denies_a_range(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Whether a pod may have this address, or why not.
    pub fn allows(&self, ip: IpAddr) -> Result<(), &'static str> {
        self.allows_except(ip, false)
    }

    fn allows_except(&self, ip: IpAddr, may_be_own: bool) -> Result<(), &'static str> {
        let hidden = match ip {
            IpAddr::V6(ip) => inner_v4(ip),
            IpAddr::V4(_) => None,
        };
        for ip in hidden.map(IpAddr::V4).into_iter().chain([ip]) {
            self.allows_plain(ip, may_be_own)?;
        }
        Ok(())
    }

    fn allows_plain(&self, ip: IpAddr, may_be_own: bool) -> Result<(), &'static str> {
        let never = match ip {
            IpAddr::V4(v4) => never_v4(v4),
            IpAddr::V6(v6) => never_v6(v6),
        };
        if let Some(why) = never {
            return Err(why);
        }
        if METADATA.contains(&ip) {
            return Err("the address is a cloud's metadata service");
        }
        if !may_be_own && self.own.contains(&ip) {
            return Err("the address is this node's or the agent's own");
        }
        if self.api.contains(&ip) {
            return Err("the address is the API server's");
        }
        if self.ranges.iter().any(|range| range.contains(ip)) {
            return Err("the address is in a denied range: the cluster's services, or [scrape] deny");
        }
        Ok(())
    }

    /// The one address to dial for a pod's target; `None` for a static target, whose host decides. Looks at the pod as it is
    /// now: a uid that lives, runs, has its own network, and has this address still.
    pub fn address(&self, target: &Target, pods: &Pods) -> Result<Option<SocketAddr>, Failure> {
        let Some(of) = &target.pod else { return Ok(None) };
        let pod = pods.living_pod(&of.uid).ok_or(Failure::Moved)?;
        if pod.ip != Some(of.ip) || !pod.running {
            return Err(Failure::Moved);
        }
        if pod.host_network && !self.host_network {
            let why = "the pod shares the node's network; allow it by [scrape] host_network, or scrape it by [[scrape.static]]";
            return Err(Failure::Connect(why.to_owned()));
        }
        self.allows_except(of.ip, pod.host_network).map_err(|why| Failure::Connect(why.to_owned()))?;
        path(&target.path).map_err(|why| Failure::Connect(why.to_owned()))?;
        Ok(Some(SocketAddr::new(of.ip, target.port)))
    }
}

/// Whether a pod's annotations may ask for this path, or why not.
pub fn path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("the path does not begin with /");
    }
    if path.starts_with("//") {
        return Err("the path begins with //, which names another host");
    }
    if path.len() > LONGEST_PATH {
        return Err("the path is longer than 256 bytes");
    }
    let decoded = path.to_ascii_lowercase().replace("%2e", ".");
    if decoded.contains("..") {
        return Err("the path contains ..");
    }
    if path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || matches!(byte, b'@' | b'\\' | b'#')) {
        return Err("the path contains @, #, a backslash, a blank, or what is no printable ASCII");
    }
    Ok(())
}

fn never_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let first = ip.octets()[0];
    if first == 127 {
        Some("the address is a loopback address")
    } else if first == 0 {
        Some("the address is unspecified")
    } else if ip.is_link_local() {
        Some("the address is link-local; clouds keep credentials there")
    } else if ip.is_multicast() {
        Some("the address is a multicast address")
    } else if first >= 240 {
        Some("the address is reserved or broadcast")
    } else {
        None
    }
}

fn never_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_loopback() {
        Some("the address is a loopback address")
    } else if ip.is_unspecified() {
        Some("the address is unspecified")
    } else if ip.is_unicast_link_local() {
        Some("the address is link-local")
    } else if ip.is_multicast() {
        Some("the address is a multicast address")
    } else {
        None
    }
}

/// The IPv4 address that an IPv6 address carries: mapped, compatible, translated (RFC 2765, 6052, 8215), 6to4, Teredo.
fn inner_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match s {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => of(high, low),
        [0x64, 0xff9b, _, _, _, _, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        [0x2001, 0, .., high, low] => of(!high, !low),
        _ => None,
    }
}

fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn addresses(text: &str) -> Vec<IpAddr> {
    text.split(',').filter_map(|part| part.trim().trim_matches(['[', ']']).parse().ok()).collect()
}

/// Local addresses of `/proc/net/fib_trie`: a line with the address, then one that says `/32 host LOCAL`.
fn local_v4(text: &str) -> Vec<IpAddr> {
    let mut last = None;
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<IpAddr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last);
        }
    }
    found
}

/// Addresses of `/proc/net/if_inet6`: 32 hexadecimal digits first in each line.
fn local_v6(text: &str) -> Vec<IpAddr> {
    let digits = text.lines().filter_map(|line| line.split_ascii_whitespace().next());
    let numbers = digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok());
    numbers.map(|number| IpAddr::V6(Ipv6Addr::from(number))).collect()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
