//! The log, and the guest's serial port.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt as _;

use crate::args::Args;
use crate::guest;

/// `O_NONBLOCK` of Linux on every architecture that Firecracker runs on.
const O_NONBLOCK: i32 = 0o4000;

/// The log: stdout, or the file or FIFO of `--log-path`. The serial port is stdout in any case.
pub(crate) struct Console {
    id: String,
    log: Option<File>,
    /// Level and origin of each line, as asked for.
    origin: String,
    /// Only the API's lines are logged.
    api_only: bool,
}

impl Console {
    pub(crate) fn plain(id: &str) -> Self {
        Self { id: id.to_owned(), log: None, origin: String::new(), api_only: false }
    }

    /// Opens the log as Firecracker does: for reading and writing, non-blocking.
    pub(crate) fn open(args: &Args) -> io::Result<Self> {
        let open = |path: &String| {
            let mut options = OpenOptions::new();
            options.create(true).read(true).write(true).custom_flags(O_NONBLOCK).open(path)
        };
        let level = if args.show_level { ":INFO" } else { "" };
        let file = if args.show_log_origin { ":src/stand_in.rs:1" } else { "" };
        Ok(Self {
            id: args.id.clone(),
            log: args.log_path.as_ref().map(open).transpose()?,
            origin: format!("{level}{file}"),
            api_only: args.module.as_deref() == Some("firecracker::api_server"),
        })
    }

    /// A line of the log. Its clock stands still.
    pub(crate) fn log(&self, message: &str) {
        if self.api_only && !message.starts_with("The API server received") {
            return;
        }
        let (id, origin) = (&self.id, &self.origin);
        let line = format!("1970-01-01T00:00:00.000000000 [{id}:main{origin}] {message}\n");
        match &self.log {
            Some(file) => print(&mut &*file, &line),
            None => self.raw(&line),
        }
    }

    /// Bytes of the guest's serial port.
    pub(crate) fn raw(&self, text: &str) {
        print(&mut io::stdout().lock(), text);
    }
}

/// Prints text; drops the part that does not fit into a full FIFO. Like Firecracker, hangs on a pipe without a reader.
fn print(out: &mut impl Write, text: &str) {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => guest::sleep(),
        _ => {}
    }
}
