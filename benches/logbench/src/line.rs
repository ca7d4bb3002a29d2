//! The lines of the benchmark: pino request logs of about 401 bytes, in the container runtime's format.
//!
//! Every line carries a token `rq_FFF-SSSSSSSSS-UUUUUUUUUUUUUUUU`: number of its file, number in that file, and the
//! microsecond at which it was written. The receiver needs nothing else to count losses, duplicates and latency.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Bytes of a token after its `rq_`.
pub const TOKEN_LEN: usize = 30;

/// One line in fifty goes to stderr.
const STDERR_EVERY: u64 = 50;

/// One line in a hundred is written as a `P` fragment and an `F` fragment.
const SPLIT_EVERY: u64 = 100;

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Number of the file.
    pub file: usize,
    /// Number of the line in its file.
    pub seq: usize,
    /// When it was written, microseconds since the epoch.
    pub written_micros: u64,
}

impl Token {
    /// Reads the `TOKEN_LEN` bytes after `rq_`.
    pub fn read(text: &[u8]) -> Option<Self> {
        if text.len() < TOKEN_LEN || text[3] != b'-' || text[13] != b'-' {
            return None;
        }
        Some(Self {
            file: decimal(&text[..3])? as usize,
            seq: decimal(&text[4..13])? as usize,
            written_micros: decimal(&text[14..30])?,
        })
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0u64, |sum, &byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// SplitMix64: small, fast, the same on every machine. Source: Steele, Lea, Flood, OOPSLA 2014.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[(self.draw() % from.len() as u64) as usize]
    }
}

/// A make-believe container: its log file and the pod's name.
pub struct Container {
    /// Pod name; pino writes it as `hostname`.
    pub pod: String,
    /// `<root>/<namespace>_<pod>_<uid>/<container>/0.log`
    pub log: PathBuf,
}

impl Container {
    /// Container number `index` below `root`.
    pub fn new(root: &Path, index: usize) -> Self {
        const NAMESPACES: [&str; 5] = ["shop", "payments", "search", "platform", "default"];
        const APPS: [&str; 6] = ["orders", "cart", "billing", "catalog", "gateway", "auth"];
        let app = APPS[index % APPS.len()];
        let pod = format!("{app}-7d9f8b6c5-p{index:04}");
        let uid = format!("{:08x}-51b3-4c9a-9d2e-{:012x}", 0xb0b0_0000u32 + index as u32, index * 6151 + 29);
        let directory = format!("{}_{pod}_{uid}", NAMESPACES[index % NAMESPACES.len()]);
        Self { log: root.join(directory).join(app).join("0.log"), pod }
    }
}

/// Writes lines, and frames them as containerd does.
pub struct Writer {
    random: Random,
    body: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { random: Random(7), body: Vec::with_capacity(512) }
    }
}

impl Writer {
    /// Appends the line that `token` names to `out`, framed, newline included.
    pub fn append(&mut self, out: &mut Vec<u8>, token: Token, hostname: &str) {
        self.compose(token, hostname);
        let stream = if self.random.draw().is_multiple_of(STDERR_EVERY) { "stderr" } else { "stdout" };
        let stamp = Stamp::of(token.written_micros);
        if self.random.draw().is_multiple_of(SPLIT_EVERY) {
            let room = self.body.len() as u64 - 80;
            let cut = 40 + (self.random.draw() % room) as usize;
            stamp.frame(out, stream, 'P', &self.body[..cut]);
            stamp.frame(out, stream, 'F', &self.body[cut..]);
        } else {
            stamp.frame(out, stream, 'F', &self.body);
        }
    }

    fn compose(&mut self, token: Token, hostname: &str) {
        let random = &mut self.random;
        let level = match random.draw() % 100 {
            0 => 50,
            1..=4 => 40,
            5..=14 => 20,
            _ => 30,
        };
        let status = match random.draw() % 100 {
            0 => 500,
            1 => 404,
            2..=5 => 201,
            _ => 200,
        };
        let method = random.pick(&["GET", "GET", "GET", "POST", "PUT"]);
        let url = random.pick(&[
            "/api/orders/",
            "/api/users/",
            "/api/cart/items/",
            "/api/search?q=shoes&page=",
            "/healthz?",
            "/api/catalog/products/",
        ]);
        let message = random.pick(&[
            "request completed",
            "request completed",
            "request completed",
            "request completed with warnings",
            "cache miss, fetched from upstream",
            "upstream timeout, retrying",
        ]);
        let (numbers, high, low, span) = (random.draw(), random.draw(), random.draw(), random.draw());
        let Token { file, seq, written_micros } = token;
        self.body.clear();
        write!(
            self.body,
            r#"{{"level":{level},"time":{},"pid":1,"hostname":"{hostname}","reqId":"rq_{file:03}-{seq:09}-{written_micros:016}","#,
            written_micros / 1000
        )
        .and_then(|()| {
            write!(
                self.body,
                r#""req":{{"method":"{method}","url":"{url}{}","remoteAddress":"10.{}.{}.{}"}},"#,
                numbers % 1_000_000,
                numbers >> 20 & 3,
                numbers >> 24 & 255,
                numbers >> 32 & 255
            )
        })
        .and_then(|()| {
            write!(
                self.body,
                r#""res":{{"statusCode":{status}}},"responseTime":{}.{},"trace_id":"{high:016x}{low:016x}","span_id":"{span:016x}","msg":"{message}"}}"#,
                numbers >> 40 & 255,
                numbers >> 48 & 511
            )
        })
        .expect("writing to memory");
    }
}

/// A CRI time stamp.
struct Stamp(String);

impl Stamp {
    fn of(micros: u64) -> Self {
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (year, month, day) = civil((seconds / 86_400) as i64);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        // Three more digits make nanoseconds; never a trailing zero, which the runtime would trim.
        let nanos = fraction * 1000 + fraction % 990 / 10 * 10 + 1 + fraction % 9;
        Self(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z"))
    }

    fn frame(&self, out: &mut Vec<u8>, stream: &str, tag: char, body: &[u8]) {
        write!(out, "{} {stream} {tag} ", self.0).expect("writing to memory");
        out.extend_from_slice(body);
        out.push(b'\n');
    }
}

/// Year, month and day of a day number since 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, u64, u64) {
    let (mut year, mut left) = (1970, days);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    for length in [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month + 1, left as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_time_of_its_token() {
        let stamp = Stamp::of(1_795_356_566_695_123);
        assert!(stamp.0.starts_with("2026-11-22T14:09:26.695123"), "{}", stamp.0);
        assert_eq!(stamp.0.len(), 30);
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(19_783), (2024, 3, 1));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }

    #[test]
    fn lines_are_about_four_hundred_bytes_and_carry_their_token() {
        let (mut writer, mut total) = (Writer::default(), 0);
        for seq in 0..1000 {
            let token = Token { file: 12, seq, written_micros: 1_795_356_566_695_123 };
            writer.compose(token, "orders-7d9f8b6c5-p0012");
            let at = memchr::memmem::find(&writer.body, b"rq_").expect("a token") + 3;
            assert_eq!(Token::read(&writer.body[at..]), Some(token));
            total += writer.body.len();
        }
        assert!((350..=420).contains(&(total / 1000)), "{}", total / 1000);
    }
}
