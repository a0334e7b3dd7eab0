//! From the spawn until the VM is ready: woken by what happens in the jail, by the end of a process and by the deadline.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jail_fs::Dir;

use super::candidates::{Candidate, Search, alive};
use super::death::EarlyDeath;
use super::events::Events;
use super::identity::Expected;
use super::procfs;
use super::spawn::{Spawn, Spawned};
use super::stamp::ProcessStamp;
use super::status::ExitStatus;
use super::vmm::{Process, Running};
use super::{console::Kept, pidfd};
use crate::api::{Answer, Api, JailSocket};
use crate::error::{ErrorKind, Failure, Result};

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(5);

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
    let Spawned { pid, pidfd, kept } = spawn.start()?;
    let search = Search { jailer: pid, root, expected, members };
    let mut launch = Launch {
        begun: Instant::now(),
        deadline,
        kept,
        jailer: Some(pidfd),
        forks: spawn.daemonize,
        held: Vec::new(),
        vmm: None,
        search,
        socket,
        doubt: None,
    };
    let ready = launch.begin(spawn.becomes_vmm()).and_then(|()| launch.until_ready(&events));
    match ready {
        Ok(process) => {
            launch.dismiss();
            Ok(Running { process, kept: launch.kept })
        }
        Err(failure) => {
            launch.kill();
            Err(failure)
        }
    }
}

/// A launch under way.
struct Launch<'a> {
    begun: Instant,
    deadline: Instant,
    kept: Kept,
    /// A jailer that leaves the VMM behind, until it has.
    jailer: Option<OwnedFd>,
    /// Whether a process in the jail may end well without being the VMM: a daemon is forked twice.
    forks: bool,
    held: Vec<Candidate>,
    /// Which of them was proven to be the VMM.
    vmm: Option<usize>,
    search: Search<'a>,
    socket: Option<&'a str>,
    /// What did not fit when it was last looked for.
    doubt: Option<Failure>,
}

/// What a look at a launch found.
enum Step {
    /// The VMM, the one of the candidates that it is.
    Ready(usize),
    /// An event will tell.
    Waiting,
    /// The kernel has no event for what is missing: look again in a moment.
    Soon,
}

impl Launch<'_> {
    /// A jailer that becomes the VMM in place is the one to watch.
    fn begin(&mut self, becomes_vmm: bool) -> Result<()> {
        if becomes_vmm
            && let Some(stamp) = ProcessStamp::of(self.search.jailer)?
            && let Some(pidfd) = self.jailer.take()
        {
            self.held.push(Candidate { stamp, pidfd, status: None });
        }
        Ok(())
    }

    /// Sees off a jailer that left its VMM behind: it has nothing left to do but to end, and is ours to reap. At worst a
    /// zombie is left of it.
    fn dismiss(&self) {
        if let Some(jailer) = &self.jailer
            && pidfd::ended_by(jailer.as_fd(), Some(self.deadline)).unwrap_or(false)
        {
            pidfd::reap(std::slice::from_ref(jailer));
        }
    }

    fn until_ready(&mut self, events: &Events) -> Result<Process> {
        loop {
            self.follow()?;
            if self.has_ended()? {
                return self.bury();
            }
            let soon = match self.step()? {
                Step::Ready(index) => return Ok(self.take(index)),
                Step::Waiting => events.are_missing(),
                Step::Soon => true,
            };
            let now = Instant::now();
            if now >= self.deadline {
                return Err(self.late());
            }
            let until = if soon { self.deadline.min(now + self.moment()) } else { self.deadline };
            let mut watched = self.jailer.iter().map(OwnedFd::as_fd).collect::<Vec<_>>();
            match self.vmm {
                Some(index) => watched.push(self.held[index].pidfd.as_fd()),
                None => watched.extend(alive(&mut self.held)?),
            }
            if watched.is_empty() {
                // The last of them ended while it was looked at: nothing would tell of that any more.
                continue;
            }
            events.wait(&watched, until)?;
        }
    }

    /// How long until the next look where there is no event: short beside what the launch has taken so far.
    fn moment(&self) -> Duration {
        (self.begun.elapsed() / 16).clamp(Duration::from_micros(200), Duration::from_millis(20))
    }

    /// Follows a jailer that leaves a VMM behind.
    fn follow(&mut self) -> Result<()> {
        let left = self
            .jailer
            .as_ref()
            .map(|jailer| pidfd::ended_by(jailer.as_fd(), Some(Instant::now())))
            .transpose()?;
        if left == Some(true)
            && let Some(jailer) = self.jailer.take()
        {
            let status = pidfd::status(jailer.as_fd())?;
            if status != ExitStatus::Exited(0) {
                return Err(self.death(status));
            }
            // From here on there is someone else in the jail, or nobody ever will be.
            return self.search.look(&mut self.held, true);
        }
        // A daemon's forks follow one another.
        if self.vmm.is_none() && (self.jailer.is_some() || self.forks) {
            let thorough = self.jailer.is_none();
            self.search.look(&mut self.held, thorough)?;
        }
        Ok(())
    }

    /// Whether nobody is left who is the VMM or may become it.
    fn has_ended(&mut self) -> Result<bool> {
        match self.vmm {
            Some(index) => self.held[index].has_ended(),
            None if self.jailer.is_some() || !alive(&mut self.held)?.is_empty() => Ok(false),
            None => {
                // A daemon's fork may have ended after it was found, and left the next one behind: only a look after the
                // last one's end tells that nobody is left.
                if self.forks {
                    self.search.look(&mut self.held, true)?;
                }
                Ok(alive(&mut self.held)?.is_empty())
            }
        }
    }

    /// What that end means.
    fn bury(&mut self) -> Result<Process> {
        let index = self.vmm.or(self.held.len().checked_sub(1));
        let status = index.and_then(|index| self.held[index].status).unwrap_or_default();
        let certain = self.vmm.is_some() || !self.forks;
        match index {
            // Without an API there is nothing to wait for but the exec: a guest that was done sooner than we looked did
            // well.
            Some(index) if status == ExitStatus::Exited(0) && certain && self.socket.is_none() => {
                Ok(self.take(index))
            }
            // A fork that ended well is not the VMM that nobody saw.
            _ if status == ExitStatus::Exited(0) && !certain => {
                Err(self.death(ExitStatus::Unknown))
            }
            _ => Err(self.death(status)),
        }
    }

    /// One look at how far it is.
    fn step(&mut self) -> Result<Step> {
        let expected = self.search.expected;
        let socket = match self.socket {
            None => None,
            Some(name) => match JailSocket::open(self.search.root, name, expected.uid)? {
                Some(socket) => Some(socket),
                None => return Ok(Step::Waiting),
            },
        };
        if self.vmm.is_none() {
            self.prove();
        }
        let Some(index) = self.vmm else {
            // Who is in the jail already is about to exec, and the kernel does not tell when that is done.
            let root = expected.root;
            let inside = self
                .held
                .iter()
                .any(|held| held.status.is_none() && super::is_rooted_in(held.pid(), root));
            return Ok(if inside { Step::Soon } else { Step::Waiting });
        };
        let Some(socket) = socket else { return Ok(Step::Ready(index)) };
        let pid = self.held[index].pid();
        // Asked while it builds a VM, a Firecracker whose build fails panics over the question, and its reason is lost.
        // Its last act there is to start the vCPUs' threads, which no event tells.
        if expected.boots && !procfs::has_thread(pid, "fc_vcpu") {
            return Ok(Step::Soon);
        }
        Ok(match Api::over(socket, pid).answers(self.deadline)? {
            Answer::Yes => Step::Ready(index),
            Answer::NotYet => Step::Soon,
        })
    }

    /// Looks which of those that live is the VMM by now.
    fn prove(&mut self) {
        for (index, candidate) in self.held.iter().enumerate() {
            if candidate.status.is_some() {
                continue;
            }
            match candidate.prove(self.search.expected, self.search.root) {
                Ok(()) => {
                    self.vmm = Some(index);
                    return;
                }
                Err(doubt) => self.doubt = Some(doubt),
            }
        }
    }

    fn take(&mut self, index: usize) -> Process {
        let Candidate { stamp, pidfd, status } = self.held.swap_remove(index);
        Process { stamp, pidfd, root: self.search.expected.root, status }
    }

    fn death(&self, status: ExitStatus) -> Failure {
        EarlyDeath::new(status, self.kept.last_words()).into_failure()
    }

    /// The deadline has passed.
    fn late(&mut self) -> Failure {
        let progress = match (self.vmm.map(|index| self.held[index].pid()), self.held.last()) {
            (Some(pid), _) => format!("the VMM runs as process {pid}, and its API does not answer"),
            (None, Some(last)) if self.socket.is_some() => {
                format!("process {} has made no API socket", last.pid())
            }
            (None, Some(last)) => format!("process {} has not become the VMM", last.pid()),
            (None, None) => {
                format!("the jailer, process {}, has started nothing", self.search.jailer)
            }
        };
        // First, so that all it said is there to be told.
        self.kill();
        let (stdout, stderr) = self.kept.last_words();
        let because = match super::words::find(&stdout, &stderr).1 {
            Some(message) => format!("{progress}; it said {message:?}"),
            None => progress,
        };
        let failure = Failure::new(ErrorKind::Timeout, "wait until the VM is ready")
            .because(because)
            .hinted("give the spec more time with `ready_within`");
        match self.doubt.take() {
            Some(doubt) if self.vmm.is_none() => failure.source_of(doubt),
            _ => failure,
        }
    }

    /// Best effort, on the way out with a failure that is the one to tell.
    fn kill(&self) {
        let living = self
            .held
            .iter()
            .filter(|candidate| candidate.status.is_none())
            .map(|candidate| &candidate.pidfd);
        let processes = self.jailer.iter().chain(living).collect::<Vec<_>>();
        for process in &processes {
            let _ = pidfd::kill(process.as_fd());
        }
        let deadline = Instant::now() + DEATH;
        for process in processes {
            if pidfd::ended_by(process.as_fd(), Some(deadline)).unwrap_or(false) {
                pidfd::reap(std::slice::from_ref(process));
            }
        }
    }
}
