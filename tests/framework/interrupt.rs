//! SIGINT, SIGTERM and SIGHUP as errors, so that an interrupted command removes its VMs, control groups and files.

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

fn signals() -> SigSet {
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

/// Blocks the signals in this thread and in threads that this thread starts (sigprocmask(2)). Programs that the standard
/// library starts get an empty mask.
///
/// # Errors
/// If the kernel refuses.
pub fn hold() -> Result<()> {
    signals().thread_block().context("block signals")
}

/// Reads a signal that has arrived since [`hold`] (signalfd(2)).
///
/// # Errors
/// If one of the signals has arrived; the error names the signal.
pub fn check() -> Result<()> {
    let arrived = SignalFd::with_flags(&signals(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    match arrived.read_signal()? {
        Some(info) => bail!("{}", Signal::try_from(info.ssi_signo.cast_signed())?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_signal_is_an_error() {
        hold().unwrap();
        check().unwrap();
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        assert_eq!(check().unwrap_err().to_string(), "SIGTERM");
        check().unwrap();
    }
}
