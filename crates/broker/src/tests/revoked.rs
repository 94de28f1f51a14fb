//! Turns that are taken away: the next is let in once nothing is done any more in the former one.

use std::sync::{Arc, Mutex};

use gate_api::Quiet;
use gate_api::wire::{Fate, Happening, LineState, LogQuery, Scope, Stretch};
use gate_core::lock::event::Revocation;

use super::*;

/// What there is, by ticket.
fn board(client: &Client) -> Vec<&'static str> {
    let locks = client.session.locks(&Scope::Everything, None, SOON).unwrap();
    let state = |state: &LineState| match state {
        LineState::Held { recalled_until_ms: Some(_), .. } => "is to let go",
        LineState::Held { .. } => "holds",
        LineState::Waiting { .. } => "waits",
    };
    locks.lines.iter().map(|line| state(&line.state)).collect()
}

/// What became of a claim, in order.
fn fates(client: &Client, ticket: u64) -> Vec<String> {
    let (scope, stretch) = (Scope::Everything, Stretch::UpTo(None));
    let query = LogQuery { scope, stretch, limit: 512, patience: Duration::ZERO };
    let entries = client.session.log(query).unwrap().entries;
    let fate = |entry: Entry| match entry.record.what {
        Happening::Claim { became, claim } if claim.ticket == Some(ticket) => Some(match became {
            Fate::Granted { .. } => "granted".to_owned(),
            Fate::Revoked { reason, .. } => format!("revoked: {reason}"),
            other => format!("{other:?}"),
        }),
        _ => None,
    };
    entries.into_iter().filter_map(fate).collect()
}

/// N7
#[test]
fn n7_the_next_is_let_in_when_who_lost_its_turn_is_done() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let a = connect_as(&broker.address(), "a", source(), Quiet::Later);
    let b = connect(&broker.address(), "b");
    let held = a.hold("f");
    let ticket = held.is_granted().ticket.0;
    let waiting = b.hold("f");
    waiting.waits();
    b.session.break_lock(ticket, "it is stuck".to_owned()).unwrap();
    assert_eq!(a.hears(), Heard::Revoked(held.number, Revocation::Broken));
    assert_eq!(board(&b), ["is to let go", "waits"]);
    // Once more changes nothing, and is no mistake.
    b.session.break_lock(ticket, "it really is".to_owned()).unwrap();
    b.session.recall(ticket, "please".to_owned(), Duration::ZERO).unwrap();
    assert_eq!(board(&b), ["is to let go", "waits"]);
    assert!(!a.session.holds(held.number) && waiting.has_heard_nothing());
    a.session.release(held.number, None);
    waiting.is_granted();
    assert_eq!(fates(&b, ticket), ["granted", "revoked: it is stuck"]);
    assert!(a.heard.try_recv().is_err(), "it is told once");
}

/// N3: whoever took it away was told that it is done.
#[test]
fn n3_a_turn_that_was_taken_away_stays_so_over_a_crash() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let to = Wandering(Arc::new(Mutex::new(broker.address())));
    let a = connect_as(&to, "a", source(), Quiet::Later);
    let b = connect_to(&to, "b", source());
    let held = a.hold("f");
    let ticket = held.is_granted().ticket.0;
    let waiting = b.hold("f");
    waiting.waits();
    b.session.break_lock(ticket, "it is stuck".to_owned()).unwrap();
    assert_eq!(a.hears(), Heard::Revoked(held.number, Revocation::Broken));
    let copy = crash(broker, &state);
    assert_eq!([a.hears(), b.hears()], [Heard::Away, Heard::Away]);
    let broker = start(&copy);
    *to.0.lock().unwrap() = broker.address();
    assert_eq!([a.hears(), b.hears()], [Heard::Back, Heard::Back]);
    // Who is answered a question has said all that it has.
    assert_eq!(board(&a), ["is to let go", "waits"]);
    a.session.release(held.number, None);
    waiting.is_granted();
    assert_eq!(board(&b), ["holds"]);
    assert!(a.heard.try_recv().is_err(), "it is told once");
}
