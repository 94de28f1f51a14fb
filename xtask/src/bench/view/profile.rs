//! `cargo xtask bench profile ROW`: where a row's time goes in the view and in its broker.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Plan;
use super::ground::Ground;
use super::peers::{self, Place};
use super::row::Row;
use crate::bench::home::Home;
use crate::bench::process::Account;
use crate::bench::sample::{print_heads, print_row, show};
use crate::step::{Failure, output};

/// How many system calls and functions of each process are shown.
const SHOWN: usize = 10;

/// A process that is looked at.
struct Subject {
    name: &'static str,
    pid: u32,
}

/// Measures and prints.
pub fn run(home: &Home, plan: &Plan) -> Result<(), Failure> {
    let [row] = plan.rows[..] else {
        return Err(Failure::new("cannot profile", "it takes the name of one row"));
    };
    let ground = Ground::lay(&plan.on, home)?;
    let place = peers::view(home, &ground, plan.files)?;
    let view = place.pid().expect("a view has a server");
    let subjects =
        [Subject { name: "view", pid: view }, Subject { name: "broker", pid: home.broker().pid() }];
    let fail = |error| Failure::new(format!("cannot profile `{}`", row.title), error);
    let work = || work(row, &place);
    (row.prepare)(&place.site).and_then(|()| work().map(drop)).map_err(fail)?;
    println!("on {}; with what `{}` does between what it measures", ground.title, row.name);
    print_accounts(row, &subjects, work).map_err(fail)?;
    for subject in &subjects {
        print_calls(subject, &home.at("calls"), work).map_err(fail)?;
    }
    print_functions(&subjects, &home.at("samples"), work)
}

/// Does all rounds of a row; returns how many operations they were.
fn work(row: &Row, place: &Place<'_>) -> io::Result<usize> {
    (0..row.rounds).map(|_| (row.round)(&place.site).map(|round| round.operations)).sum()
}

fn print_accounts(
    row: &Row,
    subjects: &[Subject],
    work: impl Fn() -> io::Result<usize>,
) -> io::Result<()> {
    let accounts =
        || subjects.iter().map(|subject| Account::of(subject.pid)).collect::<io::Result<Vec<_>>>();
    let before = accounts()?;
    let operations = work()?;
    println!();
    print_heads(&[row.title, "CPU", "sleeps", "displaced"]);
    for ((subject, before), after) in subjects.iter().zip(before).zip(accounts()?) {
        let account = after.since(before);
        let [sleeps, displaced] = [account.sleeps, account.displaced]
            .map(|count| format!("{:.2}", count as f64 / operations as f64));
        print_row(&[subject.name, &show(account.cpu / operations as u32), &sleeps, &displaced]);
    }
    Ok(())
}

/// Prints the system calls of each operation, as strace counts them: it slows what it looks at.
fn print_calls(
    subject: &Subject,
    file: &Path,
    work: impl Fn() -> io::Result<usize>,
) -> io::Result<()> {
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-S", "calls", "-U", "calls,name", "-p", &subject.pid.to_string(), "-o"])
        .arg(file)
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(strace.stderr.take().expect("it is piped"));
    // It says so once it is attached.
    let attached = said.read_line(&mut String::new());
    let operations = attached.and_then(|_| work());
    kill_process(Pid::from_child(&strace), Signal::INT)?;
    strace.wait()?;
    let operations = operations?;
    println!();
    print_heads(&[&format!("system calls of the {}", subject.name), "each"]);
    for (calls, name) in counted(&std::fs::read_to_string(file)?).take(SHOWN) {
        print_row(&[name, &format!("{:.2}", calls as f64 / operations as f64)]);
    }
    Ok(())
}

/// Reads strace's table.
fn counted(table: &str) -> impl Iterator<Item = (u64, &str)> {
    table.lines().filter_map(|line| {
        let (calls, name) = line.trim().split_once(' ')?;
        let name = name.trim();
        (name != "total").then_some((calls.parse().ok()?, name))
    })
}

/// Prints the functions in which perf finds the processes most often, if it works here.
fn print_functions(
    subjects: &[Subject],
    file: &Path,
    work: impl Fn() -> io::Result<usize>,
) -> Result<(), Failure> {
    if let Err(error) = record(subjects, file, work) {
        println!("\nwithout functions: perf does not work here: {error}");
        return Ok(());
    }
    for subject in subjects {
        println!("\nfunctions of the {}", subject.name);
        let mut report = Command::new("perf");
        report.args(["report", "--stdio", "--quiet", "--percentage", "relative"]);
        report.args(["--sort", "symbol", "--pid"]);
        let said = output(report.arg(subject.pid.to_string()).arg("-i").arg(file))?;
        let lines = said.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        lines.take(SHOWN).for_each(|line| println!("{}", line.trim_end_matches([' ', '-'])));
    }
    Ok(())
}

/// Lets perf look on while it works.
fn record(
    subjects: &[Subject],
    file: &Path,
    work: impl Fn() -> io::Result<usize>,
) -> io::Result<()> {
    let pids: Vec<String> = subjects.iter().map(|subject| subject.pid.to_string()).collect();
    // perf starts its command when it looks on, and ends with it.
    let mut perf = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", "5000", "-p", &pids.join(","), "-o"])
        .arg(file)
        .args(["--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let worked = echo(&mut perf).and_then(|()| work());
    drop(perf.stdin.take());
    let status = perf.wait()?;
    worked?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{status}"))) }
}

fn echo(cat: &mut Child) -> io::Result<()> {
    cat.stdin.as_mut().expect("it is piped").write_all(b"\n")?;
    cat.stdout.as_mut().expect("it is piped").read_exact(&mut [0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_the_table_of_strace() {
        let table = "    calls syscall\n--------- ----------------\n      600 writev\n      \
                     12 futex\n--------- ----------------\n      612 total\n";
        assert_eq!(counted(table).collect::<Vec<_>>(), [(600, "writev"), (12, "futex")]);
    }
}
