//! Lost updates: an agent overwrites what another wrote and it has not seen.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;

use super::owners::agent;

/// How programs overwrite a file: each leaves "ada's" in it.
const WAYS: [&str; 3] = ["open", "rename", "truncate"];

#[test]
fn what_an_agent_overwrites_unseen_is_kept_and_comes_back() {
    for way in WAYS {
        let world = World::new();
        let (mut ada, _bob) = ada_is_behind(&world);
        overwrite(&mut ada, way).unwrap();
        assert_eq!(world.source_text("f"), "ada's", "{way}");
        let versions = list(&world, "f");
        assert_eq!(versions.len(), 1, "{way}: {versions:?}");
        let [id, agent, op] = ["id", "agent", "op"].map(|field| &versions[0][field]);
        assert_eq!((agent, op), (&"ada".into(), &way.into()), "{versions:?}");
        let why = world.gate(["why", "view/f"]).run().success();
        assert!(why.contains(&format!("kept as version {id}")), "{why}");
        let why = world.gate(["why", "--json", "view/f"]).run().success();
        let why: serde_json::Value = serde_json::from_str(&why).unwrap();
        assert_eq!(why["overwritten"], serde_json::json!(versions), "{way}");
        let told = world.gate(["restore", "view/f"]).run().success();
        assert!(told.contains(&format!("version {id}")), "{told}");
        assert_eq!(world.source_text("f"), "bob's", "{way}");
        world.gate(["restore", "view/f", "--version", "2"]).run().success();
        assert_eq!(world.source_text("f"), "ada's", "{way}: what was replaced is kept as well");
    }
}

#[test]
fn with_refuse_nothing_is_changed_until_the_agent_has_read_what_is_there() {
    for way in WAYS {
        let world = World::with_view(["--guard", "refuse"]);
        let (mut ada, _bob) = ada_is_behind(&world);
        let before = fs::metadata(world.source().join("f")).unwrap();
        for _ in 0..2 {
            assert_eq!(overwrite(&mut ada, way), Err(Errno::BUSY), "{way}");
        }
        let after = fs::metadata(world.source().join("f")).unwrap();
        assert_eq!(world.source_text("f"), "bob's", "{way}");
        let of =
            |file: &fs::Metadata| (file.ino(), file.mtime(), file.mtime_nsec(), file.ctime_nsec());
        assert_eq!(of(&before), of(&after), "{way}");
        wait_until(SOON, "that is on record, once", || list(&world, "f").len() == 1);
        let why = world.gate(["why", "view/f"]).run().success();
        assert!(why.contains("refused (EBUSY)") && why.contains("let it read"), "{why}");
        read(&mut ada, "f");
        overwrite(&mut ada, way).unwrap();
        assert_eq!(world.source_text("f"), "ada's", "{way}");
        assert_eq!(list(&world, "f").len(), 1, "{way}: it had seen it then");
    }
}

#[test]
fn with_allow_nothing_is_kept() {
    let world = World::with_view(["--guard", "allow"]);
    let (mut ada, _bob) = ada_is_behind(&world);
    for way in WAYS {
        overwrite(&mut ada, way).unwrap();
    }
    assert!(list(&world, "f").is_empty());
}

#[test]
fn the_guard_leaves_appends_git_ungated_names_and_ordinary_processes_alone() {
    let world = World::with_view(["--guard", "refuse"]);
    for name in ["f", "f.log", ".git/f", "sub/.git/deep/f"] {
        world.seed(name, "text");
    }
    let mut ada = agent(&world, "ada");
    for name in ["f.log", ".git/f", "sub/.git/deep/f"] {
        ada.open("w0", name);
        ada.ask(["truncate", name, "0"]).unwrap();
    }
    let fd = ada.open("wa0", "f");
    ada.close(fd);
    world.seed("f", "text");
    let mut ordinary = world.actor(&world.view());
    let fd = ordinary.open("w0", "f");
    ordinary.close(fd);
    assert!(list(&world, ".").is_empty());
}

/// An agent knows what it wrote, whatever it does with names, modes and times.
#[test]
fn what_an_agent_wrote_itself_is_not_kept() {
    let world = World::with_view(["--guard", "refuse"]);
    let mut ada = agent(&world, "ada");
    let script = "\
        echo 1 > f; echo 2 > f; chmod +x f; echo 3 > f; touch -d 2001-01-01 f; echo 4 > f; \
        cp -p f copy; echo 5 > copy; mv copy f; echo 6 > f; ln f g; echo 7 > g; rm g; echo 8 > f; \
        echo 9 >> f; echo 10 > f; sed -i s/10/11/ f; truncate -s 1 f; echo 12 > f; cat f";
    assert_eq!(ada.ask(["capture", "bash", "-euc", script]), Ok("12\\n".to_owned()));
    ada.ask(["touch", "f"]).unwrap(); // By path: touch(1) opens the file.
    ada.open("w0", "f");
    assert!(list(&world, ".").is_empty());
}

/// What was appended blindly to another's work does not make that known.
#[test]
fn who_only_appended_has_not_seen_the_rest() {
    let world = World::new();
    let (mut ada, _bob) = ada_is_behind(&world);
    let fd = ada.open("wa", "f");
    ada.write(fd, " and more").unwrap();
    ada.close(fd);
    overwrite(&mut ada, "open").unwrap();
    let kept = world.gate(["restore", "view/f", "--to", "-"]).run().success();
    assert_eq!(kept, "bob's and more");
}

#[test]
fn the_processes_of_one_run_are_one_agent_and_two_runs_of_a_name_are_two() {
    let world = World::with_view(["--guard", "refuse"]);
    world.seed("f", "text");
    let mut ada = agent(&world, "ada");
    let gate = world.program("gate").display().to_string();
    let script = format!("cat f; bash -c 'echo one > f'; {gate} run -- bash -c 'echo two > f'");
    ada.ask(["capture", "bash", "-euc", &script]).unwrap();
    assert_eq!(world.source_text("f"), "two\n");
    let mut other_run = agent(&world, "ada");
    assert_eq!(other_run.ask(["open", "w0", "f"]), Err(Errno::BUSY));
}

#[test]
fn with_the_scope_mount_the_whole_view_is_one_agent() {
    let world = World::with_view(["--owner-scope", "mount", "--guard", "refuse"]);
    world.seed("f", "text");
    let [mut one, mut two] = [world.actor(&world.view()), world.actor(&world.view())];
    read(&mut one, "f");
    overwrite(&mut two, "open").unwrap();
    wait_until(SOON, "two is done with it", || world.board().locks.is_empty());
    // Beside the view: only the file itself tells.
    fs::write(world.source().join("f"), "somebody else's").unwrap();
    assert_eq!(overwrite(&mut one, "open"), Err(Errno::BUSY));
    read(&mut two, "f");
    overwrite(&mut one, "open").unwrap();
}

#[test]
fn the_log_tells_what_the_guard_kept_and_what_it_refused() {
    for (guard, event, words) in [
        ("keep", "guard-kept", "ada rename f overwrote what it had not seen: kept as version 1"),
        ("refuse", "guard-refused", "ada rename f was not to overwrite what it had not seen"),
    ] {
        let world = World::with_view(["--guard", guard]);
        let (mut ada, _bob) = ada_is_behind(&world);
        assert_eq!(overwrite(&mut ada, "rename").is_ok(), guard == "keep");
        wait_until(SOON, "the log tells of it", || !guarded(&world).is_empty());
        let told = guarded(&world);
        let [one] = &told[..] else { panic!("{told:?}") };
        let who = ["event", "owner", "op", "path"].map(|field| one[field].as_str().unwrap());
        assert_eq!(who, [event, "ada", "rename", "f"], "{one}");
        let kept = if guard == "keep" { list(&world, "f")[0]["id"].clone() } else { Value::Null };
        assert_eq!(one["kept"], kept, "{one}");
        let log = world.gate(["log", "view/f"]).run().success();
        assert!(log.contains(words), "{log}");
    }
}

#[test]
fn the_log_tells_what_the_guard_could_not_keep() {
    let world = World::with_view(["--guard-keep-max-mib", "1"]);
    world.seed("large", &"x".repeat(65_537));
    agent(&world, "ada").open("w0", "large");
    wait_until(SOON, "the log tells of it", || !guarded(&world).is_empty());
    let told = guarded(&world);
    assert_eq!([&told[0]["event"], &told[0]["why"]], ["guard-lost", "too-large"], "{told:?}");
}

/// Returns what the log tells of the guard.
fn guarded(world: &World) -> Vec<Value> {
    let log = world.gate(["log", "--json"]).run().success();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let is_guards = |event: &Value| event["event"].as_str().unwrap().starts_with("guard-");
    events.filter(is_guards).collect()
}

#[test]
fn what_is_kept_is_bounded_and_what_is_too_large_is_named() {
    let world = World::with_view(["--guard-keep-max-mib", "1"]);
    let mut ada = agent(&world, "ada");
    for (name, size) in [("large", 65_537), ("fits", 65_536)] {
        world.seed(name, &"x".repeat(size));
        ada.open("w0", name);
    }
    let outcome = |name: &str| list(&world, name)[0]["outcome"].clone();
    assert_eq!(outcome("large"), "not kept: it was too large");
    assert_eq!(outcome("fits"), "kept as version 2");
    let refusal = world.gate(["restore", "view/large"]).run().refusal();
    assert!(refusal.contains("no such version"), "{refusal}");
    for number in 0..20 {
        let name = format!("f{number}");
        world.seed(&name, &"x".repeat(65_536));
        ada.open("w0", &name);
    }
    let kept = list(&world, ".");
    assert_eq!(kept.iter().filter(|version| version["is_kept"] == true).count(), 16, "1 MiB");
    assert_eq!(kept.last().unwrap()["path"], "f19", "the newest win");
}

/// Of a source that has no view any more, too: the broker sees to that. A clock that is set forward
/// makes nothing old.
#[test]
fn what_is_kept_of_a_source_without_a_view_does_not_stay_for_ever() {
    let mut world = World::new();
    let (mut ada, bob) = ada_is_behind(&world);
    overwrite(&mut ada, "open").unwrap();
    world.gate(["restore", "view/f"]).run().success();
    drop((ada, bob));
    let view = world.view();
    world.umount(&view);
    let ids = |world: &World| -> Vec<Value> {
        list(world, "f").iter().map(|version| version["id"].clone()).collect()
    };
    assert_eq!(ids(&world), [1, 2]);
    let store = store(&world).unwrap();
    let edit = |id: &str, edit: &dyn Fn(&mut Value)| {
        let path = store.join(id).join("record.json");
        let mut record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut record);
        fs::write(path, record.to_string()).unwrap();
    };
    edit("1", &|record| record["at_ms"] = 1.into());
    edit("2", &|record| (record["at_ms"], record["in_run"]) = (1.into(), Value::Null));
    world.stop_broker();
    world.start_broker([""; 0]);
    wait_until(SOON, "what is old by any clock is gone", || ids(&world) == [1]);
}

/// A view that is killed while it keeps leaves whole versions only, and no litter for long.
#[test]
fn a_view_that_is_killed_while_it_keeps_leaves_a_store_that_is_whole() {
    let mut world = World::new();
    let text = "x".repeat(60 << 20);
    world.seed("f", &text);
    let mut ada = agent(&world, "ada");
    ada.tell(["open", "w0", "f"]);
    wait_until(SOON, "it is being kept", || {
        store(&world).is_some_and(|dir| !names(&dir).is_empty())
    });
    world.server_of(&world.view()).signal(Signal::KILL);
    let _ = ada.answer();
    drop(ada);
    let view = world.view();
    world.bury(&view);
    let is_whole = |world: &World| {
        let versions = list(world, ".");
        for version in &versions {
            let id = version["id"].to_string();
            let to = world.home().join("out");
            let to = to.to_str().unwrap();
            world
                .gate(["restore", "source/f", "--version", &id, "--to", to, "--force"])
                .run()
                .success();
            assert_eq!(fs::metadata(to).unwrap().len(), text.len() as u64);
        }
        versions.len()
    };
    // Killed before the version was whole the file was not yet overwritten.
    let source = fs::metadata(world.source().join("f")).unwrap().len();
    assert!(is_whole(&world) == 1 || source == text.len() as u64);
    let source = world.source();
    world.mount(&source, &view, [""; 0]);
    let litter = || names(&store(&world).unwrap()).iter().any(|name| name.starts_with(".new"));
    wait_until(SOON, "what was left is cleared away", || !litter());
    is_whole(&world);
}

#[test]
fn an_ordinary_user_keeps_and_restores_in_their_own_view() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.actor(&source).open("w+", "f");
    let (mut ada, _bob) = ada_is_behind(&world);
    ada.ask(["chmod", "f", "640"]).unwrap();
    overwrite(&mut ada, "rename").unwrap();
    world.gate(["restore", "view/f"]).run().success();
    assert_eq!(world.source_text("f"), "bob's");
    let mode = fs::metadata(world.source().join("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "permissions come back too");
    let mode = fs::metadata(store(&world).unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else looks into the store");
}

#[test]
fn a_restore_takes_its_turn_and_brings_back_removed_files() {
    let world = World::new();
    let (mut ada, _bob) = ada_is_behind(&world);
    overwrite(&mut ada, "open").unwrap();
    let fd = ada.open("r", "f");
    let restore = world.gate(["restore", "view/f", "--json"]).start();
    world.await_waiting("f", 1);
    ada.close(fd);
    let done: Value = serde_json::from_str(&restore.finish(SOON).success()).unwrap();
    assert_eq!((&done["restored"], &done["replaced"]), (&1.into(), &2.into()), "{done}");
    ada.ask(["unlink", "f"]).unwrap();
    world.gate(["restore", "view/f", "--version", "1"]).run().success();
    assert_eq!(world.source_text("f"), "bob's");
    let refusal = world.gate(["restore", "source/f"]).run().refusal();
    assert!(refusal.contains("without taking a turn"), "{refusal}");
}

/// A restore destroys nothing unasked, elsewhere neither.
#[test]
fn a_restore_to_a_file_that_has_something_in_it_is_refused_unless_forced() {
    let world = World::new();
    let (mut ada, _bob) = ada_is_behind(&world);
    overwrite(&mut ada, "open").unwrap();
    let restore = |to: &str| world.gate(["restore", "view/f", "--to", to]);
    restore("out").run().success();
    let out = world.home().join("out");
    assert_eq!(fs::read_to_string(&out).unwrap(), "bob's");
    fs::write(&out, "mine and longer").unwrap();
    let refusal = restore("out").run().refusal();
    assert!(refusal.contains("something in out") && refusal.contains("--force"), "{refusal}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine and longer");
    restore("out").args(["--force"]).run().success();
    assert_eq!(fs::read_to_string(&out).unwrap(), "bob's");
    let script = "mkfifo -m 600 pipe; cat pipe & \"$0\" restore view/f --to pipe; wait";
    let gate = [world.program("gate")];
    let read = world.script(world.home(), script).args(gate).run().success();
    let pipe = fs::metadata(world.home().join("pipe")).unwrap();
    assert_eq!((read.as_str(), pipe.mode() & 0o777), ("bob's", 0o600), "a pipe stays what it is");
}

#[test]
fn what_everyday_tools_overwrite_unseen_comes_back_with_its_attributes() {
    for script in [
        "printf %s \"$0\" > f",
        "printf %s \"$0\" > new; mv -f new f",
        "printf %s \"$0\" > new; cp new f",
        "printf %s \"$0\" | tee f",
        "printf %s \"$0\" | dd of=f status=none",
    ] {
        let world = World::new();
        let (mut ada, mut bob) = ada_is_behind(&world);
        bob.ask(["setxattr", "f", "user.note", "from bob"]).unwrap();
        ada.ask(["capture", "bash", "-euc", script, "ada's"]).unwrap();
        assert_eq!(world.source_text("f").trim_end(), "ada's", "{script}");
        world.gate(["restore", "view/f"]).run().success();
        assert_eq!(world.source_text("f"), "bob's", "{script}");
        let note = "getfattr --only-values -n user.note f";
        assert_eq!(world.script(&world.source(), note).run().success(), "from bob", "{script}");
    }
}

/// Agents of two views of a source do not know of each other; the file itself tells.
#[test]
fn what_another_view_wrote_is_not_seen() {
    let mut world = World::with_view(["--guard", "refuse"]);
    let second = super::spaces::second_view(&mut world, ["--guard", "refuse"]);
    world.seed("f", "text");
    let mut ada = agent(&world, "ada");
    read(&mut ada, "f");
    let gate = [world.program("gate").into_os_string()];
    let words = ["run", "--agent", "bob", "--"].map(Into::into);
    let mut bob = world.actor_by(gate.into_iter().chain(words), &second);
    read(&mut bob, "f");
    overwrite(&mut bob, "open").unwrap();
    assert_eq!(overwrite(&mut ada, "open"), Err(Errno::BUSY));
    read(&mut ada, "f");
    overwrite(&mut ada, "open").unwrap();
}

/// Beside the view nobody takes turns: what is there may change after the agent's guard has looked.
#[test]
fn what_replaced_a_file_while_it_was_kept_is_kept_when_it_is_replaced_itself() {
    let world = World::new();
    let (mut ada, _) = ada_is_behind(&world);
    overwrite(&mut ada, "rename").unwrap();
    world.script(&world.source(), "echo new > f; echo -n \"bob's next\" > next").run().success();
    let fd = ada.open("w+", "ada's next");
    ada.write(fd, "ada's next").unwrap();
    ada.close(fd);
    let lock = locked_store(&world);
    ada.tell(["rename", "ada's next", "f"]);
    world.await_held("f", 1);
    world.script(&world.source(), "mv next f").run().success();
    drop(lock);
    ada.answer().unwrap();
    assert_eq!(world.source_text("f"), "ada's next");
    let kept: Vec<String> = list(&world, "f")
        .iter()
        .map(|version| {
            let id = version["id"].to_string();
            let args = ["restore", "view/f", "--to", "-", "--version", &id];
            world.gate(args).run().success()
        })
        .collect();
    assert_eq!(kept, ["bob's", "new\n", "bob's next"]);
    assert!(!world.source().join("ada's next").exists());
}

/// What takes long to be kept holds up nobody but who overwrites it, and can be interrupted.
#[test]
fn while_something_is_kept_others_go_on_and_who_waits_can_be_killed() {
    let world = World::new();
    world.seed("first", "text");
    world.seed("f", "text");
    world.seed("g", "text");
    let mut ada = agent(&world, "ada");
    let fd = ada.open("w0", "first");
    ada.close(fd);
    let lock = locked_store(&world);
    ada.tell(["open", "w0", "f"]);
    world.await_held("f", 1);
    let mut other = world.actor(&world.view());
    let fd = other.open("w0", "g");
    other.write(fd, "more").unwrap();
    other.close(fd);
    other.ask(["rename", "g", "h"]).unwrap();
    assert!(ada.is_busy(), "it is not kept yet");
    ada.signal(Signal::KILL);
    assert_eq!(ada.end(SOON), Some(9));
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock).unwrap();
    let fd = other.open("r", "f");
    assert_eq!(other.read(fd, 9), Ok("text".to_owned()), "whoever was killed has not overwritten");
    wait_until(SOON, "nothing was lost, nothing is kept", || list(&world, "f").is_empty());
}

/// The file holds "bob's", and ada last saw what was there before.
fn ada_is_behind(world: &World) -> (Actor, Actor) {
    world.script(&world.source(), "echo old > f").run().success();
    let [mut ada, mut bob] = ["ada", "bob"].map(|name| agent(world, name));
    read(&mut ada, "f");
    read(&mut bob, "f");
    let fd = bob.open("w0", "f");
    bob.write(fd, "bob's").unwrap();
    bob.close(fd);
    (ada, bob)
}

fn read(actor: &mut Actor, name: &str) {
    let fd = actor.open("r", name);
    actor.read(fd, 4096).unwrap();
    actor.close(fd);
}

fn overwrite(actor: &mut Actor, way: &str) -> Result<(), Errno> {
    let write = |actor: &mut Actor, how: &str, name: &str| {
        let fd = actor.open(how, name);
        actor.write(fd, "ada's").unwrap();
        actor.close(fd);
    };
    match way {
        "open" => {
            let fd = actor.ask(["open", "w0", "f"])?;
            actor.ask(["write", &fd, "ada's"])?;
            actor.ask(["close", &fd]).map(drop)
        }
        "rename" => {
            write(actor, "w+0", "f.tmp");
            actor.ask(["rename", "f.tmp", "f"]).map(drop)
        }
        _ => {
            actor.ask(["truncate", "f", "1"])?;
            write(actor, "w", "f");
            Ok(())
        }
    }
}

/// What was overwritten at a path or beneath it, by the view or, if there is none, by the source.
fn list(world: &World, name: &str) -> Vec<Value> {
    let has_view = world.view().join(".").read_dir().is_ok_and(|mut names| names.next().is_some());
    let root = if has_view { world.view() } else { world.source() };
    let args = ["restore", "--list", "--json"];
    let listed = world.gate(args).args([root.join(name)]).run();
    if listed.code != Some(0) && listed.stderr.contains("nothing is known") {
        return Vec::new();
    }
    let list: Value = serde_json::from_str(&listed.success()).unwrap();
    assert_eq!(list["version"], 1);
    list["versions"].as_array().unwrap().clone()
}

/// Time of modification and size are what the guard goes by.
#[test]
fn who_changes_bytes_and_neither_size_nor_time_is_not_noticed() {
    for (script, kept) in
        [("touch -r f ../time; printf OLD > f; touch -r ../time f", 0), ("printf OLD > f", 1)]
    {
        let world = World::new();
        world.seed("f", "old");
        let mut ada = agent(&world, "ada");
        read(&mut ada, "f");
        world.script(&world.source(), script).run().success();
        overwrite(&mut ada, "open").unwrap();
        assert_eq!(list(&world, "f").len(), kept, "{script}");
    }
}

/// Who removes a file means to, and who copies it has seen it.
#[test]
fn who_removes_a_file_or_has_copied_it_overwrites_nothing_unseen() {
    for script in [
        "rm f; echo -n \"ada's\" > f",
        "mv f g; rm g; echo -n \"ada's\" > f",
        "cp f f~; echo -n \"ada's\" > f",
        "cp f new; mv -f new f",
    ] {
        let world = World::new();
        let (mut ada, _bob) = ada_is_behind(&world);
        ada.ask(["capture", "bash", "-euc", script]).unwrap();
        assert!(list(&world, ".").is_empty(), "{script}");
    }
}

/// The environment is what says whose agent a program is.
#[test]
fn a_program_that_clears_its_environment_is_of_no_agent_any_more() {
    let world = World::with_view(["--guard", "refuse"]);
    world.seed("f", "text");
    for (command, code) in [("env -i", Some(0)), ("env", Some(2))] {
        let script = format!("{command} bash -c 'echo more > f || exit 2'");
        let args = ["run", "--agent", "ada", "--", "bash", "-c", &script];
        let outcome = world.gate(args).dir(world.view()).run();
        assert_eq!(outcome.code, code, "{outcome}");
        world.seed("f", "text");
    }
}

/// A rename holds the kernel's lock of its directory. What has one name is put aside by another name.
#[test]
fn while_what_a_rename_replaces_is_copied_its_directory_is_busy() {
    let world = World::new();
    let (mut ada, _bob) = ada_is_behind(&world);
    overwrite(&mut ada, "rename").unwrap();
    world.script(&world.source(), "echo bob > f; ln f other; echo next > next").run().success();
    let lock = locked_store(&world);
    ada.tell(["rename", "next", "f"]);
    world.await_held("f", 1);
    let mut other = world.actor(&world.view());
    other.tell(["open", "w+", "fresh"]);
    wait_until(SOON, "it waits in the kernel", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", other.pid())).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('D')
    });
    assert!(other.is_busy());
    drop(lock);
    other.answer().unwrap();
    ada.answer().unwrap();
}

/// As another process does that looks around: nothing can be added.
pub fn locked_store(world: &World) -> fs::File {
    let lock = store(world).unwrap().join("lock");
    let lock = fs::OpenOptions::new().append(true).open(lock).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    lock
}

/// The one store there is.
fn store(world: &World) -> Option<PathBuf> {
    let dir = fs::read_dir(world.state().join("kept")).ok()?.next()?;
    Some(dir.unwrap().path())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().display().to_string());
    names.filter(|name| name != "lock").collect()
}
