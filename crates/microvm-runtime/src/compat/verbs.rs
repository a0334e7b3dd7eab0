//! The verbs of the 0.4 API: thin calls of [`Jailer`] that return and take a [`VmJail`].

use std::path::{Path, PathBuf};
use std::process::Command;

use jail_cmd::{
    CgroupSetting, ExecName, FirecrackerArgs, Gid, HostPath, JailId, JailPath, JailerArgs, Layout,
    ParentCgroup, Uid,
};

use crate::compat::VmJail;
use crate::error::{Error, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::jail::prepare::{HandOver, prepare};
use crate::jailer::{DeviceNodes, Jailer};
use crate::plan::Plan;
use crate::plan::host_file::Program;
use crate::spec::drive::Drive;
use crate::spec::{JailSpec, Network};

/// The exec file's name in the layout of the 0.4 API.
const EXEC_NAME: &str = "firecracker";

/// The name of the staged root filesystem.
const ROOTFS: &str = "rootfs.ext4";

impl Jailer {
    /// The jail's root on the host, `<base>/firecracker/<jail id>/root`. Pure.
    ///
    /// It holds for an exec file called `firecracker`; for any other, ask [`Plan::layout`](crate::Plan::layout). Of
    /// the empty id, which every other verb refuses, the answer is `<base>/firecracker/root`.
    #[must_use]
    pub fn chroot_for(&self, vm_id: &str) -> PathBuf {
        let exec_dir = self.config().chroot_base.join(EXEC_NAME);
        match JailId::for_vm(vm_id) {
            Ok(id) => exec_dir.join(id.as_str()).join("root"),
            Err(_) => exec_dir.join("root"),
        }
    }

    /// Stages a jail for a caller that starts the jailer itself, with [`build_command`](Self::build_command).
    ///
    /// The kernel becomes `/vmlinux`, shared and never chowned; `rootfs` becomes `/rootfs.ext4` and each extra drive a
    /// file of its own name (else `drive-<i>.img`), each a private copy-on-write inode of the configured uid.
    /// Idempotent. The jail's VM has the network namespace of its starter ([`Network::Host`]).
    ///
    /// # Errors
    /// A missing source, a bad id, a VM that runs under this id, and whatever staging refuses; each names the path.
    ///
    /// # Privileges
    /// As [`Plan::prepare`](crate::Plan::prepare).
    pub fn prepare(
        &self,
        vm_id: &str,
        kernel: &Path,
        rootfs: &Path,
        extra_drives: &[PathBuf],
    ) -> VmRuntimeResult<VmJail> {
        let mut spec = JailSpec::new(vm_id, Path::new("/").join(EXEC_NAME))
            .network(Network::Host)
            .kernel(absolute(kernel)?)
            .drive(Drive::private("rootfs", absolute(rootfs)?).file_name(ROOTFS));
        for (index, source) in extra_drives.iter().enumerate() {
            let name = source.file_name().and_then(|name| name.to_str());
            let name = name.map_or_else(|| format!("drive-{index}.img"), str::to_owned);
            spec = spec.drive(Drive::private(name, absolute(source)?));
        }
        let plan = Plan::without_launch(
            self.config(),
            &spec,
            ExecName::new(EXEC_NAME).map_err(Error::from)?,
        )?;
        let (hand_over, verb) = match self.nodes() {
            DeviceNodes::ByJailer => (HandOver::ToJailer, Verb::Prepare),
            DeviceNodes::Precreate => (HandOver::ToUser, Verb::PrepareNodes),
        };
        host_check::before(verb)?;
        let prepared = prepare(&plan, &jail_fs::CopyOptions::default(), hand_over)?;
        Ok(VmJail::at(prepared.plan.layout.root()))
    }

    /// The jailer's command line for a prepared jail; the caller spawns it and wires its stdio.
    ///
    /// `--id I --exec-file F --uid U --gid G --chroot-base-dir B --cgroup-version V --parent-cgroup P [--cgroup
    /// cpuset.mems=N --cgroup cpuset.cpus=L] --new-pid-ns -- --api-sock /api.sock`. With control groups v2 and no
    /// NUMA node, `P` is the leaf of this VM alone, which [`prepare`](Self::prepare) made; otherwise the jailer makes
    /// the leaf below `P`.
    ///
    /// The VM stays in the network namespace of the process that spawns the command, as in the 0.4 API: spawn
    /// the command in another namespace, or launch a [`JailSpec`], which gives the VM a namespace of its own.
    ///
    /// # Errors
    /// A relative `firecracker_bin`; one whose canonical name is not `firecracker`, since the jailer would look for
    /// the jail elsewhere; a `jail` that is not this VM's; a uid, gid, base or parent the jailer would refuse.
    pub fn build_command(
        &self,
        vm_id: &str,
        jail: &VmJail,
        firecracker_bin: &Path,
    ) -> VmRuntimeResult<Command> {
        let mut command = Command::new(&self.config().jailer_bin);
        command.args(self.jailer_args(vm_id, jail, firecracker_bin)?.to_argv());
        Ok(command)
    }

    fn jailer_args(
        &self,
        vm_id: &str,
        jail: &VmJail,
        firecracker_bin: &Path,
    ) -> Result<JailerArgs> {
        let operation = "build the jailer's command";
        let config = self.config();
        let id = JailId::for_vm(vm_id)?;
        if !firecracker_bin.is_absolute() {
            return Err(Error::invalid(
                operation,
                "the firecracker binary must be an absolute path",
            )
            .path(firecracker_bin));
        }
        refuse_other_name(operation, firecracker_bin)?;
        let base = HostPath::try_from(config.chroot_base.as_path())?;
        let layout = Layout::new(base.clone(), ExecName::new(EXEC_NAME)?, id.clone());
        if jail.chroot_path != layout.root() {
            return Err(Error::invalid(
                operation,
                format!("the VM {vm_id:?} has its jail elsewhere"),
            )
            .path(&jail.chroot_path)
            .hinted(format!("The jail of this VM is {}.", layout.root().display())));
        }
        let settings = match config.numa_node {
            None => Vec::new(),
            Some(node) => numa_settings(node)?,
        };
        let parent = ParentCgroup::new(&config.cgroup_parent)?;
        // With v2 and no setting, the jailer joins its parent: the leaf that `prepare` made.
        let joins_leaf = config.cgroup_v2 && settings.is_empty();
        let parent = if joins_leaf { parent.join(&id) } else { parent };
        let exec_file = HostPath::try_from(firecracker_bin)?;
        let mut args = JailerArgs::new(id, exec_file, Uid::new(config.uid)?, Gid::new(config.gid)?)
            .chroot_base(base)
            .parent_cgroup(parent);
        args = if config.cgroup_v2 { args.cgroup_v2() } else { args.cgroup_v1() };
        for setting in settings {
            args = args.cgroup(setting);
        }
        let socket = JailPath::try_from(jail.api_socket_in_chroot.as_path())?;
        Ok(args.new_pid_ns().firecracker(FirecrackerArgs::new().api_sock(socket)))
    }

    /// Removes the VM's jail as [`remove`](Self::remove) does, without a report.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn teardown(&self, vm_id: &str) -> VmRuntimeResult<()> {
        self.remove(vm_id).map(drop)
    }
}

/// Turns a VM's name into `[A-Za-z0-9_-]*`, a `_` for each other character.
///
/// Kept for callers that named things with it. It maps different names to one: no path and no argument of this crate
/// is made from it.
#[must_use]
pub fn safe_vm_id(vm_id: &str) -> String {
    vm_id
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' })
        .collect()
}

/// The 0.4 API accepted sources relative to the working directory.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        Error::invalid("find the source", "it is not a path").path(path).source_of(error)
    })
}

/// The jailer names the jail after the canonical exec file. One that is not installed yet is taken at its word.
fn refuse_other_name(operation: &str, firecracker_bin: &Path) -> Result<()> {
    let canonical = match Program::find("firecracker binary", firecracker_bin) {
        Ok(program) => program.path().as_path().to_owned(),
        Err(_) => firecracker_bin.to_owned(),
    };
    if canonical.file_name().is_some_and(|name| name == EXEC_NAME) {
        return Ok(());
    }
    Err(Error::invalid(
        operation,
        format!("the jailer names the jail after its canonical name, {}", canonical.display()),
    )
    .path(firecracker_bin)
    .hinted(
        "launch it through a `JailSpec`, or give it a canonical path that ends in `firecracker`",
    ))
}

fn numa_settings(node: u32) -> Result<Vec<CgroupSetting>> {
    let cpus = jail_cgroup::numa_node_cpus(node)?;
    Ok(vec![
        CgroupSetting::new("cpuset.mems", node.to_string())?,
        CgroupSetting::new("cpuset.cpus", cpus.to_string())?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_vm_id_matches_0_4() {
        assert_eq!(safe_vm_id("ünicode"), "_nicode");
        assert_eq!(safe_vm_id("a/b_c-9"), "a_b_c-9");
        assert_eq!(safe_vm_id(""), "");
    }

    #[test]
    fn numa_error_repeats_nothing() {
        let config = crate::JailerConfig { numa_node: Some(4242), ..Default::default() };
        let jailer = Jailer::new(config);
        let jail = VmJail::at(jailer.chroot_for("vm"));
        let exec_file = Path::new("/usr/bin/firecracker");
        let error = jailer.build_command("vm", &jail, exec_file).unwrap_err();
        for part in ["NUMA node 4242", "the host's nodes"] {
            assert_eq!(error.to_string().matches(part).count(), 1, "{error}");
        }
        assert_eq!(error.hint(), Some("Ask for a node that the host has."));
        assert!(std::error::Error::source(&error).is_none());
    }
}
