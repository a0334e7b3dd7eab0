//! The memory nodes of this machine.

use std::collections::BTreeMap;

use crate::dir::Dir;
use crate::sys::Errno;
use crate::{CpuSet, Result};

const NODES: &str = "/sys/devices/system/node";
const CPUS: &str = "/sys/devices/system/cpu";

/// Reads the CPUs of each memory node. A kernel without NUMA has one node with all CPUs.
pub(crate) fn read() -> Result<BTreeMap<u32, CpuSet>> {
    let dir = match Dir::open_system(NODES) {
        Ok(dir) => dir,
        Err(error) if error.errno() == Some(Errno::NOENT) => {
            return Ok([(0, list(&Dir::open_system(CPUS)?, "online")?)].into());
        }
        Err(error) => return Err(error),
    };
    let mut nodes = BTreeMap::new();
    for name in dir.subdirs()? {
        let number = name.to_str().and_then(|name| name.strip_prefix("node"));
        if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
            nodes.insert(number, list(&dir.open(&name)?, "cpulist")?);
        }
    }
    Ok(nodes)
}

fn list(dir: &Dir, file: &str) -> Result<CpuSet> {
    String::from_utf8_lossy(&dir.read(file)?).parse()
}
