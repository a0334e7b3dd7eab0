//! Pipes, and the numbers of descriptors.

use std::ffi::c_int;
use std::fs::File;
use std::io;

use rustix::pipe::{PipeFlags, pipe_with};

/// Makes a pipe, close-on-exec (`pipe2`), and returns the end to read and the end to write.
pub(crate) fn pipe() -> io::Result<(File, File)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}

/// Returns true if no descriptor of this process has this number (`fcntl(F_GETFD)`).
pub(crate) fn is_free(number: u64) -> bool {
    let Ok(number) = c_int::try_from(number) else { return true };
    // SAFETY: the call reads a flag of the descriptor, if there is one, and changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn open_numbers_are_not_free() {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let open = rustix::fs::open("/", flags, rustix::fs::Mode::empty()).unwrap();
        assert!(!is_free(open.as_raw_fd().try_into().unwrap()));
        assert!(is_free(i32::MAX.try_into().unwrap()));
        assert!(is_free(u64::MAX));
    }
}
