//! Bandwidth to a block device is limited.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use jail_cgroup::{ByteSize, IoLimit, Leaf, Limit, Limits};
use testkit::{LoopDevice, Scratch};

use crate::support::{Actor, Ground, play};

const SIZE: u64 = 32 << 20;
const BLOCK: usize = 64 << 10;
const WINDOW: Duration = Duration::from_secs(2);

/// Writes to the device for a while, around the page cache, and says how many bytes a second it got.
pub(crate) fn write_for(device: &str) {
    let mut device =
        OpenOptions::new().write(true).custom_flags(nix::libc::O_DIRECT).open(device).unwrap();
    let buffer = vec![7_u8; BLOCK + 4096];
    // Aligned, as O_DIRECT wants it.
    let start = buffer.as_ptr().align_offset(4096);
    let block = &buffer[start..start + BLOCK];
    let (begun, mut written) = (Instant::now(), 0_u64);
    while begun.elapsed() < WINDOW {
        if written % SIZE == 0 {
            device.seek(SeekFrom::Start(0)).unwrap();
        }
        device.write_all(block).unwrap();
        written += u64::try_from(BLOCK).unwrap();
    }
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap();
    println!("\nrate {}", written * 1000 / millis);
}

fn rate(leaf: &Leaf, test: &str, device: &LoopDevice) -> u64 {
    let mut writer = Actor::in_leaf(leaf, test, &format!("write {}", device.path().display()));
    writer.go();
    let rate = writer.says("rate").parse().unwrap();
    assert_eq!(writer.wait(), Ok(0));
    rate
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn half_the_bandwidth_is_half() {
    play();
    const TEST: &str = "io::half_the_bandwidth_is_half";
    let scratch = Scratch::new("io");
    let backing = scratch.join("disk");
    File::create(&backing).unwrap().set_len(SIZE).unwrap();
    let Some(device) = LoopDevice::attach(&backing).unwrap() else {
        testkit::skip(TEST, "no loop driver");
        return;
    };
    let rdev = device.rdev();
    let limit = |bytes| {
        let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
        Limits::new().io(IoLimit::new(major, minor).write_bps(ByteSize::bytes(bytes)))
    };
    // The device may be faster than any limit is fine-grained: a first limit makes the rate that is to be halved.
    const FULL: u64 = 8 << 20;
    for ground in Ground::each(TEST, &limit(FULL)) {
        let free = rate(&ground.leaf("free", &Limits::new()), TEST, &device);
        let full = free.min(FULL);
        let half = full / 2;
        let mut rates = Vec::new();
        for (name, bytes) in [("full", full), ("half", half)] {
            let leaf = ground.leaf(name, &limit(bytes));
            let effective = leaf.effective().unwrap();
            let io = effective.iter().find(|effective| effective.limit == Limit::Io).unwrap();
            assert!(io.value.contains(&bytes.to_string()), "{io:?}");
            rates.push(rate(&leaf, TEST, &device));
            let io = leaf.stats().unwrap().io.unwrap();
            let minor = rustix::fs::minor(rdev);
            let stats = io.iter().find(|stats| (stats.major, stats.minor) == (7, minor)).unwrap();
            assert!(stats.written > ByteSize::mib(1) && stats.writes > 0, "{stats:?}");
        }
        println!("{TEST}: {}: {free} B/s free, {rates:?} at {full} and {half}", ground.version);
        let [at_full, at_half] = rates[..] else { panic!() };
        assert!(at_full <= full + full / 10, "{at_full} of {full}");
        assert!(at_half <= half + half / 10, "{at_half} of {half}");
        // And the limit is all that holds it back.
        assert!(at_half >= half * 7 / 10, "{at_half} of {half}");
    }
}
