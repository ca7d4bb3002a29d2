//! Compresses messages, and frames them where gRPC carries them.
//!
//! In: a protobuf message. Out: an HTTP body, or a gRPC frame with its header of flag and length. Invariant: the same
//! message always gives the same bytes.

use std::io::Write;

use flate2::write::GzEncoder;

use super::{Compression, Protocol, grpc};

/// Makes request bodies of messages.
pub struct Packer {
    protocol: Protocol,
    compression: Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer")
            .field("protocol", &self.protocol)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

impl Packer {
    /// A packer for one way of sending.
    pub fn new(protocol: Protocol, compression: Compression) -> Self {
        Self { protocol, compression, zstd: None }
    }

    /// Appends the body of `message` to `out`.
    pub fn pack(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        if self.protocol == Protocol::Grpc {
            out.extend_from_slice(&[u8::from(self.compression != Compression::None), 0, 0, 0, 0]);
        }
        self.compress(message, out);
        if self.protocol == Protocol::Grpc {
            let len =
                u32::try_from(out.len() - start - grpc::FRAME_HEADER).expect("requests stay far below 4 GiB");
            out[start + 1..start + grpc::FRAME_HEADER].copy_from_slice(&len.to_be_bytes());
        }
    }

    fn compress(&mut self, message: &[u8], out: &mut Vec<u8>) {
        match self.compression {
            Compression::None => out.extend_from_slice(message),
            Compression::Gzip => {
                // The fastest level: telemetry shrinks well at any, and the node's CPU is the scarcer good.
                let mut encoder = GzEncoder::new(out, flate2::Compression::fast());
                encoder
                    .write_all(message)
                    .and_then(|()| encoder.try_finish())
                    .expect("a Vec takes every write");
            }
            Compression::Zstd => {
                let compressor = self.zstd.get_or_insert_with(|| {
                    zstd::bulk::Compressor::new(1).expect("a zstd context of level 1 can be allocated")
                });
                let start = out.len();
                out.resize(start + zstd::zstd_safe::compress_bound(message.len()), 0);
                let written = compressor
                    .compress_to_buffer(message, &mut out[start..])
                    .expect("the bound holds every compressed message");
                out.truncate(start + written);
            }
        }
    }
}
