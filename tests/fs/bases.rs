//! Rows 8, 10, 20: where a jail may be, and what it may be called.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use jail_fs::{ErrorKind, Name, Owner, TrustedDir};
use nix::mount::MsFlags;
use rustix::fs::{XattrFlags, removexattr, setxattr};
use testkit::Tmpfs;

use crate::support::{as_jail_user, jail_user, name, on_each_fs, unmount};
use crate::sys::Child;

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_08_refuses_a_writable_base() {
    on_each_fs("row_08_refuses_a_writable_base", |scene| {
        let above = scene.dir("above");
        let base = scene.dir("above/base");
        let why = |path: &std::path::Path| {
            let error = TrustedDir::open(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
            (error.path().to_owned(), error.to_string())
        };
        TrustedDir::open(&base).unwrap();
        // The base itself, and an ancestor.
        for dir in [&above, &base] {
            for mode in [0o775, 0o757, 0o777, 0o2755] {
                fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
                assert_eq!(why(&base).0, *dir, "{mode:o}");
                let new = TrustedDir::create(&dir.join("new/er")).unwrap_err();
                assert_eq!((new.kind(), new.path()), (ErrorKind::Untrusted, dir.as_path()));
                assert!(!dir.join("new").exists(), "nothing is made in it");
            }
            fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
            chown(dir, Some(jail_user().uid()), None).unwrap();
            assert!(why(&base).1.contains("belongs to uid 61234"));
            chown(dir, Some(0), None).unwrap();
        }
        // Sticky and world-writable is fine for an ancestor, if it is root's and the next is too.
        fs::set_permissions(&above, Permissions::from_mode(0o1777)).unwrap();
        TrustedDir::open(&base).unwrap();
        assert_eq!(why(&above).0, above);
        let planted = above.join("planted");
        assert!(as_jail_user(|| fs::create_dir(&planted).is_ok()));
        assert_eq!(why(&planted).0, planted);
        chown(&above, Some(jail_user().uid()), None).unwrap();
        assert_eq!(why(&base).0, above, "the owner of a sticky directory may rename in it");
        chown(&above, Some(0), None).unwrap();
        // Links, in the middle and at the end, to what would be fine itself.
        fs::set_permissions(&above, Permissions::from_mode(0o755)).unwrap();
        symlink("base", above.join("link")).unwrap();
        symlink(&above, scene.root().join("link")).unwrap();
        for path in [above.join("link"), scene.root().join("link/base")] {
            assert!(why(&path).1.contains("it is a link to"));
        }
    });
}

/// Rule 5 for an unprivileged caller.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_08_accepts_the_callers_base() {
    on_each_fs("row_08_accepts_the_callers_base", |scene| {
        let shared = scene.dir("shared");
        fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
        let base = shared.join("mine");
        assert!(as_jail_user(|| {
            let base = TrustedDir::create(&base).unwrap();
            let tree = jail_fs::StagedTree::create(&base, &name("one")).unwrap();
            let root = tree.make_dir("root", Owner::caller(), 0o700).unwrap();
            jail_fs::write(&root, &name("file"), b"x", Owner::caller(), 0o600).unwrap();
            let published = tree.publish().unwrap();
            let id = published.dir.id();
            jail_fs::remove_tree(&base, &name("one"), Some(id)).unwrap().entries == 3
        }));
        // And root does not use his.
        assert_eq!(TrustedDir::open(&base).unwrap_err().kind(), ErrorKind::Untrusted);
        let other = Owner::new(61_235, 61_235).unwrap();
        assert!(
            Child::spawn(other, || TrustedDir::open(&base).is_err()).succeeded(),
            "nor does anyone else"
        );
        // Sticky helps an ancestor only if it is root's.
        chown(&shared, Some(jail_user().uid()), Some(jail_user().gid())).unwrap();
        assert!(as_jail_user(|| {
            let error = TrustedDir::open(&base).unwrap_err();
            error.kind() == ErrorKind::Untrusted && error.path() == shared
        }));
    });
}

#[test]
fn row_10_refuses_longer_names() {
    for bad in ["", ".", "..", "../x", "a/b", "/", "a\0", "\0", &"x".repeat(256)] {
        assert_eq!(Name::try_from(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
    }
}

/// Files in such a directory get another owner or mode than asked for.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_20_refuses_inheriting_bases() {
    on_each_fs("row_20_refuses_inheriting_bases", |scene| {
        let base = scene.dir("inheriting");
        let below = scene.dir("inheriting/below");
        fs::set_permissions(&base, Permissions::from_mode(0o2755)).unwrap();
        assert!(TrustedDir::open(&base).unwrap_err().to_string().contains("set-group-id"));
        assert!(TrustedDir::open(&below).unwrap_err().to_string().contains("set-group-id"));
        fs::set_permissions(&base, Permissions::from_mode(0o755)).unwrap();
        setxattr(&base, "system.posix_acl_default", &default_acl(), XattrFlags::empty()).unwrap();
        for path in [&base, &below] {
            let error = TrustedDir::open(path).unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::Untrusted, base.as_path()));
            assert!(error.to_string().contains("default ACL"));
        }
        removexattr(&base, "system.posix_acl_default").unwrap();
        TrustedDir::open(&below).unwrap();
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn mount_flags_are_reported() {
    on_each_fs("mount_flags_are_reported", |scene| {
        let plain = scene.base.mount_flags().unwrap();
        assert_eq!(
            (plain.read_only, plain.nodev, plain.noexec, plain.nosuid),
            (false, false, false, false)
        );
        let dir = scene.dir("tmpfs");
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID;
        let _mount = Tmpfs::mount_with(&dir, "mode=0755", flags);
        let flags = TrustedDir::open(&dir).unwrap().mount_flags().unwrap();
        assert_eq!(
            (flags.read_only, flags.nodev, flags.noexec, flags.nosuid),
            (false, true, true, true)
        );
    });
}

/// Right before the path goes into an argv: another directory, or another mount on top, is noticed.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn an_overmounted_base_is_noticed() {
    on_each_fs("an_overmounted_base_is_noticed", |scene| {
        scene.base.verify_path().unwrap();
        {
            let _over = Tmpfs::mount(scene.base.path(), "mode=0755");
            assert_eq!(scene.base.verify_path().unwrap_err().kind(), ErrorKind::Replaced);
        }
        // The very same directory, through another mount.
        let path = scene.base.path();
        nix::mount::mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let answer = scene.base.verify_path();
        unmount(path);
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Replaced);
        scene.base.verify_path().unwrap();
        // A child that is a mount point is none of ours.
        let child = scene.base.create_child(&name("fc")).unwrap();
        let _over = Tmpfs::mount(child.path(), "mode=0755");
        assert_eq!(scene.base.child(&name("fc")).unwrap_err().kind(), ErrorKind::Mounted);
    });
}

/// `user::rwx, user:61234:rwx, group::r-x, mask::rwx, other::r-x`.
fn default_acl() -> Vec<u8> {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    [
        2_u32.to_le_bytes().to_vec(),
        entry(0x01, 7, none),
        entry(0x02, 7, 61_234),
        entry(0x04, 5, none),
        entry(0x10, 7, none),
        entry(0x20, 5, none),
    ]
    .concat()
}
