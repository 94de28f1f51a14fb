//! Judges what processes saw: who had a file open beside whom, and what the bytes tell.
//!
//! Each half of a file is a register in which every write leaves a stamp of its own, and whoever
//! writes has read the stamp that it replaces. So the stamps are a chain: one that was replaced
//! is never seen again (nothing stale is read, nothing late is written), and none is replaced
//! twice (nothing is lost). A turn that was taken away lasts up to its last call that succeeded.

use std::collections::BTreeMap;

use super::Access;
use super::record::{Call, HALVES, Process, Turn};

/// What processes did, counted, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Files opened.
    pub turns: usize,
    /// Of these, those whose process was ended before it closed the file.
    pub abandoned: usize,
    /// Of these, those taken away and told so by a call that failed.
    pub fenced: usize,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// What is known beside the processes' records.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Turns that were taken away: the process, the path, and when at the earliest and the latest.
    pub revoked: Vec<(u32, String, (u64, u64))>,
    /// What each half of each file holds in the end.
    pub last: BTreeMap<String, [String; 2]>,
}

/// Judges what processes wrote down.
#[must_use]
pub fn judge(processes: &[Process], known: &Known) -> Verdict {
    let mut verdict = Verdict::default();
    let mut turns = BTreeMap::<&str, Vec<(&Turn, bool)>>::new();
    for turn in processes.iter().flat_map(|process| &process.turns) {
        let revoked = is_revoked(turn.pid, &turn.path, (turn.opened.0, turn.over), known);
        verdict.turns += 1;
        verdict.abandoned += usize::from(turn.closed.is_none());
        verdict.fenced += usize::from(revoked && turn.calls.iter().any(failed));
        turns.entry(&turn.path).or_default().push((turn, revoked));
    }
    for (path, turns) in &turns {
        let spans = turns.iter().filter_map(|(turn, revoked)| Span::of_turn(turn, *revoked));
        let holds = processes.iter().filter_map(|process| Span::of_hold(process, path, known));
        verdict.wrong.extend(overlaps(path, spans.chain(holds).collect()));
        for half in 0..HALVES.len() {
            let last = known.last.get(*path).map(|halves| halves[half].as_str());
            let mut chain = Chain::of(turns, half);
            chain.judge(turns, half, last);
            let place = format!("{path}, {}: ", HALVES[half]);
            verdict.wrong.extend(chain.wrong.into_iter().map(|wrong| place.clone() + &wrong));
        }
    }
    verdict
}

/// When somebody certainly had something.
#[derive(Debug)]
struct Span {
    pid: u32,
    access: Access,
    from: u64,
    to: u64,
}

impl Span {
    fn of_turn(turn: &Turn, revoked: bool) -> Option<Self> {
        let to = match (revoked, turn.access) {
            (false, _) => turn.closed.unwrap_or(turn.over),
            // What the kernel remembers of a file it reads to anybody.
            (true, Access::Read) => return None,
            (true, Access::Write) => {
                let landed = turn.calls.iter().filter(|c| c.writes.is_some() && c.done().is_some());
                landed.map(|call| call.called).max()?
            }
        };
        let Turn { pid, access, opened, .. } = *turn;
        Some(Self { pid, access, from: opened.1, to })
    }

    /// The hold that a process runs under, if it is of a directory above `path`.
    fn of_hold(process: &Process, path: &str, known: &Known) -> Option<Self> {
        let (access, dir) = process.below.as_ref()?;
        let beneath = path.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let revoked = is_revoked(process.parent, dir, process.seen, known);
        let (from, to) = process.seen;
        (beneath && !revoked).then_some(Self { pid: process.pid, access: *access, from, to })
    }
}

/// Finds those who had the same at once.
fn overlaps(path: &str, mut spans: Vec<Span>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut open: Vec<&Span> = Vec::new();
    spans.sort_by_key(|span| span.from);
    for span in &spans {
        open.retain(|earlier| earlier.to > span.from);
        let conflicts =
            |other: &&&Span| other.pid != span.pid && other.access.conflicts(span.access);
        if let Some(other) = open.iter().find(conflicts).filter(|_| span.to > span.from) {
            wrong.push(format!("{path}: {span:?} beside {other:?}"));
        }
        open.push(span);
    }
    wrong
}

/// The stamps of one half of a file.
#[derive(Default)]
struct Chain<'a> {
    /// What was written, and whether that was told to have failed.
    written: BTreeMap<&'a str, bool>,
    /// What was replaced: when it was gone at the latest.
    replaced: BTreeMap<&'a str, u64>,
    wrong: Vec<String>,
}

impl<'a> Chain<'a> {
    fn of(turns: &[(&'a Turn, bool)], half: usize) -> Self {
        let mut chain = Self::default();
        for (turn, _) in turns {
            let mut before = None;
            for call in turn.calls.iter().filter(|call| call.half == half) {
                match (&call.writes, call.done()) {
                    (None, Some((_, seen))) => before = Some(seen),
                    (Some(stamp), Some((at, _))) => {
                        chain.written.insert(stamp, false);
                        if let Some(before) = before.replace(stamp) {
                            chain.replace(before, stamp, at);
                        }
                    }
                    (Some(stamp), None) => {
                        chain.written.insert(stamp, failed(call));
                    }
                    (None, None) => {}
                }
            }
        }
        chain
    }

    fn replace(&mut self, before: &'a str, stamp: &str, at: u64) {
        if self.replaced.insert(before, at).is_some() {
            self.wrong.push(format!("{before} is replaced twice, by {stamp} too"));
        }
    }

    fn judge(&mut self, turns: &[(&Turn, bool)], half: usize, last: Option<&str>) {
        for (turn, _) in turns.iter().filter(|(_, revoked)| !revoked) {
            let mut own = None;
            for call in turn.calls.iter().filter(|call| call.half == half) {
                match (&call.writes, call.done()) {
                    (Some(stamp), Some(_)) => own = Some(stamp.as_str()),
                    (None, Some((_, seen))) => {
                        if let Some(own) = own.filter(|own| *own != seen) {
                            self.wrong.push(format!("{own} became {seen} in the turn of {turn:?}"));
                        }
                        own = Some(seen);
                        self.see(seen, call.called);
                    }
                    _ => {}
                }
            }
        }
        if let Some(last) = last {
            self.see(last, u64::MAX);
        }
    }

    /// Judges a stamp that was read by a call that was made then.
    fn see(&mut self, stamp: &str, called: u64) {
        match self.written.get(stamp) {
            None if stamp != FIRST => self.wrong.push(format!("{stamp} was written by nobody")),
            Some(true) => self.wrong.push(format!("{stamp} is there, and its writer was told no")),
            _ => {}
        }
        if let Some(at) = self.replaced.get(stamp).filter(|at| **at < called) {
            self.wrong.push(format!("{stamp} is seen at {called}, after it was replaced at {at}"));
        }
    }
}

/// What a half holds before anybody wrote to it.
pub const FIRST: &str = "0";

fn failed(call: &Call) -> bool {
    call.answer.as_ref().is_some_and(|(_, answer)| answer.is_err())
}

fn is_revoked(pid: u32, path: &str, (from, to): (u64, u64), known: &Known) -> bool {
    known.revoked.iter().any(|(whose, of, (earliest, latest))| {
        *whose == pid && of == path && *earliest <= to && *latest >= from
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::record::parse;

    /// Records of processes 1, 2, …; a turn is `OPEN MODE CLOSE: CALLS`, calls are `TIME r0=stamp`,
    /// `TIME w1=stamp`, `TIME w1!stamp` (told no) or `TIME w1?stamp` (no answer), each one tick long.
    fn judged(turns: &[&str], known: &Known) -> Vec<String> {
        let processes = (1..).zip(turns).map(|(pid, turn)| {
            let (head, calls) = turn.split_once(": ").expect("a head");
            let [open, mode, close] = head.split(' ').collect::<Vec<_>>()[..] else { panic!() };
            let mut text = format!("0 process {pid} below 99\n{open} > open {mode} d/f\n");
            text += &format!("{} < ok \n", number(open) + 1);
            for call in calls.split(", ") {
                let (at, call) = call.split_once(' ').expect("a time");
                let (half, stamp) = (HALVES[usize::from(&call[1..2] == "1")], &call[3..]);
                let end = number(at) + 1;
                text += &match (&call[..1], &call[2..3]) {
                    ("r", _) => format!("{at} > read {half}\n{end} < ok {stamp}\n"),
                    (_, "=") => format!("{at} > write {half} {stamp}\n{end} < ok \n"),
                    (_, "!") => format!("{at} > write {half} {stamp}\n{end} < err 5\n"),
                    _ => format!("{at} > write {half} {stamp}\n"),
                };
            }
            if close != "-" {
                text += &format!("{close} > close\n{} < ok \n", number(close) + 1);
            }
            parse(&text)
        });
        judge(&processes.collect::<Vec<_>>(), known).wrong
    }

    fn number(text: &str) -> u64 {
        text.parse().expect("a number")
    }

    #[track_caller]
    fn refused(turns: &[&str], known: &Known, why: &str) {
        let wrong = judged(turns, known);
        assert!(wrong.iter().any(|wrong| wrong.contains(why)), "{wrong:?}");
    }

    fn revoked(pid: u32, at: u64) -> Known {
        let revoked = vec![(pid, "d/f".to_owned(), (at, at))];
        Known { revoked, last: BTreeMap::new() }
    }

    #[test]
    fn turns_after_one_another_are_right() {
        let turns = [
            "1 write 9: 3 r0=0, 4 r1=0, 5 w0=a, 6 w1=b, 7 r0=a",
            "20 read 29: 23 r0=a, 24 r1=b, 25 r0=a",
            "20 read 29: 23 r0=a, 24 r1=b, 25 r0=a",
            // This one is killed between its writes: its first landed, its second may have.
            "30 write -: 33 r0=a, 34 r1=b, 35 w0=c, 37 w1?d",
            "40 write 49: 43 r0=c, 44 r1=b, 45 w0=e, 47 w1=g",
        ];
        let last = BTreeMap::from([("d/f".to_owned(), ["e".to_owned(), "g".to_owned()])]);
        assert_eq!(judged(&turns, &Known { last, ..Known::default() }), [""; 0]);
    }

    #[test]
    fn two_at_once_are_wrong() {
        let turns = ["1 write 9: 3 r0=0", "5 read 12: 7 r0=0"];
        refused(&turns, &Known::default(), "beside");
        let mut process = parse("4 process 8 below 7 hold write d\n6 > x y\n7 < ok ");
        process.below = Some((Access::Write, "d".to_owned()));
        let other = parse("0 process 1 below 0\n1 > open read d/f\n2 < ok \n9 > close\n9 < ok ");
        let wrong = judge(&[process, other], &Known::default()).wrong;
        assert!(wrong.len() == 1 && wrong[0].contains("beside"), "{wrong:?}");
    }

    #[test]
    fn a_lost_update_is_wrong() {
        let turns = ["1 write 9: 3 r0=0, 5 w0=a", "20 write 29: 23 r0=0, 25 w0=b"];
        refused(&turns, &Known::default(), "replaced twice");
    }

    #[test]
    fn what_is_read_stale_is_wrong() {
        let turns = ["1 write 9: 3 r0=0, 5 w0=a", "20 read 29: 23 r0=0"];
        refused(&turns, &Known::default(), "after it was replaced");
    }

    #[test]
    fn a_change_within_a_turn_is_wrong() {
        let turns = ["1 read 9: 3 r0=0, 5 r0=a", "2 write -: 4 w0?a"];
        refused(&turns, &Known::default(), "became");
    }

    #[test]
    fn bytes_of_nobody_are_wrong() {
        refused(&["1 read 9: 3 r0=x"], &Known::default(), "by nobody");
    }

    /// N7.
    #[test]
    fn what_is_written_late_is_wrong() {
        let next = "12 write 19: 14 r0=0, 15 w0=b, 17 r0=b";
        let known = revoked(1, 10);
        assert_eq!(judged(&["1 write 25: 3 r0=0, 21 w0!a", next], &known), [""; 0]);
        refused(&["1 write 25: 3 r0=0, 21 w0=a", next], &known, "beside");
        refused(&["1 write 25: 3 r0=0, 21 w0=a", next], &known, "replaced twice");
        // It was told no, and the bytes are there all the same.
        let turns = ["1 write 25: 3 r0=0, 21 w0!a", next, "30 read 39: 33 r0=a"];
        refused(&turns, &known, "told no");
        // The next holder's stamp is gone although nobody replaced it.
        let last = BTreeMap::from([("d/f".to_owned(), ["0".to_owned(), "0".to_owned()])]);
        refused(&turns[..2], &Known { last, ..known }, "after it was replaced");
    }
}
