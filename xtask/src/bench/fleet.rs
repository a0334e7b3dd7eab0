//! The cost of each verb on a host full of jails, as a ratio to other work of the same run that grows with the host
//! too.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use microvm_runtime::{CopyOptions, JailSpec, Jailer, JailerConfig, PidNamespace, User, Vm};
use testkit::{Binaries, KillOnDrop, Scratch, unique};

use super::{Contender, Rival, Session};

/// The number of jails that `list` reads; every second jail runs.
const JAILS: usize = 10_000;
/// The number of VMs that are killed together.
const VMS: usize = 300;
/// The number of other processes on the host: few, then many.
const CROWDS: [usize; 2] = [50, 2_000];
/// The number of jails that one round removes.
const REMOVED: usize = 10;

/// A program that answers `--version` as Firecracker does and otherwise sleeps: a page of memory, no VM.
const SLEEPER: &str = r#"
    .globl _start
_start:
    cmpq $2, (%rsp)
    je version
sleep:
    mov $34, %eax
    syscall
    jmp sleep
version:
    mov $1, %eax
    mov $1, %edi
    lea text(%rip), %rsi
    mov $20, %edx
    syscall
    mov $60, %eax
    xor %edi, %edi
    syscall
text:
    .ascii "Firecracker v1.16.1\n"
"#;

pub(crate) fn run(session: &mut Session) -> Result<()> {
    let binaries = Binaries::find();
    session.note(format!("using: {}", binaries.kind()));
    let scratch = Scratch::new("fleet");
    let fleet = Fleet {
        kernel: scratch.file("vmlinux", fs::read(binaries.guest())?),
        sleeper: sleeper(&scratch)?,
        firecracker: binaries.firecracker().to_owned(),
        jailer: Jailer::new(JailerConfig {
            jailer_bin: binaries.jailer().to_owned(),
            chroot_base: scratch.dir("base"),
            cgroup_parent: unique("fleet"),
            ..JailerConfig::default()
        }),
    };
    fleet.end(session)?;
    fleet.remove(session)?;
    fleet.list(session)
}

struct Fleet {
    kernel: PathBuf,
    sleeper: PathBuf,
    firecracker: PathBuf,
    jailer: Jailer,
}

impl Fleet {
    fn spec(&self, vm_id: &str, exec_file: &Path) -> JailSpec {
        JailSpec::new(vm_id, exec_file)
            .kernel(&self.kernel)
            .user(User::Leased { first: 330_000, last: 349_999 })
    }

    /// A sleeper in a jail.
    fn stub(&self, vm_id: &str) -> Result<Vm> {
        let spec = self.spec(vm_id, &self.sleeper).no_api().pid_namespace(PidNamespace::Host);
        Ok(self.jailer.launch(&spec)?)
    }

    /// Measures killing many VMs together against killing VMs one after the other.
    fn end(&self, session: &mut Session) -> Result<()> {
        let held = || -> Result<(usize, usize)> {
            Ok((fs::read_dir("/proc/self/fd")?.count(), fs::read_dir("/proc/self/task")?.count()))
        };
        let launch =
            |n: usize| Ok(self.jailer.launch(&self.spec(&format!("vm-{n}"), &self.firecracker))?);
        let mut slowest = Duration::ZERO;
        for n in 0..20 {
            let vm: Vm = launch(n)?;
            let begun = Instant::now();
            vm.kill()?;
            slowest = slowest.max(begun.elapsed());
            drop(vm);
            self.jailer.teardown(&format!("vm-{n}"))?;
        }
        let before = held()?;
        let vms = (0..VMS).map(launch).collect::<Result<Vec<Vm>>>()?;
        let after = held()?;
        let per_vm = |before: usize, after: usize| ratio(after.saturating_sub(before), VMS);
        session.figure("descriptors a VM", per_vm(before.0, after.0)?, "", Some(5.1));
        session.figure("threads a VM", per_vm(before.1, after.1)?, "", Some(0.1));
        let begun = Instant::now();
        for exit in Vm::kill_all(&vms) {
            exit?;
        }
        let took = begun.elapsed().as_secs_f64();
        for removed in self.jailer.remove_all(vms) {
            removed.removal.with_context(|| removed.vm_id)?;
        }
        let cores = std::thread::available_parallelism()?.get();
        let fair = slowest.as_secs_f64() * ratio(VMS, cores)?;
        session.figure(
            "ending 300 VMs, of the slowest one x 300 / cores",
            took / fair,
            "",
            Some(2.0),
        );
        Ok(())
    }

    /// Removes stopped jails beside few processes and beside many.
    fn remove(&self, session: &mut Session) -> Result<()> {
        let crowd = std::cell::RefCell::new(Vec::new());
        let round = |count: usize| {
            let mut crowd = crowd.borrow_mut();
            crowd.truncate(count);
            while crowd.len() < count {
                crowd.push(KillOnDrop::spawn(
                    Command::new(&self.sleeper).args(["a", "b"]).stdin(Stdio::null()),
                ));
            }
            let ids: Vec<_> = (0..REMOVED).map(|n| format!("stopped-{n}")).collect();
            for id in &ids {
                self.stub(id)?.kill()?;
            }
            let begun = Instant::now();
            for id in &ids {
                self.jailer.teardown(id)?;
            }
            Ok(begun.elapsed())
        };
        let [few, many] = CROWDS;
        let ours = Contender::new(format!("beside {many} processes"), || round(many));
        let rival = Rival::new(format!("beside {few}"), || round(few)).at_most(1.1);
        session.compare("remove 10 stopped jails", session.rounds(7), ours, vec![rival])
    }

    /// Lists a base full of jails.
    fn list(&self, session: &mut Session) -> Result<()> {
        let mut running = Vec::new();
        for n in 0..JAILS / 2 {
            // Dropped at once: the limit of descriptors is too low to hold every jail.
            drop(
                self.jailer
                    .plan(&self.spec(&format!("prepared-{n}"), &self.firecracker))?
                    .prepare(&CopyOptions::default())?,
            );
            let id = format!("running-{n}");
            drop(self.stub(&id)?);
            running.push(id);
        }
        let ours = Contender::new("list", || {
            let begun = Instant::now();
            let list = self.jailer.list()?;
            ensure!(list.jails.len() == JAILS, "{} jails", list.jails.len());
            Ok(begun.elapsed())
        });
        let base = &self.jailer.config().chroot_base;
        let rival = Rival::new("find, and a pass over /proc", || {
            let begun = Instant::now();
            let found = Command::new("find").arg(base).stdout(Stdio::null()).status()?;
            ensure!(found.success(), "find: {found}");
            for entry in fs::read_dir("/proc")?.flatten() {
                let _ = fs::read(entry.path().join("status"));
            }
            Ok(begun.elapsed())
        });
        session.compare(
            "list 10 000 jails, half of them running",
            session.rounds(7),
            ours,
            vec![rival.at_most(2.0)],
        )?;
        for id in running {
            self.jailer.teardown(&id)?;
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for jail in self.jailer.list().map(|list| list.jails).unwrap_or_default() {
            let vm_id = jail.vm_id.as_deref().unwrap_or(jail.jail_id.as_str());
            if let Err(error) = self.jailer.teardown(vm_id) {
                eprintln!("left behind: {}: {error}", jail.path.display());
            }
        }
        testkit::remove_cgroup(&self.jailer.config().cgroup_parent);
    }
}

fn ratio(of: usize, to: usize) -> Result<f64> {
    Ok(f64::from(u32::try_from(of)?) / f64::from(u32::try_from(to)?))
}

/// Assembles the sleeper under the name `firecracker`, which the jailer requires.
fn sleeper(scratch: &Scratch) -> Result<PathBuf> {
    let program = scratch.join("firecracker");
    let mut cc = Command::new("cc");
    cc.args(["-nostdlib", "-static", "-s", "-x", "assembler", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped());
    let mut child = cc.spawn().context("start cc")?;
    child.stdin.take().context("cc has no stdin")?.write_all(SLEEPER.as_bytes())?;
    ensure!(child.wait()?.success(), "cc failed");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}
