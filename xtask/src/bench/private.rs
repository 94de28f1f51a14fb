//! A view for each command: how long until it starts, alone and among many, and what its server needs;
//! of root, and of an ordinary user.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::home::Home;
use super::peer::wait_for;
use super::process::{mebibytes, proportional_bytes, resident_bytes};
use super::sample::{paired, print_heads, print_row, show};
use crate::step::Failure;

const ROUNDS: usize = 40;
const START_MAX: Duration = Duration::from_millis(50);
/// Side by side, of one source.
const VIEWS: usize = 50;
const MEMORY_BYTES_MAX: usize = 15_000_000;
/// What is done in each, by a shell that begins and goes on when it is told to.
const WORK: &str = r#"
    echo ready; read -r line
    for i in $(seq 200); do echo text > "$0-$i"; cat "$0-$i" > /dev/null; done
    dd if=/dev/zero of="$0" bs=1M count=8 2> /dev/null; cat "$0" > /dev/null
    rm "$0" "$0"-*
    echo ready; read -r line"#;

/// Measures and prints.
pub fn run(home: &Home) -> Result<(), Failure> {
    measure(home, "root")?;
    measure(&home.of_ordinary_user()?, "user")
}

fn measure(home: &Home, who: &str) -> Result<(), Failure> {
    let source = home.make_dir("private")?;
    let fail = |error| Failure::new("cannot measure private views", error);
    print_starts(home, &source, &format!("view start, {who}")).map_err(fail)?;
    let mut shells: Vec<Shell> = (0..VIEWS)
        .map(|number| Shell::start(home, &source, number))
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    print_memory(&mut shells, who).map_err(fail)?;
    // Each of those that start now is the last of as many.
    drop(shells.pop());
    let others = shells.len();
    print_starts(home, &source, &format!("among {others} others, {who}")).map_err(fail)?;
    drop(shells);
    wait_for("all views have ended", || Ok(views()?.is_empty())).map_err(fail)
}

fn print_starts(home: &Home, source: &Path, head: &str) -> io::Result<()> {
    let bar = format!("≤ {}", show(START_MAX));
    let all: [(&str, &[&str], &str); 3] = [
        ("`true`", &[], ""),
        ("`gate run -- true`", &["run", "--"], ""),
        ("`gate run --view private -- true`", &["run", "--view", "private", "--"], &bar),
    ];
    let samples = paired(head, all.len(), ROUNDS, |place, _| {
        let mut command = match all[place].1 {
            [] => home.command("true".as_ref()),
            words => home.gate(&[words, &["true"]].concat()),
        };
        let started = Instant::now();
        let status = command.current_dir(source).status()?;
        let took = started.elapsed();
        if status.success() { Ok(took) } else { Err(io::Error::other("it failed")) }
    })?;
    println!();
    print_heads(&[head, "median", "worst", "bar"]);
    for ((name, _, bar), samples) in all.iter().zip(samples) {
        let times = [samples.median(), samples.percentile(100)].map(show);
        print_row(&[name, &times[0], &times[1], bar]);
    }
    Ok(())
}

fn print_memory(shells: &mut [Shell], who: &str) -> io::Result<()> {
    println!();
    let head = format!("memory, {VIEWS} views, {who}");
    print_heads(&[&head, "resident", "worst", "share", "bar"]);
    shells.iter_mut().try_for_each(Shell::await_ready)?;
    print_memory_now("each, when it is there", shells.len())?;
    shells.iter_mut().try_for_each(Shell::go_on)?;
    shells.iter_mut().try_for_each(Shell::await_ready)?;
    print_memory_now("each, after some work", shells.len())
}

fn print_memory_now(when: &str, count: usize) -> io::Result<()> {
    let views = views()?;
    if views.len() != count {
        return Err(io::Error::other(format!("{} of {count} are served", views.len())));
    }
    let bar = format!("≤ {}", mebibytes(MEMORY_BYTES_MAX));
    let all = views.iter().map(|(server, guardians)| [&[*server][..], guardians].concat());
    let guardians = views.values().cloned();
    for (who, parts, bar) in [
        (when, all.collect::<Vec<_>>(), &bar[..]),
        ("… of that its guardian", guardians.collect(), ""),
    ] {
        let sums = |bytes: fn(u32) -> io::Result<usize>| {
            let of_view = |pids: &Vec<u32>| pids.iter().map(|pid| bytes(*pid)).sum();
            parts.iter().map(of_view).collect::<io::Result<Vec<usize>>>()
        };
        let mean = |sums: &[usize]| mebibytes(sums.iter().sum::<usize>() / sums.len().max(1));
        let (resident, share) = (sums(resident_bytes)?, sums(proportional_bytes)?);
        let worst = mebibytes(resident.iter().copied().max().unwrap_or_default());
        print_row(&[who, &mean(&resident), &worst, &mean(&share), bar]);
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

/// Returns the processes that serve private views, each with those that would see off what it serves,
/// its children. There are no others in this namespace.
fn views() -> io::Result<BTreeMap<u32, Vec<u32>>> {
    let serves = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(2) == Some(b"--private")
    };
    let mut views: BTreeMap<u32, Vec<u32>> =
        processes()?.filter(serves).map(|pid| (pid, Vec::new())).collect();
    for pid in processes()? {
        if let Some(guardians) = parent(pid).and_then(|of| views.get_mut(&of)) {
            guardians.push(pid);
        }
    }
    Ok(views)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may have blanks, come its state and its parent.
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let names = fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.to_str()?.parse().ok()))
}
