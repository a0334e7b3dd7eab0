//! Ladders and receipts: nothing is copied that need not be, and a copy that fails leaves nothing.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jail_fs::{Artifact, CopyOptions, ErrorKind, Fallback, Progress, Strategy, private, read_only};
use testkit::{FsKind, Tmpfs};

use crate::support::{
    Fault, allocated, has_strace, jail_user, list, name, on, on_each_fs, plain, sparse,
};

const MIB: u64 = 1 << 20;

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn private_copies_share_blocks() {
    on_each_fs("private_copies_share_blocks", |scene| {
        let jail = scene.jail("one");
        let path = scene.dir("images").join("disk");
        // Data at the start, in the middle and at the end; holes, one of them at an odd place.
        sparse(
            &path,
            200 * MIB + 123,
            &[9; 70_000],
            &[0, 64 * MIB, 150 * MIB + 1, 200 * MIB + 123 - 70_000],
        );
        let source = Artifact::open(&path).unwrap();
        let receipt = private(&source, &jail.dir, &name("disk"), jail_user(), &plain()).unwrap();
        let staged = jail.path.join("disk");
        if scene.kind().reflinks() {
            assert_eq!(
                (receipt.strategy, receipt.fallback, receipt.bytes_copied),
                (Strategy::Reflink, None, 0)
            );
        } else {
            assert_eq!(
                (receipt.strategy, receipt.fallback),
                (Strategy::SparseCopy, Some(Fallback::NotSupported))
            );
            assert!((280_000..=2 * MIB).contains(&receipt.bytes_copied), "{receipt:?}");
            assert!(allocated(&staged) <= 2 * MIB, "{}", allocated(&staged));
        }
        assert_eq!(receipt.inode.ino(), fs::metadata(&staged).unwrap().ino());
        assert_eq!(receipt.source, source.stamp());
        same_content(&path, &staged);
        // It is the jail's own from here on.
        File::options().write(true).open(&staged).unwrap().write_all_at(b"mine", 0).unwrap();
        let mut head = [0; 4];
        File::open(&path).unwrap().read_exact_at(&mut head, 0).unwrap();
        assert_eq!(head, [9; 4]);
    });
}

fn same_content(one: &Path, other: &Path) {
    let (one, other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let size = one.metadata().unwrap().len();
    assert_eq!(size, other.metadata().unwrap().len());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < size {
        let length = usize::try_from((size - at).min(MIB)).unwrap();
        one.read_exact_at(&mut left[..length], at).unwrap();
        other.read_exact_at(&mut right[..length], at).unwrap();
        assert!(left[..length] == right[..length], "they differ after {at}");
        at += MIB;
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn holes_survive_across_filesystems() {
    on_each_fs("holes_survive_across_filesystems", |scene| {
        let jail = scene.jail("one");
        let elsewhere = scene.dir("elsewhere");
        let _tmpfs = Tmpfs::mount(&elsewhere, "mode=0755");
        let path = elsewhere.join("disk");
        sparse(&path, 300 * MIB, &[9; 70_000], &[0, 64 * MIB, 299 * MIB]);
        // Zeroes that are written.
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&vec![0; 8 << 20], 100 * MIB)
            .unwrap();
        let source = Artifact::open(&path).unwrap();
        let receipt = private(&source, &jail.dir, &name("disk"), jail_user(), &plain()).unwrap();
        assert_eq!(
            (receipt.strategy, receipt.fallback),
            (Strategy::SparseCopy, Some(Fallback::OtherFilesystem))
        );
        assert!(receipt.bytes_copied < 2 * MIB, "{receipt:?}");
        same_content(&path, &jail.path.join("disk"));
        assert!(allocated(&jail.path.join("disk")) < 2 * MIB);
        // Shared is linked on one filesystem only.
        let receipt =
            read_only(&source, &jail.dir, &name("kernel"), jail_user(), &plain()).unwrap();
        assert_eq!(
            (receipt.strategy, receipt.fallback),
            (Strategy::SparseCopy, Some(Fallback::OtherFilesystem))
        );
        same_content(&path, &jail.path.join("kernel"));
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn empty_files_are_staged() {
    on_each_fs("empty_files_are_staged", |scene| {
        let jail = scene.jail("one");
        let holes = scene.dir("images").join("holes");
        sparse(&holes, 1 << 36, b"", &[]);
        for (source, size) in
            [(scene.source("empty", ""), 0), (Artifact::open(&holes).unwrap(), 1 << 36)]
        {
            let staged = name(source.path().file_name().unwrap().to_str().unwrap());
            let receipt = private(&source, &jail.dir, &staged, jail_user(), &plain()).unwrap();
            assert_eq!(receipt.bytes_copied, 0);
            let meta = fs::metadata(jail.path.join(&staged)).unwrap();
            assert_eq!((meta.len(), meta.blocks()), (size, 0));
        }
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn long_copies_can_be_cancelled() {
    on("long_copies_can_be_cancelled", FsKind::Ext4, |scene| {
        let jail = scene.jail("one");
        let source = scene.source("disk", vec![1; 70 << 20]);
        let seen = Mutex::new(Vec::new());
        let watch = |progress: Progress| {
            seen.lock().unwrap().push(progress);
            ControlFlow::Continue(())
        };
        let options = CopyOptions::new().fsync(true).watch(&watch);
        private(&source, &jail.dir, &name("disk"), jail_user(), &options).unwrap();
        let seen = seen.into_inner().unwrap();
        assert!(seen.len() >= 5, "{seen:?}");
        assert!(seen.is_sorted_by_key(|progress| progress.position));
        assert!(seen.windows(2).all(|pair| pair[1].position - pair[0].position <= 16 << 20));
        let last = seen.last().unwrap();
        assert_eq!((last.position, last.size, last.copied), (70 << 20, 70 << 20, 70 << 20));

        for stop in [0, 32 << 20] {
            let watch = |progress: Progress| match progress.position >= stop {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let options = CopyOptions::new().watch(&watch);
            let error =
                private(&source, &jail.dir, &name("stopped"), jail_user(), &options).unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::Cancelled, source.path()));
            assert!(error.to_string().contains(&format!("{stop} bytes were copied")), "{error}");
        }
        assert_eq!(list(&jail.path), ["disk"]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn full_disk_reports_progress() {
    on("full_disk_reports_progress", FsKind::Ext4, |scene| {
        let source = scene.source("disk", vec![1; 40 << 20]);
        let full = scene.dir("full");
        let _tmpfs = Tmpfs::mount(&full, "mode=0755,size=24m");
        let dir = jail_fs::TrustedDir::open(&full).unwrap();
        let room = free(&full);
        for _ in 0..3 {
            let error =
                private(&source, dir.dir(), &name("disk"), jail_user(), &plain()).unwrap_err();
            let place = full.join("disk");
            assert_eq!((error.kind(), error.path()), (ErrorKind::NoSpace, place.as_path()));
            let text = error.to_string();
            assert!(text.contains("of about 41943040 in a file of 41943040"), "{text}");
            let copied: u64 = text.split(' ').find_map(|word| word.parse().ok()).unwrap();
            assert!((20 << 20..=24 << 20).contains(&copied), "{text}");
            assert!(error.hint().is_some());
            assert_eq!(
                list(&full),
                [""; 0],
                "and nothing is left: the next has all the room again"
            );
            wait_for_room(&full, room);
        }
    });
}

/// A child that another test forks holds removed files open until an exec.
fn wait_for_room(filesystem: &Path, room: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while free(filesystem) < room {
        assert!(Instant::now() < deadline, "of {room} blocks {} are free", free(filesystem));
        std::thread::yield_now();
    }
}

fn free(filesystem: &Path) -> u64 {
    nix::sys::statvfs::statvfs(filesystem).unwrap().blocks_free()
}

/// ENOSPC, EDQUOT and EIO from each call that a copy makes.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn each_failing_copy_call_is_named() {
    let test = "each_failing_copy_call_is_named";
    if !has_strace(test) {
        return;
    }
    let faults = [
        ("pwrite64:error=EIO:when=3", ErrorKind::Io),
        ("pwrite64:error=EDQUOT:when=5", ErrorKind::NoSpace),
        ("pwrite64:error=ENOSPC:when=1", ErrorKind::NoSpace),
        ("fallocate:error=ENOSPC:when=4", ErrorKind::NoSpace),
        ("pread64:error=EIO:when=5", ErrorKind::Io),
        ("fsync:error=EIO:when=1", ErrorKind::Io),
        ("fsync:error=EIO:when=2", ErrorKind::Io),
        ("ftruncate:error=EFBIG", ErrorKind::Limit),
        ("fchown:error=EDQUOT", ErrorKind::NoSpace),
        ("linkat:error=EDQUOT", ErrorKind::NoSpace),
        ("openat2:error=EMFILE", ErrorKind::Limit),
        ("statx:error=EIO:when=2", ErrorKind::Io),
    ];
    on(test, FsKind::Ext4, |scene| {
        let jail = scene.jail("one");
        let elsewhere = scene.dir("elsewhere");
        let _tmpfs = Tmpfs::mount(&elsewhere, "mode=0755");
        let path = elsewhere.join("disk");
        sparse(&path, 20 * MIB, &vec![9; 4 << 20], &[0, 10 * MIB]);
        let source = Artifact::open(&path).unwrap();
        let options = CopyOptions::new().fsync(true);
        let stage = || private(&source, &jail.dir, &name("disk"), jail_user(), &options);
        for (inject, kind) in faults {
            let result = {
                let _fault = Fault::inject(inject);
                stage()
            };
            let error = result.expect_err(inject);
            println!("{inject}: {error}");
            assert_eq!(error.kind(), kind, "{inject}: {error:?}");
            assert!(std::error::Error::source(&error).is_some());
            assert!(
                error.path() == path || error.path().starts_with(&jail.path),
                "{inject}: {error}"
            );
            if inject.starts_with("pwrite64") {
                assert!(
                    error.to_string().contains("bytes were copied, of about 8388608"),
                    "{error}"
                );
            }
            assert_eq!(list(&jail.path), [""; 0], "{inject}: something is left");
        }
        stage().unwrap();
        assert_eq!(list(&jail.path), ["disk"]);
    });
}
