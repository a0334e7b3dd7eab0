//! The cost of each verb on a host full of jails, as a ratio to other work of the same run that grows with the host
//! too.

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use microvm_runtime::{Boot, CopyOptions, JailSpec, Jailer, JailerConfig, PidNamespace, User, Vm};
use testkit::{Binaries, KillOnDrop, Scratch, interrupt, unique};

use crate::{Contender, Rival, Session};

/// The number of jails that `list` reads; every second jail runs.
const JAILS: usize = 10_000;
/// The number of VMs that are killed together.
const VMS: usize = 300;
/// The number of single VMs, of which the slowest kill counts.
const SINGLE: usize = 20;
/// The number of other processes on the host: few, then many.
const CROWDS: [usize; 2] = [50, 2_000];
/// The number of jails that one round removes.
const REMOVED: usize = 10;

/// A program that takes a page of memory and no KVM. With `--version` it answers as Firecracker does, with another
/// single argument it reads stdin until the end, and with more arguments it sleeps for ever.
const STUB: &str = r#"
    .globl _start
_start:
    cmpq $2, (%rsp)
    je one
sleep:
    mov $34, %eax
    syscall
    jmp sleep
one:
    mov 16(%rsp), %rax
    cmpb $'-', (%rax)
    je version
    xor %eax, %eax
    xor %edi, %edi
    lea -64(%rsp), %rsi
    mov $64, %edx
    syscall
    jmp exit
version:
    mov $1, %eax
    mov $1, %edi
    lea text(%rip), %rsi
    mov $20, %edx
    syscall
exit:
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
        stub: stub(&scratch)?,
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
    stub: PathBuf,
    firecracker: PathBuf,
    jailer: Jailer,
}

impl Fleet {
    fn spec(&self, vm_id: &str, exec_file: &Path) -> JailSpec {
        JailSpec::new(vm_id, exec_file)
            .kernel(&self.kernel)
            .user(User::Leased { first: 330_000, last: 349_999 })
    }

    fn launch(&self, vm_id: &str) -> Result<Vm> {
        interrupt::check()?;
        Ok(self.jailer.launch(&self.spec(vm_id, &self.firecracker))?)
    }

    /// Launches the stub instead of Firecracker.
    fn launch_stub(&self, vm_id: &str) -> Result<Vm> {
        interrupt::check()?;
        let spec = self.spec(vm_id, &self.stub).boot(Boot::new()).no_api();
        Ok(self.jailer.launch(&spec.pid_namespace(PidNamespace::Host))?)
    }

    /// Measures killing many VMs together against killing VMs one after the other, and what a VM costs its launcher.
    fn end(&self, session: &mut Session) -> Result<()> {
        let mut slowest = Duration::ZERO;
        for n in 0..SINGLE {
            let id = format!("single-{n}");
            let vm = self.launch(&id)?;
            let begun = Instant::now();
            vm.kill()?;
            slowest = slowest.max(begun.elapsed());
            drop(vm);
            self.jailer.teardown(&id)?;
        }
        // The first VM of a launcher opens what all VMs share.
        let mut vms = vec![self.launch("first")?];
        let before = Held::settled()?;
        for n in 0..VMS {
            vms.push(self.launch(&format!("vm-{n}"))?);
        }
        let after = Held::settled()?;
        let descriptors = after.descriptors.saturating_sub(before.descriptors);
        session.figure("descriptors a VM", ratio(descriptors, VMS)?, "", Some(5.0));
        let threads = after.threads.saturating_sub(before.threads);
        session.figure("threads a VM", ratio(threads, VMS)?, "", Some(0.0));
        vms.remove(0).kill()?;
        let begun = Instant::now();
        for exit in Vm::kill_all(&vms) {
            exit?;
        }
        let took = begun.elapsed().as_secs_f64();
        for removed in self.jailer.remove_all(vms) {
            removed.removal.with_context(|| removed.vm_id)?;
        }
        self.jailer.teardown("first")?;
        let cores = std::thread::available_parallelism()?.get();
        let fair = slowest.as_secs_f64() * ratio(VMS, cores)?;
        let ended = "ending 300 VMs, of the slowest of 20 single ones x 300 / cores";
        session.figure(ended, took / fair, "", Some(2.0));
        Ok(())
    }

    /// Removes stopped jails beside few processes and beside many.
    fn remove(&self, session: &mut Session) -> Result<()> {
        // A process of the crowd reads stdin until this process exits.
        let (stdin, _held) = std::io::pipe()?;
        let crowd = RefCell::new(Vec::new());
        let round = |count: usize| {
            let mut crowd = crowd.borrow_mut();
            crowd.truncate(count);
            while crowd.len() < count {
                let mut command = Command::new(&self.stub);
                crowd.push(KillOnDrop::spawn(command.arg("crowd").stdin(stdin.try_clone()?)));
            }
            let ids: Vec<_> = (0..REMOVED).map(|n| format!("stopped-{n}")).collect();
            for id in &ids {
                self.launch_stub(id)?.kill()?;
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
        session.compare("remove 10 stopped jails", session.rounds(15), ours, vec![rival])
    }

    /// Lists a base full of jails.
    fn list(&self, session: &mut Session) -> Result<()> {
        for n in 0..JAILS / 2 {
            interrupt::check()?;
            let plan = self.jailer.plan(&self.spec(&format!("prepared-{n}"), &self.firecracker))?;
            // Dropped at once, as the VM is: the limit of descriptors is too low for every jail.
            drop(plan.prepare(&CopyOptions::default())?);
            drop(self.launch_stub(&format!("running-{n}"))?);
        }
        let ours = Contender::new("list", || {
            let begun = Instant::now();
            let list = self.jailer.list()?;
            let took = begun.elapsed();
            ensure!(list.jails.len() == JAILS, "{} jails", list.jails.len());
            Ok(took)
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
        let work = "list 10 000 jails, half of them running";
        session.compare(work, session.rounds(7), ours, vec![rival.at_most(2.0)])
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for jail in self.jailer.list().map(|list| list.jails).unwrap_or_default() {
            if let Err(error) = self.jailer.remove_jail(&jail.jail_id) {
                eprintln!("left behind: {}: {error}", jail.path.display());
            }
        }
        testkit::remove_cgroup(&self.jailer.config().cgroup_parent);
    }
}

/// The resources that this process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    threads: usize,
}

impl Held {
    /// Waits until the threads of the last launch have ended.
    fn settled() -> Result<Self> {
        let begun = Instant::now();
        loop {
            let count = |of| Ok::<_, std::io::Error>(fs::read_dir(of)?.count());
            let held =
                Self { descriptors: count("/proc/self/fd")?, threads: count("/proc/self/task")? };
            // This thread, and the one that reads the streams of all VMs.
            if held.threads <= 2 || begun.elapsed() > Duration::from_secs(10) {
                return Ok(held);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn ratio(of: usize, to: usize) -> Result<f64> {
    Ok(f64::from(u32::try_from(of)?) / f64::from(u32::try_from(to)?))
}

/// Assembles the stub under the name `firecracker`, which the jailer requires.
fn stub(scratch: &Scratch) -> Result<PathBuf> {
    let program = scratch.join("firecracker");
    let mut cc = Command::new("cc");
    cc.args(["-nostdlib", "-static", "-s", "-x", "assembler", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped());
    let mut child = cc.spawn().context("start cc")?;
    child.stdin.take().context("cc has no stdin")?.write_all(STUB.as_bytes())?;
    ensure!(child.wait()?.success(), "cc failed");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}
