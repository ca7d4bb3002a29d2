//! Compressed logs: any bytes as a gzip file.
//!
//! In: the file, and a last byte that says how: as it stands, or compressed here first and then damaged in one place. Properties:
//! reading in any pieces gives the same content; reading again from any offset gives what stands there; the content of an
//! undamaged file is the original's; damage leaves a prefix that flate2 reads as well.

use std::io::{Read, Write};

use nodewick::logs::gz::Inflate;

/// Content that is looked at: a small file can hold a thousand times its size.
const LOOK: usize = 1 << 20;

pub(super) fn run(data: &[u8]) {
    let Some((text, [how, place, damage])) = super::split_control::<3>(data) else { return };
    let mut file = text.to_vec();
    let compressed_here = how & 1 == 1;
    if compressed_here {
        let mut encoder =
            flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(u32::from(how >> 4) % 10));
        encoder.write_all(text).expect("to memory");
        file = encoder.finish().expect("to memory");
        let at = usize::from(place) * file.len() / 256;
        file[at] ^= damage;
    }
    let mut expected = Vec::new();
    let mut piece = [0; 4096];
    let mut decoder = flate2::read::GzDecoder::new(file.as_slice());
    let mut whole = false;
    while expected.len() < LOOK {
        match decoder.read(&mut piece) {
            Ok(0) => {
                whole = true;
                break;
            }
            Ok(got) => expected.extend_from_slice(&piece[..got]),
            Err(_) => break,
        }
    }
    if compressed_here && damage == 0 {
        assert!(whole && expected == text);
    }

    let Some(inflate) = open(&file) else {
        assert!(file.len() < 18, "a file of gzip's least length opens");
        return;
    };
    let step = 1 + usize::from(place) * 37;
    let mut content = Vec::new();
    loop {
        let before = content.len();
        let got = inflate.read_at(before as u64, step, &mut content);
        assert_eq!(content.len(), before + got);
        assert!(got <= step);
        if got == 0 || content.len() >= LOOK {
            break;
        }
    }
    if content.len() < LOOK {
        assert_eq!(inflate.stat().size, content.len() as u64, "the size at the end is what was found");
    }
    let common = content.len().min(expected.len());
    assert_eq!(content[..common], expected[..common], "not what flate2 reads");
    if whole && content.len() < LOOK {
        assert_eq!(content.len(), expected.len(), "an intact file is read to its end");
    }
    // Back, and beyond the end.
    let from = content.len() * usize::from(damage) / 256;
    let mut again = Vec::new();
    let got = inflate.read_at(from as u64, step, &mut again);
    assert_eq!(again, content[from..(from + got).min(content.len())]);
    assert!(got == step.min(content.len() - from) || content.len() >= LOOK);
    if content.len() < LOOK {
        assert_eq!(inflate.read_at(content.len() as u64 + u64::from(how), step, &mut again), 0);
    }
}

fn open(bytes: &[u8]) -> Option<Inflate> {
    let mut file = tempfile::tempfile_in("/dev/shm")
        .or_else(|_| tempfile::tempfile())
        .expect("a place for temporary files");
    file.write_all(bytes).expect("writes");
    Inflate::new(file.into()).ok()
}
