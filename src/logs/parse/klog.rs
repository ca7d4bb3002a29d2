//! klog: `E1122 14:27:36.383012       1 reflector.go:147] message`, as Kubernetes components write.
//!
//! In: a line. Out: severity from the header, ids from pairs behind it. The header has no year and no zone, so it
//! gives no time. Source: k8s.io/klog, "Log line format".

use super::Format;
use super::pairs;
use super::pick::Picks;
use crate::data::batch::Fields;

pub(super) fn read<'a>(line: &'a [u8], picks: &mut Picks<'a>) -> bool {
    let Some((severity, rest)) = header(line) else { return false };
    picks.out.format = Format::Klog;
    if picks.want.intersects(Fields::LEVEL) {
        picks.take_level_word(severity);
    }
    pairs::offer_ids(rest, picks);
    true
}

/// The severity number of the header, and the text behind it.
fn header(line: &[u8]) -> Option<(u8, &[u8])> {
    let severity = match line.first()? {
        b'I' => 9,
        b'W' => 13,
        b'E' => 17,
        b'F' => 21,
        _ => return None,
    };
    // Lmmdd hh:mm:ss.uuuuuu
    const SHAPE: &[u8; 21] = b"L0000 00:00:00.000000";
    let head = line.get(..SHAPE.len())?;
    let shaped = head[1..].iter().zip(&SHAPE[1..]).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte == shape,
    });
    // file:line] within the next bytes.
    let bracket = line[SHAPE.len()..].iter().take(200).position(|byte| *byte == b']')?;
    shaped.then(|| (severity, &line[SHAPE.len() + bracket + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_gives_the_severity() {
        for (line, number) in [
            (&b"I1122 14:27:36.383012       1 main.go:42] started"[..], 9),
            (b"W1122 14:27:36.383012   12345 reflector.go:533] failed to list", 13),
            (b"E1122 14:27:36.383012       1 x.go:1] \"Unhandled\" err=\"boom\" level=info", 17),
            (b"F1122 14:27:36.383012       1 x.go:1] bye", 21),
        ] {
            assert_eq!(header(line).expect("klog").0, number);
        }
    }

    #[test]
    fn other_lines_are_not_klog() {
        for line in [
            &b"I1122 14:27:36.383012 no bracket"[..],
            b"E1122",
            b"Error: x]",
            b"I112a 14:27:36.383012 1 x.go:1] m",
        ] {
            assert!(header(line).is_none());
        }
    }
}
