//! Rows 5, 6, 7, 12: the place of what is staged is taken.

use std::fs::{self, hard_link};
use std::os::unix::fs::symlink;

use jail_fs::{Access, Artifact, ErrorKind, Result, block_device, private, read_only, write};

use crate::support::{Scene, jail_user, list, loop_device, name, on_each_fs, plain};

/// Every verb that creates `taken` in a jail's root, on a place that is not free.
fn refuses_all(scene: &Scene, plant: impl Fn(&std::path::Path)) {
    let jail = scene.jail("one");
    let taken = name("taken");
    let planted = jail.path.join("taken");
    plant(&planted);
    let shared = scene.source("shared", "new content");
    let other = scene.source("other", "new content");
    fs::set_permissions(other.path(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let other = Artifact::open(other.path()).unwrap();
    let backing = scene.dir("images").join("backing");
    fs::File::create(&backing).unwrap().set_len(1 << 20).unwrap();
    let device = loop_device(&backing);
    let device = Artifact::open(device.path()).unwrap();
    let owner = jail_user();
    let verbs: [(&str, Result<()>); 6] = [
        ("hard link", read_only(&shared, &jail.dir, &taken, owner, &plain()).map(drop)),
        ("read-only copy", read_only(&other, &jail.dir, &taken, owner, &plain()).map(drop)),
        ("private", private(&shared, &jail.dir, &taken, owner, &plain()).map(drop)),
        (
            "persistent",
            jail_fs::persistent(&shared, &jail.dir, &taken, Some(owner), &plain()).map(drop),
        ),
        (
            "block device",
            block_device(&device, &jail.dir, &taken, owner, Access::ReadWrite).map(drop),
        ),
        ("write", write(&jail.dir, &taken, b"new content", owner, 0o600).map(drop)),
    ];
    for (verb, result) in verbs {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{verb}: {error:?}");
        assert_eq!(error.path(), planted, "{verb}");
    }
    assert_eq!(list(&jail.path), ["taken"], "nothing is left");
    fs::remove_file(planted).unwrap();
}

/// CVE-2026-1386: a link to a host file at the destination, followed by root.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_05_destination_link() {
    on_each_fs("row_05_destination_link", |scene| {
        refuses_all(scene, |planted| symlink(scene.host().join("secret"), planted).unwrap());
    });
}

/// cap-std's copy opened the destination with truncate: the host file was emptied.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_06_destination_hard_link() {
    on_each_fs("row_06_destination_hard_link", |scene| {
        refuses_all(scene, |planted| hard_link(scene.host().join("secret"), planted).unwrap());
    });
}

/// `File::create` makes what the link names.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_07_dangling_link() {
    on_each_fs("row_07_dangling_link", |scene| {
        refuses_all(scene, |planted| symlink(scene.host().join("new"), planted).unwrap());
        assert!(!scene.host().join("new").exists());
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_12_names_are_unique() {
    on_each_fs("row_12_names_are_unique", |scene| {
        let jail = scene.jail("one");
        let source = scene.source("drive", "first");
        private(&source, &jail.dir, &name("drive"), jail_user(), &plain()).unwrap();
        let other = scene.source("other", "second");
        let error = private(&other, &jail.dir, &name("drive"), jail_user(), &plain()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(jail.path.join("drive")).unwrap(), "first");
    });
}
