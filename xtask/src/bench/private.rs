//! A view for each command: how long until it starts, and what its server needs.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::home::Home;
use super::process::{mebibytes, proportional_bytes, resident_bytes};
use super::sample::{paired, print_heads, print_row, show};
use crate::step::Failure;

const ROUNDS: usize = 40;
const START_MAX: Duration = Duration::from_millis(50);
/// Side by side, of one source.
const VIEWS: usize = 50;
const MEMORY_BYTES_MAX: usize = 15 << 20;
/// What is done in each, by a shell that begins and goes on when it is told to.
const WORK: &str = r#"
    echo ready; read -r line
    for i in $(seq 200); do echo text > "$0-$i"; cat "$0-$i" > /dev/null; done
    dd if=/dev/zero of="$0" bs=1M count=8 2> /dev/null; cat "$0" > /dev/null
    rm "$0" "$0"-*
    echo ready; read -r line"#;

/// Measures and prints.
pub fn run(home: &Home) -> Result<(), Failure> {
    let source = home.make_dir("private")?;
    let fail = |error| Failure::new("cannot measure private views", error);
    print_starts(home, &source).map_err(fail)?;
    print_memory(home, &source).map_err(fail)
}

fn print_starts(home: &Home, source: &Path) -> io::Result<()> {
    let bar = format!("≤ {}", show(START_MAX));
    let all = [
        ("`true`", vec![], ""),
        ("`gate run -- true`", vec!["run", "--"], ""),
        ("`gate run --view private -- true`", vec!["run", "--view", "private", "--"], &bar),
    ];
    let samples = paired("view start", all.len(), ROUNDS, |place, _| {
        let mut command = match &all[place].1[..] {
            [] => Command::new("true"),
            words => home.gate(&[words, &["true"]].concat()),
        };
        let started = Instant::now();
        let status = command.current_dir(source).status()?;
        let took = started.elapsed();
        if status.success() { Ok(took) } else { Err(io::Error::other("it failed")) }
    })?;
    println!();
    print_heads(&["view start", "median", "worst", "bar"]);
    for ((name, _, bar), samples) in all.iter().zip(samples) {
        let times = [samples.median(), samples.percentile(100)].map(show);
        print_row(&[name, &times[0], &times[1], bar]);
    }
    Ok(())
}

fn print_memory(home: &Home, source: &Path) -> io::Result<()> {
    let mut shells: Vec<Shell> =
        (0..VIEWS).map(|number| Shell::start(home, source, number)).collect::<Result<_, _>>()?;
    println!();
    print_heads(&[&format!("view memory, {VIEWS} views"), "resident", "share", "bar"]);
    let bar = format!("≤ {}", mebibytes(MEMORY_BYTES_MAX));
    for when in ["each, when it is there", "each, after some work"] {
        for shell in &mut shells {
            shell.await_ready()?;
        }
        let servers = servers()?;
        if servers.len() != VIEWS {
            return Err(io::Error::other(format!("{} of {VIEWS} are served", servers.len())));
        }
        let guardians = guardians_of(&servers)?;
        let mean = |pids: &[u32], bytes: fn(u32) -> io::Result<usize>| {
            let sum = pids.iter().map(|pid| bytes(*pid)).sum::<io::Result<usize>>()?;
            io::Result::Ok(mebibytes(sum / VIEWS))
        };
        for (who, pids, bar) in [
            (when, &[&servers[..], &guardians].concat(), &bar[..]),
            ("… of that its guardian", &guardians, ""),
        ] {
            print_row(&[who, &mean(pids, resident_bytes)?, &mean(pids, proportional_bytes)?, bar]);
        }
        for shell in &mut shells {
            shell.go_on()?;
        }
    }
    Ok(())
}

/// Who works in a private view.
struct Shell(Child);

impl Shell {
    fn start(home: &Home, source: &Path, number: usize) -> io::Result<Shell> {
        let mut command = home.gate(&["run", "--view", "private", "--", "sh", "-c", WORK]);
        command.arg(number.to_string()).current_dir(source);
        Ok(Shell(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    fn await_ready(&mut self) -> io::Result<()> {
        let out = self.0.stdout.as_mut().expect("it is a pipe");
        out.read_exact(&mut [0; "ready\n".len()])
    }

    fn go_on(&mut self) -> io::Result<()> {
        self.0.stdin.as_mut().expect("it is a pipe").write_all(b"on\n")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Returns the processes that serve private views: there are no others in this namespace.
fn servers() -> io::Result<Vec<u32>> {
    let serves = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(2) == Some(b"--private")
    };
    Ok(processes()?.filter(serves).collect())
}

/// Returns the processes that would see off what these serve: their children.
fn guardians_of(servers: &[u32]) -> io::Result<Vec<u32>> {
    let is_of_them = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may have blanks, come its state and its parent.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(1));
        parent.and_then(|parent| parent.parse().ok()).is_some_and(|of| servers.contains(&of))
    };
    Ok(processes()?.filter(is_of_them).collect())
}

fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let names = fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.to_str()?.parse().ok()))
}
