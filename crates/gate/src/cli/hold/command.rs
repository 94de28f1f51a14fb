//! The command below a hold: it hears what is meant for it, and its end is that of the hold.

use std::ffi::OsString;
use std::process::Child;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, waitid};

use super::said::{broker_gone, lost, recalled, unproven};
use super::{Event, Hold};
use crate::cli::run::{cannot_run, prepare};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::signals::{Received, unmasked};

/// How long the broker may take to say whether a turn stood until its command ended.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(3);

impl Hold {
    /// Runs the command to its end. What it starts stays below this process, and so may open
    /// what is held, however it detaches itself.
    pub fn run(self, command: &[OsString]) -> Result<Exit, Failure> {
        let cannot = |error| cannot_run(command, &error);
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| cannot(errno.into()))?;
        if let Some(exit) = self.overtaken()? {
            return Ok(exit);
        }
        let child = unmasked(&mut prepare(command)).spawn().map_err(cannot)?;
        let pid = Pid::from_child(&child);
        let attending = std::thread::spawn(move || self.attend(&child));
        sleep_for(pid);
        attending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Hears what is meant for the command, until it has ended.
    fn attend(&self, child: &Child) -> Result<Exit, Failure> {
        let mut outcome = None;
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Told(_) => {}
                Event::Recalled(recall) => {
                    output::say_line(format_args!("gate hold: {}", recalled(&recall)));
                }
                Event::Revoked(why, reason) => outcome = Some(lost(why, &reason).report()),
                Event::Signalled(Received { signal: Signal::CHILD, .. }) => {
                    if let Some(exit) = reap(child) {
                        return outcome.map_or_else(|| self.hear_out(exit), Ok);
                    }
                }
                // The terminal has told the command already.
                Event::Signalled(Received { by_kernel: true, .. }) => {}
                Event::Signalled(Received { signal, .. }) => {
                    // It may have ended just now; then its end is on the way.
                    let _ = rustix::process::kill_process(Pid::from_child(child), signal);
                }
            }
        }
        Err(broker_gone())
    }

    /// Says how this ends now that its command did: by that, unless the turn was taken away while
    /// it ran. Who was stopped meanwhile may not have heard of it yet.
    fn hear_out(&self, exit: Exit) -> Result<Exit, Failure> {
        let has_heard = self.session.hear_out(LAST_WORD_PATIENCE);
        for event in self.events.try_iter() {
            if let Event::Revoked(why, reason) = event {
                return Err(lost(why, &reason));
            }
        }
        if !has_heard && !self.session.may_act(Duration::ZERO) {
            return Err(unproven());
        }
        if !has_heard {
            output::say_line(
                "gate hold: the broker does not answer: nobody was let in, unless by force",
            );
        }
        Ok(exit)
    }

    /// Says how this ends if it does before there is a command to be told.
    fn overtaken(&self) -> Result<Option<Exit>, Failure> {
        for event in self.events.try_iter() {
            match event {
                Event::Revoked(why, reason) => return Err(lost(why, &reason)),
                Event::Signalled(Received { signal, .. }) if signal != Signal::CHILD => {
                    return Ok(Some(by_signal(signal)));
                }
                Event::Told(_) | Event::Recalled(_) | Event::Signalled(_) => {}
            }
        }
        Ok(None)
    }
}

/// Sleeps until the command has ended, as shells do: that is how the broker sees that this process
/// waits for it, and finds circles of waits through a hold. Its status is somebody else's to collect.
fn sleep_for(command: Pid) {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(Errno::INTR) = waitid(WaitId::Pid(command), how) {}
}

/// Collects who ended; says how the command did if it is among them.
fn reap(command: &Child) -> Option<Exit> {
    let command = Pid::from_child(command);
    let mut exit = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == command {
            exit = Some(exit_of(status));
        }
    }
    exit
}

fn exit_of(status: WaitStatus) -> Exit {
    let number = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(number(code)),
        (None, signal) => Exit::Signal(signal.map_or(0, number)),
    }
}

/// Returns how a shell says it.
pub fn by_signal(signal: Signal) -> Exit {
    Exit::Signal(u8::try_from(signal.as_raw()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_as_shells_say_it() {
        let status = |script: &str| {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = Pid::from_child(&child);
            let status = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            drop(child.try_wait());
            exit_of(status.unwrap().unwrap().1).code()
        };
        assert_eq!(status("exit 7"), 7);
        assert_eq!(status("kill -TERM $$"), 143);
    }
}
