//! Tells glibc's allocator to give large blocks back to the system.
//!
//! In: a size. Out: blocks of at least that size are mapped by themselves, and unmapped when they are freed; so is the end of
//! the heap once as much of it is free. Left alone, glibc learns from the first large block that is freed to keep those to
//! come, up to 32 MiB each, in every thread's arena: docs/design/0007-allocator.md has what that cost. A crate of its own,
//! since the call is the one thing in nodewick that the compiler cannot check.

/// Gives blocks of `bytes` and more back when they are freed; false where the allocator does not take it, as any other than
/// glibc's. To be called before there are threads.
pub fn give_back_from(bytes: usize) -> bool {
    imp(bytes)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn imp(bytes: usize) -> bool {
    let Ok(bytes) = i32::try_from(bytes) else { return false };
    // SAFETY: mallopt takes two integers and touches nothing but the allocator's own parameters, under its lock.
    let set = |parameter| unsafe { libc::mallopt(parameter, bytes) } == 1;
    set(libc::M_MMAP_THRESHOLD) && set(libc::M_TRIM_THRESHOLD)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn imp(_bytes: usize) -> bool {
    false
}
