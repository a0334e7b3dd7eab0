//! One jailer on a bench: a base of its own, a stub to start, and what came of it.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jail_cmd::JailerVersion;
use testkit::{Binaries, BinaryKind, KillOnDrop, Scratch, skip, unique};

pub(crate) const UID: u32 = 51_001;
pub(crate) const GID: u32 = 51_002;

/// The first release of which every line is true; what an older one does differently is in a table of its own.
const JUDGED_FROM: JailerVersion = JailerVersion::new(1, 15, 0);

/// The environment variable by which the stand-in acts as an older release.
const RELEASE_ENV: &str = "MICROVM_STAND_IN_RELEASE";

/// A jailer under test, with all files that the jailer needs.
pub(crate) struct Rig {
    pub(crate) name: String,
    pub(crate) release: JailerVersion,
    pub(crate) binaries: Binaries,
    pub(crate) scratch: Scratch,
    /// A parent for control groups that nobody else has.
    pub(crate) parent: String,
    jailer: PathBuf,
    acts_as: Option<String>,
}

impl Rig {
    /// The newest jailers: the official one, where it is installed, and the stand-in. An older installed one is left to
    /// [`Rig::older`].
    pub(crate) fn each() -> Vec<Self> {
        let rigs = Binaries::each().into_iter().filter_map(|binaries| {
            let release = match binaries.kind() {
                BinaryKind::Official { jailer, .. } => jailer.parse().unwrap(),
                _ => JailerVersion::NEWEST,
            };
            if release < JUDGED_FROM {
                let test = std::thread::current().name().unwrap_or("contract").to_owned();
                let why = format!("the contract is that of {JUDGED_FROM} and later");
                skip(&format!("{test} ({})", binaries.kind()), &why);
                return None;
            }
            let jailer = binaries.jailer().to_owned();
            Some(Self::new(binaries.kind().to_string(), release, binaries, jailer, None))
        });
        rigs.collect()
    }

    /// Older releases: the official ones there are, and the stand-in acting as each of `releases`.
    pub(crate) fn older(releases: &[&str]) -> (Vec<Self>, Vec<Self>) {
        let official = testkit::older_jailers().into_iter().map(|(version, path)| {
            Self::new(
                format!("official {version}"),
                version.parse().unwrap(),
                Binaries::stand_ins(),
                path,
                None,
            )
        });
        let acted = releases.iter().map(|release| {
            let binaries = Binaries::stand_ins();
            let jailer = binaries.jailer().to_owned();
            let name = format!("stand-in as {release}");
            Self::new(name, release.parse().unwrap(), binaries, jailer, Some((*release).to_owned()))
        });
        (official.collect(), acted.collect())
    }

    fn new(
        name: String,
        release: JailerVersion,
        binaries: Binaries,
        jailer: PathBuf,
        acts_as: Option<String>,
    ) -> Self {
        let scratch = Scratch::new("contract");
        std::fs::copy(binaries.stub(), scratch.join("firecracker")).unwrap();
        Self { name, release, binaries, scratch, parent: unique("contract"), jailer, acts_as }
    }

    /// A launch into a fresh base, with everything required and nothing else.
    pub(crate) fn launch(&self) -> Launch<'_> {
        Launch {
            rig: self,
            base: self.scratch.dir(unique("base")),
            exec_file: self.scratch.join("firecracker"),
            id: "vm-1".to_owned(),
            uid: UID.to_string(),
            gid: GID.to_string(),
            more: Vec::new(),
            firecracker: Vec::new(),
        }
    }

    /// Runs the jailer with exactly these arguments.
    pub(crate) fn bare(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command().args(args))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.jailer);
        command.stdin(Stdio::null());
        if let Some(release) = &self.acts_as {
            command.env(RELEASE_ENV, release);
        }
        command
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        testkit::remove_cgroup(&self.parent);
    }
}

/// A command line in the making.
#[derive(Clone)]
pub(crate) struct Launch<'a> {
    rig: &'a Rig,
    pub(crate) base: PathBuf,
    pub(crate) exec_file: PathBuf,
    pub(crate) id: String,
    pub(crate) uid: String,
    pub(crate) gid: String,
    more: Vec<OsString>,
    firecracker: Vec<String>,
}

impl Launch<'_> {
    /// Adds items before the `--`.
    pub(crate) fn with(mut self, items: &[&str]) -> Self {
        self.more.extend(items.iter().map(OsString::from));
        self
    }

    /// Adds items after the `--`.
    pub(crate) fn stub(mut self, items: &[&str]) -> Self {
        self.firecracker.extend(items.iter().map(|&item| item.to_owned()));
        self
    }

    /// Returns the path of the jail's root.
    pub(crate) fn root(&self) -> PathBuf {
        self.base.join(self.exec_file.file_name().unwrap()).join(&self.id).join("root")
    }

    /// Makes the jail's root and the directory `dir` there, before the jailer runs; returns the path of `dir`.
    pub(crate) fn stage(&self, dir: &str) -> PathBuf {
        let dir = self.root().join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = self.rig.command();
        command
            .args(["--id", &self.id])
            .arg("--exec-file")
            .arg(&self.exec_file)
            .args(["--uid", &self.uid, "--gid", &self.gid])
            .arg("--chroot-base-dir")
            .arg(&self.base)
            .args(&self.more)
            .arg("--")
            .args(&self.firecracker);
        command
    }

    /// Runs the jailer to the end.
    pub(crate) fn run(&self) -> Outcome {
        Outcome::of(&mut self.command())
    }

    /// Starts the jailer and waits until the stub holds; dropping the result kills the process.
    pub(crate) fn hold(&self) -> KillOnDrop {
        let launch = self.clone().stub(&["--hold"]);
        held(&mut launch.command())
    }
}

/// Starts the command and waits for the stub's first line. The stub's stdin is the child's.
pub(crate) fn held(command: &mut Command) -> KillOnDrop {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = KillOnDrop::spawn(command);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("stub: --id "), "{line:?}");
    child
}

/// The result of a jailer's run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        Self {
            code: status.code(),
            signal: status.signal(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Asserts that the stub ran and that the jailer passed the status on.
    #[track_caller]
    pub(crate) fn assert_started(&self, what: impl std::fmt::Debug) {
        assert_eq!(self.code, Some(7), "{what:?}: {self:?}");
        assert!(self.stdout.contains("stub: --id "), "{what:?}: {self:?}");
    }

    /// Asserts a refusal with `message`, in the words and form of `release`; the stub did not run.
    #[track_caller]
    pub(crate) fn assert_refused(&self, what: impl std::fmt::Debug, message: &str) {
        assert_eq!(self.code, Some(1), "{what:?}: {self:?}");
        let (first, rest) = self.stderr.split_once('\n').unwrap_or((&self.stderr, ""));
        assert!(first.contains(message), "{what:?}: {message:?} is not in {self:?}");
        // The hint of one message takes a line of its own.
        assert!(rest.lines().any(|line| line.starts_with("Error: ")), "{what:?}: {self:?}");
        assert!(!self.stdout.contains("stub: "), "{what:?}: {self:?}");
    }
}

/// The text of `/proc/<pid>/<file>`.
pub(crate) fn proc(pid: u32, file: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned()
}

/// The path of a process in the hierarchy of a v1 controller, or in v2's with an empty name.
pub(crate) fn cgroup_of(pid: u32, controller: &str) -> Option<String> {
    proc(pid, "cgroup").lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let found = match controller {
            "" => number == "0",
            _ => controllers.split(',').any(|one| one == controller),
        };
        found.then(|| path.to_owned())
    })
}

/// Returns the mount point of a v1 controller's hierarchy, or of v2 for an empty name.
pub(crate) fn hierarchy(controller: &str) -> Option<PathBuf> {
    testkit::mounts::all().into_iter().find_map(|mount| {
        let found = match controller {
            "" => mount.fstype == "cgroup2",
            _ => {
                mount.fstype == "cgroup"
                    && mount.super_options.split(',').any(|option| option == controller)
            }
        };
        found.then_some(mount.point)
    })
}

/// Returns true if v2 offers the controller.
pub(crate) fn v2_has(controller: &str) -> bool {
    hierarchy("").is_some_and(|top: PathBuf| {
        std::fs::read_to_string(top.join("cgroup.controllers"))
            .is_ok_and(|list| list.split_whitespace().any(|one| one == controller))
    })
}

/// Returns true for an ELF file that needs a dynamic loader.
pub(crate) fn is_dynamic(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|image| {
        image.starts_with(b"\x7fELF")
            && image[..image.len().min(4096)].windows(5).any(|at| at == b"/ld-l" || at == b"/ld-m")
    })
}
