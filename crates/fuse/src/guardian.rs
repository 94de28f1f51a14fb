//! The process that sees a killed server off.
//!
//! A server that is killed while the kernel drops a name for it has one thread left, until that gets
//! the directory's lock ([`names`](crate::names)). As long as that thread has its channel the
//! connection lives, and takes requests that nobody reads; one of them may come from who has just
//! got the lock. So a process that is not killed along has a channel, too: once the server is gone
//! it answers every request that the mount is dead, until the thread is gone as well.
//!
//! It is forked while others may hold locks, so it allocates nothing and calls the kernel alone.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use zerocopy::FromBytes;

use crate::abi;
use crate::channel::Channel;
use crate::session::{HEADERS_MAX, MESSAGE_MAX};

/// What it is listed as.
const NAME: &CStr = c"fuse-guardian";

/// Keeps the guardian waiting: it acts when this is gone.
#[derive(Debug)]
pub(crate) struct Guardian {
    _server: OwnedFd,
}

/// What the guardian has open.
struct Vigil<'a> {
    /// Hangs up when the server is gone.
    server: BorrowedFd<'a>,
    /// Hangs up when the thread that drops names is gone.
    names: BorrowedFd<'a>,
    channel: &'a Channel,
}

impl Guardian {
    /// Starts it. `names` hangs up when the thread that drops names is gone.
    pub fn start(connection: &Channel, names: &OwnedFd) -> Result<Guardian, Errno> {
        let channel = connection.another()?;
        let (watched, server) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut frame = vec![0; HEADERS_MAX + MESSAGE_MAX];
        let command = command_line();
        // SAFETY: the child allocates nothing and takes no lock; it never returns.
        match unsafe { libc::fork() } {
            -1 => Err(last_errno()),
            0 => {
                // SAFETY: the process's own arguments, which nothing reads here.
                unsafe { command.rename() };
                let (server, names) = (watched.as_fd(), names.as_fd());
                Vigil { server, names, channel: &channel }.keep(&mut frame);
                // SAFETY: nothing of the server's is cleaned up in its child.
                unsafe { libc::_exit(0) }
            }
            _ => Ok(Guardian { _server: server }),
        }
    }
}

/// Where the arguments of this process lie: what it is listed as.
struct CommandLine {
    start: usize,
    bytes: usize,
}

/// Finds the arguments; none where the kernel does not tell.
fn command_line() -> CommandLine {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before may have blanks of its own; they are the 48th and 49th field, it the 2nd.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let mut ends = fields.skip(45).map_while(|field| field.parse::<usize>().ok());
    let (start, end) = (ends.next().unwrap_or(0), ends.next().unwrap_or(0));
    CommandLine { start, bytes: if start == 0 { 0 } else { end.saturating_sub(start) } }
}

impl CommandLine {
    /// Shows the name alone: whoever looks for the server is not to find this process.
    ///
    /// # Safety
    /// Nothing may use the arguments meanwhile or later.
    unsafe fn rename(&self) {
        let arguments = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
        let shown = NAME.to_bytes().len().min(self.bytes.saturating_sub(1));
        // SAFETY: so many bytes are there, and `shown` is fewer.
        unsafe {
            arguments.write_bytes(0, self.bytes);
            arguments.copy_from_nonoverlapping(NAME.as_ptr().cast(), shown);
        }
    }
}

impl Vigil<'_> {
    fn keep(&self, frame: &mut [u8]) {
        // Without them it is as good, but listed and signalled with the server.
        let _ = rustix::process::setsid();
        let _ = rustix::process::chdir(c"/");
        let _ = rustix::thread::set_name(NAME);
        let mut kept = [self.server, self.names, self.channel.device()].map(|fd| fd.as_raw_fd());
        if keep_only(&mut kept).is_err() {
            return;
        }
        while !has_hung_up(self.server) {}
        while !has_hung_up_before(self.channel.device(), self.names) && self.answer(frame) {}
    }

    /// Answers one request; false if there will be none any more.
    fn answer(&self, frame: &mut [u8]) -> bool {
        let len = match rustix::io::read(self.channel.device(), &mut *frame) {
            Ok(len) => len,
            Err(errno) => return matches!(errno, Errno::INTR | Errno::AGAIN | Errno::NOENT),
        };
        if let Ok((header, _)) = abi::InHeader::read_from_prefix(&frame[..len]) {
            // What wants no answer is not found.
            let _ = self.channel.send(header.unique, -Errno::NOTCONN.raw_os_error(), &[], &[]);
        }
        true
    }
}

fn has_hung_up(pipe: BorrowedFd<'_>) -> bool {
    let mut watched = [PollFd::new(&pipe, PollFlags::empty())];
    poll(&mut watched, None).is_ok() && !watched[0].revents().is_empty()
}

/// Waits until a channel has a request or a pipe has hung up; returns whether that has.
fn has_hung_up_before(channel: BorrowedFd<'_>, pipe: BorrowedFd<'_>) -> bool {
    let mut watched =
        [PollFd::new(&pipe, PollFlags::empty()), PollFd::new(&channel, PollFlags::IN)];
    // A signal is as good as nothing.
    while poll(&mut watched, None).is_err() {}
    !watched[0].revents().is_empty()
}

/// Closes all descriptors but these, in the table of this thread.
pub(crate) fn keep_only(kept: &mut [RawFd]) -> Result<(), Errno> {
    kept.sort_unstable();
    let mut next = 0;
    for fd in kept.iter().map(|fd| fd.cast_unsigned()) {
        if next < fd {
            close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: whoever owns these descriptors has them in another table.
    match unsafe { libc::close_range(first, last, 0) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
