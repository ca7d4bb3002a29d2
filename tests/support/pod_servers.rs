//! What listens on the addresses of pods: every address of the pods' namespace, on a few ports, answered as a test says.
//!
//! In: connections to any address. Out: for each request what was dialled and what was asked, and an answer. Invariant: a
//! connection is remembered with the address that was dialled, whatever its headers say, and even when nothing is asked.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::netns::Net;

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub at: Instant,
    /// The address that was dialled.
    pub ip: IpAddr,
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// The whole head.
    pub head: String,
}

/// How it is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 200, as `text/plain; version=0.0.4`.
    Page(String),
    /// 200 with this content type.
    As(&'static str, String),
    /// Another status, with a `Location`.
    Redirect(u16, String),
    /// Never.
    Silence,
    /// A byte a second.
    Drip,
    /// Lines without end.
    Endless,
    /// So many MiB of one line after the other, compressed to next to nothing.
    Bomb(usize),
    /// So many series, at once.
    Series(usize),
}

type Rule = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

struct State {
    rule: Mutex<Rule>,
    asked: Mutex<Vec<Asked>>,
    dialled: Mutex<Vec<SocketAddr>>,
}

/// See the module's header. Ends when dropped.
pub struct PodServers {
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl PodServers {
    /// Listens on these ports of every address.
    pub fn start(net: &Net, ports: &[u16], rule: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let rule: Rule = Arc::new(rule);
        let state =
            Arc::new(State { rule: Mutex::new(rule), asked: Mutex::default(), dialled: Mutex::default() });
        let any = if net.has_v6 { "[::]" } else { "0.0.0.0" };
        let listeners: Vec<_> = net.in_pods(|| {
            let listen = |port: &u16| {
                let listener = std::net::TcpListener::bind(format!("{any}:{port}")).expect("a free port");
                listener.set_nonblocking(true).expect("non-blocking");
                listener
            };
            ports.iter().map(listen).collect()
        });
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                for listener in listeners {
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        while let Ok((stream, _)) = listener.accept().await {
                            tokio::spawn(serve(stream, Arc::clone(&shared)));
                        }
                    });
                }
                let _ = stopped.await;
            });
        });
        Self { state, stop: Some(stop), thread: Some(thread) }
    }

    /// Answers so from now on.
    pub fn rule(&self, rule: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *lock(&self.state.rule) = Arc::new(rule);
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// Requests to one address so far.
    pub fn asked_of(&self, ip: IpAddr) -> Vec<Asked> {
        lock(&self.state.asked).iter().filter(|asked| asked.ip == ip).cloned().collect()
    }

    /// Every request so far, and forgets them.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.state.asked))
    }

    /// Every address that was dialled since the last call.
    pub fn take_dialled(&self) -> Vec<SocketAddr> {
        std::mem::take(&mut lock(&self.state.dialled))
    }
}

impl Drop for PodServers {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let Ok(local) = stream.local_addr() else { return };
    let (ip, port) = (local.ip().to_canonical(), local.port());
    lock(&state.dialled).push(SocketAddr::new(ip, port));
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            let mut room = [0; 4096];
            match stream.read(&mut room).await {
                Ok(read @ 1..) => head.extend_from_slice(&room[..read]),
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&std::mem::take(&mut head)).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        let asked = Asked { at: Instant::now(), ip, port, path, head: text };
        let rule = Arc::clone(&lock(&state.rule));
        let answer = rule(&asked);
        lock(&state.asked).push(asked);
        if give(&mut stream, answer).await.is_none() {
            return;
        }
    }
}

async fn give(stream: &mut TcpStream, answer: Answer) -> Option<()> {
    const TEXT: &str = "text/plain; version=0.0.4";
    match answer {
        Answer::Page(body) => whole(stream, TEXT, body.as_bytes()).await,
        Answer::As(kind, body) => whole(stream, kind, body.as_bytes()).await,
        Answer::Redirect(status, to) => {
            let head = format!("HTTP/1.1 {status} X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()
        }
        Answer::Silence => std::future::pending().await,
        Answer::Drip => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Length: 60000\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            loop {
                stream.write_all(b"a").await.ok()?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Answer::Endless => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            let lines = "endless_total{line=\"the same again and again\"} 1\n".repeat(1000);
            loop {
                stream.write_all(lines.as_bytes()).await.ok()?;
            }
        }
        Answer::Bomb(mib) => {
            let body = bomb(mib);
            let length = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()
        }
        Answer::Series(count) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            for from in (0..count).step_by(1000) {
                let mut lines = String::with_capacity(32_000);
                for number in from..(from + 1000).min(count) {
                    lines.push_str(&format!("many{{n=\"{number}\"}} 1\n"));
                }
                stream.write_all(lines.as_bytes()).await.ok()?;
            }
            None
        }
    }
}

async fn whole(stream: &mut TcpStream, kind: &str, body: &[u8]) -> Option<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body).await.ok()
}

/// A gzip of so many MiB, made of the same member again and again.
fn bomb(mib: usize) -> Vec<u8> {
    let mut member = GzEncoder::new(Vec::new(), Compression::best());
    let line = "bomb_total{line=\"the same again and again\"} 1\n";
    member.write_all(line.repeat((1 << 20) / line.len()).as_bytes()).expect("memory takes it");
    member.finish().expect("a member").repeat(mib)
}
