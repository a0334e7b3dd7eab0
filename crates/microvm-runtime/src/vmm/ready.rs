//! From the spawn until the VM is ready: woken by what happens in the jail, by the end of a process and by the
//! deadline.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::death::EarlyDeath;
use super::events::Events;
use super::pidfd;
use super::procfs;
use super::search::{Search, alive};
use super::spawn::{Spawn, Spawned};
use super::stamp::ProcessStamp;
use super::status::ExitStatus;
use super::streams::ParentEnds;
use super::vmm_process::{Process, Running};
use crate::api::{Api, JailSocket};
use crate::deadline::{Deadline, FAILED_LAUNCH_TIMEOUT};
use crate::error::{Error, ErrorKind, Result};

/// The time limit of one request to the API.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts the jailer and waits until the VM is ready.
///
/// With an API `socket`, ready means that it answered `GET /`; without, that the exec copy runs in the jail as the
/// jail's user. Either way the VMM was proven by descriptor, and `proven` was called with it, once: while an API is
/// still to come, so that nobody waits for what is done there. On failure what was started is killed, as far as it is
/// known; what else is in the jail or in its control group is for the caller.
pub(crate) fn start(
    spawn: Spawn<'_>,
    search: Search<'_>,
    socket: Option<&str>,
    proven: &mut dyn FnMut(&mut Process) -> Result<()>,
    deadline: Deadline,
) -> Result<Running> {
    let events = Events::watch(search.root)?;
    let (becomes_vmm, forks) = (spawn.becomes_vmm(), spawn.daemonize);
    let Spawned { pid, pidfd, streams } = spawn.start(search.root, deadline)?;
    let mut launch = Launch {
        begun: Instant::now(),
        events,
        deadline,
        streams,
        pid,
        jailer: Some(pidfd),
        forks,
        held: Vec::new(),
        vmm: None,
        search,
        socket,
        proven,
        doubt: None,
    };
    let ready = launch.begin(becomes_vmm).and_then(|()| launch.until_ready());
    match ready {
        Ok(process) => {
            launch.reap_jailer();
            Ok(Running { process, streams: launch.streams.streams })
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
    events: Events,
    deadline: Deadline,
    streams: ParentEnds,
    /// The jailer's pid.
    pid: u32,
    /// The jailer, if the jailer exits before the VMM, until the jailer has exited.
    jailer: Option<OwnedFd>,
    /// True if a process in the jail may exit with 0 without being the VMM: a daemon is forked twice.
    forks: bool,
    /// The processes in the jail, or on the way there.
    held: Vec<Process>,
    /// The process that was proven to be the VMM.
    vmm: Option<Process>,
    search: Search<'a>,
    socket: Option<&'a str>,
    proven: &'a mut dyn FnMut(&mut Process) -> Result<()>,
    /// The mismatch that the last proof of identity found.
    doubt: Option<Error>,
}

/// The result of a look at a launch.
enum Step {
    /// The VM is ready; this is the VMM.
    Ready(Process),
    /// An event will follow.
    Waiting,
    /// The kernel has no event for what is missing: look again in a moment.
    Soon,
}

impl Launch<'_> {
    /// A jailer that becomes the VMM in place is the one to watch.
    fn begin(&mut self, becomes_vmm: bool) -> Result<()> {
        // The stamp first: until it is read the jailer stays where a failure finds it, and kills it.
        if becomes_vmm {
            if let Some(stamp) = ProcessStamp::of(self.pid)? {
                let pidfd = self.jailer.take();
                self.held.extend(pidfd.map(|pidfd| Process { stamp, pidfd, status: None }));
            }
        }
        Ok(())
    }

    /// Reaps a jailer that exits before the VMM.
    fn reap_jailer(&self) {
        pidfd::reap(&self.jailer, self.deadline);
    }

    fn until_ready(&mut self) -> Result<Process> {
        loop {
            self.follow()?;
            if self.has_ended()? {
                return self.conclude();
            }
            let soon = match self.step()? {
                Step::Ready(process) => return Ok(process),
                Step::Waiting => self.events.are_missing(),
                Step::Soon => true,
            };
            if self.deadline.has_passed() {
                return Err(self.timed_out());
            }
            let until = match soon {
                true => self.deadline.min(Deadline::after(self.moment())),
                false => self.deadline,
            };
            let mut watched = self.jailer.iter().map(OwnedFd::as_fd).collect::<Vec<_>>();
            match &self.vmm {
                Some(process) => watched.push(process.as_fd()),
                None => watched.extend(alive(&mut self.held)?),
            }
            if watched.is_empty() {
                // The last process exited during the check, and sends no further event.
                continue;
            }
            self.events.wait(&watched, until)?;
        }
    }

    /// Returns the deadline of one request; requests are repeated until the launch's own deadline.
    fn answer_by(&self) -> Deadline {
        self.deadline.min(Deadline::after(REQUEST_TIMEOUT))
    }

    /// Returns the time until the next look if there is no event: short compared with the launch so far.
    fn moment(&self) -> Duration {
        (self.begun.elapsed() / 16).clamp(Duration::from_micros(200), Duration::from_millis(20))
    }

    /// Follows a jailer that leaves a VMM behind.
    fn follow(&mut self) -> Result<()> {
        let left = self
            .jailer
            .as_ref()
            .map(|jailer| pidfd::ended_by(jailer.as_fd(), Deadline::now()))
            .transpose()?;
        if let Some(jailer) = self.jailer.take_if(|_| left == Some(true)) {
            let status = pidfd::status(jailer.as_fd())?;
            if status != ExitStatus::Exited(0) {
                return Err(self.death(status));
            }
            // From here on there is someone else in the jail, or nobody ever will be.
            return self.search.look(self.pid, &mut self.held, true);
        }
        // A daemon's forks follow one another.
        if self.vmm.is_none() && (self.jailer.is_some() || self.forks) {
            let thorough = self.jailer.is_none();
            self.search.look(self.pid, &mut self.held, thorough)?;
        }
        Ok(())
    }

    /// Returns true if no process is left that is the VMM or may become the VMM.
    fn has_ended(&mut self) -> Result<bool> {
        match &mut self.vmm {
            Some(process) => Ok(process.wait(Deadline::now())?.is_some()),
            None if self.jailer.is_some() || !alive(&mut self.held)?.is_empty() => Ok(false),
            None => {
                // A daemon's fork may have exited after the search and left another fork. Only a search after the exit
                // of the last fork proves that no process is left.
                if self.forks {
                    self.search.look(self.pid, &mut self.held, true)?;
                }
                Ok(alive(&mut self.held)?.is_empty())
            }
        }
    }

    /// Returns the result of a launch after all processes have exited.
    fn conclude(&mut self) -> Result<Process> {
        // The only one there was is the VMM, though nobody saw it run. A daemon's fork is not.
        if self.vmm.is_none() && !self.forks {
            self.vmm = self.held.pop();
            if self.vmm.as_ref().is_some_and(|vmm| self.did_well(vmm)) {
                self.report_proven()?;
            }
        }
        match self.vmm.take() {
            Some(process) if self.did_well(&process) => Ok(process),
            Some(process) => Err(self.death(process.status.unwrap_or_default())),
            None => {
                let last = self.held.last().and_then(|last| last.status).unwrap_or_default();
                // A fork that ended well is not the VMM that nobody saw.
                let status = if last == ExitStatus::Exited(0) { ExitStatus::Unknown } else { last };
                Err(self.death(status))
            }
        }
    }

    /// Without an API there is nothing to wait for but the exec: a guest that was done sooner than we looked did well.
    fn did_well(&self, process: &Process) -> bool {
        self.socket.is_none() && process.status == Some(ExitStatus::Exited(0))
    }

    /// Looks once at the progress of the launch.
    fn step(&mut self) -> Result<Step> {
        let expected = self.search.expected;
        if self.vmm.is_none() && !self.prove()? {
            // A process inside the jail is about to exec, and the kernel sends no event for an exec.
            let inside = self.held.iter().any(|held| {
                held.status.is_none() && super::is_rooted_in(held.pid(), expected.root)
            });
            return Ok(if inside { Step::Soon } else { Step::Waiting });
        }
        let (Some(name), Some(process)) = (self.socket, &self.vmm) else { return Ok(self.ready()) };
        let Some(socket) = JailSocket::open(self.search.root, name, expected.uid)? else {
            return Ok(Step::Waiting);
        };
        // A request during the build of a VM makes a failing Firecracker panic, and the reason is lost. The build ends
        // with the start of the vCPU threads, for which there is no event.
        if expected.boots && !procfs::has_thread(process.pid(), "fc_vcpu") {
            return Ok(Step::Soon);
        }
        let Some(asked) = Api::over(socket, process.pid()).ask(self.answer_by())? else {
            return Ok(Step::Soon);
        };
        // Here, while it thinks about the answer.
        self.events.end();
        Ok(if asked.got_answer()? { self.ready() } else { Step::Soon })
    }

    fn ready(&mut self) -> Step {
        self.vmm.take().map_or(Step::Waiting, Step::Ready)
    }

    /// Looks for the VMM among the living processes; returns true if there is one.
    fn prove(&mut self) -> Result<bool> {
        for (index, process) in self.held.iter().enumerate() {
            if process.status.is_some() {
                continue;
            }
            match process.prove(self.search.expected, self.search.root) {
                Ok(()) => {
                    self.vmm = Some(self.held.swap_remove(index));
                    self.report_proven()?;
                    return Ok(true);
                }
                Err(doubt) => self.doubt = Some(doubt),
            }
        }
        Ok(false)
    }

    /// Calls the caller's function for the proven VMM, once.
    fn report_proven(&mut self) -> Result<()> {
        self.vmm.as_mut().map_or(Ok(()), &mut self.proven)
    }

    fn death(&self, status: ExitStatus) -> Error {
        EarlyDeath::new(status, self.streams.remaining_output()).into()
    }

    /// Makes the error of a launch that has exceeded the deadline.
    fn timed_out(&mut self) -> Error {
        let has_socket = self.socket.is_some_and(|name| {
            JailSocket::open(self.search.root, name, self.search.expected.uid)
                .is_ok_and(|socket| socket.is_some())
        });
        let progress = match (&self.vmm, self.held.last()) {
            (Some(vmm), _) => {
                let what =
                    if has_socket { "its API does not answer" } else { "has made no API socket" };
                format!("the VMM runs as process {}, and {what}", vmm.pid())
            }
            (None, Some(last)) => format!("process {} has not become the VMM", last.pid()),
            (None, None) => format!("the jailer, process {}, has started nothing", self.pid),
        };
        // First, so that the error contains all output.
        self.kill();
        let output = self.streams.remaining_output();
        let because = match super::failure_patterns::find(&output.log, &output.console).1 {
            Some(message) => format!("{progress}; it said {message:?}"),
            None => progress,
        };
        let failure = Error::new(ErrorKind::Timeout, "wait until the VM is ready")
            .because(because)
            .hinted("Give the spec more time with `ready_within`.");
        match self.doubt.take() {
            Some(doubt) if self.vmm.is_none() => failure.source_of(doubt),
            _ => failure,
        }
    }

    /// Best effort, because the caller already returns the first failure.
    fn kill(&self) {
        let living = self
            .held
            .iter()
            .chain(&self.vmm)
            .filter(|process| process.status.is_none())
            .map(|process| &process.pidfd);
        let processes = self.jailer.iter().chain(living).collect::<Vec<_>>();
        for process in &processes {
            let _ = pidfd::kill(process.as_fd());
        }
        pidfd::reap(processes, Deadline::after(FAILED_LAUNCH_TIMEOUT));
    }
}
