//! The network namespace of a VM: what can be seen and reached from there.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{self, UnixListener, UnixStream};
use std::time::Duration;

use microvm_runtime::{
    Boot, CgroupVersion, ErrorKind, JailSpec, Network, NetworkInterface, PidNamespace, Vm,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::host::{Host, UID};

const MODES: [PidNamespace; 3] =
    [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host];

/// Calls `run` in the VM's network namespace: in a thread, so that the calling thread stays in the test's.
fn in_network_of<T: Send>(vm: &Vm, run: impl FnOnce() -> T + Send) -> T {
    let namespace = vm.network_namespace().unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            run()
        });
        inside.join().unwrap()
    })
}

/// Returns the names of the network interfaces in the calling thread's namespace.
fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    table.lines().skip(2).map(|line| line.split(':').next().unwrap().trim().to_owned()).collect()
}

/// Launches the VM on each version of control groups that the host has, in each pid namespace mode.
fn launch_everywhere(host: &mut Host, network: &Network, check: impl Fn(&Vm, &str)) -> usize {
    let mut done = 0;
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        for mode in MODES {
            let spec = host.idle("vm").cgroup_version(version).pid_namespace(mode);
            let vm = match host.jailer().launch(&spec.network(network.clone())) {
                Ok(vm) => vm,
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    testkit::skip(&format!("{network} ({version:?})"), &error.to_string());
                    continue;
                }
                Err(error) => panic!("{version:?}, {mode:?}, {network}: {error:?}"),
            };
            check(&vm, &format!("{version:?}, {mode:?}, {network}"));
            vm.kill().unwrap();
            drop(vm);
            host.jailer().teardown("vm").unwrap();
            done += 1;
        }
    }
    done
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_70_the_launchers_network_is_out_of_reach() {
    let mut host = Host::new("reach");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let name = net::SocketAddr::from_abstract_name(testkit::unique("reach")).unwrap();
    let _unix = UnixListener::bind_addr(&name).unwrap();
    let address = tcp.local_addr().unwrap();
    let reach = |address: SocketAddr, name: &net::SocketAddr| {
        let tcp = TcpStream::connect_timeout(&address, Duration::from_secs(10)).map(drop);
        (
            tcp.map_err(|error| error.kind()),
            UnixStream::connect_addr(name).map(drop).map_err(|error| error.kind()),
        )
    };
    // By default, and asked for.
    assert_eq!(Network::default(), Network::Isolated);
    let done = launch_everywhere(&mut host, &Network::Isolated, |vm, place| {
        let (seen, (tcp, unix)) = in_network_of(vm, || (interfaces(), reach(address, &name)));
        assert_eq!(seen, ["lo"], "{place}");
        assert!(tcp.is_err(), "{place}: the launcher's loopback answers");
        assert_eq!(unix, Err(io::ErrorKind::ConnectionRefused), "{place}");
    });
    let twins = launch_everywhere(&mut host, &Network::Host, |vm, place| {
        let reached = in_network_of(vm, || reach(address, &name));
        assert_eq!(reached, (Ok(()), Ok(())), "{place}");
    });
    assert!(done > 0 && done == twins, "{done} of {twins}");
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn adopted_vms_offer_their_namespace() {
    let mut host = Host::new("adopt-net");
    let spec = host.idle("vm");
    let vm = host.jailer().launch(&spec).unwrap();
    let inode = |vm: &Vm| File::from(vm.network_namespace().unwrap()).metadata().unwrap().ino();
    let before = inode(&vm);
    drop(vm);
    let vm = host.jailer().adopt("vm").unwrap();
    assert_eq!(inode(&vm), before);
    assert_eq!(vm.inspect().unwrap().network_namespace, before);
    vm.kill().unwrap();
    assert_eq!(vm.network_namespace().unwrap_err().kind(), ErrorKind::Identity);
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn plans_name_the_network() {
    let mut host = Host::new("plan-net");
    let netns = testkit::Netns::new(&host.scratch);
    let idle = host.idle("vm");
    let plan = |spec: &JailSpec| host.jailer().plan(spec).unwrap().to_string();
    assert!(plan(&idle).contains("network a new namespace\n"), "{}", plan(&idle));
    let joins = plan(&idle.clone().network(Network::Namespace(netns.path().into())));
    assert!(joins.contains(&format!("network the namespace {}\n", netns.path().display())));
    let shares = plan(&idle.network(Network::Host));
    assert!(shares.contains("network the launcher's namespace\n"), "{shares}");
    drop(netns);
    host.assert_clean();
}

/// Returns the tap device's flags and owner, as the kernel reports in the VM's own sysfs.
fn tap_in(vm: &Vm, name: &str) -> (u32, u32) {
    in_network_of(vm, || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        let read = |file: &str| {
            let text = fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap();
            text.trim().to_owned()
        };
        let flags = u32::from_str_radix(read("flags").trim_start_matches("0x"), 16).unwrap();
        (flags, read("owner").parse().unwrap())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_created_tap_is_the_vms() {
    let mut host = Host::new("tap");
    if !fs::exists("/dev/net/tun").unwrap() {
        return testkit::skip("a_created_tap_is_the_vms", "no tun driver here");
    }
    let boot = |tap: &str| {
        let interface = NetworkInterface::new("eth0", tap).create_tap();
        Boot::new().vcpus(1).memory_mib(128).kernel_args("console=ttyS0").network(interface)
    };
    let tap = "tap-of-vm";
    for mode in MODES {
        let spec = host.idle("vm").pid_namespace(mode).boot(boot(tap));
        let plan = host.jailer().plan(&spec).unwrap();
        assert!(plan.to_string().contains("tap     tap-of-vm"), "{plan}");
        assert!(plan.warnings().is_empty(), "{:?}", plan.warnings());
        let vm = host.jailer().launch(&spec).unwrap();
        assert_eq!(in_network_of(&vm, interfaces), ["lo", tap]);
        let (flags, owner) = tap_in(&vm, tap);
        assert_eq!((flags & 1, owner), (1, UID), "{mode:?}: up, and the VM's");
        vm.kill().unwrap();
        drop(vm);
        host.jailer().remove("vm").unwrap();
        assert!(!interfaces().contains(&tap.to_owned()), "it was never the host's");
    }
    // A device that cannot be made ends the launch, and leaves nothing.
    let spec = host.idle("vm").boot(boot("lo"));
    let error = host.jailer().launch(&spec).unwrap_err();
    assert!(error.to_string().contains("TUNSETIFF"), "{error}");
    assert!(host.jailer().list().unwrap().jails.is_empty());
    for network in [Network::Host, Network::Namespace("/proc/self/ns/net".into())] {
        let error =
            host.jailer().plan(&host.idle("vm").boot(boot(tap)).network(network)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    host.assert_clean();
}

/// A namespace that goes between the plan and the launch is named, and nothing is left.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_lost_namespace_is_named() {
    let mut host = Host::new("lost-net");
    let netns = testkit::Netns::new(&host.scratch);
    let path = netns.path().to_owned();
    let spec = host.idle("vm").network(Network::Namespace(path.clone()));
    let plan = host.jailer().plan(&spec).unwrap();
    let prepared = plan.prepare(&microvm_runtime::CopyOptions::new()).unwrap();
    drop(netns);
    let error = prepared.launch().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(host.jailer().list().unwrap().jails.is_empty());
    host.assert_clean();
}
