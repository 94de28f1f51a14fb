//! The thread that has the kernel drop names and content.
//!
//! To drop a name the kernel takes its directory's lock, and to drop content the page's, whose
//! holder may be waiting for an answer of the server. A server that is killed in that moment keeps
//! all its descriptors open until the thread that waits for the lock can end; were the device among
//! them on which the holder's request came, that request would never end, and the mount would hang
//! rather than be dead. So this thread shares its descriptors with no other, and has but two: a
//! channel on which no requests come, and one by which the [`guardian`](crate::guardian) knows when
//! it is gone.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::UnshareFlags;

use crate::channel::Channel;
use crate::guardian::{Guardian, keep_only};

/// What tells the thread what to drop; it ends when this is gone.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) orders: Sender<Order>,
    /// Without it a killed server's mount may hang, and does all else.
    pub(crate) _guardian: Option<Guardian>,
}

pub(crate) struct Order {
    code: i32,
    message: Vec<u8>,
    done: SyncSender<Result<(), Errno>>,
}

impl Names {
    /// Starts the thread; `None` where it can have no channel of its own.
    pub fn start(channel_of_server: &Arc<Channel>) -> Option<Names> {
        let (orders, ordered) = channel();
        let (ready, begun) = sync_channel(1);
        let connection = Arc::clone(channel_of_server);
        let (gone, life) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        let alive = life.as_raw_fd();
        let run = move || {
            let own = apart(&connection, alive);
            drop(connection);
            // Nobody waits for it any more only if all is over.
            let _ = ready.send(own.as_ref().map(drop).map_err(|errno| *errno));
            if let Ok((own, _alive)) = own {
                serve(&own, &ordered);
            }
        };
        let thread = std::thread::Builder::new().name("fuse-names".to_owned()).spawn(run);
        let begun = thread.map(|_| begun.recv());
        // From here on the thread alone has it.
        drop(life);
        match begun {
            Ok(Ok(Ok(()))) => {
                let guardian = Guardian::start(channel_of_server, &gone)
                    .inspect_err(|errno| tracing::debug!(%errno, "the mount has no guardian"));
                Some(Names { orders, _guardian: guardian.ok() })
            }
            failed => {
                tracing::debug!(?failed, "names are dropped by whoever wants it");
                None
            }
        }
    }

    /// Has the kernel told, and waits until it was.
    pub fn tell(&self, code: i32, message: Vec<u8>) -> Result<(), Errno> {
        let (done, outcome) = sync_channel(1);
        self.orders.send(Order { code, message, done }).map_err(|_| Errno::NODEV)?;
        outcome.recv().map_err(|_| Errno::NODEV)?
    }
}

/// Parts this thread's descriptors from those of all others, and keeps but a new channel and what
/// tells that it is alive.
fn apart(connection: &Channel, alive: RawFd) -> Result<(Channel, OwnedFd), Errno> {
    // SAFETY: from here on this thread uses no descriptor that another opens, and closes none that
    // another uses: theirs are their own.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }?;
    // SAFETY: in this table nobody else owns it.
    let alive = unsafe { OwnedFd::from_raw_fd(alive) };
    let own = connection.another()?;
    keep_only(&mut [own.device().as_raw_fd(), alive.as_raw_fd()])?;
    Ok((own, alive))
}

fn serve(channel: &Channel, ordered: &Receiver<Order>) {
    for Order { code, message, done } in ordered {
        // Who asked may have ended.
        let _ = done.send(channel.send(0, code, &message, &[]));
    }
}
