//! The FIFOs of a jail: made while it is staged, opened by its launcher, opened again by whoever adopts its VM.

use std::io;
use std::os::fd::OwnedFd;

use jail_cmd::in_jail;
use jail_fs::{Access, Dir, Name, Owner, StagedDir, StagedTree, make_fifo, open_fifo};

use super::console::{self, Console, Sink, TAIL, Written};
use super::death::Output;
use super::reader::StreamReader;
use super::tail::Tail;
use crate::error::{Error, ErrorKind, Result};

/// The FIFOs beside `root/`, root's: the VMM's stdout and stderr.
const STDOUT: &str = "console";
const STDERR: &str = "stderr";

/// Makes the FIFOs of a jail that is staged. The log is the VM's, as Firecracker opens it by name.
pub(crate) fn stage(tree: &StagedTree, root: &StagedDir<'_>, vm: Owner) -> Result<()> {
    let failed = |error| Error::files("make the VM's streams", error);
    for name in [STDOUT, STDERR] {
        make_fifo(tree.top(), &Name::try_from(name)?, Owner::caller(), 0o600).map_err(failed)?;
    }
    make_fifo(root, &Name::try_from(in_jail::LOG)?, vm, 0o600).map_err(failed)
}

/// The streams of a VM that this process reads.
#[derive(Debug)]
pub(crate) struct Streams {
    /// `None` if the console goes elsewhere.
    pub(crate) console: Option<StreamReader>,
    pub(crate) log: StreamReader,
}

/// The streams of a VM that is to be started.
pub(super) struct StreamEnds {
    /// The VMM's.
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) ours: ParentEnds,
}

/// The launcher's ends of the streams.
pub(super) struct ParentEnds {
    pub(super) streams: Streams,
    written: Option<Written>,
}

/// Opens the streams of the jail at `dir`, in which nothing has run yet.
///
/// The VMM's ends are open for reading and writing, and non-blocking: the VMM gets neither SIGPIPE nor a wait from a
/// stream that nobody reads.
pub(super) fn open(dir: &Dir, root: &Dir, console: &Console) -> Result<StreamEnds> {
    let fifo = |name: &str, access| {
        open_fifo(dir, name, access).map_err(|error| Error::files("open the VM's streams", error))
    };
    let (stdout, reader, written) = match &console.0 {
        Sink::Null => (console::null()?, None, None),
        Sink::File(path) => {
            let (theirs, written) = console::open_file(path)?;
            (theirs, None, Some(written))
        }
        Sink::Tail(keep) => {
            let theirs = fifo(STDOUT, Access::ReadWrite)?;
            let ours = fifo(STDOUT, Access::ReadOnly)?;
            (theirs, Some(read(Tail::of_bytes(ours, *keep))?), None)
        }
    };
    let stderr = fifo(STDERR, Access::ReadWrite)?;
    let log = open_fifo(root, in_jail::LOG, Access::ReadOnly)
        .map_err(|error| Error::files("open the VM's log", error))?;
    let log = read(Tail::of_lines(vec![fifo(STDERR, Access::ReadOnly)?, log], TAIL))?;
    Ok(StreamEnds {
        stdout,
        stderr,
        ours: ParentEnds { streams: Streams { console: reader, log }, written },
    })
}

impl Streams {
    /// Opens the streams of a VM that runs in the jail at `dir`.
    ///
    /// The VM owns its log, and may have put anything in its place: what is no FIFO is not read.
    pub(crate) fn of_running(dir: &Dir, root: &Dir, console: &Console) -> Result<Self> {
        let fifo = |dir: &Dir, name: &str| match open_fifo(dir, name, Access::ReadOnly) {
            Ok(fifo) => Ok(Some(fifo)),
            Err(error)
                if matches!(
                    error.kind(),
                    jail_fs::ErrorKind::NotFound | jail_fs::ErrorKind::Untrusted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::files("open the VM's streams", error)),
        };
        let console = match console.0 {
            Sink::Tail(keep) => match fifo(dir, STDOUT)? {
                Some(ours) => Some(read(Tail::of_bytes(ours, keep))?),
                None => None,
            },
            Sink::File(_) | Sink::Null => None,
        };
        let logs = [fifo(dir, STDERR)?, fifo(root, in_jail::LOG)?];
        let log = read(Tail::of_lines(logs.into_iter().flatten().collect(), TAIL))?;
        Ok(Self { console, log })
    }
}

impl ParentEnds {
    /// Returns the output that an exited VMM left.
    pub(super) fn remaining_output(&self) -> Output {
        let console = match (&self.streams.console, &self.written) {
            (Some(reader), _) => reader.remaining_output(),
            (None, Some(written)) => written.remaining_output(),
            (None, None) => String::new(),
        };
        Output { log: self.streams.log.remaining_output(), console }
    }
}

fn read(tail: Tail) -> Result<StreamReader> {
    StreamReader::new(tail).map_err(|error: io::Error| {
        Error::new(ErrorKind::Spawn, "read the VM's streams").source_of(error)
    })
}
