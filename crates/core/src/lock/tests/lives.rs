//! Timelines of time, death and restart: how claims end.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{Epoch, OwnerId, SessionId, SpaceId, Token};
use crate::lock::claim::{Claim, Party, Terms};
use crate::lock::event::{Command, Notice};
use crate::lock::table::{Restore, Table};
use crate::lock::want::{Access, Node, Op, Place, Want};
use crate::path::ViewPath;
use crate::time::Time;

use super::script::check;

#[test]
fn patience_ends() {
    check(
        "
        A W f          granted 1
        B wait 50 W f  waits
        C R f          waits
        tick 49
        tick 1         B ETIMEDOUT
        A release      C granted 2
        ",
    );
}

/// N5: a dead client holds up a queue no longer than its lease.
#[test]
fn n5_a_lost_session_is_freed_after_its_lease() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A lose
        tick 9999
        tick 1         A revoked; B granted 2
        ",
    );
}

#[test]
fn the_lease_of_a_silent_session_began_when_it_was_last_heard() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A silent 4000
        tick 5999
        tick 1         A revoked; B granted 2
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        A silent 10000  revoked; B granted 2
        ",
    );
}

/// A lease that ran out ends nothing as long as nobody wants what it kept.
#[test]
fn a_session_past_its_lease_is_kept_until_somebody_wants_what_it_has() {
    check(
        "
        A W f          granted 1
        A R g          granted 2
        A lose
        tick 60000
        B W h          granted 3
        B R g          granted 4 (readers share)
        A reclaim
        B W f          waits
        A lose
        tick 9999
        tick 1         A revoked; A revoked; B granted 5
        C W g          waits (for B alone: A is gone, with all it had)
        B release g    C granted 6
        ",
    );
    check(
        "
        A W f          granted 1
        A lose
        tick 10000
        B W f          waits; A revoked; granted 2 (at once)
        ",
    );
    check(
        "
        A W f          granted 1
        A lose
        tick 10000
        B try W f      waits; A revoked; granted 2
        ",
    );
    check(
        "
        A W f          granted 1
        A lose
        tick 10000
        B W g          granted 2
        C try W g      waits; EAGAIN
        A reclaim
        D try W f      EAGAIN
        ",
    );
}

#[test]
fn a_session_past_its_lease_is_not_kept_for_ever() {
    check(
        "
        A W f          granted 1
        A lose
        tick 10000
        tick 86399999
        tick 1         A revoked
        B W f          granted 2
        ",
    );
}

#[test]
fn a_place_past_its_lease_is_lost_to_who_stands_behind_it() {
    check(
        "
        A W f          granted 1
        B W f          waits
        B lose
        tick 10000
        C R f          waits
        A release      C granted 2
        ",
    );
    check(
        "
        A R f          granted 1
        B W f          waits
        C R f          waits
        B lose
        tick 9999
        tick 1         C granted 2
        ",
    );
}

#[test]
fn a_former_session_past_the_grace_is_kept_until_somebody_wants_what_it_has() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        restart
        tick 10000
        C W f          waits; A revoked; granted 1
        B reclaim
        D W g          waits
        B release      D granted 2
        ",
    );
}

/// A holder is warned, asked, then ended; but only while somebody waits for it.
#[test]
fn a_holder_that_held_long_enough_is_warned_asked_and_ended() {
    check(
        "
        A limited 4000 W f  granted 1
        B W f          waits
        tick 1999
        tick 1         A warned 2000
        tick 999
        tick 1         A asked 1000
        tick 999
        tick 1         A revoked
        A release      B granted 2
        ",
    );
    check(
        "
        A limited 4000 W f  granted 1
        tick 9500
        B W f          waits
        tick 999
        tick 1         A warned 2000
        tick 1000      A asked 1000
        A release      B granted 2
        ",
    );
}

#[test]
fn a_holder_that_nobody_waits_for_holds_for_ever() {
    check(
        "
        A limited 4000 R f  granted 1
        B R f          granted 2
        tick 100000
        B release
        C W f          waits
        tick 1000      A warned 2000
        C withdraw     EINTR
        tick 1000
        tick 100000
        A release
        ",
    );
}

#[test]
fn kin_that_wait_for_a_holder_do_not_end_it() {
    check(
        "
        A limited 4000 hold W d/  granted 1
        A W d/f        granted 2
        tick 100000
        A release all
        ",
    );
}

#[test]
fn a_holder_is_asked_to_let_go() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A recalled 5000  asked 5000
        tick 4999
        tick 1         A revoked
        A release      B granted 2
        ",
    );
    check(
        "
        A W f          granted 1
        A recalled 5000  asked 5000
        tick 5000
        tick 100000    (nobody waits)
        B W f          waits; A revoked
        C W f          waits
        A release      B granted 2
        tick 100000    (it was not asked)
        ",
    );
    check(
        "
        A R f          granted 1
        B R f          granted 2
        A recalled 10  asked 10
        B recalled 10  asked 10
        tick 10
        C R f          granted 3 (they are not in its way)
        D W f          waits; A revoked; B revoked
        A release
        B release
        C release      D granted 4
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        A recalled 5000  asked 5000
        A lose
        A reclaim      asked 5000
        B recalled 10  unknown
        ",
    );
    check(
        "
        A R f          granted 1
        A recalled 5000  asked 5000
        tick 2000
        A upgrade      granted 2 x2 (and is to let go as before)
        B W f          waits
        tick 3000      A revoked
        A release      B granted 3
        ",
    );
    check(
        "
        A R f          granted 1
        A recalled 10  asked 10
        tick 10
        A upgrade      granted 2 x2
        B W f          waits; A revoked
        A release      B granted 3
        ",
    );
}

/// No client can keep the table busy for ever by asking for no time at all.
#[test]
fn times_of_zero_come_to_rest() {
    check(
        "
        A limited 0 W f  granted 1
        tick 0
        tick 100
        B W f          waits
        tick 10        A warned 20
        tick 10        A asked 10
        tick 10        A revoked
        tick 10000     B granted 2
        ",
    );
    check(
        "
        A hold W f     granted 1
        B eager R f    waits
        tick 0
        tick 1000
        A release      B granted 2
        ",
    );
    check(
        "
        A W f          granted 1
        B eager R f    waits
        tick 9
        tick 1         B ungated
        ",
    );
}

#[test]
fn a_heartbeat_may_change_the_lease() {
    check(
        "
        A leashed lock W f  granted 1
        A renew 3000
        tick 2999
        tick 1         A revoked
        ",
    );
}

#[test]
fn a_waiter_can_be_sent_away() {
    check(
        "
        A W f          granted 1
        B W f          waits
        C W f          waits
        B broken       broken
        A release      C granted 2
        ",
    );
}

#[test]
fn a_closed_session_leaves_the_line_at_once() {
    check(
        "
        A W f          granted 1
        B W f          waits
        C W f          waits
        B close
        A close        C granted 2
        ",
    );
}

#[test]
fn a_waiter_whose_session_is_away_keeps_its_place_until_it_is_back() {
    check(
        "
        A W f          granted 1
        B W f          waits
        C W f          waits
        B lose
        A release
        B reclaim      granted 2
        B release      C granted 3
        ",
    );
}

#[test]
fn a_leashed_lock_lives_by_its_heartbeat_and_ends_at_its_limit() {
    check(
        "
        A leashed lock W f  granted 1
        B W f          waits
        tick 9000
        A renew
        tick 9000
        A renew
        tick 10000     A revoked; B granted 2
        ",
    );
    check(
        "
        A leashed lock W f  granted 1
        tick 9000
        A renew
        tick 9000
        A renew
        tick 9000
        A renew
        tick 9000
        A renew
        tick 9000
        A renew
        tick 9000
        A renew
        tick 5999
        tick 1         A revoked
        ",
    );
}

#[test]
fn a_patient_reader_passes_idle_handles_on_record() {
    check(
        "
        A W f          granted 1
        tick 1000
        B patient R f  waits
        tick 29999
        tick 1         B ungated
        A release
        ",
    );
    check(
        "
        A W f          granted 1
        B patient R f  waits
        tick 20000
        A active
        tick 29999
        tick 1         B ungated
        ",
    );
}

#[test]
fn a_patient_reader_never_passes_a_hold() {
    check(
        "
        A hold W f     granted 1
        B patient R f  waits
        tick 30000
        tick 30000
        A release      B granted 2
        ",
    );
}

/// N4: tokens rise over restarts; what was granted stays granted.
#[test]
fn n4_a_restart_keeps_grants_and_places() {
    check(
        "
        A W f          granted 1
        B W f          waits
        restart
        A reclaim
        C W g          granted 1 (of the next epoch)
        D W f          waits
        A release
        B reclaim      granted 2
        B release      D granted 3
        ",
    );
}

#[test]
fn what_conflicts_with_nothing_is_granted_during_the_grace() {
    check(
        "
        A W f          granted 1
        restart
        B W g          granted 1
        B W f          waits
        tick 10000     A revoked; B granted 2
        ",
    );
}

#[test]
fn what_a_former_session_does_not_list_is_freed() {
    check(
        "
        A W f          granted 1
        A W g          granted 2
        restart
        B W f          waits
        A reclaim f    B granted 1
        C W g          waits
        ",
    );
}

/// The journal still has it in line; its owner would release it, not withdraw.
#[test]
fn who_holds_what_the_journal_has_in_line_holds_it() {
    check(
        "
        A W f          granted 1
        B W f          waits
        synced
        A release      B granted 2
        restart lost
        A reclaim f
        B reclaim      granted 2
        C W f          waits
        B release
        tick 10000     C granted 1 (of the next epoch)
        ",
    );
    // While another that the journal knows has yet to let go, it is not given back, and stands in
    // no line either.
    check(
        "
        A W f          granted 1
        B W f          waits
        synced
        A release      B granted 2
        restart lost
        B reclaim
        A reclaim f
        C W f          waits
        tick 10000     C granted 1
        ",
    );
}

/// A client that lies, or counts twice, ends nobody's broker.
#[test]
fn n1_of_listed_grants_that_conflict_the_first_is_taken_back() {
    let session = SessionId(1);
    let path = ViewPath::parse(b"f").unwrap();
    let place = Place { space: SpaceId(1), path: Some(path), node: Node::None };
    let want = Want { op: Op::Hold(Access::Write), places: vec![place] };
    let lost = |number: u64| {
        let owner = OwnerId { session, number };
        let terms = Terms::of(owner, Party::Owner(owner));
        let token = Token { epoch: Epoch(1), counter: number };
        (Arc::new(Claim::new(terms, want.clone())), token)
    };
    let lease = Duration::from_secs(10);
    let sessions = vec![(session, lease)];
    let restore = Restore { sessions, claims: Vec::new(), incomplete: true, grace: lease };
    let mut table = Table::restore(Epoch(2), Time::ZERO, restore);
    // Of this run nothing was lost.
    let (of_this_run, _) = lost(3);
    let liar = (of_this_run, Token { epoch: Epoch(2), counter: 1 });
    let held = vec![liar, lost(1), lost(1), lost(2)];
    let waiting = [2, 3].map(|number| (lost(number).0, Vec::new())).to_vec();
    let reclaim = Command::Reclaim { session, held, waiting };
    let outcome = table.execute(Time::ZERO, reclaim).unwrap();
    table.check();
    let granted = outcome.notices.iter().filter_map(|notice| match notice {
        Notice::Granted { owner, .. } => Some(owner.number),
        _ => None,
    });
    assert_eq!(granted.collect::<Vec<_>>(), [1], "{outcome:?}");
}

#[test]
fn with_a_lost_tail_nothing_new_is_granted_before_the_grace_ends() {
    check(
        "
        A W f          granted 1
        B R h          granted 2
        restart incomplete
        C W g          waits
        A reclaim
        B reclaim
        tick 10000     C granted 1
        ",
    );
    check(
        "
        A W f          granted 1
        restart incomplete
        C W g          waits
        tick 9999
        tick 1         A revoked; C granted 1
        ",
    );
}
