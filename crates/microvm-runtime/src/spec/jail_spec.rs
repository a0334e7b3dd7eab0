//! The description of a VM: [`JailSpec`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jail_cgroup::{CgroupVersion, Limits};
use jail_cmd::ResourceLimit;
use serde::{Deserialize, Serialize};

use crate::error::{Error, VmRuntimeError};
use crate::spec::drive::Drive;
use crate::spec::firecracker::FirecrackerOptions;
use crate::spec::machine::Boot;
use crate::spec::network::Network;
use crate::spec::pmem::Pmem;
use crate::spec::restore::Restore;
use crate::vmm::{Console, PidNamespace};

/// Uids and gids a VM may run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum User {
    /// The configuration's uid and gid, shared by every VM with this variant.
    Configured,
    /// These.
    Fixed {
        /// The uid; 0 and `u32::MAX` are refused.
        uid: u32,
        /// The gid; 0 and `u32::MAX` are refused.
        gid: u32,
    },
    /// An exclusive uid from this range, with the gid of the same number, until the jail is removed.
    Leased {
        /// First uid of the range.
        first: u32,
        /// Last uid of the range, included.
        last: u32,
    },
}

impl fmt::Display for User {
    /// Prints `configured`, `<uid>:<gid>` or `<first>-<last>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("configured"),
            Self::Fixed { uid, gid } => write!(f, "{uid}:{gid}"),
            Self::Leased { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for User {
    type Err = VmRuntimeError;

    /// Parses the text that `Display` prints.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = |separator| {
            let (one, two) = text.split_once(separator)?;
            Some((one.parse().ok()?, two.parse().ok()?))
        };
        match (text, pair(':'), pair('-')) {
            ("configured", ..) => Ok(Self::Configured),
            (_, Some((uid, gid)), _) => Ok(Self::Fixed { uid, gid }),
            (_, _, Some((first, last))) => Ok(Self::Leased { first, last }),
            _ => Err(Error::invalid(format!("parse the user {text:?}"), "there is no such form")
                .hinted("Use `configured`, `<uid>:<gid>`, or `<first>-<last>` for a leased uid.")
                .into()),
        }
    }
}

/// The description of a VM: files, limits, network namespace and machine.
///
/// The setters check nothing: [`Jailer::plan`](crate::Jailer::plan) validates the whole once, before anything is
/// touched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JailSpec {
    pub(crate) vm_id: String,
    pub(crate) exec_file: PathBuf,
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) drives: Vec<Drive>,
    #[serde(default)]
    pub(crate) pmem: Vec<Pmem>,
    pub(crate) limits: Limits,
    pub(crate) cgroup_version: Option<CgroupVersion>,
    pub(crate) resource_limits: Vec<ResourceLimit>,
    pub(crate) network: Network,
    pub(crate) user: User,
    pub(crate) boot: Option<Boot>,
    pub(crate) api: bool,
    pub(crate) pid_namespace: PidNamespace,
    pub(crate) daemonize: bool,
    pub(crate) firecracker: FirecrackerOptions,
    pub(crate) console: Console,
    pub(crate) ready_within: Duration,
    #[serde(default)]
    pub(crate) restore: Option<Restore>,
}

impl JailSpec {
    /// A VM called `vm_id` that runs `exec_file`, a static Firecracker.
    ///
    /// Any id but the empty one will do: see [`JailId::for_vm`](jail_cmd::JailId::for_vm).
    pub fn new(vm_id: impl Into<String>, exec_file: impl Into<PathBuf>) -> Self {
        Self {
            vm_id: vm_id.into(),
            exec_file: exec_file.into(),
            kernel: None,
            initrd: None,
            drives: Vec::new(),
            pmem: Vec::new(),
            limits: Limits::new(),
            cgroup_version: None,
            resource_limits: Vec::new(),
            network: Network::default(),
            user: User::Configured,
            boot: None,
            api: true,
            pid_namespace: PidNamespace::default(),
            daemonize: false,
            firecracker: FirecrackerOptions::default(),
            console: Console::default(),
            ready_within: Duration::from_secs(10),
            restore: None,
        }
    }

    /// The guest's kernel, staged as `/vmlinux`: shared, never chowned.
    #[must_use]
    pub fn kernel(mut self, path: impl Into<PathBuf>) -> Self {
        self.kernel = Some(path.into());
        self
    }

    /// The guest's initial ramdisk, staged as `/initrd`: shared, never chowned.
    #[must_use]
    pub fn initrd(mut self, path: impl Into<PathBuf>) -> Self {
        self.initrd = Some(path.into());
        self
    }

    /// One more drive; the first drive is the root device unless another drive is marked as root.
    #[must_use]
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drives.push(drive);
        self
    }

    /// One more persistent-memory device. Firecracker 1.14.0.
    #[must_use]
    pub fn pmem(mut self, device: Pmem) -> Self {
        self.pmem.push(device);
        self
    }

    /// Limits on the VMM's memory, CPU, processes and I/O. None asked for, the VM still gets a control group of its
    /// own where the host has a hierarchy for it.
    ///
    /// They hold for the jailer too, which copies the exec file: under a small CPU limit a launch takes longer.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Insists on one version of control groups.
    ///
    /// Otherwise the configuration's is used, unless a limit was asked for that on this host only the other can keep.
    #[must_use]
    pub fn cgroup_version(mut self, version: CgroupVersion) -> Self {
        self.cgroup_version = Some(version);
        self
    }

    /// One more `setrlimit(2)` limit, set by the jailer.
    #[must_use]
    pub fn resource_limit(mut self, limit: ResourceLimit) -> Self {
        self.resource_limits.push(limit);
        self
    }

    /// Sets the VM's network namespace: a new one ([`Network::Isolated`]) if this is not called.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Sets the uid and gid of this VM, instead of the configuration's.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// Boots this machine at once. Without a machine, Firecracker waits for requests to the API.
    #[must_use]
    pub fn boot(mut self, boot: Boot) -> Self {
        self.boot = Some(boot);
        self
    }

    /// Starts Firecracker without the API (`--no-api`): requires a [`boot`](Self::boot), and only a kill stops the VM.
    #[must_use]
    pub fn no_api(mut self) -> Self {
        self.api = false;
        self
    }

    /// Sets the maker of the VM's pid namespace.
    #[must_use]
    pub fn pid_namespace(mut self, who: PidNamespace) -> Self {
        self.pid_namespace = who;
        self
    }

    /// Detaches the VMM from the session and from stdio (`--daemonize`).
    #[must_use]
    pub fn daemonize(mut self) -> Self {
        self.daemonize = true;
        self
    }

    /// Firecracker's own options: log level, metrics and so on.
    #[must_use]
    pub fn firecracker(mut self, options: FirecrackerOptions) -> Self {
        self.firecracker = options;
        self
    }

    /// Sets the destination of the guest's console.
    #[must_use]
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// Sets the time that [`launch`](crate::Jailer::launch) waits until the VM is ready (10 s).
    #[must_use]
    pub fn ready_within(mut self, deadline: Duration) -> Self {
        self.ready_within = deadline;
        self
    }

    /// Returns the VM's id, unchanged.
    #[must_use]
    pub fn vm_id(&self) -> &str {
        &self.vm_id
    }

    /// Returns the path of Firecracker, unchanged.
    #[must_use]
    pub fn exec_file(&self) -> &Path {
        &self.exec_file
    }

    /// Returns the limit on the size of a file that the VMM writes, in bytes. The jailer sets the last of several limits.
    pub(crate) fn file_size_limit(&self) -> Option<u64> {
        self.resource_limits.iter().rev().find_map(|limit| match limit {
            ResourceLimit::FileSize(bytes) => Some(*bytes),
            _ => None,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use jail_cgroup::{ByteSize, CpuSet};
    use jail_cmd::LogLevel;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::machine::{
        Balloon, CpuTemplate, Entropy, HugePages, MemoryHotplug, Mmds, MmdsVersion,
        NetworkInterface, RateLimiter, Serial, TokenBucket,
    };

    /// Returns a spec without any default value. The literal names every field, so that a new field breaks the build
    /// here.
    pub(crate) fn unlike_default() -> JailSpec {
        let limiter = RateLimiter::new()
            .bandwidth(TokenBucket::new(1, 2).one_time_burst(3))
            .ops(TokenBucket::new(4, 5));
        JailSpec {
            vm_id: "tenant/vm".to_owned(),
            exec_file: "/opt/firecracker".into(),
            kernel: Some("/k".into()),
            initrd: Some("/i".into()),
            drives: vec![
                Drive::persistent("data", "/d")
                    .root_device()
                    .rate_limiter(limiter.clone())
                    .partuuid("0eaa91a0-01")
                    .file_name("data.img"),
            ],
            pmem: vec![Pmem::private("fast", "/p").root_device().rate_limiter(limiter.clone())],
            limits: Limits::new()
                .memory_max(ByteSize::mib(1))
                .memory_high(ByteSize::mib(2))
                .memory_swap_max(ByteSize::mib(3))
                .oom_group(true)
                .cpus(0.5)
                .cpu_weight(7)
                .cpuset_cpus("0-1".parse::<CpuSet>().unwrap())
                .numa_node(0)
                .pids_max(9)
                .hugetlb(ByteSize::mib(2), ByteSize::mib(4)),
            cgroup_version: Some(CgroupVersion::V1),
            resource_limits: vec![ResourceLimit::FileSize(10), ResourceLimit::OpenFiles(11)],
            network: Network::Namespace("/run/netns/x".into()),
            user: User::Leased { first: 1, last: 2 },
            boot: Some(
                Boot::new()
                    .vcpus(2)
                    .memory_mib(3)
                    .smt(true)
                    .track_dirty_pages(true)
                    .kernel_args("quiet")
                    .network(
                        NetworkInterface::new("eth0", "tap0")
                            .mac("06:00:00:00:00:01")
                            .create_tap()
                            .mtu(1400),
                    )
                    .vsock(7)
                    .cpu_template(CpuTemplate::T2)
                    .cpu_config(json!({ "kvm_capabilities": ["!56"] }))
                    .huge_pages(HugePages::Mib2)
                    .balloon(
                        Balloon::new(1)
                            .deflate_on_oom(true)
                            .statistics(2)
                            .free_page_hinting(true)
                            .free_page_reporting(true),
                    )
                    .entropy(Entropy::new().rate_limiter(limiter.clone()))
                    .memory_hotplug(MemoryHotplug::new(256).block_mib(4).slot_mib(256))
                    .mmds(
                        Mmds::new("eth0")
                            .version(MmdsVersion::V2)
                            .address([169, 254, 1, 1].into())
                            .imds_compat(true)
                            .data(json!({ "a": 1 })),
                    )
                    .serial(Serial::new().file_in_jail().rate_limiter(TokenBucket::new(8, 9)))
                    .extra(json!({ "new": 1 })),
            ),
            api: false,
            pid_namespace: PidNamespace::Host,
            daemonize: true,
            firecracker: FirecrackerOptions {
                log_level: Some(LogLevel::Debug),
                show_level: true,
                show_log_origin: true,
                log_module: Some("vmm".to_owned()),
                metrics: true,
                boot_timer: true,
                enable_pci: true,
                http_api_max_payload_size: Some(1),
                mmds_size_limit: Some(2),
            },
            console: Console::file("/var/log/vm"),
            ready_within: Duration::new(3, 7),
            restore: Some(Restore::new().as_clone()),
        }
    }

    /// Serialises a value and back, and sees that no field is the default's: one that is skipped comes back as that.
    pub(crate) fn assert_round_trip<T>(value: &T, default: Option<&T>)
    where
        T: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
    {
        let text = serde_json::to_string(value).unwrap();
        assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
        let fields = |value: &T| match serde_json::to_value(value).unwrap() {
            Value::Object(fields) => fields,
            other => panic!("{other} has no fields"),
        };
        let Some(default) = default.map(fields) else { return };
        for (name, field) in fields(value) {
            assert_ne!(default.get(&name), Some(&field), "{name} is the default");
        }
    }

    #[test]
    fn a_spec_survives_its_text() {
        let spec = unlike_default();
        assert_round_trip(&spec, Some(&JailSpec::new("vm", "/firecracker")));
        assert_round_trip(spec.boot.as_ref().unwrap(), Some(&Boot::new()));
        assert_round_trip(&spec.firecracker, Some(&FirecrackerOptions::new()));
        for console in [Console::tail(7), Console::file("/f"), Console::null()] {
            let text = serde_json::to_string(&spec.clone().console(console.clone())).unwrap();
            assert_eq!(serde_json::from_str::<JailSpec>(&text).unwrap().console, console);
        }
    }

    #[test]
    fn printed_user_is_parsed() {
        let users = [
            User::Configured,
            User::Fixed { uid: 7, gid: 8 },
            User::Leased { first: 1000, last: 2000 },
        ];
        for user in users {
            assert_eq!(user.to_string().parse::<User>().unwrap(), user);
        }
        for text in ["", "root", "7", "7:", "-1:2", "1-", "1-2-3", "configured "] {
            let error = text.parse::<User>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
