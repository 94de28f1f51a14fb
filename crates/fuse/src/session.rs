//! A mount's life: INIT, workers, end.

use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::abi::{self, InitFlags};
use crate::backing::Backer;
use crate::channel::{Channel, Device, Received};
use crate::crew::{Crew, Need, Next, Rank};
use crate::intake::Intake;
use crate::names::Names;
use crate::notify::Notifier;
use crate::park::Parking;
use crate::reply::Reply;
use crate::request::{Incoming, Malformed, NodeId, Offer, Request, Unique, decode};

/// The most bytes that one READ or WRITE carries: 256 pages, as many as every kernel grants.
pub(crate) const MESSAGE_MAX: usize = 1 << 20;

/// What precedes the data of a WRITE, and all of any other request, fits into this.
pub(crate) const HEADERS_MAX: usize = 8192;

const PAGES_MAX: u16 = 256;
const READAHEAD_MAX: u32 = 1 << 20;
/// Requests that nobody waits for (read-ahead, write-back, RELEASE) in flight together …
const BACKGROUND_MAX: u16 = 128;
/// … and from how many on the kernel calls the device congested.
const CONGESTION: u16 = 96;
/// The view may lie on a file system that is stacked on no other.
const STACK_DEPTH_MAX: u32 = 1;

/// What every session asks of the kernel. Not wanted: the write-back cache, so that a write is where
/// it belongs when it returns.
const WANTED: InitFlags = InitFlags::ASYNC_READ
    .union(InitFlags::ATOMIC_O_TRUNC)
    .union(InitFlags::EXPORT_SUPPORT)
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::AUTO_INVAL_DATA)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::READDIRPLUS_AUTO)
    .union(InitFlags::ASYNC_DIO)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::CACHE_SYMLINKS)
    .union(InitFlags::HANDLE_KILLPRIV_V2)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::INIT_EXT)
    .union(InitFlags::CREATE_SUPP_GROUP)
    .union(InitFlags::DIRECT_IO_ALLOW_MMAP);

/// A file system that answers the kernel.
pub trait FileSystem: Send + Sync + 'static {
    /// Answers a request, at once or later. The worker reads no further request until this
    /// returns: what waits for others parks the reply or hands it to another thread.
    fn handle(&self, request: Request<'_>, reply: Reply);

    /// Takes back `lookups` of the lookups of a node. At the end of a mount the rest is not
    /// told.
    fn forget(&self, node: NodeId, lookups: u64);
}

/// What a file system wants beyond the usual.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// The kernel reads and enforces POSIX ACLs; the source has them.
    pub posix_acl: bool,
    /// Handles may be backed by files of the server.
    pub passthrough: bool,
    /// The locks of flock(2) and fcntl(2) come to the server; else the kernel keeps them for each
    /// mount.
    pub locks: bool,
}

/// What kernel and server agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Minor version of the protocol spoken.
    pub minor: u32,
    /// What both sides do.
    pub flags: InitFlags,
}

/// Why a session could not start.
#[derive(Debug)]
pub enum StartError {
    /// The kernel is too old: it speaks this version.
    Version(Offer),
    /// The mount ended before it began.
    Unmounted,
    /// The kernel began with something else than INIT.
    Protocol,
    /// The device failed.
    Io(io::Error),
}

/// A mount that has agreed with the kernel and can be served.
#[derive(Debug)]
pub struct Session {
    pub(crate) channel: Arc<Channel>,
    pub(crate) names: Option<Arc<Names>>,
    negotiated: Negotiated,
}

impl Session {
    /// Answers INIT. Callers of the mount wait until it is served.
    pub fn start(device: Device, wishes: Wishes) -> Result<Session, StartError> {
        let channel = Arc::new(Channel::new(device));
        let parking = Arc::new(Parking::default());
        let mut frame = vec![0; HEADERS_MAX + MESSAGE_MAX];
        loop {
            let len = match channel.receive(&mut frame).map_err(StartError::Io)? {
                Received::Frame(len) => len,
                Received::Nothing => continue,
                Received::End => return Err(StartError::Unmounted),
            };
            let Ok(Incoming::Init { unique, offer }) = decode(&frame[..len]) else {
                return Err(StartError::Protocol);
            };
            let reply = Reply::new(unique, Arc::clone(&channel), Arc::clone(&parking));
            if offer.major > abi::MAJOR {
                // The kernel asks again, in the version that it is told.
                reply.init(&abi::InitOut { major: abi::MAJOR, ..abi::InitOut::default() });
                continue;
            }
            if offer.major < abi::MAJOR || offer.minor < abi::MINOR_MIN {
                reply.error(Errno::PROTO);
                return Err(StartError::Version(offer));
            }
            let (negotiated, answer) = negotiate(&offer, wishes);
            reply.init(&answer);
            let names = Names::start(&channel).map(Arc::new);
            return Ok(Session { channel, names, negotiated });
        }
    }

    /// What was agreed.
    pub fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    /// The way to tell the kernel something unasked, from any thread.
    pub fn notifier(&self) -> Notifier {
        Notifier::new(&self.channel, self.names.as_ref())
    }

    /// The way to let the kernel read and write files of the server itself; `None` if that was not
    /// agreed on.
    pub fn backer(&self) -> Option<Backer> {
        let agreed = self.negotiated.flags.contains(InitFlags::PASSTHROUGH);
        agreed.then(|| Backer::new(&self.channel))
    }

    /// Serves the mount until it is unmounted or aborted, with so many threads; with more while all
    /// of them are in requests ([`crew`](crate::crew)). Every worker has a umask and a working
    /// directory of its own, the usual ones a channel, too.
    pub fn serve(self, workers: NonZeroUsize, fs: &Arc<impl FileSystem>) -> io::Result<()> {
        let parking = Arc::new(Parking::default());
        let crew = Crew::new(workers);
        let outcome = Mutex::new(Ok(()));
        let fail = |error| {
            crew.lose();
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
        };
        std::thread::scope(|scope| {
            let (recruits, recruited) = channel();
            for number in 0..workers.get() {
                let channel =
                    if number == 0 { Arc::clone(&self.channel) } else { self.channel_for_worker() };
                let (parking, recruits) = (Arc::clone(&parking), recruits.clone());
                let (crew, rank, fs) = (&crew, Rank::Usual, &**fs);
                let worker = Worker { channel, parking, fs, crew, rank, recruits };
                worker.recruits.clone().send(worker).expect("received below");
            }
            drop(recruits);
            // This thread starts them all: what a worker takes on for a caller, such as rights, is
            // no other worker's. It is over when none is left who could ask for another.
            for (number, worker) in recruited.iter().enumerate() {
                let run = move || worker.run().unwrap_or_else(fail);
                let name = format!("fuse-{number}");
                let started = std::thread::Builder::new().name(name).spawn_scoped(scope, run);
                let _ = started.map_err(fail);
            }
        });
        parking.close();
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel of its own, or, where the device cannot be opened again (a sandbox), the first.
    fn channel_for_worker(&self) -> Arc<Channel> {
        match self.channel.another() {
            Ok(channel) => Arc::new(channel),
            Err(errno) => {
                tracing::debug!(%errno, "workers share a channel");
                Arc::clone(&self.channel)
            }
        }
    }
}

fn negotiate(offer: &Offer, wishes: Wishes) -> (Negotiated, abi::InitOut) {
    let mut wanted = WANTED;
    wanted.set(InitFlags::POSIX_ACL, wishes.posix_acl);
    wanted.set(InitFlags::PASSTHROUGH, wishes.passthrough);
    wanted.set(InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS, wishes.locks);
    let flags = wanted & offer.flags;
    let minor = offer.minor.min(abi::MINOR_MAX);
    let passthrough = flags.contains(InitFlags::PASSTHROUGH);
    let answer = abi::InitOut {
        major: abi::MAJOR,
        minor,
        max_readahead: offer.readahead_max.min(READAHEAD_MAX),
        flags: flags.bits() as u32,
        max_background: BACKGROUND_MAX,
        congestion_threshold: CONGESTION,
        max_write: MESSAGE_MAX as u32,
        time_gran: 1,
        max_pages: PAGES_MAX,
        flags2: (flags.bits() >> 32) as u32,
        max_stack_depth: if passthrough { STACK_DEPTH_MAX } else { 0 },
        ..abi::InitOut::default()
    };
    (Negotiated { minor, flags }, answer)
}

thread_local! {
    static IS_ANSWERING: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread is about to answer a request: a panic ends that, and no more.
pub fn is_answering() -> bool {
    IS_ANSWERING.get()
}

struct Worker<'a, F> {
    channel: Arc<Channel>,
    parking: Arc<Parking>,
    fs: &'a F,
    crew: &'a Crew,
    rank: Rank,
    recruits: Sender<Worker<'a, F>>,
}

impl<F: FileSystem> Worker<'_, F> {
    fn run(&self) -> io::Result<()> {
        // SAFETY: unsharing umask and working directory leaves descriptors and memory shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        let mut intake = Intake::new(&self.channel);
        while let Some(frame) = intake.next()? {
            if self.crew.begin() == Need::Another {
                self.recruit();
            }
            // A fault in one request answers EIO (its reply is dropped) and leaves the mount alive:
            // a worker less each time would end in a mount that answers nobody.
            IS_ANSWERING.set(true);
            let _ = catch_unwind(AssertUnwindSafe(|| self.dispatch(frame)));
            IS_ANSWERING.set(false);
            if self.crew.end(self.rank) == Next::Leave {
                break;
            }
        }
        Ok(())
    }

    /// Has a worker started that waits in the place of this one, by its channel: answers go back by
    /// that as long as somebody owes one.
    fn recruit(&self) {
        let (channel, parking) = (Arc::clone(&self.channel), Arc::clone(&self.parking));
        let recruits = self.recruits.clone();
        let worker = Worker { channel, parking, rank: Rank::Extra, recruits, ..*self };
        self.recruits.send(worker).expect("received until the last worker is gone");
    }

    fn dispatch(&self, frame: &[u8]) {
        match decode(frame) {
            Ok(Incoming::Request(request)) => {
                let reply = self.reply(request.unique);
                self.fs.handle(request, reply);
            }
            Ok(Incoming::Forget(forgets)) => {
                forgets.for_each(|(node, lookups)| self.fs.forget(node, lookups));
            }
            Ok(Incoming::Interrupt { target }) => self.parking.interrupt(target),
            Ok(Incoming::Destroy { unique }) => self.reply(unique).ok(),
            Ok(Incoming::Init { unique, .. }) => self.reply(unique).error(Errno::PROTO),
            Err(malformed) => self.refuse(malformed),
        }
    }

    fn refuse(&self, malformed: Malformed) {
        tracing::error!(?malformed, "the kernel sent a frame that is not understood");
        match malformed {
            Malformed::Frame => {}
            Malformed::Request { unique, .. } => self.reply(unique).error(Errno::INVAL),
        }
    }

    fn reply(&self, unique: Unique) -> Reply {
        Reply::new(unique, Arc::clone(&self.channel), Arc::clone(&self.parking))
    }
}
