//! Row 27: a tree of any depth and size goes, with a handful of descriptors and constant memory.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jail_fs::{TrustedDir, remove_tree};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use testkit::FsKind;

use crate::support::{Jail, Scene, long, name, on_sized};

/// Descriptors that a removal may open.
const DESCRIPTORS: u64 = 8;

/// The most memory that a removal may take, in bytes: less than a third of the names of 200 000 entries.
const MEMORY: u64 = 2 << 20;

/// Room for as many inodes as these trees have.
const SIZE: u64 = 4 << 30;

fn on_large(test: &str, attack: impl Fn(&Scene)) {
    for kind in FsKind::ALL {
        on_sized(test, kind, SIZE, &attack);
    }
}

/// Removes the tree in a separate process with limits: this very `test` again, whose heap is new and
/// has no room left over from anything.
fn remove_confined(test: &str, scene: &Scene, entries: u64) {
    let role = format!("{entries} {}", scene.base.path().display());
    let status = testkit::reenter(&format!("scale::{test}"), role).status().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(scene.entries(), [""; 0]);
}

/// The other end of [`remove_confined`]; false where this is the test itself.
fn is_remover() -> bool {
    let Some(role) = testkit::role() else { return false };
    let (entries, base) = role.split_once(' ').unwrap();
    let base = TrustedDir::open(Path::new(base)).unwrap();
    let open: Vec<u64> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    // One of those was the listing itself; the limit is on the number, not on how many are open.
    let limit = (0..)
        .filter(|fd| !open.contains(fd))
        .nth(usize::try_from(DESCRIPTORS).unwrap() - 1)
        .unwrap();
    let data: u64 = {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
        kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    confine(Resource::Data, data + MEMORY);
    confine(Resource::Nofile, limit);
    // The limits bite: so many files are open and no more, and no such allocation finds room in what is there already.
    let opened: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert_eq!(opened.len(), usize::try_from(DESCRIPTORS).unwrap());
    drop(opened);
    assert!(Vec::<u8>::new().try_reserve_exact(usize::try_from(MEMORY).unwrap() * 2).is_err());
    let removed = remove_tree(&base, &name("one"), None).unwrap().entries;
    assert_eq!(removed.to_string(), entries);
    true
}

fn confine(resource: Resource, limit: u64) {
    let Rlimit { maximum, .. } = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(limit), maximum }).unwrap();
}

fn dig(jail: &Jail, depth: u64, each: impl Fn(&OwnedFd, u64)) {
    let mut dir = jail.dir.as_fd().try_clone_to_owned().unwrap();
    for level in 0..depth {
        mkdirat(&dir, "d", Mode::S_IRWXU).unwrap();
        dir = openat(
            &dir,
            "d",
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .unwrap();
        each(&dir, level);
    }
}

/// std, cap-std and pathrs: EMFILE, for ever.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_27_deep_tree() {
    const NAME: &str = "row_27_deep_tree";
    if is_remover() {
        return;
    }
    on_large(NAME, |scene| {
        let depth = if long() { 100_000 } else { 60_000 };
        let jail = scene.jail("one");
        dig(&jail, depth, |_, _| {});
        remove_confined(NAME, scene, depth + 2);
    });
}

/// Files and siblings at every level, of names that the remover uses itself.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_27_bushy_tree() {
    const NAME: &str = "row_27_bushy_tree";
    if is_remover() {
        return;
    }
    on_large(NAME, |scene| {
        let jail = scene.jail("one");
        dig(&jail, 2_000, |dir, level| {
            let file = format!(".lifted-{level}");
            mkdirat(dir, file.as_str(), Mode::S_IRWXU).unwrap();
            let below =
                openat(dir, file.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                    .unwrap();
            mkdirat(&below, ".lifted-0", Mode::S_IRWXU).unwrap();
        });
        remove_confined(NAME, scene, 2_000 * 3 + 2);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_27_wide_tree() {
    const NAME: &str = "row_27_wide_tree";
    if is_remover() {
        return;
    }
    on_large(NAME, |scene| {
        let jail = scene.jail("one");
        let entries = 200_000_u64;
        let file = jail.path.join("first");
        fs::write(&file, "").unwrap();
        for entry in 1..entries {
            // Hard links, which need no inode each; now and then a directory with something in it.
            let path = jail.path.join(format!("{entry:0>32}"));
            match entry % 2_000 {
                0 => fs::create_dir_all(path.join("full")).unwrap(),
                n if n % 10 == 0 && fs::metadata(&file).unwrap().nlink() > 50_000 => {
                    File::create(&path).map(drop).unwrap()
                }
                n if n % 2 == 0 => {
                    fs::hard_link(&file, &path).or_else(|_| File::create(&path).map(drop)).unwrap()
                }
                _ => fs::create_dir(&path).unwrap(),
            }
        }
        remove_confined(NAME, scene, entries + (entries - 1) / 2_000 + 2);
    });
}
