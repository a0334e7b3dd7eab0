//! The VMM's stdout, which is the guest's console, and its stderr.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use crate::error::{ErrorKind, Failure, Result};

/// Bytes that are kept of each stream.
const TAIL: usize = 64 << 10;

/// Called with each piece of output as it comes.
type Callback = Arc<dyn Fn(Stream, &[u8]) + Send + Sync>;

/// One of the VMM's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The guest's serial console, and what Firecracker says in normal times.
    Stdout,
    /// Errors of the jailer and of Firecracker.
    Stderr,
}

/// Where the VMM's stdout and stderr go.
///
/// # Caveats
/// A VMM whose pipe has lost its reader stops for ever when it next prints. [`tail`](Self::tail) is read for as long
/// as this process lives: give a VM that is to outlive it [`file`](Self::file) or [`null`](Self::null).
#[derive(Clone)]
pub struct Console {
    sink: Sink,
    callback: Option<Callback>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Sink {
    Tail(usize),
    File(PathBuf),
    Null,
}

impl Console {
    /// Read by this process, which keeps the last `bytes` of each stream. The default, with 64 KiB.
    #[must_use]
    pub fn tail(bytes: usize) -> Self {
        Self { sink: Sink::Tail(bytes), callback: None }
    }

    /// Appended to this file by the VMM itself, both streams; the file is made, 0600, where it does not exist. How large it
    /// gets is up to the guest.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { sink: Sink::File(path.into()), callback: None }
    }

    /// Thrown away, the jailer's reasons for a failure too.
    #[must_use]
    pub fn null() -> Self {
        Self { sink: Sink::Null, callback: None }
    }

    /// Calls `callback` with each piece of output, besides keeping the tail; of a [`file`](Self::file) or
    /// [`null`](Self::null) this process sees nothing, and it is not called. While it does not return nothing is read, and
    /// a guest that prints on waits. Once it panics it is called no more.
    #[must_use]
    pub fn also_to(mut self, callback: impl Fn(Stream, &[u8]) + Send + Sync + 'static) -> Self {
        self.callback = Some(Arc::new(callback));
        self
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::tail(TAIL)
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("sink", &self.sink)
            .field("callback", &self.callback.is_some())
            .finish()
    }
}

impl PartialEq for Console {
    fn eq(&self, other: &Self) -> bool {
        let callbacks = (self.callback.as_ref(), other.callback.as_ref());
        self.sink == other.sink
            && match callbacks {
                (None, None) => true,
                (Some(one), Some(two)) => Arc::ptr_eq(one, two),
                _ => false,
            }
    }
}

/// The child's ends of a console, and ours.
pub(super) struct Opened {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) ours: Ours,
}

/// What is left in our hands once the child has its ends.
pub(super) enum Ours {
    Pipes {
        stdout: OwnedFd,
        stderr: OwnedFd,
        keep: usize,
        callback: Option<Callback>,
    },
    /// The file, and where this VM's part of it begins.
    File {
        file: std::fs::File,
        from: u64,
    },
    Null,
}

impl Console {
    pub(super) fn open(&self) -> Result<Opened> {
        match &self.sink {
            Sink::Null => Ok(Opened { stdout: null()?, stderr: null()?, ours: Ours::Null }),
            Sink::Tail(keep) => {
                let failed = |error| {
                    Failure::new(ErrorKind::Spawn, "make the console's pipes").source_of(error)
                };
                let (stdout, their_stdout) = io::pipe().map_err(failed)?;
                let (stderr, their_stderr) = io::pipe().map_err(failed)?;
                Ok(Opened {
                    stdout: their_stdout.into(),
                    stderr: their_stderr.into(),
                    ours: Ours::Pipes {
                        stdout: stdout.into(),
                        stderr: stderr.into(),
                        keep: *keep,
                        callback: self.callback.clone(),
                    },
                })
            }
            Sink::File(path) => {
                let failed = |error| {
                    Failure::new(ErrorKind::Filesystem, "open the console file")
                        .path(path)
                        .source_of(error)
                };
                let file = append(path).map_err(failed)?;
                let from = file.metadata().map_err(failed)?.len();
                let theirs = || file.try_clone().map(OwnedFd::from).map_err(failed);
                Ok(Opened { stdout: theirs()?, stderr: theirs()?, ours: Ours::File { file, from } })
            }
        }
    }
}

/// Where nothing comes from, and all that is written is gone.
pub(super) fn null() -> Result<OwnedFd> {
    let path = "/dev/null";
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        Failure::new(ErrorKind::Spawn, "open the null device").path(path).source_of(errno)
    })
}

/// A link is not followed: the file may lie where another user can plant one.
fn append(path: &Path) -> io::Result<std::fs::File> {
    let flags = OFlags::RDWR
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC
        | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// The tail of a VMM's stdout and stderr.
#[derive(Debug, Clone)]
pub struct ConsoleReader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stdout: VecDeque<u8>,
    stderr: VecDeque<u8>,
    /// Bytes that came so far.
    received: u64,
    /// Both streams have ended: nobody has them open for writing any more.
    ended: bool,
}

impl Ours {
    /// Begins to read; a thread of its own does, until both streams have ended.
    pub(super) fn read(self) -> Result<Kept> {
        match self {
            Self::Null => Ok(Kept::Nothing),
            Self::File { file, from } => Ok(Kept::File { file, from }),
            Self::Pipes { stdout, stderr, keep, callback } => {
                let shared = Arc::new(Shared { state: Mutex::default(), more: Condvar::new() });
                let reader = ConsoleReader { shared: Arc::clone(&shared) };
                std::thread::Builder::new()
                    .name("vm-console".to_owned())
                    .spawn(move || {
                        pump(&shared, stdout, stderr, keep, callback.as_ref());
                    })
                    .map_err(|error| {
                        Failure::new(ErrorKind::Spawn, "start the console's thread")
                            .source_of(error)
                    })?;
                Ok(Kept::Reader(reader))
            }
        }
    }
}

/// What is kept of the output.
#[derive(Debug)]
pub(crate) enum Kept {
    Reader(ConsoleReader),
    File { file: std::fs::File, from: u64 },
    Nothing,
}

impl Kept {
    /// The last words on stdout and stderr of a VMM that has ended.
    pub(super) fn last_words(&self) -> (String, String) {
        match self {
            Self::Nothing => (String::new(), String::new()),
            Self::Reader(reader) => {
                reader.wait_for_end(Duration::from_secs(1));
                (reader.stdout_tail(), reader.stderr_tail())
            }
            // Both streams went there.
            Self::File { file, from } => {
                (String::new(), read_tail(file, *from, TAIL as u64).unwrap_or_default())
            }
        }
    }

    pub(crate) fn into_reader(self) -> Option<ConsoleReader> {
        match self {
            Self::Reader(reader) => Some(reader),
            Self::File { .. } | Self::Nothing => None,
        }
    }
}

/// The last bytes of a file from `from` on, at most `keep`, as text. It may grow while it is read.
pub(crate) fn read_tail(mut file: &std::fs::File, from: u64, keep: u64) -> io::Result<String> {
    let end = file.seek(SeekFrom::End(0))?;
    let begin = from.max(end.saturating_sub(keep));
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(end.saturating_sub(begin)).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads both pipes until both have ended.
fn pump(
    shared: &Shared,
    stdout: OwnedFd,
    stderr: OwnedFd,
    keep: usize,
    mut callback: Option<&Callback>,
) {
    let mut open = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
    let mut buffer = vec![0; 16 << 10];
    while !open.is_empty() {
        let mut fds = open.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)).collect::<Vec<_>>();
        if let Err(errno) = poll(&mut fds, None) {
            if errno == rustix::io::Errno::INTR {
                continue;
            }
            break;
        }
        let ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>();
        let mut ready = ready.into_iter();
        open.retain(|(stream, fd)| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            match rustix::io::retry_on_intr(|| rustix::io::read(fd.as_fd(), &mut buffer[..])) {
                Ok(0) | Err(_) => false,
                Ok(length) => {
                    let piece = &buffer[..length];
                    shared.keep(*stream, piece, keep);
                    if let Some(call) = callback {
                        // A caller's panic must not take the VMM's reader with it.
                        if catch_unwind(AssertUnwindSafe(|| call(*stream, piece))).is_err() {
                            callback = None;
                        }
                    }
                    true
                }
            }
        });
    }
    shared.lock().ended = true;
    shared.more.notify_all();
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, stream: Stream, piece: &[u8], keep: usize) {
        let mut state = self.lock();
        let tail = match stream {
            Stream::Stdout => &mut state.stdout,
            Stream::Stderr => &mut state.stderr,
        };
        tail.extend(piece);
        let excess = tail.len().saturating_sub(keep);
        tail.drain(..excess);
        state.received += u64::try_from(piece.len()).unwrap_or(0);
        drop(state);
        self.more.notify_all();
    }
}

impl ConsoleReader {
    /// The last bytes of the guest's console, as text.
    #[must_use]
    pub fn stdout_tail(&self) -> String {
        text(&self.shared.lock().stdout)
    }

    /// The last bytes of stderr, as text.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        text(&self.shared.lock().stderr)
    }

    /// Waits until a whole line of the console's tail is `wanted`; `None` where it did not come in time, or the console ended
    /// without it.
    pub fn wait_for_line(
        &self,
        wanted: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Option<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let (tail, seen, ended) = {
                let state = self.shared.lock();
                (text(&state.stdout), state.received, state.ended)
            };
            // Asked without the lock: `wanted` may take its time, or look at the tails itself.
            let whole = tail.rfind('\n').map_or("", |end| &tail[..end]);
            if let Some(line) = whole.lines().find(|line| wanted(line)) {
                return Some(line.to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if ended || left.is_zero() {
                return None;
            }
            let state = self.shared.lock();
            let old = |state: &mut State| state.received == seen && !state.ended;
            drop(self.shared.more.wait_timeout_while(state, left, old));
        }
    }

    /// Waits until nobody has the console open for writing any more, so that the tails are complete; whether it came to that.
    pub fn wait_for_end(&self, timeout: Duration) -> bool {
        let state = self.shared.lock();
        let wait = self.shared.more.wait_timeout_while(state, timeout, |state| !state.ended);
        wait.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}

fn text(bytes: &VecDeque<u8>) -> String {
    let (front, back) = bytes.as_slices();
    String::from_utf8_lossy(&[front, back].concat()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(console: &Console, script: &str) -> Kept {
        let Opened { stdout, stderr, ours } = console.open().unwrap();
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let kept = ours.read().unwrap();
        child.wait().unwrap();
        kept
    }

    #[test]
    fn the_tail_is_bounded_and_nothing_blocks() {
        let kept = run(&Console::tail(10), "seq 1 100000; echo oops >&2");
        let (stdout, stderr) = kept.last_words();
        assert_eq!((stdout.as_str(), stderr.as_str()), ("99\n100000\n", "oops\n"));
    }

    #[test]
    fn a_line_is_waited_for_and_an_end_without_it_is_told() {
        let Some(reader) = run(&Console::default(), "echo one; echo two; printf thr").into_reader()
        else {
            panic!("it is read by us")
        };
        let minute = Duration::from_secs(60);
        assert_eq!(reader.wait_for_line(|line| line == "two", minute).as_deref(), Some("two"));
        assert!(reader.wait_for_end(minute));
        assert_eq!(
            reader.wait_for_line(|line| line.starts_with("thr"), minute),
            None,
            "the line is not whole"
        );
    }

    #[test]
    fn the_callback_gets_everything() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&seen);
        let console = Console::tail(1)
            .also_to(move |stream, piece| copy.lock().unwrap().push((stream, piece.to_vec())));
        run(&console, "printf out; printf err >&2").last_words();
        let all = |want| {
            seen.lock()
                .unwrap()
                .iter()
                .filter(|(s, _)| *s == want)
                .flat_map(|(_, p)| p.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!((all(Stream::Stdout), all(Stream::Stderr)), (b"out".to_vec(), b"err".to_vec()));
    }

    #[test]
    fn a_callback_that_panics_costs_no_output() {
        let console = Console::default().also_to(|_, _| panic!("the test's own"));
        assert_eq!(run(&console, "echo one; echo two").last_words().0, "one\ntwo\n");
    }

    #[test]
    fn who_waits_for_a_line_may_look_at_the_console() {
        let Some(reader) = run(&Console::default(), "echo one; echo two >&2").into_reader() else {
            panic!("it is read by us")
        };
        let wanted = |line: &str| line == "one" && reader.stdout_tail().contains(line);
        assert!(reader.wait_for_line(wanted, Duration::from_secs(60)).is_some());
    }

    #[test]
    fn a_file_is_appended_to_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        run(&Console::file(&path), "echo first").last_words();
        let (_, words) = run(&Console::file(&path), "echo second").last_words();
        assert_eq!(words, "second\n", "the words of this VM alone");
        let link = dir.path().join("link");
        rustix::fs::symlink(&path, &link).unwrap();
        assert!(Console::file(&link).open().is_err());
    }
}
