//! What the board knows and what of it is shown: no terminal, no broker, no clock.
//!
//! News come in by `learn_*`, the user's wishes by the public fields and `choose_*`. What is
//! chosen stays chosen while it exists, wherever it moves.

use std::collections::HashMap;

use gate_api::mounts::Mount;
use gate_api::wire::{Line, LineState, Locks, Scope, Status};

use super::forecast::{Forecast, Wait};

/// All of it.
#[derive(Debug, Default)]
pub struct Picture {
    /// Where the broker is.
    pub address: String,
    /// Since when it is away, if it is: milliseconds since 1970, UTC.
    pub away_since_ms: Option<u64>,
    /// What it said last of itself, and when.
    pub status: Option<(Status, u64)>,
    /// What happens each second.
    pub rates: Rates,
    /// The views on this machine.
    pub views: Vec<Mount>,
    /// Now: milliseconds since 1970, UTC.
    pub now_ms: u64,
    /// Whether news are kept away.
    pub is_paused: bool,
    /// What lies over the board.
    pub sheet: Sheet,
    /// What became of an order; until the next key.
    pub notice: Option<String>,
    epoch: u64,
    is_stale: bool,
    locks: Option<Locks>,
    forecast: Forecast,
    waits: HashMap<u64, Wait>,
    sort: Sort,
    filter: String,
    entries: Vec<Entry>,
    chosen: usize,
    first_shown: usize,
}

/// What lies over the board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sheet {
    /// Nothing.
    #[default]
    None,
    /// A filter is being typed; that one was there before.
    Filter { before: String },
    /// An order is being given a reason.
    Order(Order),
    /// What the keys do; so many lines are above what is shown.
    Help { scrolled: u16 },
    /// All about one path.
    Details(Details),
}

/// What the broker is to do about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub what: OrderKind,
    /// The claim.
    pub ticket: u64,
    /// Why, for whoever it is done to.
    pub reason: String,
}

/// What can be done about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// Ask its holder to let go.
    Recall,
    /// End it.
    Break,
}

/// All about one path, once it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// What is asked.
    pub scope: Scope,
    /// The answer.
    pub text: Option<String>,
    /// Lines above what is shown.
    pub scrolled: u16,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The path with the longest line; in it who holds, then who waits, in their order.
    #[default]
    Queue,
    /// Who has held or waited longest.
    Age,
    /// The alphabet.
    Path,
}

/// What happens each second, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Grants.
    pub grants: Option<f64>,
    /// Requests that had to wait.
    pub waits: Option<f64>,
}

/// A name of a claim: what a row shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    line: usize,
    place: usize,
}

/// What a row is of, whatever its place on the board.
type Identity = (u64, bool, usize);

impl Sort {
    /// Returns the next one.
    pub fn next(self) -> Sort {
        match self {
            Sort::Queue => Sort::Age,
            Sort::Age => Sort::Path,
            Sort::Path => Sort::Queue,
        }
    }

    /// Returns its name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Queue => "longest line",
            Sort::Age => "oldest",
            Sort::Path => "path",
        }
    }
}

impl Picture {
    /// Begins with nothing but where the broker is.
    pub fn new(address: String, now_ms: u64) -> Picture {
        Picture { address, now_ms, ..Picture::default() }
    }

    /// Takes in who holds and who waits by now.
    pub fn learn_locks(&mut self, epoch: u64, locks: Locks) {
        let chosen = self.chosen_entry().map(|entry| self.identity(entry));
        // A broker that starts anew may have forgotten what nobody let go of.
        if let Some(before) = self.locks.take().filter(|_| epoch == self.epoch) {
            self.forecast.learn(&before.lines, &locks.lines, self.now_ms);
        }
        (self.epoch, self.is_stale) = (epoch, false);
        self.locks = Some(locks);
        self.arrange(chosen);
        self.age();
    }

    /// Takes in how the broker is.
    pub fn learn_status(&mut self, status: Status, at_ms: u64) {
        if let Some((before, before_ms)) = &self.status {
            self.rates = Rates::between(before, &status, at_ms.saturating_sub(*before_ms));
        }
        self.status = Some((status, at_ms));
    }

    /// Looks anew at how long waits may last.
    pub fn age(&mut self) {
        self.waits = self.forecast.waits(self.lines(), self.now_ms);
    }

    /// Returns the version of what is shown, to ask for newer; `None` if anything is newer.
    pub fn version(&self) -> Option<u64> {
        self.locks.as_ref().map(|locks| locks.version).filter(|_| !self.is_stale)
    }

    /// Takes note that the broker may be another: versions are counted anew.
    pub fn forget_version(&mut self) {
        self.is_stale = true;
    }

    /// Tells whether the broker has said yet who holds and who waits.
    pub fn is_known(&self) -> bool {
        self.locks.is_some()
    }

    /// Returns all claims, in their order.
    pub fn lines(&self) -> &[Line] {
        self.locks.as_ref().map_or(&[], |locks| &locks.lines)
    }

    /// Returns how long a waiter may still wait.
    pub fn wait_of(&self, ticket: u64) -> Option<Wait> {
        self.waits.get(&ticket).copied()
    }

    /// Returns what comes first.
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// Returns what paths must contain.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Orders the rows.
    pub fn sort_by(&mut self, sort: Sort) {
        let chosen = self.chosen_entry().map(|entry| self.identity(entry));
        self.sort = sort;
        self.arrange(chosen);
    }

    /// Shows only paths that contain this.
    pub fn filter_by(&mut self, filter: String) {
        let chosen = self.chosen_entry().map(|entry| self.identity(entry));
        self.filter = filter;
        self.arrange(chosen);
    }

    /// Moves the choice by so many rows.
    pub fn choose_by(&mut self, rows: isize) {
        self.chosen = self.chosen.saturating_add_signed(rows).min(self.last());
    }

    /// Returns the chosen claim, and which of its names.
    pub fn chosen(&self) -> Option<(&Line, usize)> {
        self.chosen_entry().map(|entry| (&self.lines()[entry.line], entry.place))
    }

    /// Returns the claims and names in a window of so many rows that shows the chosen one, and
    /// where that is in it.
    pub fn window(&mut self, rows: usize) -> (Vec<(&Line, usize)>, usize) {
        let first_max = self.chosen;
        let first_min = (self.chosen + 1).saturating_sub(rows.max(1));
        let first_full = self.entries.len().saturating_sub(rows);
        self.first_shown = self.first_shown.min(first_full).clamp(first_min, first_max);
        let shown = self.entries.iter().skip(self.first_shown).take(rows);
        let shown = shown.map(|entry| (&self.lines()[entry.line], entry.place)).collect();
        (shown, self.chosen - self.first_shown)
    }

    /// Returns how many rows there are in all.
    pub fn rows(&self) -> usize {
        self.entries.len()
    }

    fn last(&self) -> usize {
        self.entries.len().saturating_sub(1)
    }

    fn chosen_entry(&self) -> Option<Entry> {
        self.entries.get(self.chosen).copied()
    }

    fn identity(&self, entry: Entry) -> Identity {
        let line = &self.lines()[entry.line];
        (line.ticket, is_held(line), entry.place)
    }

    /// Makes the rows; the choice follows what was chosen, or stays at its height.
    fn arrange(&mut self, chosen: Option<Identity>) {
        let lines = self.lines();
        let places = |line: usize| (0..lines[line].places.len()).map(move |place| (line, place));
        let entries = (0..lines.len()).flat_map(places).map(|(line, place)| Entry { line, place });
        let mut entries: Vec<Entry> = entries
            .filter(|entry| self.filter.is_empty() || path(lines, *entry).contains(&self.filter))
            .collect();
        match self.sort {
            Sort::Queue => sort_by_queue(&mut entries, lines),
            Sort::Age => entries.sort_by_key(|entry| lines[entry.line].since_ms),
            Sort::Path => entries.sort_by(|one, other| {
                name(lines, *one).cmp(&name(lines, *other)).then(one.line.cmp(&other.line))
            }),
        }
        self.entries = entries;
        let same = chosen.and_then(|chosen| {
            self.entries.iter().position(|entry| self.identity(*entry) == chosen)
        });
        self.chosen = same.unwrap_or(self.chosen).min(self.last());
    }
}

impl Rates {
    /// Counts begin anew with each run of the broker.
    fn between(before: &Status, after: &Status, took_ms: u64) -> Rates {
        if before.broker.epoch != after.broker.epoch || took_ms == 0 {
            return Rates::default();
        }
        let each_second = |name: &str| {
            let risen = count(after, name)?.saturating_sub(count(before, name)?);
            Some(risen as f64 * 1_000.0 / took_ms as f64)
        };
        Rates { grants: each_second("granted"), waits: each_second("waited") }
    }
}

/// Returns what the broker counted under a name.
pub fn count(status: &Status, name: &str) -> Option<u64> {
    status.counts.iter().find(|(known, _)| known == name).map(|(_, count)| *count)
}

fn sort_by_queue(entries: &mut [Entry], lines: &[Line]) {
    let mut waiters: HashMap<(&str, &[u8]), usize> = HashMap::new();
    for entry in entries.iter().filter(|entry| !is_held(&lines[entry.line])) {
        *waiters.entry(name(lines, *entry)).or_default() += 1;
    }
    entries.sort_by_cached_key(|entry| {
        let name = name(lines, *entry);
        let shortness = usize::MAX - waiters.get(&name).copied().unwrap_or(0);
        (shortness, name, !is_held(&lines[entry.line]), entry.line)
    });
}

fn is_held(line: &Line) -> bool {
    matches!(line.state, LineState::Held { .. })
}

fn name(lines: &[Line], entry: Entry) -> (&str, &[u8]) {
    let line = &lines[entry.line];
    let path = line.places[entry.place].path.as_ref();
    (&line.space, path.map(|path| path.as_bytes()).unwrap_or_default())
}

fn path(lines: &[Line], entry: Entry) -> String {
    let path = lines[entry.line].places[entry.place].path.as_ref();
    path.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::lines::{held, waits};
    use super::*;

    fn locks(lines: Vec<Line>) -> Locks {
        Locks { version: 1, lines, more: false }
    }

    fn picture() -> Picture {
        let mut picture = Picture::default();
        picture.learn_locks(1, some());
        picture
    }

    fn some() -> Locks {
        let lines = vec![
            held(1, "w z", 10),
            held(2, "r b", 30),
            held(3, "r a", 20),
            waits(4, "w b a", &[2, 3]),
            waits(5, "w b", &[2, 4]),
        ];
        locks(lines)
    }

    fn shown(picture: &mut Picture) -> Vec<u64> {
        picture.window(100).0.iter().map(|(line, _)| line.ticket).collect()
    }

    fn chosen(picture: &Picture) -> u64 {
        picture.chosen().unwrap().0.ticket
    }

    #[test]
    fn the_longest_line_comes_first_its_holders_above_its_waiters() {
        let mut picture = picture();
        assert_eq!(shown(&mut picture), [2, 4, 5, 3, 4, 1]);
        picture.sort_by(picture.sort().next());
        assert_eq!(shown(&mut picture), [4, 4, 5, 1, 3, 2]);
        picture.sort_by(picture.sort().next());
        assert_eq!(shown(&mut picture), [3, 4, 2, 4, 5, 1]);
        assert_eq!(picture.sort().next(), Sort::Queue);
    }

    #[test]
    fn what_is_chosen_stays_chosen_wherever_it_moves() {
        let mut picture = picture();
        picture.choose_by(2);
        assert_eq!(chosen(&picture), 5);
        picture.sort_by(Sort::Path);
        assert_eq!(chosen(&picture), 5);
        picture.learn_locks(1, locks(vec![held(5, "w b", 0), held(6, "w c", 0)]));
        // It waited and holds now: another row, so the height decides.
        assert_eq!(chosen(&picture), 6);
        picture.learn_locks(1, locks(vec![held(5, "w b", 0)]));
        assert_eq!(chosen(&picture), 5);
        picture.learn_locks(1, locks(vec![]));
        assert_eq!(picture.chosen(), None);
        picture.choose_by(1);
        assert_eq!(picture.chosen(), None);
    }

    #[test]
    fn a_filter_hides_other_paths() {
        let mut picture = picture();
        picture.filter_by("b".into());
        assert_eq!(shown(&mut picture), [2, 4, 5]);
        picture.filter_by("nothing".into());
        assert_eq!((picture.rows(), picture.chosen()), (0, None));
    }

    #[test]
    fn the_window_follows_the_choice_and_wastes_no_row() {
        let mut picture = picture();
        let at = |picture: &mut Picture| {
            let (lines, chosen) = picture.window(3);
            (lines.iter().map(|(line, _)| line.ticket).collect::<Vec<_>>(), chosen)
        };
        assert_eq!(at(&mut picture), (vec![2, 4, 5], 0));
        picture.choose_by(4);
        assert_eq!(at(&mut picture), (vec![5, 3, 4], 2));
        picture.choose_by(-1);
        assert_eq!(at(&mut picture), (vec![5, 3, 4], 1));
        picture.choose_by(isize::MIN);
        assert_eq!(at(&mut picture), (vec![2, 4, 5], 0));
        picture.choose_by(isize::MAX);
        picture.filter_by("a".into());
        assert_eq!(at(&mut picture), (vec![3, 4], 1));
        assert_eq!(picture.window(0), (vec![], 0));
    }

    #[test]
    fn rates_are_what_was_counted_between_two_looks() {
        let status = |epoch, granted, waited| Status {
            counts: vec![("granted".into(), granted), ("waited".into(), waited)],
            ..super::super::lines::status(epoch)
        };
        let mut picture = Picture::default();
        picture.learn_status(status(1, 100, 5), 1_000);
        assert_eq!(picture.rates, Rates::default());
        picture.learn_status(status(1, 130, 6), 3_000);
        assert_eq!(picture.rates, Rates { grants: Some(15.0), waits: Some(0.5) });
        picture.learn_status(status(2, 1, 0), 4_000);
        assert_eq!(picture.rates, Rates::default());
    }
}
