//! The scene of an attack: a filesystem, a base, host files that nothing may touch, and a jail.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jail_fs::{Artifact, CopyOptions, Dir, Name, Owner, TrustedDir};
use nix::errno::Errno;
pub(crate) use testkit::long;
use testkit::{Canary, FsKind, LoopDevice, LoopFs};

use crate::sys::Child;

/// Bytes of each test filesystem; the image is sparse.
const SIZE: u64 = 512 << 20;

/// The uid and gid of the jail, which nothing else on the host has.
pub(crate) fn jail_user() -> Owner {
    Owner::new(61_234, 61_234).unwrap()
}

pub(crate) fn name(name: &str) -> Name {
    Name::try_from(name).unwrap()
}

/// A filesystem with `host/` (the canary) and `base/` (a trusted base).
pub(crate) struct Scene {
    fs: LoopFs,
    pub(crate) base: TrustedDir,
}

/// Plays `attack` on a fresh ext4, xfs and btrfs. `host/` is then as it was.
pub(crate) fn on_each_fs(test: &str, attack: impl Fn(&Scene)) {
    for kind in FsKind::ALL {
        on(test, kind, &attack);
    }
}

/// The same on one filesystem.
pub(crate) fn on(test: &str, kind: FsKind, attack: impl Fn(&Scene)) {
    on_sized(test, kind, SIZE, attack);
}

/// The same with room for so many bytes.
pub(crate) fn on_sized(test: &str, kind: FsKind, size: u64, attack: impl Fn(&Scene)) {
    assert!(nix::unistd::Uid::effective().is_root(), "needs root: cargo xtask test-root");
    let Some(fs) = retried(|| LoopFs::new(kind, size)) else {
        return testkit::skip(
            test,
            &format!("no {kind} here: needs loop devices, the kernel's {kind} and mkfs.{kind}"),
        );
    };
    let base = TrustedDir::create(&fs.path().join("base")).unwrap();
    let scene = Scene { fs, base };
    let host = scene.host();
    fs::create_dir_all(host.join("dir/below")).unwrap();
    for (file, mode) in
        [("secret", 0o600), ("image", 0o644), ("dir/file", 0o644), ("dir/below/file", 0o640)]
    {
        fs::write(host.join(file), format!("the host's {file}")).unwrap();
        fs::set_permissions(host.join(file), Permissions::from_mode(mode)).unwrap();
    }
    let canary = Canary::take(&host);
    attack(&scene);
    canary.assert_same();
}

/// Unmounts what is at `path` (umount(2)). What another test forks holds all descriptors until it has exec'ed: that is
/// waited for.
pub(crate) fn unmount(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match nix::mount::umount(path) {
            Err(Errno::EBUSY) if Instant::now() < deadline => std::thread::yield_now(),
            done => return done.unwrap(),
        }
    }
}

/// Another test may be detaching a free loop device (ENXIO); the next try gets another.
fn retried<T>(attach: impl Fn() -> anyhow::Result<Option<T>>) -> Option<T> {
    let mut last = None;
    for _ in 0..50 {
        match attach() {
            Ok(attached) => return attached,
            Err(error) => last = Some(error),
        }
        std::thread::yield_now();
    }
    panic!("no loop device: {:#}", last.unwrap())
}

/// A loop device on the file at `backing`.
pub(crate) fn loop_device(backing: &Path) -> LoopDevice {
    retried(|| LoopDevice::attach(backing))
        .expect("this machine has loop devices: there is a filesystem on one")
}

impl Scene {
    pub(crate) fn kind(&self) -> FsKind {
        self.fs.kind()
    }

    /// The mount point of the filesystem.
    pub(crate) fn root(&self) -> PathBuf {
        self.fs.path()
    }

    /// The host's own files.
    pub(crate) fn host(&self) -> PathBuf {
        self.fs.path().join("host")
    }

    /// A place for the test's own files, the jail's user may pass through.
    pub(crate) fn dir(&self, path: &str) -> PathBuf {
        let dir = self.fs.path().join(path);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A directory in the base that belongs to the jail's user, as a running VM's root does.
    pub(crate) fn jail(&self, id: &str) -> Jail {
        let top = self.base.create_child(&name(id)).unwrap();
        let path = top.path().join("root");
        fs::create_dir(&path).unwrap();
        chown(&path, Some(jail_user().uid()), Some(jail_user().gid())).unwrap();
        let dir = jail_fs::open_dir(top.dir(), "root").unwrap();
        Jail { path, dir, top }
    }

    /// A file of the host's administrator, to be staged.
    pub(crate) fn source(&self, file: &str, bytes: impl AsRef<[u8]>) -> Artifact {
        let path = self.dir("images").join(file);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        Artifact::open(&path).unwrap()
    }

    /// The names in the base.
    pub(crate) fn entries(&self) -> Vec<String> {
        list(self.base.path())
    }
}

/// A root that a hostile user owns.
pub(crate) struct Jail {
    pub(crate) path: PathBuf,
    pub(crate) dir: Dir,
    pub(crate) top: TrustedDir,
}

/// The names in a directory, sorted.
pub(crate) fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs `body` as the jail's user; whether it could do what it wanted.
pub(crate) fn as_jail_user(body: impl FnOnce() -> bool) -> bool {
    Child::spawn(jail_user(), body).succeeded()
}

/// `uid:gid mode` of what is at `path`, itself.
pub(crate) fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

pub(crate) fn plain() -> CopyOptions<'static> {
    CopyOptions::new()
}

/// Bytes of a file's own on the disk.
pub(crate) fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// A sparse file: `size` bytes, with `bytes` at each of the offsets.
pub(crate) fn sparse(path: &Path, size: u64, bytes: &[u8], offsets: &[u64]) {
    use std::os::unix::fs::FileExt as _;
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for offset in offsets {
        file.write_all_at(bytes, *offset).unwrap();
    }
}

/// strace(1) on this very thread, which makes some calls fail until the drop.
pub(crate) struct Fault(std::process::Child);

impl Fault {
    /// Takes the argument of strace's `-e inject=`.
    pub(crate) fn inject(inject: &str) -> Self {
        let thread = rustix::thread::gettid();
        let strace = std::process::Command::new("strace")
            .args([
                "-qq",
                "-o",
                "/dev/null",
                "-p",
                &thread.as_raw_nonzero().to_string(),
                "-e",
                &format!("inject={inject}"),
            ])
            .spawn()
            .unwrap();
        let mut this = Self(strace);
        let status = format!("/proc/self/task/{}/status", thread.as_raw_nonzero());
        // Its own calls may be those that fail.
        let is_traced = |status: String| !status.contains("TracerPid:\t0\n");
        while !fs::read_to_string(&status).is_ok_and(is_traced) {
            assert!(this.0.try_wait().unwrap().is_none(), "strace does not attach");
            std::thread::yield_now();
        }
        this
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // The kernel lets go of what a tracer that ends had held.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks for strace(1); if not, the skip of `test` is reported.
pub(crate) fn has_strace(test: &str) -> bool {
    let has = std::process::Command::new("strace").arg("-V").output().is_ok();
    if !has {
        testkit::skip(test, "no strace here");
    }
    has
}
