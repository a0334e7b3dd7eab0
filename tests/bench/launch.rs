//! The cost of a launch through the facade, compared with the same jailer and Firecracker started bare.
//!
//! Both sides stage one kernel and measure until the API has answered `GET /`. Neither side measures a teardown. The
//! bare side copies, spawns and connects in a loop without a pause, and checks nothing. The bare VM gets a control
//! group too, which the jailer joins because of `--cgroup` or `--parent-cgroup`: a process that joins a group after the
//! spawn waits for a grace period of the kernel. A bare VM without any control group does less than ours; the row has
//! no bound.
//!
//! The crate fctools does the same work: it stages the kernel, starts the jailer and asks the API without a pause. With
//! a limit, the jailer of fctools joins a control group. Without a limit, the VM of fctools has no group of its own and
//! no namespace besides the jailer's.
//!
//! Both sides have a neighbour, as on any host that runs VMs, so that neither side makes or removes the directories
//! that jails share. The launches follow one another directly, and then start on a host at rest: pending work of the
//! last teardown in the kernel shortens the grace periods of the next launch.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jail_cgroup::{CgroupVersion, LeafPlan};
use microvm_runtime::{
    ByteSize, CopyOptions, JailSpec, Jailer, JailerConfig, Limits, Network, Prepared,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use testkit::{Binaries, Scratch};

use crate::outside::{self, Outside};
use crate::{Contender, Rival, Session};

const UID: u32 = 59_133;
const GID: u32 = 59_134;

/// The time after which the kernel has finished the work of the last teardown.
const REST: Duration = Duration::from_millis(60);

/// The delay of the jailer for which the cost of waiting is measured.
const HELD_UP: Duration = Duration::from_secs(2);

/// Measures every row.
pub(crate) fn run(session: &mut Session) -> Result<()> {
    let binaries = match (Binaries::official(), testkit::kvm_works()) {
        (Some(official), Ok(())) => official,
        _ => Binaries::stand_ins(),
    };
    session.note(format!("using the {}", binaries.kind()));
    let bench = Bench::new(&binaries)?;
    let rounds = session.rounds(50);
    for (work, rest) in [
        ("stage one kernel, launch, API answers", Duration::ZERO),
        ("the same, on a host at rest", REST),
    ] {
        let number = Cell::new(0);
        let id = |side: &str| {
            thread::sleep(rest);
            number.set(number.get() + 1);
            format!("{side}-{}", number.get())
        };
        session.compare(
            work,
            rounds,
            Contender::new("microvm-runtime", || bench.launch(&bench.jailer, &id("ours"))),
            vec![
                Rival::new("cp, same jailer, poll hard", || bench.launch_bare(&id("bare"), true))
                    .at_most(1.10),
                Rival::new("the same, without a control group", || {
                    bench.launch_bare(&id("loose"), false)
                }),
            ],
        )?;
    }
    let launch_in = |network| {
        let spec = bench.spec("network").network(network);
        move |bench: &Bench<'_>| bench.launch_spec(&bench.jailer, &spec)
    };
    let (isolated, host) = (launch_in(Network::Isolated), launch_in(Network::Host));
    session.compare(
        "launch in a network namespace of its own",
        rounds,
        Contender::new("isolated", || isolated(&bench)),
        vec![Rival::new("the launcher's network", || host(&bench))],
    )?;
    bench.beside_fctools(session)?;
    let waiting = bench.cpu_of_waiting()?;
    session.figure("CPU used by a launcher that waits 2 s", waiting, "ms", Some(2.0));
    Ok(())
}

struct Bench<'a> {
    binaries: &'a Binaries,
    scratch: Scratch,
    kernel: PathBuf,
    jailer: Jailer,
    /// The source of the bare side's arguments; this jailer launches nothing.
    bare: Jailer,
    neighbours: Vec<Prepared>,
}

impl<'a> Bench<'a> {
    fn new(binaries: &'a Binaries) -> Result<Self> {
        let scratch = Scratch::new("bench");
        let kernel = scratch.file("vmlinux", fs::read(binaries.guest()).context("read the guest")?);
        let jailer = Jailer::new(config(&scratch, "ours", binaries.jailer().to_owned()));
        let bare = Jailer::new(config(&scratch, "bare", binaries.jailer().to_owned()));
        let mut bench = Self { binaries, scratch, kernel, jailer, bare, neighbours: Vec::new() };
        for jailer in [&bench.jailer, &bench.bare] {
            let plan = jailer.plan(&bench.spec("neighbour"))?;
            bench.neighbours.push(plan.prepare(&CopyOptions::default())?);
        }
        Ok(bench)
    }

    /// Returns the time of one launch through the facade, without the teardown.
    fn launch(&self, jailer: &Jailer, vm_id: &str) -> Result<Duration> {
        self.launch_spec(jailer, &self.spec(vm_id))
    }

    /// Returns the time of one launch of this spec.
    fn launch_spec(&self, jailer: &Jailer, spec: &JailSpec) -> Result<Duration> {
        let begun = Instant::now();
        let vm = jailer.launch(spec)?;
        let took = begun.elapsed();
        vm.kill()?;
        jailer.teardown(spec.vm_id())?;
        Ok(took)
    }

    /// Returns the time of one launch that uses the arguments of ours and nothing else. With `joins`, the arguments
    /// make the jailer join the control group that ours would have; otherwise the VM gets no control group.
    fn launch_bare(&self, id: &str, joins: bool) -> Result<Duration> {
        let plan = self.bare.plan(&self.spec(id))?;
        let leaf = plan.leaf().filter(|_| joins);
        let mut arguments = plan.argv();
        // Our jailer is spawned into the group, and gets no argument about groups.
        if let Some(leaf) = leaf {
            let groups = joining(leaf, &self.bare.config().cgroup_parent, id);
            arguments.splice(0..0, groups.into_iter().map(OsString::from));
        }
        let root = plan.layout().root().to_owned();
        let begun = Instant::now();
        // On v2 the jailer silently skips a group that does not exist.
        for group in leaf.into_iter().flat_map(|leaf| leaf.paths()) {
            fs::create_dir_all(group)?;
        }
        fs::create_dir_all(&root)?;
        fs::copy(&self.kernel, root.join("vmlinux"))?;
        let jailer = Command::new(self.binaries.jailer())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the jailer")?;
        let mut jailer = Bare(jailer);
        let answered = jailer.poll_hard(&root.join("api.sock"));
        let took = begun.elapsed();
        drop(jailer);
        fs::remove_dir_all(root.parent().context("the jail's directory")?)?;
        for group in testkit::cgroups_named(&self.bare.config().cgroup_parent, id) {
            fs::remove_dir(group)?;
        }
        answered.map(|()| took)
    }

    /// Compares with fctools, with one limit and without any.
    fn beside_fctools(&self, session: &mut Session) -> Result<()> {
        let program = outside::build("fctools")?;
        // fctools gives the image itself to the VM's user.
        let kernel = self.scratch.join("given-away-vmlinux");
        fs::copy(&self.kernel, &kernel)?;
        let base = self.scratch.dir("fctools");
        let (jailer, firecracker) = (self.binaries.jailer(), self.binaries.firecracker());
        let [uid, gid] = [UID, GID].map(|id| id.to_string());
        let arguments = [jailer, firecracker, &kernel, &base, Path::new(&uid), Path::new(&gid)];
        let fctools = RefCell::new(Outside::start(&program, &arguments)?);
        let number = Cell::new(0);
        let next = || {
            number.set(number.get() + 1);
            number.get()
        };
        let one = Limits::new().memory_max(ByteSize::mib(512));
        for (work, limits, at_most) in [
            ("stage one kernel, launch with one limit, API answers", one, 0.35),
            ("the same without any limit", Limits::new(), 1.05),
        ] {
            let spec = |id: &str| self.spec(id).limits(limits.clone());
            let ours = Contender::new("microvm-runtime", || {
                self.launch_spec(&self.jailer, &spec(&format!("ours-fctools-{}", next())))
            });
            let rival = Rival::new("fctools", || {
                let id = format!("fctools-{}", next());
                let mut request = vec!["launch".to_owned(), id.clone()];
                let parent = &self.bare.config().cgroup_parent;
                let plan = self.bare.plan(&spec(&id))?;
                if let Some(leaf) = plan.leaf().filter(|leaf| !leaf.settings().is_empty()) {
                    request.extend(joining(leaf, parent, &id));
                }
                let took = fctools.borrow_mut().call(&request.join(" "))?;
                for group in testkit::cgroups_named(parent, &id) {
                    fs::remove_dir(group)?;
                }
                Ok(took)
            });
            session.compare(work, session.rounds(40), ours, vec![rival.at_most(at_most)])?;
        }
        Ok(())
    }

    fn spec(&self, vm_id: &str) -> JailSpec {
        // As the bare side, which has no namespace of its own.
        let network = Network::Host;
        JailSpec::new(vm_id, self.binaries.firecracker()).kernel(&self.kernel).network(network)
    }

    /// Returns the milliseconds of CPU that this process uses to wait for a delayed jailer.
    fn cpu_of_waiting(&self) -> Result<f64> {
        let late = self.scratch.file("late-jailer", self.late_jailer());
        fs::set_permissions(&late, fs::Permissions::from_mode(0o755))?;
        let late = Jailer::new(config(&self.scratch, "ours", late));
        let mut differences = Vec::new();
        for round in 0..5 {
            let at_once = self.cpu_of(|| self.launch(&self.jailer, &format!("at-once-{round}")))?;
            let waited = self.cpu_of(|| {
                let took = self.launch(&late, &format!("late-{round}"))?;
                ensure!(took >= HELD_UP, "the jailer was not delayed");
                Ok(took)
            })?;
            differences.push((waited - at_once).max(0.0));
        }
        crate::session::median(differences, f64::total_cmp).context("no round")
    }

    /// Returns the milliseconds of user and system CPU time of all threads of this process (getrusage(2)).
    fn cpu_of(&self, work: impl FnOnce() -> Result<Duration>) -> Result<f64> {
        let used = || -> Result<i64> {
            let usage = getrusage(UsageWho::RUSAGE_SELF)?;
            Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
        };
        let before = used()?;
        work()?;
        let microseconds = i32::try_from(used()? - before).context("CPU time")?;
        Ok(f64::from(microseconds) / 1e3)
    }

    /// Returns a script that starts the same jailer after a delay.
    fn late_jailer(&self) -> String {
        let jailer = self.binaries.jailer().display();
        format!(
            "#!/bin/sh\n[ \"$1\" = --version ] || sleep {}\nexec '{jailer}' \"$@\"\n",
            HELD_UP.as_secs()
        )
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        // Neighbours hold the locks of the jails.
        self.neighbours.clear();
        for jailer in [&self.jailer, &self.bare] {
            // A failed round may have left a VM.
            for listed in jailer.list().unwrap_or_default().jails {
                if let Err(error) = jailer.remove_jail(&listed.jail_id) {
                    eprintln!("left behind: {}: {error}", listed.path.display());
                }
            }
            testkit::remove_cgroup(&jailer.config().cgroup_parent);
        }
    }
}

/// Returns the arguments with which a jailer joins this group on its own.
fn joining(leaf: &LeafPlan, parent: &str, id: &str) -> Vec<String> {
    let settings = leaf.settings();
    let version = match leaf.version() {
        CgroupVersion::V1 => "1",
        CgroupVersion::V2 => "2",
    };
    // Without a setting the jailer joins the parent group, since 1.6.0 and on v2.
    let parent = if settings.is_empty() { format!("{parent}/{id}") } else { parent.to_owned() };
    let mut arguments = vec!["--cgroup-version".to_owned(), version.to_owned()];
    arguments.extend(["--parent-cgroup".to_owned(), parent]);
    for (file, value) in settings {
        arguments.extend(["--cgroup".to_owned(), format!("{file}={value}")]);
    }
    arguments
}

fn config(scratch: &Scratch, name: &str, jailer_bin: PathBuf) -> JailerConfig {
    JailerConfig {
        jailer_bin,
        uid: UID,
        gid: GID,
        chroot_base: scratch.join(name),
        cgroup_parent: testkit::unique(name),
        ..JailerConfig::default()
    }
}

/// A bare VM, killed and reaped on drop.
struct Bare(Child);

impl Bare {
    fn poll_hard(&mut self, socket: &Path) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut api = loop {
            if let Ok(api) = UnixStream::connect(socket) {
                break api;
            }
            if Instant::now() > deadline {
                bail!("the bare VM does not answer; {:?}", self.0.try_wait());
            }
        };
        api.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n")?;
        let mut answer = [0; 12];
        api.read_exact(&mut answer)?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "the bare VM answers {:?}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
