//! Of the broker.

use gate_api::wire::Halt;
use gate_core::lock::event::Standstill;

use crate::cli::doctor::Finding;
use crate::cli::doctor::facts::broker::{Answer, Broker};
use crate::daemon::body::{self, Mount};
use crate::failure::Failure;

/// How far a start may lie in the future: clocks of two machines are never quite the same.
const AHEAD_MS_MAX: u64 = 2_000;

pub fn all(broker: &Broker) -> Vec<Finding> {
    match broker {
        Broker::Answers(answer) => {
            let version = version(answer, env!("CARGO_PKG_VERSION"));
            let mut findings = vec![grants(answer), version, grace(answer), clock(answer)];
            findings.extend(answer.gaps.iter().map(gap));
            findings.extend(answer.kept.iter().flat_map(kept));
            findings
        }
        Broker::None => vec![Finding::ok(CHECK, "none runs; `gate mount` starts one")],
        Broker::Misconfigured(failure) | Broker::Unreached(failure) => vec![failed(failure)],
        Broker::Silent { address, error } => {
            let found = format!("{address} lets clients in and does not answer: {error}");
            vec![Finding::fail(
                CHECK,
                found,
                "look into its log, or restart it: `gate daemon stop`",
            )]
        }
    }
}

const CHECK: &str = "broker";

fn failed(failure: &Failure) -> Finding {
    let line = |name| failure.line(name).unwrap_or_default();
    Finding::fail(CHECK, format!("{}: {}", line("error"), line("cause")), line("hint"))
}

fn grants(answer: &Answer) -> Finding {
    let Answer { address, pid, halt, .. } = answer;
    match halt {
        None => Finding::ok(CHECK, format!("{address} answers, process {pid}")),
        Some(Halt { kind, why, .. }) => {
            let found = format!("{address} grants nothing: its journal cannot be written: {why}");
            let mend = match kind {
                Standstill::NoRoom => "make room on the disk of its state directory",
                Standstill::Fault => "look into its log",
            };
            Finding::fail(CHECK, found, mend)
        }
    }
}

fn version(answer: &Answer, ours: &str) -> Finding {
    const CHECK: &str = "broker-version";
    let Answer { version, .. } = answer;
    match version == ours {
        true => Finding::ok(CHECK, format!("gate {version}, as this program")),
        false => {
            let found = format!("gate {version}, and this program is {ours}");
            Finding::warn(CHECK, found, "start it anew: `gate daemon stop`, `gate daemon start`")
        }
    }
}

fn grace(answer: &Answer) -> Finding {
    const CHECK: &str = "broker-grace";
    match answer.in_grace {
        false => Finding::ok(CHECK, "over: everybody is let in in turn"),
        true => {
            let found = "it has just been restarted, and clients of before may still come back";
            Finding::warn(CHECK, found, "wait until their leases have run out")
        }
    }
}

fn gap((source, gap): &(String, String)) -> Finding {
    let found = format!("two could come to serve this: {gap}");
    let mend = "see that nobody serves it, or what is above it, by another broker; or let this one \
                read that directory";
    Finding::warn("broker-alone", found, mend).about(source.clone())
}

/// The mounts that are to be there and are not.
fn kept(mounts: &Result<Vec<Mount>, Failure>) -> Vec<Finding> {
    const CHECK: &str = "kept-mount";
    let mounts = match mounts {
        Ok(mounts) => mounts,
        Err(failure) => return vec![Finding { check: CHECK, ..failed(failure) }],
    };
    let failing = mounts.iter().filter_map(|mount| {
        let found = format!("it is not there: {}", mount.trouble()?);
        let again = format!("`gate mount start {}` tries it at once", body::short(mount.mount_id));
        let mend = format!("see to that: the daemon goes on trying; {again}");
        Some(Finding::fail(CHECK, found, mend).about(mount.mount_point.display().to_string()))
    });
    let failing: Vec<Finding> = failing.collect();
    match failing.is_empty() {
        true => vec![Finding::ok(CHECK, format!("{}, each as it is to be", mounts.len()))],
        false => failing,
    }
}

fn clock(answer: &Answer) -> Finding {
    const CHECK: &str = "broker-clock";
    match answer.started_at_ms.saturating_sub(answer.now_ms) {
        0..=AHEAD_MS_MAX => Finding::ok(CHECK, "its start lies in the past"),
        ahead_ms => {
            let found = format!("it started {} s in the future", ahead_ms / 1_000);
            let mend = "set the clocks of both machines: `timedatectl set-ntp true`";
            Finding::warn(CHECK, found, mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    fn answer() -> Answer {
        Answer {
            address: "/s/gate.sock".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: 7,
            in_grace: false,
            halt: None,
            started_at_ms: 1_000_000,
            gaps: Vec::new(),
            kept: None,
            now_ms: 2_000_000,
        }
    }

    #[track_caller]
    fn check(broker: &Broker, levels: &[Level], said: &str) {
        let findings = all(broker);
        let found: Vec<Level> = findings.iter().map(|finding| finding.level).collect();
        assert_eq!(found, levels, "{findings:?}");
        let text = format!("{findings:?}");
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }

    #[test]
    fn a_broker_that_answers_is_looked_at_closely() {
        use Level::{Ok, Warn};

        check(&Broker::Answers(answer()), &[Ok; 4], "process 7");
        let other = Answer { version: "0.0.9".into(), ..answer() };
        check(&Broker::Answers(other), &[Ok, Warn, Ok, Ok], "gate daemon stop");
        let halt = Halt { kind: Standstill::NoRoom, since_ms: 1_500_000, why: "full".into() };
        let halted = Answer { halt: Some(halt), ..answer() };
        check(&Broker::Answers(halted), &[Level::Fail, Ok, Ok, Ok], "make room");
        let new = Answer { in_grace: true, ..answer() };
        check(&Broker::Answers(new), &[Ok, Ok, Warn, Ok], "leases");
        let ahead = Answer { started_at_ms: 2_060_000, ..answer() };
        check(&Broker::Answers(ahead), &[Ok, Ok, Ok, Warn], "60 s in the future");
        let gap = ("/srv".into(), "/ cannot be locked".into());
        let beside = Answer { gaps: vec![gap], ..answer() };
        check(&Broker::Answers(beside), &[Ok, Ok, Ok, Ok, Warn], "this: / cannot be locked");
        let hardly = Answer { started_at_ms: 2_001_000, ..answer() };
        check(&Broker::Answers(hardly), &[Ok; 4], "past");
    }

    #[test]
    fn a_kept_mount_that_is_not_there_is_named_with_its_reason() {
        let mount = |status: &str| -> Mount {
            let json = serde_json::json!({
                "mount_id": uuid::Uuid::from_u128(0x12ab_34cd << 96), "bucket_id": null, "source": "/s",
                "mount_point": "/m", "enabled": true, "auto_mount": true, "read_only": false,
                "allow_other": false, "cache_size_mb": 1, "cache_ttl_secs": 1, "pid": null,
                "status": status, "error_message": "/s is gone", "created_at": "", "updated_at": "",
            });
            serde_json::from_value(json).unwrap()
        };
        let found = |statuses: &[&str]| kept(&Ok(statuses.iter().copied().map(mount).collect()));
        assert_eq!(found(&[]), [Finding::ok("kept-mount", "0, each as it is to be")]);
        let fine = Finding::ok("kept-mount", "2, each as it is to be");
        assert_eq!(found(&["running", "stopped"]), [fine], "what went wrong once is over");
        for status in ["error", "starting"] {
            let found = found(&["running", status]);
            let [
                Finding {
                    level: Level::Fail, subject: Some(point), found, mend: Some(mend), ..
                },
            ] = &found[..]
            else {
                panic!("{found:?}")
            };
            assert_eq!((&**point, &**found), ("/m", "it is not there: /s is gone"));
            assert!(mend.contains("`gate mount start 12ab34cd`"), "{mend}");
        }
        let silent = kept(&Err(Failure::new("cannot speak to it", "refused", "look")));
        assert_eq!(silent.len(), 1);
        assert_eq!((silent[0].level, silent[0].check), (Level::Fail, "kept-mount"));
    }

    #[test]
    fn none_is_fine_unless_one_was_named() {
        check(&Broker::None, &[Level::Ok], "starts one");
        let failure = Failure::new("cannot reach it", "nobody there", "start it");
        check(&Broker::Unreached(failure), &[Level::Fail], "cannot reach it: nobody there");
        let failure = Failure::new("that is no port", "`x`", "set it");
        check(&Broker::Misconfigured(failure), &[Level::Fail], "set it");
        let silent = Broker::Silent { address: "/s".into(), error: "no answer".into() };
        check(&silent, &[Level::Fail], "restart");
    }
}
