//! Bandwidth to a block device is limited, and so are operations.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use jail_cgroup::{ByteSize, IoLimit, IoStats, Leaf, Limit, Limits};
use testkit::{LoopDevice, Scratch};

use crate::support::{Actor, Ground, play};

const SIZE: u64 = 32 << 20;
const BLOCK: usize = 64 << 10;
const SMALL_BLOCK: usize = 4 << 10;
const WINDOW: Duration = Duration::from_secs(2);

/// Writes to the device for a while, without the page cache, and prints the bytes per second.
pub(crate) fn write_for(device: &str, block: usize) {
    let mut device =
        OpenOptions::new().write(true).custom_flags(nix::libc::O_DIRECT).open(device).unwrap();
    let buffer = vec![7_u8; block + 4096];
    // Aligned, as O_DIRECT wants it.
    let start = buffer.as_ptr().align_offset(4096);
    let bytes = &buffer[start..start + block];
    let (begun, mut written) = (Instant::now(), 0_u64);
    while begun.elapsed() < WINDOW {
        if written % SIZE == 0 {
            device.seek(SeekFrom::Start(0)).unwrap();
        }
        device.write_all(bytes).unwrap();
        written += u64::try_from(block).unwrap();
    }
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap();
    println!("\nrate {}", written * 1000 / millis);
}

/// Measures the bytes per second that a process in the leaf writes, `block` at a time.
fn rate(leaf: &Leaf, test: &str, device: &LoopDevice, block: usize) -> u64 {
    let role = format!("write {} {block}", device.path().display());
    let mut writer = Actor::in_leaf(leaf, test, &role);
    writer.go();
    let rate = writer.says("rate").parse().unwrap();
    assert_eq!(writer.wait(), Ok(0));
    rate
}

/// A loop device on a file in the scratch directory; where there are none, the test is skipped.
pub(crate) fn disk(scratch: &Scratch, test: &str) -> Option<LoopDevice> {
    let backing = scratch.join("disk");
    File::create(&backing).unwrap().set_len(SIZE).unwrap();
    let device = LoopDevice::attach(&backing).unwrap();
    if device.is_none() {
        testkit::skip(test, "no loop driver");
    }
    device
}

fn numbers(device: &LoopDevice) -> (u32, u32) {
    let rdev = device.rdev();
    (rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

pub(crate) fn whole(device: &LoopDevice) -> IoLimit {
    let (major, minor) = numbers(device);
    IoLimit::new(major, minor)
}

/// Reads the leaf's statistics of the device.
fn stats(leaf: &Leaf, device: &LoopDevice) -> IoStats {
    let io = leaf.stats().unwrap().io.unwrap();
    *io.iter().find(|stats| (stats.major, stats.minor) == numbers(device)).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn bandwidth_is_limited() {
    play();
    const TEST: &str = "io::bandwidth_is_limited";
    let scratch = Scratch::new("io");
    let Some(device) = disk(&scratch, TEST) else { return };
    let limit = |bytes| Limits::new().io(whole(&device).write_bps(ByteSize::bytes(bytes)));
    // The device may be faster than any limit is fine-grained: a first limit makes the rate that is to be halved.
    const FULL: u64 = 8 << 20;
    for ground in Ground::each(TEST, &limit(FULL)) {
        let free = rate(&ground.leaf("free", &Limits::new()), TEST, &device, BLOCK);
        let full = free.min(FULL);
        let half = full / 2;
        let mut rates = Vec::new();
        for (name, bytes) in [("full", full), ("half", half)] {
            let leaf = ground.leaf(name, &limit(bytes));
            let effective = leaf.effective().unwrap();
            let io = effective.iter().find(|effective| effective.limit == Limit::Io).unwrap();
            assert!(io.value.contains(&bytes.to_string()), "{io:?}");
            rates.push(rate(&leaf, TEST, &device, BLOCK));
            let stats = stats(&leaf, &device);
            assert!(stats.written > ByteSize::mib(1) && stats.writes > 0, "{stats:?}");
        }
        println!("{TEST}: {}: {free} B/s free, {rates:?} at {full} and {half}", ground.version);
        let [at_full, at_half] = rates[..] else { panic!() };
        assert!(at_full <= full + full / 10, "{at_full} of {full}");
        assert!(at_half <= half + half / 10, "{at_half} of {half}");
        // A limit of less would be another limit; a busy host may give less than the limit.
        assert!(at_half >= half / 10, "{at_half} of {half}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn operations_are_limited() {
    play();
    const TEST: &str = "io::operations_are_limited";
    const MOST: u64 = 50;
    let scratch = Scratch::new("iops");
    let Some(device) = disk(&scratch, TEST) else { return };
    let limits = Limits::new().io(whole(&device).write_iops(MOST));
    for ground in Ground::each(TEST, &limits) {
        let operations = |bytes| bytes / u64::try_from(SMALL_BLOCK).unwrap();
        let free =
            operations(rate(&ground.leaf("free", &Limits::new()), TEST, &device, SMALL_BLOCK));
        let leaf = ground.leaf("leaf", &limits);
        let effective = leaf.effective().unwrap();
        let io = effective.iter().find(|effective| effective.limit == Limit::Io).unwrap();
        assert!(io.value.contains(&MOST.to_string()), "{io:?}");
        let limited = operations(rate(&leaf, TEST, &device, SMALL_BLOCK));
        println!("{TEST}: {}: {free} a second free, {limited} of {MOST}", ground.version);
        assert!(free > MOST * 2, "unlimited it got {free}: this shows nothing");
        assert!(limited <= MOST + MOST / 10, "{limited} of {MOST}");
        assert!(limited >= MOST / 10, "{limited} of {MOST}");
        assert!(stats(&leaf, &device).writes >= MOST);
    }
}
