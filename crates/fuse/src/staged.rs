//! The kernel's side of a session, played by a test whose threads are shuttle's: no mount, and
//! nobody but the test that makes requests.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use zerocopy::FromBytes;

use crate::abi;
use crate::channel::{Channel, Device};
use crate::notify::Notifier;
use crate::park::Parking;
use crate::reply::Reply;
use crate::request::Unique;

/// Longer than any answer that a test waits for.
const ANSWER_BYTES: usize = 4096;

shuttle::lazy_static! {
    static ref BELL: Bell = Bell::default();
}

/// Rings when something was told to a kernel.
#[derive(Default)]
struct Bell {
    lock: Mutex<()>,
    rung: Condvar,
}

/// Wakes those who wait for an answer.
pub(crate) fn told() {
    // Who is about to wait does so before it rings.
    drop(lock(&BELL.lock));
    BELL.rung.notify_all();
}

/// A kernel that awaits answers.
pub struct Kernel {
    channel: Arc<Channel>,
    parking: Arc<Parking>,
    ears: OwnedFd,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    requests: u64,
    /// Until they are asked for; what was asked for stays noted.
    answers: HashMap<u64, Option<Answer>>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None` where all is well.
    pub error: Option<Errno>,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Kernel {
    /// Makes one that is connected to nobody.
    pub fn new() -> Result<Kernel, Errno> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) = socketpair(family, kind, SocketFlags::NONBLOCK, None)?;
        Ok(Kernel {
            channel: Arc::new(Channel::new(Device(theirs))),
            parking: Arc::default(),
            ears: ours,
            heard: Mutex::default(),
        })
    }

    /// The way to tell it something unasked.
    pub fn notifier(&self) -> Notifier {
        Notifier::new(&self.channel, None)
    }

    /// Makes a request.
    pub fn request(&self) -> (Unique, Reply) {
        let mut heard = lock(&self.heard);
        heard.requests += 1;
        let unique = Unique(heard.requests);
        (unique, Reply::new(unique, Arc::clone(&self.channel), Arc::clone(&self.parking)))
    }

    /// Tells that a signal came for whoever waits for an answer.
    pub fn interrupt(&self, unique: Unique) {
        self.parking.interrupt(unique);
    }

    /// Returns whether a request is not answered.
    pub fn owes(&self) -> bool {
        let mut heard = lock(&self.heard);
        heard.listen(&self.ears);
        heard.requests > heard.answers.len() as u64
    }

    /// Waits for the answer to a request. Panics when something is answered twice.
    pub fn answer(&self, unique: Unique) -> Answer {
        let mut silence = lock(&BELL.lock);
        loop {
            let mut heard = lock(&self.heard);
            heard.listen(&self.ears);
            if let Some(answer) = heard.answers.get_mut(&unique.0).and_then(Option::take) {
                return answer;
            }
            drop(heard);
            silence = BELL.rung.wait(silence).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Heard {
    fn listen(&mut self, ears: &OwnedFd) {
        let mut message = [0; ANSWER_BYTES];
        while let Ok(length) = rustix::io::read(ears, &mut message) {
            let Ok((header, body)) = abi::OutHeader::read_from_prefix(&message[..length]) else {
                return;
            };
            // What was told unasked has no number.
            if header.unique != 0 {
                let error = (header.error != 0).then(|| Errno::from_raw_os_error(-header.error));
                let answer = Answer { error, body: body.to_vec() };
                let before = self.answers.insert(header.unique, Some(answer));
                assert_eq!(before, None, "a request is answered once");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
