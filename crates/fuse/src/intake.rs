//! How a worker comes by its requests, and by the memory for them.
//!
//! A request may have 1 MiB, and an answer, too; most have less than a page, and most views are idle
//! most of the time. So what much has filled is kept for a moment, for another may follow, and then
//! given back. A worker that keeps something does not wait in read(2), where nothing but a request
//! finds it, but in epoll(7), as one of those of whom a request wakes one. There it comes before all
//! others: who writes much, piece by piece, meets the same worker each time, and the same memory.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use crate::channel::{Channel, Haste, Received};
use crate::scratch::{ANSWERS, Scratch};
use crate::session::{HEADERS_MAX, MESSAGE_MAX};

/// How long much is kept: a thousand times as long as it takes to fill it anew.
const KEPT_FOR: Duration = Duration::from_millis(100);

/// Where a worker gets its requests from.
pub(crate) struct Intake {
    channel: Arc<Channel>,
    frame: Scratch,
    vigil: Option<Vigil>,
}

/// A wait for requests that ends in time: for a worker that keeps much.
struct Vigil {
    epoll: OwnedFd,
    _haste: Haste,
    until: Instant,
}

impl Intake {
    pub fn new(channel: &Arc<Channel>) -> Intake {
        let frame = Scratch::of(HEADERS_MAX + MESSAGE_MAX);
        Intake { channel: Arc::clone(channel), frame, vigil: None }
    }

    /// Waits for a frame; `None` when there will be none any more.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.frame.had_much() | ANSWERS.with_borrow_mut(Scratch::had_much) {
            self.keep();
        }
        let len = loop {
            if self.vigil.as_ref().is_some_and(Vigil::is_over) {
                self.give_back();
            }
            match self.channel.receive(self.frame.all())? {
                Received::Frame(len) => break len,
                Received::End => return Ok(None),
                Received::Nothing => match &self.vigil {
                    Some(vigil) => vigil.wait(),
                    // Others have this channel as well, and one of them keeps something.
                    None => {
                        let device = self.channel.device();
                        let _ = poll(&mut [PollFd::new(&device, PollFlags::IN)], None);
                    }
                },
            }
        };
        self.frame.filled(len);
        Ok(Some(self.frame.first(len)))
    }

    fn keep(&mut self) {
        let until = Instant::now() + KEPT_FOR;
        match &mut self.vigil {
            Some(vigil) => vigil.until = until,
            None => match Vigil::begin(&self.channel, until) {
                Ok(vigil) => self.vigil = Some(vigil),
                // There is no descriptor for it: slower, and as good.
                Err(errno) => {
                    tracing::debug!(%errno, "memory is given back at once");
                    self.give_back();
                }
            },
        }
    }

    fn give_back(&mut self) {
        self.vigil = None;
        self.frame.give_back();
        ANSWERS.with_borrow_mut(Scratch::give_back);
    }
}

impl Vigil {
    fn begin(channel: &Arc<Channel>, until: Instant) -> Result<Vigil, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        epoll::add(&epoll, channel.device(), epoll::EventData::new_u64(0), flags)?;
        Ok(Vigil { epoll, _haste: channel.make_haste()?, until })
    }

    /// Whether its time has come, also while requests come without a pause: none of them was long.
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Waits for a request, or until its time has come.
    fn wait(&self) {
        let left = self.until.saturating_duration_since(Instant::now());
        // Whatever comes of it, the channel is asked next.
        if let Ok(patience) = Timespec::try_from(left) {
            let _ = epoll::wait(&self.epoll, &mut [MaybeUninit::uninit()], Some(&patience));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{spawn, yield_now};

    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

    use super::*;
    use crate::channel::Device;
    use crate::scratch::LITTLE_BYTES;
    use crate::scratch::tests::resident;

    const DEADLINE: Duration = Duration::from_secs(20);
    const MUCH: usize = 2 * LITTLE_BYTES;

    /// A worker whose requests a test makes.
    struct World {
        kernel: OwnedFd,
        channel: Arc<Channel>,
        /// How long a request was, and where it is.
        received: mpsc::Receiver<(usize, usize)>,
    }

    impl World {
        fn new() -> World {
            let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
            let (kernel, device) = socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap();
            let channel = Arc::new(Channel::new(Device(device)));
            let mut intake = Intake::new(&channel);
            let (tell, received) = mpsc::channel();
            spawn(move || {
                while let Some(frame) = intake.next().unwrap()
                    && !frame.is_empty()
                {
                    let place = frame.as_ptr().expose_provenance();
                    let _ = tell.send((frame.len(), place));
                }
            });
            World { kernel, channel, received }
        }

        /// Returns where it is.
        fn request(&self, len: usize) -> usize {
            assert_eq!(send(&self.kernel, &vec![1; len], SendFlags::empty()), Ok(len));
            let (received, place) = self.received.recv_timeout(DEADLINE).unwrap();
            assert_eq!(received, len);
            place
        }

        fn waits(&self) -> bool {
            !fcntl_getfl(self.channel.device()).unwrap().contains(OFlags::NONBLOCK)
        }
    }

    fn wait_until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            yield_now();
        }
    }

    #[test]
    fn what_a_long_request_filled_is_given_back_when_none_follows() {
        let world = World::new();
        for _ in 0..2 {
            let place = world.request(MUCH);
            wait_until("it is given back", || resident(place, MUCH) < MUCH);
            wait_until("nothing is kept, so it just waits", || world.waits());
            world.request(1);
            assert!(world.waits());
        }
    }

    #[test]
    fn who_shares_a_channel_with_one_that_does_not_wait_misses_nothing() {
        let world = World::new();
        let hasty = [(); 2].map(|()| world.channel.make_haste().unwrap());
        for haste in hasty {
            for _ in 0..3 {
                world.request(1);
            }
            assert!(!world.waits());
            drop(haste);
        }
        assert!(world.waits());
    }
}
