//! Which contents of files each agent has seen: pure, no I/O.
//!
//! A file's content has a *version*, a number that no other content ever had. A version ends when
//! a writer of this view lets go, when somebody truncates the file, and when it is found with
//! another [`Stamp`] than it was left with: then others wrote, through another view or beside
//! all. An agent has seen a version if it opened the file to read it, or if it made it out of
//! one that it had seen, or out of nothing. All of this is bounded; what was forgotten was not
//! seen.

use std::sync::Arc;

use crate::agent::Agent;
use crate::directory::{Inode, Sighting, Stamp};
use crate::recent::Recent;

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub agents_max: usize,
    pub files_max: usize,
    pub files_per_agent_max: usize,
}

/// What a view remembers: some 10 MiB if it is full.
pub(crate) const BOUNDS: Bounds =
    Bounds { agents_max: 64, files_max: 131_072, files_per_agent_max: 32_768 };

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Memory {
    files: Recent<Inode, File>,
    agents: Recent<Arc<Agent>, Recent<Inode, Version>>,
    newest: Version,
    bounds: Bounds,
}

/// Whether a handle of this view may be writing a file right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    None,
    /// Then another stamp tells nothing of others.
    Some,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64);

#[derive(Clone, Copy, Debug)]
struct File {
    stamp: Stamp,
    version: Version,
}

impl Memory {
    pub fn new(bounds: Bounds) -> Memory {
        Memory {
            files: Recent::of_at_most(bounds.files_max),
            agents: Recent::of_at_most(bounds.agents_max),
            newest: Version(0),
            bounds,
        }
    }

    /// Returns whether an agent has seen what a file holds.
    pub fn has_seen(&mut self, agent: &Arc<Agent>, now: Sighting, writers: Writers) -> bool {
        let version = self.version_of(now, writers);
        self.seen_by(agent, now.file) == Some(version)
    }

    /// Notes that a file is opened to be read.
    pub fn opened_to_read(&mut self, agent: &Arc<Agent>, now: Sighting, writers: Writers) {
        let version = self.version_of(now, writers);
        self.remember(agent, now.file, version);
    }

    /// Notes that a file is opened to be written, and not to be read.
    pub fn opened_to_write(&mut self, now: Sighting, writers: Writers) {
        self.version_of(now, writers);
    }

    /// Notes that a file holds nothing, made or emptied by an agent.
    pub fn emptied(&mut self, agent: &Arc<Agent>, now: Sighting) {
        let version = self.renew(now);
        self.remember(agent, now.file, version);
    }

    /// Notes that a writer has changed a file: one that had seen it before has seen it now.
    pub fn changed(&mut self, agent: Option<&Arc<Agent>>, now: Sighting) {
        let Some(before) = self.files.get(&now.file).map(|file| file.version) else {
            return; // Nobody has seen it.
        };
        let writer = agent.filter(|agent| self.seen_by(agent, now.file) == Some(before));
        let version = self.renew(now);
        if let Some(agent) = writer {
            self.remember(agent, now.file, version);
        }
    }

    /// Notes that the times of a file were set, and nothing else.
    pub fn times_set(&mut self, before: Sighting, after: Sighting) {
        if let Some(file) = self.files.get(&before.file)
            && file.stamp == before.stamp
        {
            file.stamp = after.stamp;
        }
    }

    fn version_of(&mut self, now: Sighting, writers: Writers) -> Version {
        match self.files.get(&now.file) {
            Some(file) if file.stamp == now.stamp || writers == Writers::Some => {
                file.stamp = now.stamp;
                file.version
            }
            Some(_) | None => self.renew(now),
        }
    }

    fn renew(&mut self, now: Sighting) -> Version {
        self.newest.0 += 1;
        let version = self.newest;
        self.files.insert(now.file, File { stamp: now.stamp, version });
        version
    }

    fn seen_by(&mut self, agent: &Arc<Agent>, file: Inode) -> Option<Version> {
        self.agents.get(agent)?.get(&file).copied()
    }

    fn remember(&mut self, agent: &Arc<Agent>, file: Inode, version: Version) {
        if let Some(seen) = self.agents.get(agent) {
            return seen.insert(file, version);
        }
        let mut seen = Recent::of_at_most(self.bounds.files_per_agent_max);
        seen.insert(file, version);
        self.agents.insert(agent.clone(), seen);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    const FILES: u64 = 4;
    const AGENTS: usize = 3;

    /// What somebody does to a file.
    #[derive(Clone, Debug)]
    enum Act {
        Read {
            agent: usize,
        },
        /// `O_TRUNC` or a creation, then some writing.
        Overwrite {
            agent: usize,
        },
        /// Opened without reading, as for `>>`.
        Append {
            agent: usize,
        },
        /// Opened to read and write.
        Edit {
            agent: usize,
        },
        /// As Edit, and the program opens the file once more while it writes.
        EditTwice {
            agent: usize,
        },
        /// An ordinary process of this view.
        Ordinary,
        /// Beside this view: seen by nothing but the stamp.
        Beside,
        Touch,
    }

    /// The source and who saw what, as one would write it down: each content has a number.
    #[derive(Default)]
    struct Model {
        content: HashMap<u64, u64>,
        seen: HashMap<usize, HashSet<u64>>,
        contents: u64,
    }

    impl Model {
        fn now(&mut self, file: u64) -> u64 {
            if !self.content.contains_key(&file) {
                self.write(file);
            }
            self.content[&file]
        }

        fn write(&mut self, file: u64) -> u64 {
            self.contents += 1;
            self.content.insert(file, self.contents);
            self.contents
        }

        fn has_seen(&mut self, agent: usize, file: u64) -> bool {
            let now = self.now(file);
            self.seen.entry(agent).or_default().contains(&now)
        }

        fn see(&mut self, agent: usize, content: u64) {
            self.seen.entry(agent).or_default().insert(content);
        }
    }

    struct World {
        memory: Memory,
        model: Model,
        stamps: HashMap<u64, i64>,
        agents: Vec<Arc<Agent>>,
    }

    impl World {
        fn new(bounds: Bounds) -> World {
            let agents = ["ada", "bob", "eve"].map(Agent::called);
            let (model, stamps) = (Model::default(), HashMap::new());
            World { memory: Memory::new(bounds), model, stamps, agents: agents.into() }
        }

        fn sighting(&self, file: u64) -> Sighting {
            let modified = (self.stamps.get(&file).copied().unwrap_or(0), 0);
            Sighting {
                file: Inode { device: (0, 1), number: file },
                stamp: Stamp { born: (0, 0), modified, size: 1 },
            }
        }

        /// The clock of the source ticks only now and then.
        fn tick(&mut self, file: u64, ticks: bool) {
            *self.stamps.entry(file).or_default() += i64::from(ticks);
        }

        fn act(&mut self, file: u64, act: &Act, ticks: bool) {
            match *act {
                Act::Read { agent } => {
                    let now = self.sighting(file);
                    self.memory.opened_to_read(&self.agents[agent], now, Writers::None);
                    let content = self.model.now(file);
                    self.model.see(agent, content);
                }
                Act::Overwrite { agent } => {
                    self.tick(file, ticks);
                    let opened = self.sighting(file);
                    self.memory.emptied(&self.agents[agent], opened);
                    self.let_go(Some(agent), file, ticks);
                    let content = self.model.write(file);
                    self.model.see(agent, content);
                }
                Act::Append { agent } => {
                    let knew = self.model.has_seen(agent, file);
                    self.memory.opened_to_write(self.sighting(file), Writers::None);
                    self.let_go(Some(agent), file, ticks);
                    let content = self.model.write(file);
                    if knew {
                        self.model.see(agent, content);
                    }
                }
                Act::Edit { agent } | Act::EditTwice { agent } => {
                    let now = self.sighting(file);
                    self.memory.opened_to_read(&self.agents[agent], now, Writers::None);
                    if let Act::EditTwice { .. } = act {
                        self.tick(file, ticks);
                        let now = self.sighting(file);
                        self.memory.opened_to_read(&self.agents[agent], now, Writers::Some);
                        self.let_go(Some(agent), file, ticks);
                    }
                    self.let_go(Some(agent), file, ticks);
                    let content = self.model.write(file);
                    self.model.see(agent, content);
                }
                Act::Ordinary => {
                    self.let_go(None, file, ticks);
                    self.model.write(file);
                }
                Act::Beside => {
                    self.tick(file, true);
                    self.model.write(file);
                }
                Act::Touch => {
                    let before = self.sighting(file);
                    self.tick(file, true);
                    self.memory.times_set(before, self.sighting(file));
                }
            }
        }

        fn let_go(&mut self, agent: Option<usize>, file: u64, ticks: bool) {
            self.tick(file, ticks);
            let now = self.sighting(file);
            self.memory.changed(agent.map(|agent| &self.agents[agent]), now);
        }

        fn answers(&mut self, agent: usize, file: u64) -> (bool, bool) {
            let now = self.sighting(file);
            let told = self.memory.has_seen(&self.agents[agent], now, Writers::None);
            (told, self.model.has_seen(agent, file))
        }
    }

    fn act((kind, agent): (u8, usize)) -> Act {
        match kind {
            0 => Act::Read { agent },
            1 => Act::Overwrite { agent },
            2 => Act::Append { agent },
            3 => Act::Edit { agent },
            4 => Act::EditTwice { agent },
            5 => Act::Ordinary,
            6 => Act::Beside,
            _ => Act::Touch,
        }
    }

    fn story() -> impl Strategy<Value = Vec<(u64, Act, bool)>> {
        let act = (0..8_u8, 0..AGENTS).prop_map(act);
        prop::collection::vec((0..FILES, act, any::<bool>()), 1..40)
    }

    proptest! {
        #[test]
        fn an_agent_has_seen_what_the_model_says(story in story()) {
            let mut world = World::new(BOUNDS);
            for (file, act, ticks) in &story {
                world.act(*file, act, *ticks);
                for agent in 0..AGENTS {
                    let (told, truth) = world.answers(agent, *file);
                    prop_assert_eq!(told, truth, "agent {} file {}", agent, file);
                }
            }
        }

        #[test]
        fn what_was_forgotten_counts_as_unseen(story in story()) {
            let tiny = Bounds { agents_max: 2, files_max: 2, files_per_agent_max: 2 };
            let mut world = World::new(tiny);
            for (file, act, ticks) in &story {
                world.act(*file, act, *ticks);
                for agent in 0..AGENTS {
                    let (told, truth) = world.answers(agent, *file);
                    prop_assert!(truth || !told, "agent {} file {}", agent, file);
                }
            }
        }
    }

    #[test]
    fn two_writes_within_one_tick_are_two_versions() {
        let mut world = World::new(BOUNDS);
        world.act(1, &Act::Read { agent: 0 }, false);
        world.act(1, &Act::Overwrite { agent: 1 }, false);
        assert_eq!(world.answers(0, 1), (false, false));
        assert_eq!(world.answers(1, 1), (true, true));
    }
}
