//! `cargo xtask demo`: boots the tiny guest in a jail with limits, and shows what the kernel says of it.
//!
//! [`boot`] does the work as root, [`read_back`] asks the kernel about the running VM, and [`left`] looks at the host
//! afterwards: neither asks the crates that are on show.

mod boot;
mod left;
mod read_back;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::progress::Progress;
use crate::root::{self, Answer, Job};
use crate::table::Table;
use crate::{paths, setup};

pub(crate) use self::boot::run_as_root;

/// All there is to show.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Which jailer and Firecracker, and why.
    using: String,
    /// What an earlier demo that was killed had left, and is gone.
    earlier: Vec<String>,
    /// What was staged, and how.
    staged: Vec<Staged>,
    /// What was asked for, and what the kernel says.
    facts: Vec<Fact>,
    /// The line on the guest's console.
    guest: String,
    /// How the VM ended.
    ended: String,
    /// What teardown says it removed.
    removed: Vec<String>,
    /// What is left on the host.
    left: Vec<Left>,
}

/// One file in the jail.
#[derive(Debug, Serialize, Deserialize)]
struct Staged {
    name: String,
    how: String,
    bytes_copied: u64,
}

/// Something asked for, as the kernel has it.
#[derive(Debug, Serialize, Deserialize)]
struct Fact {
    what: String,
    asked: String,
    found: String,
    ok: bool,
}

/// Something that could be left, and what was found where it would be.
#[derive(Debug, Serialize, Deserialize)]
struct Left {
    what: String,
    place: String,
    found: Vec<String>,
}

impl Report {
    fn good(&self) -> bool {
        self.facts.iter().all(|fact| fact.ok) && self.left.iter().all(|left| left.found.is_empty())
    }

    fn print(&self) {
        println!("\n{}", self.using);
        for line in &self.earlier {
            println!("left by an earlier demo, and removed: {line}");
        }
        let mut table = Table::new(["in the jail", "how it got there", "bytes copied"]);
        for Staged { name, how, bytes_copied } in &self.staged {
            table.row([name.clone(), how.clone(), bytes_copied.to_string()]);
        }
        print!("\n{table}");
        let mut table = Table::new(["of the VM", "asked for", "the kernel says", ""]);
        for Fact { what, asked, found, ok } in &self.facts {
            let verdict = if *ok { "" } else { "NOT SO" };
            table.row([what.clone(), asked.clone(), found.clone(), verdict.to_owned()]);
        }
        print!("\n{table}");
        println!(
            "\nthe guest says: {}\nit ended with: {}\n\nteardown removed",
            self.guest, self.ended
        );
        for removed in &self.removed {
            println!("  {removed}");
        }
        let mut table = Table::new(["left on the host", "looked up in", "found"]);
        for Left { what, place, found } in &self.left {
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
            table.row([what.clone(), place.clone(), found]);
        }
        print!("\n{table}");
    }
}

/// Builds what it needs as whoever we are, has the VM booted as root, and shows what came of it; whether all is well.
pub(crate) fn command() -> Result<bool> {
    setup::ensure(setup::LINK)?;
    let progress = Progress::begin("build guest");
    let stand_ins = testkit::build::stand_ins(&paths::target()?)?;
    progress.end("ok");
    let Answer::Shown(report) = root::ask(&Job::Demo, root::environment(&stand_ins))? else {
        bail!("the root part answered something else");
    };
    report.print();
    if !report.good() {
        eprintln!("\nthe kernel says something else than was asked for, or something is left");
    }
    Ok(report.good())
}
