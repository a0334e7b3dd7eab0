//! Limits of one block device.

use crate::{ByteSize, Error, Limit, Result};

/// Limits of one block device: bytes and operations per second. A rate that is not set is not limited.
///
/// ```
/// # use jail_cgroup::{ByteSize, IoLimit, Limits};
/// let sda = IoLimit::new(8, 0).write_bps(ByteSize::mib(10)).read_iops(500);
/// Limits::new().io(sda).check()?;
/// # Ok::<(), jail_cgroup::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub struct IoLimit {
    major: u32,
    minor: u32,
    read_bps: Option<ByteSize>,
    write_bps: Option<ByteSize>,
    read_iops: Option<u64>,
    write_iops: Option<u64>,
}

impl IoLimit {
    /// Names the device by major and minor number: a whole disk, since the kernel refuses partitions.
    pub fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, read_bps: None, write_bps: None, read_iops: None, write_iops: None }
    }

    /// Limits the bytes read per second.
    pub fn read_bps(mut self, bytes: ByteSize) -> Self {
        self.read_bps = Some(bytes);
        self
    }

    /// Limits the bytes written per second.
    pub fn write_bps(mut self, bytes: ByteSize) -> Self {
        self.write_bps = Some(bytes);
        self
    }

    /// Limits the reads per second.
    pub fn read_iops(mut self, operations: u64) -> Self {
        self.read_iops = Some(operations);
        self
    }

    /// Limits the writes per second.
    pub fn write_iops(mut self, operations: u64) -> Self {
        self.write_iops = Some(operations);
        self
    }

    pub(crate) fn device(&self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// Returns the device as the kernel writes it, `8:0`.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.major, self.minor)
    }

    /// Returns the limits that are set: the key of v2, the file of v1, the value.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [
            ("rbps", "blkio.throttle.read_bps_device", self.read_bps.map(ByteSize::as_bytes)),
            ("wbps", "blkio.throttle.write_bps_device", self.write_bps.map(ByteSize::as_bytes)),
            ("riops", "blkio.throttle.read_iops_device", self.read_iops),
            ("wiops", "blkio.throttle.write_iops_device", self.write_iops),
        ]
        .into_iter()
        .filter_map(|(key, file, value)| Some((key, file, value?)))
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |reason| Err(Error::invalid(Limit::Io, format!("of {} {reason}", self.name())));
        let mut values = self.values().peekable();
        if values.peek().is_none() {
            return wrong("has no rate");
        }
        if values.any(|(_, _, value)| value == 0) {
            return wrong("has a rate of 0, which stops all of them");
        }
        // The kernel stores operations in 32 bits; v1 drops higher bits silently.
        let most = self.read_iops.max(self.write_iops);
        if most.is_some_and(|operations| u32::try_from(operations).is_err()) {
            return wrong("has more operations per second than the kernel can count (4294967295)");
        }
        Ok(())
    }
}
