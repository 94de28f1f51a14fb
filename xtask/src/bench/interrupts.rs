//! How soon a process that waits for a writer is gone after SIGINT and after SIGKILL.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::home::Home;
use super::sample::{Samples, print_heads, print_row, show};
use crate::step::Failure;

const ROUNDS: usize = 50;
const BLOCKED_WITHIN: Duration = Duration::from_secs(5);

/// Each waits for the writer of `f`, or for the hold of `d`.
const WORKS: [(&str, &[&str]); 8] = [
    ("open", &["cat", "f"]),
    ("unlink", &["unlink", "f"]),
    ("rename over", &["mv", "-f", "g", "f"]),
    ("truncate", &["truncate", "-s0", "f"]),
    ("chmod", &["chmod", "600", "f"]),
    ("setxattr", &["setfattr", "-n", "user.x", "-v", "y", "f"]),
    ("mkdir under a hold", &["mkdir", "d/new"]),
    ("create under a hold", &["touch", "d/new"]),
];

/// Measures and prints.
pub fn run(home: &Home) -> Result<(), Failure> {
    let (view, source) = (home.make_dir("view")?, home.make_dir("behind-view")?);
    let _mounted = home.mount_view(&[], &source, &view)?;
    let fail = |error| Failure::new("cannot write into the view", error);
    std::fs::write(view.join("g"), "").map_err(fail)?;
    std::fs::create_dir(view.join("d")).map_err(fail)?;
    // Processes of their own: what is below a holder is not stopped by it.
    let mut writer = Command::new("sh");
    writer.args(["-c", "exec 9>>f && echo ready && read line"]);
    let _writer = Holder::start(writer.current_dir(&view))?;
    let mut hold = home.gate(&["hold", "d", "--", "sh", "-c", "echo ready && read line"]);
    let _hold = Holder::start(hold.current_dir(&view))?;
    println!();
    print_heads(&["blocked, until gone", "SIGINT", "worst", "SIGKILL", "worst"]);
    for (name, words) in WORKS {
        let int = samples(&view, words, Signal::INT)?;
        let kill = samples(&view, words, Signal::KILL)?;
        let times = [&int, &kill].map(|s| [s.median(), s.percentile(100)]).concat();
        let cells: Vec<String> = times.into_iter().map(show).collect();
        let cells = std::iter::once(name).chain(cells.iter().map(String::as_str));
        print_row(&cells.collect::<Vec<_>>());
    }
    Ok(())
}

/// A process that holds until its input ends.
struct Holder(Child);

impl Holder {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let fail = |error| Failure::new("cannot start a holder", error);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(fail)?;
        let ready = child.stdout.take().map(|mut out| out.read(&mut [0; 8]));
        let holder = Self(child);
        match ready {
            Some(Ok(read)) if read > 0 => Ok(holder),
            _ => Err(Failure::new("cannot start a holder", "it does not hold")),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn samples(dir: &Path, words: &[&str], signal: Signal) -> Result<Samples, Failure> {
    let mut times = (0..ROUNDS)
        .map(|_| {
            let mut child = blocked(dir, words)?;
            let started = Instant::now();
            let sent = kill_process(Pid::from_child(&child), signal);
            let ended = child.wait();
            sent.map_err(std::io::Error::from)
                .and(ended)
                .map(|_| started.elapsed())
                .map_err(|error| Failure::new("cannot end a process that waits", error))
        })
        .collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    Ok(Samples(times))
}

/// Starts a command and waits until it sleeps in the kernel for the view's answer.
fn blocked(dir: &Path, words: &[&str]) -> Result<Child, Failure> {
    let [program, args @ ..] = words else { unreachable!("a command has a name") };
    let mut child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start {program}"), error))?;
    let wchan = format!("/proc/{}/wchan", child.id());
    let started = Instant::now();
    let mut times_seen = 0;
    // Every call of a view passes through this state; only the one that waits stays in it.
    while times_seen < 20 {
        let place = std::fs::read_to_string(&wchan).unwrap_or_default();
        times_seen = if place.contains("request_wait_answer") { times_seen + 1 } else { 0 };
        if !matches!(child.try_wait(), Ok(None)) || started.elapsed() > BLOCKED_WITHIN {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::new(format!("cannot measure `{program}`"), "it does not wait"));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(child)
}
