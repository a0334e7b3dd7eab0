//! `cargo xtask`: the demo, the tests and the benchmarks of this workspace, each one command.

mod bench;
mod binaries;
mod command;
mod counts;
mod demo;
mod faults;
mod host;
mod interrupt;
mod mutants;
mod paths;
mod progress;
mod root;
mod setup;
mod soak;
mod table;
mod test;
mod test_root;
mod vm;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::*;

use crate::counts::Selection;

const HELP: &str = "\
cargo xtask <command>

  demo                          boot a tiny guest in a jail with limits; show the state in the kernel (root, or sudo)
  test [--long] [--require]     format, lints, docs, unit, doc, property and root tests, here and in virtual machines
  test-root [options] [filter…] the root tests alone, each binary in a private mount namespace (root, or sudo)
      -p, --package <name>      only the tests of this package (repeatable)
      --vm <v1|v2|hybrid|all>   in virtual machines with this cgroup layout, each with one of Debian's kernels,
                                with --long with every kernel (needs no root)
      --long                    run more rounds and more cases
      --require                 count a skipped test as failed
  bench <launch|fs|fleet> [options]   compare with rivals, in alternating rounds (root)
      --rounds <n>              the number of rounds
      --json                    print JSON instead of a table
      --check                   fail if a bound is exceeded
  faults [options]              fail each kind of a launcher's system calls once, and kill the launcher once (root)
      --long                    fail every call with every errno, and kill the launcher before each (10 min)
      --phase <name>            only in this phase: plan, prepare, launch, look, adopt, stop, teardown (repeatable)
      --by-jailer               let the jailer make the pid namespace
      --official                use the official jailer and Firecracker instead of the stand-ins
      --json                    print JSON instead of a table
  soak [options]                10 000 launches, then 1 000 VMs at once whose launcher is killed (root)
      --short                   40 launches and 12 VMs
      --cycles <n>, --vms <n>   the number of launches, and of VMs
  mutants [--sample <n>] [filter…]   break each rule in tests/mutants, and check that a test fails (root)
  setup                         install the Debian packages that xtask needs, or list missing programs
";

fn main() -> ExitCode {
    match dispatch(lexopt::Parser::from_env()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command. Returns false on a failure that has been printed already.
fn dispatch(mut args: lexopt::Parser) -> Result<bool> {
    let Some(Value(command)) = args.next()? else {
        print!("{HELP}");
        return Ok(true);
    };
    match command.string()?.as_str() {
        "demo" => {
            no_more(args)?;
            demo::command()
        }
        "test" => {
            let selection = selection(&mut args, &mut None)?;
            if !selection.packages.is_empty() || !selection.filters.is_empty() {
                bail!(
                    "`test` takes no packages or filters; use `cargo test` or `cargo xtask test-root`"
                );
            }
            test::run(&selection)
        }
        "test-root" => {
            let mut layouts = None;
            let selection = selection(&mut args, &mut layouts)?;
            test_root::command(&selection, layouts.as_deref())
        }
        "bench" => bench::command(&mut args),
        "faults" => faults::command(&mut args),
        // `faults` starts this program with these two hidden commands.
        faults::INSIDE => faults::inside(&mut args),
        faults::LAUNCHER => faults::launcher(args),
        "soak" => soak(args),
        // Hidden: the launcher that `soak` kills.
        SOAK_LAUNCHER => soak::serve_if_launcher().map(|()| false),
        "mutants" => {
            let (mut sample, mut filters) = (None, Vec::new());
            while let Some(arg) = args.next()? {
                match arg {
                    Long("sample") => sample = Some(args.value()?.parse()?),
                    Value(filter) => filters.push(filter.string()?),
                    other => return Err(other.unexpected().into()),
                }
            }
            // Most of the tests need root.
            rooted()?;
            mutants::run(sample, &filters)
        }
        "setup" => {
            no_more(args)?;
            setup::all()?;
            Ok(true)
        }
        // Hidden: `root` starts this program with this command.
        root::SUBCOMMAND => {
            no_more(args)?;
            root::serve()?;
            Ok(true)
        }
        "help" => {
            print!("{HELP}");
            Ok(true)
        }
        other => bail!("unknown command `{other}`\n\n{HELP}"),
    }
}

const SOAK_LAUNCHER: &str = "__soak-launcher";

/// Runs this command again as root with the path of the stand-ins, unless this process is that run.
fn rooted() -> Result<()> {
    if root::is_root() && std::env::var_os(testkit::STAND_INS_ENV).is_some() {
        return Ok(());
    }
    let stand_ins = testkit::build::stand_ins(&paths::target()?)?;
    match root::again(&std::env::current_exe()?, root::environment(&stand_ins))? {}
}

fn soak(mut args: lexopt::Parser) -> Result<bool> {
    let mut size = soak::Size::LONG;
    while let Some(arg) = args.next()? {
        match arg {
            Long("short") => size = soak::Size::SHORT,
            Long("cycles") => size.cycles = args.value()?.parse()?,
            Long("vms") => size.vms = args.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    rooted()?;
    interrupt::hold()?;
    let table = soak::run(size, || {
        let mut launcher = std::process::Command::new("/proc/self/exe");
        launcher.arg(SOAK_LAUNCHER);
        launcher
    })?;
    print!("{table}");
    Ok(true)
}

/// Parses the options of `test` and `test-root`.
fn selection(
    args: &mut lexopt::Parser,
    layouts: &mut Option<Vec<vm::Layout>>,
) -> Result<Selection> {
    let mut selection = Selection::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("long") => selection.long = true,
            Long("require") => selection.require = true,
            Short('p') | Long("package") => selection.packages.push(args.value()?.string()?),
            Long("vm") => *layouts = Some(vm::Layout::parse(&args.value()?.string()?)?),
            Value(filter) => selection.filters.push(filter.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(selection)
}

fn no_more(mut args: lexopt::Parser) -> Result<()> {
    match args.next()? {
        Some(arg) => Err(arg.unexpected().into()),
        None => Ok(()),
    }
}
