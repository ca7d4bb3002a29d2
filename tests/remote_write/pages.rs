//! Final pages as the thread that owns all series hands them over, and a running sink to hand them to.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nodewick::data::sample::{
    BucketSpan, Collect, Counts, Exemplar, Family, Histogram, Label, MetricKind, NO_TIME, NONE, Origin,
    OriginKind, Page, Sample, Span,
};
use nodewick::metrics;
use nodewick::sink::remote_write::{self, Config};
use tokio_util::sync::CancellationToken;

/// Milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// A target called `instance`.
pub(crate) fn origin(instance: &str) -> Arc<Origin> {
    let labels = [("cluster", "test"), ("instance", instance), ("job", "shop/api")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() })
}

/// A page that is being made final.
pub(crate) struct Builder {
    pub(crate) page: Page,
    /// The origin's labels, in the arena once.
    shared: Vec<Label>,
    name: Span,
    time: i64,
}

impl Builder {
    pub(crate) fn new(origin: &Origin, time: i64) -> Self {
        let mut page = Page::default();
        page.push_text(b"# some text of the target's own\n");
        let shared = origin.labels.iter().map(|(name, value)| Label {
            name: page.push_text(name.as_bytes()),
            value: page.push_text(value.as_bytes()),
        });
        let shared: Vec<Label> = shared.collect();
        let name = page.push_text(b"__name__");
        Self { page, shared, name, time }
    }

    pub(crate) fn family(&mut self, name: &str, kind: MetricKind, help: &str, unit: &str) {
        self.page.begin_family(name, kind, help);
        let unit = self.page.push_text(unit.as_bytes());
        let family: &mut Family = self.page.families.last_mut().expect("begun");
        family.unit = unit;
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.sample_at(name, labels, value, self.time);
    }

    pub(crate) fn sample_at(&mut self, name: &str, labels: &[(&str, &str)], value: f64, time: i64) {
        let page = &mut self.page;
        let name = page.push_text(name.as_bytes());
        let mut all = self.shared.clone();
        all.push(Label { name: self.name, value: name });
        for (name, value) in labels {
            let name = page.push_text(name.as_bytes());
            all.push(Label { name, value: page.push_text(value.as_bytes()) });
        }
        all.sort_by(|a, b| page.bytes(a.name).cmp(page.bytes(b.name)));
        let first = page.labels.len() as u32;
        page.labels.extend(&all);
        page.samples.push(Sample {
            name,
            family: page.families.len().saturating_sub(1) as u32,
            labels: first,
            label_count: all.len() as u32,
            exemplar: NONE,
            exemplar_count: 0,
            histogram: NONE,
            time_unix_ms: time,
            value,
        });
    }

    /// Adds an exemplar to the newest sample.
    pub(crate) fn exemplar(&mut self, labels: &[(&str, &str)], value: f64, time: Option<i64>) {
        let page = &mut self.page;
        let first = page.labels.len() as u32;
        for (name, value) in labels {
            let name = page.push_text(name.as_bytes());
            let value = page.push_text(value.as_bytes());
            page.labels.push(Label { name, value });
        }
        let label_count = labels.len() as u32;
        let time_unix_ms = time.unwrap_or(NO_TIME);
        page.exemplars.push(Exemplar { labels: first, label_count, value, time_unix_ms });
        let sample = page.samples.last_mut().expect("a sample");
        sample.exemplar = page.exemplars.len() as u32 - 1;
        sample.exemplar_count += 1;
    }

    /// Makes the newest sample a native histogram.
    pub(crate) fn histogram(&mut self, histogram: Histogram) {
        let sample = self.page.samples.last_mut().expect("a sample");
        sample.histogram = self.page.histograms.len() as u32;
        self.page.histograms.push(histogram);
    }
}

/// Six observations: one of zero, two in (1, 2], three in (2, 4].
pub(crate) fn histogram() -> Histogram {
    Histogram {
        counts: Counts::Integer { count: 6, zero: 1, negative: vec![], positive: vec![2, 1] },
        sum: 12.5,
        schema: 0,
        zero_threshold: 0.001,
        negative_spans: vec![],
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        gauge: false,
    }
}

/// A page of `count` series `load{series="0"}`… with the value of their number plus `more`.
pub(crate) fn load(origin: &Origin, count: usize, more: f64, time: i64) -> Page {
    let mut builder = Builder::new(origin, time);
    builder.family("load", MetricKind::Gauge, "Load.", "");
    for at in 0..count {
        builder.sample("load", &[("series", &at.to_string())], at as f64 + more);
    }
    builder.page
}

/// A config for `url` whose samples go at once when a request is full or the sink ends.
pub(crate) fn config(url: &str) -> Config {
    toml::from_str(&format!("url = {url:?}\nprotocol = \"1.0\"\nsend_metadata = false")).expect("a config")
}

/// A running sink.
pub(crate) struct Sink {
    pub(crate) name: &'static str,
    collect: Option<Box<dyn Collect>>,
    kill: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    runtime: tokio::runtime::Runtime,
}

impl Sink {
    /// Starts one. `name` is a test's own: it names the counters.
    pub(crate) fn start(name: &'static str, config: &Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let kill = CancellationToken::new();
        let (collect, task) = remote_write::sink(name, config, kill.clone()).expect("a usable config");
        let task = runtime.spawn(task);
        Self { name, collect: Some(collect), kill, task, runtime }
    }

    pub(crate) fn page(&mut self, origin: &Arc<Origin>, page: &Page) {
        self.collect.as_mut().expect("runs").page(origin, page);
    }

    pub(crate) fn flush(&mut self) {
        self.collect.as_mut().expect("runs").flush();
    }

    /// Nothing more comes; waits until all is settled.
    pub(crate) fn end(mut self) {
        self.collect = None;
        self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), self.task)
                .await
                .expect("it ends")
                .expect("no panic");
        });
    }

    /// Nothing more comes, and there is no time left.
    pub(crate) fn kill(mut self) {
        self.collect = None;
        self.kill.cancel();
        self.runtime.block_on(self.task).expect("no panic");
    }

    pub(crate) fn samples(&self, outcome: &str) -> u64 {
        samples(self.name, outcome)
    }
}

/// Samples that a sink counts by outcome.
pub(crate) fn samples(name: &str, outcome: &str) -> u64 {
    metrics::SINK_SAMPLES.with_label_values(&[name, outcome]).get()
}

/// Samples that a sink counts as lost by reason.
pub(crate) fn lost(name: &str, reason: &str) -> u64 {
    metrics::SINK_SAMPLES_LOST.with_label_values(&[name, reason]).get()
}
