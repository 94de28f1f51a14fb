//! Signals as messages, for processes that end in order.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;

/// Signals that are kept for whoever reads them here.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// One signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Whether the kernel sent it: of Ctrl-C all processes of the terminal's foreground hear.
    pub by_kernel: bool,
}

/// Lets a command be ended by signals that this process keeps for itself.
pub fn unmasked(command: &mut Command) -> &mut Command {
    let unmask = || {
        // SAFETY: an all-zero set is valid storage, sigemptyset makes it a set, and the former
        // mask is not asked for; both calls are safe between fork and exec.
        let outcome = unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut())
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome)) }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(unmask) }
}

/// Stops this process, which keeps SIGTSTP, as that signal stops others: before the call returns,
/// and not at all where no shell could let it go on.
pub fn stop() -> io::Result<()> {
    // SAFETY: an all-zero set is valid storage, sigemptyset makes it a set; the signal is sent to
    // this thread, which lets it through for a moment and asks for no former mask.
    let outcome = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTSTP);
        libc::raise(libc::SIGTSTP);
        match libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) {
            0 => libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()),
            error => error,
        }
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome)) }
}

impl Signals {
    /// Keeps these signals from ending the process. To be called before the first thread starts:
    /// threads inherit it, and so do processes that are not started through [`unmasked`].
    pub fn keep(signals: &[Signal]) -> io::Result<Signals> {
        // SAFETY: an all-zero set is valid storage, and sigemptyset makes it a set.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is ours, and every number comes from a `Signal`.
        unsafe {
            libc::sigemptyset(&mut set);
            for signal in signals {
                libc::sigaddset(&mut set, signal.as_raw());
            }
        }
        // SAFETY: `set` is initialised; the former mask is not asked for.
        let outcome = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        if outcome != 0 {
            return Err(io::Error::from_raw_os_error(outcome));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, so nobody else owns it.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for the next one.
    pub fn next(&self) -> io::Result<Received> {
        loop {
            // SAFETY: all-zero bytes are a valid `signalfd_siginfo`.
            let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
            let size = size_of::<libc::signalfd_siginfo>();
            // SAFETY: the buffer is ours and as long as is said.
            let length = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
            if length < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            let number = i32::try_from(info.ssi_signo).ok();
            if let Some(signal) = number.and_then(Signal::from_named_raw) {
                return Ok(Received { signal, by_kernel: info.ssi_code == libc::SI_KERNEL });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mask is the thread's, and each test has its own.
    #[test]
    fn what_is_kept_here_still_ends_a_command() {
        let signals = Signals::keep(&[Signal::USR1]).unwrap();
        let kill = |pid: &str| format!("kill -USR1 {pid}; exit 7");
        let mut command = Command::new("sh");
        let status = unmasked(command.args(["-c", &kill("$$")])).status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGUSR1));
        let own = rustix::thread::gettid().as_raw_pid();
        // SAFETY: tgkill takes three integers; the thread is this one.
        let sent =
            unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), own, libc::SIGUSR1) };
        assert_eq!(sent, 0);
        let received = signals.next().unwrap();
        assert_eq!(received, Received { signal: Signal::USR1, by_kernel: false });
    }
}
