//! Timelines of waits that go round: whether they are a cycle, since when, and who is refused.

use super::script::check;

#[test]
fn what_a_process_has_is_no_reason_to_see_a_cycle() {
    check(
        "
        A W d/z        granted 1
        B W d/x        granted 2
        C hold W d/    waits (for A and B)
        B W d/z        waits (for A alone: what it has beneath d, C waits for)
        tick 3000
        A release      B granted 3
        ",
    );
}

#[test]
fn a_cycle_stands_since_it_was_first_seen_whoever_is_in_it() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        C threads W h  granted 3
        A W g          waits
        B W f          waits (a cycle, for 50 ms)
        tick 10
        A withdraw     EINTR
        C threads W g  waits
        A W h          waits (another one, for 2 s)
        tick 40
        tick 1949
        tick 1         A EDEADLK
        ",
    );
}

#[test]
fn a_cycle_that_leads_through_a_line_twice_is_found() {
    check(
        "
        A hold W s     granted 1
        B W q          granted 2
        C hold W q m   waits
        D hold W q s   waits
        E hold W q n   waits
        A hold W m n   EDEADLK (behind C, whom nobody in line stops, and E, who waits for D)
        ",
    );
}

/// What a hold leads works for somebody who may let go of it before that has ended.
#[test]
fn a_cycle_through_who_works_below_a_hold_must_stand_first() {
    check(
        "
        A hold W f     granted 1
        B hold W g     granted 2
        K below A W g  waits
        B W f          waits
        tick 1999
        tick 1         B EDEADLK
        ",
    );
}

/// Each waits for its command, which waits for the other.
#[test]
fn a_cycle_through_two_holds_is_found_when_it_is_known_that_they_wait() {
    check(
        "
        A hold W f     granted 1
        B hold W g     granted 2
        K W g          waits
        L W f          waits
        tick 3000
        K kin A
        tick 3000      (nobody knows that B waits for L)
        L kin B
        tick 1999
        tick 1         L EDEADLK
        B release      K granted 3
        ",
    );
}

#[test]
fn a_process_with_several_threads_may_end_what_its_kin_waits_for() {
    check(
        "
        A threads W f  granted 1
        B W g          granted 2
        K W g          waits
        B W f          waits
        K kin A
        tick 1999
        tick 1         B EDEADLK
        ",
    );
}

#[test]
fn who_waits_for_kin_that_waits_is_part_of_no_cycle() {
    check(
        "
        A W f          granted 1
        B hold W g     granted 2
        K W f g        waits
        K kin A        (it waits for B)
        A W h          granted 3
        tick 3000
        B release      K granted 4
        ",
    );
}

/// S waits for H's file under another name by now, before X, for whom H waits.
#[test]
fn a_cycle_that_a_move_of_names_closes_is_found() {
    check(
        "
        B hold W e/    granted 1
        H W d/f        granted 2
        S W d/f        waits
        X hold W e/ q  waits
        H W q          waits (behind X)
        K below B mv d e/d  granted 3
        tick 49
        tick 1         H EDEADLK
        ",
    );
}

/// H has its file beneath e by now, for which X waits.
#[test]
fn a_cycle_that_a_move_of_what_is_held_closes_is_found() {
    check(
        "
        Z hold W r     granted 1
        H W d/f        granted 2
        X W q          granted 3
        X hold W e/ r  waits
        H W q          waits
        K below Z mv d e/d  granted 4
        tick 49
        tick 1         H EDEADLK
        ",
    );
}

/// A passed V by the right of H, which is gone.
#[test]
fn a_cycle_that_the_end_of_a_holder_closes_is_found() {
    for end in ["release", "broken    revoked"] {
        check(&format!(
            "
            H hold W a     granted 1
            Y W y          granted 2
            Z W z          granted 3
            V hold W a y   waits
            A below H hold W a z  waits (for Z alone)
            Y W z          waits (behind A)
            H {end}
            tick 49
            tick 1         Y EDEADLK
            "
        ));
    }
}

/// X waits for H by now, which sleeps for K.
#[test]
fn a_cycle_that_an_upgrade_closes_when_it_is_granted_is_found() {
    check(
        "
        Z R f          granted 1
        Y W a          granted 2
        H R f          granted 3
        X W g          granted 4
        K W g          waits
        K kin H        (it waits for X)
        H upgrade      waits
        X hold R a f   waits
        Z release      H granted 5 x2
        tick 49
        tick 1         X EDEADLK
        ",
    );
}

#[test]
fn of_several_cycles_through_one_waiter_each_is_cut() {
    check(
        "
        A R f g        granted 1
        B R f          granted 2
        C R g          granted 3
        B upgrade      waits
        C upgrade      waits
        A upgrade      waits; B EDEADLK; C EDEADLK
        B release
        C release      A granted 4 x2
        ",
    );
}
