//! The timelines of the rules, and more in the same form: who goes in, and in which order.

use super::script::check;

#[test]
fn first_come_first_granted() {
    check(
        "
        A W f          granted 1
        B R f          waits
        C W f          waits
        A release      B granted 2
        B release      C granted 3
        ",
    );
}

#[test]
fn a_removed_name_is_free_while_its_file_is_open() {
    check(
        "
        A R f          granted 1
        B unlink f     granted 2
        B create f     granted 3
        A release
        ",
    );
}

#[test]
fn what_a_process_already_has_costs_nothing() {
    check(
        "
        A W d/x        granted 1
        B hold W d/    waits
        C R d/y        waits (behind B)
        A W d/z        granted 2
        A release all  B granted 3
        B release      C granted 4
        ",
    );
}

#[test]
fn a_rename_waits_for_the_writer_of_the_file() {
    check(
        "
        A W f          granted 1
        B rename f g   waits
        A release      B granted 2
        ",
    );
}

#[test]
fn an_upgrade_keeps_its_place() {
    check(
        "
        A R f          granted 1
        B W f          waits
        A upgrade      granted 2 x2
        A release
        A release      B granted 3
        ",
    );
}

#[test]
fn of_two_upgraders_the_younger_is_refused() {
    check(
        "
        A R f          granted 1
        B R f          granted 2
        A upgrade      waits
        B upgrade      EDEADLK
        B release      A granted 3 x2
        ",
    );
    check(
        "
        A R f          granted 1
        B R f          granted 2
        B upgrade      waits
        A upgrade      waits; B EDEADLK
        B release      A granted 3 x2
        ",
    );
}

#[test]
fn a_directory_hold_waits_for_all_beneath_it() {
    check(
        "
        A hold W d/    granted 1
        B mv d e       waits
        C mkdir d/n    waits
        A release      B granted 2; C granted 3
        ",
    );
}

#[test]
fn kin_passes_and_serves_its_own_process_alone() {
    check(
        "
        A W f          granted 1
        K R f          waits
        B R f          waits
        K kin A        granted 2
        B kin K        (K was let in by kin: nobody rides on that)
        A release      B granted 3
        K release
        ",
    );
    check(
        "
        A W f          granted 1
        B W f          waits
        K W f          waits
        K kin A        granted 2
        A release
        K release      B granted 3
        ",
    );
}

#[test]
fn a_child_of_a_hold_works_below_it_and_excludes_its_siblings() {
    check(
        "
        A hold W d/    granted 1
        B W d/x        waits
        C W d/x        waits
        B kin A        granted 2
        C kin A
        B release      C granted 3
        ",
    );
}

#[test]
fn two_names_of_a_request_are_one_place_in_line() {
    check(
        "
        A W f          granted 1
        B rename e f   waits
        C W e          waits
        A release      B granted 2; C granted 3
        ",
    );
}

#[test]
fn readers_never_pass_a_queued_writer() {
    check(
        "
        A R f          granted 1
        B W f          waits
        C R f          waits
        D R f          waits
        A release      B granted 2
        B release      C granted 3; D granted 4
        ",
    );
}

#[test]
fn a_withdrawn_writer_lets_the_readers_behind_it_in() {
    check(
        "
        A R f          granted 1
        B W f          waits
        C R f          waits
        B withdraw     EINTR; C granted 2
        ",
    );
}

#[test]
fn a_hold_of_a_path_stops_opens_of_it_and_the_other_way_round() {
    check(
        "
        A hold W f     granted 1
        B R f          waits
        C R g          granted 2
        A release      B granted 3
        D hold W f     waits
        B release      D granted 4
        ",
    );
}

#[test]
fn a_lock_of_the_stateless_interface_blocks_opens_by_path() {
    check(
        "
        A lock W a/b   granted 1
        B R a/b        waits
        C W a/c        granted 2
        A release      B granted 3
        D lock W a/b   waits
        B release      D granted 4
        ",
    );
}

#[test]
fn opens_beneath_a_read_hold_may_read() {
    check(
        "
        A hold R d/    granted 1
        B R d/x        granted 2
        C W d/x        waits
        A release
        B release      C granted 3
        ",
    );
}

#[test]
fn a_moved_directory_takes_its_open_handles_along() {
    check(
        "
        A W d/x        granted 1
        B mv d e       granted 2
        B hold W d/    granted 3
        C hold W e/    waits
        A release      C granted 4
        ",
    );
}

#[test]
fn a_second_writer_of_a_moved_file_still_waits() {
    check(
        "
        A R f          granted 1
        B rename f g   granted 2
        C W g          waits
        A release      C granted 3
        ",
    );
}

#[test]
fn a_name_that_moves_under_a_hold_leaves_the_handle_its_file() {
    check(
        "
        A R f          granted 1
        B hold W g     granted 2
        K rename f g   waits
        K kin B        granted 3
        B release
        C W g          waits
        A release      C granted 4
        ",
    );
}

#[test]
fn a_create_holds_its_name_alone() {
    check(
        "
        A create f     granted 1
        B create f     waits
        C create g     granted 2
        A release      B granted 3
        ",
    );
}

#[test]
fn an_owner_counts_its_holds() {
    check(
        "
        A R f          granted 1
        A again        granted 1 x2
        B W f          waits
        A release
        A release      B granted 2
        ",
    );
}

#[test]
fn a_try_does_not_wait() {
    check(
        "
        A W f          granted 1
        B try R f      EAGAIN
        A release
        B try R f      granted 2
        ",
    );
}

#[test]
fn a_sure_cycle_is_refused_at_once() {
    check(
        "
        A hold W f     granted 1
        B hold W g     granted 2
        A W g          waits
        B W f          EDEADLK
        B release g    A granted 3
        ",
    );
}

/// The kernel tells of a close a little after it, and of what the same process opens next before.
#[test]
fn a_sure_cycle_of_open_files_is_refused_once_no_close_can_be_under_way() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        A W g          waits
        B W f          waits
        tick 49
        tick 1         B EDEADLK
        B release g    A granted 3
        ",
    );
    check(
        "
        A W f          granted 1
        B W g          granted 2
        A W g          waits
        B W f          waits
        tick 4
        A release f    B granted 3
        B release g    A granted 4
        tick 50
        ",
    );
}

#[test]
fn a_cycle_that_is_no_longer_sure_must_stand_as_long_as_any() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        C threads W h  granted 3
        A W g          waits
        B W f          waits
        tick 10
        C threads W f  waits
        B withdraw     EINTR
        B W h          waits
        tick 40
        tick 1959
        tick 1         B EDEADLK
        ",
    );
}

#[test]
fn a_cycle_through_several_threads_must_stand_first() {
    check(
        "
        A threads W f  granted 1
        B W g          granted 2
        A threads W g  waits
        B W f          waits
        tick 1999
        tick 1         B EDEADLK
        ",
    );
    check(
        "
        A threads W f  granted 1
        B W g          granted 2
        A threads W g  waits
        B W f          waits
        A release f    B granted 3
        tick 2000
        ",
    );
}

#[test]
fn three_in_a_ring_are_cut_at_the_youngest() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        C W h          granted 3
        A W g          waits
        B W h          waits
        C W f          waits
        tick 50        C EDEADLK
        ",
    );
}

#[test]
fn who_waits_for_a_child_that_waits_is_part_of_a_cycle() {
    check(
        "
        A W f          granted 1
        B W g          granted 2
        K W g          waits
        B W f          waits
        K kin A
        tick 50        B EDEADLK
        ",
    );
}

#[test]
fn two_readers_that_append_to_what_they_read_deadlock_and_one_is_told() {
    check(
        "
        A R f          granted 1
        B R f          granted 2
        A W f          waits
        B W f          waits
        tick 50        B EDEADLK
        B release      A granted 3
        ",
    );
}

#[test]
fn a_request_with_too_many_keys_is_refused_by_name() {
    // Its bytes, its name, and each directory above it with the root: 1024 in all.
    let deep = "d/".repeat(1_021);
    check(&format!("A R {deep}f  granted 1"));
    check(&format!("A R {deep}d/f  limit keys-per-request"));
}

/// Otherwise a child of a hold that reads a file and then writes it would wait behind a queued
/// hold that waits for the read it has just closed.
#[test]
fn whom_a_process_is_kin_of_its_later_claims_are_too() {
    check(
        "
        A hold W f     granted 1
        B hold W f     waits
        K R f          waits
        K kin A        granted 2
        K W f          granted 3
        K release all
        A release      B granted 4
        ",
    );
}

/// Its leader waits for it, and so would all who wait for the leader.
#[test]
fn whoever_waits_for_a_hold_does_not_stop_those_below_it_elsewhere() {
    check(
        "
        A hold W y     granted 1
        B hold W y z   waits
        K W z          waits
        K kin A        granted 2
        K release
        A release      B granted 3
        ",
    );
    check(
        "
        A W f          granted 1
        B hold W f g   waits
        A W g          granted 2
        C W g          waits (not kin: behind B)
        A release all  B granted 3
        B release      C granted 4
        ",
    );
}

/// A shell that opens a file again before its first close was told of leads its children all the
/// same.
#[test]
fn what_follows_from_a_grant_in_order_lets_kin_pass_too() {
    check(
        "
        A W f          granted 1
        A W f          granted 2
        K unlink f     waits
        A release f
        K kin A        granted 3
        ",
    );
}
