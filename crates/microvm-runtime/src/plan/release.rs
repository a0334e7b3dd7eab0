//! The releases of the installed jailer and of a VM's Firecracker.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jail_cmd::JailerVersion;
use jail_fs::{Artifact, SourceStamp};
use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::host_file::Program;
use crate::sys::file::FileStat;
use crate::sys::process::effective_uid;
use crate::vmm::output;

/// A program of the Firecracker project: the very file, and its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownProgram {
    pub(crate) program: Program,
    pub(crate) release: JailerVersion,
}

/// The time limit for `--version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that are read of the output of `--version`.
const MOST: usize = 4 << 10;

/// Programs that are remembered.
const PROGRAMS: usize = 16;

/// The programs whose release was asked, each file once.
#[derive(Debug, Default)]
pub(crate) struct Releases(Mutex<Vec<Asked>>);

/// A program whose release was asked.
#[derive(Debug)]
struct Asked {
    program: Program,
    /// Another stamp means another content of the same file, as after a copy in place.
    stamp: SourceStamp,
    release: JailerVersion,
}

impl Releases {
    /// Finds the jailer and runs `jailer --version`, unless the file is known.
    pub(crate) fn jailer(&self, jailer_bin: &Path) -> Result<KnownProgram> {
        let program = Program::find("jailer", jailer_bin).map_err(|failure| {
            let installed =
                "Install Firecracker's jailer, or name it in `JailerConfig::jailer_bin`.";
            if failure.kind() == ErrorKind::NotFound { failure.hinted(installed) } else { failure }
        })?;
        let release = self.of(
            &program,
            "ask for the jailer's release",
            "Name Firecracker's official jailer in `JailerConfig::jailer_bin`.",
        )?;
        Ok(KnownProgram { program, release })
    }

    /// Runs `firecracker --version`, unless the file is known. The program runs as the launcher's user, outside of any jail.
    pub(crate) fn firecracker(&self, exec_file: &Program) -> Result<JailerVersion> {
        refuse_others(exec_file)?;
        self.of(
            exec_file,
            "ask for Firecracker's release",
            "The spec has options that not every release has: name an official Firecracker as the exec file.",
        )
    }

    fn of(&self, program: &Program, operation: &str, hint: &str) -> Result<JailerVersion> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the question: a file that changes meanwhile is asked again.
        let stamp = Artifact::open(program.path().as_path())?.stamp();
        let same = |asked: &&Asked| asked.program == *program && asked.stamp == stamp;
        if let Some(asked) = asked.iter().find(same) {
            return Ok(asked.release);
        }
        let release = ask(program, operation, hint)?;
        asked.retain(|asked| asked.program != *program);
        if asked.len() == PROGRAMS {
            asked.remove(0);
        }
        asked.push(Asked { program: program.clone(), stamp, release });
        Ok(release)
    }
}

/// Refuses a program that another user than root and the launcher's can change, or replace.
///
/// The jailer runs an exec file as the VM's user, in the jail. The question for the release runs the exec file as the
/// launcher's.
fn refuse_others(program: &Program) -> Result<()> {
    let operation = "ask for Firecracker's release";
    let own = effective_uid();
    for path in program.path().as_path().ancestors() {
        let stat = FileStat::of_path(path).map_err(|errno| {
            Error::new(ErrorKind::Filesystem, operation).path(path).source_of(errno)
        })?;
        let is_dir = stat.is_dir();
        // In a sticky directory, others can replace only what is theirs.
        let writable = if is_dir { 0o002 } else { 0o022 };
        let open = stat.mode() & writable != 0 && !(is_dir && stat.mode() & 0o1000 != 0);
        if open || ![0, own].contains(&stat.uid()) {
            let (uid, mode) = (stat.uid(), stat.mode() & 0o7777);
            return Err(Error::new(ErrorKind::Untrusted, operation)
                .path(path)
                .because(format!("it is uid {uid}'s, mode {mode:04o}, so that others can change the program"))
                .hinted("Keep the exec file where only root can change it, or leave out the options that not every release has."));
        }
    }
    Ok(())
}

fn ask(program: &Program, operation: &str, hint: &str) -> Result<JailerVersion> {
    let path = program.path().as_path();
    let printed = output(path, &["--version"], MOST, Deadline::after(VERSION_TIMEOUT))?;
    // Judged by its output alone: somebody else may have seen how it ended.
    let printed = String::from_utf8_lossy(&printed);
    printed.parse().map_err(|error: jail_cmd::Error| {
        let start: String = printed.lines().next().unwrap_or_default().chars().take(80).collect();
        Error::new(ErrorKind::Spawn, operation)
            .path(path)
            .because(format!("`--version` printed {start:?}: {}", error.reason()))
            .hinted(hint)
    })
}
