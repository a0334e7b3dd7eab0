//! From the spawn until the VM is ready: woken by inotify, the pidfd and the deadline, without a sleep loop.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use jail_fs::Dir;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::death::EarlyDeath;
use super::identity::{Expected, rooted_in};
use super::pidfd;
use super::spawn::{Spawn, Spawned};
use super::stamp::ProcessStamp;
use super::status::ExitStatus;
use super::vmm::{Process, Running};
use crate::api::{Answer, Api};
use crate::error::{ErrorKind, Failure, Result};

/// How long to wait before asking again where the kernel has no event for what is waited for: a socket that is bound
/// and does not listen yet, and an exec that was begun.
const SOON: Duration = Duration::from_millis(1);

/// Starts the jailer and waits until the VM is ready.
///
/// With an API `socket`, ready means that it answered `GET /`; without, that the exec copy runs in the jail as the
/// jail's user. Either way the VMM was proven by descriptor. On failure what was started is killed, as far as it is
/// known; what else is in the jail or in its control group is for the caller.
pub(crate) fn start(
    spawn: Spawn,
    root: &Dir,
    expected: &Expected,
    socket: Option<&str>,
    members: &dyn Fn() -> Result<Vec<u32>>,
    deadline: Instant,
) -> Result<Running> {
    let events = Events::watch(root)?;
    let spawned = spawn.start()?;
    let mut launch = Launch {
        becomes_vmm: spawn.becomes_vmm(),
        jailer_left: false,
        vmm: None,
        spawned,
        root,
        expected,
        socket,
        members,
    };
    match launch.until_ready(&events, deadline) {
        Ok(process) => Ok(Running { process, kept: launch.spawned.kept }),
        Err(failure) => {
            launch.kill();
            Err(failure)
        }
    }
}

/// A launch under way.
struct Launch<'a> {
    spawned: Spawned,
    /// Whether what was spawned becomes the VMM in place, and is so our child.
    becomes_vmm: bool,
    /// Whether a jailer that does not become the VMM has done its work and gone.
    jailer_left: bool,
    vmm: Option<Vmm>,
    root: &'a Dir,
    expected: &'a Expected,
    socket: Option<&'a str>,
    members: &'a dyn Fn() -> Result<Vec<u32>>,
}

/// The VMM, proven.
struct Vmm {
    stamp: ProcessStamp,
    /// Its own descriptor, where it is not what was spawned.
    pidfd: Option<OwnedFd>,
}

impl Launch<'_> {
    fn until_ready(&mut self, events: &Events, deadline: Instant) -> Result<Process> {
        loop {
            let ended = pidfd::ended_by(self.watched(), Some(Instant::now()))?;
            if ended && let Some(done) = self.bury()? {
                return Ok(done);
            }
            let pause = match self.step(deadline)? {
                Step::Ready(process) => return Ok(process),
                Step::Waiting => None,
                Step::Soon => Some(SOON),
            };
            if Instant::now() >= deadline {
                return Err(Failure::new(ErrorKind::Timeout, "wait until the VM is ready")
                    .because(self.progress())
                    .hinted("give the spec more time with `ready_within`, or look at its console"));
            }
            events.wait(self.watched(), pause.map_or(deadline, |pause| deadline.min(Instant::now() + pause)))?;
        }
    }

    /// The process whose end is the next thing to know of.
    fn watched(&self) -> std::os::fd::BorrowedFd<'_> {
        match &self.vmm {
            Some(Vmm { pidfd: Some(pidfd), .. }) => pidfd.as_fd(),
            _ => self.spawned.pidfd.as_fd(),
        }
    }

    fn progress(&self) -> String {
        match (&self.vmm, self.jailer_left) {
            (Some(vmm), _) => format!("the VMM runs as process {} and its API does not answer", vmm.stamp.pid()),
            (None, true) => "the jailer has gone, and no VMM was found".to_owned(),
            (None, false) => format!("the jailer, process {}, has not become the VMM", self.spawned.pid),
        }
    }

    /// One look at how far it is.
    fn step(&mut self, deadline: Instant) -> Result<Step> {
        if self.vmm.is_none() {
            self.vmm = self.find()?;
        }
        let Some(vmm) = &self.vmm else {
            // A jailer that has gone left a process that is about to become the VMM.
            return Ok(if self.jailer_left { Step::Soon } else { Step::Waiting });
        };
        let Some(socket) = self.socket else { return self.ready() };
        match Api::answers(self.root, socket, self.expected.uid, vmm.stamp.pid(), deadline)? {
            Answer::Yes => self.ready(),
            Answer::NoSocket => Ok(Step::Waiting),
            Answer::NotYet => Ok(Step::Soon),
        }
    }

    fn ready(&mut self) -> Result<Step> {
        let Some(vmm) = self.vmm.take() else { return Ok(Step::Waiting) };
        self.process(vmm, None).map(Step::Ready)
    }

    fn process(&self, vmm: Vmm, status: Option<ExitStatus>) -> Result<Process> {
        let pidfd = match vmm.pidfd {
            Some(pidfd) => pidfd,
            None => self
                .spawned
                .pidfd
                .try_clone()
                .map_err(|error| Failure::new(ErrorKind::Spawn, "hold the VMM").source_of(error))?,
        };
        Ok(Process { stamp: vmm.stamp, pidfd, root: self.expected.root, status })
    }

    /// Looks for the VMM; `None` while there is only a jailer.
    fn find(&self) -> Result<Option<Vmm>> {
        if self.becomes_vmm {
            return self.prove(self.spawned.pid).map(|stamp| stamp.map(|stamp| Vmm { stamp, pidfd: None }));
        }
        if !self.jailer_left {
            return Ok(None);
        }
        let mut candidates = (self.members)()?;
        if candidates.is_empty() {
            candidates = rooted_in(self.expected.root)?;
        }
        for pid in candidates {
            // Held first, proven then: the number cannot change its meaning in between.
            let Some(pidfd) = pidfd::open(pid)? else { continue };
            if let Some(stamp) = self.prove(pid)? {
                return Ok(Some(Vmm { stamp, pidfd: Some(pidfd) }));
            }
        }
        Ok(None)
    }

    /// Whether this process, which is held, is the VMM by now. Between a look at one fact and a look at the next it
    /// may go on or end, so a fact that is not there is no failure.
    fn prove(&self, pid: u32) -> Result<Option<ProcessStamp>> {
        let Some(stamp) = ProcessStamp::of(pid)? else { return Ok(None) };
        let right = self.expected.prove(pid).is_ok() && self.expected.runs_exec_copy(pid, self.root).unwrap_or(false);
        Ok((right && stamp.still_alive()?).then_some(stamp))
    }

    /// What was watched has ended: what that means.
    fn bury(&mut self) -> Result<Option<Process>> {
        let stranger = self.vmm.as_ref().is_some_and(|vmm| vmm.pidfd.is_some());
        if !stranger && !self.becomes_vmm && self.jailer_left {
            // The jailer ended long ago; its pidfd stays readable.
            return Ok(None);
        }
        let stamp = ProcessStamp::of(self.spawned.pid)?;
        let status = pidfd::status(self.watched())?;
        if status == ExitStatus::Exited(0) && !stranger && !self.becomes_vmm {
            self.jailer_left = true;
            return Ok(None);
        }
        // Without an API there is nothing to wait for but the exec: a guest that was done sooner than we looked did well.
        // The jailer itself ends with 0 only where it leaves a VMM behind.
        if status == ExitStatus::Exited(0) && self.socket.is_none() {
            let vmm = match (self.vmm.take(), stamp) {
                (Some(vmm), _) => vmm,
                (None, Some(stamp)) => Vmm { stamp, pidfd: None },
                (None, None) => return Err(self.death(status)),
            };
            return self.process(vmm, Some(status)).map(Some);
        }
        Err(self.death(status))
    }

    fn death(&self, status: ExitStatus) -> Failure {
        EarlyDeath::new(status, self.spawned.kept.last_words()).into_failure()
    }

    /// Best effort, on the way out with a failure that is the one to tell.
    fn kill(&self) {
        if let Some(Vmm { pidfd: Some(pidfd), .. }) = &self.vmm {
            let _ = pidfd::kill(pidfd.as_fd());
        }
        if !self.jailer_left {
            let _ = pidfd::kill(self.spawned.pidfd.as_fd());
            let soon = Instant::now() + Duration::from_secs(5);
            if pidfd::ended_by(self.spawned.pidfd.as_fd(), Some(soon)).unwrap_or(false) {
                let _ = pidfd::status(self.spawned.pidfd.as_fd());
            }
        }
    }
}

enum Step {
    Ready(Process),
    /// An event will tell.
    Waiting,
    /// The kernel has no event for it; look again in a moment.
    Soon,
}

/// What happens in the jail's root (`inotify(7)`): a hint when to look, and no more.
struct Events(OwnedFd);

impl Events {
    fn watch(root: &Dir) -> Result<Self> {
        let failed = |errno| Failure::new(ErrorKind::Filesystem, "watch the jail").source_of(errno);
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        // The sockets that are made; and what the VMM opens, since that it opens is the sign that it was exec'ed.
        let what = WatchFlags::CREATE | WatchFlags::OPEN | WatchFlags::CLOSE_NOWRITE | WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, format!("/proc/self/fd/{}", root.as_fd().as_raw_fd()), what).map_err(failed)?;
        Ok(Self(fd))
    }

    /// Waits for an event, the end of `process`, or the deadline.
    fn wait(&self, process: std::os::fd::BorrowedFd<'_>, deadline: Instant) -> Result<()> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(process, PollFlags::IN)];
        match poll(&mut fds, Some(&pidfd::until(deadline))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::new(ErrorKind::Filesystem, "watch the jail").source_of(errno)),
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        while reader.next().is_ok() {}
        Ok(())
    }
}
