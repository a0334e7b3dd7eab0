//! What the machine is made of, from Debian's packages: fetched and unpacked as whoever runs this, installed nowhere.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

/// What depends on the kernel that is current.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What the host runs and the guest needs: the emulator, the guest's userland, the tools root tests call.
const WANTED: [&str; 6] =
    ["qemu-system-x86", "busybox-static", "e2fsprogs", "xfsprogs", "btrfs-progs", "strace"];

/// Where Debian's amd64 packages keep shared libraries.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The packages, unpacked side by side in a directory of ours.
///
/// A package that the host has installed already is used from there, as are the libraries its packages share with ours.
#[derive(Debug)]
pub(super) struct Debian {
    root: PathBuf,
}

impl Debian {
    /// Takes what is under `vm`, else fetches it there with apt-get and dpkg-deb; the system's own state stays as it is.
    pub(super) fn at(sh: &Shell, vm: &Path) -> Result<Self> {
        let root = vm.join("debian");
        if !root.exists() {
            let fetched = vm.join("debian.partial");
            if fetched.exists() {
                fs::remove_dir_all(&fetched)?;
            }
            fetch(sh, &fetched).context("fetch Debian's kernel, QEMU and busybox")?;
            fs::rename(&fetched, &root)?;
        }
        Ok(Self { root })
    }

    /// The kernel image.
    pub(super) fn kernel(&self) -> Result<PathBuf> {
        Ok(self.root.join(format!("boot/vmlinuz-{}", self.kernel_release()?)))
    }

    /// `uname -r` of that kernel.
    pub(super) fn kernel_release(&self) -> Result<String> {
        let modules = self.root.join("lib/modules");
        let mut releases =
            fs::read_dir(&modules).with_context(|| format!("list {}", modules.display()))?;
        match (releases.next(), releases.next()) {
            (Some(release), None) => {
                let release = release?.file_name();
                release.into_string().ok().context("a kernel release is plain text")
            }
            _ => bail!("{} should hold one kernel", modules.display()),
        }
    }

    /// The directory that holds `lib/modules/<release>`.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the program `name` is: among the packages, else on the PATH.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        let packaged =
            ["usr/bin", "usr/sbin", "bin", "sbin"].map(|dir| self.root.join(dir).join(name));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = std::env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
            .map(|dir| dir.join(name));
        packaged.into_iter().chain(installed).find(|path| path.is_file()).with_context(|| {
            format!("{name} is neither among the packages nor on the PATH; remove {} to fetch them anew", self.root.display())
        })
    }

    /// The value of `LD_LIBRARY_PATH` under which the packaged programs run: ours first, the rest is the host's.
    pub(super) fn library_path(&self) -> Result<OsString> {
        Ok(std::env::join_paths(LIBRARIES.map(|dir| self.root.join(dir)))?)
    }

    /// The shared libraries `program` loads, its loader among them; none if it is static. ldd(1)
    pub(super) fn libraries(&self, sh: &Shell, program: &Path) -> Result<BTreeSet<PathBuf>> {
        let path = self.library_path()?;
        let listed = cmd!(sh, "ldd {program}")
            .env("LD_LIBRARY_PATH", path)
            .ignore_status()
            .ignore_stderr()
            .quiet()
            .read()?;
        parse_ldd(&listed).with_context(|| format!("libraries of {}", program.display()))
    }

    /// The firmware directories QEMU reads, for those of them that are packaged.
    pub(super) fn firmware(&self) -> Vec<PathBuf> {
        ["usr/share/qemu", "usr/share/seabios"]
            .into_iter()
            .map(|dir| self.root.join(dir))
            .filter(|dir| dir.is_dir())
            .collect()
    }
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, `linux-vdso.so.1 (0x…)`.
fn parse_ldd(listed: &str) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for line in listed.lines() {
        let what = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        ensure!(what != "not found", "a library is missing:{line}");
        let path = what.split(" (").next().unwrap_or(what);
        if path.starts_with('/') {
            libraries.insert(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

/// Fetches and unpacks into `root`. apt's lists and cache are our own, so no privilege and no earlier update is needed.
fn fetch(sh: &Shell, root: &Path) -> Result<()> {
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        ensure!(
            cmd!(sh, "{tool} --version").ignore_stdout().ignore_stderr().quiet().run().is_ok(),
            "{tool} is missing: the throw-away machines are made of Debian's packages and need a Debian host"
        );
    }
    let debs = root.join("debs");
    for dir in ["debs", "apt/lists/partial", "apt/cache/archives/partial"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let (lists, cache) = (root.join("apt/lists"), root.join("apt/cache"));
    let (lists, cache) = (lists.display(), cache.display());
    let own = [
        format!("-oDir::State::Lists={lists}"),
        format!("-oDir::Cache={cache}"),
        "-oAcquire::Languages=none".to_owned(),
        "-oAPT::Sandbox::User=".to_owned(),
        "-oDebug::NoLocking=1".to_owned(),
    ];
    let own = &own;

    // A third party's list that fails is none of ours: what we need and do not get fails below.
    eprintln!("vm: fetch Debian's kernel, QEMU and busybox (once)");
    let updated = cmd!(sh, "apt-get {own...} -q update").ignore_status().quiet().output()?;
    let wanted = WANTED;
    let missing = cmd!(
        sh,
        "apt-get {own...} -qq -y --print-uris --no-install-recommends install {wanted...}"
    )
    .quiet()
    .read()
    .with_context(|| String::from_utf8_lossy(&updated.stderr).into_owned())?;
    let mut packages: Vec<&str> = missing.lines().filter_map(package_of_uri).collect();
    let kernel = cmd!(sh, "apt-cache {own...} depends --important {KERNEL}").quiet().read()?;
    packages.push(
        kernel
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .with_context(|| format!("{KERNEL} names no kernel: {kernel}"))?,
    );

    let _there = sh.push_dir(&debs);
    cmd!(sh, "apt-get {own...} -qq download {packages...}").quiet().ignore_stderr().run()?;
    for deb in sh.read_dir(&debs)? {
        cmd!(sh, "dpkg-deb --extract {deb} {root}").quiet().run()?;
    }
    for done_with in ["debs", "apt"] {
        fs::remove_dir_all(root.join(done_with))?;
    }
    Ok(())
}

/// `'http://…/x_1_amd64.deb' x_1_amd64.deb 100 SHA256:…`
fn package_of_uri(line: &str) -> Option<&str> {
    let (name, _) = line.split(' ').nth(1)?.split_once('_')?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let libraries = parse_ldd(listed).expect("complete");
        let expected = ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries, expected.into());
        assert_eq!(parse_ldd("\tnot a dynamic executable\n").expect("static"), BTreeSet::new());
        assert!(parse_ldd("\tlibz.so.1 => not found\n").is_err());
    }

    #[test]
    fn packages_are_read_from_uris() {
        let line = "'http://mirror.example/x/strace_6.1-0.1_amd64.deb' strace_6.1-0.1_amd64.deb 1 SHA256:0";
        assert_eq!(package_of_uri(line), Some("strace"));
        assert_eq!(package_of_uri("Reading package lists..."), None);
    }
}
