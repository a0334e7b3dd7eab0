//! Rows 4, 5, 6, 9, 25, 28 to 31: an attacker against the real verb, and against a weak twin of it.
//!
//! A race fails if the verb loses once, and also if the twin never loses: then nothing was contested.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, chown, lchown, symlink};
use std::path::Path;

use jail_fs::{
    ErrorKind, RemoveReport, ensure_char_device, open_file, private, read_small, remove_tree,
    sweep, write,
};
use nix::dir::{Dir as Listing, Type};
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknod};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use testkit::{FsKind, Round};

use crate::support::{Scene, jail_user, name, on_each_fs, plain};
use crate::sys::{Child, close_inherited};

/// The framework's race, on this filesystem.
fn race(
    scene: &Scene,
    row: u32,
    attackers: Vec<Child>,
    verb: impl FnMut() -> Round,
    twin: impl FnMut() -> Round,
) {
    let times = u32::try_from(FsKind::ALL.len()).unwrap();
    testkit::race(&format!("row {row} on {}", scene.kind()), times, attackers, verb, twin);
}

fn won(kind: ErrorKind) -> Round {
    Round::Won(match kind {
        ErrorKind::AlreadyExists => "name taken",
        ErrorKind::Untrusted => "refused",
        ErrorKind::Replaced => "replaced",
        ErrorKind::NotFound => "not there",
        ErrorKind::Busy => "busy",
        ErrorKind::CrossDevice => "left the tree",
        kind => panic!("no answer to this attack: {kind:?}"),
    })
}

/// Attacks for ever, as the jail's user.
fn attacker(attack: impl Fn()) -> Child {
    Child::spawn(jail_user(), || {
        close_inherited();
        loop {
            attack();
        }
    })
}

fn exchange(dir: impl AsFd, one: &str, other: &str) {
    let _ = renameat2(&dir, one, &dir, other, RenameFlags::RENAME_EXCHANGE);
}

fn directory(path: &Path) -> nix::Result<std::os::fd::OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn unlink(dir: impl AsFd, name: &str) {
    let _ = unlinkat(dir, name, UnlinkatFlags::NoRemoveDir);
}

/// Compares the host's file with the original.
fn intact(path: &Path, size: u64, uid: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.len() == size && meta.uid() == uid)
}

/// Between the look at a node and the change of owner, a hard link to a host file appears.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_04_race_chown() {
    on_each_fs("row_04_race_chown", |scene| {
        let jail = scene.jail("one");
        let secret = scene.dir("victims").join("secret");
        fs::write(&secret, "secret").unwrap();
        let (node, planted) = (jail.path.join("node"), jail.path.join("planted"));
        let root = jail.path.clone();
        let attackers = vec![attacker(|| {
            let dir = directory(&root).unwrap();
            loop {
                exchange(&dir, "node", "planted");
            }
        })];
        let ready = || {
            // Whichever of the two is the device goes; the hard link is there when the round begins.
            for path in [&node, &planted] {
                let _ = fs::remove_file(path);
            }
            fs::hard_link(&secret, &planted).unwrap();
        };
        let judge = |won| {
            if fs::metadata(&secret).unwrap().uid() == 0 {
                return won;
            }
            chown(&secret, Some(0), Some(0)).unwrap();
            Round::Lost
        };
        race(
            scene,
            4,
            attackers,
            || {
                ready();
                let made = ensure_char_device(&jail.dir, &name("node"), 1, 3, jail_user(), 0o600);
                judge(made.map_or_else(|error| won(error.kind()), |_| Round::Won("made")))
            },
            || {
                ready();
                if mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).is_err() {
                    return judge(Round::Won("not made"));
                }
                let fine = fs::symlink_metadata(&node)
                    .is_ok_and(|meta| meta.nlink() == 1 && meta.rdev() == 0x103);
                if fine {
                    let _ = lchown(&node, Some(jail_user().uid()), Some(jail_user().gid()));
                }
                judge(Round::Won("made"))
            },
        );
    });
}

/// Links at the destination come and go while root looks and then writes.
fn race_for_the_destination(row: u32, scene: &Scene, plant: impl Fn(&Path, &Path)) {
    let jail = scene.jail("one");
    let secret = scene.dir("victims").join("secret");
    fs::write(&secret, "secret").unwrap();
    plant(&secret, &jail.path.join("planted"));
    let (root, file) = (jail.path.clone(), jail.path.join("file"));
    let attackers = vec![attacker(|| {
        let dir = directory(&root).unwrap();
        let rename = |from, to| renameat2(&dir, from, &dir, to, RenameFlags::RENAME_NOREPLACE);
        loop {
            let _ = rename("planted", "file");
            let _ = rename("file", "planted");
        }
    })];
    let source = scene.source("source", "not six");
    // What is planted is never taken away, so it is always at one of the two names: whoever took a name for free while
    // it was between them would leave both taken, and the attacker with nothing to do.
    let judge = |won| {
        let lost = !intact(&secret, 6, 0);
        if lost {
            fs::write(&secret, "secret").unwrap();
            chown(&secret, Some(0), Some(0)).unwrap();
        }
        // What was written is the jail's user's, which what is planted is not.
        let written = fs::symlink_metadata(&file)
            .is_ok_and(|meta| meta.is_file() && meta.uid() == jail_user().uid());
        if written {
            unlink(AT_FDCWD, file.to_str().unwrap());
        }
        if lost { Round::Lost } else { won }
    };
    let mut round = 0_u32;
    race(
        scene,
        row,
        attackers,
        || {
            round += 1;
            let done = match round % 2 {
                0 => write(&jail.dir, &name("file"), b"not six", jail_user(), 0o600).map(drop),
                _ => private(&source, &jail.dir, &name("file"), jail_user(), &plain()).map(drop),
            };
            judge(done.map_or_else(|error| won(error.kind()), |()| Round::Won("made")))
        },
        || {
            if fs::symlink_metadata(&file).is_ok() {
                return judge(Round::Won("name taken"));
            }
            // As the 0.4 API, and any copy by path.
            if let Ok(copied) = fs::copy(source.path(), &file) {
                assert_eq!(copied, 7);
                let _ = lchown(&file, Some(jail_user().uid()), Some(jail_user().gid()));
            }
            judge(Round::Won("made"))
        },
    );
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_05_race_link() {
    let test = "row_05_race_link";
    on_each_fs(test, |scene| {
        race_for_the_destination(5, scene, |secret, planted| symlink(secret, planted).unwrap());
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_06_race_hard_link() {
    let test = "row_06_race_hard_link";
    on_each_fs(test, |scene| {
        race_for_the_destination(6, scene, |secret, planted| {
            fs::hard_link(secret, planted).unwrap()
        });
    });
}

/// A parent directory becomes a link to the host's before the file is opened.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_09_race_parent() {
    on_each_fs("row_09_race_parent", |scene| {
        let jail = scene.jail("one");
        let host = scene.dir("victims/dir");
        fs::write(host.join("file"), "the host's").unwrap();
        let root = jail.path.clone();
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), "the jail's").unwrap();
        symlink(&host, root.join("link")).unwrap();
        chown(root.join("dir"), Some(jail_user().uid()), None).unwrap();
        let attackers = vec![attacker(|| {
            let dir = directory(&root).unwrap();
            loop {
                exchange(&dir, "dir", "link");
            }
        })];
        let read = |mut file: File| {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            if text == "the host's" { Round::Lost } else { Round::Won("read") }
        };
        let canonical = fs::canonicalize(&root).unwrap();
        race(
            scene,
            9,
            attackers,
            || match open_file(&jail.dir, "dir/file") {
                Ok(file) => read(file),
                Err(error) => won(error.kind()),
            },
            || {
                // Canonicalise, compare the prefix, open: the check is of what was.
                let inside = fs::canonicalize(root.join("dir/file"))
                    .is_ok_and(|path| path.starts_with(&canonical));
                match inside.then(|| File::open(root.join("dir/file"))) {
                    Some(Ok(file)) => read(file),
                    _ => Round::Won("refused"),
                }
            },
        );
    });
}

/// The log is a small file at the look, and a host file at the read.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_25_race_log() {
    on_each_fs("row_25_race_log", |scene| {
        let jail = scene.jail("one");
        let victims = scene.dir("victims");
        fs::write(victims.join("secret"), "the host's").unwrap();
        let root = jail.path.clone();
        fs::write(root.join("log"), "line").unwrap();
        symlink(victims.join("secret"), root.join("link")).unwrap();
        fs::hard_link(victims.join("secret"), root.join("hard")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
        File::create(root.join("huge")).unwrap().set_len(1 << 40).unwrap();
        let attackers = vec![attacker(|| {
            let dir = directory(&root).unwrap();
            loop {
                for other in ["link", "hard", "fifo", "huge"] {
                    exchange(&dir, "log", other);
                    exchange(&dir, "log", other);
                }
            }
        })];
        let judge = |bytes: &[u8]| if bytes == b"line" { Round::Won("read") } else { Round::Lost };
        race(
            scene,
            25,
            attackers,
            || match read_small(&jail.dir, "log", 1 << 10) {
                Ok(bytes) => judge(&bytes),
                Err(error) => won(error.kind()),
            },
            || {
                let log = root.join("log");
                let small = |meta: fs::Metadata| {
                    meta.is_file() && meta.nlink() == 1 && meta.len() < 1 << 10
                };
                if !fs::symlink_metadata(&log).is_ok_and(small) {
                    return Round::Won("refused");
                }
                // Not to wait for the fifo, nor to read the terabyte: the twin is weak, the test is not.
                let opened = open(
                    &log,
                    OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
                    Mode::empty(),
                );
                let mut bytes = Vec::new();
                match opened.map(|fd| File::from(fd).take(1 << 11).read_to_end(&mut bytes)) {
                    Ok(Ok(_)) => judge(&bytes),
                    _ => Round::Won("refused"),
                }
            },
        );
    });
}

/// A jail's root with a few files, as the base of a removal race.
fn plant_tree(scene: &Scene, dirs: &[&str], files: &[&str]) -> jail_fs::InodeId {
    // Where the attacker does not look, and then at once where it does.
    let top = scene.base.create_child(&name("planting")).unwrap();
    let root = top.path().join("root");
    let own = |path: &Path| chown(path, Some(jail_user().uid()), Some(jail_user().gid())).unwrap();
    fs::create_dir(&root).unwrap();
    for dir in dirs {
        fs::create_dir(root.join(dir)).unwrap();
        own(&root.join(dir));
    }
    for file in files {
        fs::write(root.join(file), "").unwrap();
    }
    own(&root);
    fs::rename(top.path(), scene.base.path().join("tree")).unwrap();
    top.id()
}

/// Judges the end of a removal of so many entries.
fn outcome_of(removal: jail_fs::Result<RemoveReport>, planted: u64) -> Round {
    match removal {
        Err(error) => won(error.kind()),
        Ok(removed) => Round::Won(match removed.entries.cmp(&planted) {
            Ordering::Less => "removed less than was planted",
            Ordering::Equal => "removed",
            Ordering::Greater => "removed more than was planted",
        }),
    }
}

/// The host's file that a removal must not reach; whether it was.
fn lost(file: &Path) -> bool {
    let lost = fs::symlink_metadata(file).is_err();
    if lost {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "kept").unwrap();
    }
    lost
}

/// Removes what a round left, so that the next begins with nothing.
fn clear(scene: &Scene) {
    for _ in 0..1_000 {
        let _ = remove_tree(&scene.base, &name("tree"), None);
        if sweep(&scene.base).unwrap().failed.is_empty() && scene.base.entries().unwrap().is_empty()
        {
            return;
        }
    }
    panic!("the base is never empty: {:?}", scene.entries());
}

/// Processes go on filling the tree during the removal.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_28_race_filling() {
    on_each_fs("row_28_race_filling", |scene| {
        let kept = scene.dir("victims/dir").join("file");
        fs::write(&kept, "kept").unwrap();
        let work = scene.base.path().join("tree/root/work");
        let fill = || {
            // Held across the removal's first step, which takes the path away.
            let Ok(dir) = directory(&work) else { return };
            for n in 0..20 {
                let _ = mkdirat(&dir, format!("dir-{n}").as_str(), Mode::S_IRWXU);
                let _ = mkdirat(&dir, format!("dir-{n}/below").as_str(), Mode::S_IRWXU);
                let _ = symlinkat(kept.parent().unwrap(), &dir, format!("link-{n}").as_str());
                exchange(&dir, &format!("dir-{n}"), &format!("link-{n}"));
            }
        };
        let attackers = vec![attacker(fill)];
        let name_is_free = || fs::symlink_metadata(scene.base.path().join("tree")).is_err();
        race(
            scene,
            28,
            attackers,
            || {
                let id = plant_tree(scene, &["work", "work/one"], &["file"]);
                let removed = remove_tree(&scene.base, &name("tree"), Some(id));
                if lost(&kept) || !name_is_free() {
                    return Round::Lost;
                }
                let outcome = outcome_of(removed, 5);
                clear(scene);
                outcome
            },
            || {
                plant_tree(scene, &["work", "work/one"], &["file"]);
                // One pass, as std does it: what appears behind it keeps the tree there.
                let _ = fs::remove_dir_all(scene.base.path().join("tree"));
                let outcome = if lost(&kept) || !name_is_free() {
                    Round::Lost
                } else {
                    Round::Won("removed")
                };
                clear(scene);
                outcome
            },
        );
    });
}

/// A directory is moved out under the remover: its `..` is then another place.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_29_race_moved_directory() {
    on_each_fs("row_29_race_moved_directory", |scene| {
        let out = scene.dir("out");
        chown(&out, Some(jail_user().uid()), None).unwrap();
        let kept = out.join("kept");
        fs::write(&kept, "kept").unwrap();
        let root = scene.base.path().join("tree/root");
        let attackers = vec![attacker(|| {
            let (Ok(from), Ok(to)) = (directory(&root.join("a")), directory(&out)) else { return };
            for _ in 0..50 {
                let _ = renameat2(&from, "b", &to, "b", RenameFlags::empty());
                let _ = renameat2(&to, "b", &from, "b", RenameFlags::empty());
            }
        })];
        let plant =
            || plant_tree(scene, &["a", "a/b", "a/b/c"], &["a/b/1", "a/b/2", "a/b/c/3", "a/4"]);
        let end = || {
            let outcome = lost(&kept);
            clear(scene);
            let _ = fs::remove_dir_all(out.join("b"));
            outcome
        };
        race(
            scene,
            29,
            attackers,
            || {
                let id = plant();
                let removed = remove_tree(&scene.base, &name("tree"), Some(id));
                if end() { Round::Lost } else { outcome_of(removed, 9) }
            },
            || {
                plant();
                if let Ok(dir) = directory(&root.join("a")) {
                    remove_by_parent(dir);
                }
                if end() { Round::Lost } else { Round::Won("removed") }
            },
        );
    });
}

/// A remover with one descriptor, which goes back up by `..`: as often as it went down, so no further than where it
/// began, or the directory that took that one's place.
fn remove_by_parent(mut dir: std::os::fd::OwnedFd) {
    let mut path: Vec<std::ffi::CString> = Vec::new();
    for _ in 0..200 {
        let mut down = None;
        for (name, kind) in entries(&dir) {
            if kind == Some(Type::Directory)
                && unlinkat(&dir, name.as_c_str(), UnlinkatFlags::RemoveDir).is_err()
            {
                down = Some(name);
            } else if kind != Some(Type::Directory) {
                let _ = unlinkat(&dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
            }
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = match &down {
            Some(name) => openat(&dir, name.as_c_str(), flags, Mode::empty()),
            None if path.is_empty() => return,
            None => openat(&dir, "..", flags, Mode::empty()),
        };
        match (down, next) {
            (Some(name), Ok(next)) => {
                path.push(name);
                dir = next;
            }
            (None, Ok(next)) => {
                let name = path.pop().unwrap();
                let _ = unlinkat(&next, name.as_c_str(), UnlinkatFlags::RemoveDir);
                dir = next;
            }
            (_, Err(_)) => return,
        }
    }
}

fn entries(dir: impl AsFd) -> Vec<(std::ffi::CString, Option<Type>)> {
    let Ok(own) =
        openat(&dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    else {
        return Vec::new();
    };
    let mut listing = Listing::from_fd(own).unwrap();
    listing
        .iter()
        .flatten()
        .map(|entry| (entry.file_name().to_owned(), entry.file_type()))
        .filter(|(name, _)| !matches!(name.to_bytes(), b"." | b".."))
        .collect()
}

/// CVE-2022-21658: a directory when it is listed, a link when it is entered.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_30_race_directory_link() {
    on_each_fs("row_30_race_directory_link", |scene| {
        let host = scene.dir("victims/dir");
        let kept = host.join("file");
        fs::write(&kept, "kept").unwrap();
        let root = scene.base.path().join("tree/root");
        let attackers = vec![attacker(|| {
            let Ok(dir) = directory(&root) else { return };
            let _ = symlinkat(&host, &dir, "link");
            for _ in 0..50 {
                exchange(&dir, "dir", "link");
            }
        })];
        let plant = || plant_tree(scene, &["dir", "dir/below"], &["dir/file"]);
        race(
            scene,
            30,
            attackers,
            || {
                let id = plant();
                let removed = remove_tree(&scene.base, &name("tree"), Some(id));
                if lost(&kept) {
                    return Round::Lost;
                }
                let outcome = outcome_of(removed, 5);
                clear(scene);
                outcome
            },
            || {
                plant();
                remove_by_kind(&root);
                let outcome = if lost(&kept) { Round::Lost } else { Round::Won("removed") };
                clear(scene);
                outcome
            },
        );
    });
}

/// A remover that looks what an entry is and then goes there by name, as std did.
fn remove_by_kind(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            remove_by_kind(&path);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Another jail takes the name between the look at the inode and the removal.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_31_race_same_name() {
    on_each_fs("row_31_race_same_name", |scene| {
        let base = scene.base.path().to_owned();
        // Another launcher: root, restarting jails as fast as it can.
        let attackers = vec![Child::spawn(jail_fs::Owner::ROOT, || {
            close_inherited();
            let dir = directory(&base).unwrap();
            loop {
                exchange(&dir, "tree", "other");
            }
        })];
        // While one of the two names is free the attacker can do nothing.
        let plant = |content: &str| {
            let made = scene.base.create_child(&name("new")).unwrap();
            fs::write(made.path().join(content), "").unwrap();
            let dir = scene.base.dir();
            for free in ["tree", "other"] {
                if renameat2(dir, "new", dir, free, RenameFlags::RENAME_NOREPLACE).is_ok() {
                    break;
                }
            }
            made.id()
        };
        let has = |id| {
            ["tree", "other"]
                .iter()
                .any(|at| scene.base.child(&name(at)).is_ok_and(|dir| dir.id() == id))
        };
        // A list of two names that are being exchanged may miss one, a look at each of them does not; and once one is
        // free the attacker can do nothing.
        let is_free = |at| {
            let found = scene.base.child(&name(at));
            found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        let remove = |id| {
            while !is_free("tree") && !is_free("other") {
                for at in ["tree", "other"] {
                    let _ = remove_tree(&scene.base, &name(at), Some(id));
                }
            }
        };
        let other = std::cell::Cell::new(plant("kept"));
        let judge = |tree, outcome| {
            remove(tree);
            let kept = ["tree/kept", "other/kept"]
                .iter()
                .any(|path| fs::metadata(base.join(path)).is_ok());
            if has(other.get()) && kept {
                return outcome;
            }
            let _ = remove_tree(&scene.base, &name("other"), None);
            clear(scene);
            other.set(plant("kept"));
            Round::Lost
        };
        race(
            scene,
            31,
            attackers,
            || {
                let id = plant("file");
                let removed = remove_tree(&scene.base, &name("tree"), Some(id));
                judge(id, removed.map_or_else(|error| won(error.kind()), |_| Round::Won("removed")))
            },
            || {
                let id = plant("file");
                let path = base.join("tree");
                if fs::metadata(&path).is_ok_and(|meta| meta.ino() == id.ino()) {
                    let _ = fs::remove_dir_all(&path);
                }
                judge(id, Round::Won("removed"))
            },
        );
    });
}
