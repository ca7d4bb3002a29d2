//! Tests of the address guard.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::data::pods::{Pod, Writer, directory};
use crate::data::sample::{Origin, OriginKind};
use crate::scrape::target::{PodAddress, Scheme};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn guard() -> Guard {
    let own = vec![ip("10.1.0.5"), ip("192.168.7.2"), ip("fd00::5")];
    let ranges =
        vec![Range::parse("10.200.0.0/16").expect("a range"), Range::parse("fd99::/64").expect("a range")];
    Guard::new(own, vec![ip("10.96.0.1")], ranges)
}

fn target(uid: &str, at: &str) -> Target {
    Target {
        origin: Arc::new(Origin { kind: OriginKind::Target, labels: Vec::new(), resource: Vec::new() }),
        scheme: Scheme::Http,
        host: at.to_owned(),
        port: 8080,
        path: "/metrics".to_owned(),
        pod: Some(PodAddress { uid: uid.to_owned(), ip: ip(at) }),
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        honor_labels: false,
        honor_timestamps: true,
    }
}

fn pod(uid: &str, at: &str) -> Pod {
    Pod { uid: uid.to_owned(), ip: Some(ip(at)), running: true, ..Pod::default() }
}

fn pods(all: Vec<Pod>) -> (Writer, Pods) {
    let (mut writer, pods) = directory();
    for pod in all {
        writer.enter(pod);
    }
    (writer, pods)
}

#[test]
fn addresses_of_pods_are_allowed() {
    for text in ["10.1.0.6", "10.244.3.17", "172.16.0.9", "100.64.0.9", "192.0.2.1", "fd00::6", "2001:db8::1"]
    {
        assert_eq!(guard().allows(ip(text)), Ok(()), "{text}");
    }
}

#[test]
fn this_machine_clouds_services_and_the_api_server_are_denied_in_every_form() {
    let denied = [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        // The agent's and the node's own.
        "10.1.0.5",
        "192.168.7.2",
        "fd00::5",
        // The API server, other services, what the operator denies.
        "10.96.0.1",
        "10.111.255.255",
        "10.200.3.4",
        "fd99::77",
        // 169.254.169.254 and 127.0.0.1 as mapped, compatible, translated, NAT64, 6to4, Teredo.
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "2001:0:0:0:0:0:5601:5601",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "::ffff:10.1.0.5",
        "::ffff:10.96.0.1",
        "::ffff:10.200.3.4",
    ];
    for text in denied {
        assert!(guard().allows(ip(text)).is_err(), "{text}");
    }
}

#[test]
fn the_api_servers_address_tells_the_range_of_services() {
    let of = |server: &str| Guard::new(Vec::new(), vec![ip(server)], Vec::new());
    assert!(of("10.43.0.1").allows(ip("10.43.9.9")).is_err());
    assert!(of("10.96.0.1").allows(ip("10.100.0.7")).is_err());
    // On EKS 10.96.0.0/12 is no range of services.
    assert!(of("10.100.0.1").allows(ip("10.100.0.7")).is_err());
    assert_eq!(of("10.100.0.1").allows(ip("10.97.0.7")), Ok(()));
    // An address that is no service's first one tells nothing but itself.
    assert_eq!(of("10.43.0.9").allows(ip("10.43.9.9")), Ok(()));
    assert!(of("10.43.0.9").allows(ip("10.43.0.9")).is_err());
}

#[test]
fn ranges_are_read_or_explained() {
    let range = |text: &str| Range::parse(text).expect("a range");
    assert!(range("10.96.0.0/12").contains(ip("10.111.255.255")));
    assert!(!range("10.96.0.0/12").contains(ip("10.112.0.0")));
    assert!(range("10.9.9.9").contains(ip("10.9.9.9")) && !range("10.9.9.9").contains(ip("10.9.9.8")));
    assert!(range("0.0.0.0/0").contains(ip("8.8.8.8")) && !range("0.0.0.0/0").contains(ip("::1")));
    assert!(range("fd00:10::/32").contains(ip("fd00:10:1::1")));
    for text in ["10.96.0.0/33", "10.96.0/12", "::/129", "", "/8", "10.0.0.0/-1", "10.0.0.0/"] {
        assert!(Range::parse(text).is_err(), "{text}");
    }
    let wrong = Range::parse("services").expect_err("no range");
    assert_eq!(wrong, r#""services" is not a range of addresses; write it like "10.96.0.0/12""#);
}

#[test]
fn a_pods_address_holds_while_the_pod_runs_and_has_it() {
    let (mut writer, pods) = pods(vec![pod("a", "10.1.0.6")]);
    let address = |target: &Target| guard().address(target, &pods);
    assert_eq!(address(&target("a", "10.1.0.6")), Ok(Some("10.1.0.6:8080".parse().expect("an address"))));
    assert_eq!(address(&target("b", "10.1.0.6")), Err(Failure::Moved), "a pod that nobody knows");
    assert_eq!(address(&target("a", "10.1.0.7")), Err(Failure::Moved), "another pod's address");
    writer.enter(Pod { running: false, ..pod("a", "10.1.0.6") });
    assert_eq!(address(&target("a", "10.1.0.6")), Err(Failure::Moved), "it does not run");
    writer.enter(pod("a", "10.1.0.6"));
    writer.delete("a", Duration::from_secs(1));
    assert_eq!(address(&target("a", "10.1.0.6")), Err(Failure::Moved), "it was deleted");
}

#[test]
fn a_pod_on_the_nodes_network_is_reached_only_when_that_is_allowed() {
    let shares = |at: &str| Pod { host_network: true, ..pod("a", at) };
    let (mut writer, pods) = pods(vec![shares("192.168.7.2")]);
    let address = |guard: &Guard, at: &str| guard.address(&target("a", at), &pods);
    assert!(matches!(address(&guard(), "192.168.7.2"), Err(Failure::Connect(_))));
    let open = guard().with_host_network(true);
    assert_eq!(address(&open, "192.168.7.2"), Ok(Some("192.168.7.2:8080".parse().expect("an address"))));
    writer.enter(shares("127.0.0.1"));
    assert!(matches!(address(&open, "127.0.0.1"), Err(Failure::Connect(_))), "and never by loopback");
    writer.enter(pod("a", "192.168.7.2"));
    assert!(matches!(address(&open, "192.168.7.2"), Err(Failure::Connect(_))), "and no other pod's");
}

#[test]
fn a_static_target_is_the_operators_word() {
    let (_writer, pods) = pods(Vec::new());
    let fixed = Target { pod: None, host: "127.0.0.1".to_owned(), ..target("a", "127.0.0.1") };
    assert_eq!(guard().address(&fixed, &pods), Ok(None));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for good in ["/metrics", "/", "/a/b?c=d&e[]=f", "/actuator/prometheus", "/a.b//c"] {
        assert_eq!(path(good), Ok(()), "{good}");
    }
    let long = format!("/{}", "a".repeat(256));
    let wrong = [
        "",
        "metrics",
        "//evil",
        "/a/../b",
        "/a/%2e%2E/b",
        "/a\r\nHost: evil",
        "/a\n",
        "/@evil",
        "/a b",
        "/ä",
        "/a#b",
        "/a\\b",
        "http://evil/",
        &long,
    ];
    for text in wrong {
        assert!(path(text).is_err(), "{text}");
    }
}

#[test]
fn the_kernels_tables_name_own_addresses() {
    let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 172.17.0.0/16 2 0 2\n        \
                |-- 172.17.0.0\n           /16 link UNICAST\n        |-- 172.17.0.1\n           /32 host LOCAL\n        \
                |-- 172.17.255.255\n           /32 link BROADCAST\n";
    assert_eq!(local_v4(trie), [ip("172.17.0.1")]);
    let v6 = "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000005 02 40 00 80     eth0\n";
    assert_eq!(local_v6(v6), [ip("::1"), ip("fd00::5")]);
}

/// Whatever a pod's annotations and the API could be made to say.
fn hosts() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("169.254.169.254".to_owned()),
        Just("2852039166".to_owned()),
        Just("0xa9fea9fe".to_owned()),
        Just("0251.0376.0251.0376".to_owned()),
        Just("127.1".to_owned()),
        Just("localhost".to_owned()),
        Just("[::ffff:169.254.169.254]".to_owned()),
        Just("10.1.0.6@169.254.169.254".to_owned()),
        Just("10.1.0.6\r\nHost: evil".to_owned()),
        Just("kubernetes.default.svc".to_owned()),
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
        "\\PC{0,24}",
    ]
}

fn paths() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("//169.254.169.254/latest/meta-data".to_owned()),
        Just("http://169.254.169.254/".to_owned()),
        Just("/../../x".to_owned()),
        Just("@127.0.0.1:10250/pods".to_owned()),
        Just("/a\r\nHost: evil\r\n\r\nGET / HTTP/1.1".to_owned()),
        "/[a-z/.@%?#]{0,40}",
        "\\PC{0,300}",
    ]
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(IpAddr::V4),
        any::<std::net::Ipv6Addr>().prop_map(IpAddr::V6),
        prop::sample::select(vec![
            "127.0.0.1",
            "169.254.169.254",
            "10.96.0.1",
            "10.1.0.5",
            "10.1.0.6",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "192.168.7.2",
            "10.200.0.1",
        ])
        .prop_map(ip),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Only the pod's own address is ever given to dial, whatever host, port and path are made of; none that is denied.
    #[test]
    fn nothing_but_the_pods_own_address_is_dialled(
        host in hosts(),
        port in any::<u16>(),
        path in paths(),
        claimed in any_ip(),
        actual in any_ip(),
        agrees in any::<bool>(),
        host_network in any::<bool>(),
    ) {
        let actual = if agrees { claimed } else { actual };
        let (_writer, pods) = pods(vec![Pod { host_network, ip: Some(actual), ..pod("a", "10.1.0.6") }]);
        let target = Target {
            host,
            port,
            path,
            pod: Some(PodAddress { uid: "a".to_owned(), ip: claimed }),
            ..target("a", "10.1.0.6")
        };
        match guard().address(&target, &pods) {
            Ok(Some(address)) => {
                prop_assert_eq!(address, SocketAddr::new(actual, port));
                prop_assert!(guard().allows(actual).is_ok() && !host_network);
                prop_assert!(super::path(&target.path).is_ok());
            }
            Ok(None) => prop_assert!(false, "a pod is never the operator's word"),
            Err(failure) => {
                let is_good = claimed == actual && guard().allows(actual).is_ok() && super::path(&target.path).is_ok();
                prop_assert!(!is_good || host_network, "{} is refused without reason", failure);
            }
        }
    }
}
