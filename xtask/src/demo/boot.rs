//! The part of the demo that runs as root: removes an earlier demo, boots, reads back, shuts down, tears down, checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use microvm_runtime::{
    Boot, ByteSize, CopyOptions, Drive, JailSpec, JailState, Jailer, JailerConfig, Limits,
    PrepareReport, RemoveReport, Strategy, Vm,
};
use testkit::{Binaries, GUEST_LINE};

use super::left::Traces;
use super::read_back::{self, Process};
use super::{Fact, Report, Staged};

/// The directory of the demo: the images, and the chroot base.
const DIR: &str = "/srv/microvm-demo";
const CGROUP_PARENT: &str = "microvm-demo";
/// A uid that no host is likely to use: a process with this uid is the demo's VM.
const UID: u32 = 59_123;
const GID: u32 = 59_124;
/// An id that the jailer refuses: the demo shows the jail id derived from a VM id.
const VM_ID: &str = "demo/vm_1";

const MEMORY: ByteSize = ByteSize::mib(256);
const CPUS: f64 = 0.5;
const PIDS: u64 = 64;

/// The timeout of every wait, generous enough for a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run_as_root() -> Result<Report> {
    let (binaries, using) = binaries();
    let config = JailerConfig {
        jailer_bin: binaries.jailer().to_owned(),
        uid: UID,
        gid: GID,
        chroot_base: Path::new(DIR).join("jails"),
        cgroup_parent: CGROUP_PARENT.to_owned(),
        ..JailerConfig::default()
    };
    let jailer = Jailer::new(config);
    let earlier = clear_earlier(&jailer)?;

    let shown = show(&jailer, &binaries);
    let torn_down = jailer.remove(VM_ID).context("tear the VM down");
    remove_directories();
    let (shown, torn_down) = (shown?, torn_down?);
    let traces = Traces { base: Path::new(DIR), cgroup_parent: CGROUP_PARENT, uid: UID };
    Ok(Report {
        using,
        earlier,
        staged: shown.staged,
        facts: shown.facts,
        guest: shown.guest,
        ended: shown.ended,
        removed: removed(&torn_down),
        left: traces.look(),
    })
}

/// Returns the official binaries if both are installed and KVM works, or else the stand-ins, and a line for the report.
fn binaries() -> (Binaries, String) {
    match (Binaries::official(), testkit::kvm_works()) {
        (Some(official), Ok(())) => {
            let using = format!("using the {}, with KVM", official.kind());
            (official, using)
        }
        (Some(official), Err(why)) => {
            let using = format!("using stand-ins: the {} is installed, but {why}", official.kind());
            (Binaries::stand_ins(), using)
        }
        (None, _) => {
            let using = "using stand-ins: no official jailer and firecracker on the PATH, or named by \
                         MICROVM_JAILER_BIN and MICROVM_FIRECRACKER_BIN";
            (Binaries::stand_ins(), using.to_owned())
        }
    }
}

/// Sweeps and tears down the remains of a demo that was killed.
fn clear_earlier(jailer: &Jailer) -> Result<Vec<String>> {
    let swept = jailer.sweep().context("sweep what an earlier demo left")?;
    let mut earlier: Vec<String> = swept
        .trees
        .iter()
        .chain(&swept.jails.jails)
        .map(|tree| tree.display().to_string())
        .collect();
    for listed in jailer.list().context("list what an earlier demo left")?.jails {
        let vm_id = listed.vm_id.unwrap_or_else(|| listed.jail_id.to_string());
        jailer
            .remove_jail(&listed.jail_id)
            .with_context(|| format!("tear down {vm_id:?} of an earlier demo"))?;
        earlier.push(format!("{vm_id:?}, {}", found(&listed.state)));
    }
    remove_directories();
    Ok(earlier)
}

fn found(state: &JailState) -> String {
    match state {
        JailState::Stopped => "stopped".to_owned(),
        JailState::Running { pid } => format!("running as process {pid}"),
        JailState::Unrecorded { examples, .. } => format!("just started, as process {examples:?}"),
        other => format!("{other:?}"),
    }
}

/// The facts about the VM that the demo shows.
struct Shown {
    staged: Vec<Staged>,
    facts: Vec<Fact>,
    guest: String,
    ended: String,
}

fn show(jailer: &Jailer, binaries: &Binaries) -> Result<Shown> {
    let images = images(binaries)?;
    let spec = JailSpec::new(VM_ID, binaries.firecracker())
        .kernel(images.join("vmlinux"))
        .drive(Drive::private("rootfs", images.join("rootfs.ext4")))
        .limits(Limits::new().memory_max(MEMORY).cpus(CPUS).pids_max(PIDS))
        .boot(Boot::new().vcpus(1).memory_mib(128).kernel_args("console=ttyS0 reboot=k panic=1"))
        .ready_within(PATIENCE);
    let prepared = jailer.plan(&spec)?.prepare(&CopyOptions::default())?;
    let staged = staged(&prepared.report());
    let jail = prepared.plan().layout().root().to_owned();
    let vm = prepared.launch()?;
    let guest = guest_line(&vm)?;
    let mut facts = facts(&vm, &jail, binaries.are_official())?;
    let exit = vm.shutdown(PATIENCE)?;
    // The guest resets on Ctrl+Alt+Del: the VMM exits and is not killed.
    facts.push(fact("exit", "0, after Ctrl+Alt+Del", exit.status.to_string(), exit.success()));
    Ok(Shown { staged, facts, guest, ended: exit.status.to_string() })
}

/// Makes the directory of images: the guest that runs until Ctrl+Alt+Del, and a sparse disk.
fn images(binaries: &Binaries) -> Result<PathBuf> {
    let images = Path::new(DIR).join("images");
    fs::create_dir_all(&images).with_context(|| format!("make {}", images.display()))?;
    fs::copy(binaries.idle_guest(), images.join("vmlinux")).context("copy the guest")?;
    let disk = fs::File::create(images.join("rootfs.ext4")).context("make the disk")?;
    disk.set_len(64 << 20).context("make the disk")?;
    Ok(images)
}

/// Removes the demo's directories, except directories with foreign files.
fn remove_directories() {
    let dir = Path::new(DIR);
    let _ = fs::remove_dir_all(dir.join("images"));
    let jails = dir.join("jails");
    let below = fs::read_dir(&jails).into_iter().flatten().flatten().map(|entry| entry.path());
    for dir in below.chain([jails.clone(), dir.to_owned()]) {
        // A directory that is not empty stays, and the report lists the directory.
        let _ = fs::remove_dir(dir);
    }
    for group in testkit::cgroups_named(CGROUP_PARENT, "") {
        let _ = fs::remove_dir(group);
    }
}

fn staged(receipt: &PrepareReport) -> Vec<Staged> {
    let staged = receipt.artifacts.iter().map(|artifact| Staged {
        name: artifact.name.to_string(),
        how: match &artifact.fallback {
            None => how(artifact.strategy),
            Some(why) => format!("{}, since {why}", how(artifact.strategy)),
        },
        bytes_copied: artifact.bytes_copied,
    });
    staged.collect()
}

fn how(strategy: Strategy) -> String {
    match strategy {
        Strategy::HardLink => "hard link".to_owned(),
        Strategy::Reflink => "reflink".to_owned(),
        Strategy::SparseCopy => "sparse copy".to_owned(),
        other => format!("{other:?}"),
    }
}

fn guest_line(vm: &Vm) -> Result<String> {
    let console = vm.console().context("the VM has no console")?;
    match console.wait_for_line(|line| line.contains(GUEST_LINE), PATIENCE) {
        Some(line) => Ok(line),
        None => bail!(
            "the guest printed nothing; console: {:?}; log: {:?}",
            console.text(),
            vm.log().text()
        ),
    }
}

/// Returns the requested settings of the VM beside the values that the kernel reports.
fn facts(vm: &Vm, jail: &Path, official: bool) -> Result<Vec<Fact>> {
    let process = Process::of(vm.pid())?;
    let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join(" ");
    let mut facts = Vec::new();
    for (what, field, asked) in [("uid", "Uid", four(UID)), ("gid", "Gid", four(GID))] {
        let found = process.status(field)?;
        let ok = found == asked;
        facts.push(fact(what, &asked, found, ok));
    }
    let groups = process.status("Groups")?;
    facts.push(fact("other groups", "none", none_or(&groups), groups.is_empty()));
    let capabilities = process.status("CapEff")?;
    facts.push(fact(
        "capabilities",
        "none",
        none_or(capabilities.trim_start_matches('0')),
        none(&capabilities),
    ));
    let (device, inode) = process.root()?;
    let ok = (device, inode) == read_back::inode(jail)?;
    facts.push(fact(
        "root",
        "the jail",
        format!("inode {inode} of device {device}, the jail's"),
        ok,
    ));
    let inside = process.status("NSpid")?;
    let ok = inside.ends_with(" 1") && process.has_own_namespace("pid")?;
    facts.push(fact("pid namespace", "its own, first in it", format!("pids {inside}"), ok));
    let own = process.has_own_namespace("mnt")?;
    facts.push(fact(
        "mount namespace",
        "its own",
        if own { "its own" } else { "the host's" }.to_owned(),
        own,
    ));
    // The stand-in installs no seccomp filter, so the expected mode is 0.
    let seccomp = process.status("Seccomp")?;
    let asked = if official { "2 (filter)" } else { "0 (stand-in)" };
    facts.push(fact("seccomp mode", asked, seccomp.clone(), asked.starts_with(&seccomp)));
    facts.push(descriptors(&process, vm.pid(), jail)?);
    facts.extend(limits(vm, &process)?);
    let ready = vm.ready_after().context("no time to ready")?;
    facts.push(fact(
        "ready",
        "the API answers",
        format!("after {:.1} ms", ready.as_secs_f64() * 1e3),
        true,
    ));
    Ok(facts)
}

/// Checks that no open descriptor refers to a file or directory outside the jail.
fn descriptors(process: &Process, pid: u32, jail: &Path) -> Result<Fact> {
    let open = process.descriptors()?;
    let outside = read_back::files_outside(pid, jail)?;
    let found = match outside.is_empty() {
        true => format!("{open} open, none outside"),
        false => format!("{open} open, outside: {}", outside.join(", ")),
    };
    Ok(fact("descriptors", "files in the jail alone", found, outside.is_empty()))
}

/// Returns the facts about the control group and the limits.
fn limits(vm: &Vm, process: &Process) -> Result<Vec<Fact>> {
    let leaf = format!("/{CGROUP_PARENT}/{}", vm.jail_id());
    let groups: Vec<PathBuf> = vm.cgroup()?.paths().collect();
    let joined = process.control_groups()?.iter().filter(|line| line.ends_with(&leaf)).count();
    let mut facts = vec![fact(
        "control group",
        &leaf,
        format!("in {joined} of {} hierarchies", groups.len()),
        joined == groups.len(),
    )];
    let mut limit = |what: &str, files: &[&str], asked: String| {
        let found = read_back::limit(&groups, files).unwrap_or_else(|| "no such limit".to_owned());
        let ok = found == asked;
        facts.push(fact(what, &asked, found, ok));
    };
    limit("memory", &["memory.max", "memory.limit_in_bytes"], MEMORY.as_bytes().to_string());
    limit("processes", &["pids.max"], PIDS.to_string());
    let cpus = cpus(&groups);
    let found = cpus.map_or_else(|| "no such limit".to_owned(), |cpus| format!("{cpus} CPUs"));
    facts.push(fact("CPU time", &format!("{CPUS} CPUs"), found, cpus == Some(CPUS)));
    Ok(facts)
}

/// Returns the CPU limit: the quota divided by the period.
fn cpus(groups: &[PathBuf]) -> Option<f64> {
    let text = match read_back::limit(groups, &["cpu.max"]) {
        Some(both) => both,
        None => {
            let quota = read_back::limit(groups, &["cpu.cfs_quota_us"])?;
            format!("{quota} {}", read_back::limit(groups, &["cpu.cfs_period_us"])?)
        }
    };
    let (quota, period) = text.split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

fn removed(report: &RemoveReport) -> Vec<String> {
    let mut removed: Vec<String> =
        report.jails.iter().map(|jail| jail.display().to_string()).collect();
    removed.push(format!("{} entries in it", report.entries));
    removed.extend(report.cgroups.iter().map(|group| group.display().to_string()));
    removed
}

fn fact(what: &str, asked: &str, found: String, ok: bool) -> Fact {
    Fact { what: what.to_owned(), asked: asked.to_owned(), found, ok }
}

fn none(hex: &str) -> bool {
    hex.bytes().all(|digit| digit == b'0')
}

fn none_or(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}
