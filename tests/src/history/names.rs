//! Judges what became of names: whether all that was told of them fits one order.
//!
//! Names are a register that many change: a file is told apart by the stamp that its maker wrote, and by its
//! size, which who truncates it makes a number of its own. Every call has a moment between its beginning
//! and its end at which it happened at once; those moments are looked for (as by Wing and Gong). Where the broker's log
//! says that one change had ended before another was let in, that is their order. Who was ended in a call
//! may have done it, or not. A call that failed changed nothing, and failed for a reason that was there.

use std::collections::{BTreeMap, BTreeSet};

use super::Access;
use super::record::{Deed, Process, STAMP_BYTES};
use super::turns::{Turn, Turns};

/// The log tells milliseconds.
const SLACK_NANOS: u64 = 2_000_000;

/// What processes did with names, counted, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Calls.
    pub deeds: usize,
    /// Of these, those that changed something, by what they are.
    pub changes: BTreeMap<String, usize>,
    /// Of all, those that were told to try again.
    pub again: usize,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// A file with that stamp and size.
    File(String, u64),
    /// A directory.
    Directory,
}

/// All names; what is not here is not there.
pub type Names = BTreeMap<String, Entry>;

/// Judges what processes wrote down of names, none of which were there at first; `turns` is what the log tells,
/// `last` what is there in the end, and `fixed` the directories that are always there.
#[must_use]
pub fn judge(processes: &[Process], turns: &Turns, last: &Names, fixed: &[&str]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut acts = Vec::new();
    for process in processes {
        match turns.of(process) {
            Ok(turns) => acts.extend(process.deeds.iter().map(|deed| {
                let turn = turns.get(&deed.after).and_then(|between| between.last_of(deed));
                Act::new(process, deed, turn)
            })),
            Err(wrong) => verdict.wrong.push(wrong),
        }
    }
    verdict.deeds = acts.len();
    for act in &acts {
        verdict.again += usize::from(act.outcome == Outcome::Again);
        if act.outcome == Outcome::Changed {
            *verdict.changes.entry(act.words[0].clone()).or_default() += 1;
            if !act.has_turn {
                verdict.wrong.push(format!("it changed something without a turn: {act:?}"));
            }
        }
    }
    verdict.wrong.extend(within_holds(processes, &acts));
    // Of a call that nobody was let in for nothing came, whoever was ended in it.
    acts.retain(|act| act.outcome != Outcome::Unknown || act.has_turn);
    acts.sort_by_key(|act| act.called);
    verdict.wrong.extend(Search::new(&acts, fixed).run(last.clone()).err());
    verdict
}

/// One call.
#[derive(Debug)]
struct Act {
    pid: u32,
    words: Vec<String>,
    called: u64,
    over: u64,
    outcome: Outcome,
    has_turn: bool,
    /// Where the log says that it was let in, and that its turn ended: then it happened. Not so what
    /// is done to a file that had lost its name by then: that was found before.
    turn: Option<(usize, usize)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Changed,
    Saw(String),
    Failed(i32),
    /// It may be told so at any time.
    Again,
    Unknown,
}

impl Act {
    fn new(process: &Process, deed: &Deed, turn: Option<&Turn>) -> Self {
        let again = rustix::io::Errno::AGAIN.raw_os_error();
        let outcome = match &deed.answer {
            None => Outcome::Unknown,
            Some((_, Ok(value))) if deed.words[0] == "look" => Outcome::Saw(value.clone()),
            Some((_, Ok(_))) => Outcome::Changed,
            Some((_, Err(errno))) if *errno == again => Outcome::Again,
            Some((_, Err(errno))) => Outcome::Failed(*errno),
        };
        Self {
            pid: process.pid,
            words: deed.words.clone(),
            called: deed.called,
            // Who was ended in a call may have done it up to the end of its turn.
            over: match (&deed.answer, turn) {
                (Some((at, _)), _) => *at,
                (None, Some(turn)) => turn.time.1.saturating_add(SLACK_NANOS),
                (None, None) => deed.called,
            },
            outcome,
            has_turn: turn.is_some(),
            turn: turn.filter(|of| of.has_name() && deed.words[0] != "look").map(|of| of.place),
        }
    }

    fn may_change(&self) -> bool {
        match self.outcome {
            Outcome::Changed => true,
            Outcome::Unknown => self.words[0] != "look",
            Outcome::Saw(_) | Outcome::Failed(_) | Outcome::Again => false,
        }
    }

    /// Whether what it was told was so with these names; for one that changed nothing.
    fn is_told_by(&self, names: &Names, fixed: &[&str]) -> bool {
        use rustix::io::Errno;
        let (name, to) = (self.words[1].as_str(), self.words.last().map_or("", String::as_str));
        let errno = match &self.outcome {
            Outcome::Saw(seen) => return names.get(name).is_some_and(|entry| entry.shows(seen)),
            Outcome::Failed(errno) => Errno::from_raw_os_error(*errno),
            Outcome::Again => return true,
            Outcome::Changed | Outcome::Unknown => return false,
        };
        match (self.words[0].as_str(), errno) {
            ("make" | "mkdir", Errno::EXIST) => names.contains_key(name),
            ("make" | "mkdir", Errno::NOENT) => !has_parent(names, name, fixed),
            ("rename", Errno::NOENT) => !names.contains_key(name) || !has_parent(names, to, fixed),
            ("rmdir", Errno::NOTEMPTY) => !is_empty(names, name),
            ("look" | "unlink" | "truncate" | "rmdir", Errno::NOENT) => !names.contains_key(name),
            _ => false,
        }
    }

    /// Returns what it makes of these names, if it can; one that was cut short may have done half.
    fn change(&self, names: &Names, fixed: &[&str]) -> Vec<Names> {
        let (name, more) = (&self.words[1], self.words.get(2).cloned().unwrap_or_default());
        let there = names.get(name);
        let mut after = names.clone();
        match (self.words[0].as_str(), there) {
            ("make", None) if has_parent(names, name, fixed) => {
                after.insert(name.clone(), Entry::File(more, STAMP_BYTES as u64));
                if self.outcome == Outcome::Unknown {
                    let mut half = names.clone();
                    half.insert(name.clone(), Entry::File(String::new(), 0));
                    return vec![half, after];
                }
            }
            ("unlink", Some(Entry::File(..))) => {
                after.remove(name);
            }
            ("rename", Some(Entry::File(..))) if has_parent(names, &more, fixed) => {
                let moved = after.remove(name).expect("it is there");
                after.insert(more, moved);
            }
            ("truncate", Some(Entry::File(stamp, _))) => {
                let size = more.parse().expect("a size");
                after.insert(name.clone(), Entry::File(stamp.clone(), size));
            }
            ("mkdir", None) if has_parent(names, name, fixed) => {
                after.insert(name.clone(), Entry::Directory);
            }
            ("rmdir", Some(Entry::Directory)) if is_empty(names, name) => {
                after.remove(name);
            }
            _ => return Vec::new(),
        }
        vec![after]
    }
}

impl Entry {
    fn shows(&self, seen: &str) -> bool {
        matches!(self, Self::File(stamp, size) if *seen == format!("{stamp} {size}"))
    }
}

fn has_parent(names: &Names, name: &str, fixed: &[&str]) -> bool {
    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
    fixed.contains(&parent) || names.get(parent) == Some(&Entry::Directory)
}

fn is_empty(names: &Names, dir: &str) -> bool {
    !names.keys().any(|name| name.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')))
}

/// Finds what was changed, or seen, of what somebody else held all the while.
fn within_holds(processes: &[Process], acts: &[Act]) -> Vec<String> {
    let mut wrong = Vec::new();
    for process in processes {
        let Some((access, dir)) = &process.below else { continue };
        let (from, to) = process.seen;
        let is_beneath = |name: &String| {
            name.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        for act in acts.iter().filter(|act| act.pid != process.pid) {
            let acted = match act.outcome {
                Outcome::Changed => true,
                Outcome::Saw(_) => *access == Access::Write,
                Outcome::Failed(_) | Outcome::Again | Outcome::Unknown => false,
            };
            let is_within = act.called > from && act.over < to;
            if acted && is_within && act.words[1..].iter().any(is_beneath) {
                wrong.push(format!("{act:?} within the hold of {dir} of {}", process.pid));
            }
        }
    }
    wrong
}

/// A way in which all that ended could have happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    names: Names,
    /// Those under way that have happened.
    happened: BTreeSet<usize>,
}

/// Looks for the moments at which all calls happened.
struct Search<'a> {
    acts: &'a [Act],
    fixed: &'a [&'a str],
    /// For each call the earliest end of a turn of those that are called later.
    later_ends: Vec<usize>,
    /// By the call that is the last to mention them: names of which nobody hears any more.
    forgotten: BTreeMap<usize, Vec<&'a str>>,
    under_way: BTreeSet<usize>,
    ways: BTreeSet<Way>,
}

/// More ways than that say that the judge, or the log, is of no use.
const WAYS_MAX: usize = 100_000;

impl<'a> Search<'a> {
    fn new(acts: &'a [Act], fixed: &'a [&'a str]) -> Self {
        let mut later_ends = vec![usize::MAX; acts.len() + 1];
        for (number, act) in acts.iter().enumerate().rev() {
            let end = act.sure_end().unwrap_or(usize::MAX);
            later_ends[number] = later_ends[number + 1].min(end);
        }
        let way = Way { names: Names::new(), happened: BTreeSet::new() };
        let forgotten = forgotten(acts, fixed);
        Self { acts, fixed, later_ends, forgotten, under_way: BTreeSet::new(), ways: [way].into() }
    }

    fn run(mut self, mut last: Names) -> Result<(), String> {
        let begins = self.acts.iter().enumerate().map(|(number, act)| (act.called, 0, number));
        let ends = self.acts.iter().enumerate().map(|(number, act)| (act.over, 1, number));
        let mut moments: Vec<_> = begins.chain(ends).collect();
        moments.sort_unstable();
        let mut begun = 0;
        for (_, is_end, number) in moments {
            if is_end == 0 {
                begun = number + 1;
                self.under_way.insert(number);
                let ways = std::mem::take(&mut self.ways);
                self.ways = ways.into_iter().map(|way| self.see(way)).collect();
            } else {
                self.end(number, begun)?;
                self.forget(number, &mut last)?;
            }
        }
        let found = self.ways.iter().any(|way| way.names == last);
        let shown = || format!("in the end there is {last:?}, and none of {:?}", self.ways);
        if found { Ok(()) } else { Err(shown()) }
    }

    /// A call ends: it has happened by now, unless its maker was ended.
    fn end(&mut self, number: usize, begun: usize) -> Result<(), String> {
        let act = &self.acts[number];
        let mut todo: Vec<Way> = std::mem::take(&mut self.ways).into_iter().collect();
        let before = todo.clone();
        let mut known = BTreeSet::new();
        while let Some(mut way) = todo.pop() {
            if !known.insert(way.clone()) {
                continue;
            }
            if known.len() > WAYS_MAX {
                return Err(format!("too many ways lead to {act:?}"));
            }
            let has_happened = way.happened.remove(&number);
            if has_happened {
                self.ways.insert(way);
                continue;
            }
            todo.extend(self.onward(&way, begun));
            if act.outcome == Outcome::Unknown && before.contains(&way) {
                self.ways.insert(way);
            }
        }
        if self.ways.is_empty() {
            let beside: Vec<_> = self.under_way.iter().map(|at| &self.acts[*at]).collect();
            return Err(format!("{act:?} fits none of {before:#?} beside {beside:#?}"));
        }
        self.under_way.remove(&number);
        Ok(())
    }

    /// What nobody mentions any more is as it is in the end.
    fn forget(&mut self, number: usize, last: &mut Names) -> Result<(), String> {
        for name in self.forgotten.remove(&number).unwrap_or_default() {
            let there = last.remove(name);
            let ways = std::mem::take(&mut self.ways);
            let (right, wrong): (BTreeSet<_>, BTreeSet<_>) =
                ways.into_iter().partition(|way| way.names.get(name) == there.as_ref());
            if right.is_empty() {
                return Err(format!("in the end {name} is {there:?}, and it is not in {wrong:?}"));
            }
            self.ways.extend(right.into_iter().map(|mut way| {
                way.names.remove(name);
                way
            }));
        }
        Ok(())
    }

    /// Lets one of those under way happen, each in turn.
    fn onward(&self, way: &Way, begun: usize) -> Vec<Way> {
        let left = self.under_way.iter().filter(|number| !way.happened.contains(number));
        let mut onward = Vec::new();
        for number in left.clone().filter(|number| self.acts[**number].may_change()) {
            let act = &self.acts[*number];
            let others = left.clone().filter(|other| *other != number);
            let ends = others.filter_map(|other| self.acts[*other].sure_end());
            let first_end = ends.chain([self.later_ends[begun]]).min();
            // What had ended before it was let in happened before it.
            if act.turn.is_some_and(|(granted, _)| first_end.is_some_and(|end| end < granted)) {
                continue;
            }
            for names in act.change(&way.names, self.fixed) {
                let mut next = Way { names, happened: way.happened.clone() };
                next.happened.insert(*number);
                onward.push(self.see(next));
            }
        }
        onward
    }

    /// What changes nothing happens as soon as it may: it is in nobody's way.
    fn see(&self, mut way: Way) -> Way {
        let told = self.under_way.iter().filter(|number| {
            let act = &self.acts[**number];
            !act.may_change() && act.is_told_by(&way.names, self.fixed)
        });
        let told: Vec<usize> = told.copied().collect();
        way.happened.extend(told);
        way
    }
}

/// Finds the last call that mentions each name, but for what lies in directories that come and go.
fn forgotten<'a>(acts: &'a [Act], fixed: &[&str]) -> BTreeMap<usize, Vec<&'a str>> {
    let mut last = BTreeMap::<&str, (u64, usize)>::new();
    for (number, act) in acts.iter().enumerate() {
        for name in &act.words[1..] {
            let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            let name = if fixed.contains(&parent) { name.as_str() } else { parent };
            let moment = last.entry(name).or_default();
            *moment = (*moment).max((act.over, number));
        }
    }
    let mut forgotten = BTreeMap::<usize, Vec<&str>>::new();
    for (name, (_, number)) in last {
        forgotten.entry(number).or_default().push(name);
    }
    forgotten
}

impl Act {
    /// Where its turn ended, if it is sure that it changed something in it.
    fn sure_end(&self) -> Option<usize> {
        self.turn.filter(|_| self.outcome == Outcome::Changed).map(|(_, ended)| ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::record::parse;

    /// One call each: `PID WORDS | BEGAN ENDED | OUTCOME | GRANTED ENDED`, the latter two in the log.
    fn acts(story: &str) -> Vec<Act> {
        let act = |line: &str| {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            let [head, times, outcome, places] = parts[..] else { panic!("{line}") };
            let (pid, words) = head.split_once(' ').expect("a process");
            let number = |text: &str| text.parse::<usize>().expect("a number");
            let pair =
                |text: &str| text.split_once(' ').map(|(one, other)| (number(one), number(other)));
            let (called, over) = pair(times).expect("two times");
            let [called, over] = [called, over].map(|at| at as u64);
            Act {
                pid: pid.parse().expect("a process"),
                words: words.split(' ').map(str::to_owned).collect(),
                called,
                over,
                outcome: match outcome {
                    "done" => Outcome::Changed,
                    "?" => Outcome::Unknown,
                    _ if words.starts_with("look") && outcome.contains(' ') => {
                        Outcome::Saw(outcome.to_owned())
                    }
                    errno => Outcome::Failed(errno.parse().expect("an errno")),
                },
                has_turn: true,
                turn: pair(places),
            }
        };
        story.lines().map(act).collect()
    }

    fn fits(story: &str, last: &[&str]) -> bool {
        let entry = |text: &&str| {
            let words: Vec<&str> = text.split(' ').collect();
            let entry = match words[1..] {
                [stamp, size] => Entry::File(stamp.to_owned(), size.parse().expect("a size")),
                _ => Entry::Directory,
            };
            (words[0].to_owned(), entry)
        };
        Search::new(&acts(story), &["n"]).run(last.iter().map(entry).collect()).is_ok()
    }

    const MADE: &str = "1 make n/a x | 0 2 | done | 0 1\n";

    #[test]
    fn what_follows_from_what_was_done_fits() {
        let story = "1 look n/a | 3 4 | x 48 |
                     1 truncate n/a 99 | 5 6 | done | 2 3
                     2 look n/a | 7 8 | x 99 |
                     2 make n/new y | 9 10 | done | 4 5
                     2 rename n/new n/a | 11 12 | done | 6 7
                     1 unlink n/new | 13 14 | 2 |
                     1 mkdir n/d | 15 16 | done | 8 9
                     1 make n/d/x z | 17 18 | done | 10 11
                     2 rmdir n/d | 19 20 | 39 |
                     2 mkdir n/d | 21 22 | 17 |
                     1 unlink n/d/x | 23 24 | done | 12 13
                     2 rmdir n/d | 25 26 | done | 14 15
                     2 make n/d/x z | 27 28 | 2 |";
        assert!(fits(&(MADE.to_owned() + story), &["n/a y 48"]));
        assert!(!fits(&(MADE.to_owned() + story), &["n/a x 99"]), "in the end it is another");
    }

    #[test]
    fn what_nothing_leads_to_does_not_fit() {
        for (call, why) in [
            ("2 look n/a | 3 4 | y 48 |", "bytes of nobody"),
            ("2 look n/a | 3 4 | x 0 |", "a size of nobody"),
            ("2 look n/a | 3 4 | 2 |", "it is there"),
            ("2 make n/a y | 3 4 | done | 2 3", "there are two"),
            ("2 unlink n/b | 3 4 | done | 2 3", "it is not there"),
            ("2 rename n/b n/a | 3 4 | done | 2 3", "it is not there"),
            ("2 mkdir n/a | 3 4 | done | 2 3", "there is a file"),
            ("2 mkdir n/d | 3 4 | 17 |", "there is none"),
            ("2 make n/d/x y | 3 4 | done | 2 3", "there is no directory"),
            ("2 unlink n/a | 3 4 | 5 |", "no such errno is due"),
        ] {
            assert!(!fits(&(MADE.to_owned() + call), &["n/a x 48"]), "{why}");
        }
        assert!(!fits(&(MADE.to_owned() + "2 unlink n/a | 3 4 | done | 2 3"), &["n/a x 48"]));
    }

    /// Both orders of two that are under way at once are looked at, unless the log tells which it was.
    #[test]
    fn what_is_under_way_at_once_has_the_order_of_the_log() {
        let both = |log: [&str; 2]| {
            let [one, other] = log;
            let cut = format!("2 truncate n/a 50 | 3 9 | done | {one}");
            let cut = format!("{cut}\n3 truncate n/a 60 | 4 8 | done | {other}");
            MADE.to_owned() + &cut
        };
        assert!(fits(&both(["2 3", "4 5"]), &["n/a x 60"]));
        assert!(fits(&both(["4 5", "2 3"]), &["n/a x 50"]));
        assert!(!fits(&both(["2 3", "4 5"]), &["n/a x 50"]));
        assert!(!fits(&both(["4 5", "2 3"]), &["n/a x 60"]));
        assert!(fits(&both(["2 5", "3 4"]), &["n/a x 50"]));
        assert!(fits(&both(["2 5", "3 4"]), &["n/a x 60"]));
        // One of a file that had lost its name was found before.
        let late = "2 unlink n/a | 3 9 | done | 2 3\n3 truncate n/a 60 | 4 8 | done |";
        assert!(fits(&(MADE.to_owned() + late), &[]));
    }

    #[test]
    fn who_was_ended_in_a_call_may_have_done_it_or_half_of_it() {
        for last in [&["n/a x 48"][..], &[]] {
            assert!(fits(&(MADE.to_owned() + "2 unlink n/a | 3 9 | ? | 2 3"), last));
        }
        for last in [&["n/b y 48"][..], &["n/b  0"], &[]] {
            assert!(fits("2 make n/b y | 3 9 | ? | 2 3", last));
        }
        let seen = "2 unlink n/a | 3 9 | ? | 2 3\n1 look n/a | 4 5 | 2 |";
        assert!(!fits(&(MADE.to_owned() + seen), &["n/a x 48"]), "it was seen to be gone");
    }

    #[test]
    fn who_holds_a_directory_is_alone_with_its_names() {
        let within = |act: &str, how: &str| {
            let holder = format!("5 process 9 below 8 hold {how} n\n20 > look n/a\n20 < err 2\n");
            within_holds(&[parse(&holder)], &acts(act)).len()
        };
        assert_eq!(within("1 make n/a x | 6 9 | done | 0 1", "write"), 1);
        assert_eq!(within("1 make n/a x | 6 9 | done | 0 1", "read"), 1);
        assert_eq!(within("1 look n/a | 6 9 | x 48 |", "write"), 1);
        assert_eq!(within("1 look n/a | 6 9 | x 48 |", "read"), 0);
        assert_eq!(within("1 make n/a x | 4 9 | done | 0 1", "write"), 0);
        assert_eq!(within("1 make m/a x | 6 9 | done | 0 1", "write"), 0);
        assert_eq!(within("1 make n/a x | 6 9 | 17 |", "write"), 0);
        assert_eq!(within("9 make n/a x | 6 9 | done | 0 1", "write"), 0);
    }
}
