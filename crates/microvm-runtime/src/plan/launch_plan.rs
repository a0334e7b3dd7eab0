//! The plan of a launch: [`Plan`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jail_cgroup::LeafPlan;
use jail_cmd::{
    ExecName, FirecrackerArgs, Gid, HostPath, JailId, JailPath, JailerArgs, JailerVersion, Layout,
    LogModule, Uid, in_jail,
};
use serde::{Deserialize, Serialize};

use crate::config::JailerConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::contents::{PlannedArtifact, PlannedFile, artifacts, document, files};
use crate::plan::host_file::{self, Program};
use crate::plan::record_size;
use crate::plan::release::{KnownProgram, Releases};
use crate::plan::warning::{self, Warning};
use crate::snapshot::check_restore;
use crate::spec::drive::DriveKind;
use crate::spec::machine::{Boot, ConfigRequest, Document};
use crate::spec::{JailSpec, Network, User};
use crate::text::escaped;
use crate::vmm::PidNamespace;

/// Everything that will be done for a VM: file operations, control group writes, argv, and how each is undone.
///
/// Printed, it is a list a person can read; serialised, it can be carried out by another process. Making one changes
/// nothing on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    pub(crate) spec: JailSpec,
    pub(crate) jail_id: JailId,
    pub(crate) layout: Layout,
    /// `None` if somebody else starts the jailer.
    pub(crate) jailer: Option<KnownProgram>,
    /// The jailer for callers that start the jailer themselves, if the jailer is installed.
    pub(crate) callers_jailer: Option<Program>,
    pub(crate) exec_file: HostPath,
    pub(crate) user: User,
    pub(crate) artifacts: Vec<PlannedArtifact>,
    pub(crate) files: Vec<PlannedFile>,
    /// The requests that configure and start the machine, if no file does.
    pub(crate) requests: Vec<ConfigRequest>,
    /// Firecracker's release, if the spec has options that not every release has.
    pub(crate) firecracker_release: Option<JailerVersion>,
    pub(crate) leaf: Option<LeafPlan>,
    /// The configuration's own uid, which is nobody's to lease.
    pub(crate) configured_uid: u32,
}

impl Plan {
    /// Validates the whole spec and reads the host's state, without a change.
    pub(crate) fn new(config: &JailerConfig, releases: &Releases, spec: &JailSpec) -> Result<Self> {
        let jailer = releases.jailer(&config.jailer_bin)?;
        let program = Program::find("exec file", &spec.exec_file)?;
        let exec_file = program.path().clone();
        let exec_name = ExecName::try_from(&exec_file)?;
        let (plan, document) = Self::for_exec_name(config, spec, exec_file, exec_name)?;
        let release = jailer.release;
        let firecracker_release = match &spec.restore {
            Some(restore) => {
                let release = releases.firecracker(&program)?;
                check_restore(spec, restore, release)?;
                plan.firecracker_args()?.check(release)?;
                Some(release)
            }
            None => plan.check_firecracker(releases, &program, document.as_ref())?,
        };
        let plan = Self { jailer: Some(jailer), firecracker_release, ..plan };
        let (uid, gid) = plan.some_user()?;
        plan.own_args(uid, gid).check(release)?;
        Ok(plan)
    }

    /// Refuses options that this Firecracker lacks. Firecracker is asked for its release only if an option is not in
    /// every release.
    fn check_firecracker(
        &self,
        releases: &Releases,
        program: &Program,
        document: Option<&Document>,
    ) -> Result<Option<JailerVersion>> {
        let args = self.firecracker_args()?;
        let needs = document.map_or(JailerVersion::OLDEST, Document::first_release);
        if args.check(JailerVersion::OLDEST).is_ok() && needs == JailerVersion::OLDEST {
            return Ok(None);
        }
        let release = releases.firecracker(program)?;
        args.check(release)?;
        document.map_or(Ok(()), |document| document.check_release(release))?;
        Ok(Some(release))
    }

    /// The plan of a jail that somebody else starts: all but what depends on the exec file and the release.
    pub(crate) fn without_launch(
        config: &JailerConfig,
        spec: &JailSpec,
        exec_name: ExecName,
    ) -> Result<Self> {
        let exec_file = HostPath::try_from(spec.exec_file.as_path())?;
        let callers_jailer = Program::find("jailer", &config.jailer_bin).ok();
        let (plan, _) = Self::for_exec_name(config, spec, exec_file, exec_name)?;
        Ok(Self { callers_jailer, ..plan })
    }

    fn for_exec_name(
        config: &JailerConfig,
        spec: &JailSpec,
        exec_file: HostPath,
        exec_name: ExecName,
    ) -> Result<(Self, Option<Document>)> {
        let jail_id = JailId::for_vm(&spec.vm_id)?;
        let base = HostPath::try_from(config.chroot_base.as_path()).map_err(|error| {
            Error::invalid("use JailerConfig::chroot_base", error.reason())
                .path(&config.chroot_base)
                .hinted("Give an absolute path of UTF-8, without `..` and control characters.")
        })?;
        let layout = Layout::new(base, exec_name, jail_id.clone());
        let user = match spec.user {
            User::Configured => User::Fixed { uid: config.uid, gid: config.gid },
            other => other,
        };
        spec.console.check()?;
        let artifacts = artifacts(spec, &layout)?;
        let document = document(spec)?;
        let files = files(spec, document.as_ref());
        let requests = match (&spec.boot, &document, &spec.restore) {
            (.., Some(restore)) => vec![ConfigRequest::load(restore.request(!restore.paused))],
            (Some(boot), Some(document), None) if boot.needs_requests() => {
                [document.requests(), vec![ConfigRequest::start()]].concat()
            }
            _ => Vec::new(),
        };
        if let Network::Namespace(path) = &spec.network {
            host_file::open_network_namespace(path)?;
        }
        let new_tap = spec.boot.iter().flat_map(Boot::new_taps).next();
        if let Some(tap) = new_tap.filter(|_| spec.network != Network::Isolated) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("create the tap device {tap:?}"),
            )
            .because(format!("the VM has {}", spec.network))
            .hinted("Use `Network::Isolated`, or make the device for the VM's uid first."));
        }
        let plan = Self {
            spec: spec.clone(),
            jail_id,
            layout,
            jailer: None,
            callers_jailer: None,
            exec_file,
            user,
            artifacts,
            files,
            requests,
            firecracker_release: None,
            leaf: None,
            configured_uid: config.uid,
        };
        plan.some_user()?;
        if !spec.api && !plan.requests.is_empty() {
            return Err(Error::invalid("plan the serial port", "it is configured over the API")
                .hinted("Leave `no_api` or `serial` out of the spec."));
        }
        if !spec.api && spec.boot.is_none() {
            return Err(Error::invalid(
                "plan the VM",
                "without an API there must be something to boot",
            )
            .hinted("Give the spec a `boot`."));
        }
        if spec.daemonize && spec.pid_namespace == PidNamespace::ByLauncher {
            let because = "a jailer that daemonizes ends, and with the first process of a pid namespace all others";
            return Err(Error::invalid("plan the VM", because)
                .hinted("Use `PidNamespace::ByJailer`, or leave `daemonize` out."));
        }
        let sources = plan.artifacts.iter().map(|artifact| artifact.source.as_os_str().len());
        record_size::check(&plan.spec, sources)?;
        let leaf = super::leaf::plan(config, spec, &plan.jail_id)?;
        Ok((Self { leaf, ..plan }, document))
    }

    /// Returns the VM's user, or the first user of a leased range.
    pub(crate) fn some_user(&self) -> Result<(Uid, Gid)> {
        match self.user {
            User::Fixed { uid, gid } => Ok((Uid::new(uid)?, Gid::new(gid)?)),
            User::Leased { first, last } if first <= last => {
                Uid::new(last)?;
                Ok((Uid::new(first)?, Gid::new(first)?))
            }
            User::Leased { first, last } => Err(Error::invalid(
                "plan the VM's user",
                format!("the uid range {first}..={last} is empty"),
            )
            .hinted("Give the lower uid first.")),
            User::Configured => Err(Error::invalid("plan the VM's user", "it was not resolved")),
        }
    }

    /// The jailer's arguments for this VM as this user. None is about control groups and networks: the jailer is born in
    /// the VM's leaf and network namespace.
    pub(crate) fn jailer_args(&self, uid: Uid, gid: Gid) -> Result<JailerArgs> {
        Ok(self.own_args(uid, gid).firecracker(self.firecracker_args()?))
    }

    /// The jailer's own arguments, without Firecracker's.
    fn own_args(&self, uid: Uid, gid: Gid) -> JailerArgs {
        let mut args = JailerArgs::new(self.jail_id.clone(), self.exec_file.clone(), uid, gid)
            .chroot_base(self.layout.base().clone());
        for limit in &self.spec.resource_limits {
            args = args.resource_limit(*limit);
        }
        if self.spec.daemonize {
            args = args.daemonize();
        }
        if self.spec.pid_namespace == PidNamespace::ByJailer {
            args = args.new_pid_ns();
        }
        args
    }

    fn firecracker_args(&self) -> Result<FirecrackerArgs> {
        let options = &self.spec.firecracker;
        let mut args = FirecrackerArgs::new();
        args = if self.spec.api {
            args.api_sock(in_root(in_jail::API_SOCKET)?)
        } else {
            args.no_api()
        };
        if self.boots_from_file() {
            args = args.config_file(in_root(in_jail::VM_CONFIG)?);
        }
        if self.files.iter().any(|file| file.name == in_jail::METADATA) {
            args = args.metadata(in_root(in_jail::METADATA)?);
        }
        args = args.log_path(in_root(in_jail::LOG)?);
        if let Some(level) = options.log_level {
            args = args.level(level);
        }
        if options.show_level {
            args = args.show_level();
        }
        if options.show_log_origin {
            args = args.show_log_origin();
        }
        if let Some(module) = &options.log_module {
            args = args.module(LogModule::new(module.as_str())?);
        }
        if options.metrics {
            args = args.metrics_path(in_root(in_jail::METRICS)?);
        }
        if options.boot_timer {
            args = args.boot_timer();
        }
        if options.enable_pci {
            args = args.enable_pci();
        }
        if let Some(bytes) = options.http_api_max_payload_size {
            args = args.http_api_max_payload_size(bytes);
        }
        if let Some(bytes) = options.mmds_size_limit {
            args = args.mmds_size_limit(bytes);
        }
        Ok(args)
    }

    /// Returns true if Firecracker boots the machine of a configuration file.
    pub(crate) fn boots_from_file(&self) -> bool {
        self.files.iter().any(|file| file.name == in_jail::VM_CONFIG)
    }

    /// Returns the VM's id, unchanged.
    #[must_use]
    pub fn vm_id(&self) -> &str {
        &self.spec.vm_id
    }

    /// Returns the jail's id: the VM's id, or the encoded form.
    #[must_use]
    pub fn jail_id(&self) -> &JailId {
        &self.jail_id
    }

    /// Returns the jail's paths, on the host and inside the jail.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the artifacts to stage.
    #[must_use]
    pub fn artifacts(&self) -> &[PlannedArtifact] {
        &self.artifacts
    }

    /// Returns the small files to write into the jail.
    #[must_use]
    pub fn files(&self) -> &[PlannedFile] {
        &self.files
    }

    /// Returns the VM's control group with the limits; `None` if the spec has no limit and the host has no hierarchy
    /// for a leaf.
    #[must_use]
    pub fn leaf(&self) -> Option<&LeafPlan> {
        self.leaf.as_ref()
    }

    /// Returns what a person should know before the plan is carried out: the VM starts, and may disappoint.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let jailer = self.jailer.as_ref().map(|jailer| jailer.release);
        warning::of(jailer, self.firecracker_release, &self.spec)
    }

    /// Returns the jailer's argv, without the program name; for a leased uid, with the first uid of the range.
    #[must_use]
    pub fn argv(&self) -> Vec<OsString> {
        // Both were validated when the plan was made.
        self.some_user()
            .and_then(|(uid, gid)| self.jailer_args(uid, gid))
            .map(|args| args.to_argv())
            .unwrap_or_default()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jail = self.layout.jail_dir();
        for warning in self.warnings() {
            writeln!(f, "note    {warning}")?;
        }
        writeln!(f, "make    {}, aside, as root", shown(&jail))?;
        for artifact in &self.artifacts {
            let how = match artifact.kind {
                DriveKind::ReadOnly => "share",
                DriveKind::Private => "copy",
                DriveKind::Persistent => "lend",
                DriveKind::VhostUser => "link",
                DriveKind::BlockDevice | DriveKind::SharedBlockDevice => "mknod",
            };
            writeln!(f, "{how:<7} {} as /{}", shown(&artifact.source), artifact.name)?;
        }
        for file in &self.files {
            writeln!(f, "write   /{} ({} bytes)", file.name, file.content.len())?;
        }
        if self.jailer.is_some() {
            writeln!(f, "mkfifo  console, stderr; in the jail /{}", in_jail::LOG)?;
        }
        writeln!(f, "publish {} by one rename", shown(&jail))?;
        if let Some(leaf) = &self.leaf {
            for path in leaf.paths() {
                writeln!(f, "mkdir   {}", shown(path))?;
            }
            for write in leaf.writes() {
                writeln!(f, "limit   {write}")?;
            }
            writeln!(f, "born    there, the jailer:")?;
        }
        if self.jailer.is_some() {
            writeln!(f, "network {}", shown(self.spec.network.to_string()))?;
            for tap in self.spec.boot.iter().flat_map(Boot::new_taps) {
                writeln!(f, "tap     {tap}, for the VM's uid, up")?;
            }
        }
        let jailer = self.jailer.as_ref().map_or("jailer", |jailer| jailer.program.path().as_str());
        write!(f, "spawn   {}", shown(jailer))?;
        for item in self.argv() {
            write!(f, " {}", shown(&item))?;
        }
        writeln!(f)?;
        for request in &self.requests {
            writeln!(f, "ask     PUT {} ({} bytes)", request.path, request.body.to_string().len())?;
        }
        writeln!(f, "undo    kill the VM, remove {}", shown(&jail))?;
        if let Some(leaf) = &self.leaf {
            for path in leaf.paths() {
                writeln!(f, "undo    rmdir {}", shown(path))?;
            }
        }
        Ok(())
    }
}

/// Returns a path or an argument as harmless text: a plan is printed on terminals, and tenants choose names.
fn shown(text: impl AsRef<OsStr>) -> String {
    escaped(text.as_ref().as_bytes(), 4096)
}

fn in_root(name: &str) -> Result<JailPath> {
    Ok(JailPath::try_from(Path::new("/").join(name).as_path())?)
}

#[cfg(test)]
mod tests {
    use jail_cmd::ArtifactName;

    use super::*;
    use crate::spec::jail_spec::tests::{assert_round_trip, unlike_default};

    /// Each field away from what a plan for another launcher has.
    fn plan() -> Plan {
        let spec = unlike_default();
        let config = JailerConfig::default();
        let jail_id = JailId::for_vm("tenant/vm").unwrap();
        let base = HostPath::new("/srv/jailer").unwrap();
        let program = Program::find("shell", Path::new("sh")).unwrap();
        // A host without control groups has none to plan.
        let unlimited = JailSpec::new("tenant/vm", "/opt/firecracker");
        let leaf = super::super::leaf::plan(&config, &unlimited, &jail_id).ok().flatten();
        Plan {
            jail_id: jail_id.clone(),
            layout: Layout::new(base, ExecName::new("firecracker").unwrap(), jail_id),
            jailer: Some(KnownProgram {
                program: program.clone(),
                release: JailerVersion::new(1, 17, 0),
            }),
            callers_jailer: Some(program),
            exec_file: HostPath::new("/opt/firecracker").unwrap(),
            user: User::Fixed { uid: 1, gid: 2 },
            artifacts: vec![PlannedArtifact {
                name: ArtifactName::for_boot(in_jail::KERNEL).unwrap(),
                source: "/k".into(),
                kind: DriveKind::ReadOnly,
            }],
            files: vec![PlannedFile {
                name: in_jail::VM_CONFIG.to_owned(),
                content: "{}".to_owned(),
                writable: true,
            }],
            requests: vec![ConfigRequest { path: "/serial".to_owned(), body: "{}".into() }],
            firecracker_release: Some(JailerVersion::new(1, 18, 0)),
            leaf,
            configured_uid: 123,
            spec,
        }
    }

    #[test]
    fn a_plan_survives_its_text() {
        assert_round_trip(&plan(), None);
    }

    #[test]
    fn a_newer_release_is_noted() {
        let mut plan = plan();
        assert!(plan.to_string().contains("jailer 1.17.0 is newer than"), "{plan}");
        assert!(plan.to_string().contains("Firecracker 1.18.0 is newer than"), "{plan}");
        plan.firecracker_release = None;
        if let Some(jailer) = &mut plan.jailer {
            jailer.release = JailerVersion::NEWEST;
        }
        assert!(!plan.to_string().contains("newer"), "{plan}");
    }
}
