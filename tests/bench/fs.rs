//! jail-fs compared with (a) the published crate, (b) the bare system calls without checks, (c) cp.
//!
//! Each filesystem is a fresh one on a loop device; sources and jails are on it, except in the rows named "across".

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jail_fs::{Artifact, CopyOptions, Name, Owner, StagedTree, Strategy, TrustedDir};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, renameat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, Whence, fchown, ftruncate, linkat, lseek, unlinkat, write,
};
use rustix::fs::{FileType, RawDir};
use testkit::{FsKind, LoopFs, Scratch};

use crate::outside::{self, Outside};
use crate::{Contender, Rival, Session};

const UID: u32 = 59_135;
const MIB: u64 = 1 << 20;

/// The record beside each jail; 700 bytes is a usual length.
const RECORD: [u8; 700] = [b' '; 700];

/// Measures every row.
pub(crate) fn run(session: &mut Session) -> Result<()> {
    // No other process sees these mounts, and the kernel removes them when this process exits.
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    // The build needs libclang.
    let seed = outside::build("seed")?;
    for kind in [FsKind::Ext4, FsKind::Xfs] {
        let Some(fs) = LoopFs::new(kind, 8 << 30)? else {
            session.note(format!("{kind} is unavailable: the {kind} rows are skipped"));
            continue;
        };
        // As deep as the jailer's default, /srv/jailer: jail-fs walks and checks the path to a base each time.
        let root = Path::new("/srv");
        mount(Some(&fs.path()), root, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("bind to /srv")?;
        let _bound = Bound(root);
        let place = Place::new(kind, root)?;
        prepare_and_teardown(session, &place, &seed)?;
        prepare_made(session, &place)?;
        across(session, &place, &seed)?;
        if kind.reflinks() {
            reflink(session, &place)?;
        }
        crowded(session, &place)?;
        threads(session, &place)?;
    }
    Ok(())
}

/// A bind mount, unmounted on drop.
struct Bound<'a>(&'a Path);

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.0, MntFlags::MNT_DETACH) {
            eprintln!("left behind: mount at {}: {error}", self.0.display());
        }
    }
}

/// A filesystem that holds the images.
struct Place {
    kind: FsKind,
    root: PathBuf,
    kernel: PathBuf,
    /// A 64 MiB file with 64 KiB of data.
    rootfs: PathBuf,
    /// A 64 MiB file with the data that mkfs.ext4 writes to an empty disk: about 300 KiB in eight pieces.
    made: PathBuf,
    /// A kernel and a rootfs for the published crate alone: the crate links both and gives both to the jail's user,
    /// after which jail-fs would not link either file.
    given_away: [PathBuf; 2],
    user: Owner,
}

impl Place {
    fn new(kind: FsKind, root: &Path) -> Result<Self> {
        let at = |name: &str| root.join(name);
        let (kernel, rootfs, made) = (at("vmlinux"), at("rootfs.ext4"), at("made.ext4"));
        fs::write(&kernel, vec![1; 64 << 10])?;
        for disk in [&rootfs, &made] {
            fs::File::create(disk)?.set_len(64 * MIB)?;
        }
        fs::File::options().write(true).open(&rootfs)?.write_all_at(&[1; 64 << 10], 0)?;
        let mkfs = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-O", "^has_journal"])
            .arg(&made)
            .status()?;
        ensure!(mkfs.success(), "mkfs.ext4: {mkfs}");
        let given_away = [at("given-away-vmlinux"), at("given-away-rootfs.ext4")];
        for (source, copy) in [&kernel, &rootfs].into_iter().zip(&given_away) {
            let copied =
                Command::new("cp").arg("--sparse=always").arg(source).arg(copy).status()?;
            ensure!(copied.success(), "cp: {copied}");
        }
        let (root, user) = (root.to_owned(), Owner::new(UID, UID)?);
        Ok(Self { kind, root, kernel, rootfs, made, given_away, user })
    }

    fn base(&self, of: &str) -> Result<PathBuf> {
        let base = self.root.join(of);
        fs::create_dir_all(&base)?;
        Ok(base)
    }
}

/// Opens the base of a launcher, which keeps the descriptor.
fn trusted(base: &Path) -> jail_fs::Result<TrustedDir> {
    TrustedDir::create(base)?.create_child(&Name::try_from("firecracker")?)
}

/// Stages the files of one VM with jail-fs, as a launcher does.
fn prepare(
    base: &TrustedDir,
    id: &str,
    kernel: &Path,
    rootfs: Option<&Path>,
    user: Owner,
) -> jail_fs::Result<()> {
    let options = CopyOptions::new();
    let kernel = Artifact::open(kernel)?;
    let rootfs = rootfs.map(Artifact::open).transpose()?;
    let tree = StagedTree::create(base, &Name::try_from(id)?)?;
    let root = tree.make_dir("root", Owner::ROOT, 0o700)?;
    let shared = jail_fs::read_only(&kernel, &root, &Name::try_from("vmlinux")?, user, &options)?;
    assert_eq!(shared.strategy, Strategy::HardLink, "the bare calls link the kernel");
    if let Some(rootfs) = &rootfs {
        jail_fs::private(rootfs, &root, &Name::try_from("rootfs.ext4")?, user, &options)?;
    }
    jail_fs::write(tree.top(), &Name::try_from("jail.json")?, &RECORD, Owner::ROOT, 0o600)?;
    tree.publish()?;
    Ok(())
}

fn teardown(base: &TrustedDir, id: &str) -> jail_fs::Result<()> {
    let removed = jail_fs::remove_tree(base, &Name::try_from(id)?, None)?;
    assert!(removed.entries > 0, "there was nothing to tear down");
    Ok(())
}

/// The bare system calls that give the same result, without checks and without locks.
mod bare {
    use super::*;

    const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

    /// Builds a jail under a temporary name and then renames the directory, so that no jail is ever incomplete.
    pub(super) fn prepare(base: &OwnedFd, id: &str, kernel: &Path, rootfs: &Path) -> Result<()> {
        let aside = format!(".{id}");
        mkdirat(base, aside.as_str(), Mode::S_IRWXU)?;
        let top = openat(base, aside.as_str(), DIRECTORY, Mode::empty())?;
        mkdirat(&top, "root", Mode::S_IRWXU)?;
        let root = openat(&top, "root", DIRECTORY, Mode::empty())?;
        linkat(AT_FDCWD, kernel, &root, "vmlinux", AtFlags::empty())?;
        private(rootfs, &root, "rootfs.ext4")?;
        let record = create(&top, "jail.json")?;
        write(&record, &RECORD)?;
        fchmod(&top, Mode::from_bits_truncate(0o755))?;
        Ok(renameat(base, aside.as_str(), base, id)?)
    }

    /// Clones a file with FICLONE; if the ioctl fails, copies the data segments.
    pub(super) fn private(source: &Path, dir: &OwnedFd, name: &str) -> Result<()> {
        let from = open(source, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let to = create(dir, name)?;
        if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
            let size = fs::File::from(from.try_clone()?).metadata()?.len();
            ftruncate(&to, i64::try_from(size)?)?;
            let mut at = 0;
            loop {
                let start = match lseek(&from, at, Whence::SeekData) {
                    Err(Errno::ENXIO) => break,
                    start => start?,
                };
                at = lseek(&from, start, Whence::SeekHole)?;
                let mut length = usize::try_from(at - start)?;
                let (mut off_in, mut off_out) = (u64::try_from(start)?, u64::try_from(start)?);
                while length > 0 {
                    length -= rustix::fs::copy_file_range(
                        &from,
                        Some(&mut off_in),
                        &to,
                        Some(&mut off_out),
                        length,
                    )?;
                }
            }
        }
        fchown(&to, Some(Uid::from_raw(UID)), Some(Gid::from_raw(UID)))?;
        Ok(())
    }

    fn create(dir: &OwnedFd, name: &str) -> Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        Ok(openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?)
    }

    /// Renames a jail, so that no jail is ever incomplete, and then removes the tree.
    pub(super) fn teardown(base: &OwnedFd, id: &str) -> Result<()> {
        let aside = format!(".{id}");
        renameat(base, id, base, aside.as_str())?;
        empty(openat(base, aside.as_str(), DIRECTORY, Mode::empty())?)?;
        Ok(unlinkat(base, aside.as_str(), UnlinkatFlags::RemoveDir)?)
    }

    fn empty(dir: OwnedFd) -> Result<()> {
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() != FileType::Directory {
                unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?;
            } else if !matches!(name.to_bytes(), b"." | b"..") {
                empty(openat(&dir, name, DIRECTORY, Mode::empty())?)?;
                unlinkat(&dir, name, UnlinkatFlags::RemoveDir)?;
            }
        }
        Ok(())
    }
}

fn held(path: &Path) -> Result<OwnedFd> {
    Ok(open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn timed<T, E: Into<anyhow::Error>>(
    work: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<Duration> {
    let begun = Instant::now();
    work().map_err(Into::into)?;
    Ok(begun.elapsed())
}

/// The number of small jails that one round makes, one after another, as a busy launcher does. A single jail would
/// measure the processor's caches and not the work.
const SERIES: u32 = 8;

/// Returns the mean time of `measured` for a jail; `before` and `after` are not timed.
fn series(
    number: &Cell<u32>,
    measured: impl Fn(&str) -> Result<Duration>,
    before: impl Fn(&str) -> Result<()>,
    after: impl Fn(&str) -> Result<()>,
) -> Result<Duration> {
    let mut took = Duration::ZERO;
    for _ in 0..SERIES {
        let id = format!("vm-{}", number.replace(number.get() + 1));
        before(&id)?;
        took += measured(&id)?;
        after(&id)?;
    }
    Ok(took / SERIES)
}

fn nothing(_: &str) -> Result<()> {
    Ok(())
}

fn prepare_and_teardown(session: &mut Session, place: &Place, seed: &Path) -> Result<()> {
    let Place { kind, kernel, rootfs, given_away: [seeds_kernel, seeds_rootfs], user, .. } = place;
    let (ours, bare) = (trusted(&place.base("ours")?)?, held(&place.base("bare/firecracker")?)?);
    let seed = start_seed(seed, &place.base("seed")?, seeds_kernel, seeds_rootfs)?;
    let seed = RefCell::new(seed);
    let rounds = session.rounds(200);
    let number = Cell::new(0);
    let ours_prepare = |id: &str| Ok(prepare(&ours, id, kernel, Some(rootfs), *user)?);
    let ours_teardown = |id: &str| Ok(teardown(&ours, id)?);
    let bare_prepare = |id: &str| bare::prepare(&bare, id, kernel, rootfs);
    let bare_teardown = |id: &str| bare::teardown(&bare, id);
    let seed_call = |verb, id: &str| seed.borrow_mut().call(&format!("{verb} {id}"));
    session.compare(
        &format!("{kind}: prepare a small kernel and a private 64 MiB rootfs, 64 KiB of it data"),
        rounds,
        Contender::new("jail-fs", || {
            series(&number, |id| timed(|| ours_prepare(id)), nothing, ours_teardown)
        }),
        vec![
            Rival::new("(a) published crate", || {
                let teardown = |id: &str| seed_call("teardown", id).map(drop);
                series(&number, |id| seed_call("prepare", id), nothing, teardown)
            })
            .at_most(0.7)
            .over_floor(1, 1.3),
            Rival::new("(b) bare calls", || {
                series(&number, |id| timed(|| bare_prepare(id)), nothing, bare_teardown)
            })
            .at_most(1.3),
        ],
    )?;
    session.compare(
        &format!("{kind}: teardown of the same"),
        rounds,
        Contender::new("jail-fs", || {
            series(&number, |id| timed(|| ours_teardown(id)), ours_prepare, nothing)
        }),
        vec![
            Rival::new("(a) published crate", || {
                let prepare = |id: &str| seed_call("prepare", id).map(drop);
                series(&number, |id| seed_call("teardown", id), prepare, nothing)
            })
            .at_most(0.6)
            .over_floor(1, 1.3),
            Rival::new("(b) bare calls", || {
                series(&number, |id| timed(|| bare_teardown(id)), bare_prepare, nothing)
            })
            .at_most(1.3),
        ],
    )
}

/// Measures prepare with a disk that holds a filesystem. The published crate copies no data and has no row here.
fn prepare_made(session: &mut Session, place: &Place) -> Result<()> {
    let Place { kind, kernel, made, user, .. } = place;
    let (ours, bare) = (trusted(&place.base("ours")?)?, held(&place.base("bare/firecracker")?)?);
    session.compare(
        &format!("{kind}: prepare the same with what mkfs.ext4 writes"),
        session.rounds(200),
        Contender::new("jail-fs", || {
            let took = timed(|| prepare(&ours, "vm", kernel, Some(made), *user))?;
            teardown(&ours, "vm")?;
            Ok(took)
        }),
        vec![
            Rival::new("(b) bare calls", || {
                let took = timed(|| bare::prepare(&bare, "vm", kernel, made))?;
                bare::teardown(&bare, "vm")?;
                Ok(took)
            })
            .at_most(1.3),
        ],
    )
}

/// Writes a sparse file of `size` bytes with 66 MiB of data, in pieces of 1 MiB.
fn large_image(path: &Path, size: u64) -> Result<()> {
    let file = fs::File::create(path)?;
    file.set_len(size)?;
    for piece in 0..66 {
        file.write_all_at(&vec![7; 1 << 20], piece * (size / 66) / 4096 * 4096)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Stages one artifact into a directory, and removes the file again; returns the time of the staging.
fn stage(source: &Path, dir: &TrustedDir, user: Owner, strategy: Strategy) -> Result<Duration> {
    let name = Name::try_from("disk")?;
    let took = timed(|| -> Result<()> {
        let source = Artifact::open(source)?;
        let receipt = jail_fs::private(&source, dir.dir(), &name, user, &CopyOptions::new())?;
        ensure!(receipt.strategy == strategy, "{receipt:?}");
        Ok(())
    })?;
    jail_fs::scrub(dir.dir(), &[name])?;
    Ok(took)
}

fn cp(how: &str, source: &Path, dir: &Path) -> Result<Duration> {
    let to = dir.join("disk");
    let took = timed(|| -> Result<()> {
        let copied = Command::new("cp").arg(how).arg(source).arg(&to).status()?;
        ensure!(copied.success(), "cp {how}: {copied}");
        Ok(())
    })?;
    fs::remove_file(to)?;
    Ok(took)
}

fn across(session: &mut Session, place: &Place, seed: &Path) -> Result<()> {
    let scratch = Scratch::new("bench");
    let image = scratch.join("image");
    large_image(&image, 2 << 30)?;
    let dir = TrustedDir::create(&place.base("across")?)?;
    let other = place.base("across-cp")?;
    let [kernel, _] = &place.given_away;
    let mut seed = start_seed(seed, &place.base("across-seed")?, kernel, &image)?;
    let mut number = 0;
    session.compare(
        &format!("{}: stage 2 GiB with 66 MiB of data across filesystems", place.kind),
        session.rounds(15),
        Contender::new("jail-fs", || stage(&image, &dir, place.user, Strategy::SparseCopy)),
        vec![
            Rival::new("(a) published crate", || {
                number += 1;
                let id = format!("vm-{number}");
                let took = seed.call(&format!("prepare {id}"))?;
                seed.call(&format!("teardown {id}"))?;
                Ok(took)
            })
            .at_most(0.03),
            Rival::new("(c) cp --sparse=always", || cp("--sparse=always", &image, &other))
                .at_most(1.1),
        ],
    )
}

fn reflink(session: &mut Session, place: &Place) -> Result<()> {
    let dir = TrustedDir::create(&place.base("reflink")?)?;
    let other = place.base("reflink-cp")?;
    let bare = held(&other)?;
    let rounds = session.rounds(200);
    let sizes = [("2 GiB", 2_u64 << 30), ("64 GiB", 64 << 30)];
    for (label, size) in sizes {
        let image = place.root.join(label);
        large_image(&image, size)?;
        session.compare(
            &format!("{}: reflink {label} sparse", place.kind),
            rounds,
            Contender::new("jail-fs", || stage(&image, &dir, place.user, Strategy::Reflink)),
            vec![
                Rival::new("(b) bare FICLONE", || {
                    let took = timed(|| bare::private(&image, &bare, "disk"))?;
                    unlinkat(&bare, "disk", UnlinkatFlags::NoRemoveDir)?;
                    Ok(took)
                })
                .at_most(1.2),
                Rival::new("(c) cp --reflink=always", || cp("--reflink=always", &image, &other)),
            ],
        )?;
    }
    let [small, large] = sizes.map(|(label, _)| place.root.join(label));
    session.compare(
        &format!("{}: reflink 64 GiB against 2 GiB", place.kind),
        rounds,
        Contender::new("64 GiB", || stage(&large, &dir, place.user, Strategy::Reflink)),
        vec![
            Rival::new("2 GiB", || stage(&small, &dir, place.user, Strategy::Reflink)).at_most(1.2),
        ],
    )
}

fn crowded(session: &mut Session, place: &Place) -> Result<()> {
    let (many, few) = (trusted(&place.base("many")?)?, trusted(&place.base("few")?)?);
    for (base, jails) in [(&many, 10_000), (&few, 10)] {
        for jail in 0..jails {
            prepare(base, &format!("old-{jail}"), &place.kernel, None, place.user)?;
        }
    }
    let round = |base: &TrustedDir| {
        let took = timed(|| prepare(base, "vm", &place.kernel, Some(&place.rootfs), place.user))?;
        teardown(base, "vm")?;
        Ok(took)
    };
    session.compare(
        &format!("{}: prepare with 10 000 jails in the base", place.kind),
        session.rounds(300),
        Contender::new("10 000 jails", || round(&many)),
        vec![Rival::new("10 jails", || round(&few)).at_most(1.2)],
    )
}

/// The number of jails that the threads of one round prepare.
const JAILS: u32 = 2_000;
const THREADS: u32 = 16;

fn threads(session: &mut Session, place: &Place) -> Result<()> {
    let ours = trusted(&place.base("threads")?)?;
    let bare_path = place.base("threads-bare/firecracker")?;
    let bare = held(&bare_path)?;
    let Place { kernel, rootfs, user, kind, .. } = place;
    // A smaller disk: all disks of a round must fit, and threads do not contend for data.
    let disk = rootfs.with_extension("small");
    fs::write(&disk, vec![1; 16 << 10])?;
    let spread = |threads: u32, prepare: &(dyn Fn(&str) -> Result<()> + Sync)| {
        timed(|| -> Result<()> {
            std::thread::scope(|scope| {
                let worker = |thread| {
                    move || {
                        (thread..JAILS)
                            .step_by(threads as usize)
                            .try_for_each(|jail| prepare(&format!("vm-{jail}")))
                    }
                };
                let workers: Vec<_> =
                    (0..threads).map(|thread| scope.spawn(worker(thread))).collect();
                workers
                    .into_iter()
                    .try_for_each(|worker| worker.join().expect("a worker that panicked"))
            })
        })
    };
    let ours_prepare =
        |id: &str| prepare(&ours, id, kernel, Some(&disk), *user).map_err(Into::into);
    let with = |threads| -> Result<Duration> {
        let took = spread(threads, &ours_prepare)?;
        (0..JAILS).try_for_each(|jail| teardown(&ours, &format!("vm-{jail}")))?;
        Ok(took)
    };
    session.compare(
        &format!("{kind}: 16 threads prepare 2 000 jails"),
        session.rounds(15),
        Contender::new("jail-fs", || with(THREADS)),
        vec![
            Rival::new("(b) bare calls, 16 threads", || {
                let took = spread(THREADS, &|id| bare::prepare(&bare, id, kernel, &disk))?;
                (0..JAILS).try_for_each(|jail| bare::teardown(&bare, &format!("vm-{jail}")))?;
                Ok(took)
            })
            .at_most(1.3),
            Rival::new("jail-fs, one thread", || with(1)),
        ],
    )
}

/// Starts the published crate.
fn start_seed(program: &Path, base: &Path, kernel: &Path, rootfs: &Path) -> Result<Outside> {
    Outside::start(program, &[base, kernel, rootfs, Path::new(&UID.to_string())])
}
