//! Corners of the rules: timelines that tell a rule from one that almost is the same.

use super::script::check;

#[test]
fn who_would_wait_is_told_for_whom() {
    check(
        "
        A W f          granted 1
        B would R g    go in
        B would R f    wait for A
        B R f          waits
        C would R f    wait for A
        A would W f    go in (its process has it)
        ",
    );
    check(
        "
        A R f          granted 1
        B R f          granted 2
        A would W f    wait for B (not for its own process)
        ",
    );
    check(
        "
        A W g          granted 1
        B rename f g   waits
        C would W f    wait for A (behind B, who waits for A)
        ",
    );
}

/// Whoever did not hear of its grant asks again, and may count on what it then is told.
#[test]
fn who_asks_again_for_what_it_has_renews_it() {
    check(
        "
        A leashed lock W f  granted 1
        B hold W f     waits
        tick 6000
        A again        granted 1 x2
        tick 6000
        A renew 20000
        tick 2000
        A again        granted 1 x3 (for no shorter lease than it has)
        tick 19000
        tick 1000      A revoked; B granted 2
        ",
    );
    check(
        "
        A leashed lock R f  granted 1
        A renew 20000
        A upgrade      granted 2 x2
        look           A holds 0, leased 20000
        ",
    );
}

/// What is told of again may have been let go of since, and others let in whom nobody remembers.
#[test]
fn who_asks_again_for_what_a_former_run_granted_is_let_in_anew() {
    check(
        "
        V leashed lock W f  granted 1
        V renew 20000
        synced
        V release
        B hold W f     granted 2 (and tells whoever may ask for its token)
        restart lost
        V again        waits (for B may act on that)
        tick 10000     granted 1 x2
        ",
    );
    check(
        "
        A W g          granted 1
        V leashed lock W f  granted 2
        restart
        V again        granted 1 x2
        V again        granted 1 x3
        V release
        V release
        V release
        ",
    );
}

/// Who is asked to let go in an hour has no longer than it had before.
#[test]
fn a_recall_lets_nobody_hold_for_longer_than_it_may() {
    check(
        "
        A leashed lock W f  granted 1
        A renew 90000
        tick 50000
        A recalled 30000  asked 10000
        tick 10000     A revoked
        ",
    );
}

#[test]
fn who_waits_elsewhere_by_now_lets_those_behind_it_in() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        C rename f g   waits
        D R f          waits
        A release      D granted 3
        B release      C granted 4
        ",
    );
}

/// A session past its lease loses what somebody waits for, and nothing else.
#[test]
fn who_waits_for_the_living_ends_no_session_past_its_lease() {
    check(
        "
        A W a          granted 1
        B W b          granted 2
        C W c          granted 3
        D W f          granted 4
        A lose
        B lose
        C lose
        tick 10000
        E W f          waits (for D)
        D release      E granted 5
        A reclaim
        F W a          waits
        ",
    );
    check(
        "
        A W f          granted 1
        B W b          granted 2
        C W c          granted 3
        A lose
        B lose
        C lose
        tick 10000
        E W f          waits; A revoked; granted 4
        B reclaim
        F W b          waits
        ",
    );
}

#[test]
fn a_place_past_its_lease_is_kept_behind_who_waits_for_others() {
    check(
        "
        A R f          granted 1
        B R f          granted 2
        C W f          waits
        D W f          waits
        D lose
        tick 10000
        A release      (C looks again, and waits for B)
        D reclaim
        B release      C granted 3
        C release      D granted 4
        ",
    );
}

#[test]
fn a_place_past_its_lease_is_lost_to_who_holds_something_elsewhere() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        C W f          waits
        C lose
        tick 10000
        B W f          waits
        A release      B granted 3
        ",
    );
}

#[test]
fn who_passes_a_place_past_its_lease_leaves_it() {
    check(
        "
        K R f          granted 1
        B R f          granted 2
        C W f          waits
        D R f          waits
        D lose
        tick 10000
        K W f          waits (for B alone: its process has the file that C and D wait for)
        D reclaim
        C withdraw     EINTR; D granted 3
        ",
    );
}

#[test]
fn everybody_sees_who_holds_and_who_waits_behind_whom() {
    check(
        "
        load           0 hold, 0 wait, 0 in one line
        A R f          granted 1
        B R g          granted 2
        tick 5
        C W f          waits
        tick 7
        D R f          waits
        E W g          waits
        look           A holds 12; B holds 12; C waits 7, place 1 behind A, for A; D waits 0, place 2 behind C, for ; E waits 0, place 1 behind B, for B
        load           2 hold, 3 wait, 3 in one line
        E withdraw     EINTR
        D withdraw     EINTR
        B R f          waits
        C withdraw     EINTR; B granted 3
        A upgrade      waits
        look           A holds 12; A waits 0, place 1 behind B, for B; B holds 12; B holds 0
        ",
    );
}

#[test]
fn the_grace_is_over_when_the_last_that_may_come_back_does_or_is_dead() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        restart
        load           2 hold, 0 wait, 0 in one line, in grace
        A reclaim
        A close
        load           1 hold, 0 wait, 0 in one line, in grace
        B close
        load           0 hold, 0 wait, 0 in one line
        ",
    );
    check(
        "
        A W f          granted 1
        restart
        A reclaim
        load           1 hold, 0 wait, 0 in one line
        ",
    );
}

#[test]
fn what_was_created_is_an_open_file_that_its_names_follow() {
    check(
        "
        A create f     granted 1
        A created f
        A rename f g   granted 2
        B W g          waits
        A release      B granted 3
        ",
    );
    check(
        "
        A W f          granted 1
        A created f    unknown (it is no creation)
        B create g     granted 2
        B created f    (another's by now: the name stays locked)
        C R g          waits
        B release      C granted 3
        ",
    );
}

/// Until its number is known, nothing but its name protects it: that stays, whoever would change it.
#[test]
fn n1_what_is_being_created_keeps_its_names_until_its_file_is_known() {
    for name in ["d", "d/e"] {
        check(&format!(
            "
        A create d/e/f  granted 1
        B mv {name} g  waits
        C create d/e/h  waits (behind B)
        C W d/e/i  granted 2 (what is there is locked by its number)
        A created d/e/f  B granted 3; C granted 4
        "
        ));
    }
    check(
        "
        A create d/f   granted 1
        B unlink d/f   waits
        C mv d/f g     waits
        D mv h e       granted 2 (its names are others)
        A release      B granted 3; C granted 4
        ",
    );
}

/// A call that is under way waits for nobody: its own process may wait for it.
#[test]
fn n1_what_is_being_created_keeps_its_names_from_kin_too() {
    check(
        "
        A create d/f   granted 1
        A mv d e       waits
        A created d/f  granted 2
        ",
    );
    check(
        "
        A create d/f   granted 1
        K mv d e       waits
        K kin A
        A created d/f  K granted 2
        ",
    );
    check(
        "
        A create f     granted 1
        A unlink f     waits
        A created f    granted 2
        B create f     granted 3
        ",
    );
}

/// Who holds what a rename waits for is not held up by it.
#[test]
fn who_waits_for_a_hold_to_rename_a_directory_does_not_stop_what_is_created_under_the_hold() {
    check(
        "
        A hold W d/x   granted 1
        B mv d e       waits
        C create d/y   waits (behind B)
        A create d/z   granted 2
        K below A create d/k  granted 3
        ",
    );
}

#[test]
fn work_on_one_file_is_none_on_another() {
    check(
        "
        A W f          granted 1
        A W g          granted 2
        B patient R f  waits
        tick 29000
        A active       (on g)
        tick 1000      B ungated
        ",
    );
}

#[test]
fn kin_is_news_once_and_of_who_waits_for_who_holds() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        C W f          waits
        K rename f g   waits
        K kin C        no news (it holds nothing)
        K kin K        no news
        K kin A        (it waits for B)
        K kin A        no news
        tick 3000      (that A waits for K is no cycle: K does not wait for A)
        K kin B        granted 3
        A kin B        no news (it waits for nobody)
        ",
    );
}

#[test]
fn who_is_known_to_work_below_a_hold_does_not_wait_for_it() {
    check(
        "
        A hold W d/    granted 1
        B W d/f        waits
        K below A W d/f  granted 2
        L below B W d/f  waits (B holds nothing)
        ",
    );
}

#[test]
fn an_owner_asks_for_one_thing_at_a_time() {
    check(
        "
        A R f          granted 1
        B R f          granted 2
        A upgrade      waits
        A again        busy (it waits already)
        A upgrade      busy
        C W f          waits
        C again        waits
        C upgrade      waits (that is what it asked for)
        C withdraw     (it asked thrice)
        D R f          waits
        D again        waits
        D upgrade      busy (it would be another request)
        ",
    );
}

#[test]
fn handles_that_a_reader_may_pass_are_told_once() {
    check(
        "
        attentive
        A W f            granted 1
        B patient R f    waits; A contended
        C patient R f    waits
        A release        B granted 2; C granted 3
        ",
    );
    check(
        "
        attentive
        A W f            granted 1
        B W f            waits
        C R f            waits
        D W f            waits
        A release        B granted 2; B contended
        B release        C granted 3 (a reader is not passed)
        ",
    );
    check(
        "
        attentive
        A hold W f       granted 1
        B patient R f    waits (no reader passes a hold)
        ",
    );
}

#[test]
fn nobody_is_said_to_wait_for_its_own_process() {
    check(
        "
        A R f          granted 1
        B R f          granted 2
        A W f          waits
        look           A holds 0; B holds 0; A waits 0, place 1 behind B, for B
        ",
    );
    check(
        "
        A hold W f     granted 1
        K W f          waits
        K kin A        granted 2
        B W g          granted 3
        A hold W f g   waits (for B: its process has f, beside K)
        look           A holds 0; K holds 0; B holds 0; A waits 0, place 1 behind B, for B
        ",
    );
}

#[test]
fn everybody_sees_until_when_a_holder_has_what_it_has() {
    check(
        "
        A leashed lock W f  granted 1
        B R g          granted 2
        C R h          granted 3
        B recalled 5000  asked 5000
        tick 1000
        C broken       revoked
        look           A holds 1000, leased 9000; B holds 1000, asked 4000; C holds 1000, asked 10000
        ",
    );
}

#[test]
fn kin_that_waits_elsewhere_does_not_end_a_holder() {
    check(
        "
        A limited 4000 hold W d/  granted 1
        B W g          granted 2
        A rename d/f g  waits (for B alone)
        tick 100000
        B release      A granted 3
        ",
    );
}

#[test]
fn a_leader_that_is_gone_leaves_its_place_to_nobody_after_a_restart() {
    check(
        "
        B W f          granted 1
        K W f          waits
        A W g          granted 2
        K kin A        (it waits for B)
        B release      K granted 3
        A release
        restart
        K reclaim
        C W h          granted 1
        K W h          waits
        ",
    );
}

/// The journal has lost that it let one go, and let another in.
#[test]
fn what_a_client_no_longer_lists_is_not_in_the_way_of_what_it_lists() {
    check(
        "
        A apart hold W f g  granted 1
        synced
        A apart W f    waits
        A release g    granted 2
        restart lost
        A reclaim g    granted 2 (all but what had g)
        tick 10000
        B W f          waits
        ",
    );
}

#[test]
fn what_one_process_had_twice_it_takes_back_twice() {
    check(
        "
        A W f          granted 1
        A W f          granted 2
        restart lost
        A reclaim      granted 1; granted 2
        tick 10000
        B W f          waits
        A release all  B granted 1
        ",
    );
}

#[test]
fn an_upgrade_stays_one_when_names_move() {
    check(
        "
        A R d/f        granted 1
        B R d/f        granted 2
        A upgrade      waits
        C mv d e       granted 3
        B release      A granted 4 x2
        E hold W e/    waits (for A, whose file is there)
        D R d/f        waits (for A: it is the same file)
        A withdraw
        A release      E granted 5; D granted 6
        ",
    );
}

/// A works beneath e/d by now, where V waits.
#[test]
fn who_holds_something_where_its_party_waits_lets_it_in_when_names_move() {
    check(
        "
        Z hold W r     granted 1
        A W d/f        granted 2
        V hold W e/d/ r  waits
        A W e/d/g      waits
        K below Z mv d e/d  granted 3; A granted 4
        ",
    );
}
