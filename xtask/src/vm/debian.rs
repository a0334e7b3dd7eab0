//! What a machine is made of, from Debian's packages: fetched and unpacked as the calling user, installed nowhere.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

/// The package that depends on a suite's current kernel.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What the host runs and the guest needs: the emulator, the guest's userland, the tools that root tests call, and what
/// unpacks kernel modules.
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

/// Where Debian's amd64 packages keep shared libraries.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// Debian's keys: named in our own list of sources where the package of that name has put them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The kernels that machines run, by the suite of Debian that has them.
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
    /// What `uname -r` prints.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// The directory with its modules.
    pub(super) modules: PathBuf,
}

/// The packages with programs, unpacked side by side in a directory of ours.
///
/// A package that the host has installed is used from there, as are the libraries its packages share with ours.
#[derive(Debug)]
pub(super) struct Debian {
    vm: PathBuf,
    root: PathBuf,
}

impl Debian {
    /// Takes what is under `vm`, else fetches it there with apt-get and dpkg-deb; the system's own state stays as it is.
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

    /// Takes the kernel from under `vm`, else fetches it there.
    pub(super) fn kernel(&self, sh: &Shell, kernel: Kernel) -> Result<KernelFiles> {
        let root = self.vm.join(format!("linux-{}", kernel.suite()));
        once(&root, |fetched| {
            let apt = Apt::new(sh, fetched, Some(kernel.suite()))?;
            apt.unpack(&apt.kernel_packages(KERNEL)?, fetched)
        })
        .with_context(|| format!("fetch the kernel of Debian's {}", kernel.suite()))?;
        // Older packages have /lib and /boot; newer ones keep all of it in /usr/lib/modules.
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

    /// Where the program `name` is: among the packages, else on the PATH.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        let packaged =
            ["usr/bin", "usr/sbin", "bin", "sbin"].map(|dir| self.root.join(dir).join(name));
        packaged.into_iter().find(|path| path.is_file()).or_else(|| crate::setup::find(name)).with_context(|| {
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

/// Has `make` fill a directory, unless it is there; a half-filled one never has its name.
fn once(dir: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if dir.exists() {
        return Ok(());
    }
    let partial = dir.with_extension(format!("partial-{}", std::process::id()));
    fs::create_dir_all(&partial)?;
    let made = make(&partial).and_then(|()| match fs::rename(&partial, dir) {
        // Another run was quicker.
        Err(_) if dir.exists() => Ok(()),
        renamed => Ok(renamed?),
    });
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    made
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

/// apt with lists and a cache of our own, so that neither a privilege nor an earlier update is needed.
struct Apt<'a> {
    sh: &'a Shell,
    dir: tempfile::TempDir,
    options: Vec<String>,
}

impl<'a> Apt<'a> {
    /// Reads the lists of the host's own sources, or of `suite` on the mirror that these name.
    fn new(sh: &'a Shell, near: &Path, suite: Option<&str>) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            ensure!(
                crate::setup::find(tool).is_some(),
                "{tool} is missing: the machines are made of Debian's packages and need a Debian host"
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
        eprintln!("machines: fetch from Debian's {} (once)", suite.unwrap_or("own suite"));
        let apt = Self { sh, dir, options };
        let updated = apt.read("apt-get", &["-q", "update"]);
        // A third party's list that fails is none of ours: what we need and do not get fails later.
        if suite.is_some() {
            updated?;
        }
        Ok(apt)
    }

    fn read(&self, tool: &str, arguments: &[&str]) -> Result<String> {
        let options = &self.options;
        let output =
            cmd!(self.sh, "{tool} {options...} {arguments...}").quiet().ignore_status().output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{tool} {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The packages of the kernel that `package` depends on: one, or since Debian 14 several.
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

    /// Fetches the packages and unpacks them into `root`.
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

/// The mirror in `main https://mirror.example/debian/`: Debian's main archive, not that of its security updates.
fn mirror(targets: &str) -> Option<&str> {
    targets
        .lines()
        .filter_map(|line| line.strip_prefix("main "))
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
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
    fn apts_lines_are_read() {
        let line = "'http://mirror.example/x/strace_6.1-0.1_amd64.deb' strace_6.1-0.1_amd64.deb 1 SHA256:0";
        assert_eq!(package_of_uri(line), Some("strace"));
        assert_eq!(package_of_uri("Reading package lists..."), None);
        let targets = "main http://a.example/debian-security/\ncontrib http://a.example/debian/\nmain http://a.example/debian/\n";
        assert_eq!(mirror(targets), Some("http://a.example/debian/"));
    }
}
