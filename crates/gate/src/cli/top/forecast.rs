//! How long a wait may still last, told by how long holds have lasted while the board watched.
//!
//! A hold is expected to last as long as the median of those seen to end on the same path. Who is
//! behind a path of which none was seen to end is told nothing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use gate_api::wire::{Line, LineState};
use gate_core::lock::want::Access;
use gate_core::path::ViewPath;

/// Holds remembered of one path.
const HOLDS_MAX: usize = 32;
/// Paths remembered; one more, and all are learnt anew.
const PATHS_MAX: usize = 4_096;

/// What has been seen of holds.
#[derive(Debug, Default)]
pub struct Forecast {
    lasted_ms: HashMap<Name, VecDeque<u64>>,
}

/// How long a waiter may still wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// About so long.
    About(Duration),
    /// A holder in its way has held for longer than expected.
    Overdue,
}

/// A space and the first path of a claim in it.
type Name = (String, Option<ViewPath>);

/// When, from now on, the last reader and the last writer in a path's line will be done.
#[derive(Clone, Copy, Default)]
struct Done {
    readers_ms: Option<Expected>,
    writers_ms: Option<Expected>,
}

/// Milliseconds from now, if those are known.
type Expected = Option<u64>;

impl Forecast {
    /// Learns from the holds that ended between two looks at the locks.
    pub fn learn(&mut self, before: &[Line], after: &[Line], now_ms: u64) {
        let ended =
            before.iter().filter(|line| is_held(line) && held(after, line.ticket).is_none());
        for line in ended {
            if self.lasted_ms.len() >= PATHS_MAX {
                self.lasted_ms.clear();
            }
            let lasted = self.lasted_ms.entry(name(line)).or_default();
            if lasted.len() >= HOLDS_MAX {
                lasted.pop_front();
            }
            lasted.push_back(now_ms.saturating_sub(line.since_ms));
        }
    }

    /// Returns how long those who wait may still wait, by ticket. `lines` are in their order.
    pub fn waits(&self, lines: &[Line], now_ms: u64) -> HashMap<u64, Wait> {
        let mut done_in_ms: HashMap<u64, Expected> = HashMap::new();
        let mut overdue = Vec::new();
        for line in lines.iter().filter(|line| is_held(line)) {
            let age_ms = now_ms.saturating_sub(line.since_ms);
            let usual_ms = self.usual_ms(line);
            if usual_ms.is_some_and(|usual| usual < age_ms) {
                overdue.push(line.ticket);
            }
            done_in_ms.insert(line.ticket, usual_ms.map(|usual| usual.saturating_sub(age_ms)));
        }
        let mut queues: HashMap<Name, Done> = HashMap::new();
        let mut waits = HashMap::new();
        for line in lines {
            let LineState::Waiting { behind, .. } = &line.state else { continue };
            let queue = queues.entry(name(line)).or_default();
            // Only some of those in its way are listed: those of its own path are all known here.
            let listed = behind.iter().map(|ticket| done_in_ms.get(ticket).copied().flatten());
            let Some(start_ms) = latest(listed.chain(queue.before(line.access))) else {
                queue.join(line.access, None);
                continue;
            };
            let end_ms = self.usual_ms(line).map(|usual| start_ms + usual);
            queue.join(line.access, end_ms);
            done_in_ms.entry(line.ticket).or_insert(end_ms);
            let is_late = start_ms == 0 && behind.iter().any(|ticket| overdue.contains(ticket));
            let about = Wait::About(Duration::from_millis(start_ms));
            waits.insert(line.ticket, if is_late { Wait::Overdue } else { about });
        }
        waits
    }

    fn usual_ms(&self, line: &Line) -> Expected {
        let mut lasted: Vec<u64> = self.lasted_ms.get(&name(line))?.iter().copied().collect();
        lasted.sort_unstable();
        lasted.get(lasted.len() / 2).copied()
    }
}

impl Done {
    /// Returns when those are done who are in the way of the next.
    fn before(&self, access: Access) -> impl Iterator<Item = Expected> + use<> {
        let readers = self.readers_ms.filter(|_| access == Access::Write);
        self.writers_ms.into_iter().chain(readers)
    }

    fn join(&mut self, access: Access, end_ms: Expected) {
        let done = match access {
            Access::Read => &mut self.readers_ms,
            Access::Write => &mut self.writers_ms,
        };
        *done = Some(latest([end_ms].into_iter().chain(*done)));
    }
}

/// Returns the latest of some moments, if all of them are known.
fn latest(mut moments: impl Iterator<Item = Expected>) -> Expected {
    moments.try_fold(0, |latest, moment| Some(moment?.max(latest)))
}

fn is_held(line: &Line) -> bool {
    matches!(line.state, LineState::Held { .. })
}

/// Returns what a ticket holds. `lines` are in their order.
fn held(lines: &[Line], ticket: u64) -> Option<&Line> {
    let first = lines.partition_point(|line| line.ticket < ticket);
    lines[first..].iter().take_while(|line| line.ticket == ticket).find(|line| is_held(line))
}

fn name(line: &Line) -> Name {
    (line.space.clone(), line.places.first().and_then(|place| place.path.clone()))
}

#[cfg(test)]
mod tests {
    use super::super::lines::{held, waits};
    use super::*;

    fn seconds(wait: Option<&Wait>) -> Option<u64> {
        match wait? {
            Wait::About(time) => Some(time.as_secs()),
            Wait::Overdue => Some(u64::MAX),
        }
    }

    /// Writers held `f` for 2, 4 and 9 seconds.
    fn learnt() -> Forecast {
        let mut forecast = Forecast::default();
        for (lasted_ms, ticket) in [(2_000, 1), (9_000, 2), (4_000, 3)] {
            forecast.learn(&[held(ticket, "w f", 0)], &[], lasted_ms);
        }
        forecast
    }

    #[test]
    fn who_waits_is_let_in_when_those_before_have_had_their_usual_time() {
        let lines = [
            held(4, "w f", 0),
            waits(5, "r f", &[4]),
            waits(6, "r f", &[4]),
            waits(7, "w f", &[4, 5, 6]),
            waits(8, "w f", &[4, 5]),
        ];
        let told = learnt().waits(&lines, 1_000);
        let expected = [(5, Some(3)), (6, Some(3)), (7, Some(7)), (8, Some(11))];
        for (ticket, about) in expected {
            assert_eq!(seconds(told.get(&ticket)), about, "{ticket}");
        }
    }

    #[test]
    fn what_was_never_seen_to_end_is_not_guessed_at() {
        let lines = [held(4, "w g", 0), waits(5, "w g", &[4]), waits(6, "w f", &[5])];
        assert_eq!(learnt().waits(&lines, 1_000), HashMap::new());
    }

    #[test]
    fn a_holder_that_takes_longer_than_usual_is_overdue() {
        let lines = [held(4, "w f", 0), waits(5, "w f", &[4]), waits(6, "w f", &[4, 5])];
        let told = learnt().waits(&lines, 60_000);
        assert_eq!((seconds(told.get(&5)), seconds(told.get(&6))), (Some(u64::MAX), Some(4)));
    }

    #[test]
    fn what_still_holds_teaches_nothing_and_memory_is_bounded() {
        let mut forecast = Forecast::default();
        forecast.learn(&[held(1, "w f", 0)], &[held(1, "w f", 0)], 1_000);
        assert!(forecast.lasted_ms.is_empty());
        for ticket in 0..HOLDS_MAX as u64 + 5 {
            forecast.learn(&[held(ticket, "w f", 0)], &[], 1_000);
        }
        assert_eq!(forecast.lasted_ms.values().map(VecDeque::len).max(), Some(HOLDS_MAX));
    }
}
