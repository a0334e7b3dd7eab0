//! QEMU: one command, watched until it ends, falls silent or takes too long.

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

/// The guest's `/var/tmp`, sparse, ext4; and a second disk, for whoever wants to write to a bare one.
const DISKS: [(&str, u64); 2] = [("disk.img", 8 << 30), ("scratch.img", 256 << 20)];

/// How the guest's processor is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The host's own, where `/dev/kvm` can do that.
    Kvm,
    /// Emulated by QEMU.
    Tcg,
}

/// A machine before it boots: its name, its kernel and what it is to run.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) sh: &'a Shell,
    pub(super) debian: &'a Debian,
    pub(super) kernel: &'a KernelFiles,
    pub(super) layout: Layout,
    pub(super) accelerator: Accelerator,
    /// Where its initramfs, disks and logs are kept.
    pub(super) place: PathBuf,
}

/// How long a machine is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Without a sign of life.
    pub(super) silent: Duration,
    /// In all.
    pub(super) all: Duration,
}

impl Patience {
    /// No bounds on speed, only on hanging: a run takes minutes, on a busy host many, and a long one hours.
    pub(super) fn new(long: bool) -> Self {
        let minutes =
            |short: u64, longer: u64| Duration::from_secs(60 * if long { longer } else { short });
        Self { silent: minutes(10, 120), all: minutes(60, 720) }
    }
}

/// A machine that ran.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) end: End,
    /// Where all that its kernel and tests printed is kept.
    pub(super) console: PathBuf,
    /// The end of that, and of QEMU's own messages.
    pub(super) tail: String,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself: powered off, or its kernel panicked.
    Exited(ExitStatus),
    /// It said nothing for so long, and was ended.
    Silent(Duration),
    /// It took so long in all, and was ended.
    Overdue(Duration),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "the machine ended ({status})"),
            Self::Silent(time) => write!(f, "the machine hung: silent for {} s", time.as_secs()),
            Self::Overdue(time) => write!(f, "the machine was not done after {} s", time.as_secs()),
        }
    }
}

impl Machine<'_> {
    /// Boots it with this payload and stays until it ends. `on_line` gets each line the guest reports.
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
        // Gigabytes, if a test filled them.
        for disk in DISKS {
            fs::remove_file(self.place.join(disk.0))?;
        }
        Ok(Run { end, console, tail })
    }

    /// The command line. File names in options are relative to the machine's directory: QEMU would split them at commas.
    fn qemu(&self) -> Result<Command> {
        let layout = self.layout;
        // Nobody keeps a machine whose launcher is gone. prctl(2), PR_SET_PDEATHSIG
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--"]).arg(self.debian.program("qemu-system-x86_64")?);
        qemu.env("LD_LIBRARY_PATH", self.debian.library_path()?);
        for firmware in self.debian.firmware() {
            qemu.arg("-L").arg(firmware);
        }
        let accelerator = match self.accelerator {
            Accelerator::Kvm => "kvm",
            // One thread for both processors. With one each, QEMU before 8.1 may keep its translation of code that the other
            // processor is changing, and run it for ever. The kernel changes code all the time: each first v1 freeze, quota
            // or cpuset switches static branches.
            Accelerator::Tcg => "tcg,thread=single",
        };
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "1024"])
            // Two nodes of a processor each, so that a NUMA limit has something to choose.
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
            // What goes wrong in the kernel ends the machine: the host sees it at once.
            "panic=-1 oops=panic",
            layout.kernel_argument(),
            &format!("layout={layout}"),
        ];
        qemu.arg("-kernel").arg(&self.kernel.image).args(["-initrd", "initramfs.cpio"]);
        qemu.arg("-append").arg(arguments.join(" "));
        Ok(qemu)
    }

    /// Fresh disks, made here, where it is quicker.
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

/// Runs the command to its end, or to the end of our patience.
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
        // Asked before the files are read: what was written before the end is read after it.
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

/// Does not outlive the watch.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only where it has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of a file that grows.
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

/// The last `count` lines of a log.
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

    /// Watches a shell script that has `console` and `report` to write to.
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
    fn an_end_comes_after_the_last_line() {
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
    fn noise_for_ever_is_a_hang_too() {
        let script = "while :; do echo tick >>console; sleep 0.02; done";
        let (end, _) = watched(script, Patience { silent: LONG, all: SHORT });
        assert_eq!(end, End::Overdue(SHORT));
    }
}
