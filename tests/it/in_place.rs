//! Views over their own source: `gate mount DIR`.

mod replaced;

use std::fs;
use std::path::Path;

use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel, tree};
use rustix::process::Signal;

#[test]
fn a_directory_is_gated_in_place_and_all_commands_work_there() {
    let world = with_broker();
    world.seed("d/f", "text");
    world.gate(["mount", "source"]).run().success();
    let mounted = kernel::mounts_below(&world.source());
    assert_eq!(mounted.len(), 1, "{mounted:?}");
    assert_eq!(mounted[0].source, world.source());
    let [mut first, mut second] = [world.actor(&world.source()), world.actor(&world.source())];
    let fd = first.open("w", "d/f");
    second.tell(["open", "r", "d/f"]);
    world.await_waiting("d/f", 1);
    let why = world.gate(["why", "source/d/f"]).run().success();
    assert!(why.contains(&first.pid().to_string()), "{why}");
    first.close(fd);
    second.opened();
    drop((first, second));
    let locks = world.gate(["locks", "source/d"]).run();
    assert_eq!(locks.code, Some(0), "{locks}");
    let held = world.gate(["hold", "source/d", "--", "cat", "source/d/f"]).run().success();
    assert_eq!(held, "text");
    let status = world.gate(["status"]).run().success();
    assert!(status.contains(world.source().to_str().unwrap()), "{status}");
    world.gate(["doctor", "source"]).run().success();
    let bench = world.gate(["bench", "--seconds", "1", "source/d"]).run().success();
    let said = format!("{0} beside {0}", world.source().join("d").display());
    assert!(bench.contains(&said), "{bench}");
    assert_eq!(names(&world.source().join("d")), ["f"], "nothing is left");
    world.gate(["umount", "source"]).run().success();
    assert!(kernel::mounts_below(&world.source()).is_empty());
    assert_eq!(world.source_text("d/f"), "text");
}

#[test]
fn root_and_mount_may_name_the_same_directory() {
    let mut world = with_broker();
    let source = world.source();
    world.mount(&source, &source, [""; 0]);
    world.umount(&source);
    world.script(world.home(), "ln -s source alias").run().success();
    let words = ["mount", "--root", "alias", "--mount", "source/."];
    world.gate(words).run().success();
    assert_eq!(kernel::mounts_below(&source).len(), 1);
    world.gate(["umount", "alias"]).run().success();
}

/// Holds and opens meet in place too: the broker knows the directory by its inode, not by what
/// lies over its path.
#[test]
fn a_hold_in_place_and_a_view_elsewhere_take_turns() {
    let mut world = with_broker();
    world.seed("f", "");
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.mount(&source, &source, [""; 0]);
    let mut holder = world.actor_under_hold(&source, ["f"]);
    let mut other = world.actor(&view);
    other.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
    holder.leave();
    other.opened();
}

#[test]
fn what_was_overwritten_in_place_comes_back() {
    let mut world = with_broker();
    let source = world.source();
    world.mount(&source, &source, [""; 0]);
    let script = r#"
        echo old > f
        "$0" run --agent ada -- bash -c 'cat f > /dev/null; echo seen > ../go; read -r line < ../on; echo new > f' &
        until [ -s ../go ]; do :; done
        echo between > f; echo > ../on; wait $!
        "$0" restore f
        cat f"#;
    world.script(world.home(), "mkfifo on").run().success();
    let gate = world.program("gate");
    let said = world.script(&source, script).args([gate]).run().success();
    assert!(said.ends_with("between\n"), "{said}");
    world.umount(&source);
    let list = world.gate(["restore", "--list", "source/f"]).run().success();
    assert!(list.contains("ada"), "{list}");
}

#[test]
fn who_works_there_already_is_named_and_refused_without_force() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    world.seed("d/f", "");
    fs::copy("/bin/cat", source.join("cat")).unwrap();
    for (there, what) in [
        ("cd source/d; read -r line", "working directory"),
        ("exec python3 -c 'import os; os.chroot(\"source/d\"); input()'", "root directory"),
        ("exec 3>> source/d/f; read -r line", "open file"),
        ("exec source/cat", "mapped file"),
    ] {
        let mut shell = world.script(world.home(), there).start_with_input();
        let input = shell.stdin();
        wait_until(SOON, "the shell is there", || kernel::uses(shell.pid(), &source));
        let refusal = mount(&world, &source, &[]);
        assert!(refusal.contains(what), "{refusal}");
        assert!(refusal.contains(&format!("(process {}: ", shell.pid())), "{refusal}");
        // In words that hold for `gate mount add`, too.
        let by_force = format!("`gate mount --force {}`", source.display());
        assert!(refusal.contains(&by_force), "{refusal}");
        world.mount(&source, &source, ["--force"]);
        let said = world.server_of(&source).so_far();
        assert!(said.contains(&shell.pid().to_string()), "{said}");
        drop(input);
        let _ = shell.finish(SOON);
        world.umount(&source);
    }
    // From within the directory it is the caller's own shell.
    let gate = world.program("gate");
    let run = world.script(&source, r#""$0" mount . || exit 1"#).args([gate]).run();
    assert!(run.refusal().contains("bash"));
}

/// The same directory has another path, and is gated at none but its own.
#[test]
fn who_gets_past_by_other_mounts_is_named() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    world.seed("d/f", "");
    let script =
        "mount --bind source twin; mount --make-private twin; cd twin/d; echo; read -r line";
    let unshare = ["--mount", "--propagation", "private", "bash", "-euc", script];
    let mut inside = world.command("unshare".as_ref()).args(unshare).start_with_input();
    let input = inside.stdin();
    wait_until(SOON, "the shell is there", || !inside.so_far().is_empty());
    let refusal = mount(&world, &source, &[]);
    let user = format!("(process {}: working directory {}", inside.pid(), world.twin().display());
    assert!(refusal.contains(&user), "{refusal}");
    world.script(world.home(), "mount --bind source view").run().success();
    world.mount(&source, &source, ["--force"]);
    let said = world.server_of(&source).so_far();
    let told = said.lines().find(|line| line.contains("not where else")).unwrap();
    assert!(told.contains(&format!("(process {})", inside.pid())), "{said}");
    assert!(told.contains(world.view().to_str().unwrap()), "{said}");
    world.umount(&source);
    world.script(world.home(), "umount view").run().success();
    drop(input);
    let _ = inside.finish(SOON);
}

#[test]
fn what_gate_itself_needs_is_not_gated_in_place() {
    let world = with_broker();
    let settings = world.source().join("gate");
    fs::create_dir(&settings).unwrap();
    fs::write(settings.join("gate.toml"), "").unwrap();
    let refusal = |dir: &Path| {
        let run = world.gate(["mount".as_ref(), "--foreground".as_ref(), dir.as_os_str()]);
        run.env("XDG_CONFIG_HOME", world.source()).run().refusal()
    };
    for (dir, named) in [
        (world.source().as_path(), "settings"),
        (&world.state(), "own state"),
        (world.home(), "own state"),
        (world.program("gate").parent().unwrap(), "runs from"),
        (Path::new("/"), "own state"),
        (Path::new("/proc"), "/proc"),
        (Path::new("/dev"), "/dev"),
        (Path::new("/sys"), "/sys"),
    ] {
        let said = refusal(dir);
        assert!(said.contains(named), "{}: {said}", dir.display());
    }
    let token = world.source().join("token");
    fs::write(&token, "").unwrap();
    let args = ["--broker-port", "1", "--token-file", token.to_str().unwrap()];
    assert!(mount(&world, &world.source(), &args).contains("token"));
    assert!(kernel::mounts_below(world.home()).is_empty());
}

#[test]
fn views_of_views_are_refused() {
    let mut world = with_broker();
    let source = world.source();
    world.seed("d/f", "");
    world.mount(&source, &source, [""; 0]);
    assert!(mount(&world, &source, &[]).contains("--replace"));
    assert!(mount(&world, &source.join("d"), &[]).contains("is in the view"));
    let refusal = world.gate(["mount", "--foreground", "source/d", "view"]).run().refusal();
    assert!(refusal.contains("is in the view"), "{refusal}");
    world.umount(&source);
    let inner = source.join("d");
    world.mount(&inner, &inner, [""; 0]);
    let refusal = mount(&world, &source, &[]);
    assert!(refusal.contains("there is a view in it"), "{refusal}");
}

/// What is mounted in the directory shows in its view; but for the kernel's own. The directory may
/// itself be the root of a mount.
#[test]
fn mounts_in_the_directory_show_and_take_turns() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    world.script(world.home(), "mount -t tmpfs source source").run().success();
    let script = "mkdir disk proc; mount -t tmpfs disk disk; echo text > disk/f";
    world.script(&source, script).run().success();
    world.mount(&source, &source, [""; 0]);
    kill_server(&world, &source);
    let _ = world.mount_anew(&source, or_by_force()).finish(SOON);
    assert_eq!(world.source_text("disk/f"), "text\n");
    let [mut first, mut second] = [world.actor(&source), world.actor(&source)];
    let fd = first.open("w", "disk/f");
    second.tell(["open", "w", "disk/f"]);
    world.await_waiting("disk/f", 1);
    first.close(fd);
    second.opened();
    drop((first, second));
    world.umount(&source);
    world.script(&source, "mount -t proc proc proc").run().success();
    let refusal = mount(&world, &source, &[]);
    assert!(refusal.contains("source/proc"), "{refusal}");
    world.script(world.home(), "umount source/proc source/disk source").run().success();
}

/// A broker that starts again knows the directory by what the view tells of it; another broker
/// does not come past the view to it.
#[test]
fn an_in_place_view_outlives_its_broker() {
    let mut world = with_broker();
    let source = world.source();
    world.seed("f", "");
    world.mount(&source, &source, [""; 0]);
    world.kill_broker();
    world.start_broker([""; 0]);
    let mut holder = world.actor_under_hold(&source, ["f"]);
    let mut other = world.actor(&source);
    other.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    holder.leave();
    other.opened();
    let mut second = World::bare();
    second.start_broker([""; 0]);
    assert!(mount(&second, &source, &[]).contains("gated already"));
    let words = ["mount".as_ref(), "--foreground".as_ref(), source.as_os_str()];
    let refusal = second.gate(words).args([second.view()]).run().refusal();
    assert!(refusal.contains("is in the view"), "{refusal}");
}

#[test]
fn an_in_place_view_uncovers_its_directory_only_when_nobody_is_inside() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let mut world = World::bare_of(standing);
        world.start_broker([""; 0]);
        let source = world.source();
        world.seed("d/f", "");
        fs::copy("/bin/cat", source.join("cat")).unwrap();
        // Who may not change its root does so in a user namespace.
        let as_root = if standing == Standing::Runner { "" } else { "unshare -Ur" };
        let chroot =
            format!("exec {as_root} python3 -c 'import os; os.chroot(\"source/d\"); input()'");
        for (there, what) in [
            ("cd source/d; read -r line", "working directory"),
            (&chroot, "root directory"),
            ("exec 3>> source/d/f; read -r line", "open file"),
            ("exec source/cat", "mapped file"),
        ] {
            world.mount(&source, &source, [""; 0]);
            let mut shell = world.script(world.home(), there).start_with_input();
            let input = shell.stdin();
            wait_until(SOON, "the shell is there", || kernel::uses(shell.pid(), &source));
            let refusal = world.gate(["umount", "source"]).run().refusal();
            let user = format!("(process {}: ", shell.pid());
            assert!(refusal.contains(&user) && refusal.contains(what), "{what}: {refusal}");
            assert!(!refusal.contains("gate ("), "no process of Gate is in the way: {refusal}");
            assert_eq!(kernel::mounts_below(&source).len(), 1, "{what}");
            drop(input);
            let _ = shell.finish(SOON);
            world.umount(&source);
        }
    }
}

#[test]
fn an_ordinary_user_gates_a_directory_in_place() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let source = world.source();
    world.mount(&source, &source, [""; 0]);
    let [mut first, mut second] = [world.actor(&source), world.actor(&source)];
    let fd = first.open("w+", "f");
    second.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    first.close(fd);
    second.opened();
    drop((first, second));
    let said = world.server_of(&source).so_far();
    assert!(!said.contains("came in"), "what mounts for the user is nobody who came in: {said}");
    world.gate(["bench", "--seconds", "1", "source"]).run().success();
    world.umount(&source);
    assert_eq!(names(&source), ["f"]);
}

#[test]
fn in_a_user_namespace_views_lie_in_place_and_dead_ones_are_replaced() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = with_broker();
    world.seed("f", "text\n");
    let script = r#"
        "$0" mount source
        cat source/f; echo new > source/g
        kill -KILL $("$0" doctor --json source | grep -o 'process [0-9]*' | tail -1 | tr -dc 0-9)
        while stat source > /dev/null 2>&1; do :; done
        "$0" mount "$@" source
        cat source/g
        "$0" umount source; ls source"#;
    let run = world.command("unshare".as_ref()).args(["-Urm", "bash", "-euc", script]);
    let run = run.args([world.program("gate")]).args(or_by_force());
    assert_eq!(run.run().success(), "text\nnew\nf\ng\n");
}

#[test]
fn everyday_tools_work_in_place() {
    let mut world = with_broker();
    let view = world.view();
    world.mount(&view, &view, [""; 0]);
    let script = r#"
        git init -q -b main . && mkdir src
        printf '[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2024"\n' > Cargo.toml
        echo 'fn main() { println!("one"); }' > src/main.rs
        cargo build -q --offline && target/debug/tiny
        sed -i s/one/two/ src/main.rs
        vim -N -u NONE -i NONE -es -c 's/two/three/' -c wq src/main.rs
        cargo build -q --offline && target/debug/tiny
        echo target > .gitignore; git add . && git commit -q -m first && git gc -q
        git fsck --strict --no-progress; git status --porcelain; git rev-parse HEAD^{tree}"#;
    world.says_as_bare(script, SOON * 6);
    tree::assert_same(&world.twin(), &view, &[".git", "target"]);
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn with_broker() -> World {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world
}

/// Tries to mount in place, and says why not.
#[track_caller]
fn mount(world: &World, dir: &Path, args: &[&str]) -> String {
    let words = ["mount".as_ref(), "--foreground".as_ref(), dir.as_os_str()];
    world.gate(words).args(args).run().refusal()
}

/// Tells whether root can put a view under another here; if not, a dead one makes way by force
/// alone, and a living one does not.
fn mounts_beneath() -> bool {
    kernel::is_at_least(6, 5)
}

fn or_by_force() -> Option<&'static str> {
    (!mounts_beneath()).then_some("--force")
}

#[track_caller]
fn kill_server(world: &World, point: &Path) {
    let server = world.server_of(point);
    server.signal(Signal::KILL);
    wait_until(SOON, "its server is gone", || !server.is_running());
}
