//! The real agent as a child process: started with a config of its own, killed, ended, started again.

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

/// An agent and its directory. Killed by its id when dropped.
pub struct Agent {
    directory: PathBuf,
    admin: SocketAddr,
    child: Option<Child>,
}

impl Agent {
    /// Writes the config below `directory` and starts the agent on the logs below `logs`.
    ///
    /// `rest` is further config: sinks, and whatever the test is about.
    pub fn start(directory: &Path, logs: &Path, rest: &str) -> Self {
        fs::create_dir_all(directory.join("state")).expect("a directory for the agent's state");
        let admin = free_address();
        let config = format!(
            "[agent]\ncluster = \"test\"\nnode = \"node-1\"\nstate_dir = {:?}\n\n[logs]\nroot = {:?}\n\n[admin]\nlisten = \"{admin}\"\n\n{rest}",
            directory.join("state"),
            logs,
        );
        fs::write(directory.join("agent.toml"), config).expect("a config file");
        let mut agent = Self { directory: directory.to_owned(), admin, child: None };
        agent.launch();
        agent
    }

    /// Starts the agent again, with the same config and the same state.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the agent runs");
        let output =
            OpenOptions::new().create(true).append(true).open(self.output()).expect("a file for its output");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodewick"));
        // The environment is config too, and cargo has some of its own for tests.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NODEWICK_"))
        {
            command.env_remove(name);
        }
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
