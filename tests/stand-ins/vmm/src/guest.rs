//! The kernels of `tests/guest`, recognised by a text in the file, and imitated.

use std::thread::park;

const LINE: &str = "microvm-runtime guest: hello from ring 0\n";

/// The behaviour of a started kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guest {
    /// Prints a line and resets the machine.
    Resets,
    /// Prints a line and waits for Ctrl+Alt+Del.
    Idle,
    /// Prints a line and ignores Ctrl+Alt+Del.
    Deaf,
    /// Any other kernel: says nothing that we would know of, hears nothing.
    Unknown,
}

impl Guest {
    /// Looks into a kernel image; an error where Firecracker's loader would have one.
    pub(crate) fn recognise(image: &[u8]) -> Result<Self, String> {
        const ELF_HEADER: usize = 64;
        const REFUSED: &str = "System configuration error: Cannot load kernel due to invalid memory configuration or \
                               invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader:";
        if image.len() < ELF_HEADER {
            return Err(format!("{REFUSED} Unable to read elf header"));
        }
        if !image.starts_with(b"\x7fELF") {
            return Err(format!("{REFUSED} Invalid Elf magic number"));
        }
        let says = |text: &str| image.windows(text.len()).any(|window| window == text.as_bytes());
        Ok(match (says(LINE), says("(idle)"), says("(deaf)")) {
            (true, false, false) => Self::Resets,
            (true, true, _) => Self::Idle,
            (true, _, true) => Self::Deaf,
            (false, ..) => Self::Unknown,
        })
    }

    /// Returns the kernel's name in a snapshot.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Idle => "idle",
            Self::Deaf => "deaf",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the kernel with this name in a snapshot.
    pub(crate) fn of_name(name: &str) -> Self {
        let all = [Self::Resets, Self::Idle, Self::Deaf];
        all.into_iter().find(|guest| guest.name() == name).unwrap_or(Self::Unknown)
    }

    /// Returns the kernel's first line.
    pub(crate) fn line(self) -> &'static str {
        if self == Self::Unknown { "" } else { LINE }
    }
}

/// Sleeps for ever.
pub(crate) fn sleep() -> ! {
    loop {
        park();
    }
}
