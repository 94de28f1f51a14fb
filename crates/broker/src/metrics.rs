//! Figures for those who watch a broker: counts, times, and how much there is of what.
//!
//! The deciding thread counts; a count is an addition, a time a search among a few bounds. Whoever
//! asks is told by the HTTP thread, which makes the text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gate_api::event;
use gate_api::wire::Pass;
use gate_core::lock::event::{RecallCause, Refusal, Revocation};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::text`].
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What stands before each name.
const PREFIX: &str = "gate";

type Labels = [(&'static str, Cow<'static, str>); 1];
type Counts = Family<Labels, Counter>;

/// All figures of one run.
pub(crate) struct Metrics {
    registry: Registry,
    turns: Counter,
    own: Counter,
    awaited: Counter,
    pub waits: Counter,
    refusals: Counts,
    /// Those that were not given up by whoever asked.
    refused: Counter,
    revocations: Counts,
    revoked: Counter,
    recalls: Counts,
    pub ungated: Counter,
    /// Records that the log could not keep.
    pub missing: Counter,
    wait: Histogram,
    hold: Histogram,
    hand_off: Histogram,
    commit: Histogram,
    /// 1 while nothing is granted.
    pub halted: Gauge,
    pub sizes: Sizes,
    censuses: Mutex<Vec<Census>>,
}

/// How many there are of something that is not the broker's, by status: counted when somebody asks.
pub(crate) struct Census {
    pub name: &'static str,
    pub help: &'static str,
    pub counts: Box<dyn Fn() -> BTreeMap<&'static str, usize> + Send + Sync>,
}

/// How much there is, at one moment.
#[derive(Default)]
pub(crate) struct Sizes {
    pub sessions: Gauge,
    pub connections: Gauge,
    pub held: Gauge,
    pub waiting: Gauge,
    pub longest_line: Gauge,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut to = Registry::with_prefix(PREFIX);
        let grants = counts(&mut to, "grants", "Claims that were let in, by right");
        let grant = |right| grants.get_or_create_owned(&[("right", Cow::Borrowed(right))]);
        Metrics {
            turns: grant("turn"),
            own: grant("own"),
            awaited: grant("awaited_by_holder"),
            waits: counter(&mut to, "waits", "Claims that had to wait"),
            refusals: counts(&mut to, "refusals", "Claims that were told no"),
            refused: Counter::default(),
            revocations: counts(&mut to, "revocations", "Grants that were taken away"),
            revoked: Counter::default(),
            recalls: counts(
                &mut to,
                "recalls",
                "Times that a holder was warned or asked to let go",
            ),
            ungated: counter(
                &mut to,
                "ungated",
                "Readers that passed idle writers without a grant",
            ),
            missing: counter(&mut to, "log_missing", "Records that the log could not keep"),
            wait: times(&mut to, "wait", "How long those let in had waited, if they had to"),
            hold: times(&mut to, "hold", "How long grants were held"),
            hand_off: times(&mut to, "hand_off", "From letting go until the next was told"),
            commit: times(&mut to, "commit", "How long the journal took to commit a batch"),
            halted: gauge(&mut to, "halted", "Whether the journal cannot be written"),
            sizes: Sizes::register(&mut to),
            registry: to,
            censuses: Mutex::default(),
        }
    }

    /// Tells what somebody else counts among its own figures, from now on.
    pub fn include(&self, census: Census) {
        self.censuses.lock().unwrap_or_else(PoisonError::into_inner).push(census);
    }

    pub fn granted(&self, pass: Pass) {
        match pass {
            Pass::None => self.turns.inc(),
            Pass::Own => self.own.inc(),
            Pass::AwaitedByHolder => self.awaited.inc(),
        };
    }

    pub fn refused(&self, why: Refusal) {
        // Who gives up was not told no.
        if !matches!(why, Refusal::Interrupted | Refusal::WouldBlock) {
            self.refused.inc();
        }
        self.refusals.get_or_create(&[("why", event::refusal(why).into())]).inc();
    }

    pub fn revoked(&self, why: Revocation) {
        self.revoked.inc();
        self.revocations.get_or_create(&[("why", event::revocation(why).into())]).inc();
    }

    pub fn recalled(&self, why: RecallCause) {
        self.recalls.get_or_create(&[("why", event::cause(why).into())]).inc();
    }

    pub fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    pub fn held(&self, time: Duration) {
        self.hold.observe(time.as_secs_f64());
    }

    pub fn handed_off(&self, time: Duration) {
        self.hand_off.observe(time.as_secs_f64());
    }

    pub fn committed(&self, time: Duration) {
        self.commit.observe(time.as_secs_f64());
    }

    /// Returns the counts that `gate status` shows, by name.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let by_right = [&self.turns, &self.own, &self.awaited].map(Counter::get);
        let counts = [
            ("granted", by_right.iter().sum()),
            ("waited", self.waits.get()),
            ("passed-by-kin", self.awaited.get()),
            ("refused", self.refused.get()),
            ("revoked", self.revoked.get()),
            ("ungated", self.ungated.get()),
        ];
        counts.map(|(name, count)| (name.to_owned(), count)).into()
    }

    /// Returns all figures in the OpenMetrics format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes all");
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        encode_registry(text, &self.registry)?;
        for census in &*self.censuses.lock().unwrap_or_else(PoisonError::into_inner) {
            encode_registry(text, &census.taken())?;
        }
        encode_eof(text)
    }
}

impl Census {
    fn taken(&self) -> Registry {
        let mut to = Registry::with_prefix(PREFIX);
        let gauges = Family::<Labels, Gauge>::default();
        for (status, count) in (self.counts)() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            gauges.get_or_create(&[("status", status.into())]).set(count);
        }
        to.register(self.name, self.help, gauges);
        to
    }
}

impl Sizes {
    fn register(to: &mut Registry) -> Sizes {
        let mut gauge = |name, help| gauge(to, name, help);
        Sizes {
            sessions: gauge("sessions", "Clients, those that are away among them"),
            connections: gauge("connections", "Connections of clients"),
            held: gauge("held", "Claims that hold"),
            waiting: gauge("waiting", "Claims that wait"),
            longest_line: gauge("longest_line", "Claims that wait for one key, where most do"),
        }
    }
}

fn gauge(to: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    to.register(name, help, gauge.clone());
    gauge
}

fn counter(to: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    to.register(name, help, counter.clone());
    counter
}

fn counts(to: &mut Registry, name: &str, help: &str) -> Counts {
    let counts = Counts::default();
    to.register(name, help, counts.clone());
    counts
}

/// Registers times from 10 µs to some minutes.
fn times(to: &mut Registry, name: &str, help: &str) -> Histogram {
    let times = Histogram::new(exponential_buckets(0.000_01, 4.0, 13));
    to.register_with_unit(name, help, Unit::Seconds, times.clone());
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each counts for itself, and in `gate status` for all that were told no.
    #[test]
    fn each_refusal_is_counted_by_its_own_name() {
        use gate_core::lock::event::Standstill;
        use gate_core::lock::limits::Limit;
        let told = [
            (Refusal::TimedOut, "timed-out"),
            (Refusal::WouldBlock, "would-block"),
            (Refusal::Interrupted, "interrupted"),
            (Refusal::Deadlock, "deadlock"),
            (Refusal::Limit(Limit::Waiters), "limit: waiters"),
            (Refusal::Unknown, "unknown"),
            (Refusal::OwnerBusy, "owner-busy"),
            (Refusal::Broken, "broken"),
            (Refusal::Standstill(Standstill::NoRoom), "no-room"),
            (Refusal::Standstill(Standstill::Fault), "journal-fault"),
        ];
        let metrics = Metrics::new();
        for (count, (why, _)) in (1..).zip(told) {
            (0..count).for_each(|_| metrics.refused(why));
        }
        let text = metrics.text();
        for (count, (_, name)) in (1..).zip(told) {
            let line = format!("gate_refusals_total{{why=\"{name}\"}} {count}");
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
        let refused = metrics.counts().into_iter().find(|(name, _)| name == "refused");
        let given_up = 2 + 3;
        assert_eq!(refused.map(|(_, count)| count), Some((1..=10).sum::<u64>() - given_up));
    }

    /// Dashboards rely on these names.
    #[test]
    fn figures_have_names_that_last() {
        let metrics = Metrics::new();
        metrics.granted(Pass::None);
        metrics.refused(Refusal::Deadlock);
        metrics.refused(Refusal::WouldBlock);
        metrics.revoked(Revocation::Broken);
        metrics.recalled(RecallCause::Request);
        metrics.waited(Duration::from_millis(1));
        metrics.sizes.longest_line.set(3);
        let counts = || BTreeMap::from([("running", 2), ("error", 0)]);
        metrics.include(Census { name: "mounts", help: "Mounts", counts: Box::new(counts) });
        let text = metrics.text();
        for line in [
            r#"gate_grants_total{right="turn"} 1"#,
            r#"gate_grants_total{right="awaited_by_holder"} 0"#,
            "gate_waits_total 0",
            r#"gate_refusals_total{why="deadlock"} 1"#,
            r#"gate_refusals_total{why="would-block"} 1"#,
            r#"gate_revocations_total{why="broken"} 1"#,
            r#"gate_recalls_total{why="request"} 1"#,
            "gate_ungated_total 0",
            "gate_log_missing_total 0",
            "gate_wait_seconds_count 1",
            r#"gate_wait_seconds_bucket{le="0.00064"} 0"#,
            "gate_hold_seconds_count 0",
            "gate_hand_off_seconds_count 0",
            "gate_commit_seconds_count 0",
            "gate_longest_line 3",
            "gate_halted 0",
            r#"gate_mounts{status="running"} 2"#,
            r#"gate_mounts{status="error"} 0"#,
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
        assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
        let count = |name: &str| metrics.counts().into_iter().find(|(known, _)| known == name);
        assert_eq!(count("refused"), Some(("refused".to_owned(), 1)));
    }
}
