//! The emulator itself: what a device would answer with rubbish or silence ends the process here, with a message.

#![expect(
    clippy::disallowed_methods,
    reason = "a process that ends is watched from another one"
)]

use crate::emulator::{Buffer, Shape, in_every_order, launch, try_launch};
use rstest::rstest;
use std::{os::unix::process::ExitStatusExt, process::Command};

const BLOCK: Shape = Shape([1, 1, 1], 64, 128);
const LEN: u32 = 1 << 10;

/// Run by the test below, in a process of its own.
#[test]
#[ignore = "ends the process: a part of every_misuse_ends_the_process_with_a_message"]
fn one_misuse() {
    let kernel = std::env::var("MISUSED_KERNEL").expect("which one");
    let out = Buffer::new(&vec![0_u16; LEN as usize]);
    launch(&kernel, BLOCK, &[&out, &LEN]);
}

#[rstest]
#[case("probe_barrier_missed_by_some", "wait at a barrier, thread 7 has ended")]
#[case(
    "probe_warp_apart",
    "thread 9 is at __syncwarp, thread 0 of its warp at __shfl_xor_sync"
)]
#[case("probe_lane_gone", "thread 3 of its warp has ended")]
#[case("probe_crooked_access", "is not aligned to 16 bytes")]
#[case("probe_beyond_the_buffer", "outside of what was allocated")]
#[case("probe_beyond_the_array", "an index outside of its array")]
#[case("probe_beyond_shared_memory", "outside of what was allocated")]
#[case("probe_launch_too_small", "this launch leaves something out")]
fn every_misuse_ends_the_process_with_a_message(#[case] kernel: &str, #[case] message: &str) {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "misuse::one_misuse", "--ignored", "--nocapture"])
        .env("MISUSED_KERNEL", kernel)
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(message), "{said}");
    assert_eq!(output.status.signal(), Some(6), "{said}");
}

/// Without its barrier a kernel gives another result when its threads run in another order, and that is how one is found.
#[test]
#[should_panic(expected = "the order of threads changes nothing")]
fn a_missing_barrier_is_found() {
    in_every_order(|| {
        let out = Buffer::new(&[0_u32; 64]);
        launch("probe_race", BLOCK, &[&out]);
        out.to_vec()
    });
}

#[rstest]
#[case("no_such_kernel", BLOCK, 1)]
#[case("swiglu", Shape([1, 1, 1], 512, 0), 2)]
#[case("swiglu", Shape([1, 1, 1], 128, 0), 2)]
#[case("norm", Shape([1, 1, 1], 48, 0), 2)]
#[case("swiglu", Shape([1, 1, 1], 256, 228 << 10), 2)]
#[case("swiglu", Shape([1, 0, 1], 256, 0), 3)]
#[case("swiglu", Shape([1, 65_536, 1], 256, 0), 3)]
fn a_launch_that_the_driver_would_refuse_is_refused(#[case] kernel: &str, #[case] shape: Shape, #[case] status: i32) {
    assert_eq!(try_launch(kernel, shape, &[]), status);
}
