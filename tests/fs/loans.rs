//! Row 56: a persistent file that is lent to a jail's uid belongs to its owner again after the jail.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};

use jail_fs::{
    ErrorKind, Receipt, lend_persistent, link_persistent, persistent, return_persistent,
};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::support::{
    Jail, Scene, as_jail_user, jail_user, list, name, on_each_fs, owner_and_mode, plain,
};

const ACL: &str = "system.posix_acl_access";

/// Lends `images/disk`, root's and 0640, to the jail's user.
fn lend(scene: &Scene, jail: &Jail) -> (Receipt, std::path::PathBuf) {
    let path = scene.source("disk", "data").path().to_owned();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let disk = jail_fs::Artifact::open(&path).unwrap();
    let receipt = persistent(&disk, &jail.dir, &name("disk"), Some(jail_user()), &plain()).unwrap();
    let loan = receipt.loan.as_ref().unwrap();
    assert_eq!((loan.owner.uid(), loan.mode, loan.path()), (0, 0o640, path.as_path()));
    assert_eq!(owner_and_mode(&path), (jail_user().uid(), jail_user().gid(), 0o640));
    (receipt, path)
}

/// An ACL that lets uid 61299 read and write.
fn acl() -> Vec<u8> {
    let entries =
        [(1, 6, u32::MAX), (2, 6, 61_299), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(perm));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_56_owner_gets_file_back() {
    on_each_fs("row_56_owner_gets_file_back", |scene| {
        let jail = scene.jail("one");
        let (receipt, path) = lend(scene, &jail);
        // Whatever its user made of it meanwhile.
        let staged = jail.path.join("disk");
        assert!(as_jail_user(|| {
            setxattr(&staged, ACL, &acl(), XattrFlags::empty()).unwrap();
            fs::set_permissions(&staged, Permissions::from_mode(0o4777)).is_ok()
        }));
        assert_eq!(owner_and_mode(&path).2, 0o4777);
        return_persistent(&jail.dir, &receipt).unwrap();
        assert_eq!(owner_and_mode(&path), (0, 0, 0o640));
        assert!(getxattr(&path, ACL, &mut [0; 64][..]).is_err());
        assert_eq!(list(&jail.path), [""; 0]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        return_persistent(&jail.dir, &receipt).unwrap();
        // And can be lent again, to anybody.
        let other = scene.jail("two");
        let disk = jail_fs::Artifact::open(&path).unwrap();
        persistent(&disk, &other.dir, &name("disk"), Some(jail_user()), &plain()).unwrap();
    });
}

/// A process that dies between the two calls leaves the file to its owner.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_91_linking_gives_nothing_away() {
    on_each_fs("row_91_linking_gives_nothing_away", |scene| {
        let jail = scene.jail("one");
        let path = scene.source("disk", "data").path().to_owned();
        let disk = jail_fs::Artifact::open(&path).unwrap();
        let (dir, file, user) = (&jail.dir, name("disk"), Some(jail_user()));
        let before = owner_and_mode(&path);
        let receipt = link_persistent(&disk, dir, &file, user, &plain()).unwrap();
        assert_eq!(owner_and_mode(&path), before);
        return_persistent(dir, &receipt).unwrap();
        assert_eq!((owner_and_mode(&path), list(&jail.path)), (before, vec![]));

        let receipt = link_persistent(&disk, dir, &file, user, &plain()).unwrap();
        // Checked again: another name, and a name that another file has.
        fs::hard_link(&path, path.with_file_name("second")).unwrap();
        assert_eq!(lend_persistent(dir, &receipt).unwrap_err().kind(), ErrorKind::Busy);
        fs::remove_file(path.with_file_name("second")).unwrap();
        fs::rename(jail.path.join("disk"), jail.path.join("aside")).unwrap();
        fs::write(jail.path.join("disk"), "other").unwrap();
        assert_eq!(lend_persistent(dir, &receipt).unwrap_err().kind(), ErrorKind::Replaced);
        assert_eq!(owner_and_mode(&path), before);
        fs::rename(jail.path.join("aside"), jail.path.join("disk")).unwrap();
        for _ in 0..2 {
            lend_persistent(dir, &receipt).unwrap();
            assert_eq!(owner_and_mode(&path).0, jail_user().uid());
        }
        return_persistent(dir, &receipt).unwrap();
        assert_eq!(owner_and_mode(&path), before);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_56_hidden_names_are_useless() {
    on_each_fs("row_56_hidden_names_are_useless", |scene| {
        type Hide = fn(&std::path::Path) -> bool;
        let hidings: [(&str, Hide); 4] = [
            ("moved", |disk| fs::rename(disk, disk.with_file_name("hidden")).is_ok()),
            ("removed", |disk| fs::remove_file(disk).is_ok()),
            ("replaced", |disk| {
                fs::remove_file(disk).is_ok() && fs::write(disk, "planted").is_ok()
            }),
            ("linked", |disk| {
                fs::remove_file(disk).is_ok()
                    && std::os::unix::fs::symlink("/etc/shadow", disk).is_ok()
            }),
        ];
        for (id, hide) in hidings {
            let jail = scene.jail(id);
            let (receipt, path) = lend(scene, &jail);
            let staged = jail.path.join("disk");
            assert!(as_jail_user(|| hide(&staged)), "{id}");
            let planted = list(&jail.path);
            return_persistent(&jail.dir, &receipt).unwrap();
            assert_eq!(owner_and_mode(&path), (0, 0, 0o640), "{id}");
            assert_eq!(list(&jail.path), planted, "{id}: only its own name is removed");
            jail_fs::remove_tree(&scene.base, &name(id), None).unwrap();
            fs::remove_file(&path).unwrap();
        }
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_56_lost_file_fails() {
    on_each_fs("row_56_lost_file_fails", |scene| {
        let jail = scene.jail("one");
        let (receipt, path) = lend(scene, &jail);
        fs::remove_file(jail.path.join("disk")).unwrap();
        fs::rename(&path, path.with_file_name("moved")).unwrap();
        let planted = scene.source("disk", "another").path().to_owned();
        chown(&planted, Some(jail_user().uid()), None).unwrap();
        let error = return_persistent(&jail.dir, &receipt).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Replaced, path.as_path()));
        assert!(error.hint().is_some());
        assert_eq!(owner_and_mode(&planted).0, jail_user().uid(), "another file is left alone");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_56_new_owner_stays() {
    on_each_fs("row_56_new_owner_stays", |scene| {
        let jail = scene.jail("one");
        let (receipt, path) = lend(scene, &jail);
        chown(&path, Some(7), Some(7)).unwrap();
        return_persistent(&jail.dir, &receipt).unwrap();
        assert_eq!(owner_and_mode(&path), (7, 7, 0o640));
        assert_eq!(list(&jail.path), [""; 0]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refuses_to_lend_with_acl() {
    on_each_fs("refuses_to_lend_with_acl", |scene| {
        let jail = scene.jail("one");
        let disk = scene.source("disk", "data");
        setxattr(disk.path(), ACL, &acl(), XattrFlags::empty()).unwrap();
        let error =
            persistent(&disk, &jail.dir, &name("disk"), Some(jail_user()), &plain()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains("an ACL"), "{error}");
        assert_eq!(owner_and_mode(disk.path()).0, 0);
    });
}
