//! Values that a plan writes: [`Setting`].

use std::path::PathBuf;

use crate::{ByteSize, Controller, Limit};

/// Value that is written to a file of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Setting {
    /// Limit of the value.
    pub limit: Limit,
    /// Controller of the file.
    pub controller: Controller,
    /// Name of the file, such as `memory.max`.
    pub file: String,
    /// Value in the file's own format.
    pub value: String,
    /// Path of the file.
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    pub path: PathBuf,
}

/// `<path> = <value>`
impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.path.display(), self.value)
    }
}

/// A [`Setting`] without a path.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) limit: Limit,
    pub(crate) controller: Controller,
    pub(crate) file: String,
    pub(crate) value: String,
}

impl Write {
    /// Returns the setting of the file at `path`.
    pub(crate) fn at(self, path: PathBuf) -> Setting {
        let Self { limit, controller, file, value } = self;
        Setting { limit, controller, file, value, path }
    }
}

/// Returns the kernel's name of a page size (`hugetlb_cgroup.c`).
pub(crate) fn page_name(page: ByteSize) -> String {
    let bytes = page.as_bytes();
    match () {
        () if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        () if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        () => format!("{}KB", bytes >> 10),
    }
}
