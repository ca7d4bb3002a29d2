//! Trace and span ids by W3C Trace Context: fixed width, lower-case hex, never all zero.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// A 16-byte trace id. The all-zero id is invalid by W3C Trace Context and cannot be expressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// An 8-byte span id. The all-zero id is invalid by W3C Trace Context and cannot be expressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `0..=15` for a hex digit of either case, `0xff` otherwise.
const NIBBLE: [u8; 256] = {
    let mut table = [0xff_u8; 256];
    let mut i = 0;
    while i < 10 {
        table[b'0' as usize + i] = i as u8;
        i += 1;
    }
    let mut i = 0;
    while i < 6 {
        table[b'a' as usize + i] = 10 + i as u8;
        table[b'A' as usize + i] = 10 + i as u8;
        i += 1;
    }
    table
};

/// Eight bytes of big-endian hex text as a number; `None` when a byte is no hex digit.
#[inline]
fn hex_u64(text: &[u8; 16]) -> Option<u64> {
    let mut value = 0_u64;
    let mut bad = 0_u8;
    for &byte in text {
        let nibble = NIBBLE[byte as usize];
        bad |= nibble;
        value = value << 4 | u64::from(nibble & 15);
    }
    (bad < 16).then_some(value)
}

impl TraceId {
    /// The id for a number, `None` for zero.
    pub fn new(id: u128) -> Option<Self> {
        NonZeroU128::new(id).map(Self)
    }

    /// Reads exactly 32 hex digits of either case. `None` for anything else, and for all zeros.
    #[inline]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let text: &[u8; 32] = text.try_into().ok()?;
        let high = hex_u64(text[..16].try_into().ok()?)?;
        let low = hex_u64(text[16..].try_into().ok()?)?;
        Self::new(u128::from(high) << 64 | u128::from(low))
    }

    /// The id as a number.
    pub fn get(self) -> u128 {
        self.0.get()
    }

    /// Big-endian bytes, as OTLP carries them.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// 32 lower-case hex digits.
    #[inline]
    pub fn hex(self) -> [u8; 32] {
        let mut out = [0; 32];
        write_hex(&self.to_bytes(), &mut out);
        out
    }
}

impl SpanId {
    /// The id for a number, `None` for zero.
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// Reads exactly 16 hex digits of either case. `None` for anything else, and for all zeros.
    #[inline]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        Self::new(hex_u64(text.try_into().ok()?)?)
    }

    /// The id as a number.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// Big-endian bytes, as OTLP carries them.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// 16 lower-case hex digits.
    #[inline]
    pub fn hex(self) -> [u8; 16] {
        let mut out = [0; 16];
        write_hex(&self.to_bytes(), &mut out);
        out
    }
}

#[inline]
fn write_hex(bytes: &[u8], out: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_normalise_case() {
        let text = b"0AF7651916cd43dd8448eb211c80319c";
        let id = TraceId::from_hex(text).expect("valid");
        assert_eq!(id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(&id.hex(), b"0af7651916cd43dd8448eb211c80319c");
        let span = SpanId::from_hex(b"b7ad6b7169203331").expect("valid");
        assert_eq!(&span.hex(), b"b7ad6b7169203331");
    }

    #[test]
    fn zero_short_and_foreign_text_is_no_id() {
        assert_eq!(TraceId::from_hex(&[b'0'; 32]), None);
        assert_eq!(TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319"), None);
        assert_eq!(TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319g"), None);
        assert_eq!(SpanId::from_hex(b"0000000000000000"), None);
    }
}
