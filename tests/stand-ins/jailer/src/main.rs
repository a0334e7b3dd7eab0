//! A jailer that does what `docs/jailer-contract.md` says, line by line, for machines without Firecracker.
//!
//! It is a real one: it copies, moves to control groups and namespaces, pivots, makes the nodes, drops to the user and
//! execs. It is strict where the official one is, silent where that is silent, and words its errors alike; the tests in
//! `tests/launch/contract.rs` run the same table on both. It is no jailer for anything but tests.
//!
//! `MICROVM_STAND_IN_RELEASE=1.6.0` makes it act as that release, `-h`, pid file, panics and all.

mod cgroup;
mod detach;
mod failure;
mod jail;
mod release;
mod settings;
mod sys;

use std::ffi::OsString;
use std::fs;

use jail_cmd::{Feature, JailerVersion, RawInvocation};

use crate::failure::Failure;
use crate::settings::Settings;

fn main() -> Result<(), Failure> {
    let release = release::acted();
    run(release).inspect_err(|failure| release::report(release, failure))
}

fn run(release: JailerVersion) -> Result<(), Failure> {
    sys::close_inherited_descriptors();
    let clock = detach::Clock::start();
    let argv: Vec<OsString> = std::env::args_os().skip(1).collect();
    let args = match RawInvocation::parse(&argv, release)? {
        RawInvocation::Run(args) => args,
        RawInvocation::Help => {
            println!("Jailer v{release}\n\n(a stand-in: see the official jailer's --help)\n");
            return Ok(());
        }
        RawInvocation::Version => {
            println!("Jailer v{release}\n");
            return Ok(());
        }
    };
    let settings = Settings::read(*args, release)?;
    fs::create_dir_all(&settings.root)
        .map_err(|err| Failure::CreateDir(settings.root.clone(), err))?;
    let exec_file = jail::copy_exec_file(&settings)?;
    if let Some(netns) = &settings.netns {
        jail::join_netns(netns, release)?;
    }
    settings.limits.install()?;
    settings.cgroups.set_up()?;
    // Before the pivot: afterwards there is no such file.
    let dev_null = settings.daemonize.then(detach::open_dev_null).transpose()?;
    jail::enter(&settings.root)?;
    jail::make_directories_and_nodes(&settings)?;
    if let Some(dev_null) = dev_null {
        detach::daemonize(&dev_null, release.supports(Feature::DoubleFork))?;
    }
    detach::exec(&settings, &exec_file, &clock)
}
