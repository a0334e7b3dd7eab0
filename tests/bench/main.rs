//! The benchmarks, as `cargo xtask bench` runs them: optimised, and as root.

mod fleet;
mod fs;
mod launch;
mod outside;
mod session;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use testkit::interrupt;

use crate::session::{Contender, Rival, Session};

/// Compares ours with rivals in alternating rounds of one run, so that noise affects all sides
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    what: Bench,
    /// The number of rounds
    #[arg(long)]
    rounds: Option<usize>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Fail if a bound is exceeded
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// A launch, beside the same jailer started bare and beside fctools
    Launch,
    /// jail-fs, beside the bare system calls, cp and the published crate
    Fs,
    /// Each verb on a host full of jails
    Fleet,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns false only if `--check` was given and a bound was exceeded.
fn run(options: &Options) -> Result<bool> {
    interrupt::hold()?;
    let mut session = Session::new(options.rounds);
    match options.what {
        Bench::Launch => launch::run(&mut session)?,
        Bench::Fs => fs::run(&mut session)?,
        Bench::Fleet => fleet::run(&mut session)?,
    }
    let name = format!("{:?}", options.what).to_lowercase();
    let good = session.finish(&name, options.json)?;
    if options.check && !good {
        eprintln!("bench {name}: a bound was exceeded");
    }
    Ok(good || !options.check)
}
