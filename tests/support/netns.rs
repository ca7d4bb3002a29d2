//! A network of a test's own: a namespace for the agent, another one for pods, and counters of every connection.
//!
//! ```text
//! agent, API server, backends: 127.0.0.1, 192.168.77.1, own pod address  ═ veth ═►  pods: every other address
//! ```
//!
//! In: the thread that calls [`Net::enter`]. Out: that thread in a new network namespace, and with it every thread and
//! process that it starts from then on; nothing of the host changes. Behind the link every address there is, the metadata
//! service and the service range too, belongs to the pods' namespace, so that a connection to a forbidden one arrives and is
//! heard. Invariant: a packet that opens a connection, and every datagram, is counted by exactly one rule.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, gettid, move_into_link_name_space};

/// The node's address: the agent's own, as the kernel tells it.
pub const NODE: &str = "192.168.77.1";

/// The address of the agent's own pod.
pub const OWN_POD: &str = "10.244.127.1";

/// The range of the node's pods: the only one that may be dialled.
pub const PODS: &str = "10.244.0.0/18";

/// The same for IPv6.
pub const PODS_V6: &str = "fd77:1::/32";

/// What no scrape of a pod may reach, by the rule that counts it. The last one is everything else.
const FORBIDDEN: [(&str, &str); 8] = [
    ("loopback", "127.0.0.0/8"),
    ("the node", "192.168.77.1"),
    ("the agent's own pod", OWN_POD),
    ("link-local", "169.254.0.0/16"),
    ("services and the API server", "10.96.0.0/12"),
    ("a metadata service", "100.100.100.200"),
    ("a metadata service", "168.63.129.16"),
    ("anything else", "0.0.0.0/0"),
];

/// See the module's header.
pub struct Net {
    pods: File,
    /// Both ends have IPv6.
    pub has_v6: bool,
}

/// Opened connections and datagrams since the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// To pods of the node.
    pub allowed: u64,
    /// To the agent's own API server, backends and pages, as the test itself does it.
    pub wanted: u64,
    /// To everything else that was dialled, by what it is.
    pub forbidden: BTreeMap<String, u64>,
}

impl Net {
    /// Moves this thread into a network of its own. The error says why that is impossible here.
    pub fn enter() -> Result<Self, String> {
        unshare().map_err(|error| format!("no network namespace can be made: {error} (that needs root)"))?;
        let pods = std::thread::scope(|scope| {
            let made = scope.spawn(|| unshare().map(|()| own_namespace()));
            made.join().expect("no panic").map_err(|error| format!("no second namespace: {error}"))
        })?;
        let mut net = Self { pods, has_v6: false };
        let home = gettid().as_raw_nonzero().to_string();
        net.in_pods(|| {
            run("ip", "link set lo up");
            run("ip", &format!("link add nw1 type veth peer name nw0 netns {home}"));
            run("ip", "address add 192.168.77.2/24 dev nw1");
            run("ip", "link set nw1 up");
            // Whatever is not this link's is ours.
            run("ip", "route add local default dev lo table main");
        });
        run("ip", "link set lo up");
        run("ip", &format!("address add {NODE}/24 dev nw0"));
        run("ip", &format!("address add {OWN_POD}/32 dev lo"));
        run("ip", "link set nw0 up");
        run("ip", "route add default via 192.168.77.2");
        net.has_v6 = try_run("ip", "address add fd77::1/64 dev nw0 nodad")
            && net.in_pods(|| {
                try_run("ip", "address add fd77::2/64 dev nw1 nodad")
                    && try_run("ip", "-6 route add local default dev lo table main")
            })
            && try_run("ip", "-6 route add default via fd77::2");
        Ok(net)
    }

    /// Does something in the pods' namespace; threads that it starts stay there.
    pub fn in_pods<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let moved = scope.spawn(|| {
                move_into_link_name_space(self.pods.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("a namespace of our own");
                work()
            });
            moved.join().expect("no panic")
        })
    }

    /// Nothing that is sent to this range is answered, from now on.
    pub fn drop_in_pods(&self, range: &str) {
        self.in_pods(|| run("ip", &format!("route add blackhole {range}")));
    }

    /// Counts every connection and datagram from now on. `wanted` are addresses that are not the pods' affair.
    pub fn count(&self, wanted: &[SocketAddr]) {
        let accept = |rule: &str| run("iptables", &format!("-w -A OUTPUT {rule} -j ACCEPT"));
        for address in wanted {
            accept(&format!("-p tcp --syn -d {} --dport {}", address.ip(), address.port()));
        }
        for (_, range) in &FORBIDDEN[..FORBIDDEN.len() - 1] {
            accept(&format!("-p tcp --syn -d {range}"));
        }
        accept(&format!("-p tcp --syn -d {PODS}"));
        accept("-p tcp --syn");
        accept("-p udp");
        if self.has_v6 {
            run("ip6tables", &format!("-w -A OUTPUT -p tcp --syn -d {PODS_V6} -j ACCEPT"));
            run("ip6tables", "-w -A OUTPUT -p tcp --syn -j ACCEPT");
            run("ip6tables", "-w -A OUTPUT -p udp -j ACCEPT");
        }
    }

    /// What was counted since the last call.
    pub fn take(&self) -> Counted {
        let mut rules = packets("iptables");
        let mut counted = Counted::default();
        let forbidden = rules.split_off(rules.len() - FORBIDDEN.len() - 2);
        counted.wanted = rules.iter().sum();
        let (ranges, rest) = forbidden.split_at(FORBIDDEN.len() - 1);
        for ((name, _), packets) in FORBIDDEN.iter().zip(ranges).filter(|(_, packets)| **packets > 0) {
            *counted.forbidden.entry((*name).to_owned()).or_default() += packets;
        }
        counted.allowed = rest[0];
        let mut other = vec![("anything else", rest[1]), ("a datagram", rest[2])];
        if self.has_v6 {
            let v6 = packets("ip6tables");
            counted.allowed += v6[0];
            other.extend([("another IPv6 address", v6[1]), ("an IPv6 datagram", v6[2])]);
        }
        for (name, packets) in other.into_iter().filter(|(_, packets)| *packets > 0) {
            counted.forbidden.insert(name.to_owned(), packets);
        }
        counted
    }
}

/// Packets of each rule of OUTPUT, in order, which are 0 from then on.
fn packets(program: &str) -> Vec<u64> {
    let said = run(program, "-w -n -v -x -L OUTPUT -Z OUTPUT");
    let rules = said.lines().skip(2).filter_map(|line| line.split_whitespace().next());
    rules.filter_map(|packets| packets.parse().ok()).collect()
}

#[expect(deprecated, reason = "only the network is unshared, which no descriptor depends on")]
fn unshare() -> rustix::io::Result<()> {
    rustix::thread::unshare(UnshareFlags::NEWNET)
}

fn own_namespace() -> File {
    File::open("/proc/thread-self/ns/net").expect("the thread's own namespace")
}

/// Runs a program with words that have no blanks in them; what it printed.
fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split(' ')).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `make test` installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn try_run(program: &str, words: &str) -> bool {
    let output = Command::new(program).args(words.split(' ')).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// The address in an allowed range that belongs to the pod of this number.
pub fn address_of(number: usize) -> IpAddr {
    assert!(number < 16_000, "more pods than addresses");
    IpAddr::from([10, 244, (number / 250) as u8, (number % 250 + 1) as u8])
}
