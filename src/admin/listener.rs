//! The loop that both listeners run: a bounded number of HTTP/1.1 connections inside one task.
//!
//! In: a listening socket and a router. Out: answers, until told to leave. Invariants: at most [`CONNECTIONS`] connections at
//! once, more wait in the kernel's queue; none lives longer than it may; a client that does not finish its request head in
//! [`HEAD_TIMEOUT`] is cut off, also on a connection that is kept open.

use std::time::Duration;

use axum::Router;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections that are served at once; more wait in the kernel's queue.
pub const CONNECTIONS: usize = 64;
/// Time for a client to send its request head, also on a connection that is kept open.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request head.
pub const HEAD_BYTES: usize = 16 << 10;

/// Serves `router` until `leave` is cancelled; no connection lives longer than `life`.
pub async fn serve(listener: &TcpListener, router: &Router, life: Duration, leave: &CancellationToken) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = leave.cancelled() => return,
            Some(()) = open.next(), if !open.is_empty() => {}
            accepted = listener.accept(), if open.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => open.push(connection(stream, router.clone(), life)),
                // Out of descriptors, or the client is gone again: neither ends the listener.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

async fn connection(stream: TcpStream, router: Router, life: Duration) {
    let _ = stream.set_nodelay(true);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A broken connection is the client's affair; a probe that fails shows itself.
    let _ = tokio::time::timeout(life, served).await;
}
