//! The `nodewick` command.
#![allow(clippy::print_stderr)]

mod cli;

use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Blocks of this size and more go back to the system when they are freed: bodies of targets, large pages.
const LARGE_BLOCK: usize = 1 << 20;

fn main() -> ExitCode {
    // Where the allocator is another one it has its own ways.
    nodewick_mallopt::give_back_from(LARGE_BLOCK);
    // One TLS implementation for everything; installing fails only if it already is.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::main()
}
