//! When files were accessed, modified and changed, as a directory tells it.

use std::collections::{BTreeMap, BTreeSet};

use gate_tests::Actor;
use gate_tests::wait::{SOON, wait_until};
use rustix::time::{ClockId, clock_gettime};

/// Times that scripts set lie before this one (2001), times of the clock after it.
const CLOCK_AFTER_NANOS: i128 = 1_000_000_000_000_000_000;
/// As long as the same may take in a view and in its twin, one after the other.
const APART_MAX_NANOS: i128 = 60_000_000_000;

const ACCESSED: usize = 0;
const KINDS: [&str; 3] = ["accessed", "modified", "changed"];

/// The times of files, by name.
#[derive(Default)]
pub struct Moments(BTreeMap<String, Moment>);

/// When a file was accessed, modified and changed.
struct Moment {
    inode: u64,
    times: [i128; 3],
}

impl Moments {
    /// Asks for those of the names that there are.
    pub fn of(actor: &mut Actor, names: &[String]) -> Self {
        let told = actor.ask(std::iter::once("moments").chain(names.iter().map(String::as_str)));
        let told = told.unwrap();
        let lines = told.split("\\n").filter(|line| !line.is_empty());
        let moments = lines.map(|line| {
            let mut words = line.splitn(5, ' ');
            let times = [(); 3].map(|()| words.next().unwrap().parse().unwrap());
            let inode = words.next().unwrap().parse().unwrap();
            (words.next().unwrap().to_owned(), Moment { inode, times })
        });
        Self(moments.collect())
    }

    /// Tells what the source must tell, too, to the nanosecond; who looks beneath a link, here or
    /// there, has accessed it.
    pub fn exactly(&self) -> String {
        let line = |(name, Moment { times: [_, modified, changed], .. }): (&String, &Moment)| {
            format!("{name} modified {modified} changed {changed}\n")
        };
        self.0.iter().map(line).collect()
    }

    /// Tells what is otherwise than expected: times that somebody set, which ones are the clock's,
    /// and which have changed if it is known what they were `before`, here and there.
    ///
    /// A time has changed that is another than that of the same file, not of what had its name:
    /// two files that were made at once may bear the same time here and not there.
    ///
    /// Not all that reads asks the view (a mapping, a link that is in memory): where a time of
    /// access is the clock's, it is enough that the view has one.
    pub fn unlike(&self, expected: &Moments, before: [Option<&Moments>; 2]) -> String {
        let names: BTreeSet<&str> = self.names().chain(expected.names()).collect();
        let all = names.into_iter().flat_map(|name| (0..KINDS.len()).map(move |kind| (name, kind)));
        let unlike = all.filter_map(|(name, kind)| {
            let sides = [self, expected];
            let times = sides.map(|all| all.time(name, kind));
            let [found, wanted] = [0, 1].map(|side| {
                let before = before[side].map(|all| all.time_of(sides[side].inode(name), kind));
                tell(times[side], before)
            });
            let alike = match times {
                [Some(_), Some(wanted)] if kind == ACCESSED && wanted >= CLOCK_AFTER_NANOS => true,
                [Some(time), Some(other)] => {
                    found == wanted && (time - other).abs() < APART_MAX_NANOS
                }
                [time, other] => time == other,
            };
            (!alike).then(|| format!("{name} {}: {found}, not {wanted}\n", KINDS[kind]))
        });
        unlike.collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn time(&self, name: &str, kind: usize) -> Option<i128> {
        self.0.get(name).map(|moment| moment.times[kind])
    }

    fn inode(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|moment| moment.inode)
    }

    fn time_of(&self, inode: Option<u64>, kind: usize) -> Option<i128> {
        let moment = self.0.values().find(|moment| Some(moment.inode) == inode)?;
        Some(moment.times[kind])
    }
}

fn tell(time: Option<i128>, before: Option<Option<i128>>) -> String {
    let changed = before.is_some_and(|before| before != time);
    match time {
        None => "never".to_owned(),
        Some(time) if time < CLOCK_AFTER_NANOS => time.to_string(),
        Some(_) if changed => "in this step".to_owned(),
        Some(_) => "by the clock".to_owned(),
    }
}

/// Waits until what changes now bears another time than what has changed before.
pub fn await_tick() {
    let tick = || clock_gettime(ClockId::RealtimeCoarse);
    let before = tick();
    wait_until(SOON, "the clock ticks", || tick() != before);
}
