//! Changes of a running VM: limits, drives, network interfaces, metadata, devices.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use microvm_runtime::{
    Balloon, Boot, ByteSize, CopyOptions, DeviceKind, Drive, ErrorKind, FirecrackerOptions, Limits,
    MemoryHotplug, Mmds, Network, NetworkInterface, Pmem, RateLimiter, Strategy, TokenBucket, Vm,
};
use serde_json::{Value, json};

use crate::host::{Host, UID, assert_says_hello};

const PATIENCE: Duration = Duration::from_secs(60);

fn get(vm: &Vm, path: &str) -> Value {
    vm.api().unwrap().request("GET", path, None).unwrap().json().unwrap()
}

/// Returns the device `id` of a list in the VM's configuration.
fn device(vm: &Vm, list: &str, id: &str) -> Option<Value> {
    let config = get(vm, "/vm/config");
    let devices = config[list].as_array().cloned().unwrap_or_default();
    let has_id = |device: &Value| {
        ["drive_id", "iface_id", "id"].iter().any(|key| device.get(*key) == Some(&json!(id)))
    };
    devices.into_iter().find(has_id)
}

fn names(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

fn limiter(size: u64) -> RateLimiter {
    RateLimiter::new().bandwidth(TokenBucket::new(size, 100))
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn limits_of_a_running_vm_change() {
    let mut host = Host::new("update");
    let limits =
        |mib, tasks| Limits::new().memory_max(ByteSize::mib(mib)).cpus(2.0).pids_max(tasks);
    let spec = host.idle("vm").limits(limits(256, 64));
    let vm = host.jailer().launch(&spec).unwrap();
    let changes = vm.update_limits(&limits(512, 65)).unwrap();
    let values: Vec<_> = changes
        .iter()
        .map(|change| (change.limit.name(), change.old.as_str(), change.new.as_str()))
        .collect();
    assert!(values.contains(&("memory_max", "268435456", "536870912")), "{values:?}");
    assert!(values.contains(&("pids_max", "64", "65")), "{values:?}");
    for change in &changes {
        assert_eq!(fs::read_to_string(&change.path).unwrap().trim(), change.new);
    }
    let error = vm.update_limits(&Limits::new().cpus(-1.0)).unwrap_err();
    assert!(error.to_string().contains("cpus -1"), "{error}");
    vm.kill().unwrap();
    let error = vm.update_limits(&limits(256, 64)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Identity, "{error}");
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_drive_continues_on_a_new_file() {
    let mut host = Host::new("replace");
    let old = host.scratch.file("old.img", vec![1; 1 << 20]);
    let new = host.scratch.file("new.img", vec![2; 1 << 20]);
    let spec =
        host.idle("vm").drive(Drive::private("own", &old)).drive(Drive::read_only("shared", &old));
    let root = host.jailer().plan(&spec).unwrap().layout().root();
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let options = CopyOptions::new();
    let drive = Drive::private("own", &new).rate_limiter(limiter(4096));
    let receipt = vm.replace_drive(&drive, &options, PATIENCE).unwrap();
    let name = receipt.name.as_str().unwrap();
    assert!(name.starts_with("own."), "{name}");
    let own = device(&vm, "drives", "own").unwrap();
    assert_eq!(own["path_on_host"], format!("/{name}"));
    assert_eq!(own["rate_limiter"]["bandwidth"]["size"], 4096, "{own}");
    assert_eq!(fs::read(root.join(name)).unwrap(), vec![2; 1 << 20]);
    assert_eq!(fs::metadata(root.join(name)).unwrap().uid(), UID);
    let shared = vm.replace_drive(&Drive::read_only("shared", &new), &options, PATIENCE).unwrap();
    assert_eq!(shared.strategy, Strategy::HardLink, "{shared:?}");

    // A refusal leaves the jail as it was.
    let before = names(&root);
    for (drive, kind, word) in [
        (Drive::private("none", &new), ErrorKind::Api, "PATCH /drives/none"),
        (Drive::read_only("own", &new), ErrorKind::InvalidInput, "read-only"),
        (Drive::persistent("own", &new), ErrorKind::Unsupported, "persistent"),
        (Drive::vhost_user("own", &new), ErrorKind::Unsupported, "vhost-user"),
        (Drive::private("own", "new.img"), ErrorKind::InvalidInput, "not absolute"),
        (Drive::private("own", host.scratch.join("none")), ErrorKind::NotFound, "none"),
        (Drive::private("o-wn", &new), ErrorKind::InvalidInput, "o-wn"),
    ] {
        let error = vm.replace_drive(&drive, &options, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(names(&root), before);
    vm.kill().unwrap();
    let error = vm.replace_drive(&drive, &options, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Identity, "{error}");
    assert_eq!(names(&root), before);
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn rate_limits_and_metadata_change() {
    let mut host = Host::new("patch");
    let netns = testkit::Netns::new(&host.scratch);
    if !netns.add_tap("tap0", UID) {
        return testkit::skip("rate_limits_and_metadata_change", "no tun driver here");
    }
    let image = host.scratch.file("image", vec![0; 2 << 20]);
    let boot = Boot::new()
        .network(NetworkInterface::new("eth0", "tap0"))
        .balloon(Balloon::new(0))
        .memory_hotplug(MemoryHotplug::new(128))
        .mmds(Mmds::new("eth0"));
    let spec = host
        .idle("vm")
        .network(Network::Namespace(netns.path().into()))
        .drive(Drive::private("own", &image))
        .pmem(Pmem::private("fast", &image).rate_limiter(limiter(512)))
        .boot(boot);
    let vm = host.jailer().launch(&spec).unwrap();
    let api = vm.api().unwrap().timeout(PATIENCE);
    assert!(api.release().unwrap().major() >= 1);
    api.limit_drive("own", &limiter(1024)).unwrap();
    let own = device(&vm, "drives", "own").unwrap();
    assert_eq!(own["rate_limiter"]["bandwidth"]["size"], 1024, "{own}");
    api.limit_network("eth0", Some(&limiter(2048)), Some(&limiter(4096))).unwrap();
    let eth0 = device(&vm, "network-interfaces", "eth0").unwrap();
    assert_eq!(eth0["rx_rate_limiter"]["bandwidth"]["size"], 2048, "{eth0}");
    assert_eq!(eth0["tx_rate_limiter"]["bandwidth"]["size"], 4096, "{eth0}");
    api.limit_pmem("fast", &limiter(8192)).unwrap();
    // Firecracker goes on reporting the limit of the start.
    let fast = device(&vm, "pmem", "fast").unwrap();
    assert_eq!(fast["rate_limiter"]["bandwidth"]["size"], 512, "{fast}");
    for id in ["", "a/b", "..", "e-0"] {
        let error = api.limit_drive(id, &limiter(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert!(api.limit_drive("own", &limiter(0)).is_err());

    api.set_metadata(&json!({ "a": { "b": 1 } })).unwrap();
    assert_eq!(get(&vm, "/mmds"), json!({ "a": { "b": 1 } }));
    assert_eq!(api.set_metadata(&json!([1])).unwrap_err().kind(), ErrorKind::InvalidInput);

    // The guest has no drivers, which Firecracker requires.
    for error in [api.set_balloon(16).unwrap_err(), api.set_hotplug_memory(128).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Api, "{error}");
        println!("{error}");
    }
    vm.kill().unwrap();
    drop((vm, netns));
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn devices_are_plugged_and_unplugged() {
    let mut host = Host::new("plug");
    let netns = testkit::Netns::new(&host.scratch);
    if !netns.add_tap("tap0", UID) {
        return testkit::skip("devices_are_plugged_and_unplugged", "no tun driver here");
    }
    let image = host.scratch.file("image", vec![0; 2 << 20]);
    let options = CopyOptions::new();
    let spec = host
        .idle("vm")
        .network(Network::Namespace(netns.path().into()))
        .firecracker(FirecrackerOptions::new().enable_pci());
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let drive = Drive::private("more", &image);
    let receipt = vm.plug_drive(&drive, &options, PATIENCE).unwrap();
    let more = device(&vm, "drives", "more").unwrap();
    assert_eq!(more["path_on_host"], format!("/{}", receipt.name.as_str().unwrap()));
    vm.plug_pmem(&Pmem::read_only("fast", &image), &options, PATIENCE).unwrap();
    assert_eq!(device(&vm, "pmem", "fast").unwrap()["read_only"], true);
    vm.plug_network(&NetworkInterface::new("eth0", "tap0").mtu(1400), PATIENCE).unwrap();
    assert_eq!(device(&vm, "network-interfaces", "eth0").unwrap()["mtu"], 1400);
    for (kind, list, id) in [
        (DeviceKind::Drive, "drives", "more"),
        (DeviceKind::Pmem, "pmem", "fast"),
        (DeviceKind::Network, "network-interfaces", "eth0"),
    ] {
        vm.unplug(kind, id, PATIENCE).unwrap();
        assert_eq!(device(&vm, list, id), None);
        assert_eq!(vm.unplug(kind, id, PATIENCE).unwrap_err().kind(), ErrorKind::Api);
    }
    vm.kill().unwrap();
    drop(vm);

    let plain = host.idle("plain");
    let vm = host.jailer().launch(&plain).unwrap();
    let error = vm.plug_drive(&drive, &options, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("enable_pci"), "{error}");
    vm.kill().unwrap();
    drop((vm, netns));
    host.assert_clean();
}
