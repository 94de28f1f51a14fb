//! Looks at real processes.

use std::cell::Cell;
use std::io;
use std::process::{Child as Process, Command, Stdio};
use std::time::Instant;

use gate_api::wire::{Fate, Happening, Party, Pass, Scope};
use gate_api::{Ask, process};
use gate_core::id::{OwnerId, SessionId, Ticket};
use gate_core::lock::claim;
use gate_core::lock::event::Refusal;
use gate_core::lock::key::FileKey;
use gate_core::lock::want::{Access, Node, Op};

use super::look::{self, Child, End, Family, Sleep};
use super::{CASES_MAX, Case, Prober, Suspect, ToProber};
use crate::mail::{Inbox, Mail};
use crate::tests::{SOON, connect, start};

thread_local! {
    /// As yama may have it.
    static CALLS_ARE_HIDDEN: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn may_read_calls() -> io::Result<()> {
    if CALLS_ARE_HIDDEN.get() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}

/// Looks where the calls of others can be seen, and where only the kernel's functions can that they
/// sleep in.
fn both_ways(look: impl Fn()) {
    for are_hidden in [false, true] {
        CALLS_ARE_HIDDEN.set(are_hidden);
        look();
    }
}

/// A shell whose end is the end of all it started.
struct Shell(Process);

impl Shell {
    fn start(script: &str) -> Shell {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Shell(command.spawn().unwrap())
    }

    fn process(&self) -> claim::Process {
        process::of_pid(self.0.id()).unwrap()
    }

    /// Waits for the one child that the shell starts.
    fn child(&self) -> claim::Process {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        until("a child", || {
            let pids = std::fs::read_to_string(&children).unwrap();
            process::of_pid(pids.split_whitespace().next()?.parse().ok()?)
        })
    }

    fn sleep(&self) -> Sleep {
        until("sleep", || Sleep::of(self.0.id(), self.0.id()))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Children read the pipe from us, or write to one: its end is theirs.
        drop((self.0.stdin.take(), self.0.stdout.take()));
        self.0.wait().unwrap();
    }
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_shell_sleeps_for_its_child_and_for_what_is_below() {
    both_ways(|| {
        let shell = Shell::start("sh -c 'cat; :'; :");
        let child = shell.child();
        let grandchild = until("a grandchild", || {
            let pids = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.pid));
            process::of_pid(pids.ok()?.split_whitespace().next()?.parse().ok()?)
        });
        let sleep = shell.sleep();
        let other = Shell::start("exec cat");
        assert!(matches!(sleep, Sleep::Wait(_)), "{sleep:?}");
        assert!(sleep.is_for(child, shell.process()));
        assert!(sleep.is_for(grandchild, shell.process()));
        assert!(!sleep.is_for(other.process(), shell.process()), "a stranger is no child");
        // The grandchild reads a pipe of which the other end is ours.
        until("a chain of sleeps", || sleep.is_for(process::own(), shell.process()).then_some(()));
        assert!(Family::of(grandchild).is_below(shell.process()));
        assert!(!Family::of(shell.process()).is_below(grandchild));
        assert!(!Family::of(child).is_below(child), "nobody is below itself");
    });
}

#[test]
fn a_reader_sleeps_for_who_has_the_other_end() {
    both_ways(|| {
        let [cat, other] = [Shell::start("exec cat"), Shell::start("exec cat")];
        let sleep = until("a read", || match Sleep::of(cat.0.id(), cat.0.id()) {
            Some(sleep @ Sleep::Pipe { other_end: End::Writing, .. }) => Some(sleep),
            _ => None,
        });
        assert!(sleep.is_for(process::own(), cat.process()));
        assert!(!sleep.is_for(other.process(), cat.process()));
    });
}

#[test]
fn a_writer_sleeps_for_who_reads() {
    both_ways(|| {
        let [yes, other] = [Shell::start("exec yes"), Shell::start("exec cat")];
        let sleep = until("a write", || match Sleep::of(yes.0.id(), yes.0.id()) {
            Some(sleep @ Sleep::Pipe { other_end: End::Reading, .. }) => Some(sleep),
            _ => None,
        });
        assert!(sleep.is_for(process::own(), yes.process()));
        assert!(!sleep.is_for(other.process(), yes.process()));
    });
}

#[test]
fn a_wait_for_one_child_is_not_one_for_another() {
    let shell = Shell::start("cat; :");
    let child = shell.child();
    assert!(Sleep::Wait(Child::Pid(child.pid)).is_for(child, shell.process()));
    assert!(!Sleep::Wait(Child::Pid(child.pid + 1)).is_for(child, shell.process()));
    let group = process::Stat::read(child.pid).unwrap().group;
    assert!(Sleep::Wait(Child::Group(group)).is_for(child, shell.process()));
    assert!(!Sleep::Wait(Child::Group(group + 1)).is_for(child, shell.process()));
}

/// Who works in the background may be let go on by whoever does not.
#[test]
fn a_shell_with_a_second_child_does_not_wait_for_the_first_alone() {
    both_ways(|| {
        let shell = Shell::start("sh -c 'cat; :'; :");
        shell.sleep();
        let only =
            |shell: &Shell, child| look::only_waits_for(child, shell.process(), shell.0.id());
        until("a chain", || only(&shell, shell.child()).then_some(()));
        let shell = Shell::start("exec 3<&0; cat <&3 & cat; :");
        shell.sleep();
        let children = format!("/proc/{0}/task/{0}/children", shell.0.id());
        until("two children", || {
            let pids = std::fs::read_to_string(&children).unwrap();
            (pids.split_whitespace().count() == 2).then_some(())
        });
        assert!(!only(&shell, shell.child()));
        assert!(!only(&Shell::start("cat & exec yes"), shell.child()), "it does not wait");
    });
}

#[test]
fn a_thread_that_runs_sleeps_for_nobody() {
    both_ways(|| {
        let thread = rustix::thread::gettid().as_raw_pid().cast_unsigned();
        assert_eq!(Sleep::of(std::process::id(), thread), None);
    });
}

/// A thread of ours sleeps for a child, and we have others.
#[test]
fn a_thread_among_several_is_looked_at_again_when_it_has_slept_two_seconds() {
    both_ways(|| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (end, waiter) = (child.stdin.take(), process::of_pid(child.id()).unwrap());
        let (told, thread) = std::sync::mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            told.send(rustix::thread::gettid().as_raw_pid().cast_unsigned()).unwrap();
            child.wait().unwrap();
        });
        let (holder, thread) = (process::own(), thread.recv().unwrap());
        until("sleep", || Sleep::of(holder.pid, thread));
        let [holds, waits] = [1, 2].map(|number| OwnerId { session: SessionId::STATELESS, number });
        let suspects = vec![Suspect { owner: holds, process: holder, thread, is_hold: false }];
        let case = Case { ticket: Ticket(1), owner: waits, process: waiter, suspects };
        let poll = mio::Poll::new().unwrap();
        let (inbox, mail) = Inbox::new(poll.registry(), mio::Token(0)).unwrap();
        let mut prober = Prober::new(inbox, 1);
        // The prober's clock is what it is told; the broker answers at once.
        let begun = Instant::now();
        prober.take(case.clone(), begun);
        let mut looks = Vec::new();
        while !mail.try_iter().any(|mail| matches!(mail, Mail::Kin { .. })) {
            let now = prober.watched[&case.ticket].look_at;
            prober.ask(now);
            prober.take(case.clone(), now);
            looks.push((now - begun).as_millis());
        }
        assert_eq!(looks, [250, 500, 1_000, 2_000, 2_250]);
        drop(end);
        sleeper.join().unwrap();
    });
}

/// More wait than are watched, and for more than the one holder; the one that it sleeps for came
/// last, and some of the others have left.
#[test]
fn who_came_when_all_places_were_taken_is_looked_at_in_its_turn() {
    let shell = Shell::start("cat; :");
    let (holder, child) = (shell.process(), shell.child());
    shell.sleep();
    let stranger = Shell::start("exec cat");
    let owner = |number| OwnerId { session: SessionId::STATELESS, number };
    let suspects = vec![Suspect { owner: owner(99), process: holder, thread: 0, is_hold: false }];
    let case = |number: u64| {
        let process = if number == 9 { child } else { stranger.process() };
        let suspects = suspects.clone();
        Case { ticket: Ticket(number), owner: owner(number), process, suspects }
    };
    let poll = mio::Poll::new().unwrap();
    let (inbox, mail) = Inbox::new(poll.registry(), mio::Token(0)).unwrap();
    let mut prober = Prober::new(inbox, 2);
    let begun = Instant::now();
    (1..=9).for_each(|number| prober.take(case(number), begun));
    for _ in 0..100 {
        let now = prober.ask_at(begun).expect("somebody is watched");
        prober.ask(now);
        for mail in mail.try_iter() {
            match mail {
                Mail::Kin { waiter, .. } => return assert_eq!(waiter, owner(9)),
                Mail::Probe(tickets) => {
                    for Ticket(number) in tickets {
                        let left = (4..9).contains(&number);
                        let said = if left {
                            ToProber::NoCase(Ticket(number))
                        } else {
                            ToProber::Case(case(number))
                        };
                        prober.hear(said, now);
                        assert!(
                            prober.watched.len() <= 2,
                            "more are watched than there are places"
                        );
                    }
                }
                _ => unreachable!("the prober asks and tells of kin"),
            }
        }
    }
    panic!("nobody looked at the last");
}

/// More than there are places waited, hold now, and would be looked at for as long as they do.
#[test]
fn who_was_let_in_takes_no_place_of_those_who_wait() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let client = connect(&broker.address(), "view");
    let first = client.hold("f");
    first.is_granted();
    let stranger = Shell::start("exec cat");
    let read = || by(stranger.process(), client.ask(Op::Open(Access::Read), "f"));
    let readers: Vec<_> = (0..CASES_MAX).map(|_| client.acquire(read())).collect();
    readers.iter().for_each(crate::tests::Owner::waits);
    client.session.release(first.number, None);
    for reader in &readers {
        reader.is_granted();
    }
    let shell = Shell::start("cat; :");
    let write = |process| {
        let mut ask = by(process, client.ask(Op::Open(Access::Write), "g"));
        ask.want.places[0].node = Node::File(FileKey { volume: 1, inode: 2, generation: 3 });
        ask
    };
    client.acquire(write(shell.process())).is_granted();
    let child = client.acquire(write(shell.child()));
    child.waits();
    assert!(child.is_granted().by_kin);
}

#[test]
fn a_holder_does_not_block_the_child_it_waits_for() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let client = connect(&broker.address(), "view");
    let shell = Shell::start("cat; :");
    let as_process = |process| {
        let mut ask = by(process, client.ask(Op::Open(Access::Write), "f"));
        ask.want.places[0].node = Node::File(FileKey { volume: 1, inode: 2, generation: 3 });
        ask
    };
    client.acquire(as_process(shell.process())).is_granted();
    let other = Shell::start("exec cat");
    let stranger = client.acquire(as_process(other.process()));
    stranger.waits();
    let child = client.acquire(as_process(shell.child()));
    child.waits();
    assert!(child.is_granted().by_kin);
    assert!(stranger.has_heard_nothing(), "who is no kin waits on");
    client.session.withdraw(stranger.number, Refusal::Interrupted);
    let space = client.attachment.name.clone();
    let path = gate_core::path::ViewPath::parse(b"f").unwrap();
    let why = client.session.why(Scope::Within { space, path }).unwrap();
    let Happening::Claim { became, .. } = &why.past[0].record.what else { panic!("{why:?}") };
    assert!(matches!(became, Fate::Granted { pass: Pass::AwaitedByHolder, .. }), "{became:?}");
}

#[test]
fn all_below_a_hold_are_its_kin() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let client = connect(&broker.address(), "hold");
    // Not asleep for its child: the hold alone makes it kin.
    let shell = Shell::start("cat & exec yes");
    let hold = by(shell.process(), client.ask(Op::Hold(Access::Write), "f"));
    client.acquire(hold).is_granted();
    let mut open = by(shell.child(), client.ask(Op::Open(Access::Write), "f"));
    // Also where each handle is a party of its own.
    open.party = Party::Owner;
    assert!(client.acquire(open).is_granted().by_kin, "without a wait");
}

fn by(process: claim::Process, ask: Ask) -> Ask {
    let caller = claim::Caller { process, thread: 0, single_threaded: false };
    Ask { party: Party::Process(process), caller: Some(caller), ..ask }
}
