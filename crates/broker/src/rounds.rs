//! When the broker looks round for clients that were silent for their lease.
//!
//! Between two looks nobody watches a clock for each client; so whatever may bring the end of a
//! lease nearer plans a look.

use std::time::Duration;

use gate_core::time::Time;

use crate::mail::ConnectionId;

/// How soon after somebody came, or could not be let in, the broker looks round.
const PAUSE: Duration = Duration::from_secs(1);

/// The next look.
#[derive(Debug, Default)]
pub struct Rounds {
    at: Option<Time>,
}

impl Rounds {
    /// Returns when it is, if one is planned.
    pub fn deadline(&self) -> Option<Time> {
        self.at
    }

    /// Somebody came, or will have to be let in.
    pub fn soon(&mut self, now: Time) {
        self.by(now + PAUSE);
    }

    /// A client was welcomed: its lease may be over before the look that is planned.
    pub fn lease_begins(&mut self, now: Time, lease: Duration) {
        self.by(now + lease);
    }

    /// Returns whether it is time, and if so forgets the plan.
    pub fn begin(&mut self, now: Time) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// Returns who was silent for too long, and plans the next look for the others. Of each client:
    /// when it was heard, and for how long it may be silent.
    pub fn silent(
        &mut self,
        now: Time,
        clients: impl Iterator<Item = (ConnectionId, Time, Duration)>,
    ) -> Vec<(ConnectionId, Time)> {
        let mut silent = Vec::new();
        for (id, heard, allowed) in clients {
            match heard + allowed {
                until if until <= now => silent.push((id, heard)),
                until => self.by(until),
            }
        }
        silent
    }

    fn by(&mut self, at: Time) {
        self.at = Some(self.at.map_or(at, |planned| planned.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_look_is_due_when_the_first_lease_is_over() {
        let (mut rounds, start) = (Rounds::default(), Time(0));
        let at = |seconds: u32| start + SECOND * seconds;
        assert!(!rounds.begin(at(9)), "nobody is there");
        rounds.soon(at(0));
        assert!(!rounds.begin(start + SECOND / 2));
        assert!(rounds.begin(at(1)));
        let (early, late) = (ConnectionId(1), ConnectionId(2));
        let clients = [(early, at(0), SECOND * 3), (late, at(0), SECOND * 10)];
        assert_eq!(rounds.silent(at(1), clients.into_iter()), []);
        assert_eq!(rounds.deadline(), Some(at(3)));
        // One that was only greeting is welcomed with a lease that is shorter than all others.
        rounds.lease_begins(at(1), SECOND / 2);
        assert_eq!(rounds.deadline(), Some(at(1) + SECOND / 2));
        assert!(rounds.begin(at(4)));
        assert_eq!(rounds.silent(at(4), clients.into_iter()), [(early, at(0))]);
        assert_eq!(rounds.deadline(), Some(at(10)));
    }
}
