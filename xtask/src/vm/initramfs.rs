//! Writes the initramfs of a machine: a cpio archive in the "newc" format.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use cpio::newc::{self, ModeFileType};
use xshell::Shell;

use super::debian::{Debian, KernelFiles};
use super::payload::{Payload, Program};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// The modules of the disks, filesystems and devices that root tests use; ext4 and tmpfs are built in everywhere.
const MODULES: [&str; 7] = ["virtio_pci", "virtio_blk", "loop", "xfs", "btrfs", "overlay", "tun"];

/// The programs that tests call besides busybox; the archive also gets the shared libraries.
const TOOLS: [&str; 4] = ["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "strace"];

/// The users that tests look up by name: root, and nobody.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";

/// The directory of shared libraries and of the dynamic loader in the guest.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Writes the archive of a machine with this kernel and payload to `path`.
pub(super) fn write(
    sh: &Shell,
    debian: &Debian,
    kernel: &KernelFiles,
    payload: &Payload,
    path: &Path,
) -> Result<()> {
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut archive = Archive { out: BufWriter::new(file), directories: BTreeSet::new() };
    archive.bytes("init", INIT.as_bytes())?;
    archive.program("bin/busybox", &debian.program("busybox")?)?;
    archive.bytes("etc/passwd", USERS.as_bytes())?;
    archive.bytes("etc/group", b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.link("etc/mtab", "/proc/mounts")?;
    archive.link("lib64", LIBRARIES)?;
    let modules = add_modules(debian, kernel, &mut archive)
        .with_context(|| format!("add the modules of {}", kernel.release))?;
    add_tools(sh, debian, &mut archive)?;
    add_payload(payload, modules, &mut archive)?;
    newc::trailer(archive.out)?.flush()?;
    Ok(())
}

/// Adds the unpacked modules with all dependencies, and returns the names in load order. Built-in modules are skipped.
fn add_modules<W: Write>(
    debian: &Debian,
    kernel: &KernelFiles,
    archive: &mut Archive<W>,
) -> Result<Vec<String>> {
    let mut files = Vec::new();
    list(&kernel.modules.join("kernel"), &mut files)?;
    let built_in = fs::read_to_string(kernel.modules.join("modules.builtin"))
        .context("read modules.builtin")?;
    let mut loaded = Vec::new();
    // Each name is visited twice: the dependencies are added between the two visits.
    let mut to_do: Vec<(String, bool)> =
        MODULES.iter().rev().map(|name| ((*name).to_owned(), true)).collect();
    let mut asked = BTreeSet::new();
    let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while let Some((name, required)) = to_do.pop() {
        if let Some(content) = contents.remove(&name) {
            archive.bytes(&format!("modules/{name}.ko"), &content)?;
            loaded.push(name);
            continue;
        }
        if !asked.insert(name.clone()) {
            continue;
        }
        match files.iter().find(|file| module_name(file).is_some_and(|found| found == name)) {
            Some(file) => {
                let content = unpacked(debian, file)?;
                let needed = needs(&content);
                contents.insert(name.clone(), content);
                to_do.push((name, true));
                to_do.extend(needed);
            }
            None if built_in
                .lines()
                .any(|line| module_name(Path::new(line)).is_some_and(|found| found == name)) => {}
            None => ensure!(!required, "the kernel has no module {name}"),
        }
    }
    Ok(loaded)
}

/// Returns the name of a module: `virtio_blk` for `virtio-blk.ko.xz`.
fn module_name(file: &Path) -> Option<String> {
    let (name, _) = file.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// Lists the dependencies of a module, each with false for a soft dependency, which may be missing. modinfo(8)
fn needs(module: &[u8]) -> Vec<(String, bool)> {
    let fields =
        module.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
    let mut needed = Vec::new();
    for field in fields {
        let (names, required) =
            match (field.strip_prefix("depends="), field.strip_prefix("softdep=pre: ")) {
                (Some(names), _) => (names, true),
                (_, Some(names)) => (names, false),
                _ => continue,
            };
        let names = names.split([',', ' ']).filter(|name| !name.is_empty());
        needed.extend(names.map(|name| (name.replace('-', "_"), required)));
    }
    needed
}

fn unpacked(debian: &Debian, file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(OsStr::to_str) {
        Some("ko") => return fs::read(file).with_context(|| format!("read {}", file.display())),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{}: unknown compression of a module", file.display()),
    };
    let output = Command::new(debian.program(tool)?).arg("-dc").arg(file).output()?;
    ensure!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => list(&entry.path(), files)?,
            false => files.push(entry.path()),
        }
    }
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

fn add_payload<W: Write>(
    payload: &Payload,
    modules: Vec<String>,
    archive: &mut Archive<W>,
) -> Result<()> {
    for tests in &payload.tests {
        let path = format!("tests/bin/{}", tests.name);
        match &tests.program {
            Program::Binary(binary) => archive.program(&path, binary)?,
            Program::Script(text) => {
                archive.bytes(&path, format!("#!/bin/sh\n{text}\n").as_bytes())?
            }
        }
    }
    let mut environment = vec![("MODULES", modules.join(" "))];
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
    archive.bytes("tests/environment", environment.as_bytes())?;
    let arguments: String =
        payload.arguments.iter().map(|argument| format!("{argument}\n")).collect();
    archive.bytes("tests/arguments", arguments.as_bytes())
}

/// An archive under construction. Root owns every entry; parent directories precede an entry.
struct Archive<W> {
    out: W,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Adds a program with the content of the host's file `from`.
    fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.bytes(path, &content)
    }

    /// Adds a regular file, 0755, with these bytes.
    fn bytes(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, ModeFileType::Regular, content)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, ModeFileType::Symlink, target.as_bytes())
    }

    fn entry(&mut self, path: &str, kind: ModeFileType, content: &[u8]) -> Result<()> {
        for (end, _) in path.match_indices('/') {
            if self.directories.insert(path[..end].to_owned()) {
                self.header(&path[..end], ModeFileType::Directory, &[])?;
            }
        }
        self.header(path, kind, content)
    }

    fn header(&mut self, path: &str, kind: ModeFileType, content: &[u8]) -> Result<()> {
        let entry = newc::Builder::new(path).mode(0o755).set_mode_file_type(kind);
        let mut writer = entry.write(
            &mut self.out,
            content.len().try_into().context("a file of 4 GiB does not fit")?,
        );
        io::copy(&mut &*content, &mut writer)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_dependencies_are_parsed() {
        let module = b"\x7fELF\0license=GPL\0depends=libcrc32c,raid6-pq\0softdep=pre: crc32c\0";
        let needed = [("libcrc32c", true), ("raid6_pq", true), ("crc32c", false)];
        assert_eq!(needs(module), needed.map(|(name, required)| (name.to_owned(), required)));
        assert_eq!(needs(b"depends=\0"), []);
    }

    #[test]
    fn module_names_are_parsed() {
        for file in ["fs/virtio-blk.ko", "virtio_blk.ko.xz", "virtio_blk.ko.zst"] {
            assert_eq!(module_name(Path::new(file)).as_deref(), Some("virtio_blk"));
        }
        assert_eq!(module_name(Path::new("modules.dep")), None);
    }
}
