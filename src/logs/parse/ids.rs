//! Trace and span ids in every form that loggers write.
//!
//! In: the text of a value. Out: a validated id, or nothing. Invariant: junk, all zeros and wrong lengths are no id.

use crate::data::trace::{SpanId, TraceId};

const ONES: u64 = 0x0101_0101_0101_0101;

/// Eight hex digits as a number: all bytes at once.
#[inline]
fn hex_u32(text: &[u8; 8]) -> Option<u32> {
    let word = u64::from_le_bytes(*text);
    // 1 in the byte of each letter; letters become lower case.
    let letters = word >> 6 & ONES;
    let lower = word | letters << 5;
    let nibbles = (word & (ONES * 0x0f)).wrapping_add(letters * 9);
    let classes = (lower & (ONES * 0xf0)) ^ (ONES * 0x30).wrapping_add(letters * 0x30);
    // Digits stay below ten, letters lie in ten to fifteen.
    let range = (nibbles.wrapping_add(ONES * 6) & (ONES * 0x10)) ^ (letters << 4);
    if classes | range | (nibbles & (ONES * 0x10)) != 0 {
        return None;
    }
    let pairs = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs << 8 | pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some((quads << 16 | quads >> 32) as u32)
}

#[inline]
fn hex_u64(text: &[u8]) -> Option<u64> {
    let (high, low) = text.split_first_chunk::<8>()?;
    let low: &[u8; 8] = low.try_into().ok()?;
    Some(u64::from(hex_u32(high)?) << 32 | u64::from(hex_u32(low)?))
}

/// 32 hex digits.
#[inline]
pub(super) fn trace_hex(text: &[u8]) -> Option<TraceId> {
    if text.len() != 32 {
        return None;
    }
    let (high, low) = text.split_at(16);
    TraceId::new(u128::from(hex_u64(high)?) << 64 | u128::from(hex_u64(low)?))
}

/// 16 hex digits.
#[inline]
pub(super) fn span_hex(text: &[u8]) -> Option<SpanId> {
    SpanId::new(hex_u64(text)?)
}

/// Two hex digits of W3C trace flags; `1` alone is accepted.
pub(super) fn flags_hex(text: &[u8]) -> Option<u8> {
    let nibble = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    match text {
        [low] => nibble(low),
        [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
        _ => None,
    }
}

/// `00-<trace>-<parent>-<flags>`. Source: W3C Trace Context, "traceparent Header".
pub(super) fn traceparent(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let version = flags_hex(text.get(..2)?)?;
    // Version ff is invalid; later versions may add fields behind a dash.
    let shaped = text.len() == 55 || (text.len() > 55 && version > 0 && text[55] == b'-');
    if version == 0xff || !shaped || text[2] != b'-' || text[35] != b'-' || text[52] != b'-' {
        return None;
    }
    Some((trace_hex(&text[3..35])?, span_hex(&text[36..52])?, flags_hex(&text[53..55])?))
}

/// `projects/<project>/traces/<id>`, or the bare id. Source: Google Cloud Logging, "Structured logging".
pub(super) fn trace_gcp(text: &[u8]) -> Option<TraceId> {
    let id = match text.iter().rposition(|byte| *byte == b'/') {
        Some(slash) if text.starts_with(b"projects/") && text[..slash].ends_with(b"/traces") => {
            &text[slash + 1..]
        }
        Some(_) => return None,
        None => text,
    };
    trace_hex(id)
}

/// `1-<8 hex: seconds>-<24 hex>`, alone or as `Root=` of the header. Source: AWS X-Ray, "Tracing header".
pub(super) fn trace_xray(text: &[u8]) -> Option<TraceId> {
    let root = text
        .split(|byte| *byte == b';')
        .map(|part| part.trim_ascii())
        .find_map(|part| part.strip_prefix(b"Root="));
    let (version, rest) = root.unwrap_or(text).split_first_chunk::<2>()?;
    if version != b"1-" || rest.len() != 33 || rest[8] != b'-' {
        return None;
    }
    let mut hex = [0; 32];
    hex[..8].copy_from_slice(&rest[..8]);
    hex[8..].copy_from_slice(&rest[9..]);
    trace_hex(&hex)
}

/// 16 or 32 hex digits; a 64-bit id is padded on the left. Source: openzipkin/b3-propagation, "TraceId".
pub(super) fn trace_b3(text: &[u8]) -> Option<TraceId> {
    match text.len() {
        16 => TraceId::new(u128::from(hex_u64(text)?)),
        _ => trace_hex(text),
    }
}

/// A decimal 64-bit number, the low half of the id, or all 128 bits as 32 hex digits.
/// Source: Datadog, "Correlating logs and traces" (`DD_TRACE_128_BIT_TRACEID_LOGGING_ENABLED`).
pub(super) fn trace_datadog(text: &[u8]) -> Option<TraceId> {
    match text.len() {
        32 => trace_hex(text),
        _ => TraceId::new(u128::from(decimal_u64(text)?)),
    }
}

/// A decimal 64-bit number.
pub(super) fn span_datadog(text: &[u8]) -> Option<SpanId> {
    SpanId::new(decimal_u64(text)?)
}

fn decimal_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { value.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(id: Option<TraceId>) -> String {
        id.map(|id| id.to_string()).unwrap_or_default()
    }

    #[test]
    fn hex_is_read_as_the_plain_reader_reads_it() {
        for byte in 0..=255_u8 {
            for place in 0..16 {
                let mut text = *b"0af7651916cd43dd";
                text[place] = byte;
                assert_eq!(span_hex(&text), SpanId::from_hex(&text), "{byte} at {place}");
            }
        }
        assert_eq!(
            trace_hex(b"0AF7651916cd43dd8448eb211c80319C"),
            TraceId::new(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c)
        );
        assert_eq!(trace_hex(&[b'0'; 32]), None);
        assert_eq!(trace_hex(b"0af7651916cd43dd"), None);
    }

    #[test]
    fn traceparent_gives_trace_parent_and_flags() {
        let (trace, span, flags) =
            traceparent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").expect("valid");
        assert_eq!(trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span.to_string(), "b7ad6b7169203331");
        assert_eq!(flags, 1);
        assert!(traceparent(b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what").is_some());
        for bad in [
            &b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"[..],
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            b"",
        ] {
            assert_eq!(traceparent(bad), None);
        }
    }

    #[test]
    fn foreign_systems_ids_become_w3c_ids() {
        assert_eq!(
            hex(trace_gcp(b"projects/my-p/traces/06796866738c859f2f19b7cfb3214824")),
            "06796866738c859f2f19b7cfb3214824"
        );
        assert_eq!(hex(trace_gcp(b"06796866738c859f2f19b7cfb3214824")), "06796866738c859f2f19b7cfb3214824");
        assert_eq!(trace_gcp(b"folders/x/06796866738c859f2f19b7cfb3214824"), None);
        assert_eq!(
            hex(trace_xray(b"1-5759e988-bd862e3fe1be46a994272793")),
            "5759e988bd862e3fe1be46a994272793"
        );
        assert_eq!(
            hex(trace_xray(b"Self=1-x; Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1")),
            "5759e988bd862e3fe1be46a994272793"
        );
        assert_eq!(trace_xray(b"2-5759e988-bd862e3fe1be46a994272793"), None);
        assert_eq!(hex(trace_b3(b"463ac35c9f6413ad")), "0000000000000000463ac35c9f6413ad");
        assert_eq!(hex(trace_datadog(b"5060571933882717101")), "0000000000000000463ac35c9f6413ad");
        assert_eq!(
            hex(trace_datadog(b"6550a1b700000000463ac35c9f6413ad")),
            "6550a1b700000000463ac35c9f6413ad"
        );
        for bad in [&b"0"[..], b"18446744073709551616", b"-1", b"1.5", b"abc", b""] {
            assert_eq!(trace_datadog(bad), None);
        }
    }
}
