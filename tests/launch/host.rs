//! A host to launch on: a base of its own, a golden kernel, the binaries that are there, and a look at what is left.

use std::path::{Path, PathBuf};
use std::process::Command;

use microvm_runtime::{Boot, JailSpec, Jailer, JailerConfig, Vm};
use testkit::{Binaries, Canary, GUEST_LINE, HostState, Scratch, unique};

pub(crate) const UID: u32 = 52_001;
pub(crate) const GID: u32 = 52_002;

/// The environment variable with the spec for a launcher in another process.
pub(crate) const LAUNCHER_SPEC: &str = "MICROVM_TEST_SPEC";

/// Everything a launch test needs; on drop it tears down what the test made and kills what still runs.
pub(crate) struct Host {
    pub(crate) scratch: Scratch,
    pub(crate) binaries: Binaries,
    pub(crate) config: JailerConfig,
    images: Canary,
    before: HostState,
    ids: Vec<String>,
}

impl Host {
    pub(crate) fn new(label: &str) -> Self {
        Self::with_base(label, |scratch| scratch.join("base"))
    }

    pub(crate) fn with_base(label: &str, base: impl FnOnce(&Scratch) -> PathBuf) -> Self {
        let before = HostState::snapshot();
        let binaries = Binaries::find();
        let scratch = Scratch::new(label);
        let images = scratch.dir("images");
        for (name, source) in [
            ("vmlinux", binaries.guest()),
            ("idle", binaries.idle_guest()),
            ("deaf", binaries.deaf_guest()),
        ] {
            let _ = scratch.file(
                Path::new("images").join(name),
                std::fs::read(source).expect("the guest was built"),
            );
        }
        let config = JailerConfig {
            jailer_bin: binaries.jailer().to_owned(),
            uid: UID,
            gid: GID,
            chroot_base: base(&scratch),
            cgroup_parent: unique(label),
            cgroup_v2: true,
            numa_node: None,
        };
        let images = Canary::take(&images);
        Self { scratch, binaries, config, images, before, ids: Vec::new() }
    }

    pub(crate) fn jailer(&self) -> Jailer {
        Jailer::new(self.config.clone())
    }

    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.scratch.join("images").join(name)
    }

    /// Returns a VM with a guest that runs on and ignores Ctrl+Alt+Del.
    pub(crate) fn deaf(&mut self, vm_id: &str) -> JailSpec {
        self.spec(vm_id, "deaf")
    }

    /// Returns a VM with a guest that runs until Ctrl+Alt+Del.
    pub(crate) fn idle(&mut self, vm_id: &str) -> JailSpec {
        self.spec(vm_id, "idle")
    }

    /// Returns a VM with a guest that prints a line and resets.
    pub(crate) fn hello(&mut self, vm_id: &str) -> JailSpec {
        self.spec(vm_id, "vmlinux")
    }

    /// Returns a VM whose VMM is the hostile one in this mode, with an API.
    pub(crate) fn hostile(&mut self, vm_id: &str, mode: &str) -> JailSpec {
        let exec_file = self.scratch.join(format!("firecracker-{mode}"));
        if !exec_file.exists() {
            std::fs::copy(self.binaries.hostile(), &exec_file).expect("copy the hostile VMM");
        }
        self.ids.push(vm_id.to_owned());
        JailSpec::new(vm_id, exec_file)
            .kernel(self.image("idle"))
            .ready_within(std::time::Duration::from_secs(60))
    }

    /// Has the VM `vm_id`, with a spec of the test's own, removed at the end.
    pub(crate) fn expect(&mut self, vm_id: &str) {
        self.ids.push(vm_id.to_owned());
    }

    fn spec(&mut self, vm_id: &str, kernel: &str) -> JailSpec {
        self.ids.push(vm_id.to_owned());
        JailSpec::new(vm_id, self.binaries.firecracker())
            .kernel(self.image(kernel))
            .boot(
                Boot::new().vcpus(1).memory_mib(128).kernel_args("console=ttyS0 reboot=k panic=1"),
            )
            .ready_within(std::time::Duration::from_secs(60))
    }

    /// Returns a command for a launcher process: this test, with `role`, this host's configuration and the spec.
    pub(crate) fn launcher(&self, test: &str, role: &str, spec: &JailSpec) -> Command {
        let config = &self.config;
        let mut command = testkit::reenter(test, role);
        command
            .env("MICROVM_JAILER_BIN", &config.jailer_bin)
            .env("MICROVM_JAILER_UID", config.uid.to_string())
            .env("MICROVM_JAILER_GID", config.gid.to_string())
            .env("MICROVM_JAILER_CHROOT_BASE", &config.chroot_base)
            .env("MICROVM_JAILER_CGROUP_PARENT", &config.cgroup_parent)
            .env(LAUNCHER_SPEC, serde_json::to_string(spec).expect("a spec is text"));
        command
    }

    /// Removes every VM and asserts that the host is unchanged.
    pub(crate) fn assert_clean(self) {
        for id in &self.ids {
            self.jailer().teardown(id).expect("teardown");
        }
        self.images.assert_same();
        testkit::remove_cgroup(&self.config.cgroup_parent);
        self.before.assert_unchanged();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for id in &self.ids {
            if let Err(error) = self.jailer().teardown(id) {
                eprintln!("left behind: {id}: {error}");
            }
        }
        testkit::remove_cgroup(&self.config.cgroup_parent);
    }
}

/// Waits for the guest's line on the console.
pub(crate) fn assert_says_hello(vm: &Vm) {
    let console = vm.console().expect("the console is read by us");
    let begun = std::time::Instant::now();
    let line =
        console.wait_for_line(|line| line.contains(GUEST_LINE), std::time::Duration::from_secs(60));
    assert!(
        line.is_some(),
        "after {:?}; console: {console:?} {:?}\nlog: {:?}\nexit: {:?}\nprocess: {:?}",
        begun.elapsed(),
        console.text(),
        vm.log().text(),
        vm.wait_timeout(std::time::Duration::ZERO),
        ["wchan", "syscall", "status"].map(|file| {
            std::fs::read_to_string(format!("/proc/{}/{file}", vm.pid())).unwrap_or_default()
        }),
    );
}
