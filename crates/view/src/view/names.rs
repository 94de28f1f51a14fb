//! Changes of names, each in its turn.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Duration;

use gate_core::lock::event::Change;
use gate_core::lock::want::{Node, Op, Place};
use gate_core::path::ViewPath;
use gate_fuse::{Caller, Entry, Errno, NodeId, Reply};
use rustix::fs::FileType;

use super::files::Named;
use super::{View, valid};
use crate::agent::Agent;
use crate::directory::{Directory, Sighting};
use crate::guard::{Overwrite, Victim};
use crate::park::Check;
use crate::room;
use crate::source::{Found, Make, Who};
use crate::turn::{Round, Run, Turn};

/// A node to be made, with its name.
#[derive(Clone, Debug)]
pub(super) enum New {
    Directory { mode: u32, umask: u32 },
    Node { mode: u32, umask: u32, rdev: u32 },
    Symlink { target: CString },
}

/// A rename as asked.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub from: (NodeId, CString),
    pub to: (NodeId, CString),
    pub flags: u32,
}

impl Move {
    /// Begins a rename over a file: both change places.
    fn swap(&self, bare: &Directory) -> Result<(), Errno> {
        let ((from, old), (to, new)) = (&self.from, &self.to);
        bare.swap((*from, old), (*to, new))
    }
}

impl View {
    /// Finds a name; waits a little, so many times at most, while descriptors run out.
    pub(super) fn lookup(&self, parent: NodeId, name: &CStr, tries: u32, reply: Reply) {
        if tries == room::TRIES && self.room.is_pressed(self.source.book().population()) {
            return self.lookup_later(parent, name, tries, reply);
        }
        match self.source.lookup(parent, name) {
            Ok(found) => reply.entry(&self.entry(&found)),
            Err(Errno::NOENT) => reply.no_entry(valid(self.source.is_watched(parent))),
            Err(Errno::MFILE) if tries > 0 && !self.room.is_barren() => {
                self.room.make();
                self.lookup_later(parent, name, tries, reply);
            }
            Err(errno) => reply.error(errno),
        }
    }

    /// Not in this thread: it is needed for what the kernel forgets.
    fn lookup_later(&self, parent: NodeId, name: &CStr, tries: u32, reply: Reply) {
        let (view, name) = (self.itself(), name.to_owned());
        let again = move || view.lookup(parent, &name, tries - 1, reply);
        self.timer.after(room::pause(tries), again);
    }

    /// Finds a name that is listed, while there is room.
    pub(super) fn find_listed(&self, parent: NodeId, name: &CStr) -> Option<Entry> {
        if self.room.is_scarce(self.source.book().population()) {
            return None;
        }
        self.source.lookup(parent, name).ok().map(|found| self.entry(&found))
    }

    pub(super) fn make(&self, caller: Caller, parent: NodeId, name: &CStr, new: New, reply: Reply) {
        let op = match new {
            New::Directory { .. } => Op::Mkdir,
            New::Node { .. } => Op::Mknod,
            New::Symlink { .. } => Op::Symlink,
        };
        let is_socket = matches!(&new, New::Node { mode, .. }
            if FileType::from_raw_mode(*mode) == FileType::Socket);
        let asker = self.asker(caller.tid);
        let want = self.want(op, vec![self.place_to_make(parent, name)]);
        let new_name = name.to_owned();
        let run = move |view: &View, reply: Reply, turn: Turn, _: Round| {
            let made = view.make_now(&caller, parent, &new_name, &new);
            view.end_turn(turn, None);
            view.answer_entry(made, reply);
        };
        match want {
            // bind(2) is not issued again after ESTALE.
            Some(want) if is_socket => {
                self.ask_under_lock(self.ask(&asker, want), reply, Box::new(run));
            }
            want => {
                let (name, check) = (name.to_owned(), absent(parent, name));
                let named = Named { parents: [parent; 2], name, want, anew: None, check };
                self.in_turn(&asker, named, reply, Box::new(run));
            }
        }
    }

    fn make_now(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &CStr,
        new: &New,
    ) -> Result<Found, Errno> {
        match new {
            New::Directory { mode, umask } => {
                let make = Make { caller, mode: *mode, umask: *umask };
                self.source.mkdir(parent, name, &make)
            }
            New::Node { mode, umask, rdev } => {
                let make = Make { caller, mode: *mode, umask: *umask };
                self.source.mknod(parent, name, &make, *rdev)
            }
            New::Symlink { target } => self.source.symlink(parent, name, target, caller),
        }
    }

    pub(super) fn link(
        &self,
        caller: Caller,
        existing: NodeId,
        (parent, name): (NodeId, &CStr),
        reply: Reply,
    ) {
        let asker = self.asker(caller.tid);
        let places = vec![self.place_of_node(existing), self.place_to_make(parent, name)];
        let want = self.want(Op::Link, places);
        let new_name = name.to_owned();
        let run = move |view: &View, reply: Reply, turn: Turn, _: Round| {
            let made = view.source.link(existing, parent, &new_name);
            view.end_turn(turn, None);
            view.answer_entry(made, reply);
        };
        let (name, check) = (name.to_owned(), absent(parent, name));
        let named = Named { parents: [parent; 2], name, want, anew: None, check };
        self.in_turn(&asker, named, reply, Box::new(run));
    }

    pub(super) fn unlink(&self, caller: Caller, parent: NodeId, name: &CStr, reply: Reply) {
        self.remove(caller, parent, name, Op::Unlink, reply);
    }

    pub(super) fn rmdir(&self, caller: Caller, parent: NodeId, name: &CStr, reply: Reply) {
        self.remove(caller, parent, name, Op::Rmdir, reply);
    }

    fn remove(&self, caller: Caller, parent: NodeId, name: &CStr, op: Op, reply: Reply) {
        let asker = self.asker(caller.tid);
        let place = self.place_of_name(parent, name);
        let stood = place.as_ref().map(|place| place.node);
        let gone = name.to_owned();
        let run: Run = Box::new(move |view, reply, turn, round| {
            let place = view.place_of_name(parent, &gone);
            if turn != Turn::Ungated && place.as_ref().map(|place| place.node) != stood {
                // Another file has the name by now: its turn is another one.
                return view.again((turn, round), reply, move |view, reply| {
                    view.remove(caller, parent, &gone, op, reply);
                });
            }
            let removed = match op {
                Op::Rmdir => view.source.rmdir(parent, &gone),
                _ => view.source.unlink(parent, &gone),
            };
            let change = removed.ok().and_then(|()| removal(place?));
            view.end_turn(turn, change);
            answer(removed, reply);
        });
        let gone = name.to_owned();
        let anew = move |view: &View| view.want(op, vec![view.place_of_name(parent, &gone)]);
        let named = Named {
            parents: [parent; 2],
            name: name.to_owned(),
            want: self.want(op, vec![place]),
            anew: Some(Arc::new(anew)),
            check: removable(parent, name, op),
        };
        self.in_turn(&asker, named, reply, run);
    }

    pub(super) fn rename(&self, caller: Caller, names: Move, reply: Reply) {
        let asker = self.asker(caller.tid);
        let (agent, who) = (asker.agent.clone(), asker.who());
        let places = self.places_of(&names);
        let stood = kinds(&places);
        let moved = names.clone();
        let run: Run = Box::new(move |view, reply, turn, round| {
            let places = view.places_of(&moved);
            if turn != Turn::Ungated && kinds(&places) != stood {
                return view.again((turn, round), reply, move |view, reply| {
                    view.rename(caller, moved, reply);
                });
            }
            let kinds = kinds(&places);
            if moved.flags != 0 || kinds[0] == kinds[1] {
                return view.rename_now(&moved, &who, reply, turn);
            }
            let (parent, name) = moved.to.clone();
            let victim = Victim::Name(parent, name);
            let is_file = matches!(kinds[0], Some(Node::File(_)));
            let by = agent.clone();
            let overwrite = Overwrite { agent, op: Op::Rename, victim, stay: 0 };
            view.overwrite(overwrite, (turn, reply), move |view, reply, turn, judged| {
                match (judged.filter(|_| is_file), &view.bare) {
                    (Some(judged), Some(bare)) if moved.swap(bare).is_ok() => {
                        view.replaced((by, judged), (bare, moved), reply, turn);
                    }
                    // Nothing is to be lost, it is gone, or the file system cannot do that.
                    _ => view.rename_now(&moved, &who, reply, turn),
                }
            });
        });
        let moved = names.clone();
        let anew = move |view: &View| view.want(Op::Rename, view.places_of(&moved));
        let named = Named {
            parents: [names.from.0, names.to.0],
            name: names.from.1.clone(),
            want: self.want(Op::Rename, places),
            anew: Some(Arc::new(anew)),
            check: movable(&names),
        };
        self.in_turn(&asker, named, reply, run);
    }

    /// Ends a rename over a file that the guard has looked at.
    ///
    /// Beside the view nobody takes turns, and what was looked at may have been replaced since; so they
    /// have changed places, and what is at the other name then was replaced.
    fn replaced(
        &self,
        (agent, judged): (Option<Arc<Agent>>, Sighting),
        (bare, names): (&Arc<Directory>, Move),
        reply: Reply,
        turn: Turn,
    ) {
        let (from, old) = &names.from;
        let replaced = bare.pin_name(*from, old);
        let is_judged = replaced.is_ok_and(|replaced| replaced.sighting == judged);
        let victim = Victim::Moved(names.from.clone(), names.to.clone());
        let bare = bare.clone();
        let done = move |view: &View| {
            let ((from, old), (to, new)) = (&names.from, &names.to);
            let removed = bare.drop_swapped((*from, old), (*to, new));
            let change = view.change_of(&names);
            view.end_turn(turn, change);
            answer(removed, reply);
        };
        if is_judged {
            return done(self);
        }
        self.overwritten(Overwrite { agent, op: Op::Rename, victim, stay: 0 }, done);
    }

    fn rename_now(&self, names: &Move, by: &Who, reply: Reply, turn: Turn) {
        let (from, to) = (&names.from, &names.to);
        let renamed = self.source.rename((from.0, &from.1), (to.0, &to.1), names.flags, by);
        let change = renamed.ok().and_then(|()| self.change_of(names));
        self.end_turn(turn, change);
        answer(renamed, reply);
    }

    fn places_of(&self, names: &Move) -> Vec<Option<Place>> {
        let place = |(parent, name): &(NodeId, CString)| self.place_of_name(*parent, name);
        let (from, mut to) = (place(&names.from), place(&names.to));
        if let (Some(from), Some(to)) = (&from, &mut to)
            && (from.node, to.node) == (Node::Directory, Node::None)
        {
            // It will be one.
            to.node = Node::Directory;
        }
        vec![from, to]
    }

    /// Returns what a rename did to names: also those that are not gated may be announced.
    fn change_of(&self, names: &Move) -> Option<Change> {
        let space = self.settings.space;
        let path = |(parent, name): &(NodeId, CString)| {
            ViewPath::parse(&self.path_in(*parent, name)?).ok()
        };
        let (from, to) = (path(&names.from)?, path(&names.to)?);
        Some(if names.flags & libc::RENAME_EXCHANGE != 0 {
            Change::Exchanged { space, one: from, other: to }
        } else {
            Change::Renamed { space, from, to }
        })
    }

    /// Gives a turn back that was for something else than what is there now, and asks anew; a
    /// call that was issued again already cannot.
    fn again(&self, (turn, round): (Turn, Round), reply: Reply, ask: impl FnOnce(&View, Reply)) {
        self.end_turn(turn, None);
        match round {
            Round::First => ask(self, reply),
            Round::Last => reply.error(Errno::AGAIN),
        }
    }

    pub(super) fn must_not_exist(&self, parent: NodeId, name: &CStr) -> Result<(), Errno> {
        match self.source.peek(parent, name) {
            Ok(_) => Err(Errno::EXIST),
            Err(_) => Ok(()),
        }
    }

    fn answer_entry(&self, found: Result<Found, Errno>, reply: Reply) {
        match found {
            // Its turn is over: others may change it before the kernel takes the answer.
            Ok(found) => reply.entry(&Entry { attr_valid: Duration::ZERO, ..self.entry(&found) }),
            Err(errno) => reply.error(errno),
        }
    }
}

fn removal(place: Place) -> Option<Change> {
    Some(Change::Removed { space: place.space, path: place.path? })
}

fn kinds(places: &[Option<Place>]) -> Vec<Option<Node>> {
    places.iter().map(|place| place.as_ref().map(|place| place.node)).collect()
}

pub(super) fn answer(done: Result<(), Errno>, reply: Reply) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn absent(parent: NodeId, name: &CStr) -> Check {
    let name = name.to_owned();
    Box::new(move |view| view.must_not_exist(parent, &name))
}

fn removable(parent: NodeId, name: &CStr, op: Op) -> Check {
    let name = name.to_owned();
    Box::new(move |view| {
        view.source.peek(parent, &name)?;
        if op == Op::Rmdir && !view.source.is_empty(parent, &name)? {
            return Err(Errno::NOTEMPTY);
        }
        Ok(())
    })
}

fn movable(names: &Move) -> Check {
    let names = names.clone();
    Box::new(move |view| {
        view.source.peek(names.from.0, &names.from.1)?;
        if names.flags & libc::RENAME_NOREPLACE != 0 {
            view.must_not_exist(names.to.0, &names.to.1)?;
        }
        Ok(())
    })
}
