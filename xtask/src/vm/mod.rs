//! The root tests in throw-away machines, one for each cgroup layout.

use std::fmt;

use anyhow::{Result, bail};

use crate::counts::{Selection, Summary};

/// How the machine's controllers are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    V1,
    V2,
    Hybrid,
}

impl Layout {
    pub(crate) const ALL: [Self; 3] = [Self::V1, Self::V2, Self::Hybrid];

    /// The layouts that `--vm` names.
    pub(crate) fn parse(name: &str) -> Result<Vec<Self>> {
        if name == "all" {
            return Ok(Self::ALL.to_vec());
        }
        match Self::ALL.into_iter().find(|layout| layout.to_string() == name) {
            Some(layout) => Ok(vec![layout]),
            None => bail!("--vm takes v1, v2, hybrid or all, not `{name}`"),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        })
    }
}

/// Boots a machine of each layout and runs the selected root tests in it.
pub(crate) fn run(layouts: &[Layout], _selection: &Selection) -> Result<Summary> {
    bail!("no machine of layout {layouts:?} can be made yet");
}
