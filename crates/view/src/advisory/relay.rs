//! The way of a file's locks from hand to hand within a view, which must not shut out those who
//! wait elsewhere: what is given back here is known here first.

use std::time::{Duration, Instant};

use super::LOOK_EVERY;

/// After so long a time nobody here who waits gets a lock until those in other views have looked.
const HANDED_ON_FOR: Duration = Duration::from_millis(250);

/// How long those here then stand back: who looks from elsewhere may be late, on a busy machine.
const REST: Duration = LOOK_EVERY.saturating_mul(3);

/// How the locks of one file go round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Relay {
    /// Nobody who waited here has got any so far. Between two of them nobody may wait for a moment:
    /// that ends no relay.
    #[default]
    Fresh,
    /// Since then they went from one to the next.
    Running(Instant),
    /// Those who wait here stand back until then.
    Resting(Instant),
}

impl Relay {
    /// Whether those who wait here are to stand back.
    pub fn rests(self, now: Instant) -> bool {
        matches!(self, Relay::Resting(end) if now < end)
    }

    /// A lock may be free: whether those who wait here may have it.
    pub fn may_hand_on(&mut self, now: Instant) -> bool {
        if let Relay::Running(since) = *self
            && now.duration_since(since) >= HANDED_ON_FOR
        {
            *self = Relay::Resting(now + REST);
        }
        !self.rests(now)
    }

    /// Somebody who waited here has got a lock.
    pub fn handed_on(&mut self, now: Instant) {
        if !matches!(self, Relay::Running(_)) {
            *self = Relay::Running(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_relay_rests_for_some_looks_and_begins_anew() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut relay = Relay::default();
        for now in [0, 100, 249] {
            assert!(relay.may_hand_on(at(now)), "{now}");
            relay.handed_on(at(now));
        }
        for now in [250, 279] {
            assert!(!relay.may_hand_on(at(now)), "{now}");
            assert!(relay.rests(at(now)));
        }
        for now in [280, 300, 529] {
            assert!(!relay.rests(at(now)));
            assert!(relay.may_hand_on(at(now)), "{now}");
            relay.handed_on(at(now));
        }
        assert!(!relay.may_hand_on(at(530)));
    }
}
