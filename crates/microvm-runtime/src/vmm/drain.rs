//! The one thread that reads the streams of all VMs of this process: started with the first stream, ended with the last.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tail::{PIECE, Tail};
use crate::sys::{self, Epoll, Wake};

static DRAIN: Mutex<Option<Drain>> = Mutex::new(None);

/// The key of the next source. A key is never used again: a [`Registration`] may outlive the thread that it was made
/// with, and must not remove the sources of the next thread.
static NEXT_KEY: AtomicU64 = AtomicU64::new(WAKE + 1);

/// The key of the event that ends the thread.
const WAKE: u64 = 0;

struct Drain {
    /// The pid of the process that has the thread: a forked child has a copy of this value, and no thread.
    owner: u32,
    epoll: Arc<Epoll>,
    wake: Arc<Wake>,
    sources: HashMap<u64, Source>,
}

/// A FIFO that feeds a tail.
#[derive(Clone)]
struct Source {
    tail: Arc<Tail>,
    index: usize,
    fifo: Arc<OwnedFd>,
}

/// Keeps a tail fed until the value is dropped, or the tail's FIFOs have ended.
#[derive(Debug)]
pub(super) struct Registration {
    owner: u32,
    keys: Vec<u64>,
}

impl Registration {
    /// Begins to feed the tail (`epoll_ctl(2)`).
    pub(super) fn new(tail: &Arc<Tail>) -> io::Result<Self> {
        let owner = std::process::id();
        let mut this = Self { owner, keys: Vec::new() };
        let fifos = tail.fifos();
        if fifos.is_empty() {
            return Ok(this);
        }
        let mut locked = lock();
        let drain = match &mut *locked {
            Some(drain) if drain.owner == owner => drain,
            other => other.insert(Drain::start(owner)?),
        };
        for (index, fifo) in fifos.into_iter().enumerate() {
            let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
            let added = drain.epoll.add(&fifo, key);
            if let Err(errno) = added {
                drop(locked);
                drop(this);
                return Err(errno.into());
            }
            drain.sources.insert(key, Source { tail: Arc::clone(tail), index, fifo });
            this.keys.push(key);
        }
        Ok(this)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut locked = lock();
        // In a forked child the epoll instance is the parent's.
        let Some(drain) = locked
            .as_mut()
            .filter(|drain| drain.owner == self.owner && self.owner == std::process::id())
        else {
            return;
        };
        let gone: Vec<_> = self.keys.iter().filter_map(|key| drain.remove(*key)).collect();
        if drain.sources.is_empty() {
            drain.wake.send();
        }
        drop(locked);
        // A subscriber that goes with its tail may come back here.
        drop(gone);
    }
}

impl Drain {
    fn start(owner: u32) -> io::Result<Self> {
        let epoll = Arc::new(Epoll::new()?);
        let wake = Arc::new(Wake::new()?);
        epoll.add(&*wake, WAKE)?;
        let this = Self {
            owner,
            epoll: Arc::clone(&epoll),
            wake: Arc::clone(&wake),
            sources: HashMap::new(),
        };
        // No handler of the process runs in a thread that the process does not know of.
        sys::without_signals(|| {
            std::thread::Builder::new()
                .name("vm-streams".to_owned())
                .spawn(move || run(&epoll, &wake))
        })?;
        Ok(this)
    }

    /// Feeds from this FIFO no more. Removed by hand: a process that was just forked may hold a copy of the descriptor,
    /// which would keep the event alive.
    fn remove(&mut self, key: u64) -> Option<Source> {
        let source = self.sources.remove(&key)?;
        let _ = self.epoll.remove(&source.fifo);
        Some(source)
    }
}

fn lock() -> MutexGuard<'static, Option<Drain>> {
    DRAIN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(epoll: &Epoll, wake: &Wake) {
    let mut buffer = vec![0; PIECE];
    loop {
        // Fails only if somebody else closed the descriptor: then nothing can be read any more.
        let Ok(events) = epoll.wait() else { return *lock() = None };
        for (key, hung_up) in events {
            if key == WAKE {
                wake.clear();
            }
            let source = lock().as_ref().and_then(|drain| drain.sources.get(&key).cloned());
            let Some(Source { tail, index, .. }) = source else { continue };
            if tail.feed(index, hung_up, &mut buffer) {
                let gone = lock().as_mut().and_then(|drain| drain.remove(key));
                drop(gone);
            }
        }
        let mut locked = lock();
        if locked.as_ref().is_none_or(|drain| drain.sources.is_empty()) {
            *locked = None;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn an_old_registration_removes_no_new_source() {
        let wait = |tail: &Tail, enough: &dyn Fn(&Tail) -> bool| {
            let end = Instant::now() + Duration::from_secs(60);
            while !enough(tail) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
            enough(tail)
        };
        // Other tests of this process may use the thread too: then the second round has no new thread, and is no test.
        for _ in 0..20 {
            let (fifo, writer) = sys::pipe().unwrap();
            let old_tail = Arc::new(Tail::of_bytes(fifo.into(), 64));
            let old = Registration::new(&old_tail).unwrap();
            drop(writer);
            assert!(wait(&old_tail, &|tail| tail.lock().ended));
            assert!(wait(&old_tail, &|_| lock().as_ref().is_none_or(|it| !it.sources.is_empty())));

            let (fifo, mut writer) = sys::pipe().unwrap();
            let tail = Arc::new(Tail::of_bytes(fifo.into(), 64));
            let _new = Registration::new(&tail).unwrap();
            drop(old);
            writer.write_all(b"line").unwrap();
            assert!(wait(&tail, &|tail| tail.lock().to_vec() == b"line"), "the source was removed");
        }
    }
}
