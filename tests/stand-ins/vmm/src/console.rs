//! Where it logs, and where the guest's serial port goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use crate::args::Args;
use crate::guest;

/// The log: stdout, or the file of `--log-path`. The serial port is stdout in any case.
pub(crate) struct Console {
    id: String,
    log: Option<File>,
}

impl Console {
    pub(crate) fn plain(id: &str) -> Self {
        Self { id: id.to_owned(), log: None }
    }

    pub(crate) fn open(args: &Args) -> io::Result<Self> {
        let log = args.log_path.as_ref();
        let log =
            log.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { id: args.id.clone(), log })
    }

    /// A line of the log. Its clock stands still.
    pub(crate) fn log(&self, message: &str) {
        let line = format!("1970-01-01T00:00:00.000000000 [{}:main] {message}\n", self.id);
        match &self.log {
            Some(file) => stop_unless((&*file).write_all(line.as_bytes())),
            None => self.raw(&line),
        }
    }

    /// Bytes of the guest's serial port.
    pub(crate) fn raw(&self, text: &str) {
        let mut out = io::stdout().lock();
        stop_unless(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
}

/// Firecracker stops for ever when nobody reads what it prints any more.
fn stop_unless(written: io::Result<()>) {
    if written.is_err() {
        guest::sleep();
    }
}
