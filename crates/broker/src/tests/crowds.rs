//! Many at once: what is done in steps is done whole.

use gate_core::lock::want::{Access, Op};

use super::{Client, Owner, connect, start};

fn holds(client: &Client, op: Op, dir: &str, count: usize) -> Vec<Owner> {
    (0..count).map(|number| client.acquire(client.ask(op, &format!("{dir}/{number}")))).collect()
}

fn all_are_granted(owners: &[Owner]) {
    for owner in owners {
        owner.is_granted();
    }
}

#[test]
fn clients_that_have_much_leave_nothing_behind() {
    const EACH: usize = 80;
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let crowd: Vec<Client> = (0..20).map(|_| connect(&broker.address(), "crowd")).collect();
    for (number, client) in crowd.iter().enumerate() {
        let owners = holds(client, Op::Hold(Access::Write), &format!("d{number}"), EACH);
        all_are_granted(&owners);
    }
    let other = connect(&broker.address(), "other");
    let waiting: Vec<Vec<Owner>> = (0..crowd.len())
        .map(|number| holds(&other, Op::Hold(Access::Write), &format!("d{number}"), EACH))
        .collect();
    waiting.iter().flatten().for_each(Owner::waits);
    drop(crowd);
    waiting.iter().for_each(|owners| all_are_granted(owners));
    let status = other.session.status().unwrap();
    assert_eq!(status.held, u64::try_from(EACH * waiting.len()).unwrap());
    assert_eq!((status.waiting, status.sessions), (0, 1));
}

#[test]
fn a_thousand_readers_are_let_in_by_one_release() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let [writer, reader] = ["writer", "reader"].map(|name| connect(&broker.address(), name));
    let written = writer.hold("d");
    written.is_granted();
    let readers: Vec<Owner> =
        (0..1_000).map(|_| reader.acquire(reader.ask(Op::Hold(Access::Read), "d"))).collect();
    readers.iter().for_each(Owner::waits);
    writer.session.release(written.number, None);
    all_are_granted(&readers);
}
