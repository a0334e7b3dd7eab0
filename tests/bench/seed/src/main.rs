//! `bench-seed <base> <kernel> <rootfs> <uid>`: the published crate's `prepare` and `teardown`, timed from within.
//!
//! Reads `prepare <id>` or `teardown <id>` a line, does it, and prints `{"ns":<nanoseconds>}` a line.

use std::error::Error;
use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::path::PathBuf;
use std::time::Instant;

use microvm_runtime::jailer::{Jailer, JailerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, kernel, rootfs, uid] = arguments.as_slice() else {
        return Err("usage: bench-seed <base> <kernel> <rootfs> <uid>".into());
    };
    let uid = uid.parse()?;
    let config = JailerConfig { chroot_base: base.into(), uid, gid: uid, ..JailerConfig::default() };
    let jailer = Jailer::new(config);
    let (kernel, rootfs) = (PathBuf::from(kernel), PathBuf::from(rootfs));
    for line in stdin().lock().lines() {
        let line = line?;
        let (verb, id) = line.split_once(' ').ok_or("a verb and an id, please")?;
        let begun = Instant::now();
        match verb {
            "prepare" => drop(jailer.prepare(id, &kernel, &rootfs, &[])?),
            "teardown" => jailer.teardown(id)?,
            _ => return Err(format!("no verb {verb}").into()),
        }
        let took = begun.elapsed();
        println!("{{\"ns\":{}}}", took.as_nanos());
        stdout().flush()?;
    }
    Ok(())
}
