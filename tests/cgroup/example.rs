//! The example of the crate's documentation.

#[expect(dead_code, reason = "its `main` is for the command line")]
#[path = "../../crates/jail-cgroup/examples/limit.rs"]
mod limit;

use std::os::unix::process::ExitStatusExt as _;

use jail_cgroup::{ByteSize, CgroupVersion, Host, Limits};

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_example_limits_any_command() {
    const TEST: &str = "example::the_example_limits_any_command";
    let limits = Limits::new().memory_max(ByteSize::mib(32)).cpus(0.5).pids_max(16);
    if let Err(error) = Host::discover().unwrap().pick(CgroupVersion::V2, &limits) {
        testkit::skip(TEST, &error.to_string());
        return;
    }
    let parent = testkit::unique("cg-example");
    let run = |command: &[&str]| limit::run(&parent, &limits, &words(command)).unwrap();

    let outcome = run(&["sh", "-c", "exit 7"]);
    assert_eq!((outcome.status.code(), outcome.oom_kills), (Some(7), 0));

    // A shell that doubles a text until it has more than it may.
    let outcome = run(&["sh", "-c", "x=12345678; while :; do x=$x$x; done"]);
    assert_eq!((outcome.status.signal(), outcome.oom_kills), (Some(9), 1));
    println!("{TEST}: {:?}", outcome.stats.memory_events);

    // What it leaves running is killed.
    let outcome = run(&["sh", "-c", "sleep 1000 & sleep 1000 &"]);
    assert!(outcome.status.success());
    assert_eq!(testkit::cgroups_named(&parent, ""), Vec::<std::path::PathBuf>::new());
}
