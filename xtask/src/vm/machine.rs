//! Runs QEMU until the machine exits, prints nothing for too long, or exceeds the time limit.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::debian::{Debian, KernelFiles};
use super::payload::Payload;
use super::{Layout, Shared, initramfs};

/// The disks of a guest: `/var/tmp` on ext4, and a bare disk that tests may write to. Both are sparse.
const DISKS: [(&str, u64); 2] = [("disk.img", 8 << 30), ("scratch.img", 256 << 20)];

/// The accelerator of the guest's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// KVM, through `/dev/kvm`.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

/// The configuration of a machine.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) sh: &'a Shell,
    pub(super) debian: &'a Debian,
    pub(super) kernel: &'a KernelFiles,
    pub(super) layout: Layout,
    pub(super) accelerator: Accelerator,
    /// The directory of the initramfs, the disks and the logs.
    pub(super) place: PathBuf,
}

/// The timeouts of a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The longest time without output.
    pub(super) silent: Duration,
    /// The longest time in total.
    pub(super) all: Duration,
}

impl Patience {
    /// Returns timeouts that only a hung machine exceeds: a run takes minutes, and a long run takes hours.
    pub(super) fn new(long: bool) -> Self {
        let minutes =
            |short: u64, longer: u64| Duration::from_secs(60 * if long { longer } else { short });
        Self { silent: minutes(10, 120), all: minutes(60, 720) }
    }
}

/// The result of a machine.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) end: End,
    /// The file with the output of the kernel and the tests.
    pub(super) console: PathBuf,
    /// The last lines of that file and of QEMU's messages.
    pub(super) tail: String,
}

/// The end of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// QEMU exited: the guest powered off, or the kernel panicked.
    Exited(ExitStatus),
    /// The machine was killed after this time without output.
    Silent(Duration),
    /// The machine was killed after this time in total.
    Overdue(Duration),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "the machine ended ({status})"),
            Self::Silent(time) => write!(f, "the machine hung: silent for {} s", time.as_secs()),
            Self::Overdue(time) => {
                write!(f, "the machine did not finish within {} s", time.as_secs())
            }
        }
    }
}

impl Machine<'_> {
    /// Boots the machine with this payload and waits for the end. Calls `on_line` for each line that the guest reports.
    pub(super) fn run(
        &self,
        payload: &Payload,
        patience: Patience,
        progress: &Shared,
        on_line: impl FnMut(&str) -> Option<String>,
    ) -> Result<Run> {
        fs::create_dir_all(&self.place)?;
        self.disks()?;
        initramfs::write(
            self.sh,
            self.debian,
            self.kernel,
            payload,
            &self.place.join("initramfs.cpio"),
        )?;
        let [console, report, emulator] =
            ["console.log", "report.log", "qemu.log"].map(|name| self.place.join(name));
        for log in [&console, &report] {
            File::create(log).with_context(|| format!("make {}", log.display()))?;
        }
        let mut qemu = self.qemu()?;
        qemu.current_dir(&self.place).stdin(Stdio::null()).stdout(Stdio::null());
        qemu.stderr(File::create(&emulator)?);
        let end = watch(qemu, &report, &console, patience, progress, on_line)?;
        let tail = format!("{}{}", tail(&console, 40)?, tail(&emulator, 10)?);
        // A test may have filled the disks with gigabytes.
        for disk in DISKS {
            fs::remove_file(self.place.join(disk.0))?;
        }
        Ok(Run { end, console, tail })
    }

    /// Returns the command line. File names are relative to the machine's directory, because QEMU splits options at
    /// commas.
    fn qemu(&self) -> Result<Command> {
        let layout = self.layout;
        // The kernel kills the machine if xtask dies. prctl(2), PR_SET_PDEATHSIG
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--"]).arg(self.debian.program("qemu-system-x86_64")?);
        qemu.env("LD_LIBRARY_PATH", self.debian.library_path()?);
        for firmware in self.debian.firmware() {
            qemu.arg("-L").arg(firmware);
        }
        let accelerator = match self.accelerator {
            Accelerator::Kvm => "kvm",
            // One thread for both processors. With a thread for each, QEMU before 8.1 may run a stale translation of
            // code that the other processor changes. The kernel changes code often: each first v1 freeze, quota or
            // cpuset switches static branches.
            Accelerator::Tcg => "tcg,thread=single",
        };
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "1024"])
            // Two nodes with one processor each, for tests of NUMA limits.
            .args([
                "-object",
                "memory-backend-ram,id=near,size=512M",
                "-numa",
                "node,cpus=0,memdev=near",
            ])
            .args([
                "-object",
                "memory-backend-ram,id=far,size=512M",
                "-numa",
                "node,cpus=1,memdev=far",
            ])
            .args(["-drive", "file=disk.img,format=raw,if=virtio,cache=unsafe"])
            .args(["-drive", "file=scratch.img,format=raw,if=virtio,cache=unsafe"])
            .args(["-serial", "file:console.log", "-serial", "file:report.log"]);
        let arguments = [
            "console=ttyS0 quiet loglevel=4 random.trust_cpu=on",
            // An oops or a panic of the kernel ends the machine, so that the host notices at once.
            "panic=-1 oops=panic",
            // The check counts ticks of an emulated timer against a loop, and panics if the host is busy.
            "no_timer_check",
            layout.kernel_argument(),
            &format!("layout={layout}"),
        ];
        qemu.arg("-kernel").arg(&self.kernel.image).args(["-initrd", "initramfs.cpio"]);
        qemu.arg("-append").arg(arguments.join(" "));
        Ok(qemu)
    }

    /// Makes new disks on the host, which is faster than in the guest.
    fn disks(&self) -> Result<()> {
        for (name, size) in DISKS {
            let path = self.place.join(name);
            File::create(&path)
                .and_then(|disk| disk.set_len(size))
                .with_context(|| format!("make {}", path.display()))?;
        }
        let (mkfs, disk) = (self.debian.program("mkfs.ext4")?, self.place.join("disk.img"));
        let libraries: OsString = self.debian.library_path()?;
        cmd!(self.sh, "{mkfs} -q -F {disk}").env("LD_LIBRARY_PATH", libraries).quiet().run()?;
        Ok(())
    }
}

/// Runs the command until exit or timeout.
fn watch(
    mut command: Command,
    report: &Path,
    console: &Path,
    patience: Patience,
    progress: &Shared,
    mut on_line: impl FnMut(&str) -> Option<String>,
) -> Result<End> {
    let mut report = Lines { file: File::open(report)?, rest: Vec::new() };
    let begun = Instant::now();
    let mut heard = begun;
    let mut printed = 0;
    let child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let mut child = Ended(child);
    loop {
        // Checked before reading the files, so that all output before the exit is read.
        let exited = child.0.try_wait()?;
        let lines = report.new_ones()?;
        let length = fs::metadata(console)?.len();
        if !lines.is_empty() || length != printed {
            heard = Instant::now();
            printed = length;
        }
        for line in lines {
            if let Some(detail) = on_line(line.trim_end()) {
                progress.detail(&detail);
            }
        }
        if let Some(status) = exited {
            return Ok(End::Exited(status));
        }
        if heard.elapsed() > patience.silent {
            return Ok(End::Silent(patience.silent));
        }
        if begun.elapsed() > patience.all {
            return Ok(End::Overdue(patience.all));
        }
        progress.tick();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A child that is killed and reaped on drop.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both calls fail only if the child has been reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A reader of the lines of a growing file.
struct Lines {
    file: File,
    rest: Vec<u8>,
}

impl Lines {
    fn new_ones(&mut self) -> Result<Vec<String>> {
        self.file.read_to_end(&mut self.rest)?;
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(Vec::new());
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        Ok(String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect())
    }
}

/// Returns the last `count` lines of a log.
fn tail(log: &Path, count: usize) -> Result<String> {
    const ENOUGH: u64 = 64 << 10;
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(count)..).unwrap_or_default();
    Ok(last.iter().map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::progress::Progress;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(300);

    /// Watches a shell script that writes to `console` and `report`.
    fn watched(script: &str, patience: Patience) -> (End, Vec<String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let [console, report] = ["console", "report"].map(|name| dir.path().join(name));
        for log in [&console, &report] {
            File::create(log).expect("a log");
        }
        let mut sh = Command::new("sh");
        sh.arg("-c").arg(script).current_dir(dir.path());
        let mut lines = Vec::new();
        let progress = Shared(Mutex::new(Progress::begin("test")));
        let end = watch(sh, &report, &console, patience, &progress, |line| {
            lines.push(line.to_owned());
            None
        });
        (end.expect("watched"), lines)
    }

    #[test]
    fn exit_follows_the_last_line() {
        let (end, lines) = watched(
            "printf '##run a\\r\\n##done\\r\\n' >report; exit 3",
            Patience { silent: LONG, all: LONG },
        );
        assert!(matches!(end, End::Exited(status) if status.code() == Some(3)), "{end}");
        assert_eq!(lines, ["##run a", "##done"]);
    }

    #[test]
    fn silence_is_a_hang() {
        let script = "echo '##run a' >report; exec sleep 3600";
        let (end, _) = watched(script, Patience { silent: SHORT, all: LONG });
        assert_eq!(end, End::Silent(SHORT));
    }

    #[test]
    fn endless_output_is_a_hang() {
        let script = "while :; do echo tick >>console; sleep 0.02; done";
        let (end, _) = watched(script, Patience { silent: LONG, all: SHORT });
        assert_eq!(end, End::Overdue(SHORT));
    }
}
