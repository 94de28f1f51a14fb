//! What a process writes down of its own calls, and how it is read again.
//!
//! A line is written before each call and one after it, each at once, so a process that is killed
//! leaves all but the answer to its last call. Times are CLOCK_MONOTONIC, one for all processes.
//!
//! ```text
//! 17 process 4711 below 4700 hold write d
//! 18 > open write d/a        20 > read front            22 > write front 4711.18.1
//! 19 < ok                    21 < ok 4710.3.7           23 < err 5            24 child 4712
//! 25 > make n/a 4711.2f.2    27 > look n/a              29 > rename n/b n/a   31 > rmdir n/d
//! 26 < err 17                28 < ok 4710.31.4 48       30 < ok               32 < err 39
//! ```

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::Access;

/// Where in a file a stamp lies: a writer changes both halves, one after the other.
pub const HALVES: [&str; 2] = ["front", "back"];

/// Bytes that a stamp takes in a file: it is followed by spaces.
pub const STAMP_BYTES: usize = 48;

/// The file beside the records that ends all workers.
pub const STOP: &str = "stop";
/// The file that tells one worker to stop between its writes, until it is told to go on.
pub const PAUSE: &str = "pause";
/// The file in which that worker leaves its id.
pub const PAUSED: &str = "paused";

/// What is done with names: a file is made with a stamp in it, its stamp and size are looked up, …
pub const DEEDS: [&str; 7] = ["make", "look", "unlink", "rename", "truncate", "mkdir", "rmdir"];

/// What came of a call: a value (of a read) or the errno.
pub type Answer = Result<String, i32>;

/// The pen of one process.
pub struct Pen(File);

/// All that one process wrote down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// That of its parent.
    pub parent: u32,
    /// Whom it started.
    pub children: Vec<u32>,
    /// What its parent held for it.
    pub below: Option<(Access, String)>,
    /// When it began and when it was last seen.
    pub seen: (u64, u64),
    /// What it had open.
    pub turns: Vec<Turn>,
    /// What failed: the call and the errno.
    pub failures: Vec<(String, i32)>,
    /// What it did with names, whatever came of it.
    pub deeds: Vec<Deed>,
}

/// One call that makes, changes or looks up a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// What, and of which names; see [`DEEDS`].
    pub words: Vec<String>,
    /// When it was called.
    pub called: u64,
    /// When it came back and with what, unless the process was ended before.
    pub answer: Option<(u64, Answer)>,
    /// How many files its process had opened before.
    pub after: usize,
}

/// One open file, from open to close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Whose.
    pub pid: u32,
    /// Of which file.
    pub path: String,
    /// For what it was opened.
    pub access: Access,
    /// When open was called, and when it came back.
    pub opened: (u64, u64),
    /// What was done.
    pub calls: Vec<Call>,
    /// When close was called, unless the process was ended before.
    pub closed: Option<u64>,
    /// When the process was last seen in this turn.
    pub over: u64,
}

/// One read or write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which of [`HALVES`].
    pub half: usize,
    /// The stamp it writes; none if it reads.
    pub writes: Option<String>,
    /// When it was called.
    pub called: u64,
    /// When it came back and with what, unless the process was ended before.
    pub answer: Option<(u64, Answer)>,
}

impl Call {
    /// Returns when it came back and with what value, if it succeeded.
    #[must_use]
    pub fn done(&self) -> Option<(u64, &str)> {
        let (at, answer) = self.answer.as_ref()?;
        answer.as_ref().ok().map(|value| (*at, value.as_str()))
    }
}

impl Pen {
    /// Begins the record of this process in `dir`; `below` is the hold that it runs under.
    ///
    /// # Panics
    /// If the record cannot be written.
    #[must_use]
    pub fn new(dir: &Path, below: Option<(&str, &str)>) -> Self {
        let (pid, parent) = (std::process::id(), std::os::unix::process::parent_id());
        let began = now();
        let mut pen = Self(File::create(dir.join(format!("{pid}.{began}"))).expect("a record"));
        let below = below.map(|(how, dir)| format!(" hold {how} {dir}")).unwrap_or_default();
        pen.write(&format!("{began} process {pid} below {parent}{below}\n"));
        pen
    }

    /// Writes down that this process started another.
    pub fn child(&mut self, pid: u32) {
        self.write(&format!("{} child {pid}\n", now()));
    }

    /// Makes a call, written down before and after.
    pub fn call(
        &mut self,
        words: &str,
        call: impl FnOnce() -> Result<String, Errno>,
    ) -> Result<String, Errno> {
        self.write(&format!("{} > {words}\n", now()));
        let answer = call();
        match &answer {
            Ok(value) => self.write(&format!("{} < ok {value}\n", now())),
            Err(errno) => self.write(&format!("{} < err {}\n", now(), errno.raw_os_error())),
        }
        answer
    }

    fn write(&mut self, line: &str) {
        self.0.write_all(line.as_bytes()).expect("a record can be written");
    }
}

/// Returns the time in nanoseconds, the same for all processes.
#[must_use]
pub fn now() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Returns the time of [`now`] at the beginning of 1970, to place the broker's times.
#[must_use]
pub fn of_1970() -> i128 {
    i128::from(now()) - i128::from(nanos(ClockId::Realtime))
}

/// Reads what one process wrote down; the last line may be cut.
///
/// # Panics
/// If it is no record.
#[must_use]
pub fn parse(text: &str) -> Process {
    let mut process = Process::default();
    let mut asked: Option<(u64, &str)> = None;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let (at, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no record: {line}"));
        let at: u64 = at.parse().unwrap_or_else(|_| panic!("no record: {line}"));
        process.seen.1 = at;
        let (kind, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("no record: {line}"));
        match kind {
            "process" => process.begin(at, rest),
            "child" => process.children.push(rest.parse().expect("a process id")),
            ">" => {
                process.ask(at, rest);
                asked = Some((at, rest));
            }
            _ => {
                let (called, words) = asked.take().unwrap_or_else(|| panic!("unasked: {line}"));
                process.answer((called, at), words, parse_answer(rest));
            }
        }
    }
    process
}

impl Process {
    fn begin(&mut self, at: u64, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        let number = |at: usize| words[at].parse().expect("a process id");
        (self.pid, self.parent) = (number(0), number(2));
        self.below = words.get(3).map(|_| (access(words[4]), words[5].to_owned()));
        self.seen.0 = at;
    }

    fn ask(&mut self, called: u64, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        if DEEDS.contains(&words[0]) {
            let words = words.into_iter().map(str::to_owned).collect();
            self.deeds.push(Deed { words, called, answer: None, after: self.turns.len() });
            return;
        }
        let Some(turn) = self.turns.last_mut().filter(|turn| turn.closed.is_none()) else { return };
        turn.over = called;
        match words[0] {
            "read" | "write" => turn.calls.push(Call {
                half: HALVES.iter().position(|half| *half == words[1]).expect("front or back"),
                writes: words.get(2).map(|stamp| (*stamp).to_owned()),
                called,
                answer: None,
            }),
            "close" => turn.closed = Some(called),
            _ => {}
        }
    }

    fn answer(&mut self, (called, at): (u64, u64), words: &str, answer: Answer) {
        if DEEDS.iter().any(|deed| words.split(' ').next() == Some(deed)) {
            self.deeds.last_mut().expect("asked before").answer = Some((at, answer));
            return;
        }
        if let Err(errno) = &answer {
            self.failures.push((words.to_owned(), *errno));
        }
        let words: Vec<&str> = words.split(' ').collect();
        match (words[0], self.turns.last_mut()) {
            ("open", _) if answer.is_ok() => self.turns.push(Turn {
                pid: self.pid,
                path: words[2].to_owned(),
                access: access(words[1]),
                opened: (called, at),
                calls: Vec::new(),
                closed: None,
                over: at,
            }),
            ("read" | "write", Some(turn)) => {
                turn.over = at;
                turn.calls.last_mut().expect("asked before").answer = Some((at, answer));
            }
            ("close", Some(turn)) => turn.over = at,
            _ => {}
        }
    }
}

fn parse_answer(text: &str) -> Answer {
    match text.split_once(' ') {
        Some(("err", errno)) => Err(errno.parse().expect("an errno")),
        Some(("ok", value)) => Ok(value.to_owned()),
        _ => panic!("no answer: {text}"),
    }
}

fn access(word: &str) -> Access {
    if word == "write" { Access::Write } else { Access::Read }
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_up_to_where_its_process_was_ended() {
        let process = parse(
            "1 process 7 below 6 hold write d\n1 child 8\n2 > open read d/a\n3 < ok \n4 > read back\n\
             5 < ok x\n6 > close\n7 < ok \n8 > open write d/a\n9 < ok \n10 > write front 7.1.1\n\
             11 < err 5\n12 > write back 7.1.2\n13 < o",
        );
        assert_eq!((process.pid, process.parent, process.seen), (7, 6, (1, 12)));
        assert_eq!(process.children, [8]);
        assert_eq!(process.below, Some((Access::Write, "d".to_owned())));
        assert_eq!(process.failures, [("write front 7.1.1".to_owned(), 5)]);
        let [first, second] = process.turns.as_slice() else { panic!("{process:?}") };
        assert_eq!((first.opened, first.closed, first.over), ((2, 3), Some(6), 7));
        assert_eq!(first.calls[0].done(), Some((5, "x")));
        assert_eq!((second.access, second.closed, second.over), (Access::Write, None, 12));
        let answers: Vec<_> = second.calls.iter().map(|call| call.answer.clone()).collect();
        assert_eq!(answers, [Some((11, Err(5))), None]);
    }

    #[test]
    fn what_is_done_with_names_is_told_apart_from_files_that_are_opened() {
        let process = parse(
            "1 process 7 below 6\n2 > make n/a 7.1\n3 < err 17\n4 > open read d/a\n5 < ok \n\
             6 > close\n7 < ok \n8 > look n/a\n9 < ok 7.0 48\n10 > rename n/b n/a\n11 <",
        );
        assert_eq!((process.failures.len(), process.turns.len()), (0, 1));
        let told: Vec<_> = process
            .deeds
            .into_iter()
            .map(|deed| (deed.words.join(" "), deed.called, deed.answer, deed.after))
            .collect();
        let expected = [
            ("make n/a 7.1".to_owned(), 2, Some((3, Err(17))), 0),
            ("look n/a".to_owned(), 8, Some((9, Ok("7.0 48".to_owned()))), 1),
            ("rename n/b n/a".to_owned(), 10, None, 1),
        ];
        assert_eq!(told, expected);
    }
}
