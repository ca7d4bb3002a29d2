//! The real agent as a child process: started with a config of its own, killed, ended, started again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Time that the agent has to become ready.
const START: Duration = Duration::from_secs(20);

/// Time that the agent has to flush and end: it promises 25 seconds.
const STOP: Duration = Duration::from_secs(30);

/// What a test changes of the agent's config and of how it is started.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Lines for the table `[agent]`, beside cluster and node.
    pub agent: String,
    /// Lines for the table `[logs]`, beside the root.
    pub logs: String,
    /// Further tables: sinks, and whatever the test is about.
    pub rest: String,
    /// The state directory, when it is not to be `state` below the agent's own directory.
    pub state_dir: Option<PathBuf>,
    /// A program and its arguments that end by executing the agent in their own place: `prlimit --nofile=64`,
    /// `strace -D …`. Its process id must stay the agent's.
    pub under: Vec<String>,
    /// Variables of the agent's environment.
    pub env: Vec<(String, String)>,
}

/// An agent and its directory. Killed by its id when dropped.
pub struct Agent {
    directory: PathBuf,
    admin: SocketAddr,
    under: Vec<String>,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Agent {
    /// Writes the config below `directory` and starts the agent on the logs below `logs`.
    ///
    /// `rest` is further config: sinks, and whatever the test is about.
    pub fn start(directory: &Path, logs: &Path, rest: &str) -> Self {
        let mut agent =
            Self::prepare(directory, logs, &Settings { rest: rest.to_owned(), ..Settings::default() });
        agent.launch();
        agent
    }

    /// Writes the config below `directory`; [`launch`](Self::launch) starts the agent.
    pub fn prepare(directory: &Path, logs: &Path, settings: &Settings) -> Self {
        Self::prepare_at(free_address(), directory, logs, settings)
    }

    /// The same with an address for the admin listener that others know already.
    pub fn prepare_at(admin: SocketAddr, directory: &Path, logs: &Path, settings: &Settings) -> Self {
        let state = settings.state_dir.clone().unwrap_or_else(|| directory.join("state"));
        fs::create_dir_all(directory).expect("a directory for the agent");
        fs::create_dir_all(&state).expect("a directory for the agent's state");
        // How full the machine's own disk is, is nothing that a test is about.
        let spill = if settings.state_dir.is_some() { "" } else { "spill.min_free = \"0%\"" };
        // Many agents run at once here, and nobody looks at their pages.
        let ui = if settings.rest.contains("[ui]") { "" } else { "[ui]\nlisten = \"off\"\n\n" };
        let config = format!(
            "[agent]\ncluster = \"test\"\nnode = \"node-1\"\nstate_dir = {state:?}\n{}\n\n[logs]\nroot = {logs:?}\n{spill}\n{}\n\n[admin]\nlisten = \"{admin}\"\n\n{ui}{}",
            settings.agent, settings.logs, settings.rest,
        );
        fs::write(directory.join("agent.toml"), config).expect("a config file");
        let (under, env) = (settings.under.clone(), settings.env.clone());
        Self { directory: directory.to_owned(), admin, under, env, child: None }
    }

    /// Starts the agent again, with the same config and the same state.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the agent runs");
        let output =
            OpenOptions::new().create(true).append(true).open(self.output()).expect("a file for its output");
        // A soak may name another build of the same program.
        let program = std::env::var("NODEWICK_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_nodewick").into());
        let words: Vec<String> = self.under.iter().cloned().chain([program]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        // The environment is config too, and cargo has some of its own for tests.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NODEWICK_"))
        {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = command
            .arg("run")
            .arg("-c")
            .arg(self.directory.join("agent.toml"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the agent's program");
        self.child = Some(child);
    }

    /// Waits until `/health/ready` answers 200.
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + START;
        loop {
            if let Ok((200, _)) = self.get("/health/ready") {
                return;
            }
            let ended = self.child.as_mut().expect("the agent runs").try_wait().expect("our own child");
            assert!(ended.is_none(), "the agent ended with {}:\n{}", ended.unwrap_or_default(), self.said());
            assert!(Instant::now() < deadline, "the agent is not ready after {START:?}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// True while the process has neither been ended by the test nor ended by itself.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_none()))
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        let child = self.child.as_ref()?;
        i32::try_from(child.id()).ok().and_then(Pid::from_raw)
    }

    /// Sends a signal: SIGSTOP and SIGCONT are what it is for.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("the agent runs"), signal).expect("our own child");
    }

    /// The agent's own directory: config, output and, unless the test says otherwise, `state`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the agent runs");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the agent runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
        kill_process(pid, Signal::TERM).expect("our own child");
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                return status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the agent has not ended {STOP:?} after SIGTERM:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Status and body of a GET of the admin listener.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut connection = TcpStream::connect_timeout(&self.admin, Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(connection, "GET {path} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin)?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let status = answer.get(9..12).and_then(|digits| digits.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status.ok_or_else(|| io::Error::other("not an HTTP answer"))?, body.to_owned()))
    }

    /// The sum of a metric over all its series; `None` when it is not on the page.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (status, page) = self.get("/metrics").expect("the metrics page");
        assert_eq!(status, 200);
        let mut sum = None;
        for line in page.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            if !rest.starts_with(['{', ' ']) {
                continue;
            }
            let value = rest.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
            sum = Some(sum.unwrap_or(0.0) + value.expect("a number"));
        }
        sum
    }

    /// Sums of every metric over all its series; empty when the agent does not answer.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        let Ok((200, page)) = self.get("/metrics") else { return sums };
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some(name) = line.split(['{', ' ']).next() else { continue };
            if let Some(value) = line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok()) {
                *sums.entry(name.to_owned()).or_insert(0.0) += value;
            }
        }
        sums
    }

    fn output(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// The end of what the agent printed.
    pub fn said(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(self.output()).and_then(|mut file| file.read_to_end(&mut text));
        if let Err(error) = read {
            return format!("(its output cannot be read: {error})");
        }
        String::from_utf8_lossy(&text[text.len().saturating_sub(8000)..]).into_owned()
    }
}

impl Drop for Agent {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failure")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail when the agent has ended, which is as well.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the agent said:\n{}", self.said());
        }
    }
}

/// A loopback address that nobody listens on.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("a bound listener")
}
