//! `nodewick exec` and `nodewick run --stdin`: an agent for one process.
//!
//! In: a command, or lines on standard input. Out: its output where it would have gone, and its lines at the backends.
//! What is read goes into a [`spool`], and the agent follows that like any log, so that restarts, the checkpoint and
//! the ledger are what they are elsewhere. Invariants: a process under `exec` never waits for us and never ends because
//! of us; whoever writes to `--stdin` waits when nothing more can be kept.

pub mod child;
pub mod place;
mod queue;
pub mod spool;

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::agent::{self, Agent};
use crate::config::Config;
use crate::config::memory::cgroup_limit;
use crate::data::batch::Stream;
use crate::data::clock;
use crate::data::position::Position;
use crate::logs::files::Spool;
use crate::ui::Extras;
use child::Child;
use place::Place;
use queue::{Empty, Entrance, Exit, queue};
use spool::{Lost, Writer};

/// Bytes read from standard input at once.
const CHUNK: usize = 64 << 10;

/// How often delivered files are looked for, and whether there is room again.
const LOOK: Duration = Duration::from_millis(100);

/// What an agent with everything delivered has to end in.
const STOP: Duration = Duration::from_secs(5);

/// Exit codes of shells for a command that cannot be run, and for one that is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How one process is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of its service, and whether it is a guess.
    pub service: (String, bool),
    /// Bytes on disk that may wait for delivery.
    pub spool: u64,
    /// Time for the rest to be delivered when the process has ended.
    pub flush: Duration,
    /// Show a page for people.
    pub page: bool,
}

/// Bytes of one stream on their way to the spool.
struct Chunk {
    stream: Stream,
    bytes: Vec<u8>,
    time_unix_nano: u64,
    /// What was lost of the stream before them.
    before: Lost,
}

/// Runs a command; its exit code. `config` is the agent's, and what it says on its own goes to `say`.
pub fn run(
    config: Config,
    options: &Options,
    command: &[OsString],
    say: &mut dyn FnMut(&str),
) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    child::catch_signals(&runtime)?;
    let keeping = Keeping::start(config, options, false, say);
    let copies = [Stream::Stdout, Stream::Stderr].map(|_| keeping.as_ref().map(|k| k.entrance.clone()));
    let child = match Child::start(command, copies.map(copier)) {
        Ok(child) => child,
        Err(error) => {
            let name = command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            say(&format!("cannot run {name}: {error}"));
            let missing = error.kind() == io::ErrorKind::NotFound;
            return Ok(ExitCode::from(if missing { NOT_FOUND } else { CANNOT_RUN }));
        }
    };
    let code = child.wait()?;
    if let Some(keeping) = keeping {
        keeping.finish(options.flush, &asked(&runtime), say);
    }
    Ok(ExitCode::from(code))
}

/// Ships the lines of standard input; done when it ends, or when we are asked to end.
pub fn stdin(config: Config, options: &Options, say: &mut dyn FnMut(&str)) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let asked_to_end = asked(&runtime);
    let Some(keeping) = Keeping::start(config, options, true, say) else {
        return Ok(ExitCode::FAILURE);
    };
    let (ended, end) = sync_channel::<io::Result<()>>(1);
    let entrance = keeping.entrance.clone();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let _ = ended.send(read_stdin(&entrance));
    })?;
    let read = loop {
        match end.recv_timeout(LOOK) {
            Ok(read) => break read,
            Err(RecvTimeoutError::Timeout) if !asked_to_end.load(Ordering::Relaxed) => {}
            // What stays in the pipe is for whoever reads it next.
            Err(_) => break Ok(()),
        }
    };
    if let Err(error) = &read {
        say(&format!("cannot read standard input: {error}"));
    }
    // Whoever asks again will not wait.
    let again = asked(&runtime);
    let delivered = keeping.finish(options.flush, &again, say);
    Ok(if delivered && read.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_stdin(entrance: &Entrance) -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer[..read].to_vec();
        let chunk = Chunk { stream: Stream::Stdout, bytes, time_unix_nano: now(), before: Lost::default() };
        if !entrance.send(chunk) {
            return Ok(());
        }
    }
}

/// Set once when SIGTERM or SIGINT comes from now on.
fn asked(runtime: &tokio::runtime::Runtime) -> Arc<AtomicBool> {
    use tokio::signal::unix::{SignalKind, signal};
    let flag = Arc::<AtomicBool>::default();
    let set = Arc::clone(&flag);
    let _guard = runtime.enter();
    if let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        // A thread of its own: the runtime may have none.
        let _ = std::thread::Builder::new().name("signals".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(async {
                    tokio::select! {
                        _ = term.recv() => {}
                        _ = int.recv() => {}
                    }
                });
                set.store(true, Ordering::Relaxed);
            }
        });
    }
    flag
}

/// Hands chunks to the spool's writer; what it cannot take at once is lost, and counted.
fn copier(entrance: Option<Entrance>) -> child::Copy {
    let mut before = Lost::default();
    Box::new(move |stream, bytes| {
        let Some(entrance) = &entrance else { return };
        let chunk = Chunk { stream, bytes: bytes.to_vec(), time_unix_nano: now(), before };
        if entrance.try_send(chunk) {
            before = Lost::default();
        } else {
            before.add(Lost::of(bytes));
        }
    })
}

fn now() -> u64 {
    clock::since_epoch().as_nanos() as u64
}

/// How far the spool is delivered.
#[derive(Clone)]
struct Delivered {
    registry: agent::Known,
    key: String,
}

impl Delivered {
    fn position(&self) -> Option<Position> {
        self.registry.load().as_ref()?.position(&self.key)
    }
}

/// The spool with its writer, and the agent that delivers it.
struct Keeping {
    place: Place,
    entrance: Entrance,
    writer: JoinHandle<Writer>,
    ending: Arc<AtomicBool>,
    delivered: Delivered,
    agent: Agent,
}

impl Keeping {
    /// Starts both. `None` when that cannot be: then it is said, and lines are not shipped.
    fn start(mut config: Config, options: &Options, waits: bool, say: &mut dyn FnMut(&str)) -> Option<Self> {
        let limit = cgroup_limit();
        let _ = config.fit(limit);
        if let Err(error) = config.memory_bound().fits(limit) {
            say(&format!("lines are not shipped: {error}"));
            return None;
        }
        let place = match Place::take(&config.agent.state_dir, &options.service.0) {
            Ok(place) => place,
            Err(error) => {
                say(&format!("lines are not shipped: {error}"));
                return None;
            }
        };
        let writer = match Writer::open(&place.spool(), options.spool) {
            Ok(writer) => writer,
            Err(error) => {
                let dir = place.spool();
                say(&format!("lines are not shipped: cannot write in {}: {error}", dir.display()));
                return None;
            }
        };
        let path = spool::live_path(&place.spool());
        let key = crate::data::workload::ContainerRef::of_process(&path.to_string_lossy(), "", "", "").key();
        let (service, guessed) = options.service.clone();
        config.logs.root = PathBuf::new();
        config.logs.spool = Some(Spool { path, service, guessed, own_times: waits });
        config.agent.state_dir = place.state();
        let started =
            if options.page { agent::start_with(config, Extras::default()) } else { agent::start(config) };
        let agent = match started {
            Ok(agent) => {
                if let Some(page) = agent.ui_address() {
                    say(&format!("the agent's page: http://{page}/"));
                }
                agent
            }
            Err(error) => {
                say(&format!("lines are not shipped: {error}"));
                return None;
            }
        };
        let delivered = Delivered { registry: agent.registry(), key };
        let (entrance, exit) = queue();
        let ending = Arc::<AtomicBool>::default();
        let (end, far) = (Arc::clone(&ending), delivered.clone());
        let writer = std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || write(writer, &exit, &end, &far, waits));
        match writer {
            Ok(writer) => Some(Self { place, entrance, writer, ending, delivered, agent }),
            Err(error) => {
                say(&format!("lines are not shipped: {error}"));
                None
            }
        }
    }

    /// Waits until everything is delivered; false, and a word about it, when that took too long.
    fn finish(self, flush: Duration, asked_to_end: &AtomicBool, say: &mut dyn FnMut(&str)) -> bool {
        let Self { place, entrance, writer, ending, delivered, agent } = self;
        drop(entrance);
        ending.store(true, Ordering::Release);
        let deadline = Instant::now() + flush;
        let in_time = || Instant::now() < deadline && !asked_to_end.load(Ordering::Relaxed);
        while !writer.is_finished() && in_time() {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !writer.is_finished() {
            say(
                "the last lines could not be kept in time: the disk is busy, or no more may wait for delivery",
            );
            return false;
        }
        let Ok(writer) = writer.join() else { return false };
        let lost = writer.lost();
        if lost != Lost::default() {
            let Lost { lines, bytes } = lost;
            say(&format!("{lines} lines ({bytes} bytes) were not shipped: too much waited for delivery"));
        }
        let mut left = writer.undelivered(delivered.position());
        while left > 0 && in_time() && !agent.has_ended() {
            std::thread::sleep(Duration::from_millis(20));
            left = writer.undelivered(delivered.position());
        }
        if left > 0 {
            if agent.has_ended()
                && let Err(error) = agent.stop()
            {
                say(&format!("lines are not shipped: {error}"));
            }
            say(&format!(
                "{left} bytes of output are not delivered; they are kept in {} and go out at the next start",
                place.spool().display()
            ));
            return false;
        }
        // The last checkpoint, so that nothing goes out again.
        let stopped = std::thread::Builder::new().name("stop".into()).spawn(move || agent.stop());
        let deadline = Instant::now() + STOP;
        while stopped.as_ref().is_ok_and(|thread| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// Writes the spool until both streams have ended.
fn write(mut spool: Writer, exit: &Exit, ending: &AtomicBool, delivered: &Delivered, waits: bool) -> Writer {
    let mut looked = Instant::now();
    loop {
        // Whoever holds the streams open beyond the end of the process is not waited for.
        let chunk = match exit.take(LOOK) {
            Ok(chunk) => Some(chunk),
            Err(Empty::Timeout) if !ending.load(Ordering::Acquire) => None,
            Err(_) => break,
        };
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            spool.release(delivered.position());
        }
        let Some(Chunk { stream, bytes, time_unix_nano, before }) = chunk else { continue };
        let mut no_room = spool.is_full(delivered.position());
        while no_room && waits && !ending.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
            spool.release(delivered.position());
            no_room = spool.is_full(delivered.position());
        }
        // At the end one chunk more is better kept than lost.
        spool.take(stream, &bytes, time_unix_nano, before, no_room && !waits);
    }
    spool.end(now());
    spool
}

/// What a program is called when nobody has said so: its file's name, or for an interpreter that of the script.
pub fn guess_service(command: &[OsString]) -> String {
    const INTERPRETERS: [&str; 14] = [
        "node", "nodejs", "bun", "deno", "python", "python3", "ruby", "perl", "php", "java", "sh", "bash",
        "dash", "env",
    ];
    let base = |text: &OsString| {
        let name = PathBuf::from(text).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        name.unwrap_or_default()
    };
    let mut words = command.iter();
    let program = words.next().map(base).unwrap_or_default();
    let script = words.find(|word| {
        let text = word.to_string_lossy();
        !text.starts_with('-') && text.rsplit('/').next().is_some_and(|name| name.contains('.'))
    });
    match script.filter(|_| INTERPRETERS.contains(&program.as_str())) {
        Some(script) => base(script),
        None => program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_called_as_its_program_or_script() {
        for (command, service) in [
            (&["node", "--enable-source-maps", "dist/server.js"][..], "server"),
            (&["/usr/bin/python3", "app.py", "x.y"], "app"),
            (&["./checkout", "serve.now"], "checkout"),
            (&["java", "-jar", "till.jar"], "till"),
            (&["bash", "-c", "true"], "bash"),
        ] {
            let command: Vec<OsString> = command.iter().map(OsString::from).collect();
            assert_eq!(guess_service(&command), service);
        }
    }
}
