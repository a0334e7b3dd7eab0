//! `cargo xtask`: the demo, the tests and the benchmarks of this workspace, each one command.

mod bench;
mod binaries;
mod command;
mod counts;
mod demo;
mod faults;
mod host;
mod mutants;
mod paths;
mod progress;
mod root;
mod setup;
mod soak;
mod test;
mod test_root;
mod vm;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::counts::Selection;

/// The demo, the tests and the benchmarks of this workspace
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
enum Cli {
    /// Boot a tiny guest in a jail with limits; show the state in the kernel (root, or sudo)
    Demo,
    /// Format, lints, docs, unit, doc, property and root tests, here and in virtual machines
    Test {
        /// Run more rounds and more cases
        #[arg(long)]
        long: bool,
        /// Count a skipped test as failed
        #[arg(long)]
        require: bool,
    },
    /// The root tests alone, each binary in a private mount namespace (root, or sudo)
    TestRoot {
        #[command(flatten)]
        selection: Selection,
        /// Run in virtual machines with this cgroup layout, each with one of Debian's kernels, with --long with every
        /// kernel (needs no root)
        #[arg(long)]
        vm: Option<vm::Choice>,
    },
    /// Compare with rivals, in alternating rounds (root): launch, fs or fleet, and --rounds <n>, --json, --check
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Fail each kind of a launcher's system calls once, and kill the launcher once (root)
    Faults(faults::Options),
    /// 10 000 launches, then 1 000 VMs at once whose launcher is killed (root)
    Soak(soak::Options),
    /// Break each rule in tests/mutants, and check that a test fails (root)
    Mutants {
        /// Test this number of random mutants
        #[arg(long)]
        sample: Option<usize>,
        filters: Vec<String>,
    },
    /// Install the Debian packages that xtask needs, or list missing programs
    Setup,
    /// Run the root tests that stdin names
    #[command(hide = true, name = root::SUBCOMMAND)]
    AsRoot,
    /// Run the faults inside new namespaces
    #[command(hide = true, name = faults::INSIDE)]
    FaultsInside(faults::Options),
    /// Run as the launcher whose calls fail
    #[command(hide = true, name = faults::LAUNCHER)]
    FaultsLauncher,
    /// Run as the launcher that the soak kills
    #[command(hide = true, name = soak::LAUNCHER)]
    SoakLauncher,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command. Returns false on a failure that has been printed already.
fn dispatch(cli: Cli) -> Result<bool> {
    match cli {
        Cli::Demo => demo::command(),
        Cli::Test { long, require } => {
            test::run(&Selection { long, require, ..Selection::default() })
        }
        Cli::TestRoot { selection, vm } => {
            test_root::command(&selection, vm.map(vm::Choice::layouts))
        }
        Cli::Bench { arguments } => bench::command(arguments),
        Cli::Faults(_) => faults::command(),
        Cli::FaultsInside(options) => faults::inside(&options),
        Cli::FaultsLauncher => Ok(::faults::launcher::serve()),
        Cli::Soak(options) => soak::command(&options),
        Cli::SoakLauncher => soak::serve_if_launcher().map(|()| false),
        Cli::Mutants { sample, filters } => {
            // Most of the tests need root.
            rooted()?;
            mutants::run(sample, &filters)
        }
        Cli::Setup => setup::all().map(|()| true),
        Cli::AsRoot => root::serve().map(|()| true),
    }
}

/// Runs this command again as root with the path of the stand-ins, unless this process is that run.
fn rooted() -> Result<()> {
    if root::is_root() && std::env::var_os(testkit::STAND_INS_ENV).is_some() {
        return Ok(());
    }
    let stand_ins = testkit::build::stand_ins(&testkit::build::target()?)?;
    let arguments = std::env::args_os().skip(1);
    match root::again(&std::env::current_exe()?, arguments, root::environment(&stand_ins))? {}
}
