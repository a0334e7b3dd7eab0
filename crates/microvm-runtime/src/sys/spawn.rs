//! Making a process that is born confined: [`spawn`]. Why it is sound stands in `docs/spawn.md`.

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, SendError};
use std::time::Duration;

use rustix::io::{Errno, read, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::child::{Child, Step, become_program};
use super::clone3::clone3;
use super::network::NetworkNamespace;
use super::signals::without_signals;
use crate::deadline::Deadline;

/// A process to be made. It owns all that its child uses, which may outlive the wait for it.
#[derive(Debug)]
pub(crate) struct NewProcess {
    /// The argv. The first item is the path of the program, which is not searched for on the `PATH`.
    pub(crate) argv: Vec<CString>,
    /// The process's stdin, stdout and stderr.
    pub(crate) stdio: [OwnedFd; 3],
    /// True to make the process the leader of a new session (`setsid(2)`).
    pub(crate) leads_session: bool,
    /// True to make the process PID 1 of a new pid namespace.
    pub(crate) pid_namespace: bool,
    /// The network namespace that the process is born in.
    pub(crate) network: NetworkNamespace,
    /// True to give the process new IPC and UTS namespaces, no call for keys, and the default scheduling.
    pub(crate) isolated: bool,
    /// True to run the process as root, even if the parent is not root.
    pub(crate) as_root: bool,
    /// v2: the control group that it is born in.
    pub(crate) group: Option<OwnedFd>,
    /// v1: the `tasks` files that it joins its control group by.
    pub(crate) tasks: Vec<OwnedFd>,
    /// v1: whether joining moves its memory, which it must then not share with its parent.
    pub(crate) moves_memory: bool,
    /// Resource limits: number, soft, hard.
    pub(crate) limits: Vec<(u32, u64, u64)>,
}

/// The reason why no process was made.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// `clone3(2)` or an earlier call failed; contains the name of the call.
    Call(&'static str, io::Error),
    /// The process could not be put into the control group.
    Group(io::Error),
    /// The program could not be executed; the process is gone.
    Exec(io::Error),
    /// The process was not made by the deadline, and will not be: the kernel has not set its namespace up.
    Unborn,
    /// The process was not another program by the deadline, and was killed.
    Late,
    /// The same, and the kernel does not let go of the process: it may still end in its own time.
    Stuck,
}

/// `CLONE_CLEAR_SIGHAND` and `CLONE_INTO_CGROUP` of `linux/sched.h`, which do not fit libc's type for such flags.
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// The time limit for the end of a killed child.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// The size of the child's stack in bytes; less than a tenth is used.
const STACK: usize = 64 << 10;

#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "the child's")] [MaybeUninit<u8>; STACK]);

/// The place for the pidfd, which the kernel fills before the child runs: a descriptor, or one of the states below.
#[derive(Debug)]
struct PidfdPlace(AtomicI32);

impl PidfdPlace {
    /// The thread has yet to call `clone3(2)`.
    const WAITING: i32 = -1;
    /// The thread calls `clone3(2)`.
    const CALLING: i32 = -2;
    /// The time was over first: no process will be made.
    const ABANDONED: i32 = -3;

    /// Leaves the state `WAITING` for `next`; returns false if the place is in another state.
    fn leave_waiting(&self, next: i32) -> bool {
        let (set, get) = (Ordering::AcqRel, Ordering::Acquire);
        self.0.compare_exchange(Self::WAITING, next, set, get).is_ok()
    }
}

/// The result of the thread that made the process.
struct Made {
    pid: u32,
    pidfd: OwnedFd,
    /// The pipe for the child's report of a failure.
    failure: OwnedFd,
}

/// Makes a process (`clone3(2)`, Linux 5.7), without an environment and in `/`, and waits until the process has
/// executed the program (`execve(2)`). Returns the pid and the pidfd; the kernel makes both at once.
///
/// [`std::process::Command`] cannot start a process in a control group. Until the exec, the child shares the caller's
/// memory (`CLONE_VM`, `CLONE_VFORK`), so that the call takes no longer in a large process. The OOM killer spares a
/// process that shares memory with a vfork child (`in_vfork()`, Linux 4.8). A vfork has no deadline, so a helper thread
/// makes the call: the caller waits for that thread, and kills the child at the deadline.
pub(crate) fn spawn(new: NewProcess, deadline: Deadline) -> Result<(u32, OwnedFd), SpawnError> {
    let place = Arc::new(PidfdPlace(AtomicI32::new(PidfdPlace::WAITING)));
    let (sender, receiver) = mpsc::sync_channel(1);
    let theirs = Arc::clone(&place);
    std::thread::Builder::new()
        .name("vm-spawn".to_owned())
        .stack_size(128 << 10)
        .spawn(move || {
            // The caller has gone if the time was over: the process was killed, and is ours to reap.
            if let Err(SendError(Ok(made))) = sender.send(make(&new, &theirs)) {
                end(&made.pidfd);
            }
        })
        .map_err(|error| SpawnError::Call("clone3 of a thread", error))?;
    let made = match wait(&receiver, deadline) {
        Some(made) => made?,
        None => return Err(end_late(&place, &receiver)),
    };
    let Made { pid, pidfd, failure } = made;
    // The process is another program by now, or has written why not.
    let mut words = [0; 2];
    let error = match retry_on_intr(|| read(&failure, &mut words)) {
        Ok(0) | Err(Errno::AGAIN) => return Ok((pid, pidfd)),
        Ok(_) => {
            let error = io::Error::from_raw_os_error(words[1].into());
            match Step::read(words[0]) {
                Some(Step::JoinGroup) => SpawnError::Group(error),
                Some(Step::Exec) | None => SpawnError::Exec(error),
                Some(step) => SpawnError::Call(step.call(), error),
            }
        }
        Err(errno) => SpawnError::Call("read", errno.into()),
    };
    end(&pidfd);
    Err(error)
}

fn wait<T>(receiver: &Receiver<T>, deadline: Deadline) -> Option<T> {
    match deadline.left() {
        None => receiver.recv().ok(),
        Some(left) => receiver.recv_timeout(left).ok(),
    }
}

/// Kills a child at the deadline. SIGKILL ends a child that is stopped or frozen by v2. A child that is frozen by v1
/// stays, with the thread that made the child and the memory of both.
fn end_late(place: &PidfdPlace, receiver: &Receiver<Result<Made, SpawnError>>) -> SpawnError {
    if place.leave_waiting(PidfdPlace::ABANDONED) {
        return SpawnError::Unborn;
    }
    let number = place.0.load(Ordering::Acquire);
    if number >= 0 {
        // SAFETY: the thread that made the process never closes this descriptor, but sends it here, where it is
        // received below at the earliest.
        let pidfd = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
    match wait(receiver, Deadline::after(KILL_TIMEOUT)) {
        Some(Ok(made)) => {
            end(&made.pidfd);
            SpawnError::Late
        }
        Some(Err(error)) => error,
        None => SpawnError::Stuck,
    }
}

/// Kills and reaps a child that has not executed the program.
fn end(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    // ECHILD: it was reaped by another thread, or on its own, as SIGCHLD is ignored.
    let _ = retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
}

/// Makes the process: comes back once it is another program, or is gone.
fn make(new: &NewProcess, place: &PidfdPlace) -> Result<Made, SpawnError> {
    // Not waited for: a process that somebody else forks at this moment has a copy of it.
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (failure, fails) =
        pipe_with(flags).map_err(|errno| SpawnError::Call("pipe2", errno.into()))?;
    let argv: Vec<*const c_char> =
        new.argv.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    let limits = new.limits.iter().map(|&(resource, soft, hard)| {
        (resource as c_int, libc::rlimit64 { rlim_cur: soft, rlim_max: hard })
    });
    let child = Child {
        program: argv.first().copied().unwrap_or(ptr::null()),
        argv: argv.as_ptr(),
        stdio: new.stdio.each_ref().map(|fd| fd.as_raw_fd()),
        leads_session: new.leads_session,
        as_root: new.as_root,
        isolated: new.isolated,
        tasks: new.tasks.iter().map(|file| file.as_raw_fd()).collect(),
        limits: limits.collect(),
        failure: fails.as_raw_fd(),
    };
    let mut stack = Box::<Stack>::new_uninit();
    let mut flags: c_int = libc::CLONE_VFORK | libc::CLONE_PIDFD;
    if !new.moves_memory {
        flags |= libc::CLONE_VM;
    }
    if new.pid_namespace {
        flags |= libc::CLONE_NEWPID;
    }
    if new.isolated {
        flags |= libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    }
    let mut flags = u64::from(flags.unsigned_abs()) | CLEAR_SIGHAND;
    let mut cgroup = 0;
    if let Some(group) = &new.group {
        flags |= INTO_CGROUP;
        cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: place.0.as_ptr().expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: stack.as_mut_ptr().expose_provenance() as u64,
        stack_size: STACK as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    new.network.enter().map_err(|(call, error)| SpawnError::Call(call, error))?;
    if !place.leave_waiting(PidfdPlace::CALLING) {
        return Err(SpawnError::Unborn);
    }
    // No handler of this process may run in the child, in this process's memory.
    let made = without_signals(|| {
        // SAFETY: `arguments` names a stack and a place for the pidfd that live until this returns, as `child` and all
        // it points to do; this returns when the child is done with them, as CLONE_VFORK makes it.
        unsafe { clone3(&arguments, become_program, &child) }
    });
    let pid = u32::try_from(made).map_err(|_| {
        let errno = i32::try_from(made.wrapping_neg()).unwrap_or(libc::EINVAL);
        let error = io::Error::from_raw_os_error(errno);
        match errno {
            // None of these is about a process alone.
            libc::EBUSY | libc::ENODEV | libc::ENOENT | libc::EOPNOTSUPP => {
                SpawnError::Group(error)
            }
            _ => SpawnError::Call("clone3", error),
        }
    })?;
    let number = place.0.load(Ordering::Acquire);
    // SAFETY: the kernel has put a descriptor there, which this is the only owner of; it is lent out by number until it
    // is received.
    let pidfd = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(Made { pid, pidfd, failure })
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the tests' own files, and those of procfs and cgroupfs"
)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read as _;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, PoisonError};
    use std::thread;
    use std::time::Instant;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::process::{Pid, kill_process};

    use super::super::descriptors::pipe;
    use super::super::skip::skip;
    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const MINUTE: Duration = Duration::from_secs(60);

    /// One child of these tests at a time has not become a program.
    static ONE: Mutex<()> = Mutex::new(());

    fn new(argv: &[&str]) -> NewProcess {
        let null = || File::open("/dev/null").unwrap().into();
        NewProcess {
            argv: argv.iter().map(|arg| CString::new(*arg).unwrap()).collect(),
            stdio: [null(), null(), null()],
            leads_session: true,
            pid_namespace: false,
            network: NetworkNamespace::Parents,
            as_root: false,
            isolated: false,
            group: None,
            tasks: Vec::new(),
            moves_memory: false,
            limits: Vec::new(),
        }
    }

    /// A pipe that is full: a child that has its end for a `tasks` file waits before its exec.
    fn full() -> (File, OwnedFd) {
        let (reader, writer) = pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
        fcntl_setfl(&writer, flags).unwrap();
        (reader, writer)
    }

    /// The child that has not become a program yet.
    fn child() -> Pid {
        let begun = Instant::now();
        while begun.elapsed() < MINUTE {
            for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
                let read =
                    |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
                if read("comm").trim() != "vm-spawn" {
                    continue;
                }
                if let Some(pid) = read("children").split_whitespace().next() {
                    return Pid::from_raw(pid.parse().unwrap()).unwrap();
                }
            }
        }
        panic!("no child");
    }

    fn is_there(pid: Pid) -> bool {
        Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).try_exists().unwrap()
    }

    #[test]
    fn row_43_a_stopped_child_ends_at_the_deadline() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut reader, tasks) = full();
        let process = NewProcess { tasks: vec![tasks], ..new(&["/bin/true"]) };
        let begun = Instant::now();
        let spawning = thread::spawn(|| spawn(process, Deadline::after(10 * SHORT)));
        let pid = child();
        kill_process(pid, Signal::STOP).unwrap();
        reader.read_exact(&mut [0; 4096]).unwrap();
        let error = spawning.join().unwrap().map(drop).unwrap_err();
        assert!(matches!(error, SpawnError::Late), "{error:?}");
        assert!(begun.elapsed() < MINUTE && !is_there(pid));
    }

    #[test]
    fn a_pending_stop_does_not_stop_the_program() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut reader, tasks) = full();
        let process = NewProcess { tasks: vec![tasks], ..new(&["/bin/true"]) };
        let spawning = thread::spawn(|| spawn(process, Deadline::after(MINUTE)));
        let pid = child();
        for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
            kill_process(pid, signal).unwrap();
        }
        reader.read_exact(&mut [0; 4096]).unwrap();
        let (_, pidfd) = spawning.join().unwrap().unwrap();
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn a_child_that_cannot_join_is_reaped() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let not_writable = File::open("/dev/null").unwrap().into();
        let process = NewProcess { tasks: vec![not_writable], ..new(&["/bin/true"]) };
        let error = spawn(process, Deadline::NEVER).map(drop).unwrap_err();
        assert!(matches!(&error, SpawnError::Group(error) if error.raw_os_error() == Some(9)));
        let error = spawn(new(&["/none"]), Deadline::NEVER).map(drop).unwrap_err();
        assert!(matches!(&error, SpawnError::Exec(error) if error.raw_os_error() == Some(2)));
    }

    /// A control group of this test, in the hierarchy whose mount line contains the given words.
    struct Group(PathBuf);

    impl Group {
        fn new(words: &[&str]) -> Option<Self> {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let has = |line: &&str| words.iter().all(|word| line.contains(word));
            let mount = mounts.lines().find(has)?.split(' ').nth(4)?;
            let path = Path::new(mount).join(format!("vmtest-spawn-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Some(Self(path))
        }

        fn write(&self, name: &str, value: &str) {
            fs::write(self.0.join(name), value).unwrap();
        }

        fn wait_empty(&self) {
            let begun = Instant::now();
            while !fs::read(self.0.join("cgroup.procs")).unwrap().is_empty() {
                assert!(begun.elapsed() < MINUTE, "it is not empty");
                thread::yield_now();
            }
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn row_43_a_frozen_v2_group_ends_at_the_deadline() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = Group::new(&[" - cgroup2 "]) else {
            return skip(
                "sys::spawn::tests::row_43_a_frozen_v2_group_ends_at_the_deadline",
                "no v2 hierarchy",
            );
        };
        group.write("cgroup.freeze", "1");
        let dir = File::open(&group.0).unwrap().into();
        let process = NewProcess { group: Some(dir), ..new(&["/bin/true"]) };
        let error = spawn(process, Deadline::after(SHORT)).map(drop).unwrap_err();
        assert!(matches!(error, SpawnError::Late), "{error:?}");
        group.wait_empty();
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn row_43_a_frozen_v1_group_ends_at_the_deadline() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = Group::new(&[" - cgroup ", "freezer"]) else {
            return skip(
                "sys::spawn::tests::row_43_a_frozen_v1_group_ends_at_the_deadline",
                "no v1 freezer",
            );
        };
        group.write("freezer.state", "FROZEN");
        let tasks = File::options().write(true).open(group.0.join("tasks")).unwrap().into();
        let process = NewProcess { tasks: vec![tasks], ..new(&["/bin/true"]) };
        let error = spawn(process, Deadline::after(SHORT)).map(drop).unwrap_err();
        assert!(matches!(error, SpawnError::Stuck), "{error:?}");
        // Thawed it meets the kill.
        group.write("freezer.state", "THAWED");
        group.wait_empty();
    }

    fn session_keyring() -> i64 {
        // SAFETY: KEYCTL_GET_KEYRING_ID (0) of KEY_SPEC_SESSION_KEYRING (-3), made if there is none, takes numbers
        // alone.
        unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 1) }
    }

    /// Gives this thread attributes that an exec keeps, and that no VM should have.
    fn become_odd() {
        // SAFETY: a set of zeros is a set.
        let mut one = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
        // SAFETY: the call takes nothing.
        let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap();
        // SAFETY: the set is there, and the number is below its size.
        unsafe { libc::CPU_SET(cpu, &mut one) };
        let call = |number, [a, b, c]: [i64; 3]| {
            // SAFETY: each call below takes numbers, or an address that the kernel only reads.
            unsafe { libc::syscall(number, a, b, c) }
        };
        let size = i64::try_from(size_of_val(&one)).unwrap();
        let set = i64::try_from((&raw const one).expose_provenance()).unwrap();
        assert_eq!(call(libc::SYS_sched_setaffinity, [0, size, set]), 0);
        assert_eq!(call(libc::SYS_setpriority, [libc::PRIO_PROCESS.into(), 0, -5]), 0);
        assert_eq!(call(libc::SYS_ioprio_set, [1, 0, (1 << 13) | 3]), 0);
        assert_eq!(call(libc::SYS_prctl, [libc::PR_SET_TIMERSLACK.into(), 1, 0]), 0);
        assert!(call(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE.into(), 0, 0]) >= 0);
        let schedule = |policy: c_int, priority| {
            let param = libc::sched_param { sched_priority: priority };
            let param = i64::try_from((&raw const param).expose_provenance()).unwrap();
            call(libc::SYS_sched_setscheduler, [0, policy.into(), param])
        };
        if schedule(libc::SCHED_FIFO, 10) < 0 {
            // The control group has no time for real-time processes.
            assert_eq!(schedule(libc::SCHED_BATCH, 0), 0);
        }
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn row_93_scheduling_is_the_systems_default() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (reader, writer) = pipe().unwrap();
        let mut process = new(&["/bin/cat"]);
        process.isolated = true;
        process.stdio[0] = reader.into();
        let before = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        // Some roots have no CAP_SYS_RESOURCE; the tests in machines have it.
        let lowered = fs::write("/proc/self/oom_score_adj", "-1").is_ok();
        let spawned = thread::spawn(|| {
            become_odd();
            spawn(process, Deadline::after(MINUTE))
        });
        let (pid, pidfd) = spawned.join().unwrap().unwrap();
        if lowered {
            fs::write("/proc/self/oom_score_adj", &before).unwrap();
        }
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let stat = read("stat");
        let stat: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // Nice value, real-time priority, policy: fields 19, 40 and 41 of proc_pid_stat(5).
        assert_eq!([stat[16], stat[37], stat[38]], ["0", "0", "0"]);
        assert_eq!(read("personality").trim(), "00000000");
        assert_eq!(read("timerslack_ns").trim(), "50000");
        assert_eq!(read("oom_score_adj").trim(), if lowered { "0" } else { before.trim() });
        let cpus = |status: String| {
            let line = status.lines().find(|line| line.starts_with("Cpus_allowed:"));
            line.unwrap().to_owned()
        };
        assert_eq!(cpus(read("status")), cpus(fs::read_to_string("/proc/self/status").unwrap()));
        // SAFETY: the call takes numbers alone.
        let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, pid, 0) };
        assert_eq!(priority >> 13, 0, "{priority:x}");
        drop(writer);
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
    }

    /// For the next test, which starts this one as a program.
    #[test]
    fn prints_its_session_keyring() {
        println!("keyring {}.", session_keyring());
    }

    #[test]
    fn row_46_the_session_keyring_is_new() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = session_keyring();
        if ours < 0 {
            // A kernel without keys has none to share.
            return assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOSYS));
        }
        let (mut reader, writer) = pipe().unwrap();
        let this = std::env::current_exe().unwrap();
        let test = "sys::spawn::tests::prints_its_session_keyring";
        let mut process = new(&[this.to_str().unwrap(), "--exact", test, "--nocapture"]);
        process.stdio[1] = writer.into();
        let (_, pidfd) = spawn(process, Deadline::NEVER).unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        let theirs = said.split_once("keyring ").unwrap().1.split_once('.').unwrap().0;
        assert!(theirs.parse::<i64>().unwrap() > 0, "{said}");
        assert_ne!(theirs, ours.to_string());
    }

    /// `FS_IOC_ADD_ENCRYPTION_KEY` of `linux/fscrypt.h`.
    const ADD_ENCRYPTION_KEY: u64 = 0xc050_6617;
    /// `BTRFS_IOC_SUBVOL_SETFLAGS` of `linux/btrfs.h`.
    const SET_SUBVOLUME_FLAGS: u64 = 0x4008_941a;

    /// The name of a call, and the errno that the call comes to.
    fn try_keys() -> Vec<(&'static str, i32)> {
        let errno = |result: i64| match result {
            0.. => 0,
            _ => io::Error::last_os_error().raw_os_error().unwrap(),
        };
        let (kind, name) = (c"user".as_ptr(), c"row-59".as_ptr());
        let (user_keyring, persistent) = (-4, 22);
        // SAFETY: the strings end in NUL, and the payload is one of them.
        let added = unsafe { libc::syscall(libc::SYS_add_key, kind, name, name, 6, user_keyring) };
        let mut came_to = vec![("add_key", errno(added))];
        // SAFETY: the strings end in NUL; without a fourth argument nobody is asked to make a key.
        let requested = unsafe { libc::syscall(libc::SYS_request_key, kind, name, 0, 0) };
        came_to.push(("request_key", errno(requested)));
        // SAFETY: the arguments are numbers.
        let got = unsafe { libc::syscall(libc::SYS_keyctl, persistent, -1, user_keyring) };
        came_to.push(("keyctl", errno(got)));
        // SAFETY: KEYCTL_CLEAR (7) takes the number of a keyring, and ends what was made above.
        unsafe { libc::syscall(libc::SYS_keyctl, 7, user_keyring) };
        let root = File::open("/").unwrap();
        // SAFETY: the request has no argument, and fails for that.
        let added = unsafe { libc::ioctl(root.as_raw_fd(), ADD_ENCRYPTION_KEY, 0) };
        came_to.push(("ioctl", errno(added.into())));
        // SAFETY: the request has no argument, and fails for that.
        let set = unsafe { libc::ioctl(root.as_raw_fd(), SET_SUBVOLUME_FLAGS, 0) };
        came_to.push(("subvolume", errno(set.into())));
        #[cfg(target_arch = "x86_64")]
        for (name, number) in [
            ("i386 add_key", 286),
            ("i386 request_key", 287),
            ("i386 keyctl", 288),
            ("i386 ioctl", 54),
        ] {
            let result: i64;
            // SAFETY: the call of a 32-bit program, with no pointer and no key type: it can only fail.
            unsafe {
                std::arch::asm!(
                    "push rbx", "xor ebx, ebx", "int 0x80", "pop rbx",
                    inlateout("rax") i64::from(number) => result,
                    in("rcx") if number == 54 { ADD_ENCRYPTION_KEY } else { 0 },
                    in("rdx") 0, in("rsi") 0, in("rdi") 0,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                )
            };
            came_to.push((name, i32::try_from(-result).unwrap()));
        }
        came_to
    }

    /// For the next test, which starts this one as a program.
    #[test]
    fn prints_what_keys_come_to() {
        println!("keys {:?}.", try_keys());
    }

    /// Returns the results of the calls in a process like a VM's, or in a process without the filter: the weak twin.
    fn keys_of(isolated: bool) -> String {
        let this = std::env::current_exe().unwrap();
        let test = "sys::spawn::tests::prints_what_keys_come_to";
        let (mut reader, writer) = pipe().unwrap();
        let mut process = new(&[this.to_str().unwrap(), "--exact", test, "--nocapture"]);
        process.stdio[1] = writer.into();
        process.isolated = isolated;
        let (_, pidfd) = spawn(process, Deadline::NEVER).unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        said.split_once("keys ").unwrap().1.split_once('.').unwrap().0.to_owned()
    }

    /// Whether the call of this name was answered as by a kernel without it.
    fn is_refused(came_to: &str, call: &str) -> bool {
        assert!(came_to.contains(&format!("(\"{call}\", ")), "{call} was not made: {came_to}");
        came_to.contains(&format!("(\"{call}\", {})", libc::ENOSYS))
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn row_59_a_vm_has_no_call_for_keys() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (vm, twin) = (keys_of(true), keys_of(false));
        for call in ["add_key", "request_key", "keyctl"] {
            assert!(is_refused(&vm, call), "{vm}");
            assert!(!is_refused(&twin, call), "nothing was contested: {twin}");
            #[cfg(target_arch = "x86_64")]
            assert!(is_refused(&vm, &format!("i386 {call}")), "{vm}");
        }
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn row_60_a_vm_adds_no_key_to_a_filesystem() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (vm, twin) = (keys_of(true), keys_of(false));
        assert!(is_refused(&vm, "ioctl"), "{vm}");
        assert!(!is_refused(&twin, "ioctl"), "nothing was contested: {twin}");
        #[cfg(target_arch = "x86_64")]
        assert!(is_refused(&vm, "i386 ioctl"), "{vm}");
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn row_89_a_vm_makes_no_subvolume() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (vm, twin) = (keys_of(true), keys_of(false));
        assert!(is_refused(&vm, "subvolume"), "{vm}");
        assert!(!is_refused(&twin, "subvolume"), "nothing was contested: {twin}");
    }

    #[test]
    fn many_threads_spawn_at_once() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        thread::scope(|scope| {
            for _ in 0..300 {
                scope.spawn(|| {
                    let (_, pidfd) = spawn(new(&["/bin/true"]), Deadline::NEVER).unwrap();
                    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                    assert_eq!(status.unwrap().unwrap().exit_status(), Some(0));
                });
            }
        });
    }
}
