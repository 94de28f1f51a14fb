//! The web board, in a real browser: `tests/it/web/board.py` walks through its pages, where people and
//! programs really hold and wait.

mod buckets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gate_tests::rest::Rest;
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World};
use serde_json::json;

/// How long a browser has for one part of a script: it does all its work on the processor, and takes
/// half a minute where nobody else wants that.
const WALK: Duration = Duration::from_secs(8 * 60);

const ADMIN: &str = "admin-admin-admin-0123456789abcd";
const READ: &str = "read-read-read-0123456789abcdefgh";

/// A name that would be markup, and turn the direction of what follows.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\u{202e}txt";

/// A daemon with its board at a port, a view, and some who hold and wait there.
struct Scene {
    world: World,
    people: Vec<Running>,
    programs: Vec<Actor>,
}

impl Scene {
    fn set() -> Scene {
        Scene::set_in(World::bare())
    }

    fn set_in(mut world: World) -> Scene {
        world.find_broker_by_socket();
        // A reader is let past who only has something open, soon.
        world.seed("gate.toml", "read_wait = \"200ms\"\n");
        for name in ["src/main.rs", "docs/plan.md", HOSTILE] {
            world.seed(name, "text");
        }
        open(&world);
        let rest = Rest::of_state_dir(&world.state());
        let id = rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
        assert_eq!(rest.ask("POST", &format!("/api/v0/mounts/{id}/start")).status, 200);
        let mut people = Vec::new();
        for (who, why, waiting) in [("ada", "release build", 0), ("bob", "", 1), ("carol", "", 2)] {
            let words = ["hold", "view/src/main.rs", "--reason", why, "--", "cat"];
            people.push(world.gate(words).env("GATE_AGENT", who).start_with_input());
            world.await_held("src/main.rs", 1);
            world.await_waiting("src/main.rs", waiting);
        }
        let programs = [("r", "docs/plan.md"), ("w", HOSTILE)].map(|(how, name)| {
            let mut program = world.actor(&world.view());
            program.open(how, name);
            program
        });
        Scene { world, people, programs: programs.into() }
    }

    /// Has the browser do one part of the script.
    #[track_caller]
    fn walk(&self, part: &str) {
        walk(&self.world, "board.py", part);
    }

    fn end(self) -> World {
        drop(self.people);
        drop(self.programs);
        self.world.await_idle();
        self.world.gate(["daemon", "stop"]).run().success();
        self.world
    }
}

/// Starts the daemon of a world, with its board at a port.
#[track_caller]
fn open(world: &World) {
    let tokens = world.home().join("tokens");
    fs::write(&tokens, format!("admin {ADMIN}\nread {READ}\n")).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let port = world.http().port.to_string();
    let daemon = ["daemon", "start", "--api-port", &port, "--api-token-file", "tokens"];
    world.gate(daemon).run().success();
}

/// Has a browser do one part of a script.
#[track_caller]
fn walk(world: &World, script: &str, part: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/web").join(script);
    // To be looked at, where somebody says where they are to go.
    let pictures = std::env::var_os("GATE_PICTURES").map(PathBuf::from);
    let pictures = pictures.unwrap_or_else(|| world.home().join("pictures"));
    let port = world.http().port;
    let run = world.command(&python()).args(["-B".as_ref(), script.as_os_str()]);
    let run = run.args([part, &format!("http://127.0.0.1:{port}"), ADMIN, READ]);
    let run = run.args([&pictures, &world.program("gate")]);
    run.within(WALK).run().success();
}

/// The Python that `cargo xtask test` brings, with what drives a browser.
fn python() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().find(|dir| dir.ends_with("deps")).unwrap().join("../..");
    let python = target.join("tools/python/bin/python");
    assert!(python.exists(), "there is no {}: run `cargo xtask test`", python.display());
    python
}

#[test]
fn every_page_of_the_board_is_walked_through_and_it_changes_by_itself() {
    let scene = Scene::set();
    scene.walk("people");
    let log = scene.world.gate(["log"]).run().success();
    assert!(log.contains("somebody broke it: it hangs"), "{log}");
    scene.end();
}

#[test]
fn the_board_works_without_a_script() {
    let scene = Scene::set();
    scene.walk("plain");
    let log = scene.world.gate(["log"]).run().success();
    assert!(log.contains("somebody broke it: no script"), "{log}");
    scene.end();
}

#[test]
fn who_may_only_look_at_the_board_is_offered_and_allowed_no_change() {
    let scene = Scene::set();
    scene.walk("reader");
    scene.world.await_waiting("src/main.rs", 2);
    scene.end();
}

#[test]
fn the_board_fits_a_phone_a_keyboard_and_the_dark() {
    let scene = Scene::set();
    scene.walk("narrow");
    scene.end();
}

#[test]
fn the_board_says_that_nothing_is_granted_while_the_journal_finds_no_room() {
    let world = World::bare();
    world.lay_small_disk(&world.state(), "2m");
    let scene = Scene::set_in(world);
    scene.world.fill_disk(&scene.world.state());
    wait_until(SOON * 2, "nothing is granted", || {
        scene.world.gate(["hold", "view/new", "--", "true"]).run().code == Some(2)
    });
    scene.walk("halted");
    fs::remove_file(scene.world.state().join("filler")).unwrap();
    let world = scene.end();
    world.script(world.home(), "umount state").run().success();
}
