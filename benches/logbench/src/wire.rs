//! Protocol buffers by hand: just enough to write a Loki push and to read Loki and OTLP log requests.
//!
//! Loki: `PushRequest { 1: Stream { 1: labels, 2: Entry { 1: Timestamp, 2: line, 3: Label { 1: name, 2: value } } } }`.
//! Remote write: `WriteRequest { 1: TimeSeries { 1: Label { 1: name, 2: value }, 2: Sample { 1: value, 2: time } } }`.
//! OTLP: `ExportLogsServiceRequest { 1: ResourceLogs { 2: ScopeLogs { 2: LogRecord { 5: body, 9: trace_id } } } }`.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

/// Appends a base-128 varint.
#[inline]
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of `value` as a varint.
#[inline]
pub fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Bytes of a length-delimited field with a one-byte tag.
#[inline]
pub fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends a length-delimited field; `tag` is `number << 3 | 2`.
#[inline]
pub fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends one Loki entry.
#[inline]
pub fn entry(out: &mut Vec<u8>, time_unix_nano: u64, line: &[u8], metadata: &[(&[u8], &[u8])]) {
    let (seconds, nanos) = (time_unix_nano / 1_000_000_000, time_unix_nano % 1_000_000_000);
    let stamp = 2 + varint_len(seconds) + varint_len(nanos);
    let pair = |name: &[u8], value: &[u8]| field_len(name.len()) + field_len(value.len());
    let pairs: usize = metadata.iter().map(|(name, value)| field_len(pair(name, value))).sum();
    let total = field_len(stamp) + field_len(line.len()) + pairs;
    out.reserve(total + 12);
    out.push(0x12);
    varint(out, total as u64);
    out.extend_from_slice(&[0x0a, stamp as u8, 0x08]);
    varint(out, seconds);
    out.push(0x10);
    varint(out, nanos);
    field(out, 0x12, line);
    for (name, value) in metadata {
        out.push(0x1a);
        varint(out, pair(name, value) as u64);
        field(out, 0x0a, name);
        field(out, 0x12, value);
    }
}

/// The fields of a message, one after the other.
pub struct Fields<'a>(pub &'a [u8]);

/// A field's number and its bytes; a number's are those of its varint, see [`number`].
pub type Field<'a> = (u64, &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut read = || {
            let key = self.varint()?;
            let bytes = match key & 7 {
                0 => {
                    let before = self.0;
                    self.varint()?;
                    &before[..before.len() - self.0.len()]
                }
                1 => self.take(8)?,
                2 => {
                    let len = self.varint()?;
                    self.take(usize::try_from(len).ok()?)?
                }
                5 => self.take(4)?,
                _ => return None,
            };
            Some((key >> 3, bytes))
        };
        let found = read().ok_or(Malformed);
        if found.is_err() {
            self.0 = &[];
        }
        Some(found)
    }
}

/// Not a protocol buffer message.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// A received line and the trace id that came beside it, as bytes of hexadecimal or of the id itself.
pub struct Received<'a> {
    /// The line.
    pub line: &'a [u8],
    /// Trace id; empty when none came.
    pub trace_id: &'a [u8],
}

/// Calls `each` with every line of a Loki push.
pub fn read_loki<'a>(body: &'a [u8], mut each: impl FnMut(Received<'a>)) -> Result<(), Malformed> {
    for stream in Fields(body) {
        for part in Fields(stream?.1) {
            let (2, entry) = part? else { continue };
            let mut received = Received { line: &[], trace_id: &[] };
            for part in Fields(entry) {
                match part? {
                    (2, line) => received.line = line,
                    (3, pair) => {
                        let (mut name, mut value) = (&[][..], &[][..]);
                        for part in Fields(pair) {
                            match part? {
                                (1, bytes) => name = bytes,
                                (2, bytes) => value = bytes,
                                _ => {}
                            }
                        }
                        if name == b"trace_id" {
                            received.trace_id = value;
                        }
                    }
                    _ => {}
                }
            }
            each(received);
        }
    }
    Ok(())
}

/// Calls `each` with every line of an OTLP logs request.
pub fn read_otlp<'a>(body: &'a [u8], mut each: impl FnMut(Received<'a>)) -> Result<(), Malformed> {
    for resource in Fields(body) {
        for scope in Fields(resource?.1) {
            let (2, scope) = scope? else { continue };
            for record in Fields(scope) {
                let (2, record) = record? else { continue };
                let mut received = Received { line: &[], trace_id: &[] };
                for part in Fields(record) {
                    match part? {
                        (5, value) => {
                            for text in Fields(value) {
                                if let (1, text) = text? {
                                    received.line = text;
                                }
                            }
                        }
                        (9, id) => received.trace_id = id,
                        _ => {}
                    }
                }
                each(received);
            }
        }
    }
    Ok(())
}

/// The value of a number's field.
pub fn number(bytes: &[u8]) -> u64 {
    Fields(bytes).varint().unwrap_or(0)
}

/// A sample as it was received.
#[derive(Debug, PartialEq, Eq)]
pub struct ReceivedSample {
    /// Of all labels of its series.
    pub series: u64,
    /// Milliseconds since the epoch.
    pub time_unix_ms: u64,
}

/// Calls `each` with every sample of a request of remote write 1.0.
pub fn read_remote_write(body: &[u8], mut each: impl FnMut(ReceivedSample)) -> Result<(), Malformed> {
    for part in Fields(body) {
        let (1, series) = part? else { continue };
        let mut hash = DefaultHasher::new();
        for part in Fields(series) {
            match part? {
                (1, label) => hash.write(label),
                (2, sample) => {
                    let mut time_unix_ms = 0;
                    for part in Fields(sample) {
                        if let (2, time) = part? {
                            time_unix_ms = number(time);
                        }
                    }
                    each(ReceivedSample { series: hash.finish(), time_unix_ms });
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_the_length_that_is_reserved_for_them() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1_795_356_566, u64::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
        let mut out = Vec::new();
        varint(&mut out, 300);
        assert_eq!(out, [0xac, 0x02]);
    }

    #[test]
    fn samples_of_a_remote_write_request_are_told_apart_by_their_labels() {
        // {a="b"} 1 @ 300; {a="c"} 1 @ 5 and once more @ 6.
        let value = [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        let sample = |time: &[u8]| [&[0x12, 10 + time.len() as u8][..], &value, &[0x10], time].concat();
        let first = [&b"\x0a\x06\x0a\x01a\x12\x01b"[..], &sample(&[0xac, 2])].concat();
        let second = [&b"\x0a\x06\x0a\x01a\x12\x01c"[..], &sample(&[5]), &sample(&[6])].concat();
        let mut body = Vec::new();
        field(&mut body, 0x0a, &first);
        field(&mut body, 0x0a, &second);
        let mut seen = Vec::new();
        read_remote_write(&body, |sample| seen.push(sample)).expect("a request");
        assert_eq!(seen.iter().map(|sample| sample.time_unix_ms).collect::<Vec<_>>(), [300, 5, 6]);
        assert!(seen[0].series != seen[1].series && seen[1].series == seen[2].series);
        assert_eq!(read_remote_write(&body[..body.len() - 1], |_| {}), Err(Malformed));
    }

    #[test]
    fn a_written_entry_reads_back() {
        let (mut entries, mut push) = (Vec::new(), Vec::new());
        entry(&mut entries, 1_500_000_000, b"hello", &[(b"level", b"30"), (b"trace_id", b"0af7")]);
        assert_eq!(
            entries,
            b"\x12\x30\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01\x12\x05hello\x1a\x0b\x0a\x05level\x12\x0230\x1a\x10\x0a\x08trace_id\x12\x040af7"
        );
        let mut stream = Vec::new();
        field(&mut stream, 0x0a, b"{a=\"b\"}");
        stream.extend_from_slice(&entries);
        field(&mut push, 0x0a, &stream);
        let mut seen = Vec::new();
        read_loki(&push, |got| seen.push((got.line.to_vec(), got.trace_id.to_vec()))).expect("a push");
        assert_eq!(seen, [(b"hello".to_vec(), b"0af7".to_vec())]);
        assert_eq!(read_loki(&push[..push.len() - 1], |_| {}), Err(Malformed));
    }
}
