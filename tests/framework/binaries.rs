//! The jailer and the Firecracker that the tests run.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::kvm_works;

/// The directory of the stand-ins and the guests, made by [`build::stand_ins`](crate::build::stand_ins).
pub const STAND_INS_ENV: &str = "MICROVM_TEST_STAND_INS";
/// The jailer to test, instead of the first on the PATH.
pub const JAILER_ENV: &str = "MICROVM_JAILER_BIN";
/// The Firecracker to test, instead of the first on the PATH.
pub const FIRECRACKER_ENV: &str = "MICROVM_FIRECRACKER_BIN";
/// Other releases of the official jailer: files, or directories with files `jailer-v*`, separated by `:`.
pub const OLD_JAILERS_ENV: &str = "MICROVM_OLD_JAILERS";

const OLD_JAILERS_DEFAULT: &str = "/usr/local/lib/firecracker-official";

/// The origin of a set of [`Binaries`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BinaryKind {
    /// A release of the Firecracker project.
    Official {
        /// The version `jailer --version` prints, such as `1.16.1`.
        jailer: String,
        /// The version `firecracker --version` prints.
        firecracker: String,
    },
    /// Our programs under `tests/stand-ins`.
    StandIn,
}

impl fmt::Display for BinaryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Official { jailer, firecracker } => {
                write!(f, "official jailer v{jailer}, firecracker v{firecracker}")
            }
            Self::StandIn => f.write_str("stand-ins"),
        }
    }
}

/// A jailer, a Firecracker and guests.
#[derive(Debug, Clone)]
pub struct Binaries {
    kind: BinaryKind,
    jailer: PathBuf,
    firecracker: PathBuf,
    stand_ins: PathBuf,
}

impl Binaries {
    /// Returns the official binaries if both are installed and KVM works, or else the stand-ins. Prints the choice
    /// once.
    ///
    /// The search covers `MICROVM_JAILER_BIN` and `MICROVM_FIRECRACKER_BIN`, then `jailer` and `firecracker` on the
    /// PATH.
    ///
    /// # Panics
    /// If `MICROVM_TEST_STAND_INS`, the directory of the guests, is unset, or if a variable names a wrong program.
    #[must_use]
    pub fn find() -> Self {
        static PRINTED: Once = Once::new();
        let (binaries, why) = match (Self::official(), kvm_works()) {
            (Some(official), Ok(())) => (official, String::new()),
            (Some(official), Err(why)) => {
                (Self::stand_ins(), format!(" (the {} is installed, but {why})", official.kind))
            }
            (None, _) => (Self::stand_ins(), String::new()),
        };
        PRINTED.call_once(|| println!("using: {}{why}", binaries.kind));
        binaries
    }

    /// Returns the official binaries if both are installed. KVM may be unavailable.
    ///
    /// # Panics
    /// See [`Binaries::find`].
    #[must_use]
    pub fn official() -> Option<Self> {
        let jailer = named_or_on_path(JAILER_ENV, "jailer")?;
        let firecracker = named_or_on_path(FIRECRACKER_ENV, "firecracker")?;
        let stand_ins = stand_ins_dir();
        if jailer.starts_with(&stand_ins) || firecracker.starts_with(&stand_ins) {
            return None;
        }
        let kind = BinaryKind::Official {
            jailer: version(&jailer, "Jailer v"),
            firecracker: version(&firecracker, "Firecracker v"),
        };
        Some(Self { kind, jailer, firecracker, stand_ins })
    }

    /// Returns the stand-ins.
    ///
    /// # Panics
    /// If `MICROVM_TEST_STAND_INS` is unset or names a directory without guests.
    #[must_use]
    pub fn stand_ins() -> Self {
        let stand_ins = stand_ins_dir();
        Self {
            kind: BinaryKind::StandIn,
            jailer: stand_ins.join("jailer"),
            firecracker: stand_ins.join("firecracker"),
            stand_ins,
        }
    }

    /// Returns the stand-ins, and the official binaries if installed. A test on both proves that the stand-ins behave
    /// like the official binaries.
    #[must_use]
    pub fn each() -> Vec<Self> {
        Self::official().into_iter().chain([Self::stand_ins()]).collect()
    }

    /// Returns the origin of the binaries.
    #[must_use]
    pub fn kind(&self) -> &BinaryKind {
        &self.kind
    }

    /// Returns true for the official binaries.
    #[must_use]
    pub fn are_official(&self) -> bool {
        self.kind != BinaryKind::StandIn
    }

    /// Returns the jailer's absolute path.
    #[must_use]
    pub fn jailer(&self) -> &Path {
        &self.jailer
    }

    /// Returns Firecracker's absolute path.
    #[must_use]
    pub fn firecracker(&self) -> &Path {
        &self.firecracker
    }

    /// Returns a static program that prints one line on stdout and one line on stderr, and exits with 7.
    #[must_use]
    pub fn stub(&self) -> PathBuf {
        self.stand_ins.join("stub")
    }

    /// Returns the VMM that attacks the launcher. The file name `firecracker-<mode>` selects the attack.
    #[must_use]
    pub fn hostile(&self) -> PathBuf {
        self.stand_ins.join("hostile")
    }

    /// Returns the kernel that prints [`GUEST_LINE`] and resets. The VMM then exits with 0.
    #[must_use]
    pub fn guest(&self) -> PathBuf {
        self.stand_ins.join("guest.elf")
    }

    /// Returns the kernel that prints [`GUEST_LINE`], sleeps until Ctrl+Alt+Del arrives, and resets.
    #[must_use]
    pub fn idle_guest(&self) -> PathBuf {
        self.stand_ins.join("guest-idle.elf")
    }

    /// Returns the kernel that prints [`GUEST_LINE`] and then ignores Ctrl+Alt+Del. Only a signal ends the VMM.
    #[must_use]
    pub fn deaf_guest(&self) -> PathBuf {
        self.stand_ins.join("guest-deaf.elf")
    }
}

/// The line that the guests print; the VMM stand-in prints the same line.
pub const GUEST_LINE: &str = "microvm-runtime guest: hello from ring 0";

/// Lists other releases of the official jailer as (version, path), oldest first.
///
/// The releases come from `MICROVM_OLD_JAILERS`, or else from `/usr/local/lib/firecracker-official`.
///
/// # Panics
/// If `MICROVM_OLD_JAILERS` names a path that does not exist.
#[must_use]
pub fn older_jailers() -> Vec<(String, PathBuf)> {
    let asked = env::var_os(OLD_JAILERS_ENV);
    let places = asked.clone().unwrap_or_else(|| OLD_JAILERS_DEFAULT.into());
    let mut found = Vec::new();
    for place in env::split_paths(&places) {
        if place.is_file() {
            found.push(place);
        } else if let Ok(entries) = place.read_dir() {
            found.extend(entries.flatten().map(|entry| entry.path()).filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jailer-v"))
            }));
        } else if asked.is_some() {
            panic!("{OLD_JAILERS_ENV} names {}, which does not exist", place.display());
        }
    }
    let mut jailers: Vec<_> =
        found.into_iter().map(|path| (version(&path, "Jailer v"), path)).collect();
    jailers.sort_by_key(|(version, _)| {
        version.split('.').filter_map(|number| number.parse::<u32>().ok()).collect::<Vec<_>>()
    });
    jailers
}

fn stand_ins_dir() -> PathBuf {
    let dir = env::var_os(STAND_INS_ENV).map(PathBuf::from);
    match dir {
        Some(dir) if dir.join("guest.elf").is_file() => dir,
        Some(dir) => panic!("{} has no guest.elf; run cargo xtask test-root", dir.display()),
        None => panic!("{STAND_INS_ENV} is not set; run cargo xtask test-root"),
    }
}

fn named_or_on_path(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable).map(PathBuf::from) {
        assert!(path.is_file(), "{variable} names {}, which is not a file", path.display());
        return Some(path);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Returns the version that a program prints after `prefix`.
fn version(program: &Path, prefix: &str) -> String {
    let output = match Command::new(program).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(err) => panic!("run {} --version: {err}", program.display()),
    };
    match output.lines().find_map(|line| line.strip_prefix(prefix)) {
        Some(version) => version.trim().to_owned(),
        None => panic!("{} --version prints no {prefix:?}: {output:?}", program.display()),
    }
}
