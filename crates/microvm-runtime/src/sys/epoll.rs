//! A set of readable descriptors (`epoll(7)`), and a wake-up for the thread that waits on them (`eventfd(2)`).

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use super::Errno;

/// The most events that one wait returns.
const EVENTS: usize = 64;

/// An epoll instance; each descriptor has a key of the caller's.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> Result<Self, Errno> {
        epoll::create(CreateFlags::CLOEXEC).map(Self)
    }

    /// Adds a descriptor.
    pub(crate) fn add(&self, fd: impl AsFd, key: u64) -> Result<(), Errno> {
        epoll::add(&self.0, fd, EventData::new_u64(key), EventFlags::IN)
    }

    /// Removes a descriptor.
    pub(crate) fn remove(&self, fd: impl AsFd) -> Result<(), Errno> {
        epoll::delete(&self.0, fd)
    }

    /// Waits for ever; returns the key of each readable descriptor, and true if its other end has hung up.
    pub(crate) fn wait(&self) -> Result<Vec<(u64, bool)>, Errno> {
        let mut events = Vec::<Event>::with_capacity(EVENTS);
        match epoll::wait(&self.0, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let hung_up = EventFlags::HUP | EventFlags::ERR;
        let event = |event: &Event| (event.data.u64(), { event.flags }.intersects(hung_up));
        Ok(events.iter().map(event).collect())
    }
}

/// A counter that makes a descriptor readable.
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    /// Makes the descriptor readable. A full counter does so already.
    pub(crate) fn send(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
