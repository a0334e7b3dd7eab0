//! Resource use of a leaf: [`Stats`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dir::Dir;
use crate::leaf::Leaf;
use crate::leaf::keyed;
use crate::leaf::pressure::Pressure;
use crate::{ByteSize, CgroupVersion, Controller, Result};

/// Resource use of a leaf. A field is `None` if the version, the kernel or the leaf's controllers do not report it.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Memory in use, page cache included. v2 `memory.current`, v1 `memory.usage_in_bytes`.
    pub memory_current: Option<ByteSize>,
    /// Peak of the memory in use. v2 `memory.peak` (Linux 5.19), v1 `memory.max_usage_in_bytes`.
    pub memory_peak: Option<ByteSize>,
    /// Swap in use. v2 `memory.swap.current`.
    pub swap_current: Option<ByteSize>,
    /// Events at the memory limits.
    pub memory_events: Option<MemoryEvents>,
    /// CPU time used. v2 `cpu.stat`, v1 `cpuacct.usage`.
    pub cpu_usage: Option<Duration>,
    /// CPU time outside the kernel; for a VM, the guest's. v2 `cpu.stat`, v1 `cpuacct.usage_user`.
    pub cpu_user: Option<Duration>,
    /// CPU time in the kernel. v2 `cpu.stat`, v1 `cpuacct.usage_sys`.
    pub cpu_system: Option<Duration>,
    /// Throttling by the CPU quota. `cpu.stat`.
    pub throttling: Option<Throttling>,
    /// Tasks, threads counted. `pids.current`.
    pub pids_current: Option<u64>,
    /// Peak of the number of tasks. `pids.peak` (Linux 6.1).
    pub pids_peak: Option<u64>,
    /// Forks that failed at the limit. `pids.events`.
    pub pids_denied: Option<u64>,
    /// Per block device. v2 `io.stat`, v1 `blkio.throttle.io_service_bytes` and `.io_serviced`.
    pub io: Option<Vec<IoStats>>,
    /// Waiting for CPU time. v2 `cpu.pressure`.
    pub cpu_pressure: Option<Pressure>,
    /// Waiting for memory. v2 `memory.pressure`.
    pub memory_pressure: Option<Pressure>,
    /// Waiting for block devices. v2 `io.pressure`.
    pub io_pressure: Option<Pressure>,
}

/// Events at a leaf's memory limits. v2 `memory.events`, with the groups below; v1 `memory.oom_control` and
/// `memory.failcnt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryEvents {
    /// Times the leaf went over `memory_high`. v2 only.
    pub high: Option<u64>,
    /// Times the leaf was about to go over `memory_max`.
    pub max: u64,
    /// Times reclaim could not keep the leaf under `memory_max`. v2 only.
    pub oom: Option<u64>,
    /// Processes that the OOM killer killed.
    pub oom_kill: u64,
    /// Times the OOM killer killed the whole leaf (`oom_group`). v2 only, Linux 5.17.
    pub oom_group_kill: Option<u64>,
}

/// Throttling by a CPU quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Throttling {
    /// Periods in which the leaf could run.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time that tasks were kept from running, over all CPUs.
    pub throttled: Duration,
}

/// Input and output on one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct IoStats {
    /// The device's major number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// Bytes read.
    pub read: ByteSize,
    /// Bytes written.
    pub written: ByteSize,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

impl Leaf {
    /// Reads the resource use of the leaf.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the leaf was removed: the numbers are gone with it.
    pub fn stats(&self) -> Result<Stats> {
        self.refuse_removed()?;
        let mut stats = match self.version() {
            CgroupVersion::V1 => self.v1()?,
            CgroupVersion::V2 => self.v2()?,
        };
        if let Some(dir) = self.dir_of(Controller::Pids) {
            stats.pids_current = number(dir, "pids.current")?;
            stats.pids_peak = number(dir, "pids.peak")?;
            stats.pids_denied = flat(dir, "pids.events", "max")?;
        }
        Ok(stats)
    }

    /// Returns the number of the leaf's processes that the OOM killer has killed: 0 if the kernel does not count, which
    /// means that memory is not limited, and 0 for a leaf that was removed.
    ///
    /// # Errors
    /// [`Privilege`](crate::ErrorKind::Privilege) if the caller may not read the file.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(dir) = self.dir_of(Controller::Memory) else { return Ok(0) };
        let file = match self.version() {
            CgroupVersion::V1 => "memory.oom_control",
            CgroupVersion::V2 => "memory.events",
        };
        match flat(dir, file, "oom_kill") {
            Ok(kills) => Ok(kills.unwrap_or(0)),
            Err(error) if error.is_gone() => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn v2(&self) -> Result<Stats> {
        let Some(dir) = self.dir_of(Controller::Memory) else { return Ok(Stats::default()) };
        let mut stats = Stats {
            memory_current: size(dir, "memory.current")?,
            memory_peak: size(dir, "memory.peak")?,
            swap_current: size(dir, "memory.swap.current")?,
            cpu_pressure: pressure(dir, "cpu.pressure")?,
            memory_pressure: pressure(dir, "memory.pressure")?,
            io_pressure: pressure(dir, "io.pressure")?,
            ..Stats::default()
        };
        if let Some(text) = dir.read_if_exists("memory.events")? {
            stats.memory_events = Some(MemoryEvents {
                high: keyed::number(&text, "high"),
                max: keyed::number(&text, "max").unwrap_or(0),
                oom: keyed::number(&text, "oom"),
                oom_kill: keyed::number(&text, "oom_kill").unwrap_or(0),
                oom_group_kill: keyed::number(&text, "oom_group_kill"),
            });
        }
        if let Some(text) = dir.read_if_exists("cpu.stat")? {
            let micros = |key| keyed::number(&text, key).map(Duration::from_micros);
            stats.cpu_usage = micros("usage_usec");
            stats.cpu_user = micros("user_usec");
            stats.cpu_system = micros("system_usec");
            stats.throttling = throttling(&text, micros("throttled_usec"));
        }
        stats.io = dir.read_if_exists("io.stat")?.map(|text| io_stat(&text));
        Ok(stats)
    }

    fn v1(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        if let Some(dir) = self.dir_of(Controller::Memory) {
            stats.memory_current = size(dir, "memory.usage_in_bytes")?;
            stats.memory_peak = size(dir, "memory.max_usage_in_bytes")?;
            if let Some(text) = dir.read_if_exists("memory.oom_control")? {
                stats.memory_events = Some(MemoryEvents {
                    max: number(dir, "memory.failcnt")?.unwrap_or(0),
                    oom_kill: keyed::number(&text, "oom_kill").unwrap_or(0),
                    ..MemoryEvents::default()
                });
            }
        }
        if let Some(dir) = self.dir_of(Controller::Cpuacct) {
            let nanos = |file| Ok(number(dir, file)?.map(Duration::from_nanos));
            stats.cpu_usage = nanos("cpuacct.usage")?;
            stats.cpu_user = nanos("cpuacct.usage_user")?;
            stats.cpu_system = nanos("cpuacct.usage_sys")?;
        }
        let cpu = self.dir_of(Controller::Cpu);
        if let Some(text) = cpu.map(|dir| dir.read_if_exists("cpu.stat")).transpose()?.flatten() {
            let throttled = keyed::number(&text, "throttled_time").map(Duration::from_nanos);
            stats.throttling = throttling(&text, throttled);
        }
        if let Some(dir) = self.dir_of(Controller::Io) {
            let bytes = dir.read_if_exists("blkio.throttle.io_service_bytes")?;
            let operations = dir.read_if_exists("blkio.throttle.io_serviced")?;
            stats.io = bytes.zip(operations).map(|(bytes, operations)| blkio(&bytes, &operations));
        }
        Ok(stats)
    }
}

fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    Ok(dir.read_if_exists(file)?.and_then(|text| keyed::parse(&text)))
}

fn size(dir: &Dir, file: &str) -> Result<Option<ByteSize>> {
    Ok(number(dir, file)?.map(ByteSize::bytes))
}

fn flat(dir: &Dir, file: &str, key: &str) -> Result<Option<u64>> {
    Ok(dir.read_if_exists(file)?.and_then(|text| keyed::number(&text, key)))
}

fn pressure(dir: &Dir, file: &str) -> Result<Option<Pressure>> {
    Ok(dir.read_if_exists(file)?.and_then(|text| Pressure::parse(&text)))
}

fn throttling(text: &[u8], throttled: Option<Duration>) -> Option<Throttling> {
    Some(Throttling {
        periods: keyed::number(text, "nr_periods")?,
        throttled_periods: keyed::number(text, "nr_throttled")?,
        throttled: throttled?,
    })
}

/// Parses `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`, a line per device.
pub(super) fn io_stat(text: &[u8]) -> Vec<IoStats> {
    let device = |line: &[u8]| {
        let (major, minor) = keyed::device(keyed::words(line).next()?)?;
        let number = |key| keyed::field(line, key).unwrap_or(0);
        Some(IoStats {
            major,
            minor,
            read: ByteSize::bytes(number("rbytes")),
            written: ByteSize::bytes(number("wbytes")),
            reads: number("rios"),
            writes: number("wios"),
        })
    };
    keyed::lines(text).filter_map(device).collect()
}

/// Parses `8:0 Read 1`, `8:0 Write 2`, … of a device, and a `Total`.
pub(super) fn blkio(bytes: &[u8], operations: &[u8]) -> Vec<IoStats> {
    let mut all: BTreeMap<(u32, u32), IoStats> = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in keyed::lines(text) {
            let mut words = keyed::words(line);
            let Some(device) = words.next().and_then(keyed::device) else { continue };
            let (kind, value) = (words.next(), words.next().and_then(keyed::parse));
            let (Some(kind), Some(value)) = (kind, value) else { continue };
            let (major, minor) = device;
            let stats = all.entry(device).or_insert(IoStats { major, minor, ..IoStats::default() });
            match (is_bytes, kind) {
                (true, b"Read") => stats.read = ByteSize::bytes(value),
                (true, b"Write") => stats.written = ByteSize::bytes(value),
                (false, b"Read") => stats.reads = value,
                (false, b"Write") => stats.writes = value,
                _ => {}
            }
        }
    }
    all.into_values().collect()
}

/// Tests on fake trees; each names a twin on a real hierarchy in `tests/cgroup`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, host};
    use crate::{ErrorKind, LeafPlan, Limits};

    fn leaf(fakes: &[&Fake], version: CgroupVersion) -> Leaf {
        // Limits of all controllers, so that v1 has a leaf in each hierarchy.
        let limits = Limits::new().cpus(1.0).io(crate::IoLimit::new(8, 0).read_iops(1));
        LeafPlan::new(&host(fakes), version, "a", "leaf", &limits).unwrap().create().unwrap()
    }

    /// Twin: `readings::stats_measure_the_members` and `io::bandwidth_is_limited`.
    #[test]
    fn v2_files_have_units() {
        let fake = Fake::new(CgroupVersion::V2, "cpu,io,memory,pids", &["cpu.max max", "io.max "]);
        let leaf = leaf(&[&fake], CgroupVersion::V2);
        assert_eq!(leaf.stats().unwrap(), Stats::default());
        assert_eq!(leaf.oom_kills().unwrap(), 0);

        for (file, text) in [
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.swap.current", "0\n"),
            ("memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n"),
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 7\nnr_throttled 6\nthrottled_usec 5\n",
            ),
            ("cpu.pressure", "some avg10=0.50 avg60=0.00 avg300=0.00 total=9\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1\n"),
            ("pids.current", "3\n"),
            ("pids.peak", "9\n"),
            ("pids.events", "max 2\n"),
        ] {
            fake.write(&format!("a/leaf/{file}"), text);
        }
        let stats = leaf.stats().unwrap();
        assert_eq!(stats.memory_current, Some(ByteSize::kib(4)));
        assert_eq!(stats.memory_peak, Some(ByteSize::kib(8)));
        assert_eq!(stats.swap_current, Some(ByteSize::bytes(0)));
        let events = stats.memory_events.unwrap();
        assert_eq!((events.high, events.max, events.oom), (Some(1), 2, Some(3)));
        assert_eq!((events.oom_kill, events.oom_group_kill), (4, Some(5)));
        assert_eq!(leaf.oom_kills().unwrap(), 4);
        assert_eq!(stats.cpu_usage, Some(Duration::from_micros(30)));
        assert_eq!(stats.cpu_user, Some(Duration::from_micros(20)));
        assert_eq!(stats.cpu_system, Some(Duration::from_micros(10)));
        let throttling = stats.throttling.unwrap();
        assert_eq!((throttling.periods, throttling.throttled_periods), (7, 6));
        assert_eq!(throttling.throttled, Duration::from_micros(5));
        assert_eq!(stats.cpu_pressure.unwrap().some.total, Duration::from_micros(9));
        assert_eq!(stats.memory_pressure, None);
        let sda = IoStats {
            major: 8,
            minor: 0,
            read: ByteSize::bytes(1),
            written: ByteSize::bytes(2),
            reads: 3,
            writes: 4,
        };
        let idle = IoStats { major: 253, minor: 1, ..IoStats::default() };
        assert_eq!(stats.io.unwrap(), [sda, idle]);
        assert_eq!(
            (stats.pids_current, stats.pids_peak, stats.pids_denied),
            (Some(3), Some(9), Some(2))
        );
    }

    /// Twin: `readings::stats_measure_the_members` and `io::bandwidth_is_limited`.
    #[test]
    fn v1_files_have_units() {
        let memory = Fake::new(CgroupVersion::V1, "memory", &[]);
        let cpu = Fake::new(
            CgroupVersion::V1,
            "cpu,cpuacct",
            &["cpu.cfs_quota_us -1", "cpu.cfs_period_us 1"],
        );
        let io = Fake::new(CgroupVersion::V1, "blkio", &["blkio.throttle.read_iops_device "]);
        let leaf = leaf(&[&memory, &cpu, &io], CgroupVersion::V1);
        memory.write("a/leaf/memory.usage_in_bytes", "4096\n");
        memory.write("a/leaf/memory.max_usage_in_bytes", "8192\n");
        memory.write("a/leaf/memory.failcnt", "12\n");
        memory.write("a/leaf/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        cpu.write("a/leaf/cpuacct.usage", "1500\n");
        cpu.write("a/leaf/cpuacct.usage_user", "1000\n");
        cpu.write("a/leaf/cpuacct.usage_sys", "500\n");
        cpu.write("a/leaf/cpu.stat", "nr_periods 3\nnr_throttled 1\nthrottled_time 77\n");
        io.write(
            "a/leaf/blkio.throttle.io_service_bytes",
            "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
        );
        io.write(
            "a/leaf/blkio.throttle.io_serviced",
            "8:0 Read 3\n8:0 Write 4\n8:16 Write 5\nTotal 12\n",
        );
        let stats = leaf.stats().unwrap();
        assert_eq!(stats.memory_current, Some(ByteSize::kib(4)));
        assert_eq!(stats.memory_peak, Some(ByteSize::kib(8)));
        let events = stats.memory_events.unwrap();
        assert_eq!((events.max, events.oom_kill, events.oom), (12, 2, None));
        assert_eq!(leaf.oom_kills().unwrap(), 2);
        assert_eq!(stats.cpu_usage, Some(Duration::from_nanos(1500)));
        assert_eq!(stats.cpu_user, Some(Duration::from_nanos(1000)));
        assert_eq!(stats.cpu_system, Some(Duration::from_nanos(500)));
        assert_eq!(stats.throttling.unwrap().throttled, Duration::from_nanos(77));
        let io = stats.io.unwrap();
        assert_eq!((io[0].read, io[0].written), (ByteSize::bytes(1), ByteSize::bytes(2)));
        assert_eq!((io[0].reads, io[0].writes, io[1].minor, io[1].writes), (3, 4, 16, 5));
        assert_eq!(stats.pids_current, None);
    }

    /// Twin: `lifecycle::removed_leaves_are_empty`.
    #[test]
    fn a_removed_leaf_has_no_stats() {
        let fake = Fake::new(CgroupVersion::V2, "cpu,io", &["cpu.max max", "io.max "]);
        let held = leaf(&[&fake], CgroupVersion::V2);
        held.id().open(&host(&[&fake])).unwrap().unwrap().remove().unwrap();
        assert_eq!(held.stats().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(held.oom_kills().unwrap(), 0);
        assert_eq!(held.effective().unwrap_err().kind(), ErrorKind::NotFound);
    }
}
