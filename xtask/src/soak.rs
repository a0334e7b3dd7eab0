//! `cargo xtask soak`: thousands of launches from one launcher, then a thousand VMs of a launcher that is killed.
//!
//! Each phase counts the resources of the launcher before and after. First, four threads launch and remove VMs. Second,
//! a launcher starts all VMs under a soft limit of descriptors. Third, after `kill -9` of that launcher, another
//! launcher adopts every VM, starts the guests, reads the consoles and removes the VMs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use microvm_runtime::{ByteSize, JailSpec, Jailer, JailerConfig, Limits, User, Vm};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::json;
use testkit::{Binaries, GUEST_LINE, HostState, KillOnDrop, Scratch, Table, interrupt, unique};

use crate::progress::{Progress, seconds};
use crate::rooted;

/// The environment variable that makes this program the launcher to be killed; the value is a [`Ground`] in JSON.
const LAUNCHER_ENV: &str = "MICROVM_SOAK_LAUNCHER";

const THREADS: usize = 4;

/// The growth of a launcher's memory that is not a leak, in KiB: an allocator keeps freed memory.
const MEMORY: u64 = 8 << 10;

/// The timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// The options of the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// 40 launches and 12 VMs
    #[arg(long)]
    short: bool,
    /// The number of launches
    #[arg(long)]
    cycles: Option<usize>,
    /// The number of VMs
    #[arg(long)]
    vms: Option<usize>,
}

/// The size of a soak.
#[derive(Debug, Clone, Copy)]
struct Size {
    cycles: usize,
    vms: usize,
    /// The soft limit of descriptors.
    files: u64,
}

impl Size {
    const LONG: Self = Self { cycles: 10_000, vms: 1_000, files: 8_192 };
    const SHORT: Self = Self { cycles: 40, vms: 12, files: 512 };
}

/// The hidden command that runs as the launcher to be killed.
pub(crate) const LAUNCHER: &str = "__soak-launcher";

/// Runs the soak as root and prints the table.
pub(crate) fn command(options: &Options) -> Result<bool> {
    rooted()?;
    interrupt::hold()?;
    let size = if options.short { Size::SHORT } else { Size::LONG };
    let (cycles, vms) = (options.cycles.unwrap_or(size.cycles), options.vms.unwrap_or(size.vms));
    let table = run(Size { cycles, vms, ..size }, || {
        let mut launcher = Command::new("/proc/self/exe");
        launcher.arg(LAUNCHER);
        launcher
    })?;
    print!("{table}");
    Ok(true)
}

/// The settings that the launchers of one soak share, so that one launcher can adopt another launcher's VMs.
#[derive(Debug, Serialize, Deserialize)]
struct Ground {
    jailer: PathBuf,
    firecracker: PathBuf,
    kernel: PathBuf,
    base: PathBuf,
    cgroup_parent: String,
    vms: usize,
    files: u64,
}

impl Ground {
    fn jailer(&self) -> Jailer {
        Jailer::new(JailerConfig {
            jailer_bin: self.jailer.clone(),
            chroot_base: self.base.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            ..JailerConfig::default()
        })
    }

    fn spec(&self, vm_id: &str) -> JailSpec {
        JailSpec::new(vm_id, &self.firecracker)
            .kernel(&self.kernel)
            .user(User::Leased { first: 310_000, last: 319_999 })
            .limits(Limits::new().memory_max(ByteSize::mib(512)))
            .ready_within(PATIENCE)
    }

    /// Calls `work` once for each number below `count`, from all threads.
    fn each<T: Send>(
        &self,
        count: usize,
        work: impl Fn(&Jailer, usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let jailer = self.jailer();
        let next = AtomicUsize::new(0);
        let one = || {
            let mut done = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok::<_, anyhow::Error>(done);
                }
                interrupt::check()?;
                done.push(work(&jailer, n).with_context(|| format!("VM {n}"))?);
            }
        };
        std::thread::scope(|scope| {
            let threads = [(); THREADS].map(|()| scope.spawn(one));
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().map_err(|_| anyhow!("a thread panicked"))??);
            }
            Ok(all)
        })
    }
}

/// The resources that this process and the host hold for the VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    descriptors: usize,
    threads: usize,
    memory_kib: u64,
    groups: usize,
    /// Files and directories below the base: jails, records, leases of uids.
    files: usize,
}

impl Held {
    fn now(ground: &Ground) -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let rss =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        Ok(Self {
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
            memory_kib: rss.context("no VmRSS")?.parse()?,
            groups: testkit::cgroups_named(&ground.cgroup_parent, "")
                .iter()
                .map(|top| below(top, true))
                .sum(),
            files: below(&ground.base, false),
        })
    }

    /// Waits up to 20 s until nothing has grown since `before`, because idle threads take time to exit; returns the
    /// resources held then.
    fn after_exits(ground: &Ground, before: &Self) -> Result<Self> {
        let begun = Instant::now();
        loop {
            let now = Self::now(ground)?;
            if before.grown_to(&now).is_empty() || begun.elapsed() > Duration::from_secs(20) {
                return Ok(now);
            }
            sleep(Duration::from_millis(50));
        }
    }

    fn grown_to(&self, after: &Self) -> Vec<String> {
        let pairs = [
            ("descriptors", self.descriptors, after.descriptors),
            ("threads", self.threads, after.threads),
            ("control groups", self.groups, after.groups),
            ("files", self.files, after.files),
        ];
        let grown = pairs.into_iter().filter(|(_, before, after)| after > before);
        let mut grown: Vec<_> =
            grown.map(|(what, before, after)| format!("{before} {what} became {after}")).collect();
        if after.memory_kib > self.memory_kib + MEMORY {
            grown.push(format!("{} KiB of memory became {}", self.memory_kib, after.memory_kib));
        }
        grown
    }
}

/// Counts the entries below a directory. With `directories_alone`, counts directories: a control group is full of
/// files.
fn below(dir: &Path, directories_alone: bool) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let counts = entries.map(|entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        true => 1 + below(&entry.path(), directories_alone),
        false => usize::from(!directories_alone),
    });
    counts.sum()
}

/// Runs all phases and returns the table. `launcher` starts this program again to call [`serve_if_launcher`].
fn run(size: Size, launcher: impl FnOnce() -> Command) -> Result<Table> {
    let before = HostState::snapshot();
    let scratch = Scratch::new("soak");
    let binaries = Binaries::find();
    let ground = Ground {
        jailer: binaries.jailer().to_owned(),
        firecracker: binaries.firecracker().to_owned(),
        kernel: scratch.file("vmlinux", fs::read(binaries.guest())?),
        base: scratch.dir("base"),
        cgroup_parent: unique("soak"),
        vms: size.vms,
        files: size.files,
    };
    limit_descriptors(size.files)?;
    let table = phases(size, &ground, launcher);
    // A failed phase leaves the VMs of the launcher.
    let jailer = ground.jailer();
    for vm in jailer.list()?.jails {
        jailer.remove(vm.vm_id.as_deref().unwrap_or(vm.jail_id.as_str()))?;
    }
    testkit::remove_cgroup(&ground.cgroup_parent);
    drop(scratch);
    let table = table?;
    before.assert_unchanged();
    Ok(table)
}

fn phases(size: Size, ground: &Ground, launcher: impl FnOnce() -> Command) -> Result<Table> {
    let mut table = Table::new([
        "phase",
        "VMs",
        "time",
        "descriptors",
        "threads",
        "memory KiB",
        "control groups",
        "files",
    ]);
    let mut row = |phase: &str, count: usize, time: Duration, before: &Held, after: &Held| {
        let pair = |before: usize, after: usize| format!("{before} -> {after}");
        let (memory, then) = (before.memory_kib, after.memory_kib);
        table.row([
            phase.to_owned(),
            count.to_string(),
            seconds(time),
            pair(before.descriptors, after.descriptors),
            pair(before.threads, after.threads),
            format!("{memory} -> {then}"),
            pair(before.groups, after.groups),
            pair(before.files, after.files),
        ]);
    };

    let mut progress = Progress::begin("soak");
    let cycle = |jailer: &Jailer, n: usize| {
        let spec = ground.spec(&format!("cycle-{n}"));
        drop(jailer.launch(&spec)?);
        jailer.teardown(spec.vm_id())?;
        Ok(())
    };
    progress.detail("launch and remove, to get warm");
    ground.each(size.cycles.div_ceil(20).max(THREADS * 2), cycle)?;
    let (begun, warm) = (Instant::now(), Held::now(ground)?);
    progress.detail(format!("launch and remove {} VMs", size.cycles));
    ground.each(size.cycles, cycle)?;
    let took = begun.elapsed();
    let after = Held::after_exits(ground, &warm)?;
    row("launch and remove", size.cycles, took, &warm, &after);
    let grown = warm.grown_to(&after);
    ensure!(grown.is_empty(), "after {} launches {}", size.cycles, grown.join(", "));

    progress.detail(format!("{} VMs at once", size.vms));
    let mut command = launcher();
    command
        .env(LAUNCHER_ENV, serde_json::to_string(ground)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let begun = Instant::now();
    let mut other = KillOnDrop::spawn(&mut command);
    let lines = BufReader::new(other.stdout.take().context("the launcher has no stdout")?).lines();
    let (first, last) = two_lines(lines).context("the launcher of many VMs")?;
    row("launch, all at once", size.vms, begun.elapsed(), &first, &last);
    // SIGKILL
    drop(other);

    progress.detail("adopt all");
    let (begun, alone) = (Instant::now(), Held::now(ground)?);
    let vms = ground.each(size.vms, |jailer, n| {
        let vm = jailer.adopt(&many(n))?;
        let api = vm.api()?;
        api.request("PUT", "/boot-source", Some(&json!({ "kernel_image_path": "/vmlinux" })))?;
        api.request("PUT", "/actions", Some(&json!({ "action_type": "InstanceStart" })))?;
        Ok(vm)
    })?;
    row("adopt and start", size.vms, begun.elapsed(), &alone, &Held::now(ground)?);
    let begun = Instant::now();
    let holding = Held::now(ground)?;
    for vm in &vms {
        says_hello(vm).with_context(|| vm.vm_id().to_owned())?;
    }
    progress.detail("remove all");
    for removed in ground.jailer().remove_all(vms) {
        removed.exit.and(removed.removal).with_context(|| removed.vm_id)?;
    }
    let after =
        Held::after_exits(ground, &Held { files: warm.files, groups: warm.groups, ..alone })?;
    row("read and remove", size.vms, begun.elapsed(), &holding, &after);
    progress.end("ok");
    ensure!(
        after.descriptors <= alone.descriptors,
        "{} descriptors became {}",
        alone.descriptors,
        after.descriptors
    );
    ensure!(
        after.files <= warm.files && after.groups <= warm.groups,
        "{after:?} is left, of {warm:?}"
    );
    let list = ground.jailer().list()?;
    ensure!(list.jails.is_empty() && list.problems.is_empty(), "{list:?} is left");
    Ok(table)
}

fn says_hello(vm: &Vm) -> Result<()> {
    let console = vm.console().context("an adopted VM has no console")?;
    let line = console.wait_for_line(|line| line.contains(GUEST_LINE), PATIENCE);
    ensure!(line.is_some(), "the guest printed {:?}; log: {}", console.text(), vm.log().text());
    Ok(())
}

/// Reads the other launcher's resources before and after the launches. Skips the lines of a test harness.
fn two_lines(lines: impl Iterator<Item = std::io::Result<String>>) -> Result<(Held, Held)> {
    let mut first = None;
    for line in lines {
        if let Ok(held) = serde_json::from_str::<Held>(&line?) {
            match first {
                None => first = Some(held),
                Some(first) => return Ok((first, held)),
            }
        }
    }
    bail!("the launcher exited before all VMs ran")
}

fn many(n: usize) -> String {
    format!("many-{n}")
}

/// Launches all VMs and waits to be killed, if this process was started as the other launcher; otherwise returns.
pub(crate) fn serve_if_launcher() -> Result<()> {
    let Ok(ground) = std::env::var(LAUNCHER_ENV) else { return Ok(()) };
    let ground: Ground = serde_json::from_str(&ground)?;
    limit_descriptors(ground.files)?;
    println!("{}", serde_json::to_string(&Held::now(&ground)?)?);
    let vms = ground.each(ground.vms, |jailer, n| Ok(jailer.launch(&ground.spec(&many(n)))?))?;
    println!("{}", serde_json::to_string(&Held::now(&ground)?)?);
    // Exits at the end of stdin, in case the parent dies without killing this process.
    std::io::stdin().lines().for_each(drop);
    bail!("nobody killed the launcher of {} VMs", vms.len())
}

fn limit_descriptors(soft: u64) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard >= soft, "the hard limit of descriptors is {hard}, and {soft} are needed");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn a_short_soak_leaves_nothing() {
        const TEST: &str = "soak::tests::a_short_soak_leaves_nothing";
        // In a new process, because the soak counts the descriptors of the process.
        match testkit::role().as_deref() {
            None => {
                let status = testkit::reenter(TEST, "soak").status().unwrap();
                assert!(status.success(), "{status}");
            }
            Some("launcher") => serve_if_launcher().unwrap(),
            Some(_) => {
                print!("{}", run(Size::SHORT, || testkit::reenter(TEST, "launcher")).unwrap())
            }
        }
    }
}
