//! A launcher under ptrace(2): its calls counted, one of them failed, or the launcher killed before it.
//!
//! Its threads are followed, its children are not (see the crate's documentation). x86-64 alone, as the guests are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::Serialize;

/// A life takes far less; one that takes so long hangs.
const HANGS: Duration = Duration::from_secs(60);

/// The identity of one system call within a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Call {
    /// The phase of the call.
    pub phase: String,
    /// The calling thread: 0 is the first.
    pub thread: usize,
    /// The system call's number.
    pub number: i64,
    /// The number of earlier calls of the same number by the thread in the phase.
    pub nth: u32,
}

/// The degree to which a launcher is traced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watch<'a> {
    /// Every call is noted down.
    Record,
    /// This call is dealt this injection.
    Strike(&'a Call, Injection),
    /// Only the launcher's lines are read.
    Lines,
}

/// The injection at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// The call fails with this.
    Fail(Errno),
    /// The launcher is killed before the call.
    Kill,
}

/// The result of a traced run.
#[derive(Debug)]
pub(crate) struct Traced {
    /// All calls of the phases with the arguments, in order.
    pub(crate) calls: Vec<(Call, [u64; 4])>,
    /// The paths of all opens, if every call is noted down.
    pub(crate) opened: Vec<Opened>,
    /// True if the call of the injection was made.
    pub(crate) injected: bool,
    pub(crate) status: WaitStatus,
    /// True if the launcher hung and was killed.
    pub(crate) hung: bool,
    pub(crate) stderr: String,
}

/// A path that a launcher opened, or tried to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The phase of the call.
    pub phase: String,
    /// The path as it was given, absolute or below an open directory.
    pub path: PathBuf,
}

/// Returns the phase that a line begins, if any.
pub(crate) type OnLine<'a> = &'a mut dyn FnMut(&str) -> Option<String>;

/// Runs `launcher` with the line `order` on stdin. `on_line` gets each line of the launcher's stdout while the writing
/// thread is stopped, and returns the phase that the line begins: after each line the launcher sends [`MARK`] to itself,
/// which stops a traced thread even if its calls are not followed.
pub(crate) fn trace(
    mut launcher: Command,
    order: &str,
    watch: Watch<'_>,
    on_line: OnLine<'_>,
) -> Result<Traced> {
    let (stdout, theirs) = std::io::pipe()?;
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut stderr = tempfile::tempfile()?;
    launcher.process_group(0).stdin(Stdio::piped()).stdout(theirs).stderr(stderr.try_clone()?);
    let mut child = launcher.spawn().with_context(|| format!("start {launcher:?}"))?;
    drop(launcher);
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut stdin = child.stdin.take().context("no pipe to the launcher")?;

    let watchdog = Watchdog::over(pid);
    let mut tracer = Tracer {
        pid,
        threads: BTreeMap::new(),
        born: 0,
        phase: None,
        counts: BTreeMap::new(),
        calls: Vec::new(),
        opened: Vec::new(),
        watch,
        marker: None,
        injected: false,
        lines: Lines { pipe: stdout, held: Vec::new() },
    };
    let sent =
        |stdin: &mut std::process::ChildStdin| stdin.write_all(format!("{order}\n").as_bytes());
    let status = tracer
        .seize()
        .and_then(|()| Ok(sent(&mut stdin)?))
        .and_then(|()| tracer.follow(on_line))
        .inspect_err(|_| {
            let _ = child.kill();
        })?;
    let hung = watchdog.bit();
    // What it wrote last, also where it was killed.
    tracer.lines.read(on_line)?;
    Ok(Traced {
        calls: tracer.calls,
        opened: tracer.opened,
        injected: tracer.injected,
        status,
        hung,
        stderr: text(&mut stderr)?,
    })
}

fn text(file: &mut File) -> Result<String> {
    use std::io::Seek as _;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Tracer<'a> {
    pid: Pid,
    threads: BTreeMap<Pid, Thread>,
    /// The number of threads so far.
    born: usize,
    /// None before the first.
    phase: Option<String>,
    counts: BTreeMap<(usize, i64), u32>,
    calls: Vec<(Call, [u64; 4])>,
    opened: Vec<Opened>,
    watch: Watch<'a>,
    /// The thread that takes the VM through the verbs.
    marker: Option<Pid>,
    injected: bool,
    lines: Lines,
}

/// A thread, numbered in order of appearance.
#[derive(Debug, Clone, Copy)]
struct Thread {
    index: usize,
    /// The thread's current call, if any.
    within: Option<Within>,
    /// True while the thread writes a line for the tracer.
    speaks: bool,
}

#[derive(Debug, Clone, Copy)]
struct Within {
    /// The errno to return from the call.
    fails: Option<Errno>,
}

/// Sent by a launcher to itself after each line. Nobody else sends it to a process without a terminal.
pub(crate) const MARK: Signal = Signal::SIGWINCH;

impl Tracer<'_> {
    /// Takes hold of every thread there is. A thread that is held holds those that it starts, and a thread that was not
    /// held yet may have started one, so this looks again until there is none that is new.
    fn seize(&mut self) -> Result<()> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        loop {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid))?;
            let mut tids = tasks
                .map(|task| Ok(Pid::from_raw(task?.file_name().to_string_lossy().parse::<i32>()?)))
                .collect::<Result<Vec<_>>>()?;
            tids.retain(|tid| !self.threads.contains_key(tid));
            if tids.is_empty() {
                return Ok(());
            }
            tids.sort_unstable();
            for tid in tids {
                match ptrace::seize(tid, options) {
                    Ok(()) => ptrace::interrupt(tid).context("trace the launcher")?,
                    // Held since its start, or over.
                    Err(Errno::EPERM | Errno::ESRCH) => {}
                    Err(errno) => return Err(errno).context("trace the launcher"),
                }
                self.thread(tid);
            }
        }
    }

    fn follow(&mut self, on_line: OnLine<'_>) -> Result<WaitStatus> {
        let group = Pid::from_raw(-self.pid.as_raw());
        loop {
            let status = waitpid(group, Some(WaitPidFlag::__WALL)).context("trace the launcher")?;
            let (tid, signal) = match status {
                WaitStatus::Exited(tid, _) | WaitStatus::Signaled(tid, ..) => {
                    if tid == self.pid {
                        return Ok(status);
                    }
                    self.threads.remove(&tid);
                    continue;
                }
                WaitStatus::PtraceSyscall(tid) => {
                    self.stop(tid)?;
                    (tid, None)
                }
                WaitStatus::PtraceEvent(tid, ..) => {
                    self.thread(tid);
                    (tid, None)
                }
                WaitStatus::Stopped(tid, MARK) => {
                    self.marker = Some(tid);
                    self.thread(tid).speaks = false;
                    if let Some(phase) = self.lines.read(on_line)? {
                        self.phase = Some(phase);
                        self.counts.clear();
                    }
                    (tid, None)
                }
                WaitStatus::Stopped(tid, signal) => (tid, Some(signal)),
                other => bail!("a launcher in a state that is not traced: {other:?}"),
            };
            let resumed = match self.follows(tid) {
                true => ptrace::syscall(tid, signal),
                false => ptrace::cont(tid, signal),
            };
            match resumed {
                // It was killed where it stood.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).context("let the launcher go on"),
            }
        }
    }

    /// Returns true if the thread's next call matters; each stop takes time.
    fn follows(&mut self, tid: Pid) -> bool {
        let begun = self.phase.is_some();
        match self.watch {
            Watch::Lines => false,
            Watch::Record => begun,
            // The call that fails has to come to its end.
            Watch::Strike(..) if self.injected => self.thread(tid).within.is_some(),
            // Where another thread is when the phase begins is not known: it is followed all along.
            Watch::Strike(call, _) if self.marker == Some(tid) => {
                self.phase.as_ref() == Some(&call.phase)
            }
            Watch::Strike(..) => begun,
        }
    }

    fn thread(&mut self, tid: Pid) -> &mut Thread {
        self.threads.entry(tid).or_insert_with(|| {
            // The end of another may be heard of sooner or later: its number is not given again.
            self.born += 1;
            Thread { index: self.born - 1, within: None, speaks: false }
        })
    }

    /// A thread stands at the beginning or at the end of a call.
    fn stop(&mut self, tid: Pid) -> Result<()> {
        let Some(mut registers) = alive(ptrace::getregs(tid))? else { return Ok(()) };
        if let Some(Within { fails }) = self.thread(tid).within.take() {
            if let Some(errno) = fails {
                registers.rax = i64::from(-(errno as i32)).cast_unsigned();
                alive(ptrace::setregs(tid, registers))?;
            }
            return Ok(());
        }
        let number = registers.orig_rax.cast_signed();
        let thread = self.thread(tid);
        thread.speaks |= number == libc::SYS_write && registers.rdi == STDOUT;
        thread.within = Some(Within { fails: None });
        let (index, speaks) = (thread.index, thread.speaks);
        let Some(phase) = self.phase.clone().filter(|_| !speaks) else { return Ok(()) };
        let nth = self.counts.entry((index, number)).or_default();
        let call = Call { phase, thread: index, number, nth: *nth };
        *nth += 1;
        if let Watch::Strike(target, injection) = self.watch
            && !self.injected
            && *target == call
        {
            self.injected = true;
            match injection {
                Injection::Kill => kill(self.pid, Signal::SIGKILL)?,
                Injection::Fail(errno) => {
                    // A close(2) that fails has closed all the same.
                    if number != libc::SYS_close {
                        // A call that does not exist is not made.
                        registers.orig_rax = u64::MAX;
                        alive(ptrace::setregs(tid, registers))?;
                    }
                    self.thread(tid).within = Some(Within { fails: Some(errno) });
                }
            }
        }
        let path = match number {
            libc::SYS_open => Some(registers.rdi),
            libc::SYS_openat | libc::SYS_openat2 => Some(registers.rsi),
            _ => None,
        };
        if let (Some(address), Watch::Record) = (path, self.watch)
            && let Some(path) = string(tid, address)
        {
            self.opened.push(Opened { phase: call.phase.clone(), path });
        }
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        self.calls.push((call, arguments));
        Ok(())
    }
}

const STDOUT: u64 = 1;

/// Reads a path of a launcher that stands at a call: at most `PATH_MAX` bytes. `None` for a wrong address, as the checks
/// of the host pass.
fn string(tid: Pid, address: u64) -> Option<PathBuf> {
    let memory = File::open(format!("/proc/{tid}/mem")).ok()?;
    let mut bytes = vec![0; 4096];
    // Short at the end of what is mapped.
    let length = memory.read_at(&mut bytes, address).ok()?;
    let text = bytes.get(..length)?.split(|byte| *byte == 0).next()?;
    Some(PathBuf::from(OsStr::from_bytes(text)))
}

/// Returns `None` if the thread was killed in the meantime.
fn alive<T>(answer: nix::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Errno::ESRCH) => Ok(None),
        Err(errno) => Err(errno).context("look at the launcher"),
    }
}

/// The launcher's stdout, line by line.
struct Lines {
    pipe: PipeReader,
    held: Vec<u8>,
}

impl Lines {
    /// Reads what is there; the phase that it begins.
    fn read(&mut self, on_line: OnLine<'_>) -> Result<Option<String>> {
        let mut buffer = [0; 4096];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.held.extend(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("read what the launcher says"),
            }
        }
        let mut phase = None;
        while let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
            let line = self.held.drain(..=end).collect::<Vec<_>>();
            phase = on_line(String::from_utf8_lossy(&line).trim_end()).or(phase);
        }
        Ok(phase)
    }
}

/// Kills a launcher that hangs.
struct Watchdog {
    done: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<bool>>,
}

impl Watchdog {
    fn over(pid: Pid) -> Self {
        let (done, wait) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let late = wait.recv_timeout(HANGS) == Err(mpsc::RecvTimeoutError::Timeout);
            // Its parent waits for it and has not reaped it: the number is its own.
            late && kill(pid, Signal::SIGKILL).is_ok()
        });
        Self { done: Some(done), thread: Some(thread) }
    }

    /// Ends the watchdog; returns true if the watchdog has killed the launcher.
    fn bit(mut self) -> bool {
        self.call_off()
    }

    fn call_off(&mut self) -> bool {
        drop(self.done.take());
        self.thread.take().is_some_and(|thread| thread.join().unwrap_or(true))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.call_off();
    }
}
