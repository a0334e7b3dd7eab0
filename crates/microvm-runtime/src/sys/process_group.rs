//! The process group of a process.

/// Returns the process group of the process `pid` (`getpgid(2)`); `None` if there is no such process.
///
/// The group is 0 if its number does not exist in this pid namespace: the leader is outside, or the process is a kernel
/// thread. rustix asserts that a group is not 0.
pub(crate) fn process_group(pid: u32) -> Option<u32> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0)?;
    // SAFETY: getpgid() takes a number and touches no memory.
    let group = unsafe { libc::getpgid(pid) };
    u32::try_from(group).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_groups_are_0() {
        assert_eq!(process_group(0), None);
        assert_eq!(process_group(u32::MAX), None);
        // kthreadd on a host; in a pid namespace any process, or none.
        let _ = process_group(2);
        let mut child = std::process::Command::new("/bin/sh");
        let mut child = std::os::unix::process::CommandExt::process_group(&mut child, 0)
            .args(["-c", "read _"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(process_group(child.id()), Some(child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(process_group(child.id()), None);
    }
}
