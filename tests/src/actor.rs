//! The test's side of an actor: tell it what to do, and read what came of it.
//!
//! `ask` waits for the answer; `tell` does not, for what is meant to block, and `answer` comes
//! back for it. An answer is the value or the errno of the system call.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::run::Group;
use crate::wait::{SOON, timespec};

/// What came of one system call.
pub type Answer = Result<String, Errno>;

/// A process that does what it is told.
pub struct Actor {
    group: Group,
    input: Option<ChildStdin>,
    output: ChildStdout,
    told: Vec<u8>,
}

/// One open file of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fd(i32);

impl Actor {
    /// Starts `command`, the actor's binary, in the world at `home`.
    #[must_use]
    pub fn start(mut command: Command, home: &Path) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut group = Group::spawn(command, home);
        let (input, output) = group.take_pipes();
        Self { group, input: Some(input), output, told: Vec::new() }
    }

    /// Returns its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.group.pid()
    }

    /// Does `verb` and returns what came of it.
    pub fn ask<S: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = S>) -> Answer {
        self.tell(words);
        self.answer()
    }

    /// Opens a file: `r`, `w`, `rw`, and `+` create, `!` exclusive, `0` truncate, `a` append.
    #[track_caller]
    pub fn open(&mut self, how: &str, path: impl AsRef<OsStr>) -> Fd {
        let answer = self.ask([OsStr::new("open"), OsStr::new(how), path.as_ref()]);
        Fd(self.granted(answer).parse().expect("open answers a descriptor"))
    }

    /// Returns the descriptor of an open that was told before.
    #[track_caller]
    pub fn opened(&mut self) -> Fd {
        let answer = self.answer();
        Fd(self.granted(answer).parse().expect("open answers a descriptor"))
    }

    /// Writes to an open file.
    pub fn write(&mut self, fd: Fd, text: &str) -> Answer {
        self.ask(["write", &fd.0.to_string(), text])
    }

    /// Reads from an open file.
    pub fn read(&mut self, fd: Fd, length: usize) -> Answer {
        self.ask(["read", &fd.0.to_string(), &length.to_string()])
    }

    /// Does `verb` on an open file.
    pub fn on(&mut self, verb: &str, fd: Fd, words: &[&str]) -> Answer {
        let number = fd.0.to_string();
        self.ask([verb, &number].iter().chain(words))
    }

    /// Tells it to do something with an open file, without waiting for the answer.
    pub fn tell_on(&mut self, verb: &str, fd: Fd, words: &[&str]) {
        let number = fd.0.to_string();
        self.tell([verb, &number].iter().chain(words));
    }

    /// Closes an open file.
    #[track_caller]
    pub fn close(&mut self, fd: Fd) {
        let answer = self.on("close", fd, &[]);
        self.granted(answer);
    }

    /// Tells it what to do without waiting for it.
    pub fn tell<S: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = S>) {
        let words: Vec<Vec<u8>> =
            words.into_iter().map(|w| w.as_ref().as_bytes().to_vec()).collect();
        assert!(!words.concat().iter().any(|b| b"\t\n".contains(b)), "a word holds a separator");
        let line = [words.join(&b'\t'), b"\n".to_vec()].concat();
        let input = self.input.as_mut().expect("it was not let go");
        input.write_all(&line).expect("the actor lives");
        self.told = line;
    }

    /// Returns what came of what it was told; fails the test when that takes too long.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.answer_by(SOON)
    }

    /// Returns what came of long work.
    #[track_caller]
    pub fn answer_by(&mut self, deadline: Duration) -> Answer {
        let answer = self.answer_within(deadline);
        answer.unwrap_or_else(|| panic!("no answer within {deadline:?}: {self:?}"))
    }

    /// Tells whether it is still at what it was told.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.is_readable(Duration::ZERO)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Lets it end by itself: its input is at an end. Nothing more can be asked.
    pub fn leave(&mut self) {
        drop(self.input.take());
    }

    /// Waits for its end and returns the signal that ended it, if one did.
    #[track_caller]
    pub fn end(&mut self, within: Duration) -> Option<i32> {
        let ended = self.group.wait(within);
        let (status, _) = ended.unwrap_or_else(|| panic!("alive after {within:?}: {self:?}"));
        std::os::unix::process::ExitStatusExt::signal(&status)
    }

    #[track_caller]
    fn granted(&self, answer: Answer) -> String {
        answer.unwrap_or_else(|errno| panic!("{errno}: {self:?}"))
    }

    fn answer_within(&mut self, deadline: Duration) -> Option<Answer> {
        let mut line = Vec::new();
        while self.is_readable(deadline) {
            let mut byte = [0];
            let count = self.output.read(&mut byte).expect("the actor's output is readable");
            assert!(count == 1, "the actor is gone: {self:?}");
            if byte == *b"\n" {
                return Some(parse(&line));
            }
            line.push(byte[0]);
        }
        None
    }

    fn is_readable(&self, within: Duration) -> bool {
        let mut fds = [PollFd::new(&self.output, PollFlags::IN)];
        poll(&mut fds, Some(&timespec(within))).is_ok_and(|ready| ready > 0)
    }
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "actor {} told {:?}", self.pid(), String::from_utf8_lossy(&self.told))
    }
}

fn parse(line: &[u8]) -> Answer {
    if let Some(value) = line.strip_prefix(b"ok ") {
        return Ok(String::from_utf8_lossy(value).into_owned());
    }
    let line = std::ffi::OsString::from_vec(line.to_vec());
    let errno = line.to_str().and_then(|text| text.strip_prefix("err ")?.parse().ok());
    Err(Errno::from_raw_os_error(errno.expect("an answer is ok or err")))
}
