//! Processes that go on when their command has returned.
//!
//! The command starts its own program once more with the same words and waits until the child
//! says that it is ready. Until then the child's standard error is the command's; from then on
//! it is a log file.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::failure::{Exit, Failure};
use crate::output;
use crate::{activation, notify};

/// Tells the child that it is to live in the background. No user sets this.
const MARK: &str = "_GATE_IN_BACKGROUND";
/// What the child says on its standard output.
const READY: &[u8] = b"ready\n";

/// Starts this program in the background with these arguments, and waits until it is ready.
pub fn start<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    stdin: Stdio,
) -> Result<(), Failure> {
    let cannot = |error: io::Error| {
        Failure::new("cannot go to the background", error, "try again with --foreground")
    };
    let program = std::env::current_exe().map_err(cannot)?;
    let mut command = Command::new(program);
    for variable in activation::VARIABLES.into_iter().chain([notify::VARIABLE]) {
        command.env_remove(variable);
    }
    let mut child = command
        .args(arguments)
        .env(MARK, "1")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    // The child closes its standard error before it says that it is ready.
    let mut said = Vec::new();
    let mut word = Vec::new();
    if let (Some(mut stderr), Some(mut stdout)) = (child.stderr.take(), child.stdout.take()) {
        stderr.read_to_end(&mut said).map_err(cannot)?;
        stdout.read_to_end(&mut word).map_err(cannot)?;
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    if word == READY {
        output::say(said);
        // Whoever goes on, as a view that has started its broker does, is to bury it one day.
        std::thread::spawn(move || child.wait());
        return Ok(());
    }
    let status = child.wait().map_err(cannot)?;
    Err(Failure::passed_on(said, exit_of(status)))
}

/// Returns whether this process was started by [`start`].
pub fn is_background() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Leaves the terminal of the command that started this process.
pub fn leave_terminal() -> Result<(), Failure> {
    rustix::process::setsid().map(drop).map_err(|errno| {
        Failure::new("cannot go to the background", errno, "try again with --foreground")
    })
}

/// Lets the command that started this process return. Fails if it is gone.
pub fn ready(log: &Path) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    if let Some(dir) = log.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    // Whatever directory this began in must not be kept busy.
    rustix::process::chdir("/")?;
    rustix::stdio::dup2_stderr(&log)?;
    io::stdout().write_all(READY)?;
    io::stdout().flush()?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Returns the log file of a process in the background.
pub fn log_file(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join("logs").join(format!("{name}.log"))
}

/// Returns a path as one name.
pub fn name_of(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"/").unwrap_or(bytes)).into_owned();
    text.replace(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_'), "-")
}

fn exit_of(status: ExitStatus) -> Exit {
    let number = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(0), _) => Exit::Failed,
        (Some(code), _) => Exit::Code(number(code)),
        (None, signal) => Exit::Signal(signal.map_or(0, number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountpoint_makes_one_name() {
        assert_eq!(name_of(Path::new("/mnt/my repo/x.y")), "mnt-my-repo-x.y");
    }

    #[test]
    fn a_child_that_ends_before_it_is_ready_has_failed() {
        assert_eq!(exit_of(ExitStatus::from_raw(0)), Exit::Failed);
        assert_eq!(exit_of(ExitStatus::from_raw(2 << 8)), Exit::Code(2));
        assert_eq!(exit_of(ExitStatus::from_raw(9)).code(), 137);
    }
}
