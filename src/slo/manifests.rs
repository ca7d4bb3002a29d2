//! Objectives in Kubernetes manifests: the annotations that the pods of a workload will have.
//!
//! In: manifests as YAML, of several documents too, or as JSON; single objects and lists. Out: the [`Spec`]s that the agent
//! will count once they are applied, and what is wrong with its file and line. Invariants: namespace and workload are named as
//! the agent names them; an annotation that the agent would not see is told; documents without objectives are not looked into,
//! so whatever else stands in a file does not matter.

use std::collections::BTreeMap;
use std::fmt;

use super::annotations::{self, PREFIX};
use super::config::Defaults;
use super::spec::{Level, Problem, Spec};
use crate::data::workload::guess_service;
use crate::data::yaml::{self, Limits, Node, Value};

/// What one document may hold.
const LIMITS: Limits = Limits { bytes: 8 << 20, nodes: 200_000, documents: 1, verbatim: true };
/// Lists in lists.
const MOST_DEPTH: usize = 4;
/// Problems that are told.
const MOST_PROBLEMS: usize = 200;

/// A file of manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name in messages.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// A problem and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The file's name.
    pub file: String,
    /// Line, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}: ", self.problem.level.name())?;
        if !self.problem.key.is_empty() {
            write!(f, "{}: ", self.problem.key.join("."))?;
        }
        f.write_str(&self.problem.message)?;
        if !self.problem.help.is_empty() {
            write!(f, "\n  help: {}", self.problem.help)?;
        }
        Ok(())
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Objectives, in the order of the files; each id once.
    pub specs: Vec<Spec>,
    /// What is wrong or odd.
    pub problems: Vec<Placed>,
}

/// An annotation and where it stands.
#[derive(Debug, Clone)]
struct Said {
    name: String,
    value: String,
    file: usize,
    line: usize,
}

/// A workload that will have pods.
#[derive(Debug)]
struct Workload {
    namespace: Option<String>,
    name: Option<String>,
    what: String,
    file: usize,
    line: usize,
    said: Vec<Said>,
}

/// Reads the objectives of all workloads in `files`. `namespace` is that of objects that name none.
pub fn read(files: &[File], namespace: Option<&str>, defaults: &Defaults) -> Found {
    let mut reading =
        Reading { files, found: Found::default(), workloads: Vec::new(), namespaces: BTreeMap::new() };
    for (index, file) in files.iter().enumerate() {
        for (line, document) in documents(&file.text) {
            if !document.contains(PREFIX) {
                continue;
            }
            match yaml::read(document, LIMITS) {
                Ok(nodes) => nodes.iter().for_each(|node| reading.object(index, line, node, 0)),
                Err(error) => {
                    let line = if error.line == 0 { 0 } else { line + error.line as usize };
                    let help = "give manifests after Helm or other templates were filled in";
                    reading.tell(index, line, Level::Error, &[], error.message, help);
                }
            }
        }
    }
    reading.resolve(namespace, defaults);
    reading.found
}

/// The documents of a text, with the number of lines before each.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut begin, mut begin_line, mut at) = (Vec::new(), 0, 0, 0);
    for (line, content) in text.split_inclusive('\n').enumerate() {
        let bare = content.trim_end();
        if bare == "---" || bare.starts_with("--- ") {
            found.push((begin_line, &text[begin..at]));
            // What stands behind the marker belongs to the next document, but nobody writes it there.
            (begin, begin_line) = (at + content.len(), line + 1);
        }
        at += content.len();
    }
    found.push((begin_line, &text[begin..]));
    found
}

struct Reading<'a> {
    files: &'a [File],
    found: Found,
    workloads: Vec<Workload>,
    namespaces: BTreeMap<String, Vec<Said>>,
}

impl Reading<'_> {
    fn tell(&mut self, file: usize, line: usize, level: Level, key: &[&str], message: String, help: &str) {
        self.put(file, line, Problem::new(level, key, message, help));
    }

    fn put(&mut self, file: usize, line: usize, problem: Problem) {
        if self.found.problems.len() < MOST_PROBLEMS {
            let file = self.files.get(file).map(|file| file.name.clone()).unwrap_or_default();
            self.found.problems.push(Placed { file, line, problem });
        }
    }

    /// An object of a document that begins after `before` lines.
    fn object(&mut self, file: usize, before: usize, object: &Node, depth: usize) {
        let kind = object.text_at("kind").unwrap_or_default();
        if let Some(items) = object.get("items").filter(|_| kind.ends_with("List"))
            && depth < MOST_DEPTH
        {
            items.items().iter().for_each(|item| self.object(file, before, item, depth + 1));
            return;
        }
        let template: &[&str] = match kind {
            "Pod" | "Namespace" => &[],
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" | "Rollout" => {
                &["spec", "template"]
            }
            "CronJob" => &["spec", "jobTemplate", "spec", "template"],
            _ => return,
        };
        let pod = template.iter().try_fold(object, |node, key| node.get(key));
        let said = pod.map(|pod| self.annotations(file, before, pod)).unwrap_or_default();
        if !template.is_empty() {
            for own in self.annotations(file, before, object) {
                let message = format!("stands on the {kind} itself, where the agent does not see it");
                let help = format!("move it to {}.metadata.annotations", template.join("."));
                self.tell(file, own.line, Level::Warning, &[&own.name], message, &help);
            }
        }
        let meta = object.get("metadata");
        let text = |key: &str| meta.and_then(|meta| meta.text_at(key)).map(str::to_owned);
        let name = text("name").map(|name| match kind {
            "Pod" => guess_service(&name).to_owned(),
            _ => name,
        });
        if kind == "Namespace" {
            self.namespaces.entry(name.unwrap_or_default()).or_default().extend(said);
            return;
        }
        let what = format!("{kind} {}", name.as_deref().unwrap_or("without a name"));
        let line = before + meta.map_or(object.line, |meta| meta.line);
        self.workloads.push(Workload { namespace: text("namespace"), name, what, file, line, said });
    }

    /// The annotations about objectives of an object or a pod's template.
    fn annotations(&mut self, file: usize, before: usize, of: &Node) -> Vec<Said> {
        let Some(all) = of.get("metadata").and_then(|meta| meta.get("annotations")) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, node) in all.entries().iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let line = before + node.line;
            match &node.value {
                Value::Text(value) => {
                    found.push(Said { name: name.clone(), value: value.clone(), file, line });
                }
                _ => {
                    let message = "is no text".to_owned();
                    self.tell(
                        file,
                        line,
                        Level::Error,
                        &[name],
                        message,
                        "write the value in quotation marks",
                    );
                }
            }
        }
        found
    }

    fn resolve(&mut self, namespace: Option<&str>, defaults: &Defaults) {
        let mut known: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for workload in std::mem::take(&mut self.workloads) {
            let own = workload.namespace.as_deref().or(namespace);
            let inherited = own.and_then(|own| self.namespaces.get(own)).cloned().unwrap_or_default();
            let mut said = workload.said;
            let is_new = |of: &Said| said.iter().all(|own| own.name != of.name);
            let inherited: Vec<Said> = inherited.into_iter().filter(is_new).collect();
            said.extend(inherited);
            if said.is_empty() {
                continue;
            }
            let (file, line) = (workload.file, workload.line);
            let Some(name) = workload.name.filter(|name| !name.is_empty()) else {
                let message = format!("{} has objectives, and nobody knows of what", workload.what);
                self.tell(file, line, Level::Error, &["metadata"], message, "write metadata.name");
                continue;
            };
            let Some(own) = own else {
                let message = format!("{} has objectives and names no namespace", workload.what);
                let help = "write metadata.namespace, or give --namespace";
                self.tell(file, line, Level::Error, &["metadata"], message, help);
                continue;
            };
            // In the order in which the agent reads them.
            said.sort_by(|a, b| a.name.cmp(&b.name));
            let pairs = said.iter().map(|said| (said.name.as_str(), said.value.as_str()));
            let (specs, problems) = annotations::read(pairs, own, &name, defaults);
            let place = |annotation: &str| {
                let found = said.iter().find(|said| said.name == annotation);
                found.map_or((file, line), |said| (said.file, said.line))
            };
            for problem in problems {
                let (file, line) = place(problem.annotation());
                self.put(file, line, problem);
            }
            for spec in specs {
                let annotation = format!("{PREFIX}{}", spec.name);
                let (file, line) = place(&annotation);
                match self.found.specs.iter().find(|known| known.id() == spec.id()) {
                    None => {
                        known.insert(spec.id(), (file, line));
                        self.found.specs.push(spec);
                    }
                    // Several pods of one workload.
                    Some(same) if *same == spec => {}
                    Some(_) => {
                        let (first, at) = known.get(&spec.id()).copied().unwrap_or_default();
                        let first = self.files.get(first).map(|file| file.name.as_str()).unwrap_or_default();
                        let message = format!("{} is declared otherwise at {first}:{at}", spec.id());
                        let help = "declare it once, or the same in both places";
                        self.tell(file, line, Level::Error, &[&annotation], message, help);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, namespace: Option<&str>) -> (Vec<String>, Vec<String>) {
        let files = [File { name: "shop.yaml".into(), text: text.into() }];
        let found = read(&files, namespace, &Defaults::default());
        let spec =
            |spec: &Spec| format!("{} {} {} {}", spec.id(), spec.objective, spec.window, spec.mode.name());
        (found.specs.iter().map(spec).collect(), found.problems.iter().map(ToString::to_string).collect())
    }

    const SHOP: &str = r#"apiVersion: v1
kind: Namespace
metadata:
  name: shop
  annotations:
    slo.nodewick.dev/owner: team-shop
---
# A comment, and something that nobody here reads.
apiVersion: v1
kind: ConfigMap
metadata: {name: x}
data: {"x": "{{ not filled in"}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: checkout
  namespace: shop
spec:
  template:
    metadata:
      annotations:
        slo.nodewick.dev/availability: "99.95%/30d"
        slo.nodewick.dev/latency: 99% < 200ms / 28d
        slo.nodewick.dev/mode: alert
    spec:
      containers: [{name: api, image: "x:1"}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  jobTemplate:
    spec:
      template:
        metadata:
          annotations: {slo.nodewick.dev/availability: "99%/7d"}
"#;

    #[test]
    fn pod_templates_declare_as_their_pods_will() {
        let (specs, problems) = found(SHOP, None);
        assert_eq!(problems, [] as [String; 0]);
        assert_eq!(
            specs,
            [
                "shop/checkout/availability 99.95% 30d alert",
                "shop/checkout/latency 99% 28d alert",
                "shop/nightly/availability 99% 7d observe",
            ]
        );
        let files = [File { name: "shop.yaml".into(), text: SHOP.into() }];
        assert_eq!(read(&files, None, &Defaults::default()).specs[0].owner, "team-shop");
    }

    #[test]
    fn lists_and_json_are_read_too() {
        let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {"template": {"metadata": {"annotations":
                {"slo.nodewick.dev/availability": "99.9%"}}}}},
            {"kind": "Pod", "metadata": {"name": "till-d994d45d6-5h9zr", "namespace": "other", "annotations":
                {"slo.nodewick.dev/availability": "99.9%"}}},
            {"kind": "Pod", "metadata": {"name": "till-d994d45d6-x2k4t", "namespace": "other", "annotations":
                {"slo.nodewick.dev/availability": "99.9%"}}}]}"#;
        let (specs, problems) = found(text, Some("shop"));
        assert_eq!(problems, [] as [String; 0]);
        assert_eq!(
            specs,
            ["shop/db/availability 99.9% 30d observe", "other/till/availability 99.9% 30d observe"]
        );
    }

    #[test]
    fn problems_have_their_file_and_line() {
        let wrong =
            SHOP.replace("99.95%/30d", "100%/30d").replace("name: nightly, namespace: shop", "name: nightly");
        let (specs, problems) = found(&wrong, None);
        assert_eq!(specs, ["shop/checkout/latency 99% 28d alert"]);
        assert_eq!(
            problems,
            [
                "shop.yaml:23: error: slo.nodewick.dev/availability: an objective of 100% leaves no error budget to burn; write \
                 the failures you accept, like \"99.95%\"\n  help: write it like \"99.95%/30d\"",
                "shop.yaml:31: error: metadata: CronJob nightly has objectives and names no namespace\n  help: write \
                 metadata.namespace, or give --namespace",
            ]
        );
    }

    #[test]
    fn what_the_agent_would_not_see_is_told() {
        let text = "kind: Deployment\nmetadata:\n  name: a\n  namespace: n\n  annotations:\n    slo.nodewick.dev/availability: \
                    99.9%\nspec: {}\n";
        let (specs, problems) = found(text, None);
        assert_eq!(specs, [] as [String; 0]);
        assert_eq!(
            problems,
            [
                "shop.yaml:6: warning: slo.nodewick.dev/availability: stands on the Deployment itself, where the agent does not \
              see it\n  help: move it to spec.template.metadata.annotations"
            ]
        );
    }

    #[test]
    fn one_objective_is_declared_once() {
        let other = format!("{SHOP}---\n{}", &SHOP[SHOP.find("apiVersion: apps").expect("there")..]);
        let (specs, problems) = found(&other, None);
        assert_eq!((specs.len(), problems.len()), (3, 0), "the same again is the same: {problems:?}");
        let other = other.replacen("99.95%/30d", "99.9%/30d", 1);
        let (specs, problems) = found(&other, None);
        assert_eq!(specs.len(), 3);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("shop/checkout/availability is declared otherwise at shop.yaml:23"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_bomb_and_a_broken_file_are_refused_with_their_line() {
        let mut bomb = "a: &a [slo.nodewick.dev/x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, before) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e"), ("g", "f")] {
            let many = vec![format!("*{before}"); 9].join(",");
            bomb.push_str(&format!("{name}: &{name} [{many}]\n"));
        }
        let (_, problems) = found(&bomb, None);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let broken = "kind: Pod\n---\nmetadata:\n  annotations: {slo.nodewick.dev/x: [\n";
        let (_, problems) = found(broken, None);
        assert!(
            problems[0].starts_with("shop.yaml:") && problems[0].contains("cannot be read as YAML"),
            "{problems:?}"
        );
        for text in
            ["", "slo.nodewick.dev/", "- slo.nodewick.dev/x", "kind: Pod\nx: slo.nodewick.dev/", "---\n---\n"]
        {
            assert_eq!(found(text, None), (Vec::new(), Vec::new()), "{text}");
        }
    }
}
