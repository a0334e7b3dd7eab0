//! Every public verb of the facade, called on one VM.
//!
//! `tests/tidy/facade.rs` compares the names that are called here with the public methods there are.

use std::path::Path;
use std::time::Duration;

use microvm_runtime::{
    Action, CopyOptions, DeviceKind, DeviceNodes, Drive, ErrorKind, JailSpec, Jailer, JailerConfig,
    Limits, ListReport, NetworkInterface, Pmem, RateLimiter, SnapshotOptions, TokenBucket, Vm,
    VmRuntimeResult,
};
use testkit::{Binaries, Scratch};

use crate::usage::within;

/// For verbs that have no deadline of the caller's: they may have one of their own, of at most 10 s.
const OWN: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);

/// Calls a verb that returns a result, and reads the error as a person would.
#[track_caller]
pub(crate) fn call<T>(
    verb: &str,
    deadline: Duration,
    call: impl FnOnce() -> VmRuntimeResult<T>,
) -> VmRuntimeResult<T> {
    let result = within(verb, deadline, call);
    if let Err(error) = &result {
        let text = format!("{error}\n{error:?}");
        println!(
            "  {:?}: {}",
            error.kind(),
            text.escape_debug().to_string().chars().take(600).collect::<String>()
        );
        assert!(text.len() <= 16 << 10, "{verb}: an error of {} bytes", text.len());
        let control = |c: char| c.is_control() && c != '\n';
        assert!(
            !text.contains(control),
            "{verb}: the error has control characters in it: {text:?}"
        );
        assert!(!text.contains("os error 24"), "{verb} needs too many descriptors: {text}");
        assert!(!text.contains("UTF-8"), "{verb} stumbles over bytes: {text}");
    }
    result
}

/// Calls what returns no result.
#[track_caller]
fn get<T>(verb: &str, call: impl FnOnce() -> T) -> T {
    within(verb, Duration::ZERO, call)
}

/// Makes and reads a plan, prepares, launches.
pub(crate) fn launch(jailer: &Jailer, spec: &JailSpec) -> VmRuntimeResult<Vm> {
    let plan = call("Jailer::plan", OWN, || jailer.plan(spec))?;
    get("Plan::vm_id", || plan.vm_id().len());
    get("Plan::jail_id", || plan.jail_id().clone());
    get("Plan::layout", || plan.layout().root());
    get("Plan::artifacts", || plan.artifacts().len());
    get("Plan::files", || plan.files().len());
    get("Plan::leaf", || plan.leaf().is_some());
    get("Plan::warnings", || plan.warnings());
    get("Plan::argv", || plan.argv());
    let unrestored = || plan.prepare(&CopyOptions::new())?.launch_with(|_| Ok(()));
    let refused = call("Prepared::launch_with", OWN, unrestored).map(drop);
    assert!(refused.is_err(), "a spec without a snapshot has no pause");
    let prepared = call("Plan::prepare", OWN, || plan.prepare(&CopyOptions::new()))?;
    get("Prepared::report", || prepared.report());
    get("Prepared::plan", || prepared.plan().vm_id().len());
    call("Prepared::launch", OWN + Duration::from_secs(30), || prepared.launch())
}

/// Calls every verb of a VM that does not end the VM. The VM may have ended.
pub(crate) fn look(vm: &Vm) {
    get("Vm::vm_id", || vm.vm_id().len());
    get("Vm::jail_id", || vm.jail_id().clone());
    get("Vm::pid", || vm.pid());
    get("Vm::uid", || vm.uid());
    get("Vm::ready_after", || vm.ready_after());
    let _ = call("Vm::inspect", OWN, || vm.inspect());
    let _ = call("Vm::network_namespace", OWN, || vm.network_namespace());
    let _ = call("Vm::stats", OWN, || vm.stats());
    let _ = call("Vm::cgroup", OWN, || vm.cgroup().map(drop));
    let console = get("Vm::console", || vm.console());
    for stream in console.into_iter().chain([get("Vm::log", || vm.log())]) {
        get("StreamReader::tail", || stream.tail());
        get("StreamReader::text", || stream.text());
        get("StreamReader::subscribe", || stream.subscribe(|_| ()));
        within("StreamReader::wait_for_line", SHORT, || stream.wait_for_line(|_| false, SHORT));
        within("StreamReader::wait_for_end", SHORT, || stream.wait_for_end(SHORT));
    }
    let _ = call("Vm::metrics_tail", OWN, || vm.metrics_tail(1 << 20));
    ask(vm);
    change(vm);
    call_guest(vm);
    let _ = call("Vm::wait_timeout", SHORT, || vm.wait_timeout(SHORT));
    snapshot(vm);
}

/// Pauses, resumes and takes a snapshot, which a hostile VMM does not complete.
fn snapshot(vm: &Vm) {
    let _ = call("Vm::pause", OWN, || vm.pause());
    let _ = call("Vm::resume", OWN, || vm.resume());
    let scratch = Scratch::new("taken");
    let dir = scratch.join("snapshot");
    let options = SnapshotOptions::new().within(SHORT);
    let taken = call("Vm::snapshot", SHORT + OWN, || vm.snapshot(&dir, &options));
    assert_eq!(taken.is_ok(), dir.exists());
    if let Ok(snapshot) = taken {
        snapshot.remove().expect("remove the snapshot");
    }
}

/// Both directions of the guest's vsock.
fn call_guest(vm: &Vm) {
    let quick = call("Vm::vsock_connect_within", SHORT, || vm.vsock_connect_within(52, SHORT));
    // A VM that does not answer does not answer in 10 s either.
    if !quick.is_err_and(|error| error.kind() == ErrorKind::Timeout) {
        let _ = call("Vm::vsock_connect", OWN, || vm.vsock_connect(52));
    }
    for port in 1_000..1_003 {
        let Ok(listener) = call("Vm::vsock_listen", OWN, || vm.vsock_listen(port)) else {
            continue;
        };
        get("VsockListener::port", || listener.port());
        for _ in 0..3 {
            let accept = || listener.accept_timeout(SHORT);
            let _ = call("VsockListener::accept_timeout", SHORT, accept);
        }
        within("VsockListener::drop", Duration::ZERO, || drop(listener));
    }
}

/// Every request of the API.
fn ask(vm: &Vm) {
    let _ = call("Vm::api", OWN, || vm.api());
    let Ok(api) = call("Vm::api_within", SHORT, || vm.api_within(SHORT)) else { return };
    let api = get("Api::timeout", || api.timeout(SHORT));
    let _ = call("Api::instance_info", SHORT, || api.instance_info());
    let _ = call("Api::action", SHORT, || api.action(Action::FlushMetrics));
    let _ = call("Api::pause", SHORT, || api.pause());
    let _ = call("Api::resume", SHORT, || api.resume());
    // A body larger than any socket's buffer, which nobody may read.
    let body = serde_json::json!({ "text": "x".repeat(1 << 20) });
    let _ = call("Api::request", SHORT, || api.request("PUT", "/mmds", Some(&body)));
}

/// Every change of a running VM.
fn change(vm: &Vm) {
    let limits = Limits::new().pids_max(100_000);
    let _ = call("Vm::update_limits", OWN, || vm.update_limits(&limits));
    let (options, small) = (CopyOptions::new(), Binaries::stand_ins().guest());
    let drive = Drive::private("data", &small);
    let _ = call("Vm::replace_drive", OWN, || vm.replace_drive(&drive, &options, SHORT));
    let _ = call("Vm::plug_drive", OWN, || vm.plug_drive(&drive, &options, SHORT));
    let pmem = Pmem::private("fast", &small);
    let _ = call("Vm::plug_pmem", OWN, || vm.plug_pmem(&pmem, &options, SHORT));
    let network = NetworkInterface::new("eth9", "tap9");
    let _ = call("Vm::plug_network", OWN, || vm.plug_network(&network, SHORT));
    let _ = call("Vm::unplug", OWN, || vm.unplug(DeviceKind::Drive, "data", SHORT));
    let Ok(api) = call("Vm::api_within", SHORT, || vm.api_within(SHORT)) else { return };
    let limiter = RateLimiter::new().ops(TokenBucket::new(1, 1));
    let _ = call("Api::release", SHORT, || api.release());
    let _ = call("Api::limit_drive", SHORT, || api.limit_drive("data", &limiter));
    let _ = call("Api::limit_network", SHORT, || api.limit_network("e", Some(&limiter), None));
    let _ = call("Api::limit_pmem", SHORT + SHORT, || api.limit_pmem("fast", &limiter));
    let _ = call("Api::set_balloon", SHORT, || api.set_balloon(1));
    let _ = call("Api::set_hotplug_memory", SHORT + SHORT, || api.set_hotplug_memory(128));
    let _ = call("Api::set_metadata", SHORT, || api.set_metadata(&serde_json::json!({})));
}

/// The verbs of a launcher that does not have the VM, while another does.
pub(crate) fn disturb(jailer: &Jailer, spec: &JailSpec) {
    let id = spec.vm_id();
    let list = list(jailer);
    assert!(
        list.jails.iter().any(|jail| jail.vm_id.as_deref() == Some(id)),
        "{id} is not in {list:?}"
    );
    sweep(jailer);
    for (verb, error) in [
        ("Jailer::adopt", call("Jailer::adopt", OWN, || jailer.adopt(id)).map(drop)),
        ("Jailer::launch", call("Jailer::launch", OWN, || jailer.launch(spec)).map(drop)),
        ("Jailer::teardown", call("Jailer::teardown", OWN, || jailer.teardown(id))),
    ] {
        let kind = error.expect_err(verb).kind();
        assert!(matches!(kind, ErrorKind::Busy | ErrorKind::Running), "{verb}: {kind:?}");
    }
}

/// Lists all jails; none hides.
pub(crate) fn list(jailer: &Jailer) -> ListReport {
    let list = call("Jailer::list", OWN, || jailer.list()).expect("list");
    assert!(list.problems.is_empty(), "{list:?}");
    list
}

/// Sweeps, and expects a report without problems.
pub(crate) fn sweep(jailer: &Jailer) {
    let swept = call("Jailer::sweep", OWN, || jailer.sweep()).expect("sweep");
    assert!(swept.problems.is_empty(), "{swept:?}");
}

/// Calls the verbs of the 0.4 API, and the verbs that need no VM.
pub(crate) fn compat(jailer: &Jailer, kernel: &Path, config: &JailerConfig) {
    get("Jailer::new", || Jailer::new(config.clone()));
    get("Jailer::from_env", Jailer::from_env);
    get("Jailer::config", || jailer.config().clone());
    let nodes = get("Jailer::device_nodes", || jailer.clone().device_nodes(DeviceNodes::ByJailer));
    call("Jailer::release", OWN, || nodes.release()).expect("release");
    get("Jailer::chroot_for", || jailer.chroot_for("compat"));
    let jail = call("Jailer::prepare", OWN, || jailer.prepare("compat", kernel, kernel, &[]));
    let jail = jail.expect("prepare");
    let firecracker = Binaries::stand_ins().firecracker().to_owned();
    let command = || jailer.build_command("compat", &jail, &firecracker);
    call("Jailer::build_command", OWN, command).expect("build_command");
    call("Jailer::remove", OWN, || jailer.remove("compat")).expect("teardown");
}

/// Takes up a VM that this process let go of, looks at it and asks it to shut down.
pub(crate) fn adopt_and_shut_down(jailer: &Jailer, id: &str) -> VmRuntimeResult<()> {
    let vm = call("Jailer::adopt", OWN, || jailer.adopt(id))?;
    look(&vm);
    let exit = call("Vm::shutdown", SHORT, || vm.shutdown(SHORT)).expect("shutdown");
    assert_eq!(call("Vm::wait", OWN, || vm.wait()).expect("wait"), exit);
    Ok(())
}

/// Kills a VM of this process's.
pub(crate) fn kill(vm: &Vm) {
    call("Vm::start_kill", OWN, || vm.start_kill()).expect("start_kill");
    // Without a deadline, so until the VM's end.
    let listener = vm.vsock_listen(2_500);
    call("Vm::kill", OWN, || vm.kill()).expect("kill");
    if let Ok(listener) = listener {
        let _ = call("VsockListener::accept", OWN, || listener.accept());
    }
    for exit in within("Vm::kill_all", OWN, || Vm::kill_all([vm])) {
        exit.expect("kill what has ended");
    }
}

/// Ends a VM of this process's and removes its jail, by the verbs for many.
pub(crate) fn remove_all(jailer: &Jailer, vm: Vm) {
    let removed = within("Jailer::remove_all", OWN + OWN, || jailer.remove_all([vm]));
    for vm in removed {
        println!("  {:?}, {:?}", vm.exit, vm.removal);
    }
}

/// Tears down what is left of a VM, by its jail's id.
pub(crate) fn tear_down_jail(jailer: &Jailer, id: &str) {
    let id = id.parse().unwrap();
    call("Jailer::remove_jail", OWN, || jailer.remove_jail(&id)).expect("remove_jail");
}

/// Tears down what is left of a VM.
pub(crate) fn tear_down(jailer: &Jailer, id: &str) -> VmRuntimeResult<()> {
    call("Jailer::remove", OWN + OWN, || jailer.remove(id)).map(drop)
}
