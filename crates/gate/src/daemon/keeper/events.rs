//! What becomes of mounts, as it happens: the newest of it is kept for those who read along.
//!
//! Each has a place: the run of the daemon, by when it began, and its number in that. Who knows a place
//! goes on after it; who was away for longer than is kept, or knew another run, is told so.

use std::collections::VecDeque;

use gate_api::wire::Cursor;
use tokio::sync::watch;

use crate::daemon::body::{Mount, MountEvent};

/// How many are kept.
const KEPT_MAX: usize = 1_024;

/// What happened lately. Who reads along holds the other end.
pub struct Events(watch::Sender<Lately>);

/// The newest events of one run.
#[derive(Debug)]
pub struct Lately {
    end: Cursor,
    kept: VecDeque<MountEvent>,
}

/// What follows a place.
#[derive(Debug, PartialEq)]
pub enum Next<'a> {
    /// This happened, and that is its place.
    Event(Cursor, &'a MountEvent),
    /// What followed it is gone: what is left follows this place.
    Resync(Cursor),
    /// Nothing yet.
    Nothing,
}

impl Events {
    /// Begins a run.
    pub fn begin() -> Events {
        let began_ms = jiff::Timestamp::now().as_millisecond();
        let run = u64::try_from(began_ms).unwrap_or_default();
        Events(watch::Sender::new(Lately::begin(run)))
    }

    /// Returns what somebody reads along with.
    pub fn reader(&self) -> watch::Receiver<Lately> {
        self.0.subscribe()
    }

    /// Tells what a mount is by now, if it was something else before.
    pub fn tell(&self, before: Option<&Mount>, after: Option<&Mount>) {
        let names = names(before, after);
        if let Some(mount) = after.or(before).filter(|_| !names.is_empty()) {
            let at = super::plan::now_written();
            let event = |name: &&str| MountEvent::new((*name).to_owned(), at.clone(), mount);
            self.0.send_modify(|lately| names.iter().map(event).for_each(|told| lately.push(told)));
        }
    }
}

impl Lately {
    fn begin(run: u64) -> Lately {
        Lately { end: Cursor { epoch: run, number: 0 }, kept: VecDeque::new() }
    }

    /// Returns the place of the last event.
    pub fn end(&self) -> Cursor {
        self.end
    }

    /// Returns what follows a place.
    pub fn after(&self, place: Cursor) -> Next<'_> {
        let begin = self.end.number - self.kept.len() as u64;
        if place.epoch != self.end.epoch || !(begin..=self.end.number).contains(&place.number) {
            return Next::Resync(Cursor { number: begin, ..self.end });
        }
        let event = usize::try_from(place.number - begin).ok().and_then(|at| self.kept.get(at));
        match event {
            Some(event) => Next::Event(Cursor { number: place.number + 1, ..place }, event),
            None => Next::Nothing,
        }
    }

    fn push(&mut self, event: MountEvent) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
        self.end.number += 1;
    }
}

/// Returns what a change is called: of one both its settings and its status may change at once.
fn names(before: Option<&Mount>, after: Option<&Mount>) -> Vec<&'static str> {
    let (before, after) = match (before, after) {
        (None, None) => return Vec::new(),
        (None, Some(_)) => return vec!["added"],
        (Some(_), None) => return vec!["removed"],
        (Some(before), Some(after)) => (before, after),
    };
    // As it was configured, in the way in which it is now.
    let configured = Mount {
        status: after.status.clone(),
        pid: after.pid,
        error_message: after.error_message.clone(),
        ..before.clone()
    };
    let is_set_otherwise = configured != *after;
    let is_otherwise = configured != *before;
    let names = [(is_set_otherwise, "changed"), (is_otherwise, "status")];
    names.into_iter().filter_map(|(happened, name)| happened.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(status: &str, pid: Option<u32>) -> Mount {
        let settings = serde_json::json!({
            "mount_id": uuid::Uuid::nil(), "source": "/s", "mount_point": "/m", "enabled": true,
            "auto_mount": false, "read_only": false, "allow_other": false, "cache_size_mb": 1,
            "cache_ttl_secs": 1, "pid": pid, "status": status, "created_at": "", "updated_at": "",
        });
        serde_json::from_value(settings).unwrap()
    }

    #[test]
    fn each_change_of_a_mount_has_its_name_and_what_is_as_before_is_not_told() {
        let [stopped, running] = [mount("stopped", None), mount("running", Some(1))];
        let another = mount("running", Some(2));
        let failed = Mount { error_message: Some("why".to_owned()), ..stopped.clone() };
        let set = Mount { read_only: true, ..stopped.clone() };
        let both = Mount { read_only: true, ..running.clone() };
        let cases: [(_, _, &[&str]); 9] = [
            (None, Some(&stopped), &["added"]),
            (Some(&running), None, &["removed"]),
            (Some(&stopped), Some(&running), &["status"]),
            (Some(&running), Some(&another), &["status"]),
            (Some(&stopped), Some(&failed), &["status"]),
            (Some(&stopped), Some(&set), &["changed"]),
            (Some(&stopped), Some(&both), &["changed", "status"]),
            (Some(&running), Some(&running), &[]),
            (None, None, &[]),
        ];
        for (before, after, expected) in cases {
            assert_eq!(names(before, after), expected, "{before:?} {after:?}");
        }
    }

    /// Reads from a place on, as long as there is something.
    fn read(lately: &Lately, mut place: Cursor) -> (Vec<Cursor>, Vec<Cursor>) {
        let (mut events, mut resyncs) = (Vec::new(), Vec::new());
        loop {
            place = match lately.after(place) {
                Next::Event(at, _) => {
                    events.push(at);
                    at
                }
                Next::Resync(at) => {
                    resyncs.push(at);
                    at
                }
                Next::Nothing => return (events, resyncs),
            };
        }
    }

    #[test]
    fn a_reader_goes_on_where_it_was_or_is_told_what_it_missed() {
        let at = |epoch, number| Cursor { epoch, number };
        let (all, kept) = (3 * KEPT_MAX as u64, KEPT_MAX as u64);
        let mut lately = Lately::begin(7);
        assert_eq!(read(&lately, lately.end()), (vec![], vec![]));
        let event = MountEvent::new("status".to_owned(), String::new(), &mount("stopped", None));
        (0..all).for_each(|_| lately.push(event.clone()));
        assert_eq!(lately.end(), at(7, all));
        let from = |first: u64| (first..=all).map(|number| at(7, number)).collect::<Vec<_>>();
        let begin = at(7, all - kept);
        for (place, expected) in [
            (at(7, all), (from(all + 1), vec![])),
            (at(7, all - 2), (from(all - 1), vec![])),
            (begin, (from(begin.number + 1), vec![])),
            // Just too old, never there, and of other runs.
            (at(7, begin.number - 1), (from(begin.number + 1), vec![begin])),
            (at(7, all + 1), (from(begin.number + 1), vec![begin])),
            (at(6, all), (from(begin.number + 1), vec![begin])),
            (at(8, all), (from(begin.number + 1), vec![begin])),
        ] {
            assert_eq!(read(&lately, place), expected, "after {place}");
        }
    }
}
