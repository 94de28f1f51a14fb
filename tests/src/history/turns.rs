//! Which turns of the broker's log were those of which calls in a process's record.
//!
//! The log names processes, not calls. So whoever changes names opens a file whose name stays between any two of
//! its calls: those opens are counted on both sides, and what lies between two of them is one call's. It
//! may have had several turns, of which it acted in the last: a turn is given back if it was for something
//! else than what was there by then.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::record::{Deed, Process};

/// The turns that a log tells of.
#[derive(Debug, Default)]
pub struct Turns {
    /// By process, in the order in which they were let in.
    all: BTreeMap<u32, Vec<Turn>>,
}

/// From being let in to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    op: String,
    paths: Vec<String>,
    /// Where in the log it begins and ends.
    pub place: (usize, usize),
    /// The same in the time of the records, to a millisecond.
    pub time: (u64, u64),
}

impl Turn {
    /// Whether what it was for had a name by then.
    #[must_use]
    pub fn has_name(&self) -> bool {
        !self.paths.is_empty()
    }
}

impl Turns {
    /// Reads the lines of `gate log --json`, the oldest first; `of_1970` is when 1970 began in the time of the
    /// records.
    ///
    /// # Panics
    /// If they are no log.
    #[must_use]
    pub fn read(log: &str, of_1970: i128) -> Self {
        let mut turns = Self::default();
        let mut open = BTreeMap::<u64, (u32, usize)>::new();
        for (place, line) in log.lines().enumerate() {
            let event: Value = serde_json::from_str(line).expect("a log is JSON, line by line");
            let pid = event["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            let (Some(ticket), Some(pid)) = (event["ticket"].as_u64(), pid) else { continue };
            let at: Option<jiff::Timestamp> = event["at"].as_str().and_then(|at| at.parse().ok());
            let at = at.expect("an event has a time").as_millisecond();
            let at = u64::try_from(i128::from(at) * 1_000_000 + of_1970).unwrap_or_default();
            match event["event"].as_str() {
                Some("granted") => {
                    let all = turns.all.entry(pid).or_default();
                    open.insert(ticket, (pid, all.len()));
                    all.push(Turn {
                        op: event["op"].as_str().unwrap_or_default().to_owned(),
                        paths: paths(&event),
                        place: (place, usize::MAX),
                        time: (at, u64::MAX),
                    });
                }
                Some("released" | "revoked") => {
                    if let Some((pid, number)) = open.remove(&ticket) {
                        let turn = &mut turns.all.get_mut(&pid).expect("noted above")[number];
                        (turn.place.1, turn.time.1) = (place, at);
                    }
                }
                _ => {}
            }
        }
        turns
    }

    /// Returns the turns between the opens of a process, by how many of those were before.
    ///
    /// # Errors
    /// If the log tells of other opens than the process does.
    pub fn of(&self, process: &Process) -> Result<BTreeMap<usize, Between>, String> {
        let opened: Vec<&str> = process.turns.iter().map(|turn| turn.path.as_str()).collect();
        let staying: BTreeSet<&str> = opened.iter().copied().collect();
        let mut between = BTreeMap::<usize, Between>::new();
        let mut told = Vec::new();
        for turn in self.all.get(&process.pid).into_iter().flatten() {
            match turn.paths.as_slice() {
                [path] if turn.op == "open" && staying.contains(path.as_str()) => {
                    told.push(path.as_str());
                }
                _ => between.entry(told.len()).or_default().0.push(turn.clone()),
            }
        }
        // Who was ended may have been let in without having heard of it.
        let heard = &told[..told.len().min(opened.len())];
        if heard != opened || told.len() > opened.len() + 1 {
            let pid = process.pid;
            let (count, logged) = (opened.len(), told.len());
            return Err(format!(
                "process {pid} opened {count} files, and the log tells of {logged}"
            ));
        }
        Ok(between)
    }
}

/// The turns of one call.
#[derive(Debug, Default)]
pub struct Between(Vec<Turn>);

impl Between {
    /// Returns the one in which a call acted, if it did.
    #[must_use]
    pub fn last_of(&self, deed: &Deed) -> Option<&Turn> {
        let [word, names @ ..] = deed.words.as_slice() else { return None };
        let (op, names) = match word.as_str() {
            "make" => ("create", &names[..1]),
            "look" => ("open", names),
            "truncate" => ("truncate", &names[..1]),
            other => (other, names),
        };
        // Of a file that lost its name meanwhile there is none to be told.
        let is_its = |turn: &&Turn| turn.op == op && (turn.paths.is_empty() || turn.paths == names);
        self.0.iter().rev().find(is_its)
    }
}

/// Returns the names that a claim is about.
pub(super) fn paths(event: &Value) -> Vec<String> {
    let all = event["paths"].as_array().cloned().unwrap_or_default();
    let all = if all.is_empty() { vec![event["path"].clone()] } else { all };
    all.iter().filter_map(|path| path.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::record::parse;

    /// One line each: what, ticket, what for, and its names.
    fn log(story: &str) -> String {
        let event = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [event, ticket, op, paths @ ..] = words.as_slice() else { panic!("{line}") };
            serde_json::json!({
                "event": event, "ticket": ticket.parse::<u64>().unwrap(), "op": op, "pid": 7,
                "at": "1970-01-01T00:00:01Z", "path": paths.first(), "paths": paths,
            })
            .to_string()
        };
        story.lines().map(event).collect::<Vec<_>>().join("\n")
    }

    const RECORD: &str = "1 process 7 below 6\n2 > unlink n/a\n3 < ok \n4 > open read d/a\n5 < ok \n\
                          6 > close\n7 < ok \n8 > unlink n/a\n9 < err 2\n";

    #[test]
    fn a_call_acts_in_the_last_of_its_turns() {
        let told = "granted 1 unlink n/a
                    released 1 unlink n/a
                    granted 2 unlink n/a
                    released 2 unlink n/a
                    granted 3 open d/a
                    granted 4 rename n/b n/a
                    released 3 open d/a";
        let process = parse(RECORD);
        let turns = Turns::read(&log(told), 0).of(&process).unwrap();
        let of = |deed: &Deed| turns.get(&deed.after)?.last_of(deed).map(|turn| turn.place);
        assert_eq!(of(&process.deeds[0]), Some((2, 3)));
        assert_eq!(of(&process.deeds[1]), None);
    }

    #[test]
    fn a_log_that_tells_of_other_opens_is_refused() {
        let process = parse(RECORD);
        let told = |story: &str| Turns::read(&log(story), 0).of(&process).is_ok();
        assert!(told("granted 1 open d/a"));
        assert!(told("granted 1 open d/a\ngranted 2 open d/a"), "it was ended before it heard");
        assert!(!told("granted 1 open d/b"));
        assert!(!told("granted 1 open d/a\ngranted 2 open d/a\ngranted 3 open d/a"));
    }
}
