//! Memory of large blocks, which `main` has the allocator give back.
//!
//! In: nothing. Out: what of freed blocks is still resident. A file of its own: the setting is the process's.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

#[test]
fn a_large_block_that_is_freed_is_no_longer_resident() {
    assert!(nodewick_mallopt::give_back_from(1 << 20));
    let before = resident_kib();
    // Left alone, glibc keeps blocks of this size from the first one on that is freed.
    for _ in 0..3 {
        let block = vec![1_u8; 16 << 20];
        assert!(resident_kib() >= before + (15 << 10), "{}", block.len());
        drop(block);
        assert!(resident_kib() < before + (2 << 10));
    }
}
