//! The features of this machine.

use std::fs::OpenOptions;

use crate::sys;

/// Checks that KVM works: opens `/dev/kvm`, compares the API version with 12 and makes an empty virtual machine.
///
/// # Errors
/// The reason, in words that complete a sentence.
pub fn kvm_works() -> Result<(), String> {
    let kvm = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|err| format!("/dev/kvm does not open: {err}"))?;
    match sys::kvm_api_version(&kvm) {
        Ok(12) => {}
        Ok(other) => return Err(format!("/dev/kvm has API version {other}")),
        Err(err) => return Err(format!("/dev/kvm does not answer: {err}")),
    }
    sys::kvm_create_vm(&kvm)
        .map(drop)
        .map_err(|err| format!("/dev/kvm makes no virtual machine: {err}"))
}

/// Returns the memory that this machine can give without swapping, in bytes (`MemAvailable` of `/proc/meminfo`).
///
/// # Panics
/// If the kernel does not report that.
#[must_use]
pub fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let Some(kib) = kib else { panic!("/proc/meminfo has no MemAvailable: {text}") };
    kib << 10
}

/// Returns true if the kernel reports the exit status of a process that is not our child (`PIDFD_GET_INFO` with
/// `PIDFD_INFO_EXIT`, Linux 6.15).
#[must_use]
pub fn kernel_tells_exit_of_strangers() -> bool {
    kernel_at_least(6, 15)
}

/// Returns true if the running kernel is `major.minor` or later (uname(2)).
#[must_use]
pub fn kernel_at_least(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|digits| digits.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        assert!(kernel_at_least(2, 6));
        assert!(!kernel_at_least(1_000, 0));
    }
}
