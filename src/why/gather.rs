//! Collects what is known of a pod: from the agent, the disk, the dead letters and the Kubernetes API.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::find::{Found, Known, Question};
use super::verdict::{Facts, judge};
use super::{Account, Answer, Container, Files, Flow, Pod, Sink, Target, files, letters, lines, metrics};
use crate::admin::client::Client;
use crate::config::Config;
use crate::data::clock;
use crate::data::workload::ContainerRef;
use crate::doctor::Site;
use crate::logs::env::{Env, OpenError};
use crate::logs::os::Os;
use crate::sink::loki;
use crate::sink::said::Said;

/// Between two looks at a backlog.
const SECOND_LOOK: Duration = Duration::from_millis(1200);

/// What the agent says.
#[derive(Default)]
pub(super) struct Agent {
    pub(super) answers: bool,
    pub(super) accounts: Vec<Account>,
    pub(super) sinks: Vec<Sink>,
    pub(super) targets: Vec<Target>,
}

/// Files of a container instance: by container and restart.
type OnDisk = BTreeMap<(String, u32), Files>;

/// Answers a question.
pub fn ask(site: &Site, question: &Question) -> Answer {
    let config = site.config();
    let client = site.client();
    let agent = client.map(listen).unwrap_or_default();
    let root = &config.logs.root;
    let mut known: BTreeSet<Known> = on_disk(root);
    let of_pods = agent.accounts.iter().filter(|of| ContainerRef::path_of_key(&of.uid).is_none());
    known.extend(of_pods.map(|of| (of.namespace.clone(), of.pod.clone(), of.uid.clone())));
    // One that is scraped and has never written a line.
    let of_targets = agent.targets.iter().filter(|of| !of.uid.is_empty());
    known.extend(of_targets.map(|of| (of.namespace.clone(), of.pod.clone(), of.uid.clone())));
    let is_pod = known.iter().any(|(_, pod, _)| *pod == question.pod);
    if files::is_about(site, question, is_pod)
        && let Some(answer) = files::ask(site, question, &agent)
    {
        return answer;
    }
    let mut answer = Answer {
        flowing: false,
        pods: Vec::new(),
        sinks: agent.sinks.clone(),
        note: None,
        did_you_mean: Vec::new(),
    };
    let mut pods = match question.find(&known) {
        Found::Pods(pods) => pods,
        Found::None(near) => {
            // The pod of a sidecar.
            if let Some(answer) = files::ask(site, question, &agent) {
                return answer;
            }
            answer.did_you_mean = near;
            answer.note = Some(nowhere(site, question, root, agent.answers));
            return answer;
        }
    };
    // The newest of those that had the name.
    pods.sort_by_key(|pod| std::cmp::Reverse(changed(&root.join(directory(pod)))));
    if !pods[0].1.eq(question.parts().1) && pods[0].2 != question.parts().1 {
        answer.note = Some(format!("the only pod that begins with {:?}", question.parts().1));
    }
    let again = again(client, &agent, &pods);
    for pod in &pods {
        answer.pods.push(of_pod(site, question, pod, &agent, again.as_ref()));
    }
    let newest = &answer.pods[0].containers;
    if newest.is_empty() {
        let asked = question.container.as_deref().unwrap_or("any");
        answer.note = Some(format!("the pod has no container {asked} with logs"));
    }
    answer.flowing =
        newest.iter().any(|of| of.flow == Flow::Flowing) && newest.iter().all(|of| of.flow != Flow::Stopped);
    answer
}

fn directory((namespace, pod, uid): &Known) -> String {
    format!("{namespace}_{pod}_{uid}")
}

/// When a directory last changed.
fn changed(path: &Path) -> i64 {
    std::fs::metadata(path).map_or(0, |meta| meta.mtime())
}

/// Pods with a directory below the root.
fn on_disk(root: &Path) -> BTreeSet<Known> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let pods = names.filter_map(|name| ContainerRef::from_path(&name, "container", 0));
    pods.map(|of| (of.namespace, of.pod, of.uid)).collect()
}

/// Asks the agent.
fn listen(client: Client) -> Agent {
    let Ok(samples) = client.metrics() else { return Agent::default() };
    let accounts = accounts(client).unwrap_or_default();
    let said: Vec<Said> =
        client.get("/sinks").ok().and_then(|page| serde_json::from_str(&page.body).ok()).unwrap_or_default();
    let mut sinks: Vec<Sink> = samples
        .iter()
        .filter(|sample| sample.name == "nodewick_sink_up")
        .map(|sample| Sink { name: sample.label("sink").to_owned(), up: sample.value != 0.0, refusal: None })
        .collect();
    for one in said {
        if let Some(sink) = sinks.iter_mut().find(|sink| sink.name == one.sink) {
            sink.refusal = Some((one.error, one.age_seconds));
        }
    }
    sinks.sort_by(|a, b| a.name.cmp(&b.name));
    Agent { answers: true, accounts, sinks, targets: metrics::ask(client) }
}

fn accounts(client: Client) -> Option<Vec<Account>> {
    serde_json::from_str(&client.get("/ledger").ok()?.body).ok()
}

/// A second look after a while, where the pod has a backlog: the accounts, and the seconds between.
pub(super) fn again(client: Option<Client>, agent: &Agent, pods: &[Known]) -> Option<(Vec<Account>, f64)> {
    let is_behind = |of: &&Account| of.waiting_bytes + of.in_flight_bytes > 0;
    let uids: Vec<&str> = pods.iter().map(|(.., uid)| uid.as_str()).collect();
    agent.accounts.iter().filter(is_behind).find(|of| uids.contains(&of.uid.as_str()))?;
    let begun = Instant::now();
    std::thread::sleep(SECOND_LOOK);
    Some((accounts(client?)?, begun.elapsed().as_secs_f64()))
}

fn of_pod(
    site: &Site,
    question: &Question,
    known: &Known,
    agent: &Agent,
    again: Option<&(Vec<Account>, f64)>,
) -> Pod {
    let config = site.config();
    let (namespace, name, uid) = known;
    let dir = config.logs.root.join(directory(known));
    let files = files_of(&dir);
    let mut newest: BTreeMap<&str, u32> = BTreeMap::new();
    let from_disk = files.keys().map(|(container, restart)| (container.as_str(), *restart));
    let of_pod: Vec<&Account> = agent.accounts.iter().filter(|of| of.uid == *uid).collect();
    let from_agent = of_pod.iter().map(|of| (of.container.as_str(), of.restart));
    for (container, restart) in from_disk.chain(from_agent) {
        let of = newest.entry(container).or_default();
        *of = (*of).max(restart);
    }
    let mut pod = Pod {
        namespace: namespace.clone(),
        name: name.clone(),
        uid: uid.clone(),
        source: None,
        notes: Vec::new(),
        containers: Vec::new(),
        metrics: metrics::of_pod(&agent.targets, uid),
    };
    let said = site.annotations_of(namespace, name, uid);
    pod.notes = said.notes;
    let wanted = |container: &str| question.container.as_deref().is_none_or(|asked| asked == container);
    for (container, restart) in newest.into_iter().filter(|(container, _)| wanted(container)) {
        let reference = ContainerRef {
            namespace: namespace.clone(),
            pod: name.clone(),
            uid: uid.clone(),
            container: container.to_owned(),
            restart,
        };
        let mut on_disk = files.get(&(container.to_owned(), restart)).cloned();
        let lines = on_disk.as_mut().and_then(|files| look_into(config, &dir, &reference, files));
        let is_it = |of: &&Account| of.uid == *uid && of.container == container && of.restart == restart;
        let mut account = agent.accounts.iter().find(is_it).cloned();
        let mut moved = None;
        if let (Some(before), Some((after, seconds))) = (&mut account, again)
            && let Some(after) = after.iter().find(is_it)
        {
            moved = Some((after.sent_bytes.saturating_sub(before.sent_bytes), *seconds));
            before.clone_from(after);
        }
        let facts = Facts {
            agent: agent.answers,
            address: address(site),
            is_file: false,
            excluded: own(site, namespace, name)
                .or_else(|| said.off.iter().find(|(of, _)| of == container).map(|(_, why)| why.clone())),
            files: on_disk.as_ref(),
            account: account.as_ref(),
            moved,
            sinks: &agent.sinks,
        };
        let verdict = judge(&facts);
        let logql = account.as_ref().filter(|_| has_loki(config)).map(|account| logql(config, account));
        pod.containers.push(Container {
            name: container.to_owned(),
            restart,
            flow: verdict.flow,
            verdict: verdict.text,
            fix: verdict.fix,
            curl: logql.as_deref().and_then(|logql| curl(config, account.as_ref(), logql)),
            logql,
            files: on_disk,
            lines,
            dead_letters: letters::of(&config.agent.state_dir, namespace, name, container),
            account,
        });
    }
    pod
}

/// Where the agent is asked.
pub(super) fn address(site: &Site) -> String {
    let off = || "[admin] listen = \"off\"".to_owned();
    site.client().map_or_else(off, |client| client.address().to_string())
}

/// The agent's own pod is left out by default.
fn own(site: &Site, namespace: &str, name: &str) -> Option<(String, String)> {
    let is_own = site.config().logs.exclude_self && site.own_pod() == Some((namespace, name));
    is_own.then(|| ("it is the agent's own pod".to_owned(), "[logs]\nexclude_self = false".to_owned()))
}

/// The files of a pod's container instances.
fn files_of(dir: &Path) -> OnDisk {
    let now = clock::since_epoch().as_secs() as i64;
    let mut found = OnDisk::new();
    for container in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(name) = container.file_name().into_string() else { continue };
        for file in std::fs::read_dir(container.path()).into_iter().flatten().flatten() {
            let file_name = file.file_name().to_string_lossy().into_owned();
            // `3.log`, and rotated: `3.log.20261122-144213`, with `.gz` behind.
            let Some(restart) =
                file_name.split_once(".log").and_then(|(restart, _)| restart.parse::<u32>().ok())
            else {
                continue;
            };
            let Ok(meta) = std::fs::metadata(file.path()) else { continue };
            let age = u64::try_from(now - meta.mtime()).unwrap_or(0);
            let files = found
                .entry((name.clone(), restart))
                .or_insert(Files { age_seconds: u64::MAX, ..Files::default() });
            files.count += 1;
            files.bytes += meta.len();
            files.age_seconds = files.age_seconds.min(age);
        }
    }
    found
}

/// Opens the live file as the agent would, and looks at its end.
fn look_into(config: &Config, dir: &Path, of: &ContainerRef, files: &mut Files) -> Option<super::Lines> {
    let os = Os::new(config.logs.root.clone(), config.logs.symlink_roots.clone(), Arc::default());
    match os.open(&dir.join(&of.container).join(format!("{}.log", of.restart))) {
        Ok(file) => lines::sample(&file).filter(|lines| lines.seen > 0),
        // Rotated at this moment.
        Err(OpenError::Missing) => None,
        Err(error) => {
            files.refused = Some(error.to_string());
            None
        }
    }
}

fn has_loki(config: &Config) -> bool {
    !config.sink.loki.is_empty() || config.sink.otlp.values().any(|sink| sink.is_loki())
}

/// A text in LogQL's quotation marks.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The query that finds a container's lines.
fn logql(config: &Config, account: &Account) -> String {
    let cluster = &config.agent.cluster;
    if config.sink.loki.is_empty() {
        // Loki's own names for what came by OTLP.
        return format!(
            "{{k8s_namespace_name={}, service_name={}}} | k8s_pod_name={}",
            quoted(&account.namespace),
            quoted(&account.service_name),
            quoted(&account.pod)
        );
    }
    let cluster = if cluster.is_empty() { String::new() } else { format!("cluster={}, ", quoted(cluster)) };
    format!(
        "{{{cluster}namespace={}, service_name={}, container={}}} | pod={}",
        quoted(&account.namespace),
        quoted(&account.service_name),
        quoted(&account.container),
        quoted(&account.pod)
    )
}

/// The query that finds a file's lines.
pub(super) fn logql_of_file(config: &Config, account: &Account, path: &str) -> String {
    let cluster = &config.agent.cluster;
    let pairs = [
        ("cluster", cluster),
        ("namespace", &account.namespace),
        ("service_name", &account.service_name),
        ("job", &account.container),
    ];
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    format!("{{{}}} | filename={}", pairs.join(", "), quoted(path))
}

/// The command that asks the first Loki, without its credentials.
pub(super) fn curl(config: &Config, account: Option<&Account>, logql: &str) -> Option<String> {
    let (_, sink) = config.sink.loki.iter().next()?;
    let client = sink.client().ok()?;
    let base = client.shown_url().strip_suffix("/loki/api/v1/push")?.to_owned();
    let tenant = account.and_then(|account| account.tenant.clone()).filter(|tenant| loki::is_tenant(tenant));
    let tenant = tenant.or_else(|| sink.tenant.clone());
    let tenant = tenant.map(|tenant| format!(" -H 'X-Scope-OrgID: {tenant}'")).unwrap_or_default();
    let auth = if sink.auth == Default::default() { "" } else { " -H 'Authorization: …'" };
    let query = logql.replace('\'', "'\\''");
    Some(format!("curl -sG {base}/loki/api/v1/query_range{tenant}{auth} --data-urlencode 'query={query}'"))
}

/// Why the pod is not found.
fn nowhere(site: &Site, question: &Question, root: &Path, agent: bool) -> String {
    let (namespace, name) = question.parts();
    if let Err(error) = std::fs::read_dir(root)
        && !agent
    {
        return format!(
            "no agent answers, and {} cannot be read here: {error}; run this on the pod's node, in the agent's pod",
            root.display()
        );
    }
    if let Some(node) = namespace.and_then(|namespace| site.node_of(namespace, name)) {
        if node == site.config().agent.node {
            return format!("{name} is on this node, and has no log directory yet: has a container started?");
        }
        return format!(
            "{name} is on node {node}, not on this one ({}); ask the agent there:\nkubectl get pods -A -o wide --field-selector \
             spec.nodeName={node} | grep nodewick",
            site.config().agent.node
        );
    }
    format!("no pod {:?} has logs on node {}", question.pod, site.config().agent.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_has_the_streams_labels() {
        let mut config = Config::default();
        config.sink.loki.insert(
            "main".into(),
            loki::Config {
                url: "http://u:hunter2@127.0.0.1:3100".into(),
                tenant: Some("blue".into()),
                ..Default::default()
            },
        );
        let account = Account {
            namespace: "shop".into(),
            pod: "web-0".into(),
            container: "api".into(),
            service_name: "it's \"web\"".into(),
            ..Account::default()
        };
        let query = logql(&config, &account);
        assert_eq!(
            query,
            r#"{namespace="shop", service_name="it's \"web\"", container="api"} | pod="web-0""#
        );
        let command = curl(&config, Some(&account), &query).expect("a Loki");
        assert_eq!(
            command,
            "curl -sG http://127.0.0.1:3100/loki/api/v1/query_range -H 'X-Scope-OrgID: blue' --data-urlencode \
             'query={namespace=\"shop\", service_name=\"it'\\''s \\\"web\\\"\", container=\"api\"} | pod=\"web-0\"'"
        );
    }

    #[test]
    fn rotated_files_belong_to_their_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let api = dir.path().join("api");
        std::fs::create_dir(&api).expect("made");
        for (name, text) in [
            ("0.log", "a"),
            ("0.log.20261122-144213", "bc"),
            ("0.log.20261121-1.gz", "def"),
            ("1.log", "g"),
            ("x", "h"),
        ] {
            std::fs::write(api.join(name), text).expect("written");
        }
        let found = files_of(dir.path());
        let of =
            |restart| found.get(&("api".to_owned(), restart)).map(|files: &Files| (files.count, files.bytes));
        assert_eq!((of(0), of(1), found.len()), (Some((3, 6)), Some((1, 1)), 2));
    }
}
