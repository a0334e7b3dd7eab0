//! Rows 1, 2, 3, 14, 19, 21: who owns what afterwards.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use jail_fs::{
    Artifact, ErrorKind, Fallback, Owner, StagedTree, Strategy, ensure_char_device, persistent,
    private, read_only, write,
};
use nix::sys::stat::{Mode, umask};
use rustix::fs::{XattrFlags, setxattr};

use crate::support::{as_jail_user, jail_user, list, name, on_each_fs, owner_and_mode, plain};
use crate::sys::Child;

/// The 0.4 API walked the tree and changed the owner of link targets.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_01_links_are_not_chowned() {
    on_each_fs("row_01_links_are_not_chowned", |scene| {
        let jail = scene.jail("one");
        let (root, host) = (jail.path.clone(), scene.host());
        assert!(as_jail_user(|| {
            ["kvm", "disk", "file"]
                .iter()
                .all(|link| symlink(host.join("secret"), root.join(link)).is_ok())
                && symlink(host.join("dir"), root.join("dir")).is_ok()
                && symlink("/", root.join("up")).is_ok()
        }));
        let source = scene.source("disk", "x");
        let owner = jail_user();
        for taken in [
            ensure_char_device(&jail.dir, &name("kvm"), 10, 232, owner, 0o600).map(drop),
            private(&source, &jail.dir, &name("disk"), owner, &plain()).map(drop),
            persistent(&source, &jail.dir, &name("disk"), Some(owner), &plain()).map(drop),
            write(&jail.dir, &name("file"), b"x", owner, 0o600).map(drop),
            private(&source, &jail.dir, &name("dir"), owner, &plain()).map(drop),
        ] {
            let error = taken.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Untrusted),
                "{error:?}"
            );
        }
    });
}

/// The 0.4 API linked the golden image and then changed the owner.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_02_shared_image_stays_roots() {
    on_each_fs("row_02_shared_image_stays_roots", |scene| {
        let jail = scene.jail("one");
        let image = scene.source("vmlinux", "golden");
        let receipt =
            read_only(&image, &jail.dir, &name("vmlinux"), jail_user(), &plain()).unwrap();
        assert_eq!((receipt.strategy, receipt.fallback), (Strategy::HardLink, None));
        assert_eq!(owner_and_mode(image.path()), (0, 0, 0o644));
        let staged = jail.path.join("vmlinux");
        assert!(
            as_jail_user(|| fs::read(&staged).is_ok_and(|bytes| bytes == b"golden")),
            "it reads"
        );
        assert!(
            !as_jail_user(|| File::options().write(true).open(&staged).is_ok()),
            "it never writes"
        );
        assert!(!as_jail_user(
            || fs::set_permissions(&staged, Permissions::from_mode(0o666)).is_ok()
        ));

        // What is not fit to be shared is copied, and neither changes.
        for (mode, uid, fallback) in [
            (0o664, 0, Fallback::WritableByOthers),
            (0o646, 0, Fallback::WritableByOthers),
            (0o600, 0, Fallback::NotReadable),
            (0o644, 1, Fallback::NotRoots),
            (0o4755, 0, Fallback::Privileged),
        ] {
            std::os::unix::fs::chown(image.path(), Some(uid), None).unwrap();
            fs::set_permissions(image.path(), Permissions::from_mode(mode)).unwrap();
            let again = Artifact::open(image.path()).unwrap();
            let copy = name(&format!("copy-{mode:o}-{uid}"));
            let receipt = read_only(&again, &jail.dir, &copy, jail_user(), &plain()).unwrap();
            assert_eq!(receipt.fallback, Some(fallback));
            assert_ne!(receipt.inode, again.stamp().inode);
            assert_eq!(owner_and_mode(image.path()), (uid, 0, mode));
            assert_eq!(owner_and_mode(&jail.path.join(&copy)), (0, jail_user().gid(), 0o440));
            let path = jail.path.join(&copy);
            assert!(as_jail_user(|| fs::read(&path).is_ok_and(|bytes| bytes == b"golden")));
            assert!(!as_jail_user(
                || fs::set_permissions(&path, Permissions::from_mode(0o666)).is_ok()
            ));
        }
    });
}

/// A hard link to a host file, planted where root will change owners.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_03_planted_hard_link() {
    on_each_fs("row_03_planted_hard_link", |scene| {
        let jail = scene.jail("one");
        let secret = scene.host().join("secret");
        let owner = jail_user();
        let source = scene.source("disk", "x");
        for planted in ["kvm", "disk", "persistent"] {
            fs::hard_link(&secret, jail.path.join(planted)).unwrap();
        }
        // As the source of a disk that is to change owner, too.
        let planted = Artifact::open(&jail.path.join("disk")).unwrap();
        let error =
            persistent(&planted, &jail.dir, &name("mine"), Some(owner), &plain()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("4 names"), "{error}");
        for taken in [
            ensure_char_device(&jail.dir, &name("kvm"), 10, 232, owner, 0o600).map(drop),
            private(&source, &jail.dir, &name("disk"), owner, &plain()).map(drop),
            persistent(&source, &jail.dir, &name("persistent"), Some(owner), &plain()).map(drop),
        ] {
            taken.unwrap_err();
        }
        assert_eq!(owner_and_mode(&secret), (0, 0, 0o600));
        assert_eq!(
            owner_and_mode(source.path()),
            (0, 0, 0o644),
            "nor was the disk given away in vain"
        );
        assert_eq!(list(&jail.path), ["disk", "kvm", "persistent"]);
        for planted in ["kvm", "disk", "persistent"] {
            fs::remove_file(jail.path.join(planted)).unwrap();
        }
    });
}

#[test]
fn row_14_refuses_no_owner() {
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
        assert_eq!(Owner::new(uid, gid).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// Set-id bits, capabilities and ACLs of the source stay with the source.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_19_privileges_are_dropped() {
    on_each_fs("row_19_privileges_are_dropped", |scene| {
        let jail = scene.jail("one");
        let plain_source = scene.source("tool", "x");
        let path = plain_source.path();
        setxattr(path, "user.note", b"x", XattrFlags::empty()).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        setxattr(path, "security.capability", &capability(), XattrFlags::empty()).unwrap();
        let fallback = |staged: &str| {
            let source = Artifact::open(path).unwrap();
            let staged = name(staged);
            read_only(&source, &jail.dir, &staged, jail_user(), &plain()).unwrap().fallback
        };
        assert_eq!(fallback("capable"), Some(Fallback::Privileged));
        setxattr(path, "system.posix_acl_access", &acl(), XattrFlags::empty()).unwrap();
        assert_eq!(fallback("read-only"), Some(Fallback::WritableByOthers));
        fs::set_permissions(path, Permissions::from_mode(0o6777)).unwrap();
        let privileged = Artifact::open(path).unwrap();
        private(&privileged, &jail.dir, &name("private"), jail_user(), &plain()).unwrap();
        assert_eq!(
            owner_and_mode(&jail.path.join("private")),
            (jail_user().uid(), jail_user().gid(), 0o600)
        );
        assert_eq!(owner_and_mode(&jail.path.join("read-only")), (0, jail_user().gid(), 0o440));
        for staged in ["private", "read-only", "capable"] {
            let mut buffer = [0; 256];
            assert_eq!(
                rustix::fs::listxattr(jail.path.join(staged), &mut buffer).unwrap(),
                0,
                "{staged}"
            );
        }
    });
}

/// umask(2) is per process, so each mask has a process.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_21_umask_is_irrelevant() {
    on_each_fs("row_21_umask_is_irrelevant", |scene| {
        for mask in [0, 0o777] {
            let image = scene.source("image", "x");
            let id = format!("jail-{mask:o}");
            let base = scene.root().join(format!("base-{mask:o}/a/b"));
            let child = Child::spawn(Owner::ROOT, || {
                umask(Mode::from_bits_truncate(mask));
                let parent = jail_fs::TrustedDir::create(&base).unwrap();
                let tree = StagedTree::create(&parent, &name(&id)).unwrap();
                let staging = tree.path().to_owned();
                assert_eq!(owner_and_mode(&staging).2, 0o700);
                let root = tree.make_dir("root", jail_user(), 0o700).unwrap();
                tree.make_dir("root/dev", jail_user(), 0o755).unwrap();
                private(&image, &root, &name("private"), jail_user(), &plain()).unwrap();
                write(&root, &name("file"), b"x", jail_user(), 0o640).unwrap();
                ensure_char_device(&root, &name("null"), 1, 3, jail_user(), 0o660).unwrap();
                tree.publish().unwrap();
                true
            });
            assert!(child.succeeded());
            let mode = |path: &str| owner_and_mode(&base.join(&id).join(path)).2;
            assert_eq!(
                ["", "root", "root/dev", "root/private", "root/file", "root/null"].map(mode),
                [0o700, 0o700, 0o755, 0o600, 0o640, 0o660]
            );
            for above in [base.as_path(), base.parent().unwrap()] {
                assert_eq!(owner_and_mode(above), (0, 0, 0o755));
            }
        }
    });
}

/// A file belongs to the user from the first moment with a name: no moment with another owner or mode can be seen.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn no_file_is_half_owned() {
    on_each_fs("no_file_is_half_owned", |scene| {
        let jail = scene.jail("one");
        let path = jail.path.join("file");
        let watcher = Child::spawn(Owner::ROOT, || {
            let seen = |path: &Path| {
                fs::symlink_metadata(path)
                    .map(|meta| (meta.uid(), meta.mode() & 0o7777, meta.size()))
            };
            loop {
                match seen(&path) {
                    Ok((61_234, 0o600, 4)) | Err(_) => {}
                    Ok((_, _, 0)) => return true,
                    Ok(_) => return false,
                }
            }
        });
        for _ in 0..2_000 {
            write(&jail.dir, &name("file"), b"four", jail_user(), 0o600).unwrap();
            fs::remove_file(&path).unwrap();
        }
        // An empty one is the sign to stop.
        write(&jail.dir, &name("file"), b"", jail_user(), 0o600).unwrap();
        assert!(watcher.succeeded());
    });
}

/// `cap_net_raw=ep`, revision 2.
fn capability() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `user::rw-, user:61234:rw-, group::r--, mask::rw-, other::r--`.
fn acl() -> Vec<u8> {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    [
        2_u32.to_le_bytes().to_vec(),
        entry(0x01, 6, none),
        entry(0x02, 6, 61_234),
        entry(0x04, 4, none),
        entry(0x10, 6, none),
        entry(0x20, 4, none),
    ]
    .concat()
}
