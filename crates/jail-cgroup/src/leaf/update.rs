//! Changing the limits of a leaf with processes.

use std::path::PathBuf;

use crate::leaf::Leaf;
use crate::plan::{Setting, planned_writes};
use crate::{CgroupVersion, CpuSet, Error, ErrorKind, Host, Limit, Limits, Result};

/// A limit that [`Leaf::update`] changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LimitChange {
    /// Name of the limit.
    pub limit: Limit,
    /// File that was written.
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    pub path: PathBuf,
    /// Value before the change, as the kernel reported; for `io.max` and its like, the line of the device.
    pub old: String,
    /// Value after the change, as the kernel reports.
    pub new: String,
}

impl Leaf {
    /// Writes `limits` to the leaf's files, reads each back, and returns the old values. Limits that `limits` leaves out
    /// stay.
    ///
    /// If the kernel refuses a value, or keeps another one, the values that were written before are restored. A memory
    /// limit below the present use makes the kernel reclaim memory, and then kill (v2) or refuse (v1).
    ///
    /// # Errors
    /// - [`InvalidInput`](ErrorKind::InvalidInput) for a value that is invalid on every host.
    /// - [`Unsupported`](ErrorKind::Unsupported), with the limit, if the version, the host or the leaf has no file for
    ///   a limit: a leaf has the controllers of the limits that it was made with.
    /// - [`Refused`](ErrorKind::Refused), with the limit. The hint names values that could not be restored.
    /// - [`Foreign`](ErrorKind::Foreign) for a leaf of another owner.
    ///
    /// # Privileges
    /// Write access to the leaf's files: root, or the user to whom the leaf is delegated.
    pub fn update(&self, host: &Host, limits: &Limits) -> Result<Vec<LimitChange>> {
        self.owned_groups("change the limits")?;
        self.refuse_removed()?;
        let mut settings = Vec::new();
        for write in planned_writes(host, self.version(), limits)? {
            let Some(dir) = self.dir_of(write.controller) else {
                return Err(missing(write.limit, &write.file));
            };
            let path = dir.path().join(&write.file);
            settings.push(write.at(path));
        }
        let mut changes = Vec::new();
        for setting in &settings {
            let old = self.value_of(setting)?;
            changes.push(LimitChange {
                limit: setting.limit,
                path: setting.path.clone(),
                new: old.clone(),
                old,
            });
        }
        for index in order(&settings, &changes) {
            let done = self.write(&settings[index]).and_then(|()| self.kept(&settings[index]));
            match done {
                Ok(new) => changes[index].new = new,
                Err(error) => return Err(self.restore(&settings, &changes, error)),
            }
        }
        Ok(changes)
    }

    /// Returns the value of a setting's file, as the kernel reports.
    fn value_of(&self, setting: &Setting) -> Result<String> {
        let text = match self.dir_of(setting.controller) {
            Some(dir) => dir.read_if_exists(&setting.file)?,
            None => None,
        };
        let text = text.ok_or_else(|| missing(setting.limit, &setting.file))?;
        let text = String::from_utf8_lossy(&text);
        let Some(device) = device(setting) else { return Ok(text.trim().to_owned()) };
        let line = text.lines().find(|line| line.split(' ').next() == Some(device));
        Ok(match (line, self.version()) {
            (Some(line), _) => line.trim().to_owned(),
            (None, CgroupVersion::V1) => format!("{device} 0"),
            (None, CgroupVersion::V2) => {
                format!("{device} rbps=max wbps=max riops=max wiops=max")
            }
        })
    }

    /// Reads a written value back.
    fn kept(&self, setting: &Setting) -> Result<String> {
        let value = self.value_of(setting)?;
        if is_kept(&setting.value, &value) {
            return Ok(value);
        }
        Err(Error::new(ErrorKind::Refused, "write")
            .at(&setting.path)
            .of_limit(setting.limit)
            .because(format!("of {} was accepted, but {value} is in effect", setting.value)))
    }

    /// Writes the old values back, the last first.
    fn restore(&self, settings: &[Setting], changes: &[LimitChange], error: Error) -> Error {
        let mut error = error;
        let mut pairs: Vec<_> = settings.iter().zip(changes).collect();
        // The other way round for values that depend on each other.
        pairs.reverse();
        let write = |(setting, change): &(&Setting, &LimitChange)| {
            let Some(dir) = self.dir_of(setting.controller) else { return Ok(()) };
            // A write of no bytes changes nothing.
            let old = if change.old.is_empty() { "\n" } else { &change.old };
            if self.value_of(setting)? == change.old {
                Ok(())
            } else {
                dir.write(&setting.file, old)
            }
        };
        // Twice, because one old value may be refused until another is back.
        pairs.retain(|pair| write(pair).is_err());
        for pair in &pairs {
            if let Err(failed) = write(pair) {
                let (setting, change) = pair;
                error = error.hinted(format!(
                    "Write the old value {:?} to {}: {failed}.",
                    change.old,
                    setting.path.display()
                ));
            }
        }
        error
    }
}

/// Returns the device of a limit per device.
fn device(setting: &Setting) -> Option<&str> {
    setting.value.split(' ').next().filter(|_| setting.limit == Limit::Io)
}

/// Returns the order of the writes: v1 refuses a memory limit above the limit of memory and swap, so that the higher of
/// two growing limits comes first.
fn order(settings: &[Setting], changes: &[LimitChange]) -> Vec<usize> {
    let mut order: Vec<_> = (0..settings.len()).collect();
    let at = |file: &str| settings.iter().position(|setting| setting.file == file);
    let number = |text: &str| text.parse::<u64>().ok();
    if let (Some(memory), Some(sum)) =
        (at("memory.limit_in_bytes"), at("memory.memsw.limit_in_bytes"))
    {
        if number(&settings[memory].value) > number(&changes[memory].old) {
            order.swap(memory, sum);
        }
    }
    order
}

/// Returns true if the kernel reports the value that was written, or a number of bytes that it rounded.
fn is_kept(asked: &str, value: &str) -> bool {
    /// The largest unit in which a limit of bytes is counted: a huge page.
    const UNIT: u64 = 2 << 20;
    let number = |text: &str| text.parse::<u64>().ok();
    let set = |text: &str| text.parse::<CpuSet>().ok();
    if let (Some(asked), Some(value)) = (number(asked), number(value)) {
        return asked == value || (asked > UNIT && asked.abs_diff(value) < UNIT);
    }
    let mut words = asked.split(' ');
    words.all(|word| value.split(' ').any(|other| other == word))
        || (set(asked).is_some() && set(asked) == set(value))
}

fn missing(limit: Limit, file: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "change the limits")
        .of_limit(limit)
        .because(format!("needs {file}, which the leaf does not have"))
        .hinted("Give the leaf a limit of this kind when it is made.")
}

/// Tests on fake trees; each names a twin on a real hierarchy in `tests/cgroup`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, host};
    use crate::{ByteSize, LeafPlan};

    fn leaf(fake: &Fake, version: CgroupVersion, limits: &Limits) -> Leaf {
        LeafPlan::new(&host(&[fake]), version, "a", "leaf", limits).unwrap().create().unwrap()
    }

    /// Twin: `update::limits_change_while_processes_run`.
    #[test]
    fn old_values_are_returned() {
        let fake = Fake::new(
            CgroupVersion::V2,
            "memory,cpu,pids",
            &["memory.max max", "cpu.max max 100000", "pids.max max"],
        );
        let leaf = leaf(&fake, CgroupVersion::V2, &Limits::new().cpus(0.5));
        let changes = leaf
            .update(&host(&[&fake]), &Limits::new().memory_max(ByteSize::mib(8)).cpus(2.0))
            .unwrap();
        let values: Vec<_> = changes
            .iter()
            .map(|change| (change.limit, change.old.as_str(), change.new.as_str()))
            .collect();
        assert_eq!(
            values,
            [(Limit::MemoryMax, "max", "8388608"), (Limit::Cpus, "50000 100000", "200000 100000"),]
        );
        assert_eq!(fake.read("a/leaf/pids.max"), "max");
    }

    /// Twin: `update::a_refused_limit_changes_nothing`.
    #[test]
    fn a_missing_file_restores_the_rest() {
        let fake =
            Fake::new(CgroupVersion::V2, "memory,cpu,pids", &["memory.max max", "pids.max 9"]);
        let leaf = leaf(&fake, CgroupVersion::V2, &Limits::new());
        let error = leaf
            .update(&host(&[&fake]), &Limits::new().memory_max(ByteSize::mib(8)).cpus(2.0))
            .unwrap_err();
        assert_eq!((error.kind(), error.limit()), (ErrorKind::Unsupported, Some(Limit::Cpus)));
        assert_eq!(fake.read("a/leaf/memory.max"), "max");
    }

    /// Twin: `update::limits_change_while_processes_run`.
    #[test]
    fn kept_values_are_recognised() {
        for (asked, value) in [
            ("7", "7"),
            ("50000 100000", "50000 100000"),
            ("8:0 rbps=5", "8:0 rbps=5 wbps=max riops=max wiops=max"),
            ("0,1", "0-1"),
            ("67108869", "67108864"),
        ] {
            assert!(is_kept(asked, value), "{asked} {value}");
        }
        for (asked, value) in
            [("7", "8"), ("50000 100000", "max 100000"), ("0-1", "0"), ("7", "max")]
        {
            assert!(!is_kept(asked, value), "{asked} {value}");
        }
    }
}
