//! Rows 22, 37, 38: a jail is whole or not there, and never half of an older one.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Barrier;

use jail_fs::{
    ErrorKind, Lease, Owner, Published, StagedTree, TrustedDir, private, read_only, remove_tree,
    sweep, write,
};

use crate::support::{Scene, jail_user, list, name, on_each_fs, plain};
use crate::sys::{Child, End, killed_before};

/// Stages as a launcher does: a root with a kernel, a disk and a file, then the record.
fn stage(scene: &Scene, base: &TrustedDir, id: &str) -> jail_fs::Result<StagedTree> {
    let images = scene.root().join("images");
    let kernel = jail_fs::Artifact::open(&images.join("kernel"))?;
    let disk = jail_fs::Artifact::open(&images.join("disk"))?;
    let tree = StagedTree::create(base, &name(id))?;
    let root = tree.make_dir("root", jail_user(), 0o700)?;
    read_only(&kernel, &root, &name("kernel"), jail_user(), &plain())?;
    private(&disk, &root, &name("disk"), jail_user(), &plain())?;
    write(&root, &name("vm.json"), b"{}", jail_user(), 0o440)?;
    write(tree.top(), &name("jail.json"), b"{\"whole\":true}", Owner::ROOT, 0o600)?;
    Ok(tree)
}

fn images(scene: &Scene) {
    scene.source("kernel", "kernel");
    scene.source("disk", vec![5; 300 << 10]);
}

/// The old VM's descriptor goes on writing to what no one uses any more.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_22_restart_gets_fresh_inodes() {
    on_each_fs("row_22_restart_gets_fresh_inodes", |scene| {
        images(scene);
        let Published { dir: old, lease: old_lease, .. } =
            stage(scene, &scene.base, "one").unwrap().publish().unwrap();
        let disk = scene.base.path().join("one/root/disk");
        // The jail's user keeps it open, and the directory it is in.
        let mut kept = File::options().write(true).open(&disk).unwrap();
        let kept_dir = File::open(scene.base.path().join("one/root")).unwrap();
        let new = stage(scene, &scene.base, "one").unwrap().exchange(old.id()).unwrap();
        assert_eq!(new.replaced.unwrap().unwrap().entries, 6);
        kept.write_all(b"evil").unwrap();
        assert_eq!(kept.metadata().unwrap().nlink(), 0);
        assert_eq!(fs::read(&disk).unwrap(), vec![5; 300 << 10]);
        assert_ne!(fs::metadata(&disk).unwrap().ino(), kept.metadata().unwrap().ino());
        // Nor can anything be made where the old one was.
        assert!(nix::sys::stat::mkdirat(&kept_dir, "late", nix::sys::stat::Mode::S_IRWXU).is_err());
        drop(old_lease);
        assert_eq!(Lease::try_acquire(&new.dir).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(scene.entries(), ["one"]);
        assert_eq!(scene.base.child(&name("one")).unwrap().id(), new.dir.id());
    });
}

/// A launcher that is killed before any call leaves a whole jail or none, and rests for a sweep; and then a retry succeeds.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_37_kill_leaves_no_half() {
    on_each_fs("row_37_kill_leaves_no_half", |scene| {
        images(scene);
        let (mut whole, mut swept, mut calls) = (0, 0, 0);
        let launch = || stage(scene, &scene.base, "vm").unwrap().publish().is_ok();
        while killed_before(calls, launch) == End::Killed {
            calls += 1;
            if scene.entries().contains(&"vm".to_owned()) {
                is_whole(&scene.base.path().join("vm"));
                whole += 1;
            }
            let report = sweep(&scene.base).unwrap();
            assert!(report.kept.is_empty() && report.failed.is_empty(), "{report:?}");
            swept += report.removed.len();
            assert!(scene.entries().iter().all(|name| !name.starts_with('.')));
            // The removal too, as far as it gets.
            let _ = killed_before(calls, || remove_tree(&scene.base, &name("vm"), None).is_ok());
            sweep(&scene.base).unwrap();
            remove_tree(&scene.base, &name("vm"), None).unwrap();
            assert_eq!(scene.entries(), [""; 0]);
        }
        println!(
            "{}: {calls} calls, {whole} times a whole jail, {swept} trees swept",
            scene.kind()
        );
        is_whole(&scene.base.path().join("vm"));
        assert!(whole > 0 && swept > 20, "{whole} whole, {swept} swept");
    });
}

fn is_whole(jail: &Path) {
    assert_eq!(list(jail), ["jail.json", "root"]);
    assert_eq!(list(&jail.join("root")), ["disk", "kernel", "vm.json"]);
    assert_eq!(fs::metadata(jail.join("root/disk")).unwrap().len(), 300 << 10);
    assert_eq!(fs::read(jail.join("jail.json")).unwrap(), b"{\"whole\":true}");
}

/// A sweep leaves alone what someone is at work on, in whichever process.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_37_sweep_spares_the_living() {
    on_each_fs("row_37_sweep_spares_the_living", |scene| {
        images(scene);
        let sweeper = Child::spawn(Owner::ROOT, || {
            loop {
                let report = sweep(&scene.base).unwrap();
                if !report.failed.is_empty() {
                    return false;
                }
            }
        });
        for round in 0..300 {
            let id = format!("vm-{round}");
            let published = stage(scene, &scene.base, &id).unwrap().publish().unwrap();
            assert_eq!(list(&published.dir.path().join("root")), ["disk", "kernel", "vm.json"]);
            remove_tree(&scene.base, &name(&id), Some(published.dir.id())).unwrap();
        }
        sweeper.kill();
        sweep(&scene.base).unwrap();
        assert_eq!(scene.entries(), [""; 0]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_38_one_launcher_wins() {
    on_each_fs("row_38_one_launcher_wins", |scene| {
        images(scene);
        for round in 0..40 {
            let id = format!("vm-{round}");
            let barrier = Barrier::new(8);
            let winners: Vec<_> = std::thread::scope(|scope| {
                let race = || {
                    let tree = stage(scene, &scene.base, &id).unwrap();
                    barrier.wait();
                    tree.publish()
                };
                let racers: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            let (won, lost): (Vec<_>, Vec<_>) = winners.into_iter().partition(Result::is_ok);
            assert_eq!(won.len(), 1);
            assert!(
                lost.iter()
                    .all(|lost| lost.as_ref().unwrap_err().kind() == ErrorKind::AlreadyExists)
            );
            let published = won.into_iter().next().unwrap().unwrap();
            assert_eq!(scene.entries(), [id.as_str()], "the losers leave nothing");
            // The jail is the winner's, until it lets go or dies.
            let dir = scene.base.child(&name(&id)).unwrap();
            assert_eq!(Lease::try_acquire(&dir).unwrap_err().kind(), ErrorKind::Busy);
            drop(published);
            Lease::try_acquire(&dir).unwrap();
            remove_tree(&scene.base, &name(&id), Some(dir.id())).unwrap();
        }
    });
}

/// The kernel releases a lease at the end of the holder.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_38_death_ends_lease() {
    on_each_fs("row_38_death_ends_lease", |scene| {
        let jail = scene.jail("one");
        let (mut receiver, mut sender) = std::io::pipe().unwrap();
        let holder = Child::spawn(Owner::ROOT, || {
            let _lease = Lease::try_acquire(&jail.top).unwrap();
            sender.write_all(b"x").unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.read_exact(&mut [0]).unwrap();
        assert_eq!(Lease::try_acquire(&jail.top).unwrap_err().kind(), ErrorKind::Busy);
        holder.kill();
        Lease::try_acquire(&jail.top).unwrap();
    });
}
