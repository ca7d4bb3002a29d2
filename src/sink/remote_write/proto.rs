//! Protobuf by hand: the few shapes that remote write needs, written into and read from byte strings.
//!
//! Invariant: what is written has the lengths that the `*_len` functions said before.

pub(super) use crate::data::varint::{len as varint_len, read as read_varint, write as varint};

/// `sint32` and `sint64` on the wire.
#[inline]
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends field `number` with bytes.
#[inline]
pub(super) fn bytes(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Bytes that a field with `len` bytes takes, tag and length included. For fields below 16.
#[inline]
pub(super) const fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends field `number` with a varint, unless it is 0, which proto3 leaves out.
#[inline]
pub(super) fn number(out: &mut Vec<u8>, number: u8, value: u64) {
    if value != 0 {
        out.push(number << 3);
        varint(out, value);
    }
}

/// Appends field `number` with a double by its bits, unless they are 0, which proto3 leaves out. -0 is not 0 here, and a
/// NaN keeps its bits.
#[inline]
pub(super) fn double(out: &mut Vec<u8>, number: u8, value: f64) {
    if value.to_bits() != 0 {
        out.push(number << 3 | 1);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

/// A field as it was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// Varint.
    Number(u64),
    /// 8 bytes.
    Fixed(u64),
    /// Length and bytes.
    Bytes(&'a [u8]),
}

/// Reads the fields of a message. Ends at its end, or where it is malformed.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let tag = read_varint(&mut self.rest)?;
        let value = match tag & 7 {
            0 => Value::Number(read_varint(&mut self.rest)?),
            1 => Value::Fixed(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = usize::try_from(read_varint(&mut self.rest)?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_the_length_that_is_said() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!((out.as_slice(), varint_len(value)), (bytes, bytes.len()), "{value}");
            assert_eq!(read_varint(&mut out.as_slice()), Some(value));
        }
        assert_eq!((zigzag(0), zigzag(-1), zigzag(1), zigzag(i64::MIN)), (0, 1, 2, u64::MAX));
    }

    #[test]
    fn a_message_reads_back_and_a_broken_one_ends() {
        let mut out = Vec::new();
        bytes(&mut out, 1, b"ab");
        number(&mut out, 2, 7);
        number(&mut out, 3, 0);
        double(&mut out, 4, -0.0);
        double(&mut out, 5, 0.0);
        let read: Vec<_> = Fields::of(&out).collect();
        assert_eq!(read, [(1, Value::Bytes(b"ab")), (2, Value::Number(7)), (4, Value::Fixed(1 << 63))]);
        assert_eq!(Fields::of(&[0x0a, 9, 1]).count(), 0);
        assert_eq!(Fields::of(&[0xff; 12]).count(), 0);
    }
}
