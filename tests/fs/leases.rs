//! Rows 45 and 55: a lease that others cannot take, and that only its own process gives back.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Barrier;

use jail_fs::{Artifact, ErrorKind, Lease, Owner, StagedTree, persistent, remove_tree, sweep};
use rustix::fs::{FlockOperation, flock};

use crate::support::{as_jail_user, jail_user, list, name, on_each_fs, owner_and_mode, plain};
use crate::sys::Child;

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_45_published_tree_is_closed() {
    on_each_fs("row_45_published_tree_is_closed", |scene| {
        let tree = StagedTree::create(&scene.base, &name("one")).unwrap();
        tree.make_dir("root", jail_user(), 0o700).unwrap();
        let published = tree.publish().unwrap();
        let path = published.dir.path().to_owned();
        assert_eq!(owner_and_mode(&path), (0, 0, 0o700));
        assert!(as_jail_user(|| File::open(&path).is_err()));
        drop(published);
        Lease::try_acquire(&scene.base.child(&name("one")).unwrap()).unwrap();
    });
}

/// Older releases left the directory 0755.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_45_lease_closes_directory() {
    on_each_fs("row_45_lease_closes_directory", |scene| {
        let dir = scene.base.create_child(&name("old")).unwrap();
        for mode in [0o755, 0o711, 0o750] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let lease = Lease::try_acquire(&dir).unwrap();
            assert_eq!(owner_and_mode(dir.path()), (0, 0, 0o700), "was {mode:o}");
            assert_eq!(lease.dir().id(), dir.id());
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
        assert_eq!(Lease::try_acquire(&dir).unwrap_err().kind(), ErrorKind::Untrusted);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_45_locked_drive_works() {
    on_each_fs("row_45_locked_drive_works", |scene| {
        let disk = scene.source("disk", "data");
        let jail = scene.jail("one");
        let (locked, lock) = (Barrier::new(2), File::open(disk.path()).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                flock(&lock, FlockOperation::LockExclusive).unwrap();
                locked.wait();
            });
            locked.wait();
            persistent(&disk, &jail.dir, &name("disk"), Some(jail_user()), &plain()).unwrap();
        });
    });
}

/// Several launcher processes with the same drive at the same time.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_drive_has_one_user() {
    on_each_fs("a_drive_has_one_user", |scene| {
        let path = scene.source("disk", "data").path().to_owned();
        let jails: Vec<_> = (0..3).map(|id| scene.jail(&format!("vm-{id}"))).collect();
        for _ in 0..100 {
            let racers: Vec<_> = jails
                .iter()
                .map(|jail| {
                    Child::spawn(Owner::ROOT, || {
                        let disk = Artifact::open(&path).unwrap();
                        match persistent(&disk, &jail.dir, &name("disk"), None, &plain()) {
                            Ok(_) => true,
                            Err(error) => error.kind() != ErrorKind::Busy,
                        }
                    })
                })
                .collect();
            let won = racers.into_iter().map(Child::succeeded);
            let won: Vec<_> = won.collect();
            let held: Vec<_> = jails.iter().map(|jail| !list(&jail.path).is_empty()).collect();
            assert_eq!(won, held, "a loser leaves no name");
            assert!(won.iter().filter(|won| **won).count() <= 1, "{won:?}");
            for jail in &jails {
                jail_fs::scrub(&jail.dir, &[name("disk")]).unwrap();
            }
        }
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_55_forked_lease_stays() {
    on_each_fs("row_55_forked_lease_stays", |scene| {
        let dir = scene.base.create_child(&name("one")).unwrap();
        let mut lease = Some(Lease::try_acquire(&dir).unwrap());
        let child = Child::spawn(Owner::ROOT, || {
            drop(lease.take());
            true
        });
        assert!(child.succeeded());
        assert_eq!(Lease::try_acquire(&dir).unwrap_err().kind(), ErrorKind::Busy);
        drop(lease);
        Lease::try_acquire(&dir).unwrap();
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_55_forked_tree_stays() {
    on_each_fs("row_55_forked_tree_stays", |scene| {
        let tree = StagedTree::create(&scene.base, &name("one")).unwrap();
        tree.make_dir("root", jail_user(), 0o700).unwrap();
        let mut tree = Some(tree);
        let child = Child::spawn(Owner::ROOT, || {
            drop(tree.take());
            true
        });
        assert!(child.succeeded());
        assert_eq!(sweep(&scene.base).unwrap().kept, [tree.as_ref().unwrap().path()]);
        let published = tree.take().unwrap().publish().unwrap();
        assert_eq!(list(published.dir.path()), ["root"]);
        remove_tree(&scene.base, &name("one"), None).unwrap();
    });
}
