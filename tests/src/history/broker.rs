//! Judges the broker's log: who was let in beside whom, before whom, and with which token.
//!
//! The log of a broker that was killed may lack its last records, so that nobody knows who of those
//! that stood then still does. The records of the next run tell of some: who is let in, or lets go,
//! with a ticket from before stood all the time, and is judged from the restart on.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::Access;

/// What the log tells, counted, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Who was let in.
    pub grants: usize,
    /// Of these, who had waited.
    pub waits: usize,
    /// Of these, who passed others because it was kin of a holder.
    pub passes: usize,
    /// Who was let in before somebody that came earlier.
    pub inversions: usize,
    /// What was taken away.
    pub revocations: Vec<Revocation>,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// A turn that was taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// From whom.
    pub pid: u32,
    /// Of what.
    pub path: String,
    /// Why.
    pub why: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// Who is the parent of whom.
pub type Parents = BTreeSet<(u32, u32)>;

/// Judges the lines of `gate log --json`, the oldest first.
///
/// # Panics
/// If they are no log.
#[must_use]
pub fn judge(log: &str, parents: &Parents) -> Verdict {
    let mut judge = Judge {
        parents,
        moving: moving(log),
        held: BTreeMap::new(),
        waiting: BTreeMap::new(),
        cursor: None,
        since_cut: None,
        token: (0, 0),
        verdict: Verdict::default(),
    };
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).expect("a log is JSON, line by line");
        judge.hear(&event);
    }
    if let Some(since_cut) = judge.since_cut.take() {
        for pass in since_cut.unfounded {
            judge.wrong(format!("passed without being kin of a holder: {pass:?}"));
        }
    }
    judge.verdict
}

/// Returns the names that are made, removed or replaced.
fn moving(log: &str) -> BTreeSet<String> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let claims = events.filter_map(|event| Claim::of(&event));
    let moving = claims.filter(|claim| matches!(claim.kind, Kind::Create | Kind::Rename));
    moving.flat_map(|claim| claim.paths).collect()
}

/// What a claim asks for.
#[derive(Debug, Clone)]
struct Claim {
    ticket: u64,
    pid: u32,
    access: Access,
    kind: Kind,
    paths: Vec<String>,
    /// Its names may be others by now, or none.
    is_loose: bool,
}

/// What a claim is for, as far as that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An open file, or one that is truncated.
    Open,
    Hold,
    Create,
    /// A name is removed, or goes to another file.
    Rename,
    /// Something else that is done to a name.
    Other,
}

struct Judge<'a> {
    parents: &'a Parents,
    /// Names that do not stand for one file all the time.
    moving: BTreeSet<String>,
    held: BTreeMap<u64, Claim>,
    waiting: BTreeMap<u64, Claim>,
    cursor: Option<(u64, u64)>,
    since_cut: Option<SinceCut>,
    token: (u64, u64),
    verdict: Verdict,
}

/// What is to be held against those of whom it turns out only later that they stood all the time.
#[derive(Default)]
struct SinceCut {
    /// Who came, and has not left yet.
    came: BTreeSet<u64>,
    /// Who was let in, by a pass or not.
    granted: Vec<(Claim, bool)>,
    /// Who passed as kin of a holder that nobody heard of yet.
    unfounded: Vec<Claim>,
}

impl Claim {
    fn of(event: &Value) -> Option<Self> {
        let access = if event["mode"] == "read" { Access::Read } else { Access::Write };
        Some(Self {
            ticket: event["ticket"].as_u64()?,
            pid: event["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            access,
            kind: match event["op"].as_str()? {
                "open" | "truncate" => Kind::Open,
                "hold" => Kind::Hold,
                "create" => Kind::Create,
                "unlink" | "rename" => Kind::Rename,
                _ => Kind::Other,
            },
            paths: Some(super::turns::paths(event)).filter(|paths| !paths.is_empty())?,
            is_loose: false,
        })
    }

    /// Whether they may not both be let in. What depends on which file bears a name by now is left to
    /// those who saw it.
    fn conflicts(&self, other: &Self, moving: &BTreeSet<String>) -> bool {
        let meet = |under: fn(&str, &str) -> bool| {
            self.paths.iter().any(|path| other.paths.iter().any(|of| under(path, of)))
        };
        let is_sure = |claim: &Self| !claim.is_loose && !moving.contains(&claim.paths[0]);
        match (self.kind, other.kind) {
            (Kind::Hold, _) | (_, Kind::Hold) => {
                let beneath = match (self.kind, other.kind) {
                    (Kind::Hold, Kind::Hold) => meet(is_at_or_beneath) || meet(is_at_or_above),
                    (Kind::Hold, _) => meet(is_at_or_above) && !other.is_loose,
                    _ => meet(is_at_or_beneath) && !self.is_loose,
                };
                beneath && self.access.conflicts(other.access)
            }
            (Kind::Open, Kind::Open) => {
                let both_stay = is_sure(self) && is_sure(other);
                both_stay && meet(|a, b| a == b) && self.access.conflicts(other.access)
            }
            (Kind::Create, Kind::Create) => {
                !self.is_loose && !other.is_loose && meet(|a, b| a == b)
            }
            (Kind::Rename, Kind::Rename) => meet(|a, b| a == b),
            _ => false,
        }
    }
}

fn is_at_or_above(upper: &str, lower: &str) -> bool {
    lower.strip_prefix(upper).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_at_or_beneath(lower: &str, upper: &str) -> bool {
    is_at_or_above(upper, lower)
}

impl Judge<'_> {
    fn hear(&mut self, event: &Value) {
        self.follow(event);
        let name = event["event"].as_str().expect("an event has a name");
        match name {
            "broker-started" if event["former"] == "cut" => {
                self.held.clear();
                self.waiting.clear();
                self.since_cut = Some(SinceCut::default());
            }
            "missing" => self.wrong(format!("the log has a gap: {event}")),
            _ => {}
        }
        let Some(claim) = Claim::of(event) else { return };
        if claim.kind == Kind::Rename && matches!(name, "granted" | "released" | "revoked") {
            self.loosen(&claim);
        }
        match name {
            "waiting" => {
                if let Some(since) = &mut self.since_cut {
                    since.came.insert(claim.ticket);
                }
                self.waiting.insert(claim.ticket, claim);
            }
            "granted" => self.grant(claim, event),
            "released" | "revoked" | "refused" | "ungated" => self.end(&claim, event),
            _ => {}
        }
    }

    /// Who has a file open, or waits to, keeps up with its names, which a change is about to move.
    fn loosen(&mut self, change: &Claim) {
        for claim in self.held.values_mut().chain(self.waiting.values_mut()) {
            let follows = matches!(claim.kind, Kind::Open | Kind::Create);
            let mut moved = change.paths.iter();
            claim.is_loose |= follows && moved.any(|upper| is_at_or_above(upper, &claim.paths[0]));
        }
    }

    /// Records of a run follow one another, and runs begin at 1; one that was killed may have none.
    fn follow(&mut self, event: &Value) {
        let (run, number) = pair(&event["cursor"]);
        let follows = self.cursor.is_none_or(|(run_before, number_before)| {
            (run, number) == (run_before, number_before + 1) || (run > run_before && number == 1)
        });
        if !follows {
            self.wrong(format!("{:?} is followed by {event}", self.cursor));
        }
        self.cursor = Some((run, number));
    }

    fn grant(&mut self, claim: Claim, event: &Value) {
        self.verdict.grants += 1;
        self.verdict.waits += usize::from(self.waiting.remove(&claim.ticket).is_some());
        let token = pair(&event["token"]);
        if token <= self.token {
            self.wrong(format!("a token after {:?}: {event}", self.token));
        }
        self.token = token;
        let against = |other: &&Claim| self.conflict(other, &claim) && !self.are_kin(other, &claim);
        let beside = self.held.values().find(against).cloned();
        let passed = self.waiting.range(..claim.ticket).map(|(_, earlier)| earlier).find(against);
        let passed = passed.cloned().filter(|_| event["pass"].is_null());
        let has_kin = self.held.values().any(|holder| self.are_kin(holder, &claim));
        if let Some(other) = beside {
            self.wrong(format!("let in beside {other:?}: {event}"));
        }
        if let Some(first) = passed {
            self.verdict.inversions += 1;
            self.wrong(format!("let in before {first:?}: {event}"));
        }
        let is_pass = event["pass"].is_string();
        self.verdict.passes += usize::from(is_pass);
        let is_unfounded = is_pass && !has_kin;
        if is_unfounded && self.since_cut.is_none() {
            self.wrong(format!("passed without being kin of a holder: {event}"));
        }
        if !is_pass {
            self.judge_overtaking(&claim, event);
        }
        if let Some(since) = &mut self.since_cut {
            since.came.insert(claim.ticket);
            since.granted.push((claim.clone(), is_pass));
            since.unfounded.extend(is_unfounded.then(|| claim.clone()));
        }
        self.held.insert(claim.ticket, claim);
    }

    /// Who is let in and did not come since the cut waited all the time: whoever came later and was
    /// let in overtook it.
    fn judge_overtaking(&mut self, claim: &Claim, event: &Value) {
        let Some(since) = self.since_cut.as_ref() else { return };
        if since.came.contains(&claim.ticket) {
            return;
        }
        let mut granted = since.granted.iter();
        let overtook = granted.find(|(other, is_pass)| {
            let is_later = other.ticket > claim.ticket && !is_pass;
            is_later && self.conflict(other, claim) && !self.are_kin(other, claim)
        });
        if let Some((other, _)) = overtook.cloned() {
            self.verdict.inversions += 1;
            self.wrong(format!("{other:?} was let in before it: {event}"));
        }
    }

    /// Who lets go and was not let in since the cut held all the time.
    fn judge_exclusion(&mut self, claim: &Claim, event: &Value) {
        let Some(mut since) = self.since_cut.take() else { return };
        let beside = since.granted.iter().map(|(other, _)| other);
        let mut beside =
            beside.filter(|other| self.conflict(other, claim) && !self.are_kin(other, claim));
        if let Some(other) = beside.next() {
            self.verdict.wrong.push(format!("let in beside it: {other:?}; {event}"));
        }
        since.unfounded.retain(|pass| !self.are_kin(claim, pass));
        self.since_cut = Some(since);
    }

    fn end(&mut self, claim: &Claim, event: &Value) {
        let came = self.since_cut.as_mut().is_none_or(|since| since.came.remove(&claim.ticket));
        if !came && matches!(event["event"].as_str(), Some("released" | "revoked")) {
            self.judge_exclusion(claim, event);
        }
        self.held.remove(&claim.ticket);
        self.waiting.remove(&claim.ticket);
        if event["event"] == "revoked" {
            let at: Option<Timestamp> = event["at"].as_str().and_then(|at| at.parse().ok());
            self.verdict.revocations.push(Revocation {
                pid: claim.pid,
                path: claim.paths[0].clone(),
                why: event["why"].as_str().unwrap_or_default().to_owned(),
                at_ms: at.expect("an event has a time").as_millisecond(),
            });
        }
    }

    fn conflict(&self, one: &Claim, other: &Claim) -> bool {
        one.conflicts(other, &self.moving)
    }

    fn are_kin(&self, one: &Claim, other: &Claim) -> bool {
        let is_child = |child: u32, parent: u32| self.parents.contains(&(child, parent));
        one.pid == other.pid || is_child(one.pid, other.pid) || is_child(other.pid, one.pid)
    }

    fn wrong(&mut self, what: String) {
        self.verdict.wrong.push(what);
    }
}

/// `3.17`
fn pair(text: &Value) -> (u64, u64) {
    let (one, other) = text.as_str().and_then(|text| text.split_once('.')).expect("two numbers");
    (one.parse().expect("a number"), other.parse().expect("a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line each: what, ticket, process, mode, path, and after a grant its token.
    fn judged(story: &str) -> Verdict {
        let lines = (1..).zip(story.lines()).map(|(number, line)| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [event, ticket, pid, mode, op, path, ..] = words[..] else { panic!("{line}") };
            let more = match words.get(6..).unwrap_or_default() {
                [token, pass] => format!(r#","token":"{token}","pass":"{pass}""#),
                [token] => format!(r#","token":"{token}""#),
                _ => String::new(),
            };
            format!(
                r#"{{"cursor":"1.{number}","at":"1970-01-01T00:00:01.5Z","event":"{event}","ticket":{ticket},"pid":{pid},"mode":"{mode}","op":"{op}","path":"{path}"{more}}}"#
            )
        });
        judge(&lines.collect::<Vec<_>>().join("\n"), &Parents::from([(12, 11)]))
    }

    #[track_caller]
    fn refused(story: &str, why: &str) {
        let wrong = judged(story).wrong;
        assert!(wrong.len() == 1 && wrong[0].contains(why), "{wrong:?}");
    }

    #[test]
    fn turns_in_order_are_right() {
        let verdict = judged(
            "granted 1 10 write open d/a 1.1
             waiting 2 11 write hold d
             waiting 3 13 read open d/b
             granted 4 10 read open e/a 1.2
             released 1 10 write open d/a
             granted 2 11 write hold d 1.3
             granted 5 12 write open d/b 1.4 own
             released 5 12 write open d/b
             revoked 2 11 write hold d
             granted 3 13 read open d/b 1.5",
        );
        let Verdict { grants, waits, passes, inversions, revocations, wrong } = verdict;
        assert_eq!(wrong, [""; 0]);
        assert_eq!((grants, waits, passes, inversions), (5, 2, 1, 0));
        assert_eq!((revocations[0].pid, revocations[0].at_ms), (11, 1500));
    }

    #[test]
    fn two_at_once_are_wrong() {
        refused("granted 1 1 read open f 1.1\ngranted 2 2 write open f 1.2", "let in beside");
        refused("granted 1 1 read open d/f 1.1\ngranted 2 2 write hold d 1.2", "let in beside");
        refused("granted 1 1 read hold d 1.1\ngranted 2 2 write open d/f 1.2", "let in beside");
        let readers = "granted 1 1 read open f 1.1\ngranted 2 2 read open f 1.2";
        assert_eq!(judged(readers).wrong, [""; 0]);
        let names = "granted 1 1 write hold d 1.1\ngranted 2 2 write open dd/f 1.2";
        assert_eq!(judged(names).wrong, [""; 0]);
    }

    #[test]
    fn who_is_passed_is_told_of() {
        let story = "granted 1 1 read open f 1.1
                     waiting 2 2 write open f
                     granted 3 3 read open f 1.2";
        refused(story, "let in before");
        assert_eq!(judged(story).inversions, 1);
    }

    #[test]
    fn one_at_a_time_takes_a_name() {
        refused("granted 1 1 write unlink f 1.1\ngranted 2 2 write unlink f 1.2", "let in beside");
        refused("granted 1 1 write create f 1.1\ngranted 2 2 write create f 1.2", "let in beside");
        refused("granted 1 1 read hold d 1.1\ngranted 2 2 write unlink d/f 1.2", "let in beside");
        refused("granted 1 1 write hold d 1.1\ngranted 2 2 write mkdir d/e 1.2", "let in beside");
        let passed = "granted 1 1 write hold d 1.1
                      waiting 2 2 write create d/f
                      waiting 3 3 write create d/f
                      released 1 1 write hold d
                      granted 3 3 write create d/f 1.2";
        refused(passed, "let in before");
    }

    /// Whoever has it open when its name goes to another file is in nobody's way by that name.
    #[test]
    fn an_open_file_leaves_a_name_that_moves() {
        let story = "granted 1 1 read open d/f 1.1
                     granted 2 2 write unlink d/f 1.2
                     released 2 2 write unlink d/f
                     granted 3 3 write create d/f 1.3
                     released 3 3 write create d/f
                     granted 4 4 write hold d 1.4";
        assert_eq!(judged(story).wrong, [""; 0]);
        let stays = "granted 1 1 read open d/f 1.1\ngranted 4 4 write hold d 1.2";
        refused(stays, "let in beside");
    }

    #[test]
    fn only_kin_passes() {
        let story = "granted 1 11 write hold d 1.1\nwaiting 2 2 read open d/f";
        let kin = format!("{story}\ngranted 3 12 write open d/f 1.2 own");
        assert_eq!((judged(&kin).wrong.len(), judged(&kin).inversions), (0, 0));
        let story = "granted 1 11 read open e 1.1\nwaiting 2 2 read open d/f";
        refused(&format!("{story}\ngranted 3 3 write open d/f 1.2 own"), "without being kin");
    }

    #[test]
    fn a_token_that_does_not_rise_is_wrong() {
        refused("granted 1 1 read open f 1.2\ngranted 2 2 read open f 1.2", "a token after");
        refused("granted 1 1 read open f 2.1\ngranted 2 2 read open f 1.9", "a token after");
    }

    #[test]
    fn a_gap_is_wrong_and_a_cut_is_not() {
        let at = |cursor: &str, rest: &str| {
            format!(r#"{{"cursor":"{cursor}","at":"1970-01-01T00:00:00Z",{rest}}}"#)
        };
        let grant = |ticket: u64| {
            format!(
                r#""event":"granted","ticket":{ticket},"pid":{ticket},"mode":"write","op":"open","path":"f","token":"{ticket}.1""#
            )
        };
        let cut = at("2.1", r#""event":"broker-started","former":"cut""#);
        let none = Parents::new();
        let told = [at("1.1", &grant(1)), cut, at("2.2", &grant(2))];
        assert_eq!(judge(&told.join("\n"), &none).wrong, [""; 0]);
        // What the records after it tell of those that stood before.
        let claim = |event: &str, ticket: u64, pid: u64, more: &str| {
            format!(
                r#""event":"{event}","ticket":{ticket},"pid":{pid},"mode":"write","op":"open","path":"f"{more}"#
            )
        };
        let granted = |ticket, pid, counter| {
            claim("granted", ticket, pid, &format!(r#","token":"2.{counter}""#))
        };
        let pass = claim("granted", 5, 12, r#","token":"2.1","pass":"own""#);
        let cases = [
            (vec![granted(2, 2, 1), claim("released", 1, 1, "")], "let in beside it"),
            (vec![claim("released", 1, 1, ""), granted(2, 2, 1)], ""),
            (vec![granted(5, 2, 1), claim("released", 5, 2, ""), granted(4, 4, 2)], "before it"),
            (vec![granted(4, 4, 1), claim("released", 4, 4, ""), granted(5, 2, 2)], ""),
            (vec![pass.clone()], "without being kin"),
            (vec![pass.clone(), claim("released", 1, 11, "")], ""),
            (vec![pass, claim("refused", 1, 11, "")], "without being kin"),
        ];
        for (records, why) in cases {
            let records = (2..).zip(&records).map(|(n, record)| at(&format!("2.{n}"), record));
            let cut = at("2.1", r#""event":"broker-started","former":"cut""#);
            let told: Vec<String> = [cut].into_iter().chain(records).collect();
            let wrong = judge(&told.join("\n"), &Parents::from([(12, 11)])).wrong;
            assert_eq!(wrong.len(), usize::from(!why.is_empty()), "{why}: {wrong:?}");
            assert!(wrong.iter().all(|wrong| wrong.contains(why)), "{why}: {wrong:?}");
        }
        let told = [at("1.1", r#""event":"x""#), at("1.3", r#""event":"x""#)];
        assert_eq!(judge(&told.join("\n"), &none).wrong.len(), 1);
    }
}
