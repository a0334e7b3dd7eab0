//! Firecracker reports the machine and the drives of the spec.

use microvm_runtime::{
    Boot, CacheType, Drive, IoEngine, Network, NetworkInterface, RateLimiter, TokenBucket,
};
use serde_json::{Value, json};

use crate::host::{Host, UID, assert_says_hello};

/// Returns the item of a list with `id` under `key`.
fn item<'a>(config: &'a Value, list: &str, key: &str, id: &str) -> &'a Value {
    let items = config[list].as_array().unwrap_or_else(|| panic!("no {list} in {config}"));
    items.iter().find(|item| item[key] == id).unwrap_or_else(|| panic!("no {id} in {config}"))
}

/// Asserts that `found` contains all of `wanted`.
fn assert_says(found: &Value, wanted: &Value) {
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&found[field], value, "{field} of {found}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn firecracker_reports_the_whole_spec() {
    let mut host = Host::new("machine");
    let netns = testkit::Netns::new(&host.scratch);
    if !netns.add_tap("tap0", UID) {
        return testkit::skip("firecracker_reports_the_whole_spec", "no tun driver here");
    }
    let shared = host.scratch.file("shared.img", vec![0; 1 << 20]);
    let own = host.scratch.file("own.img", vec![0; 1 << 20]);
    let bucket = |size| TokenBucket::new(size, 100);
    let limiter = RateLimiter::new().bandwidth(bucket(1 << 20)).ops(bucket(1000));
    let spec = host
        .idle("machine")
        .network(Network::Namespace(netns.path().into()))
        .drive(Drive::read_only("shared", &shared))
        .drive(
            Drive::private("own", &own)
                .root_device()
                .rate_limiter(limiter.clone())
                .cache_type(CacheType::Writeback)
                .io_engine(IoEngine::Sync),
        )
        .boot(
            Boot::new()
                .vcpus(2)
                .memory_mib(192)
                .kernel_args("console=ttyS0 reboot=k panic=1 quiet")
                .network(
                    NetworkInterface::new("eth0", "tap0")
                        .mac("06:00:ac:10:00:02")
                        .rx_rate_limiter(limiter),
                )
                .vsock(7),
        );
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let config: Value =
        vm.api().unwrap().request("GET", "/vm/config", None).unwrap().json().unwrap();
    assert_says(&config["machine-config"], &json!({ "vcpu_count": 2, "mem_size_mib": 192 }));
    assert_says(
        &config["boot-source"],
        &json!({
            "kernel_image_path": "/vmlinux",
            "boot_args": "console=ttyS0 reboot=k panic=1 quiet",
        }),
    );
    assert_says(
        item(&config, "drives", "drive_id", "shared"),
        &json!({ "path_on_host": "/shared", "is_read_only": true, "is_root_device": false }),
    );
    let own = item(&config, "drives", "drive_id", "own");
    assert_says(
        own,
        &json!({ "path_on_host": "/own", "is_read_only": false, "is_root_device": true, "cache_type": "Writeback" }),
    );
    let asked = json!({ "size": 1 << 20, "refill_time": 100 });
    assert_says(&own["rate_limiter"]["bandwidth"], &asked);
    assert_says(&own["rate_limiter"]["ops"], &json!({ "size": 1000, "refill_time": 100 }));
    let network = item(&config, "network-interfaces", "iface_id", "eth0");
    assert_says(network, &json!({ "host_dev_name": "tap0", "guest_mac": "06:00:ac:10:00:02" }));
    assert_says(&network["rx_rate_limiter"]["bandwidth"], &asked);
    assert_says(&config["vsock"], &json!({ "guest_cid": 7, "uds_path": "/v.sock" }));
    vm.kill().unwrap();
    drop((vm, netns));
    host.assert_clean();
}
