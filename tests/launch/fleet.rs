//! Many VMs of one launcher at a time: none in another's way, and nothing of them stays in the launcher either.

use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use microvm_runtime::{Drive, User};

use crate::host::{Host, assert_says_hello};

const THREADS: usize = 6;
const EACH: usize = 5;

/// Descriptors and threads of this process.
fn held() -> (usize, usize) {
    let count = |dir: &str| fs::read_dir(dir).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn thirty_vms_leave_nothing() {
    // In a process of its own: other tests hold descriptors and threads too, and come and go.
    const NAME: &str = "fleet::thirty_vms_leave_nothing";
    if testkit::role().as_deref() != Some("launcher") {
        let status = testkit::reenter(NAME, "launcher").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let mut host = Host::new("fleet");
    let rootfs = host.scratch.file("rootfs.img", vec![7; 1 << 20]);
    let user = User::Leased { first: 55_000, last: 55_100 };
    let specs = (0..THREADS * EACH)
        .map(|n| {
            host.idle(&format!("fleet/vm_{n}")).user(user).drive(Drive::private("rootfs", &rootfs))
        })
        .collect::<Vec<_>>();
    let jailer = host.jailer();
    // What is kept for the next launch, the table of mounts, is there after the first.
    drop(jailer.launch(&specs[0]).unwrap());
    jailer.teardown(specs[0].vm_id()).unwrap();
    let before = held();
    let uids = Mutex::new(HashSet::new());
    let all_run = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for mine in specs.chunks(EACH) {
            let (jailer, uids, all_run) = (&jailer, &uids, &all_run);
            scope.spawn(move || {
                let mut vms = mine
                    .iter()
                    .map(|spec| jailer.launch(spec).unwrap_or_else(|error| panic!("{error:?}")))
                    .collect::<Vec<_>>();
                // Thirty of them at once.
                all_run.wait();
                for vm in &mut vms {
                    assert!(uids.lock().unwrap().insert(vm.uid()), "uid {} is shared", vm.uid());
                    assert_says_hello(vm);
                    assert!(vm.shutdown(Duration::from_secs(60)).unwrap().success());
                }
                drop(vms);
                for spec in mine {
                    assert_eq!(jailer.remove(spec.vm_id()).unwrap().jails.len(), 1);
                }
            });
        }
    });
    assert_eq!(uids.into_inner().unwrap().len(), THREADS * EACH);
    assert_eq!(jailer.list().unwrap().jails, []);
    // Threads that have nothing left to do end a moment later.
    let deadline = Instant::now() + Duration::from_secs(60);
    let more = |(descriptors, threads)| descriptors > before.0 || threads > before.1;
    while more(held()) {
        assert!(Instant::now() < deadline, "{before:?} became {:?}", held());
        std::thread::yield_now();
    }
    host.assert_clean();
}
