//! A process under care: started, its output passed through, signals passed on, its end known.
//!
//! In: a command. Out: its bytes on our own standard streams, unchanged and at once; a copy of them in chunks for
//! whoever keeps them; its exit code. Invariants: the process never waits for whoever takes the copies; a stream that
//! our own reader closes is closed to the process too, so that it meets what it would have met without us.

use std::ffi::OsString;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::data::batch::Stream;

/// Bytes passed on at once, at most: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// A pause between two tries to write to a standard stream that somebody has made non-blocking.
const RETRY: Duration = Duration::from_millis(2);

/// After the process's end, whoever holds its pipes open may still be writing: silence for this long ends it.
const SILENCE: Duration = Duration::from_millis(250);

/// The longest that this may take.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Takes copies of what the process writes. Must not block.
pub type Copy = Box<dyn FnMut(Stream, &[u8]) + Send>;

/// A running process.
pub struct Child {
    pid: Pid,
    pumps: Arc<Pumps>,
    /// The terminal sends its signals to the process itself.
    on_terminal: bool,
}

/// The threads that pass output through.
struct Pumps {
    running: AtomicUsize,
    started: Instant,
    /// Milliseconds since start at which something last came.
    last_millis: AtomicU64,
}

impl Pumps {
    fn beat(&self) {
        self.last_millis.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

/// Signals that are passed on, and whether a terminal sends them to everyone in front of it by itself.
const PASSED_ON: [(Signal, bool); 7] = [
    (Signal::TERM, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
    (Signal::HUP, true),
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::WINCH, true),
];

impl Child {
    /// Starts a command; `copies` get what it writes to stdout and stderr.
    pub fn start(command: &[OsString], copies: [Copy; 2]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let on_terminal =
            io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if !on_terminal {
            // Whoever signals our whole group would reach it twice otherwise.
            command.process_group(0);
        }
        let outputs =
            [io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?];
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        let inputs = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        let started = Instant::now();
        let pumps = Arc::new(Pumps { running: AtomicUsize::new(2), started, last_millis: AtomicU64::new(0) });
        let parts = [Stream::Stdout, Stream::Stderr].into_iter().zip(inputs).zip(outputs).zip(copies);
        for (((stream, input), output), copy) in parts {
            let pumps = Arc::clone(&pumps);
            let Some(input) = input else { continue };
            std::thread::Builder::new().name(stream.name().to_owned()).spawn(move || {
                pump(stream, File::from(input), File::from(output), copy, &pumps);
                pumps.running.fetch_sub(1, Ordering::AcqRel);
            })?;
        }
        Ok(Self { pid, pumps, on_terminal })
    }

    /// Passes signals on until the process ends; its exit code, 128 + n when signal n ended it. Reaps whoever else has
    /// become our child, as process 1 must.
    pub fn wait(self) -> io::Result<u8> {
        let (ended, end) = tokio::sync::oneshot::channel();
        let pid = self.pid;
        std::thread::Builder::new().name("reaper".into()).spawn(move || {
            let _ = ended.send(reap_until(pid));
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let code = runtime.block_on(self.pass_signals_until(end))?;
        let deadline = Instant::now() + LONGEST_REST;
        while self.pumps.running.load(Ordering::Acquire) > 0
            && self.pumps.silent_for() < SILENCE
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(code)
    }

    async fn pass_signals_until(
        &self,
        end: tokio::sync::oneshot::Receiver<io::Result<u8>>,
    ) -> io::Result<u8> {
        let listen = |(kind, of_terminal): (Signal, bool)| {
            let passes = !(of_terminal && self.on_terminal);
            signal(SignalKind::from_raw(kind.as_raw())).map(|listener| (kind, passes, listener))
        };
        let mut listeners = PASSED_ON.into_iter().map(listen).collect::<io::Result<Vec<_>>>()?;
        tokio::pin!(end);
        loop {
            let next = poll_fn(|context| {
                let ready = listeners.iter_mut().find_map(|(kind, passes, listener)| {
                    listener.poll_recv(context).is_ready().then_some((*kind, *passes))
                });
                ready.map_or(Poll::Pending, Poll::Ready)
            });
            tokio::select! {
                ended = &mut end => {
                    return ended.unwrap_or_else(|_| Err(io::Error::other("the reaper ended early")));
                }
                (kind, passes) = next => {
                    if passes {
                        // It may have ended this moment.
                        let _ = kill_process(self.pid, kind);
                    }
                }
            }
        }
    }
}

/// Catches the signals that are passed on from now on, so that none of them ends us while the process starts.
pub fn catch_signals(runtime: &tokio::runtime::Runtime) -> io::Result<()> {
    let _guard = runtime.enter();
    // The handler stays for good once it is there.
    PASSED_ON.iter().try_for_each(|(kind, _)| signal(SignalKind::from_raw(kind.as_raw())).map(drop))
}

/// Waits for children until `pid` has ended.
fn reap_until(pid: Pid) -> io::Result<u8> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => {
                let code = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => code,
                    (None, Some(signal)) => 128 + signal,
                    (None, None) => continue,
                };
                return Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn pump(stream: Stream, mut input: File, mut output: File, mut copy: Copy, pumps: &Pumps) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        pumps.beat();
        // What cannot be passed on is still said: the process learns of it by its own next write.
        let passed = write_all(&mut output, &buffer[..read]);
        copy(stream, &buffer[..read]);
        pumps.beat();
        if passed.is_err() {
            return;
        }
    }
}

fn write_all(output: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
