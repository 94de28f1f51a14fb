//! Timelines of grants that are taken away: who is let in, and when.

use super::script::check;

#[test]
fn a_broken_grant_stands_until_its_owner_lets_go() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        tick 9999
        A release      B granted 2
        tick 100000
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        A withdraw     B granted 2
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        A close        B granted 2
        ",
    );
}

/// Its client is stopped, or what it does takes longer than that.
#[test]
fn a_broken_grant_ends_without_a_word_once_its_owner_knows_by_its_own_clock() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        tick 9999
        tick 1         B granted 2
        A release      unknown
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        A silent 4000
        A broken       revoked
        tick 5999
        tick 1         B granted 2
        ",
    );
    check(
        "
        A W f          granted 1
        A lose
        tick 10000     (nobody wants it)
        A broken       revoked
        B W f          granted 2
        ",
    );
}

/// A file system may be slow: its owner is alive, and says that something is still under way.
#[test]
fn a_broken_grant_stands_for_as_long_as_its_owner_says_that_it_is_busy() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        tick 9000
        A active
        tick 9999
        A active
        tick 9999
        tick 1         B granted 2
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        A active
        A lose
        tick 10000     B granted 2
        A active
        ",
    );
}

/// It acts for a lease from when it asked to be taken back, and to list it is to say that something
/// may be under way.
#[test]
fn n7_a_broken_grant_that_is_listed_on_return_stands_for_another_lease() {
    for how in ["lose", "silent 1000"] {
        check(&format!(
            "
            A W f          granted 1
            B W f          waits
            A {how}
            A broken       revoked
            tick 8000
            A reclaim
            tick 9999
            tick 1         B granted 2
            "
        ));
    }
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        tick 5000
        A lose
        tick 4000
        A reclaim
        tick 9000
        A release      B granted 2
        ",
    );
}

#[test]
fn what_is_taken_away_is_neither_asked_for_nor_taken_away_once_more() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        tick 6000
        A broken
        A recalled 50000
        A kin B        no news
        tick 4000      B granted 2
        ",
    );
}

#[test]
fn what_is_taken_away_is_nothing_to_enter_again() {
    check(
        "
        A R f          granted 1
        A again        granted 1 x2
        B W f          waits
        A broken       revoked
        A again        busy
        A upgrade      busy
        A release      B granted 2
        ",
    );
    check(
        "
        A R f          granted 1
        B R f          granted 2
        A upgrade      waits
        C R f          waits
        A broken       revoked; C granted 3
        B release
        C release
        D W f          waits
        A release      D granted 4
        ",
    );
}

#[test]
fn what_is_taken_away_lets_nobody_pass_nor_its_own_process() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        A R f          waits (behind B, and for itself)
        tick 50
        A release f    B granted 2
        B release      A granted 3
        ",
    );
    check(
        "
        A hold W d/    granted 1
        K W d/x        waits
        A broken       revoked
        K kin A        (it is no longer below a hold)
        tick 50
        A release      K granted 2
        ",
    );
}

/// Whoever it waits for cannot keep it.
#[test]
fn what_is_taken_away_is_part_of_no_cycle() {
    check(
        "
        A hold W f     granted 1
        B hold W g     granted 2
        A broken       revoked
        A W g          waits
        B W f          waits
        A release f    B granted 3
        ",
    );
}

/// N3: whoever asked for it was told that it is done.
#[test]
fn n3_what_is_taken_away_stays_so_over_a_restart() {
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        restart
        B reclaim
        A reclaim
        C W g          granted 1
        A release      B granted 2
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        restart
        B reclaim
        tick 5000
        A reclaim
        tick 9999
        tick 1         B granted 1
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        A broken       revoked
        restart
        A reclaim f    (all but f: it let go)
        B reclaim      granted 1
        ",
    );
}

/// A client that heard of nothing lists it; but nothing was lost, and so it is not taken back.
#[test]
fn what_has_ended_is_not_taken_back() {
    check(
        "
        A W f          granted 1
        A broken       revoked
        tick 10000
        restart
        A reclaim
        B W f          granted 1
        ",
    );
}

#[test]
fn what_no_session_keeps_is_taken_away_at_once() {
    check(
        "
        A leashed lock W f  granted 1
        B W f          waits
        A broken       revoked; B granted 2
        ",
    );
}
