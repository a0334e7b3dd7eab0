//! The last bytes of a stream that one or more FIFOs feed.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::sys::{Errno, file};

/// Bytes that one read takes at most: what a FIFO holds by default.
pub(super) const PIECE: usize = 64 << 10;

/// Pieces that one look at a FIFO takes at most: `fs.pipe-max-size` is 1 MiB by default, and a process that writes on
/// must not keep the reader.
const PIECES: usize = 32;

/// Bytes of an unfinished line that are held back at most.
const LONGEST_LINE: usize = 8 << 10;

type Subscriber = Box<dyn FnMut(&[u8]) + Send>;

/// A bounded tail. Whoever reads for it calls [`feed`](Self::feed); everybody else looks at the [`State`].
pub(super) struct Tail {
    /// Bytes that are kept.
    keep: usize,
    feeding: Mutex<Feeding>,
    state: Mutex<State>,
    more: Condvar,
}

/// The state of the thread that reads at the moment.
struct Feeding {
    pipes: Vec<Option<Pipe>>,
    subscribers: Vec<Subscriber>,
}

struct Pipe {
    fd: Arc<OwnedFd>,
    /// The line that is not finished yet; `None` if bytes are passed on as they come.
    line: Option<Vec<u8>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) bytes: VecDeque<u8>,
    /// Bytes that have arrived so far.
    pub(super) received: u64,
    /// Nobody has any of the FIFOs open for writing any more.
    pub(super) ended: bool,
    /// Subscribers that the reading thread has not taken over yet.
    joining: Vec<Subscriber>,
}

impl Tail {
    /// Makes the tail of a stream of bytes, without line handling.
    pub(super) fn of_bytes(fifo: OwnedFd, keep: usize) -> Self {
        Self::new(vec![Pipe { fd: Arc::new(fifo), line: None }], keep)
    }

    /// A stream of lines, each whole, from all of these.
    pub(super) fn of_lines(fifos: Vec<OwnedFd>, keep: usize) -> Self {
        let pipe = |fifo| Pipe { fd: Arc::new(fifo), line: Some(Vec::new()) };
        Self::new(fifos.into_iter().map(pipe).collect(), keep)
    }

    fn new(pipes: Vec<Pipe>, keep: usize) -> Self {
        let ended = pipes.is_empty();
        Self {
            keep,
            feeding: Mutex::new(Feeding {
                pipes: pipes.into_iter().map(Some).collect(),
                subscribers: Vec::new(),
            }),
            state: Mutex::new(State { ended, ..State::default() }),
            more: Condvar::new(),
        }
    }

    /// Returns the FIFOs, in the order of [`feed`](Self::feed)'s numbers.
    pub(super) fn fifos(&self) -> Vec<Arc<OwnedFd>> {
        let feeding = self.feeding.lock().unwrap_or_else(PoisonError::into_inner);
        feeding.pipes.iter().flatten().map(|pipe| Arc::clone(&pipe.fd)).collect()
    }

    /// Reads one piece from a FIFO that is ready; returns whether the FIFO has ended.
    ///
    /// A FIFO that no writer has opened yet reads as if it had ended, so only `hung_up` makes it so.
    pub(super) fn feed(&self, index: usize, hung_up: bool, buffer: &mut [u8]) -> bool {
        let mut feeding = self.feeding.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Some(pipe)) = feeding.pipes.get(index) else { return true };
        match file::read(&pipe.fd, buffer) {
            Ok(0) if hung_up => {}
            Ok(0) | Err(Errno::AGAIN) => return false,
            Ok(length) => {
                self.append(&mut feeding, index, &buffer[..length]);
                return false;
            }
            Err(_) => {}
        }
        self.flush(&mut feeding, index);
        feeding.pipes[index] = None;
        if feeding.pipes.iter().all(Option::is_none) {
            // A subscriber may hold what leads back here.
            feeding.subscribers.clear();
            let joining = {
                let mut state = self.lock();
                state.ended = true;
                std::mem::take(&mut state.joining)
            };
            drop(joining);
            self.more.notify_all();
        }
        true
    }

    /// Reads what the FIFOs hold at this moment, unfinished lines too.
    ///
    /// By the time that the exit of a process is observed, all that the process wrote is in its FIFO or was read.
    pub(super) fn catch_up(&self) {
        let mut buffer = vec![0; PIECE];
        let mut feeding = self.feeding.lock().unwrap_or_else(PoisonError::into_inner);
        for index in 0..feeding.pipes.len() {
            for _ in 0..PIECES {
                let Some(pipe) = &feeding.pipes[index] else { break };
                match file::read(&pipe.fd, &mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => self.append(&mut feeding, index, &buffer[..length]),
                }
            }
            self.flush(&mut feeding, index);
        }
    }

    fn append(&self, feeding: &mut Feeding, index: usize, piece: &[u8]) {
        let Some(Some(pipe)) = feeding.pipes.get_mut(index) else { return };
        let Some(line) = &mut pipe.line else {
            return self.keep(&mut feeding.subscribers, piece);
        };
        line.extend_from_slice(piece);
        let whole = match line.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if line.len() > LONGEST_LINE => line.len(),
            None => return,
        };
        let lines: Vec<u8> = line.drain(..whole).collect();
        self.keep(&mut feeding.subscribers, &lines);
    }

    fn flush(&self, feeding: &mut Feeding, index: usize) {
        let Some(Some(Pipe { line: Some(line), .. })) = feeding.pipes.get_mut(index) else {
            return;
        };
        if !line.is_empty() {
            let mut rest = std::mem::take(line);
            rest.push(b'\n');
            self.keep(&mut feeding.subscribers, &rest);
        }
    }

    fn keep(&self, subscribers: &mut Vec<Subscriber>, piece: &[u8]) {
        let mut state = self.lock();
        state.bytes.extend(piece);
        let excess = state.bytes.len().saturating_sub(self.keep);
        state.bytes.drain(..excess);
        state.received = state.received.saturating_add(piece.len() as u64);
        subscribers.append(&mut state.joining);
        drop(state);
        self.more.notify_all();
        // Without the lock: a subscriber may look at the tail. One that panics is called no more.
        subscribers.retain_mut(|call| catch_unwind(AssertUnwindSafe(|| call(piece))).is_ok());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `enough` of the state, or until the deadline.
    pub(super) fn wait_until(
        &self,
        deadline: Option<Instant>,
        mut enough: impl FnMut(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while !enough(&state) {
            state = match deadline {
                None => self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state
    }

    /// Calls `subscriber` with each piece from now on; returns what the tail holds so far.
    pub(super) fn subscribe(&self, subscriber: Subscriber) -> Vec<u8> {
        let mut state = self.lock();
        if !state.ended {
            state.joining.push(subscriber);
        }
        state.to_vec()
    }
}

impl State {
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let (front, back) = self.bytes.as_slices();
        [front, back].concat()
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Tail")
            .field("keep", &self.keep)
            .field("received", &state.received)
            .field("ended", &state.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::sys::pipe;

    fn text(tail: &Tail) -> String {
        String::from_utf8(tail.lock().to_vec()).unwrap()
    }

    #[test]
    fn lines_of_two_pipes_stay_whole() {
        let ((one, mut to_one), (two, mut to_two)) = (pipe().unwrap(), pipe().unwrap());
        let tail = Tail::of_lines(vec![one.into(), two.into()], 1 << 10);
        let mut buffer = [0; 64];
        to_one.write_all(b"first ").unwrap();
        assert!(!tail.feed(0, false, &mut buffer));
        to_two.write_all(b"second\n").unwrap();
        assert!(!tail.feed(1, false, &mut buffer));
        to_one.write_all(b"line\nand a rest").unwrap();
        assert!(!tail.feed(0, false, &mut buffer));
        assert_eq!(text(&tail), "second\nfirst line\n");
        drop((to_one, to_two));
        assert!(tail.feed(0, true, &mut buffer));
        assert!(!tail.lock().ended, "the other pipe has not ended");
        assert!(tail.feed(1, true, &mut buffer));
        assert_eq!(text(&tail), "second\nfirst line\nand a rest\n");
        assert!(tail.lock().ended);
    }

    #[test]
    fn endless_lines_are_bounded() {
        let (from, mut to) = pipe().unwrap();
        let tail = Tail::of_lines(vec![from.into()], 1 << 20);
        to.write_all(&vec![b'x'; LONGEST_LINE + 1]).unwrap();
        assert!(!tail.feed(0, false, &mut vec![0; PIECE]));
        assert_eq!(tail.lock().bytes.len(), LONGEST_LINE + 1);
    }

    #[test]
    fn only_hang_up_ends_streams() {
        let (from, to) = pipe().unwrap();
        let tail = Tail::of_bytes(from.into(), 10);
        drop(to);
        assert!(!tail.feed(0, false, &mut [0; 8]), "no writer has come yet");
        assert!(tail.feed(0, true, &mut [0; 8]));
    }
}
