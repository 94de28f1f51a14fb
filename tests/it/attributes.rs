//! Attributes beyond those of stat(2): a file's birth, and the flags of chattr(1).

use gate_tests::wait::SOON;
use gate_tests::{Actor, World};

#[test]
fn a_file_was_born_when_its_source_says() {
    let world = World::new();
    world.seed("d/f", "text");
    std::os::unix::fs::symlink("f", world.source().join("d/l")).unwrap();
    let births = |dir: &std::path::Path| {
        let script = "
            stat -c '%n %w' . d d/f d/l
            ls -lR > /dev/null
            stat -c '%n %w' . d d/f d/l
            exec 3< d/f; stat -L -c %w /dev/fd/3";
        world.script(dir, script).run().success()
    };
    let expected = births(&world.source());
    assert_eq!(births(&world.view()), expected);
    assert!(expected.lines().count() == 9 && !expected.contains(" -\n"), "{expected}");
    // And goes on to do so, however long the kernel keeps attributes.
    world.script(&world.view(), "echo more >> d/f; mv d/f d/g").run().success();
    let [found, expected] = [world.view(), world.source()]
        .map(|dir| world.script(&dir, "stat -c '%w %s %y %h' d/g").run().success());
    assert_eq!(found, expected);
}

#[test]
fn lsattr_and_chattr_do_as_on_the_bare_directory() {
    let world = World::new();
    let script = "
        echo x > f; mkdir d
        trap 'chattr -ia f d' EXIT
        lsattr f; lsattr -d d
        chattr +a f; lsattr f
        echo y >> f; cat f
        (echo z > f) 2> /dev/null || echo refused
        chattr -a +i f; lsattr f
        rm f 2> /dev/null || echo kept
        (echo z >> f) 2> /dev/null || echo refused
        chattr -i f; echo z > f; cat f
        chattr +Ad d; lsattr -d d
        chattr =i d; touch d/f 2> /dev/null || echo refused
        chattr =e d || true; lsattr -d d
        lsattr -p f | wc -w";
    world.says_as_bare(script, SOON);
    let generations =
        [world.view(), world.source()].map(|dir| world.script(&dir, "lsattr -v f").run().success());
    assert_eq!(generations[0], generations[1]);
}

#[test]
fn chattr_takes_the_callers_own_rights() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::with_view(["--allow-other"]);
    let script = "
        chmod 755 .. . && mkdir -m 1777 shared && touch shared/of-root
        setpriv --reuid games --regid games --clear-groups bash -c '
            touch shared/own; mkdir shared/dir
            for flag in A i a j S; do
                for name in own dir of-root; do
                    chattr +$flag shared/$name 2> /dev/null || echo $flag $name denied
                done
            done'
        lsattr shared
        chattr -R =e shared || true";
    world.says_as_bare(script, SOON);
}

#[test]
fn other_calls_of_ioctl_are_refused_as_unknown_to_files() {
    let world = World::new();
    let script = r#"
import errno, fcntl, os
for name in ("f", "."):
    file = os.open(name, os.O_RDONLY)
    for command in (0x5401, 0x80046601, 0xc0045866, 0x7fff):  # TCGETS, and what nobody knows
        try:
            fcntl.ioctl(file, command, bytes(64))
            print("done")
        except OSError as error:
            print(name, hex(command), errno.errorcode[error.errno])
"#;
    world.says_as_bare(&format!("touch f; python3 - <<'E'\n{script}\nE"), SOON);
}

/// A file's flags wait for its writer, in the open that chattr makes; a directory's for nobody.
#[test]
fn chattr_of_a_held_directory_is_refused_and_of_a_held_file_waits() {
    let world = World::new();
    world.seed("d/f", "text");
    let mut holder = world.actor_under_hold(&world.view(), ["d"]);
    let refused = world.script(&world.view(), "chattr +A d").run();
    assert_eq!(refused.code, Some(1), "{refused}");
    let waiting = world.script(&world.view(), "chattr +A d/f").start();
    world.await_waiting("d/f", 1);
    assert!(waiting.is_running());
    holder.leave();
    assert_eq!(waiting.finish(SOON).code, Some(0));
    let script = "chattr +A d; lsattr -d d | grep A; lsattr d | grep A";
    world.script(&world.view(), script).run().success();
}

/// The bare directory's file is, unless it is mounted so that nothing is (noatime).
#[test]
fn what_is_mapped_is_not_accessed() {
    let world = World::new();
    let mut actor = world.actor(&world.view());
    for words in ["open rw+ f", "write 5000 1", "futimens 86400 0", "map s 4096"] {
        actor.ask("at 0".split(' ').chain(words.split(' '))).unwrap();
    }
    let [accessed, _, _] = moments_of_f(&mut actor);
    assert_eq!(accessed, "86400123456789");
}

#[test]
fn what_is_stored_through_a_mapping_changes_times_when_it_is_written_back() {
    for written_back in ["at 0 msync", "at 0 unmap", "at 0 close"] {
        let world = World::new();
        let mut actor = world.actor(&world.view());
        for words in ["open rw+ f", "write 5000 1", "map sw 4096", "futimens 86400 86400"] {
            actor.ask("at 0".split(' ').chain(words.split(' '))).unwrap();
        }
        let before = moments_of_f(&mut actor);
        actor.ask("at 0 store 0 10 3".split(' ')).unwrap();
        assert_eq!(moments_of_f(&mut actor), before);
        actor.ask(written_back.split(' ')).unwrap();
        let [_, modified, changed] = moments_of_f(&mut actor);
        assert!(modified != before[1] && changed != before[2], "{written_back}");
    }
}

/// Tells when `f` was accessed, modified and changed.
fn moments_of_f(actor: &mut Actor) -> [String; 3] {
    let told = actor.ask(["moments", "f"]).unwrap();
    let mut words = told.split(' ').map(str::to_owned);
    [(); 3].map(|()| words.next().unwrap())
}
