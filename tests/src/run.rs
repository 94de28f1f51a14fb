//! Commands in a world: each in a process group of its own, with a deadline.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use crate::kernel;
use crate::wait::{SOON, timespec, wait_until};

/// How long a command may run unless it says otherwise.
pub const USUAL: Duration = Duration::from_secs(60);

/// A command about to run.
pub struct Run {
    command: Command,
    home: PathBuf,
    within: Duration,
}

impl Run {
    /// Prepares `command`; what it hangs in is aborted below `home`.
    #[must_use]
    pub fn new(command: Command, home: &Path) -> Self {
        Self { command, home: home.to_owned(), within: USUAL }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets the directory it runs in.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets its deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.within = deadline;
        self
    }

    /// Runs it to its end; a command that overruns its deadline fails the test.
    #[must_use]
    pub fn run(self) -> Outcome {
        let within = self.within;
        self.start().finish(within)
    }

    /// Starts it, with no input; its output is kept for the end.
    #[must_use]
    pub fn start(self) -> Running {
        self.spawn(Stdio::null())
    }

    /// Starts it, its input a pipe; its output is kept for the end.
    #[must_use]
    pub fn start_with_input(self) -> Running {
        self.spawn(Stdio::piped())
    }

    fn spawn(mut self, input: Stdio) -> Running {
        let stdout = tempfile::tempfile().expect("a temporary file");
        let stderr = tempfile::tempfile().expect("a temporary file");
        let name = name_of(&self.command);
        self.command
            .stdin(input)
            .stdout(stdout.try_clone().expect("a descriptor"))
            .stderr(stderr.try_clone().expect("a descriptor"));
        Running { group: Group::spawn(self.command, &self.home), name, stdout, stderr }
    }
}

/// A command that runs.
pub struct Running {
    group: Group,
    name: String,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Returns its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.group.pid()
    }

    /// Takes its standard input; dropping that ends the input.
    #[must_use]
    pub fn stdin(&mut self) -> ChildStdin {
        self.group.child.stdin.take().expect("the input is taken once")
    }

    /// Tells whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.group.is_over(Duration::ZERO)
    }

    /// Sends it, and it alone, a signal.
    pub fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Stops it, and returns once all of its threads stand still: a signal takes its time, in which
    /// they may take up something new.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid());
        wait_until(SOON, "it stands still", || {
            let mut tasks = std::fs::read_dir(&tasks).expect("it runs").flatten();
            tasks.all(|task| stands_still(&task.path()))
        });
    }

    /// Returns what it has written to standard output and standard error so far.
    #[must_use]
    pub fn so_far(&self) -> String {
        [read_all(&self.stdout), read_all(&self.stderr)].concat()
    }

    /// Waits for its end; fails the test when that does not come in time.
    #[must_use]
    pub fn finish(mut self, within: Duration) -> Outcome {
        drop(self.group.child.stdin.take());
        let Some((status, took)) = self.group.wait(within) else {
            self.group.kill();
            panic!("not within {within:?}: {}\n{}", self.name, self.so_far());
        };
        Outcome {
            code: status.code(),
            signal: status.signal(),
            stdout: read_all(&self.stdout),
            stderr: read_all(&self.stderr),
            took,
            name: std::mem::take(&mut self.name),
        }
    }
}

/// How a command ended and what it said.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit status, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
    name: String,
}

impl Outcome {
    /// Asserts that it succeeded and returns its standard output.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.code == Some(0), "{self}");
        self.stdout
    }

    /// Asserts that it failed as Gate's commands fail, and returns cause and hint in one text.
    ///
    /// Three lines, `error:`, `cause:`, `hint:`, on standard error, nothing on standard output.
    #[track_caller]
    pub fn refusal(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "expected a refusal: {self}");
        assert_eq!(self.stdout, "", "a refusal prints nothing on standard output: {self}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        let heads = ["error: ", "cause: ", "hint:  "];
        let is_three_lines =
            lines.len() == 3 && lines.iter().zip(heads).all(|(line, head)| line.starts_with(head));
        assert!(is_three_lines, "expected error, cause, hint: {self}");
        self.stderr
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, signal, stdout, stderr, took, name } = self;
        writeln!(f, "{name}\nexit {code:?}, signal {signal:?}, after {took:?}")?;
        write!(f, "--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// A process group that dies with this value.
pub(crate) struct Group {
    child: Child,
    pidfd: OwnedFd,
    home: PathBuf,
    started: Instant,
    status: Option<ExitStatus>,
}

impl Group {
    pub(crate) fn spawn(mut command: Command, home: &Path) -> Self {
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", name_of(&command)));
        let pidfd = pidfd_open(pid_of(&child), PidfdFlags::empty()).expect("a child has a pidfd");
        Self { child, pidfd, home: home.to_owned(), started: Instant::now(), status: None }
    }

    pub(crate) fn pid(&self) -> i32 {
        pid_of(&self.child).as_raw_nonzero().get()
    }

    pub(crate) fn take_pipes(&mut self) -> (ChildStdin, ChildStdout) {
        let stdin = self.child.stdin.take().expect("the input is a pipe");
        (stdin, self.child.stdout.take().expect("the output is a pipe"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(pid_of(&self.child), signal);
    }

    pub(crate) fn is_over(&self, within: Duration) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&timespec(within))).is_ok_and(|ready| ready > 0)
    }

    /// Waits for the end of the group's leader.
    pub(crate) fn wait(&mut self, within: Duration) -> Option<(ExitStatus, Duration)> {
        self.is_over(within).then(|| {
            let took = self.started.elapsed();
            let status = self.child.wait().expect("a child can be waited for");
            self.status = Some(status);
            (status, took)
        })
    }

    /// Ends the whole group, by force, and what it hangs in.
    pub(crate) fn kill(&mut self) {
        if self.status.is_some() {
            return;
        }
        let _ = kill_process_group(pid_of(&self.child), Signal::KILL);
        if !self.is_over(SOON) {
            kernel::abort_fuse_below(&self.home);
        }
        if self.wait(SOON).is_none() {
            eprintln!("process {} survives SIGKILL", self.pid());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Names a command by its words, without its long environment.
fn name_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// Returns whether a thread is stopped, or gone.
fn stands_still(task: &Path) -> bool {
    let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
    // What stands before may hold anything, blanks and brackets too.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Reads at offsets: the child writes at the position that both descriptors share.
fn read_all(file: &File) -> String {
    let length = file.metadata().expect("a temporary file has a length").len();
    let mut bytes = vec![0; usize::try_from(length).expect("an output fits memory")];
    file.read_exact_at(&mut bytes, 0).expect("a temporary file is readable");
    String::from_utf8_lossy(&bytes).into_owned()
}
