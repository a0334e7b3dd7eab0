//! Older official jailers, with a stub as exec file: our argv is accepted, their failures are decoded, and what a VM
//! planted is never reached.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use microvm_runtime::{
    CgroupVersion, CopyOptions, Diagnosis, ErrorKind, ExitStatus, JailSpec, Jailer, JailerVersion,
    PidNamespace,
};
use testkit::Canary;

use crate::host::{Host, UID};

/// Every release there is but the one under test everywhere else; counted as skipped where there are fewer than three.
fn releases(test: &str) -> Vec<(JailerVersion, PathBuf)> {
    let found = testkit::older_jailers();
    if found.len() < 3 {
        testkit::skip(
            test,
            &format!("{} older official jailers are installed, of at least 3", found.len()),
        );
        return Vec::new();
    }
    found
        .into_iter()
        .map(|(version, path)| (format!("Jailer v{version}").parse().unwrap(), path))
        .collect()
}

/// The stub that exits 7, under a name that every release takes.
fn stub(host: &Host, dir: &str) -> PathBuf {
    let path = host.scratch.dir(dir).join("firecracker");
    fs::copy(host.binaries.stub(), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn spec(host: &mut Host, vm_id: &str) -> JailSpec {
    let stub = stub(host, "stub");
    let spec = host.hello(vm_id).no_api();
    let kernel = host.image("vmlinux");
    let mut stubbed = JailSpec::new(spec.vm_id(), stub).kernel(kernel).no_api();
    stubbed = stubbed.boot(microvm_runtime::Boot::new().vcpus(1).memory_mib(128));
    stubbed
}

/// A VMM that exits between two looks causes no further event, so the launcher must not wait for one.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn any_end_is_noticed() {
    // Hanging is all that this tells: a launch takes milliseconds.
    const HANG: Duration = Duration::from_secs(300);
    for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
        let mut host = Host::new("end");
        let spec = spec(&mut host, "stub").pid_namespace(mode).ready_within(2 * HANG);
        for _ in 0..30 {
            let begun = Instant::now();
            let status = match host.jailer().launch(&spec) {
                Ok(vm) => vm.wait().unwrap().status,
                Err(error) => error.early_death().unwrap_or_else(|| panic!("{error:?}")).status(),
            };
            let missed = mode == PidNamespace::ByJailer && status == ExitStatus::Unknown;
            assert!(status == ExitStatus::Exited(7) || missed, "{mode:?}: {status}");
            assert!(begun.elapsed() < HANG, "{mode:?}: its end was slept through");
        }
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn argv_is_accepted_everywhere() {
    for (release, jailer) in releases("argv_is_accepted_everywhere") {
        for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
            for version in [CgroupVersion::V1, CgroupVersion::V2] {
                let mut host = Host::new("older");
                host.config.jailer_bin.clone_from(&jailer);
                let spec = spec(&mut host, "stub").pid_namespace(mode).cgroup_version(version);
                let error = match host.jailer().launch(&spec) {
                    // Seen while it ran, if only for a moment.
                    Ok(vm) => {
                        assert_eq!(
                            vm.wait().unwrap().status,
                            ExitStatus::Exited(7),
                            "{release}, {mode:?}, {version:?}"
                        );
                        drop(vm);
                        host.assert_clean();
                        continue;
                    }
                    Err(error) => error,
                };
                let what = format!("{release}, {mode:?}, {version:?}: {error}: {error:?}");
                if error.kind() == ErrorKind::Unsupported {
                    testkit::skip(
                        &format!("argv_is_accepted_everywhere ({release}, {version:?})"),
                        &error.to_string(),
                    );
                    continue;
                }
                let status = error.early_death().unwrap_or_else(|| panic!("{what}")).status();
                let missed = mode == PidNamespace::ByJailer && status == ExitStatus::Unknown;
                assert!(status == ExitStatus::Exited(7) || missed, "{what}");
                host.assert_clean();
            }
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn both_failure_forms_are_decoded() {
    for (release, jailer) in releases("both_failure_forms_are_decoded") {
        let mut host = Host::new("decode");
        host.config.jailer_bin = jailer;
        let spec = spec(&mut host, "decode");
        let prepared = host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap();
        let root = prepared.plan().layout().root();
        // As the 0.4 API did: a node that the jailer makes too.
        fs::create_dir_all(root.join("dev/net")).unwrap();
        let node = nix::sys::stat::makedev(10, 200);
        nix::sys::stat::mknod(
            &root.join("dev/net/tun"),
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::S_IRUSR,
            node,
        )
        .unwrap();
        let error = prepared.launch().unwrap_err();
        let death = error.early_death().unwrap_or_else(|| panic!("{release}: {error:?}"));
        assert_eq!(death.diagnosis(), Diagnosis::NodeExists, "{release}: {death:?}");
        let plain = release >= JailerVersion::new(1, 13, 0);
        let as_its_release = match death.status() {
            ExitStatus::Exited(1) => plain,
            // A panic: SIGABRT, or in builds of 1.0 SIGSEGV.
            ExitStatus::Signaled(_) => !plain,
            _ => false,
        };
        assert!(as_its_release, "{release}: {death:?}");
        assert!(error.to_string().contains("Leave /dev to the jailer"), "{error}");
        host.assert_clean();
    }
}

/// Row 5 of the threat model, CVE-2026-1386: between two runs, the VM's uid plants a link in the place of the exec copy,
/// which the jailer writes as root.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_05_planted_exec_copy() {
    for (release, jailer_bin) in releases("row_05_planted_exec_copy") {
        let mut host = Host::new("planted");
        host.config.jailer_bin = jailer_bin;
        let jailer = host.jailer();
        let exec_file = stub(&host, "bin");
        let secrets = host.scratch.dir("secrets");
        let secret = host.scratch.file("secrets/shadow", "root's own");
        let canary = Canary::take(&secrets);
        let _ = host.hello("vm"); // torn down with the host
        let kernel = host.image("vmlinux");
        let run = |jailer: &Jailer| {
            let jail = loop {
                match jailer.prepare("vm", &kernel, &kernel, &[]) {
                    // What ran before is on its way out of its control group.
                    Err(error) if error.kind() == ErrorKind::Running => std::thread::yield_now(),
                    prepared => break prepared.unwrap(),
                }
            };
            let status = command(jailer, &jail, &exec_file).status().unwrap();
            assert_eq!(
                status.code(),
                Some(0),
                "{release}: with --new-pid-ns a jailer that did its work exits 0"
            );
            jail
        };
        let jail = run(&jailer);
        wait_until_idle(&jail.chroot_path);
        let copy = jail.chroot_path.join("firecracker");
        fs::remove_file(&copy).unwrap();
        symlink(&secret, &copy).unwrap();
        fs::remove_file(jail.chroot_path.join("firecracker.pid")).ok();
        // The second run is of a fresh jail.
        let jail = run(&jailer);
        canary.assert_same();
        wait_until_idle(&jail.chroot_path);

        // And without that: a release of before the fix writes through the link, or the attack would be none.
        fs::remove_file(&copy).unwrap();
        symlink(&secret, &copy).unwrap();
        fs::remove_file(jail.chroot_path.join("firecracker.pid")).ok();
        fs::remove_dir_all(jail.chroot_path.join("dev")).unwrap();
        let _ = command(&jailer, &jail, &exec_file).status().unwrap();
        let hit = !canary.differences().is_empty();
        assert_eq!(hit, !release.supports(microvm_runtime::Feature::ChecksExecCopy), "{release}");
        wait_until_idle(&jail.chroot_path);
        host.assert_clean();
    }
}

fn command(
    jailer: &Jailer,
    jail: &microvm_runtime::VmJail,
    exec_file: &Path,
) -> std::process::Command {
    let mut command = jailer.build_command("vm", jail, exec_file).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits until no process has the jail as root directory, since the jailer orphaned the stub.
fn wait_until_idle(root: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let jail = identity(fs::metadata(root).unwrap());
    let rooted = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            fs::metadata(entry.path().join("root")).is_ok_and(|root| identity(root) == jail)
        })
    };
    while rooted() {
        std::thread::yield_now();
    }
    assert_eq!(fs::metadata(root).unwrap().uid(), UID, "the jail is the uid's by now");
}
