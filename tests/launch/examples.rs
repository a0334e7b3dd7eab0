//! The examples of the facade, run as they stand.

use microvm_runtime::Drive;

use crate::host::Host;

#[expect(dead_code, reason = "an example has a main function")]
#[path = "../../crates/microvm-runtime/examples/adopt.rs"]
mod adopt;
#[expect(dead_code, reason = "an example has a main function")]
#[path = "../../crates/microvm-runtime/examples/event_loop.rs"]
mod event_loop;
#[expect(dead_code, reason = "an example has a main function")]
#[path = "../../crates/microvm-runtime/examples/fleet.rs"]
mod fleet;
#[expect(dead_code, reason = "an example has a main function")]
#[path = "../../crates/microvm-runtime/examples/launch.rs"]
mod launch;
#[expect(dead_code, reason = "an example has a main function")]
#[path = "../../crates/microvm-runtime/examples/snapshot.rs"]
mod snapshot;

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn launch_example_leaves_nothing() {
    let mut host = Host::new("example-launch");
    let rootfs = host.scratch.file("rootfs.img", vec![7; 1 << 20]);
    let spec = host.idle("demo/vm_1").drive(Drive::private("rootfs", rootfs));
    // The second run removes a VM that the first run would have left.
    drop(host.jailer().launch(&spec).unwrap());
    launch::run(&host.jailer(), &spec).unwrap();
    assert_eq!(host.jailer().list().unwrap().jails, []);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn adopt_example_takes_up_every_vm() {
    let mut host = Host::new("example-adopt");
    for spec in [host.idle("one"), host.idle("two")] {
        drop(host.jailer().launch(&spec).unwrap());
    }
    assert_eq!(adopt::run(&host.jailer()).unwrap(), 2);
    assert_eq!(host.jailer().list().unwrap().jails, []);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn fleet_example_leases_uids() {
    let host = Host::new("example-fleet");
    let (firecracker, kernel) = (host.binaries.firecracker(), host.image("idle"));
    fleet::run(&host.jailer(), firecracker, &kernel, 6).unwrap();
    assert_eq!(host.jailer().list().unwrap().jails, []);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn event_loop_example_sees_every_end() {
    let mut host = Host::new("example-loop");
    let specs = ["a", "b", "c"].map(|id| host.idle(id));
    event_loop::run(&host.jailer(), &specs).unwrap();
    assert_eq!(host.jailer().list().unwrap().jails, []);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn snapshot_example_leaves_nothing() {
    let mut host = Host::new("example-snapshot");
    let spec = host.idle("origin");
    let dir = host.scratch.join("snapshot");
    snapshot::run(&host.jailer(), &spec, &dir, 3).unwrap();
    assert!(!dir.exists());
    assert_eq!(host.jailer().list().unwrap().jails, []);
    host.assert_clean();
}
