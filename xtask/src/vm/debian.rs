//! The Debian packages of a machine: fetched and unpacked as the calling user, without installation.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

/// The package that depends on a suite's current kernel.
const KERNEL: &str = "linux-image-cloud-amd64";

/// The packages for host and guest: the emulator, the guest's userland, the tools that root tests call, and programs
/// that unpack kernel modules.
const TOOLS: [&str; 8] = [
    "qemu-system-x86",
    "busybox-static",
    "e2fsprogs",
    "xfsprogs",
    "btrfs-progs",
    "strace",
    "xz-utils",
    "zstd",
];

/// The library directories of Debian's amd64 packages.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// Debian's keyring, named in our list of sources if the keyring is installed.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that machines run, from a suite of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kernel {
    /// Debian 11's 5.10, the oldest supported.
    Oldest,
    /// Debian 12's 6.1.
    Stable,
    /// Debian 13's 6.12. Unstable's 7.2 boots too, but stalls in QEMU's emulation once a process spins on one node.
    Newest,
}

impl Kernel {
    pub(crate) const ALL: [Self; 3] = [Self::Oldest, Self::Stable, Self::Newest];

    fn suite(self) -> &'static str {
        match self {
            Self::Oldest => "bullseye",
            Self::Stable => "bookworm",
            Self::Newest => "trixie",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oldest => "5.10",
            Self::Stable => "6.1",
            Self::Newest => "6.12",
        })
    }
}

/// The unpacked packages of one kernel.
#[derive(Debug, Clone)]
pub(super) struct KernelFiles {
    /// The release, as `uname -r` prints.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// The directory of the kernel's modules.
    pub(super) modules: PathBuf,
}

/// The packages with programs, unpacked into one directory.
///
/// A package that is installed on the host is not fetched: programs and libraries of the host are used then.
#[derive(Debug)]
pub(super) struct Debian {
    vm: PathBuf,
    root: PathBuf,
}

impl Debian {
    /// Fetches the packages into `vm` with apt-get and dpkg-deb, unless `vm` contains the packages. The state of the
    /// host's package manager does not change.
    pub(super) fn at(sh: &Shell, vm: &Path) -> Result<Self> {
        let root = vm.join("tools");
        once(&root, |fetched| {
            let apt = Apt::new(sh, fetched, None)?;
            let tools = TOOLS;
            let missing = apt.read(
                "apt-get",
                &[&["-qq", "-y", "--print-uris", "--no-install-recommends", "install"], &tools[..]]
                    .concat(),
            )?;
            apt.unpack(&missing.lines().filter_map(package_of_uri).collect::<Vec<_>>(), fetched)
        })
        .context("fetch Debian's QEMU and busybox")?;
        Ok(Self { vm: vm.to_owned(), root })
    }

    /// Fetches the kernel, unless an earlier run has fetched that kernel.
    pub(super) fn kernel(&self, sh: &Shell, kernel: Kernel) -> Result<KernelFiles> {
        let root = self.vm.join(format!("linux-{}", kernel.suite()));
        once(&root, |fetched| {
            let apt = Apt::new(sh, fetched, Some(kernel.suite()))?;
            apt.unpack(&apt.kernel_packages(KERNEL)?, fetched)
        })
        .with_context(|| format!("fetch the kernel of Debian's {}", kernel.suite()))?;
        // Older packages use /lib and /boot; newer packages use /usr/lib/modules for everything.
        let modules = ["usr/lib/modules", "lib/modules"].map(|dir| root.join(dir));
        let modules =
            modules.iter().find(|dir| dir.is_dir()).context("the kernel has no modules")?;
        let entry = fs::read_dir(modules)?.next().context("the kernel has no modules")??;
        let release = entry.file_name().into_string().ok().context("a release is plain text")?;
        let images = [root.join(format!("boot/vmlinuz-{release}")), entry.path().join("vmlinuz")];
        let image = images.into_iter().find(|path| path.is_file());
        Ok(KernelFiles {
            image: image.context("the kernel has no image")?,
            modules: entry.path(),
            release,
        })
    }

    /// Finds the program `name` among the packages, or else on the PATH.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        let packaged =
            ["usr/bin", "usr/sbin", "bin", "sbin"].map(|dir| self.root.join(dir).join(name));
        packaged.into_iter().find(|path| path.is_file()).or_else(|| crate::setup::find(name)).with_context(|| {
            format!("{name} is neither among the packages nor on the PATH; remove {} to fetch them anew", self.root.display())
        })
    }

    /// Returns the `LD_LIBRARY_PATH` for packaged programs. Other libraries come from the host.
    pub(super) fn library_path(&self) -> Result<OsString> {
        Ok(std::env::join_paths(LIBRARIES.map(|dir| self.root.join(dir)))?)
    }

    /// Lists the shared libraries and the loader of `program`; a static program has none. ldd(1)
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

    /// Lists the packaged firmware directories of QEMU.
    pub(super) fn firmware(&self) -> Vec<PathBuf> {
        ["usr/share/qemu", "usr/share/seabios"]
            .into_iter()
            .map(|dir| self.root.join(dir))
            .filter(|dir| dir.is_dir())
            .collect()
    }
}

/// Fills a directory with `make`, unless the directory exists. A rename publishes the complete directory.
fn once(dir: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if dir.exists() {
        return Ok(());
    }
    let partial = dir.with_extension(format!("partial-{}", std::process::id()));
    fs::create_dir_all(&partial)?;
    let made = make(&partial).and_then(|()| match fs::rename(&partial, dir) {
        // Another run has made the directory meanwhile.
        Err(_) if dir.exists() => Ok(()),
        renamed => Ok(renamed?),
    });
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    made
}

/// Parses `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, `linux-vdso.so.1 (0x…)`.
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

/// apt-get with private lists and a private cache: needs no privilege and no earlier update.
struct Apt<'a> {
    sh: &'a Shell,
    dir: tempfile::TempDir,
    options: Vec<String>,
}

impl<'a> Apt<'a> {
    /// Fetches the package lists of the host's sources, or of `suite` from the host's mirror.
    fn new(sh: &'a Shell, near: &Path, suite: Option<&str>) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            ensure!(
                crate::setup::find(tool).is_some(),
                "{tool} is missing: the machines consist of Debian packages and need a Debian host"
            );
        }
        let dir = tempfile::tempdir_in(near)?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(at(name))?;
        }
        let mut options = vec![
            format!("-oDir::State::Lists={}", at("lists")),
            format!("-oDir::Cache={}", at("cache")),
            "-oAcquire::Languages=none".to_owned(),
            "-oAPT::Sandbox::User=".to_owned(),
            "-oDebug::NoLocking=1".to_owned(),
        ];
        if let Some(suite) = suite {
            let targets = cmd!(sh, "apt-get indextargets --format '$(COMPONENT) $(REPO_URI)'")
                .quiet()
                .read()?;
            let mirror =
                mirror(&targets).context("apt has no source of Debian's main component")?;
            let keys = if Path::new(KEYRING).exists() {
                format!(" signed-by={KEYRING}")
            } else {
                String::new()
            };
            fs::write(
                at("sources.list"),
                format!("deb [arch=amd64{keys}] {mirror} {suite} main\n"),
            )?;
            options.push(format!("-oDir::Etc::SourceList={}", at("sources.list")));
            options.push(format!("-oDir::Etc::SourceParts={}", at("none")));
        }
        eprintln!(
            "machines: fetching packages of Debian {} (once)",
            suite.unwrap_or("(this host)")
        );
        let apt = Self { sh, dir, options };
        let updated = apt.read("apt-get", &["-q", "update"]);
        // A failed list of a third party does not matter: a missing package fails later.
        if suite.is_some() {
            updated?;
        }
        Ok(apt)
    }

    fn read(&self, tool: &str, arguments: &[&str]) -> Result<String> {
        let options = &self.options;
        let output =
            cmd!(self.sh, "{tool} {options...} {arguments...}").quiet().ignore_status().output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{tool} {}: {}", arguments.join(" "), stderr.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Lists the kernel packages that `package` depends on: one package, or several since Debian 14.
    fn kernel_packages(&self, package: &str) -> Result<Vec<String>> {
        let listed = self.read("apt-cache", &["depends", "--important", package])?;
        let mut found = Vec::new();
        for name in listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")) {
            if ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"]
                .iter()
                .any(|kind| name.starts_with(kind))
            {
                found.push(name.to_owned());
                found.extend(self.kernel_packages(name)?);
            }
        }
        if package == KERNEL && found.is_empty() {
            bail!("{KERNEL} names no kernel: {listed}");
        }
        Ok(found)
    }

    /// Fetches and unpacks the packages into `root`.
    fn unpack(&self, packages: &[impl AsRef<str>], root: &Path) -> Result<()> {
        let debs = self.dir.path().join("debs");
        fs::create_dir_all(&debs)?;
        let _there = self.sh.push_dir(&debs);
        let packages = packages.iter().map(AsRef::as_ref);
        self.read("apt-get", &["-qq", "download"].into_iter().chain(packages).collect::<Vec<_>>())?;
        for deb in self.sh.read_dir(&debs)? {
            cmd!(self.sh, "dpkg-deb --extract {deb} {root}").quiet().run()?;
        }
        Ok(())
    }
}

/// Returns the mirror in `main https://mirror.example/debian/`; skips the archive of security updates.
fn mirror(targets: &str) -> Option<&str> {
    targets
        .lines()
        .filter_map(|line| line.strip_prefix("main "))
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
}

/// Returns the package of a line `'http://…/x_1_amd64.deb' x_1_amd64.deb 100 SHA256:…`.
fn package_of_uri(line: &str) -> Option<&str> {
    let (name, _) = line.split(' ').nth(1)?.split_once('_')?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_output_is_parsed() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let libraries = parse_ldd(listed).expect("complete");
        let expected = ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries, expected.into());
        assert_eq!(parse_ldd("\tnot a dynamic executable\n").expect("static"), BTreeSet::new());
        assert!(parse_ldd("\tlibz.so.1 => not found\n").is_err());
    }

    #[test]
    fn apt_lines_are_parsed() {
        let line = "'http://mirror.example/x/strace_6.1-0.1_amd64.deb' strace_6.1-0.1_amd64.deb 1 SHA256:0";
        assert_eq!(package_of_uri(line), Some("strace"));
        assert_eq!(package_of_uri("Reading package lists..."), None);
        let targets = "main http://a.example/debian-security/\ncontrib http://a.example/debian/\nmain http://a.example/debian/\n";
        assert_eq!(mirror(targets), Some("http://a.example/debian/"));
    }
}
