//! One stream of a VM: [`StreamReader`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::drain::Registration;
use super::tail::Tail;

/// One stream of a VM: the guest's console ([`Vm::console`](crate::Vm::console)) or the VM's log
/// ([`Vm::log`](crate::Vm::log)).
///
/// One thread reads the streams of all VMs of this process and keeps the last bytes of each; the thread ends with the
/// last reader. A clone reads the same stream.
///
/// # Caveats
/// A VM does not wait for its reader: what comes faster than this process reads is lost once the FIFO is full (64 KiB).
#[derive(Debug, Clone)]
pub struct StreamReader {
    tail: Arc<Tail>,
    _registration: Arc<Registration>,
}

impl StreamReader {
    pub(super) fn new(tail: Tail) -> io::Result<Self> {
        let tail = Arc::new(tail);
        let registration = Arc::new(Registration::new(&tail)?);
        Ok(Self { tail, _registration: registration })
    }

    /// Returns the last bytes of the stream.
    #[must_use]
    pub fn tail(&self) -> Vec<u8> {
        self.tail.lock().to_vec()
    }

    /// Returns the last bytes of the stream as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.tail()).into_owned()
    }

    /// Calls `subscriber` with each piece of the stream that arrives from now on, and returns the last bytes that arrived
    /// before: no byte is in both, and none is lost between them.
    ///
    /// The thread that reads for all VMs of this process makes the calls. While `subscriber` does not return, no stream
    /// of any VM is read. A subscriber that panics is called no more. All subscribers are dropped when the stream ends.
    pub fn subscribe(&self, subscriber: impl FnMut(&[u8]) + Send + 'static) -> Vec<u8> {
        self.tail.subscribe(Box::new(subscriber))
    }

    /// Waits until the stream's tail has a whole line that is `wanted`; `None` if `timeout` passes, or the stream ends,
    /// without such a line.
    pub fn wait_for_line(
        &self,
        wanted: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Option<String> {
        // A deadline that cannot be represented means for ever.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let (tail, seen, ended) = {
                let state = self.tail.lock();
                (state.to_vec(), state.received, state.ended)
            };
            // Asked without the lock: `wanted` may take its time, or look at the tail itself.
            let whole = tail.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            let text = String::from_utf8_lossy(&tail[..whole]);
            if let Some(line) = text.lines().find(|line| wanted(line)) {
                return Some(line.to_owned());
            }
            if ended || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return None;
            }
            drop(self.tail.wait_until(deadline, |state| state.received != seen || state.ended));
        }
    }

    /// Waits until nobody has the stream open for writing any more, so that the tail is complete; returns whether that
    /// came before `timeout` had passed.
    pub fn wait_for_end(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        self.tail.wait_until(deadline, |state| state.ended).ended
    }

    /// Returns the output of a process up to the process's end, as far as the tail keeps the output.
    pub(super) fn remaining_output(&self) -> String {
        self.tail.catch_up();
        self.text()
    }
}
