//! `cargo xtask demo`: boots the tiny guest in a jail with limits, and shows the state that the kernel reports.
//!
//! [`boot`] does the work as root, [`read_back`] reads the state of the running VM from the kernel, and [`left`]
//! searches the host afterwards. Neither [`read_back`] nor [`left`] uses the crates under demonstration.

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

/// The output of the demo.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The jailer and Firecracker in use, with the reason.
    using: String,
    /// The removed remains of an earlier demo that was killed.
    earlier: Vec<String>,
    /// The staged files.
    staged: Vec<Staged>,
    /// The requested settings and the values that the kernel reports.
    facts: Vec<Fact>,
    /// The line on the guest's console.
    guest: String,
    /// The exit status of the VM.
    ended: String,
    /// The paths that teardown removed.
    removed: Vec<String>,
    /// The remains on the host.
    left: Vec<Left>,
}

/// One file in the jail.
#[derive(Debug, Serialize, Deserialize)]
struct Staged {
    name: String,
    how: String,
    bytes_copied: u64,
}

/// A requested setting and the value that the kernel reports.
#[derive(Debug, Serialize, Deserialize)]
struct Fact {
    what: String,
    asked: String,
    found: String,
    ok: bool,
}

/// A kind of remains, the place searched and the remains found.
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
            println!("removed, left by an earlier demo: {line}");
        }
        let mut table = Table::new(["file in the jail", "staged by", "bytes copied"]);
        for Staged { name, how, bytes_copied } in &self.staged {
            table.row([name.clone(), how.clone(), bytes_copied.to_string()]);
        }
        print!("\n{table}");
        let mut table = Table::new(["setting", "requested", "kernel reports", ""]);
        for Fact { what, asked, found, ok } in &self.facts {
            let verdict = if *ok { "" } else { "MISMATCH" };
            table.row([what.clone(), asked.clone(), found.clone(), verdict.to_owned()]);
        }
        print!("\n{table}");
        println!("\nguest console: {}\nVM exit: {}\n\nteardown removed", self.guest, self.ended);
        for removed in &self.removed {
            println!("  {removed}");
        }
        let mut table = Table::new(["left on the host", "searched in", "found"]);
        for Left { what, place, found } in &self.left {
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
            table.row([what.clone(), place.clone(), found]);
        }
        print!("\n{table}");
    }
}

/// Builds the guest as the calling user, boots the VM as root and prints the report. Returns false on a mismatch.
pub(crate) fn command() -> Result<bool> {
    setup::ensure(setup::LINK)?;
    let progress = Progress::begin("build guest");
    let stand_ins = testkit::build::stand_ins(&paths::target()?)?;
    progress.end("ok");
    let Answer::Shown(report) = root::ask(&Job::Demo, root::environment(&stand_ins))? else {
        bail!("the root process sent an unexpected answer");
    };
    report.print();
    if !report.good() {
        eprintln!("\na setting differs from the request, or something is left on the host");
    }
    Ok(report.good())
}
