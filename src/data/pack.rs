//! Values as bytes and back, as files in the state directory have them.
//!
//! In: numbers, texts. Out: LEB128 for whole numbers (signed ones zigzag), eight bytes little endian for floats, a length
//! before texts. Invariant: bytes that break off or say something impossible give `None`, and no count is believed
//! beyond its limit or beyond the bytes that are there.

use super::varint;

/// Appends to bytes.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// A byte.
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// A whole number.
    pub fn number(&mut self, number: u64) {
        varint::write(&mut self.0, number);
    }

    /// How many follow.
    pub fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// A whole number that may be below zero.
    pub fn int(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    /// A float, every bit of it.
    pub fn float(&mut self, number: f64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Bytes, with their number before them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// A text, with its length before it.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }
}

/// Takes from bytes.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (own, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(own)
    }

    /// A byte.
    pub fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// A whole number.
    pub fn number(&mut self) -> Option<u64> {
        varint::read(&mut self.0)
    }

    /// How many follow: `most` at most.
    pub fn count(&mut self, most: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= most)
    }

    /// How many follow, each of which has a byte at least.
    pub fn many(&mut self) -> Option<usize> {
        let number = self.number()?;
        usize::try_from(number).ok().filter(|count| *count <= self.0.len())
    }

    /// A whole number that may be below zero.
    pub fn int(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A float.
    pub fn float(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// Bytes with their number before them.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.many()?;
        self.take(count)
    }

    /// A text with its length before it.
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_written() {
        let mut out = Writer::default();
        out.byte(7);
        out.int(-3);
        out.int(i64::MIN);
        out.float(-0.5);
        out.text("é");
        assert_eq!(&out.0[..2], [7, 5]);
        let mut from = Reader(&out.0);
        assert_eq!((from.byte(), from.int(), from.int()), (Some(7), Some(-3), Some(i64::MIN)));
        assert_eq!((from.float(), from.text()), (Some(-0.5), Some("é")));
        assert_eq!(from.byte(), None);
    }

    #[test]
    fn a_count_is_believed_within_its_limit_only() {
        assert_eq!(Reader(&[3]).count(2), None);
        assert_eq!(Reader(&[3]).count(3), Some(3));
        assert_eq!(Reader(&[3, 0, 0]).many(), None);
        assert_eq!(Reader(&[2, 0, 0]).many(), Some(2));
        assert_eq!(Reader(&[2, 0xff, 0xfe]).text(), None);
    }
}
