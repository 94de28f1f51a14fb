//! A process that takes turns at random and writes down what it did and saw.
//!
//! It opens files of its directory to read or to write, leaves stamps in what it writes and reads
//! them again; now and then it holds a directory and lets another of its kind work in there.
//! It ends after so many turns, or when a file `stop` appears beside its record.
//!
//! If it has names it makes, changes and looks up one of them between any two files.

#[path = "worker/names.rs"]
mod names;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use gate_tests::dice::Dice;
use gate_tests::history::Access;
use gate_tests::history::record::{HALVES, PAUSE, PAUSED, Pen, STAMP_BYTES, STOP};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

/// One turn of so many is a hold.
const HOLD_EVERY: usize = 40;
/// Of a hundred turns so many read.
const READS_PERCENT: usize = 40;
/// Turns below a hold.
const HELD_TURNS: usize = 4;

/// What stands between files and names.
const NAMES: &str = "--";

/// `worker RECORD SEED TURNS GATE FILE… [-- NAME…]`, below a hold with `hold MODE DIR` in place of
/// GATE; a name that ends with a slash is one of directories.
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [record, seed, turns, gate, rest @ ..] = words.as_slice() else { usage() };
    let (gate, below, files) = match (gate.as_str(), rest) {
        ("hold", [mode, dir, files @ ..]) => (None, Some((mode.as_str(), dir.as_str())), files),
        ("hold", _) => usage(),
        (gate, files) => (Some(gate), None, files),
    };
    let (files, names) = match files.iter().position(|word| word == NAMES) {
        Some(at) => (&files[..at], &files[at + 1..]),
        None => (files, [].as_slice()),
    };
    let record = PathBuf::from(record);
    let seed = seed.parse().unwrap_or_else(|_| usage());
    let pen = Pen::new(&record, below);
    let dice = Dice::new(seed);
    let mut worker = Worker { pen, dice, record, files, names, stamps: 0, spare: None };
    for _ in 0..turns.parse().unwrap_or_else(|_| usage()) {
        if worker.record.join(STOP).exists() {
            break;
        }
        let may_write = below.is_none_or(|(mode, _)| mode == "write");
        match gate.filter(|_| worker.dice.below(HOLD_EVERY) == 0) {
            Some(gate) => worker.hold(gate),
            None => worker.turn(may_write),
        }
        if !worker.names.is_empty() {
            worker.deed(may_write);
            worker.turn(may_write);
        }
    }
}

struct Worker<'a> {
    pen: Pen,
    dice: Dice,
    record: PathBuf,
    files: &'a [String],
    names: &'a [String],
    stamps: u64,
    /// A file that it made to put it in the place of another.
    spare: Option<String>,
}

impl Worker<'_> {
    fn turn(&mut self, may_write: bool) {
        let path = self.dice.pick(self.files);
        let access = match self.dice.below(100) >= READS_PERCENT && may_write {
            true => Access::Write,
            false => Access::Read,
        };
        let (mode, flags) = match access {
            Access::Read => ("read", OFlags::RDONLY),
            Access::Write => ("write", OFlags::RDWR),
        };
        let mut file = None;
        let opened = self.pen.call(&format!("open {mode} {path}"), || {
            file = Some(rustix::fs::open(path.as_str(), flags | OFlags::CLOEXEC, Mode::empty())?);
            Ok(String::new())
        });
        let Some(file) = file.filter(|_| opened.is_ok()) else { return };
        self.work(&file, access);
        let _ = self.pen.call("close", || close(file).map(|()| String::new()));
    }

    /// Goes on after a failure: every later call must fail as well.
    fn work(&mut self, file: &OwnedFd, access: Access) {
        let length = rustix::fs::fstat(file).map_or(0, |stat| stat.st_size.cast_unsigned());
        let places = [0, length.saturating_sub(STAMP_BYTES as u64)];
        let read = |pen: &mut Pen| {
            for (half, place) in HALVES.iter().zip(places) {
                let _ = pen.call(&format!("read {half}"), || read_stamp(file, place));
            }
        };
        read(&mut self.pen);
        if access == Access::Write {
            for (half, place) in HALVES.iter().zip(places) {
                let stamp = self.stamp();
                let bytes = format!("{stamp: <STAMP_BYTES$}");
                if *half == HALVES[1] {
                    self.pause();
                }
                let _ = self.pen.call(&format!("write {half} {stamp}"), || {
                    let count = rustix::io::pwrite(file, bytes.as_bytes(), place)?;
                    if count == STAMP_BYTES { Ok(String::new()) } else { Err(Errno::IO) }
                });
            }
        }
        read(&mut self.pen);
    }

    /// Returns one that nobody else has.
    fn stamp(&mut self) -> String {
        self.stamps += 1;
        format!("{}.{:x}.{}", std::process::id(), self.dice.roll(), self.stamps)
    }

    /// Stops, if it is the one to do so.
    fn pause(&self) {
        let pid = rustix::process::getpid();
        let mine = self.record.join(format!("{PAUSE}.{pid}"));
        if std::fs::rename(self.record.join(PAUSE), &mine).is_err() {
            return;
        }
        let told = std::fs::write(&mine, pid.to_string());
        if told.and_then(|()| std::fs::rename(&mine, self.record.join(PAUSED))).is_ok() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::STOP);
        }
    }

    /// Holds a directory and lets another worker work in it.
    fn hold(&mut self, gate: &str) {
        let path = Path::new(self.dice.pick(self.files).as_str());
        let dir = path.parent().and_then(Path::to_str).unwrap_or_default();
        let mode = *self.dice.pick(&["read", "write"]);
        let (turns, seed) = (HELD_TURNS.to_string(), self.dice.roll().to_string());
        let mut command = Command::new(gate);
        command.arg("hold").args((mode == "read").then_some("--read")).args([dir, "--"]);
        command.arg(std::env::current_exe().unwrap_or_default()).arg(&self.record);
        command.args([seed.as_str(), turns.as_str(), "hold", mode, dir]);
        let is_beneath = |name: &&String| Path::new(name).starts_with(dir);
        command.args(self.files.iter().filter(is_beneath));
        command.arg(NAMES).args(self.names.iter().filter(is_beneath));
        let Ok(mut child) = command.spawn() else { return };
        self.pen.child(child.id());
        let _ = self.pen.call(&format!("hold {mode} {dir}"), || {
            let status = child.wait().map_err(|_| Errno::CHILD)?;
            match status.code() {
                Some(0) => Ok(String::new()),
                // What it exits with takes the place of an errno.
                Some(code) => Err(Errno::from_raw_os_error(code)),
                None => Err(Errno::CHILD),
            }
        });
    }
}

fn read_stamp(file: &OwnedFd, place: u64) -> Result<String> {
    let mut bytes = [0; STAMP_BYTES];
    let count = rustix::io::pread(file, &mut bytes, place)?;
    // A file that was truncated before anything was written has zeros in place of a stamp.
    Ok(String::from_utf8_lossy(&bytes[..count]).trim_end_matches(['\0', ' ']).to_owned())
}

/// Closes a file and tells what close said; dropping it would hide that.
fn close(file: OwnedFd) -> Result<()> {
    let number = std::os::fd::IntoRawFd::into_raw_fd(file);
    // SAFETY: the descriptor was just given up by its owner, so nobody else closes it.
    if unsafe { libc::close(number) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn usage() -> ! {
    eprintln!("worker RECORD SEED TURNS (GATE | hold MODE DIR) FILE… [-- NAME…]");
    std::process::exit(2)
}
