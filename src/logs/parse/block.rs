//! Many bytes at once: where strings end, where digits end.
//!
//! In: a block of bytes. Out: a bit for each byte. Invariant: no byte's bit depends on its neighbours. Plain code, since
//! intrinsics are unsafe; its shape is chosen so that compilers turn it into vector instructions.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// A bit for each quote, backslash and control character, the first byte's lowest; and not 0 when a byte lies beyond
/// ASCII.
#[inline(always)]
pub(super) fn specials(bytes: &[u8; 64]) -> (u64, u64) {
    // Two loops over bytes that the compiler turns into vector code.
    let mut found = [0_u8; 64];
    let mut high = 0;
    for (place, byte) in bytes.iter().enumerate() {
        found[place] = u8::from(*byte == b'"') | u8::from(*byte == b'\\') | u8::from(*byte < 0x20);
        high |= *byte;
    }
    let mut mask = 0;
    for (eighth, found) in found.as_chunks::<8>().0.iter().enumerate() {
        // Gathers eight bytes of 0 or 1 in the top byte.
        let bits = u64::from_le_bytes(*found).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= bits << (8 * eighth);
    }
    (mask, u64::from(high & 0x80))
}

/// A high bit in the place of the first byte that is no decimal digit, 0 when all eight are; places above may be wrong.
#[inline(always)]
pub(super) fn non_digits(word: u64) -> u64 {
    let digits = word ^ (ONES * b'0' as u64);
    (digits.wrapping_add(ONES * 0x76) | digits) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_told_in_every_place() {
        for byte in 0..=255_u8 {
            for place in 0..64 {
                let mut bytes = [b'a'; 64];
                bytes[place] = byte;
                let special = byte == b'"' || byte == b'\\' || byte < 0x20;
                let (mask, high) = specials(&bytes);
                assert_eq!(mask, u64::from(special) << place, "{byte} at {place}");
                assert_eq!(high != 0, byte >= 0x80, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn neighbours_do_not_blur_each_other() {
        let mut bytes = [0; 64];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = [b'"', 0, b'#', b'!', 0x80, b'\\', 0x21, 0x1f, 0xa2, b' ', 0xff][place % 11];
        }
        let expected = (0..64)
            .filter(|place| [0, 1, 5, 7].contains(&(place % 11)))
            .fold(0, |mask, place| mask | 1_u64 << place);
        assert_eq!(specials(&bytes).0, expected);
    }

    #[test]
    fn digits_end_at_the_first_other_byte() {
        for byte in 0..=255_u8 {
            for place in 0..8 {
                let mut bytes = *b"09182736";
                bytes[place] = byte;
                let found = non_digits(u64::from_le_bytes(bytes));
                if byte.is_ascii_digit() {
                    assert_eq!(found, 0);
                } else {
                    assert_eq!(found.trailing_zeros() as usize / 8, place, "{byte} at {place}");
                }
            }
        }
    }
}
