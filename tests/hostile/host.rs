//! A host under attack, as one launcher sees it: a base, the binaries, and bystanders that nothing may happen to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use microvm_runtime::{JailSpec, Jailer, JailerConfig, User, Vm};
use testkit::{Binaries, KillOnDrop};

/// The place and the names of one launcher's VMs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// A directory of this case's own.
    pub(crate) dir: PathBuf,
    pub(crate) cgroup_parent: String,
    /// The first of ten uids that nobody else has.
    pub(crate) uid: u32,
    pub(crate) cgroup_v2: bool,
}

impl Place {
    pub(crate) fn base(&self) -> PathBuf {
        self.dir.join("base")
    }

    pub(crate) fn jailer(&self) -> Jailer {
        Jailer::new(JailerConfig {
            jailer_bin: Binaries::find().jailer().to_owned(),
            uid: self.uid + 9,
            gid: self.uid + 9,
            chroot_base: self.base(),
            cgroup_parent: self.cgroup_parent.clone(),
            cgroup_v2: self.cgroup_v2,
            numa_node: None,
        })
    }

    /// A VM that does nothing, of the stand-in: no attack depends on a guest.
    pub(crate) fn quiet(&self, vm_id: &str, uid: u32) -> JailSpec {
        JailSpec::new(vm_id, Binaries::stand_ins().firecracker())
            .user(User::Leased { first: uid, last: uid })
            .ready_within(Duration::from_secs(60))
    }
}

/// A VM and processes of this host that are not the attacker's.
pub(crate) struct Bystanders {
    vm: Vm,
    processes: Vec<KillOnDrop>,
}

pub(crate) const BYSTANDER: &str = "bystander";

impl Bystanders {
    /// A VM beside the attacker's, a process of root's, another user's, and one of root's with a jailer's arguments.
    pub(crate) fn start(place: &Place, victim: &str) -> Self {
        let spec = place.quiet(BYSTANDER, place.uid + 1);
        let vm = place.jailer().launch(&spec).unwrap_or_else(|error| panic!("{error:?}"));
        let wait = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "read line"]).stdin(Stdio::piped());
            command
        };
        let mut as_jailer = wait();
        as_jailer.args(["jailer", "--id", victim, "--chroot-base-dir"]).arg(place.base());
        let other_user = testkit::as_user(wait(), place.uid + 2);
        let processes = [wait(), as_jailer, other_user];
        let processes = processes.into_iter().map(|mut it| KillOnDrop::spawn(&mut it)).collect();
        Self { vm, processes }
    }

    /// # Panics
    /// When one has ended, or the VM has lost its API or its jail.
    pub(crate) fn assert_unharmed(&mut self) {
        assert_eq!(self.vm.wait_timeout(Duration::ZERO).unwrap(), None, "the bystander has ended");
        let info = self.vm.api().and_then(|api| api.instance_info());
        assert_eq!(info.unwrap_or_else(|error| panic!("{error:?}")).id, BYSTANDER);
        for process in &mut self.processes {
            assert_eq!(process.try_wait().unwrap(), None, "a process of the host was killed");
        }
    }

    pub(crate) fn end(self, place: &Place) {
        self.vm.kill().unwrap();
        drop(self.vm);
        place.jailer().teardown(BYSTANDER).unwrap();
    }
}

/// Makes the file that the exec file of a mode is linked to: its name is the mode.
pub(crate) fn exec_file(dir: &Path, mode: &str) -> PathBuf {
    let hostile = Binaries::find().hostile();
    let path = dir.join(format!("firecracker-{mode}"));
    fs::copy(hostile, &path).expect("copy the hostile VMM");
    path
}
