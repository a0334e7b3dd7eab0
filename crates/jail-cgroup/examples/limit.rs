//! Runs any command in a new control group: `limit <MiB> <CPUs> <command> [argument…]`, as root.
//!
//! `cargo run -p jail-cgroup --example limit -- 64 0.5 sha256sum /dev/zero`

use std::error::Error;
use std::io::Write as _;
use std::process::{Command, ExitStatus, Stdio, id};
use std::time::Duration;

use jail_cgroup::{ByteSize, CgroupVersion, Host, Leaf, LeafPlan, Limits, Stats};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [mib, cpus, command @ ..] = arguments.as_slice() else {
        return Err("usage: limit <MiB> <CPUs> <command> [argument…]".into());
    };
    let limits = Limits::new().memory_max(ByteSize::mib(mib.parse()?)).cpus(cpus.parse()?);
    let outcome = run("limited", &limits, command)?;
    println!("{}, {} OOM kills, {:?}", outcome.status, outcome.oom_kills, outcome.stats);
    Ok(())
}

/// Result of a command.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) oom_kills: u64,
    pub(crate) stats: Stats,
}

/// Runs the command with these limits in a leaf below `parent`, and leaves nothing behind.
pub(crate) fn run(
    parent: &str,
    limits: &Limits,
    command: &[String],
) -> Result<Outcome, Box<dyn Error>> {
    let host = Host::discover()?;
    let version = host.pick(CgroupVersion::V2, limits)?;
    let leaf = LeafPlan::new(&host, version, parent, &format!("run-{}", id()), limits)?.create()?;
    let outcome = run_in(&leaf, command);
    // Whatever it has left running goes with it.
    leaf.kill()?;
    leaf.wait_empty(Duration::from_secs(10))?;
    leaf.remove()?;
    outcome
}

fn run_in(leaf: &Leaf, command: &[String]) -> Result<Outcome, Box<dyn Error>> {
    // The shell waits for a line, so that the command is in the leaf before its first instruction.
    let mut child = Command::new("sh")
        .args(["-c", "read -r go && exec \"$@\"", "sh"])
        .args(command)
        .stdin(Stdio::piped())
        .spawn()?;
    let joined = leaf.adopt(child.id());
    if let (Ok(()), Some(mut stdin)) = (&joined, child.stdin.take()) {
        stdin.write_all(b"go\n")?;
    }
    // Without that line it ends at once.
    let status = child.wait()?;
    joined?;
    Ok(Outcome { status, oom_kills: leaf.oom_kills()?, stats: leaf.stats()? })
}
