//! The `nodewick` command.
#![allow(clippy::print_stderr)]

mod cli;

use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One TLS implementation for everything; installing fails only if it already is.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::main()
}
