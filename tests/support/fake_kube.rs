//! An API server in the test's process: lists and watches of pods and namespaces, and a kubelet's `/pods`.
//!
//! In: objects that the test sets and deletes. Out: what Kubernetes 1.36 was recorded to answer: one resourceVersion over
//! everything, chunked watches, bookmarks, streaming lists that end with `k8s.io/initial-events-end`, 410 for what was
//! compacted, selectors, pages, `Status` objects. Every request is remembered, so that a test can say how many there may be.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

#[path = "fake_kube/serve.rs"]
mod serve;

/// A genuine answer of an API server 1.31.
const GENUINE: &str = include_str!("../corpus/kube/podlist-shop.json");

/// What a server can and what befalls it. The default is a server of today.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Streaming lists: 422 without.
    pub streaming_lists: bool,
    /// Does not know the parameters of streaming lists and ignores them, as before 1.27.
    pub ancient: bool,
    /// How often a watch that wants bookmarks gets one.
    pub bookmarks: Duration,
    /// Never ends a watch, and sends nothing on it: a connection that has died.
    pub silent: bool,
    /// Waits this long between two events of a watch.
    pub slow: Duration,
    /// What was compacted is told as the answer's status, not as an event of the watch.
    pub gone_as_status: bool,
    /// Objects of a page at most, whatever the client's limit is.
    pub page: usize,
    /// The token that is wanted.
    pub token: Option<String>,
    /// Resources that are forbidden: `pods`, `namespaces`, `nodes/pods`.
    pub forbidden: Vec<&'static str>,
    /// Further rights that a review of access grants, as `get secrets`; `list` and `watch` of what is not forbidden always.
    pub granted: Vec<&'static str>,
    /// Nobody answers: connections are closed.
    pub away: bool,
    /// Every request is answered so.
    pub fault: Option<Fault>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            streaming_lists: true,
            ancient: false,
            bookmarks: Duration::from_secs(60),
            silent: false,
            slow: Duration::ZERO,
            gone_as_status: false,
            page: usize::MAX,
            token: None,
            forbidden: Vec::new(),
            granted: Vec::new(),
            away: false,
            fault: None,
        }
    }
}

/// An answer that is none.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub status: u16,
    pub retry_after: Option<u64>,
}

/// A request as it was met.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `list`, `streaming_list`, `watch` or `kubelet`.
    pub verb: &'static str,
    pub resource: String,
    pub query: HashMap<String, String>,
    pub at: Instant,
    /// The `Authorization` that came with it.
    pub authorization: Option<String>,
    /// The status that was answered.
    pub status: u16,
}

/// How watches that run are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// By the end of the answer.
    Clean,
    /// In the middle of it.
    Abort,
    /// By an event that says 410.
    Gone,
}

/// Something that happened to an object.
#[derive(Debug, Clone)]
struct Change {
    version: u64,
    resource: &'static str,
    kind: &'static str,
    object: Arc<Value>,
    /// As it was before.
    before: Option<Arc<Value>>,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    version: u64,
    /// By resource, namespace and name.
    objects: BTreeMap<(&'static str, String, String), Arc<Value>>,
    changes: VecDeque<Change>,
    /// Changes up to here are forgotten.
    compacted: u64,
    /// Pages that were not asked for yet, by token.
    pages: HashMap<String, (u64, Vec<Arc<Value>>)>,
    seen: Vec<Seen>,
    sent_bytes: u64,
}

/// What running watches look at: anything new, and who is cut.
#[derive(Debug, Clone, Copy, Default)]
struct Bell {
    rings: u64,
    cuts: u64,
    cut: Option<Cut>,
}

/// See the module's header.
pub struct FakeKube {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    bell: Arc<watch::Sender<Bell>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeKube {
    /// Starts on a free port of the loopback interface.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// Starts at an address.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("a free port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State { version: 1000, ..State::default() }));
        let bell = Arc::new(watch::Sender::new(Bell::default()));
        let (stop, stopped) = oneshot::channel();
        let (shared, rung) = (Arc::clone(&state), Arc::clone(&bell));
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    _ = stopped => {}
                    () = serve::serve(listener, shared, rung) => {}
                }
            });
        });
        Self { address, state, bell, stop: Some(stop), thread: Some(thread) }
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig for this server, with the token in a file of its own beside it.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        std::fs::create_dir_all(directory).expect("a directory");
        let token = directory.join("token");
        std::fs::write(&token, "token-1").expect("a token");
        let path = directory.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url()}}],
            "users": [{"name": "agent", "user": {"tokenFile": token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "agent"}}],
        });
        std::fs::write(&path, text.to_string()).expect("a kubeconfig");
        path
    }

    /// Changes what the server can and what befalls it.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let away = {
            let mut state = self.state();
            change(&mut state.behaviour);
            state.behaviour.away
        };
        if away {
            self.cut(Cut::Abort);
        }
    }

    /// Sets an object: a pod or a namespace, by its `kind`.
    pub fn set(&self, object: Value) {
        let resource = if object["kind"] == "Namespace" { "namespaces" } else { "pods" };
        let mut state = self.state();
        let home = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        // No pod is admitted to a namespace that is not there.
        if resource == "pods" && !state.objects.contains_key(&("namespaces", String::new(), home.clone())) {
            state.change("namespaces", namespace(&home, json!({})), false);
        }
        state.change(resource, object, false);
        drop(state);
        self.ring();
    }

    /// Deletes a pod; its last state goes with the event.
    pub fn delete(&self, namespace: &str, name: &str) {
        let object = self.state().objects.get(&("pods", namespace.into(), name.into())).cloned();
        let object = object.expect("a pod that is there");
        self.state().change("pods", (*object).clone(), true);
        self.ring();
    }

    /// Changes a pod that is there.
    pub fn edit(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let object = self.state().objects.get(&("pods", namespace.into(), name.into())).cloned();
        let mut object = (*object.expect("a pod that is there")).clone();
        change(&mut object);
        self.set(object);
    }

    /// Forgets all changes so far: who wants to resume from one of them is answered 410.
    pub fn compact(&self) {
        let mut state = self.state();
        // Whoever resumes at this very version misses something that only the server knows of.
        state.version += 1;
        state.compacted = state.version;
        state.changes.clear();
        state.version += 1;
    }

    /// Ends all watches that run.
    pub fn cut(&self, cut: Cut) {
        self.bell.send_modify(|bell| {
            bell.cuts += 1;
            bell.cut = Some(cut);
        });
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Requests of a resource by verb.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        let state = self.state();
        state.seen.iter().filter(|seen| seen.verb == verb && seen.resource == resource).count()
    }

    /// Lists of a resource that were answered, streaming or not.
    pub fn lists(&self, resource: &str) -> usize {
        let state = self.state();
        let lists = state.seen.iter().filter(|seen| matches!(seen.verb, "list" | "streaming_list"));
        lists.filter(|seen| seen.resource == resource && seen.status == 200).count()
    }

    /// Forgets the requests so far.
    pub fn forget_seen(&self) {
        self.state().seen.clear();
    }

    /// Bytes of bodies that were sent.
    pub fn sent_bytes(&self) -> u64 {
        self.state().sent_bytes
    }

    fn ring(&self) {
        self.bell.send_modify(|bell| bell.rings += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic in the fake")
    }
}

impl Drop for FakeKube {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn change(&mut self, resource: &'static str, mut object: Value, deletion: bool) {
        self.version += 1;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (resource, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        let before =
            if deletion { self.objects.remove(&key) } else { self.objects.insert(key, Arc::clone(&object)) };
        let kind = match (&before, deletion) {
            (_, true) => "DELETED",
            (None, false) => "ADDED",
            (Some(_), false) => "MODIFIED",
        };
        self.changes.push_back(Change { version: self.version, resource, kind, object, before });
        if self.changes.len() > 20_000 {
            self.compacted = self.changes.pop_front().map_or(0, |change| change.version);
        }
    }
}

/// A pod as an API server shows it, made from a genuine one.
#[derive(Debug, Clone)]
pub struct PodSpec<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub node: &'a str,
    /// `app.kubernetes.io/name`, and the name of its ReplicaSet.
    pub app: &'a str,
    pub container: &'a str,
    /// Bytes of the object at least, most of them managed fields and environment.
    pub bytes: usize,
}

impl Default for PodSpec<'_> {
    fn default() -> Self {
        Self {
            namespace: "shop",
            name: "a",
            uid: "u",
            node: "node-1",
            app: "till",
            container: "api",
            bytes: 0,
        }
    }
}

impl PodSpec<'_> {
    /// The object.
    pub fn object(&self) -> Value {
        let list: Value = serde_json::from_str(GENUINE).expect("JSON");
        let mut pod = list["items"][0].clone();
        let meta = &mut pod["metadata"];
        meta["name"] = json!(self.name);
        meta["namespace"] = json!(self.namespace);
        meta["uid"] = json!(self.uid);
        meta["labels"] = json!({"app": self.app, "app.kubernetes.io/name": self.app});
        meta["annotations"] = json!({});
        meta["ownerReferences"] = json!([]);
        pod["spec"]["nodeName"] = json!(self.node);
        pod["spec"]["containers"][0]["name"] = json!(self.container);
        pod["status"]["containerStatuses"][0]["name"] = json!(self.container);
        let missing = self.bytes.saturating_sub(pod.to_string().len());
        if missing > 0 {
            let fields: Value = (0..missing / 2 / 64)
                .map(|n| (format!("f:field-{n:06}"), json!({"f:value-of-a-managed-field": {".": {}}})))
                .collect::<serde_json::Map<_, _>>()
                .into();
            pod["metadata"]["managedFields"] = json!([{"manager": "kubelet", "operation": "Update",
                "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
            let filler = "x".repeat(self.bytes.saturating_sub(pod.to_string().len()));
            pod["spec"]["containers"][0]["env"] = json!([{"name": "LARGE", "value": filler}]);
        }
        pod
    }
}

/// A namespace with annotations.
pub fn namespace(name: &str, annotations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "spec": {"finalizers": ["kubernetes"]},
        "metadata": {"name": name, "uid": format!("ns-{name}"), "annotations": annotations},
        "status": {"phase": "Active"}})
}
