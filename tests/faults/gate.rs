//! What stands between the agent and its backend: a way that can be cut, swallowed or spoilt while connections are open.
//!
//! In: an upstream address and a [`Way`]. Out: an address that the agent is given, and how long a spoilt connection was
//! held. Loopback only and without root: a black hole is a listener whose queue is full, so that the kernel drops what
//! is sent to it, as `iptables -j DROP` would.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They lead to the backend.
    Through,
    /// Nobody listens; open ones are closed.
    Refused,
    /// No packet is answered; open ones stay and carry nothing.
    BlackHole,
    /// A refusal whose body comes at one byte per second.
    Drip,
    /// Headers without an end.
    HeaderFlood,
    /// A refusal with ten gigabytes of body.
    HugeBody,
}

impl Way {
    fn leads_through(self) -> bool {
        self == Self::Through
    }
}

/// A running gate. Ends when dropped.
pub struct Gate {
    address: SocketAddr,
    way: watch::Sender<Way>,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    held: Arc<Held>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Of spoilt connections.
#[derive(Default)]
struct Held {
    connections: AtomicU64,
    longest_millis: AtomicU64,
}

impl Gate {
    /// A gate on a free port of the loopback interface. It leads nowhere yet.
    pub fn start() -> Self {
        Self::start_at(crate::support::agent::free_address())
    }

    /// The same at an address of the loopback network.
    pub fn start_at(address: SocketAddr) -> Self {
        let (way, ways) = watch::channel(Way::Through);
        let (stop, stopped) = oneshot::channel::<()>();
        let (upstream, held) = (Arc::<Mutex<Option<SocketAddr>>>::default(), Arc::<Held>::default());
        let (to, books) = (Arc::clone(&upstream), Arc::clone(&held));
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = keep(address, ways, to, books) => {}
                }
            });
        });
        Self { address, way, upstream, held, stop: Some(stop), thread: Some(thread) }
    }

    /// Base URL, for the agent.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to this base URL from now on.
    pub fn lead_to(&self, url: &str) {
        let address = url.trim_start_matches("http://").parse().expect("an address");
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// What becomes of connections from now on, open ones included.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
        // Until the listener is as it should be.
        std::thread::sleep(Duration::from_millis(if way == Way::BlackHole { 400 } else { 20 }));
    }

    /// True once a spoilt connection was given up by the agent since the last [`take_held`](Self::take_held).
    pub fn was_given_up(&self) -> bool {
        self.held.longest_millis.load(Ordering::Acquire) > 0
    }

    /// Spoilt connections since the last call, and how long the longest was held by the agent, which closed it.
    pub fn take_held(&self) -> (u64, Duration) {
        let connections = self.held.connections.swap(0, Ordering::AcqRel);
        (connections, Duration::from_millis(self.held.longest_millis.swap(0, Ordering::AcqRel)))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

async fn keep(
    address: SocketAddr,
    mut ways: watch::Receiver<Way>,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    held: Arc<Held>,
) {
    let mut listener = Some(listen(address, 1024).expect("a listener"));
    let mut before = Way::Through;
    // What fills the queue of a black hole.
    let mut fillers: Vec<TcpStream> = Vec::new();
    let mut connections = JoinSet::new();
    loop {
        let way = *ways.borrow_and_update();
        if way != before {
            let closed = |way| matches!(way, Way::Refused | Way::BlackHole);
            if closed(way) || closed(before) {
                drop(listener.take());
                fillers.clear();
            }
            if way == Way::BlackHole {
                listener = Some(listen(address, 0).expect("a listener"));
                for _ in 0..4 {
                    let filler = tokio::time::timeout(Duration::from_millis(80), TcpStream::connect(address));
                    if let Ok(Ok(filler)) = filler.await {
                        fillers.push(filler);
                    }
                }
            } else if way != Way::Refused && listener.is_none() {
                listener = Some(listen(address, 1024).expect("a listener"));
            }
            before = way;
        }
        let accepts = listener.as_ref().filter(|_| way != Way::BlackHole);
        tokio::select! {
            changed = ways.changed() => if changed.is_err() { return },
            Some(Ok((socket, _))) = accept(accepts) => {
                let (ways, held) = (ways.clone(), Arc::clone(&held));
                let upstream = *upstream.lock().unwrap_or_else(PoisonError::into_inner);
                connections.spawn(async move {
                    if way.leads_through() {
                        relay(socket, upstream, ways).await;
                    } else {
                        spoil(socket, way, ways, &held).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<std::io::Result<(TcpStream, SocketAddr)>> {
    match listener {
        Some(listener) => Some(listener.accept().await),
        None => std::future::pending().await,
    }
}

/// Carries bytes both ways for as long as the way leads through.
async fn relay(mut socket: TcpStream, upstream: Option<SocketAddr>, mut ways: watch::Receiver<Way>) {
    let Some(upstream) = upstream else { return };
    let Ok(mut backend) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut socket, &mut backend) => return,
        _ = ways.wait_for(|way| !way.leads_through()) => {}
    }
    let swallowed = *ways.borrow() == Way::BlackHole;
    if swallowed {
        let _ = ways.wait_for(|way| *way != Way::BlackHole).await;
    }
}

/// Answers as no backend should.
async fn spoil(socket: TcpStream, way: Way, mut ways: watch::Receiver<Way>, held: &Held) {
    let began = Instant::now();
    let (mut from, mut to) = socket.into_split();
    let mut room = vec![0; 64 << 10];
    if !matches!(from.read(&mut room).await, Ok(1..)) {
        return;
    }
    held.connections.fetch_add(1, Ordering::AcqRel);
    let swallow = async { while matches!(from.read(&mut room).await, Ok(1..)) {} };
    let answer = async {
        let (head, piece, pause): (&[u8], Vec<u8>, u64) = match way {
            Way::Drip => (b"HTTP/1.1 503 Slow\r\nContent-Length: 60000\r\n\r\n", b"x".to_vec(), 1000),
            Way::HeaderFlood => {
                (b"HTTP/1.1 204 No Content\r\n", b"X-Flood: aaaaaaaaaaaaaaaa\r\n".to_vec(), 1)
            }
            _ => (b"HTTP/1.1 503 Huge\r\nContent-Length: 10737418240\r\n\r\n", vec![b'x'; 64 << 10], 0),
        };
        if to.write_all(head).await.is_err() {
            return;
        }
        while to.write_all(&piece).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    };
    tokio::select! {
        () = swallow => {}
        () = answer => {}
        // What the agent did not close counts for nothing.
        _ = ways.wait_for(|now| *now != way) => return,
    }
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    held.longest_millis.fetch_max(millis.max(1), Ordering::AcqRel);
}
