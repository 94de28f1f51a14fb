//! The thread that has the kernel drop names.
//!
//! To drop a name the kernel takes its directory's lock, whose holder may be waiting for an answer
//! of the server. A server that is killed in that moment keeps all its descriptors open until the
//! thread that waits for the lock can end; were the device among them on which the holder's
//! request came, that request would never end, and the mount would hang rather than be dead. So
//! this thread shares its descriptors with no other, and has but one: a channel on which no
//! requests come.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::channel::Channel;

/// What tells the thread what to drop; it ends when this is gone.
#[derive(Debug)]
pub(crate) struct Names {
    orders: Sender<Order>,
}

struct Order {
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
        let run = move || {
            let own = apart(&connection);
            drop(connection);
            // Nobody waits for it any more only if all is over.
            let _ = ready.send(own.as_ref().map(drop).map_err(|errno| *errno));
            if let Ok(own) = own {
                serve(&own, &ordered);
            }
        };
        let thread = std::thread::Builder::new().name("fuse-names".to_owned()).spawn(run);
        match thread.map(|_| begun.recv()) {
            Ok(Ok(Ok(()))) => Some(Names { orders }),
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

/// Parts this thread's descriptors from those of all others, and keeps but a new channel.
fn apart(connection: &Channel) -> Result<Channel, Errno> {
    // SAFETY: from here on this thread uses no descriptor that another opens, and closes none that
    // another uses: theirs are their own.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }?;
    let own = connection.another()?;
    let kept = own.device().as_raw_fd().cast_unsigned();
    let below = kept.checked_sub(1).map(|last| (0, last));
    for (first, last) in below.into_iter().chain([(kept + 1, u32::MAX)]) {
        // SAFETY: whoever owns these descriptors has them in another table.
        if unsafe { libc::close_range(first, last, 0) } != 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
    }
    Ok(own)
}

fn serve(channel: &Channel, ordered: &Receiver<Order>) {
    for Order { code, message, done } in ordered {
        // Who asked may have ended.
        let _ = done.send(channel.send(0, code, &message, &[]));
    }
}
