//! Numbers of variable length: seven bits a byte, the low ones first (LEB128), as protobuf and the agent's own files have
//! them.

/// Bytes of `value` as a varint.
#[inline]
pub const fn len(value: u64) -> usize {
    // 7 bits a byte; zero takes one.
    ((70 - (value | 1).leading_zeros()) / 7) as usize
}

/// Appends a varint.
#[inline]
pub fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint off the front of `rest`. `None` when it has no end there, or more than ten bytes.
#[inline]
pub fn read(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_and_has_the_length_that_was_said() {
        for (number, length) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            let mut out = Vec::new();
            write(&mut out, number);
            assert_eq!((out.len(), len(number)), (length, length), "{number}");
            out.push(9);
            let mut rest = out.as_slice();
            assert_eq!((read(&mut rest), rest), (Some(number), &[9][..]));
        }
        assert_eq!(read(&mut [0x80; 3].as_slice()), None);
        assert_eq!(read(&mut [0x80; 12].as_slice()), None);
    }
}
