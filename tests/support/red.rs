//! A log that RED counts, and what it publishes, by name and labels.
//!
//! For test programs that take it alone, by its path.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::sync::Arc;

use nodewick::data::access::{AccessTap, Request};
use nodewick::data::batch::Span;
use nodewick::data::position::{Generation, Position};
use nodewick::data::sample::Page;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::red::{LogTap, Red};

pub const MS: u64 = 1_000_000;
pub const KEY: &str = "shop_api-d994d45d6-5h9zr_uid/app/0";

pub fn instance(pod: &str) -> Arc<Workload> {
    let container = ContainerRef {
        namespace: "shop".into(),
        pod: pod.into(),
        uid: "uid".into(),
        container: "app".into(),
        restart: 0,
    };
    let mut directory = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
    match directory.identify(&container, Default::default()) {
        Identity::Known(known) => known,
        Identity::Pending => unreachable!("a path is always known"),
    }
}

pub fn at(offset: u64) -> Position {
    Position { generation: Generation { device: 1, inode: 2, head: 3 }, offset, ..Position::default() }
}

/// A log that is written and read.
pub struct Log {
    pub tap: LogTap,
    pub workload: Arc<Workload>,
    pub key: Arc<str>,
    pub offset: u64,
    pub text: Vec<u8>,
    pub requests: Vec<Request>,
}

impl Log {
    pub fn new(red: &Red) -> Self {
        Self {
            tap: red.tap(),
            workload: instance("api-d994d45d6-5h9zr"),
            key: KEY.into(),
            offset: 0,
            text: Vec::new(),
            requests: Vec::new(),
        }
    }

    pub fn text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(text.as_bytes());
        Span::new(start, self.text.len())
    }

    pub fn line(&mut self, method: &str, route: &str, status: u16, nano: Option<u64>) -> &mut Request {
        let (method, route) = (self.text(method), self.text(route));
        let time_unix_nano = 1_700_000_000_000 * MS + self.offset * MS;
        let request = Request {
            offset: self.offset,
            time_unix_nano,
            method,
            route,
            status,
            duration_nano: nano,
            ..Request::default()
        };
        self.offset += 100;
        self.requests.push(request);
        self.requests.last_mut().expect("just pushed")
    }

    pub fn hand_over(&mut self) {
        self.tap.count(&self.key, &self.workload, &self.requests, &self.text, at(self.offset));
        self.requests.clear();
        self.text.clear();
    }
}

/// All samples by name and labels, less those that every series of the test has.
pub fn samples(page: &Page) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for sample in &page.samples {
        let mut labels: Vec<String> = page
            .labels_of(sample)
            .iter()
            .map(|label| (page.text(label.name), page.text(label.value)))
            .filter(|(name, _)| {
                !matches!(*name, "cluster" | "node" | "namespace" | "workload" | "pod" | "service")
            })
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        labels.sort();
        let name = format!("{}{{{}}}", page.text(sample.name), labels.join(","));
        assert_eq!(all.insert(name.clone(), sample.value), None, "twice in the page: {name}");
    }
    all
}

pub fn tick(red: &mut Red, seconds: i64) -> BTreeMap<String, f64> {
    let mut page = Page::default();
    red.tick(1_700_000_000_000 + seconds * 1000, &mut page);
    samples(&page)
}
