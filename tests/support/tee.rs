//! A tee of `/metrics` pages: whoever asks within the same interval gets the same recorded body.
//!
//! Two scrapers of a real service do not see the same page: values move on, and some clients reset histograms when they are
//! scraped. The tee asks the service once in each interval of the wall clock and adds a gauge `tee_interval` with the
//! interval's number, so that what two scrapers have stored can be held against each other interval by interval.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::measured;

type Recorded = HashMap<(u64, bool), (String, Vec<u8>)>;

/// The tee of one service; it listens until it is dropped.
pub struct Tee {
    address: SocketAddr,
    down: Arc<AtomicBool>,
}

struct Shared {
    service: SocketAddr,
    interval: Duration,
    recorded: Mutex<Recorded>,
    down: Arc<AtomicBool>,
}

impl Tee {
    /// A tee of the service at `service`, which is asked once in `interval`.
    pub fn start(service: SocketAddr, interval: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let down = Arc::<AtomicBool>::default();
        let shared =
            Arc::new(Shared { service, interval, recorded: Mutex::default(), down: Arc::clone(&down) });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, down }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it answers nobody: the target is down.
    pub fn go_down(&self) {
        self.down.store(true, Ordering::Release);
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.go_down();
    }
}

impl Shared {
    /// Serves one connection, request by request.
    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let mut answers = stream.try_clone().expect("a second handle");
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        loop {
            let Some(request) = lines.next() else { return };
            let mut open_metrics = false;
            for line in lines.by_ref().take_while(|line| !line.is_empty()) {
                let line = line.to_ascii_lowercase();
                open_metrics |= line.starts_with("accept:") && line.contains("application/openmetrics-text");
            }
            if self.down.load(Ordering::Acquire) || !request.starts_with("GET /metrics") {
                return;
            }
            let (content_type, body) = self.page(open_metrics);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            if answers.write_all(head.as_bytes()).and_then(|()| answers.write_all(&body)).is_err() {
                return;
            }
        }
    }

    /// The page of this interval.
    fn page(&self, open_metrics: bool) -> (String, Vec<u8>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
        let number = (since.as_millis() / self.interval.as_millis()) as u64;
        let mut recorded = self.recorded.lock().expect("no panic");
        recorded.retain(|(known, _), _| known + 3 > number);
        let page = recorded.entry((number, open_metrics)).or_insert_with(|| {
            let accept = if open_metrics {
                "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
            } else {
                "text/plain;version=0.0.4"
            };
            let (_, content_type, mut body) = measured::get(self.service, "/metrics", &[("Accept", accept)]);
            let end = b"# EOF\n";
            let closed = body.ends_with(end);
            if closed {
                body.truncate(body.len() - end.len());
            }
            // A metric with the scraper's own labels, and one that comes and goes.
            body.extend_from_slice(
                format!(
                    "# TYPE tee_interval gauge\ntee_interval {number}\n# TYPE tee_clash gauge\n\
                         tee_clash{{instance=\"mine\",job=\"own\",exported_job=\"older\"}} 1\n"
                )
                .as_bytes(),
            );
            if number % 3 == 0 {
                body.extend_from_slice(b"# TYPE tee_sometimes gauge\ntee_sometimes 1\n");
            }
            if closed {
                body.extend_from_slice(end);
            }
            (content_type, body)
        });
        page.clone()
    }
}
