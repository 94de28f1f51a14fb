//! What becomes of a managed mount: what is wanted of it, what is there, and what is to be done.
//!
//! A keeper looks, asks [`Mount::next_step`], does that, and looks again. Whoever asks for a mount or
//! for its end by name is served at once; what is decided here is what nobody has to ask for: that
//! mounts come up with their keeper, and come back when they died.

use std::time::Duration;

use crate::time::Time;

/// How long is waited after the second failure in a row; after the first the next attempt follows at
/// once.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// How long is waited at most; each pause is twice as long as the last.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After how long of service former failures are forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// One mount, as its keeper knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is wanted.
    pub wish: Wish,
    /// What is there.
    pub found: Found,
    /// What went wrong lately.
    pub failures: Failures,
}

/// What is wanted of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nobody wants it.
    Down,
    /// Somebody asked for it; it is not brought back unasked.
    Up,
    /// It is to be there as long as its keeper is.
    Kept,
}

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No view.
    Nothing,
    /// A process that is about to mount a view.
    Starting,
    /// A view that is served.
    Served,
    /// A view that is about to be unmounted.
    Stopping,
    /// A view whose server died: it answers nothing, and lets nothing through.
    Dead,
}

/// How often it failed since it last worked for a while, and when it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    count: u32,
    last: Time,
    served_since: Option<Time>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something happens.
    Rest,
    /// Nothing before that time.
    Wait(Time),
    /// Mount it, over a dead view if there is one.
    Start,
}

/// How a mount is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is not mounted, and is not to be.
    Stopped,
    /// It is being mounted.
    Starting,
    /// It is mounted and served.
    Running,
    /// It is being unmounted.
    Stopping,
    /// It should be there and is not, or it is dead.
    Error,
}

impl Mount {
    /// Returns what is to be done by now.
    pub fn next_step(&self, now: Time) -> Step {
        match (self.wish, self.found) {
            (Wish::Kept, Found::Nothing | Found::Dead) => match self.failures.over() {
                Some(over) if over > now => Step::Wait(over),
                Some(_) | None => Step::Start,
            },
            (Wish::Kept, Found::Starting | Found::Served | Found::Stopping)
            | (Wish::Up | Wish::Down, _) => Step::Rest,
        }
    }

    /// Returns how it is. One that nobody wants and that is gone has stopped, whatever went wrong
    /// before.
    pub fn status(&self) -> Status {
        match (self.found, self.wish) {
            (Found::Starting, _) => Status::Starting,
            (Found::Served, _) => Status::Running,
            (Found::Stopping, _) => Status::Stopping,
            (Found::Dead, _) | (Found::Nothing, Wish::Up | Wish::Kept) => Status::Error,
            (Found::Nothing, Wish::Down) => Status::Stopped,
        }
    }
}

impl Failures {
    /// Takes note that the mount works.
    pub fn served(&mut self, now: Time) {
        self.served_since.get_or_insert(now);
    }

    /// Takes note that it could not be mounted, or died.
    pub fn failed(&mut self, now: Time) {
        let worked = self.served_since.take().map(|since| now.since(since));
        let before = if worked >= Some(FORGIVEN_AFTER) { 0 } else { self.count };
        *self = Failures { count: before.saturating_add(1), last: now, served_since: None };
    }

    /// Forgets them: somebody wants it anew.
    pub fn forget(&mut self) {
        *self = Failures::default();
    }

    /// Returns until when no attempt is made.
    fn over(&self) -> Option<Time> {
        let doublings = self.count.checked_sub(2)?;
        let pause = PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(doublings));
        Some(self.last + pause.min(PAUSE_MAX))
    }
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 5] =
        [Status::Stopped, Status::Starting, Status::Running, Status::Stopping, Status::Error];

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Stopped => "stopped",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Stopping => "stopping",
            Status::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn kept(found: Found, failures: Failures) -> Mount {
        Mount { wish: Wish::Kept, found, failures }
    }

    #[test]
    fn what_is_kept_comes_up_and_comes_back_at_once() {
        let mut failures = Failures::default();
        assert_eq!(kept(Found::Nothing, failures).next_step(at(0)), Step::Start);
        failures.served(at(1));
        assert_eq!(kept(Found::Served, failures).next_step(at(9)), Step::Rest);
        failures.failed(at(9));
        assert_eq!(kept(Found::Dead, failures).next_step(at(9)), Step::Start);
    }

    #[test]
    fn who_fails_again_and_again_is_tried_less_and_less_often() {
        let mut failures = Failures::default();
        failures.failed(at(0));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            failures.failed(at(100));
            match kept(Found::Nothing, failures).next_step(at(100)) {
                Step::Wait(over) => pauses.push(over.since(at(100)).as_secs()),
                step => panic!("{step:?}"),
            }
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        failures.served(at(200));
        failures.failed(at(201));
        assert!(matches!(kept(Found::Dead, failures).next_step(at(201)), Step::Wait(_)));
        failures.served(at(300));
        failures.failed(at(360));
        assert_eq!(kept(Found::Dead, failures).next_step(at(360)), Step::Start, "it had worked");
    }

    #[test]
    fn what_nobody_keeps_is_left_as_it_is_and_said() {
        for (wish, found, status) in [
            (Wish::Up, Found::Dead, Status::Error),
            (Wish::Down, Found::Dead, Status::Error),
            (Wish::Up, Found::Nothing, Status::Error),
            (Wish::Down, Found::Nothing, Status::Stopped),
            (Wish::Up, Found::Served, Status::Running),
        ] {
            let mount = Mount { wish, found, failures: Failures::default() };
            assert_eq!((mount.next_step(at(9)), mount.status()), (Step::Rest, status));
        }
    }

    /// What happens to a mount whose keeper does what it is told.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Pass(u16),
        Mounts,
        Fails,
        Dies,
    }

    fn fates() -> impl Strategy<Value = Vec<Fate>> {
        let fate = prop_oneof![
            (0..100_u16).prop_map(Fate::Pass),
            Just(Fate::Mounts),
            Just(Fate::Fails),
            Just(Fate::Dies)
        ];
        proptest::collection::vec(fate, 0..60)
    }

    proptest! {
        #[test]
        fn it_is_never_given_up_on_nor_tried_twice_at_a_time(fates in fates()) {
            let mut mount = kept(Found::Nothing, Failures::default());
            let mut now = at(0);
            let mut attempts = Vec::new();
            for fate in fates {
                match mount.next_step(now) {
                    Step::Start => {
                        prop_assert!(matches!(mount.found, Found::Nothing | Found::Dead));
                        attempts.push(now);
                        mount.found = Found::Starting;
                    }
                    Step::Wait(over) => {
                        prop_assert!(over > now && over.since(now) <= PAUSE_MAX);
                    }
                    Step::Rest => {
                        prop_assert!(!matches!(mount.found, Found::Nothing | Found::Dead));
                    }
                }
                match (fate, mount.found) {
                    (Fate::Pass(seconds), _) => now = now + Duration::from_secs(seconds.into()),
                    (Fate::Mounts, Found::Starting) => {
                        mount.found = Found::Served;
                        mount.failures.served(now);
                    }
                    (Fate::Fails, Found::Starting) => {
                        mount.found = Found::Nothing;
                        mount.failures.failed(now);
                    }
                    (Fate::Dies, Found::Served) => {
                        mount.found = Found::Dead;
                        mount.failures.failed(now);
                    }
                    _ => {}
                }
            }
            // In any second there are no more than three: at first, at once, and after a pause.
            for window in attempts.windows(4) {
                prop_assert!(window[3].since(window[0]) >= PAUSE_FIRST, "{attempts:?}");
            }
        }
    }
}
