//! The client for Python takes turns with views, with commands and with itself.

use std::io::Write;
use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::sync::OnceLock;
use std::time::Duration;

use gate_tests::World;
use gate_tests::run::{Run, Running};
use gate_tests::wait::{SOON, wait_until};
use rustix::process::Signal;

/// What every script begins with: a client, and words to and from the test.
const PRELUDE: &str = "\
import gate_client, sys
from gate_client import Client
def say(*words): print(*words, flush=True)
def hear(): return input()
client = Client.connect(name='py')
print('ready', file=sys.stderr, flush=True)
";

/// An interpreter takes its time to start where all cores are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A Python process that does as its script says.
struct Python {
    running: Running,
    input: ChildStdin,
}

impl Python {
    #[track_caller]
    fn start(world: &World, script: &str) -> Python {
        let script = format!("{PRELUDE}{script}");
        let mut running = command(world).args(["-c", &script]).dir(world.view()).start_with_input();
        let input = running.stdin();
        let python = Python { running, input };
        python.await_said("ready");
        python
    }

    #[track_caller]
    fn await_said(&self, text: &str) {
        wait_until(PATIENCE, text, || {
            let said = self.running.so_far();
            assert!(
                !said.contains("Traceback") && (self.running.is_running() || said.contains(text)),
                "{said}"
            );
            said.contains(text)
        });
    }

    fn go_on(&mut self) {
        writeln!(self.input).unwrap();
    }

    #[track_caller]
    fn finish(self) -> String {
        drop(self.input);
        self.running.finish(PATIENCE).success()
    }
}

/// Prepares the interpreter; a wrapper that would choose one may not find it from a home of the
/// world's own.
pub fn command(world: &World) -> Run {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let asked =
            Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        String::from_utf8(asked.unwrap().stdout).unwrap().trim().into()
    });
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/python/src");
    world.command(program).env("PYTHONPATH", sources).env("PYTHONDONTWRITEBYTECODE", "1")
}

#[test]
fn a_hold_of_python_stops_an_open_in_the_view_and_an_open_stops_it() {
    let world = World::new();
    world.seed("d/f", "");
    world.seed("g", "");
    let script = "
with client.hold('d/', 'g', reason='work') as hold:
    say('held', hold.token, hold.ticket)
    open('d/f', 'w').write('mine')
    hear()
say('let go')
hear()
with client.hold('d/f'):
    say('again')
";
    let mut python = Python::start(&world, script);
    python.await_said("held ");
    let mut actor = world.actor(&world.view());
    actor.tell(["open", "r", "d/f"]);
    world.await_waiting("d/f", 1);
    python.go_on();
    python.await_said("let go");
    let fd = actor.opened();
    assert_eq!(world.source_text("d/f"), "mine");
    python.go_on();
    wait_until(SOON, "the hold waits", || world.board().waiting("d/f").count() == 1);
    actor.close(fd);
    python.await_said("again");
    python.finish();
}

#[test]
fn python_is_told_why_it_is_not_let_in() {
    let world = World::new();
    world.seed("f", "");
    let mut actor = world.actor(&world.view());
    let fd = actor.open("rw", "f");
    let script = "
for timeout, error in (0, gate_client.WouldBlock), (0.2, gate_client.TimedOut):
    try:
        client.hold('f', timeout=timeout)
    except error:
        say(error.__name__)
try:
    client.hold('/proc/self/status')
except gate_client.NotGated:
    say('NotGated')
with client.hold('f', write=False, timeout=20):
    say('readers share')
    try:
        client.hold('.')
    except gate_client.AlreadyHeld:
        say('AlreadyHeld')
looks = [client._look, None]
client._look = lambda paths: looks.pop(0)(paths)
try:
    client.hold('f')
except TypeError:
    say('nothing is held after', len(client.locks().lines))
";
    let python = Python::start(&world, script);
    python.await_said("NotGated");
    actor.close(fd);
    let said = python.finish();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "WouldBlock",
            "TimedOut",
            "NotGated",
            "readers share",
            "AlreadyHeld",
            "nothing is held after 0"
        ]
    );
}

#[test]
fn python_refuses_what_makes_no_sense_and_says_why_no_broker_answers() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::new();
    world.seed("f", "");
    let script = "
import math, os
for path, timeout in ('', None), ('f', math.nan):
    try:
        client.hold(path, timeout=timeout)
    except ValueError as error:
        say(error)
with client.hold('f', timeout=math.inf) as hold:
    say('held', hold.token is not None)
for user in 5, 0:
    os.seteuid(user)
    try:
        gate_client.Client.connect(state_dir=os.environ['GATE_STATE_DIR'] + ('' if user else '/x'))
    except gate_client.NoBroker as error:
        say(str(error).split(': ')[-1])
";
    let said = Python::start(&world, script).finish();
    let expected = [
        "a path is empty",
        "a timeout is a number of seconds",
        "held True",
        "Permission denied",
        "nobody listens",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

/// What is held is the file that has the name when the turn comes.
#[test]
fn python_holds_the_file_that_replaced_the_one_it_waited_for() {
    let world = World::new();
    world.seed("f", "old");
    world.seed("tmp", "new");
    let mut actor = world.actor(&world.view());
    let fd = actor.open("rw", "f");
    let script = "
import os
with client.hold('f') as hold:
    (place,) = hold._owner.acquire.want.places
    assert place.node.key.inode == os.stat('f').st_ino
    say('holds', open('f').read())
";
    let python = Python::start(&world, script);
    world.await_waiting("f", 1);
    actor.ask(["rename", "tmp", "f"]).unwrap();
    actor.close(fd);
    python.await_said("holds new");
    python.finish();
}

/// N5: what a dead client held or waited for is free at once.
#[test]
fn a_killed_python_holds_up_nobody() {
    let world = World::new();
    world.seed("f", "");
    let holder = Python::start(&world, "hold = client.hold('f'); say('held'); hear()");
    holder.await_said("held");
    let waiter = Python::start(&world, "client.hold('f')");
    world.await_waiting("f", 1);
    let mut actor = world.actor(&world.view());
    actor.tell(["open", "w", "f"]);
    world.await_waiting("f", 2);
    for python in [&waiter, &holder] {
        python.running.signal(Signal::KILL);
    }
    let fd = actor.opened();
    actor.close(fd);
}

/// N4: a hold and a place in line outlive the broker, and tokens still rise.
#[test]
fn n4_holds_of_python_outlive_a_killed_broker() {
    let mut world = World::new();
    world.seed("f", "");
    let mut holder = Python::start(
        &world,
        "
with client.hold('f') as hold:
    say('held')
    hear()
    hold.check()
    client.status()
    say('still', hold.token.epoch, hold.token.counter)
    hear()
",
    );
    holder.await_said("held");
    let waiter = Python::start(
        &world,
        "
with client.hold('f', timeout=60) as hold:
    say('let in', hold.token.epoch, hold.token.counter)
",
    );
    world.await_waiting("f", 1);
    let before = world.board();
    world.kill_broker();
    world.start_broker([""; 0]);
    wait_until(SOON, "both are back", || {
        let now = world.board();
        now.held("f").count() == 1 && now.waiting("f").count() == 1
    });
    let token = |board: &gate_tests::locks::Board| board.held("f").next().unwrap().token.clone();
    assert!(world.board().epoch > before.epoch);
    assert_eq!(token(&world.board()), token(&before));
    holder.go_on();
    holder.await_said("still");
    holder.go_on();
    let numbers = |said: String| -> Vec<u64> {
        said.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let (first, second) = (numbers(holder.finish()), numbers(waiter.finish()));
    assert!(second > first, "N4: {second:?} after {first:?}");
}

#[test]
fn python_is_asked_to_let_go_and_learns_why_it_lost_its_hold() {
    let world = World::new();
    world.seed("f", "");
    let script = "
def asked(recall): say('asked:', recall.reason, round(recall.within.seconds))
def lost(why): say('lost:', why)
try:
    with client.hold('f', on_recall=asked, on_lost=lost) as hold:
        say('held')
        hold.lost.wait(30)
        say('why:', type(hold.why).__name__)
except gate_client.Broken as broken:
    say('reason:', broken.reason)
say('waits')
try:
    client.hold('f')
except gate_client.Broken:
    say('sent away')
";
    let python = Python::start(&world, script);
    python.await_said("held");
    let path = world.view().join("f");
    let recall = ["recall".as_ref(), path.as_os_str()];
    world.gate(recall).args(["--reason", "lunch", "--within", "1h"]).run().success();
    python.await_said("asked: lunch 3600");
    let mut actor = world.actor(&world.view());
    actor.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    let other = Python::start(
        &world,
        "
ticket = next(line.ticket for line in client.locks('f').lines if line.client == 'py')
try:
    client.break_lock(ticket, ' ')
    raise SystemExit('broken without a reason')
except ValueError:
    client.break_lock(ticket, 'now')
",
    );
    other.finish();
    python.await_said("lost: somebody broke it: now");
    python.await_said("why: Broken");
    python.await_said("reason: now");
    let fd = actor.opened();
    world.await_waiting("f", 1);
    let ticket = world.board().waiting("f").next().unwrap().ticket.to_string();
    world.gate(["break", &ticket, "--reason", "no"]).run().success();
    python.await_said("sent away");
    actor.close(fd);
    python.finish();
}

#[test]
fn python_that_would_wait_for_itself_through_others_is_told() {
    let world = World::new();
    world.seed("a", "");
    world.seed("b", "");
    let script = |first: &str, second: &str| {
        format!(
            "
with client.hold('{first}'):
    say('first')
    hear()
    try:
        with client.hold('{second}'):
            say('both')
    except gate_client.Deadlock:
        say('deadlock')
"
        )
    };
    let mut pair =
        [Python::start(&world, &script("a", "b")), Python::start(&world, &script("b", "a"))];
    for python in &pair {
        python.await_said("first");
    }
    for python in &mut pair {
        python.go_on();
    }
    let mut ends = pair.map(|python| python.finish());
    ends.sort_unstable();
    assert_eq!(ends, ["first\nboth\n", "first\ndeadlock\n"]);
}

#[test]
fn an_interrupted_wait_of_python_leaves_no_place_in_line() {
    let world = World::new();
    world.seed("f", "");
    let mut actor = world.actor(&world.view());
    let fd = actor.open("rw", "f");
    let script = "
try:
    client.hold('f')
except KeyboardInterrupt:
    say('interrupted')
hear()
";
    let mut python = Python::start(&world, script);
    world.await_waiting("f", 1);
    python.running.signal(Signal::INT);
    python.await_said("interrupted");
    world.await_waiting("f", 0);
    actor.close(fd);
    world.await_idle();
    python.go_on();
    python.finish();
}

/// What the broker does not answer for within a lease counts as lost.
#[test]
fn python_that_hears_nothing_for_a_lease_holds_nothing() {
    let world = World::new();
    world.seed("f", "");
    let script = "
client = Client.connect(name='brief', lease=0.5)
try:
    with client.hold('f') as hold:
        say('held')
        hold.lost.wait(30)
        hold.check()
except gate_client.LeaseLost:
    say('lease lost')
try:
    client.hold('f', timeout=30)
except gate_client.BrokerGone:
    say('broker gone')
hear()
with client.hold('f', timeout=30):
    say('back')
";
    let mut python = Python::start(&world, script);
    python.await_said("held");
    let broker = rustix::process::Pid::from_raw(world.broker_pid()).unwrap();
    rustix::process::kill_process(broker, Signal::STOP).unwrap();
    python.await_said("broker gone");
    rustix::process::kill_process(broker, Signal::CONT).unwrap();
    let mut actor = world.actor(&world.view());
    let fd = actor.open("w", "f");
    actor.close(fd);
    python.go_on();
    let said = python.finish();
    assert!(said.ends_with("lease lost\nbroker gone\nback\n"), "{said}");
}

/// A process that was stopped for longer than its lease asks before it believes; what nobody
/// wanted meanwhile is still its own, the rest is lost.
#[test]
fn a_stopped_python_does_not_believe_to_hold_what_others_have() {
    let world = World::new();
    world.seed("kept", "");
    world.seed("wanted", "");
    let script = "
one, two = Client.connect(lease=0.5), Client.connect(lease=0.5)
kept, wanted = one.hold('kept'), two.hold('wanted')
say('held')
hear()
kept.check()
say('kept')
try:
    wanted.check()
except gate_client.LeaseLost:
    say('lost')
";
    let mut python = Python::start(&world, script);
    python.await_said("held");
    python.running.stop();
    let mut actor = world.actor(&world.view());
    let fd = actor.open("w", "wanted");
    python.running.signal(Signal::CONT);
    python.go_on();
    assert_eq!(python.finish(), "held\nkept\nlost\n");
    actor.close(fd);
}

/// What is behind a view is taken as in it; whoever looks sees the same as `gate locks`.
#[test]
fn python_holds_by_the_bare_path_and_looks_around() {
    let world = World::new();
    world.seed("d/f", "");
    std::fs::hard_link(world.source().join("d/f"), world.source().join("other")).unwrap();
    let source = world.source();
    // The view knows the file by its other name: what is held is the file, not just its path.
    let mut actor = world.actor(&world.view());
    actor.ask(["stat", "other"]).unwrap();
    let script = format!(
        "
import pathlib
bare = pathlib.Path('{}') / 'd/f'
changes = client.watch(bare.parent)
assert next(changes).lines == ()
hold = client.hold(bare, b'g', reason='bare')
(line,) = next(changes).lines
assert line.ticket == hold.ticket and line.reason == 'bare' and line.state.token == hold.token
assert [place.path for place in line.places] == ['d/f', 'g'], line
(same,) = client.why(bare).lines
assert same.ticket == hold.ticket
assert client.status().held == 1
say('held')
hear()
hold.release()
next(now for now in changes if all(line.client != 'py' for line in now.lines))
client.close()
",
        source.display()
    );
    let mut python = Python::start(&world, &script);
    python.await_said("held");
    actor.tell(["open", "w", "other"]);
    world.await_waiting("other", 1);
    python.go_on();
    let fd = actor.opened();
    actor.close(fd);
    python.finish();
}

/// What happened is told in order, without gap or repeat, over a restart of the broker.
#[test]
fn python_follows_log_and_locks_over_a_restart() {
    let mut world = World::new();
    world.seed("f", "");
    let script = "
from gate_client.log import Claim, Granted, Released, Started
def follow():
    for page in client.follow(after=client.log().end):
        assert not page.gap, page
        yield from page.entries
told = follow()
changes = client.watch('f')
assert next(changes).lines == ()
def next_of(fate):
    return next(e for e in told if isinstance(e.record.what, Claim)
        and isinstance(e.record.what.became, fate) and e.record.what.claim.client == 'other')
say('follows')
first = next_of(Granted)
assert first.record.what.claim.places[0].path == 'f', first
last = next_of(Released)
say('saw both')
started = next(e for e in told if isinstance(e.record.what, Started))
assert first.cursor < last.cursor < started.cursor
again = next_of(Granted)
assert again.record.what.became.token > first.record.what.became.token
say('saw', again.record.what.claim.reason)
with client.hold('f') as hold:
    now = next(now for now in changes if any(line.client == 'py' for line in now.lines))
    assert [line.ticket for line in now.lines] == [hold.ticket], now
";
    let hold = |world: &World, reason: &str| {
        let client = "Client.connect(name='other')";
        let script = format!("with {client} as other: other.hold('f', reason='{reason}')");
        Python::start(world, &script).finish();
    };
    let python = Python::start(&world, script);
    python.await_said("follows");
    hold(&world, "before");
    python.await_said("saw both");
    world.kill_broker();
    world.start_broker([""; 0]);
    hold(&world, "after");
    python.await_said("saw after");
    python.finish();
}

/// A hold is the process's: what runs below it works under it, and a fork does not end it.
#[test]
fn what_runs_below_python_works_under_its_hold() {
    let world = World::new();
    world.seed("d/f", "");
    let script = "
import os, subprocess
with client.hold('d'):
    subprocess.run(['sh', '-c', 'echo child > d/f'], check=True, timeout=30)
    child = os.fork()
    if child == 0:
        client.close()
        os._exit(0)
    os.waitpid(child, 0)
    say('held')
    hear()
";
    let mut python = Python::start(&world, script);
    python.await_said("held");
    assert_eq!(world.source_text("d/f"), "child\n");
    assert_eq!(world.board().held("d").count(), 1);
    python.go_on();
    python.finish();
}
