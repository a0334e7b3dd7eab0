//! Which jailer and which Firecracker the tests run.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::kvm_works;

/// The directory with the stand-ins and the guests, as [`build::stand_ins`](crate::build::stand_ins) made it.
pub const STAND_INS_ENV: &str = "MICROVM_TEST_STAND_INS";
/// The jailer to test, instead of the first on the PATH.
pub const JAILER_ENV: &str = "MICROVM_JAILER_BIN";
/// The Firecracker to test, instead of the first on the PATH.
pub const FIRECRACKER_ENV: &str = "MICROVM_FIRECRACKER_BIN";
/// Other releases of the official jailer: files, or directories with files `jailer-v*`, separated by `:`.
pub const OLD_JAILERS_ENV: &str = "MICROVM_OLD_JAILERS";

const OLD_JAILERS_DEFAULT: &str = "/usr/local/lib/firecracker-official";

/// What a [`Binaries`] is a set of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BinaryKind {
    /// Firecracker's own release.
    Official {
        /// The version `jailer --version` prints, such as `1.16.1`.
        jailer: String,
        /// The version `firecracker --version` prints.
        firecracker: String,
    },
    /// Ours, under `tests/stand-ins`.
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

/// A jailer, a Firecracker and the guests to boot in it.
#[derive(Debug, Clone)]
pub struct Binaries {
    kind: BinaryKind,
    jailer: PathBuf,
    firecracker: PathBuf,
    stand_ins: PathBuf,
}

impl Binaries {
    /// The official ones where they are installed and KVM works, else the stand-ins; says once which.
    ///
    /// Looked for in `MICROVM_JAILER_BIN` and `MICROVM_FIRECRACKER_BIN`, then as `jailer` and `firecracker` on the PATH.
    ///
    /// # Panics
    /// When `MICROVM_TEST_STAND_INS` is unset (the guests come from there), or a variable names what is no jailer.
    #[must_use]
    pub fn find() -> Self {
        static SAID: Once = Once::new();
        let (binaries, why) = match (Self::official(), kvm_works()) {
            (Some(official), Ok(())) => (official, String::new()),
            (Some(official), Err(why)) => {
                (Self::stand_ins(), format!(" (there is the {}, but {why})", official.kind))
            }
            (None, _) => (Self::stand_ins(), String::new()),
        };
        SAID.call_once(|| println!("using: {}{why}", binaries.kind));
        binaries
    }

    /// The official ones, if both are installed; KVM may still not work.
    ///
    /// # Panics
    /// As [`Binaries::find`].
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

    /// The stand-ins.
    ///
    /// # Panics
    /// When `MICROVM_TEST_STAND_INS` is unset or names a directory without them.
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

    /// Each there is, for what must hold of both alike: this is how the stand-ins are kept honest.
    #[must_use]
    pub fn each() -> Vec<Self> {
        Self::official().into_iter().chain([Self::stand_ins()]).collect()
    }

    /// What they are.
    #[must_use]
    pub fn kind(&self) -> &BinaryKind {
        &self.kind
    }

    /// Whether they are Firecracker's own.
    #[must_use]
    pub fn are_official(&self) -> bool {
        self.kind != BinaryKind::StandIn
    }

    /// The jailer's absolute path.
    #[must_use]
    pub fn jailer(&self) -> &Path {
        &self.jailer
    }

    /// Firecracker's absolute path.
    #[must_use]
    pub fn firecracker(&self) -> &Path {
        &self.firecracker
    }

    /// A static program that prints one line on stdout, one on stderr, and exits 7: what a jailer does is seen by it.
    #[must_use]
    pub fn stub(&self) -> PathBuf {
        self.stand_ins.join("stub")
    }

    /// The VMM that attacks its launcher: by its file's name, `firecracker-<mode>`.
    #[must_use]
    pub fn hostile(&self) -> PathBuf {
        self.stand_ins.join("hostile")
    }

    /// The kernel that says its line and resets: the VMM exits 0.
    #[must_use]
    pub fn guest(&self) -> PathBuf {
        self.stand_ins.join("guest.elf")
    }

    /// The kernel that says its line and sleeps until Ctrl+Alt+Del arrives, then resets.
    #[must_use]
    pub fn idle_guest(&self) -> PathBuf {
        self.stand_ins.join("guest-idle.elf")
    }

    /// The kernel that says its line and never hears anything again: only a signal to the VMM ends it.
    #[must_use]
    pub fn deaf_guest(&self) -> PathBuf {
        self.stand_ins.join("guest-deaf.elf")
    }
}

/// What the guests print, and the VMM stand-in in their place.
pub const GUEST_LINE: &str = "microvm-runtime guest: hello from ring 0";

/// The other releases of the official jailer there are, as (version, path), oldest first.
///
/// From `MICROVM_OLD_JAILERS`, else those under `/usr/local/lib/firecracker-official`.
///
/// # Panics
/// When `MICROVM_OLD_JAILERS` names what does not exist.
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
            panic!("{OLD_JAILERS_ENV} names {}, which is not there", place.display());
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
        assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
        return Some(path);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The version a program prints after `prefix`.
fn version(program: &Path, prefix: &str) -> String {
    let output = match Command::new(program).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(err) => panic!("ask {} its version: {err}", program.display()),
    };
    match output.lines().find_map(|line| line.strip_prefix(prefix)) {
        Some(version) => version.trim().to_owned(),
        None => panic!("{} --version prints no {prefix:?}: {output:?}", program.display()),
    }
}
