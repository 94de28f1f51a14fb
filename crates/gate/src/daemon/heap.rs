//! The memory of the daemon: it has few heaps, and what was read of buckets long ago goes back to the system.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::buckets::Buckets;

/// How many heaps the C library may have: on many cores two threads that wait for one still wait for less than what they
/// do with what is on it.
const HEAPS_MAX: libc::c_int = 2;

/// So often it is looked for what is old: nobody waits for that.
const PAUSE: Duration = Duration::from_secs(10);

/// Of each heap the C library keeps what was once needed: with one for each of many threads a daemon whose buckets are
/// read needs twice the memory.
pub fn keep_few() {
    // SAFETY: it changes a number in the allocator, and may be called at any time.
    let _as_many_as_before = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX) };
}

/// Gives back what is read of buckets once it is old, as long as this is there.
pub struct Thrift {
    /// None once it ends.
    end: Option<Sender<Infallible>>,
    worker: Option<JoinHandle<()>>,
}

impl Thrift {
    pub fn begin(buckets: Buckets) -> io::Result<Thrift> {
        let (end, ended) = channel::<Infallible>();
        let worker = thread::Builder::new().name("gate-thrift".to_owned()).spawn(move || {
            while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                if buckets.let_go_of_old() {
                    give_back();
                }
            }
        })?;
        Ok(Thrift { end: Some(end), worker: Some(worker) })
    }
}

impl Drop for Thrift {
    fn drop(&mut self) {
        self.end = None;
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the thread that gives memory back is gone");
        }
    }
}

/// What lies free in the heaps is the system's again.
fn give_back() {
    // SAFETY: it touches nothing that is in use, and may be called at any time.
    let _was_there_any = unsafe { libc::malloc_trim(0) };
}
