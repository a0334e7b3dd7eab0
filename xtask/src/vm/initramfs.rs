//! Everything the machine has, in the one archive its kernel unpacks.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use xshell::Shell;

use super::cpio::Archive;
use super::debian::Debian;
use super::modules;
use super::payload::{Payload, Program};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// What the tests call besides busybox; each comes with its libraries.
const TOOLS: [&str; 4] = ["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "strace"];

/// The users that tests look up by name: root, and nobody.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";

/// Where Debian's dynamic loader looks, and where it is itself.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Writes the archive to `path`.
pub(super) fn write(sh: &Shell, debian: &Debian, payload: &Payload, path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    archive.bytes("init", 0o755, INIT.as_bytes())?;
    archive.program("bin/busybox", &debian.program("busybox")?)?;
    archive.bytes("etc/passwd", 0o644, USERS.as_bytes())?;
    archive.bytes("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.link("etc/mtab", "/proc/mounts")?;
    archive.link("lib64", LIBRARIES)?;
    modules::add(sh, debian, &mut archive)?;
    add_tools(sh, debian, &mut archive)?;
    add_payload(payload, &mut archive)?;
    archive.finish()?;
    Ok(())
}

fn add_tools<W: Write>(sh: &Shell, debian: &Debian, archive: &mut Archive<W>) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for tool in TOOLS {
        let program = debian.program(tool)?;
        archive.program(&format!("usr/sbin/{tool}"), &program)?;
        libraries.extend(debian.libraries(sh, &program)?);
    }
    let mut taken = BTreeSet::new();
    for library in &libraries {
        let name = library.file_name().and_then(OsStr::to_str).context("a library has a name")?;
        if taken.insert(name) {
            archive.program(&format!("{LIBRARIES}/{name}"), library)?;
        }
    }
    Ok(())
}

fn add_payload<W: Write>(payload: &Payload, archive: &mut Archive<W>) -> Result<()> {
    for tests in &payload.tests {
        let path = format!("tests/bin/{}", tests.name);
        match &tests.program {
            Program::Binary(binary) => archive.program(&path, binary)?,
            Program::Script(text) => {
                archive.bytes(&path, 0o755, format!("#!/bin/sh\n{text}\n").as_bytes())?;
            }
        }
    }
    let mut environment = vec![("MODULES", modules::LOADED.join(" "))];
    if let Some(stand_ins) = &payload.stand_ins {
        for entry in fs::read_dir(stand_ins)? {
            let entry = entry?;
            let name =
                entry.file_name().into_string().ok().context("stand-ins have plain names")?;
            if entry.file_type()?.is_file() {
                archive.program(&format!("tests/stand-ins/{name}"), &entry.path())?;
            }
        }
        environment.push((testkit::STAND_INS_ENV, "/tests/stand-ins".to_owned()));
    }
    let passed_on = payload.environment.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let environment: String = environment
        .into_iter()
        .chain(passed_on)
        .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
        .collect();
    archive.bytes("tests/environment", 0o644, environment.as_bytes())?;
    let arguments: String =
        payload.arguments.iter().map(|argument| format!("{argument}\n")).collect();
    archive.bytes("tests/arguments", 0o644, arguments.as_bytes())
}
