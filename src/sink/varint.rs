//! Protobuf's numbers of variable length, as every wire writes them.

/// Bytes of `value` as a varint.
#[inline]
pub(super) const fn len(value: u64) -> usize {
    // 7 bits a byte; zero takes one.
    ((70 - (value | 1).leading_zeros()) / 7) as usize
}

/// Appends a varint.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
