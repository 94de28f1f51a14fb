//! The whole life of two kept mounts, as somebody sees it who looks: in a terminal, by REST, in the
//! stream of events, in the figures and on the board.

use std::collections::BTreeMap;
use std::fs;

use gate_tests::World;
use gate_tests::http::Events;
use gate_tests::rest::{MOUNTS, Rest};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use serde_json::Value;

use super::kept::{kill, pid_of_daemon};
use super::with_daemon;

const STATUSES: [&str; 5] = ["stopped", "starting", "running", "stopping", "error"];

/// Who looks everywhere.
struct Onlooker<'a> {
    world: &'a World,
    rest: &'a Rest,
    events: Events,
    /// The id of the last event, and by what was told the status of each mount.
    last: String,
    told: BTreeMap<String, String>,
}

impl<'a> Onlooker<'a> {
    fn new(world: &'a World, rest: &'a Rest) -> Self {
        let (last, told) = (String::new(), BTreeMap::new());
        Self { world, rest, events: rest.events(None), last, told }
    }

    /// Listens again: another daemon is there, which says so.
    #[track_caller]
    fn come_back(&mut self) {
        self.events = self.rest.events(Some(&self.last));
        let resync = self.events.hear();
        assert_eq!(resync.name, "resync", "{resync:?}");
        (self.last, self.told) = (resync.id, BTreeMap::new());
    }

    /// Reads on in the stream until it has told of an error; returns its message.
    #[track_caller]
    fn hear_of_error(&mut self, id: &str) -> String {
        loop {
            let data = self.hear();
            if data["mount_id"] == *id && data["status"] == "error" {
                return data["error_message"].as_str().unwrap().to_owned();
            }
        }
    }

    fn hear(&mut self) -> Value {
        let event = self.events.hear();
        let word = |name: &str| event.data[name].as_str().unwrap().to_owned();
        self.told.insert(word("mount_id"), word("status"));
        self.last = event.id;
        event.data
    }

    /// Waits until mounts are shown so, wherever somebody may look.
    #[track_caller]
    fn sees(&mut self, expected: [(&str, &str); 2]) {
        let known = expected.map(|(id, status)| (id.to_owned(), status.to_owned()));
        let known = BTreeMap::from(known);
        while self.told != known {
            self.hear();
        }
        let statuses = |list: &Value| -> BTreeMap<String, String> {
            let word = |mount: &Value, name: &str| mount[name].as_str().unwrap().to_owned();
            let mounts = list["mounts"].as_array().unwrap().iter();
            mounts.map(|mount| (word(mount, "mount_id"), word(mount, "status"))).collect()
        };
        wait_until(SOON * 2, "a terminal shows it", || {
            let list = self.world.gate(["mount", "list", "--json"]).run().success();
            statuses(&serde_json::from_str(&list).unwrap()) == known
        });
        wait_until(SOON * 2, "REST tells it", || {
            statuses(&self.rest.ask("GET", MOUNTS).body) == known
        });
        let count = |of: &str| expected.iter().filter(|(_, status)| *status == of).count();
        let text = |path: &str| self.rest.ask("GET", path).body.as_str().unwrap().to_owned();
        wait_until(SOON * 2, "the figures count it", || {
            let figures = text("/metrics");
            STATUSES.iter().all(|status| {
                let line = format!("gate_mounts{{status=\"{status}\"}} {}", count(status));
                figures.lines().any(|told| told == line)
            })
        });
        wait_until(SOON * 2, "the board shows it", || {
            let page = text("/mounts");
            let chip = |status: &&str| page.matches(&format!("\"chip {status}\"")).count();
            STATUSES.iter().all(|status| chip(status) == count(status))
        });
    }
}

#[test]
fn whatever_becomes_of_two_kept_mounts_is_seen_wherever_somebody_looks() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let (world, rest) = with_daemon(standing);
        let mut looker = Onlooker::new(&world, &rest);
        world.script(world.home(), "mkdir first other").run().success();
        for words in [["first", "view"], ["other", "shown"]] {
            world.gate(["mount", "add", words[0], words[1], "--auto-mount"]).run().success();
        }
        let mounts = rest.ask("GET", MOUNTS).body["mounts"].clone();
        let [first, other] = [0, 1].map(|n| mounts[n]["mount_id"].as_str().unwrap().to_owned());
        looker.sees([(&first, "stopped"), (&other, "stopped")]);
        let both_run = [(&*first, "running"), (&*other, "running")];
        world.gate(["daemon", "stop"]).run().success();
        world.gate(["daemon", "start"]).run().success();
        looker.come_back();
        looker.sees(both_run);
        // Somebody writes all the while, and the daemon is killed, and started anew.
        let pids = [&first, &other].map(|id| rest.pid(id));
        let script = "n=0; exec 3> log; while test ! -e ../stop; do echo $n >&3 || exit 1; \
                      n=$((n+1)); done; echo $n";
        let script = script.replace("../stop", &world.home().join("stop").display().to_string());
        let writer = world.script(&world.view(), &script).start();
        let log = world.home().join("first/log");
        let goes_on = || {
            let before = fs::metadata(&log).map_or(0, |log| log.len());
            let grows = || fs::metadata(&log).is_ok_and(|log| log.len() > before);
            wait_until(SOON, "it writes", grows);
        };
        goes_on();
        kill(pid_of_daemon(&world));
        goes_on();
        world.gate(["daemon", "start"]).run().success();
        looker.come_back();
        looker.sees(both_run);
        world.await_held("log", 1);
        world.gate(["daemon", "restart"]).run().success();
        looker.come_back();
        looker.sees(both_run);
        world.await_held("log", 1);
        goes_on();
        assert_eq!([&first, &other].map(|id| rest.pid(id)), pids, "they were adopted");
        fs::write(world.home().join("stop"), "").unwrap();
        let written: usize = writer.finish(SOON).success().trim().parse().unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), written);
        fs::remove_file(world.home().join("stop")).unwrap();
        break_the_other(&world, &mut looker, standing, [&first, &other]);
        if standing == Standing::Runner {
            // A view dies under its writer: that one hears of it, and the next works.
            let writer = world.script(&world.view(), &script).start();
            goes_on();
            let pid = rest.pid(&first).unwrap();
            kill(pid);
            assert_ne!(writer.finish(SOON).code, Some(0), "who writes is told");
            let why = looker.hear_of_error(&first);
            assert!(why.contains(&format!("process {pid}, died")), "{why}");
            looker.sees(both_run);
            world.script(&world.view(), "echo again > log").run().success();
            assert_eq!(fs::read_to_string(&log).unwrap(), "again\n");
        }
        world.gate(["daemon", "stop"]).run().success();
        assert_eq!(fs::read_dir(world.view()).unwrap().count(), 0, "nothing fell through");
    }
}

/// One mount cannot be served any more, and can again; the first goes on.
fn break_the_other(
    world: &World,
    looker: &mut Onlooker<'_>,
    standing: Standing,
    [first, other]: [&str; 2],
) {
    let (away, back, why) = match standing {
        Standing::Runner => ("mv other away", "mv away other", "No such file"),
        _ => ("chmod 0 other", "chmod 700 other", "may not look into it"),
    };
    world.gate(["mount", "stop", other]).run().success();
    looker.sees([(first, "running"), (other, "stopped")]);
    world.script(world.home(), away).run().success();
    let refused = world.gate(["mount", "start", other]).run();
    assert!(refused.code == Some(1) && refused.stderr.contains(why), "{refused}");
    let told = looker.hear_of_error(other);
    assert!(told.contains(why), "{told}");
    looker.sees([(first, "running"), (other, "error")]);
    // It is tried again all the while, so it is not seen each time.
    wait_until(SOON * 2, "the board says why", || {
        looker.rest.ask("GET", "/mounts").body.as_str().unwrap().contains(why)
    });
    let says_why = |words: &[&str]| world.gate(words).run().stdout.contains(why);
    let asked: [&[&str]; 3] = [&["mount", "list"], &["status"], &["doctor"]];
    for words in asked {
        wait_until(SOON * 2, "a terminal says why", || says_why(words));
    }
    world.script(&world.view(), "echo text > f && rm f").run().success();
    world.script(world.home(), back).run().success();
    looker.sees([(first, "running"), (other, "running")]);
    for words in asked {
        assert!(!says_why(words), "{words:?}: it is over");
    }
}
