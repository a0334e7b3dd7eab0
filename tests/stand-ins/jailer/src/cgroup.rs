//! The jailer's work on control groups.

use std::fs;
use std::path::{Path, PathBuf};

use jail_cmd::{Feature, JailerVersion};

use crate::failure::Failure;
use crate::settings::leads_elsewhere;

/// The leaves to make, one per hierarchy, in the order of first mention.
pub(crate) struct Cgroups {
    leaves: Vec<Leaf>,
}

struct Leaf {
    version: u8,
    /// The controller of a v1 hierarchy; `unified` on v2.
    hierarchy: String,
    dir: PathBuf,
    /// Of the parent below the mount.
    parent_depth: usize,
    settings: Vec<(String, String)>,
}

impl Cgroups {
    /// Checks every `--cgroup`; without one, on v2, joins the parent at once where it exists, else does nothing.
    pub(crate) fn read(
        args: &[String],
        version: u8,
        parent: &Path,
        id: &str,
        release: JailerVersion,
    ) -> Result<Self, Failure> {
        let mut this = Self { leaves: Vec::new() };
        if args.is_empty() {
            if version == 2 && release.supports(Feature::JoinsParentCgroup) {
                join_if_there(&Mounts::read(2)?.unified()?.join(parent))?;
            }
            return Ok(this);
        }
        let mounts = Mounts::read(version)?;
        for arg in args {
            let (file, value) = match arg.split('=').collect::<Vec<_>>()[..] {
                [file, value] if !value.is_empty() => (file, value),
                _ => return Err(Failure::CgroupFormat(arg.clone())),
            };
            if leads_elsewhere(Path::new(file)) {
                return Err(Failure::CgroupInvalidFile(arg.clone()));
            }
            let controller = controller_of(file)?;
            let (hierarchy, top) = match version {
                1 => (controller, mounts.of_controller(controller)?),
                _ => ("unified", mounts.unified()?),
            };
            if version == 2 && !available_on_v2(top, controller) {
                return Err(Failure::CgroupControllerUnavailable(controller.to_owned()));
            }
            let setting = (file.to_owned(), value.to_owned());
            match this.leaves.iter_mut().find(|leaf| leaf.hierarchy == hierarchy) {
                Some(leaf) => leaf.settings.push(setting),
                None => this.leaves.push(Leaf {
                    version,
                    hierarchy: hierarchy.to_owned(),
                    dir: top.join(parent).join(id),
                    parent_depth: parent.components().count(),
                    settings: vec![setting],
                }),
            }
        }
        Ok(this)
    }

    /// Makes all leaves, writes the settings, then joins each leaf: a cpuset accepts no process before it is configured.
    pub(crate) fn set_up(&self) -> Result<(), Failure> {
        for leaf in &self.leaves {
            leaf.make()?;
        }
        for leaf in &self.leaves {
            let members = if leaf.version == 1 { "tasks" } else { "cgroup.procs" };
            write_line(&leaf.dir.join(members), &std::process::id().to_string())?;
        }
        Ok(())
    }
}

impl Leaf {
    fn make(&self) -> Result<(), Failure> {
        fs::create_dir_all(&self.dir).map_err(|err| Failure::CreateDir(self.dir.clone(), err))?;
        let mut enabled = Vec::new();
        for (file, value) in &self.settings {
            if self.version == 1 {
                inherit(&self.dir, file, self.parent_depth)?;
            } else {
                let controller = controller_of(file)?;
                if !enabled.contains(&controller) {
                    let parent = self.dir.parent().unwrap_or(&self.dir);
                    enable(parent, controller)?;
                    enabled.push(controller);
                }
            }
            write_line(&self.dir.join(file), value)?;
        }
        Ok(())
    }
}

/// Fills an empty v1 file from the parent's file, top down: a new cpuset has neither cpus nor mems.
fn inherit(dir: &Path, file: &str, depth: usize) -> Result<(), Failure> {
    let above = dir.with_file_name(file);
    let mut line = read_line(&above)?;
    if line.is_empty() && depth > 0 {
        if let Some(parent) = above.parent() {
            // Another jailer may have been quicker: what counts is what is there now.
            let _ = inherit(parent, file, depth - 1);
        }
        line = read_line(&above)?;
    }
    if line.is_empty() {
        return Err(Failure::CgroupInheritFromParent(dir.to_owned(), file.to_owned()));
    }
    write_line(&dir.join(file), &line)
}

/// Enables a v2 controller in all ancestors of `dir`, then in `dir`.
fn enable(dir: &Path, controller: &str) -> Result<(), Failure> {
    let control = dir.join("cgroup.subtree_control");
    if !control.exists() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        enable(above, controller)?;
    }
    write_line(&control, &format!("+{controller}"))
}

fn join_if_there(parent: &Path) -> Result<(), Failure> {
    if !parent.exists() {
        return Ok(());
    }
    fs::write(parent.join("cgroup.procs"), std::process::id().to_string())
        .map_err(|err| Failure::CgroupMove(parent.to_owned(), err))
}

fn controller_of(file: &str) -> Result<&str, Failure> {
    file.split_once('.')
        .map(|(controller, _)| controller)
        .ok_or_else(|| Failure::CgroupInvalidFile(file.to_owned()))
}

fn available_on_v2(top: &Path, controller: &str) -> bool {
    fs::read_to_string(top.join("cgroup.controllers"))
        .is_ok_and(|list| list.split_whitespace().any(|available| available == controller))
}

fn read_line(file: &Path) -> Result<String, Failure> {
    let mut text =
        fs::read_to_string(file).map_err(|err| Failure::ReadToString(file.to_owned(), err))?;
    text.pop();
    Ok(text)
}

fn write_line(file: &Path, line: &str) -> Result<(), Failure> {
    fs::write(file, format!("{line}\n")).map_err(|err| Failure::Write(file.to_owned(), err))
}

/// The hierarchies of one version.
struct Mounts(Vec<(PathBuf, String)>);

impl Mounts {
    fn read(version: u8) -> Result<Self, Failure> {
        const FILE: &str = "/proc/mounts";
        let text = fs::read_to_string(FILE).map_err(|err| Failure::FileOpen(FILE.into(), err))?;
        let fstype = match version {
            1 => "cgroup",
            2 => "cgroup2",
            _ => "",
        };
        let found: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ');
                let (_, dir, kind, options) =
                    (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
                (kind == fstype).then(|| (PathBuf::from(dir), options.to_owned()))
            })
            .collect();
        if found.is_empty() {
            let why = "No hierarchy found for this cgroup version.";
            return Err(Failure::CgroupHierarchyMissing(why.to_owned()));
        }
        Ok(Self(found))
    }

    fn of_controller(&self, controller: &str) -> Result<&Path, Failure> {
        self.0
            .iter()
            .find(|(_, options)| options.split(',').any(|option| option == controller))
            .map(|(dir, _)| dir.as_path())
            .ok_or_else(|| Failure::CgroupControllerUnavailable(controller.to_owned()))
    }

    fn unified(&self) -> Result<&Path, Failure> {
        match &self.0[..] {
            [(dir, _), ..] => Ok(dir),
            [] => Err(Failure::CgroupHierarchyMissing("cgroupsv2 hierarchy missing".to_owned())),
        }
    }
}
