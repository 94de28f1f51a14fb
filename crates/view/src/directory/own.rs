//! What a view does to its source itself, told from what others do.
//!
//! inotify tells of both alike, and of several changes of one file as of one while nobody has read of
//! them. But who makes a change is told of it within the call. So a *deed* lasts until all was read
//! that was told while it was done: an event is the view's own if it is read while a deed lasts that
//! it tells of.
//!
//! What others do meanwhile to the content or the attributes of the same file is taken for the deed,
//! and still no watcher misses it: of the deed the kernel tells them itself when the view has
//! answered, which is later. Of what fails it tells nobody, so what was taken for that is others'
//! after all. What the kernel writes itself, past the view, is no deed, and told twice.

use std::ffi::{CStr, CString};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gate_fuse::{Errno, NodeId};
use rustc_hash::FxHashMap;

use super::Directory;
use super::watch::{EVENTS_ALL, EVENTS_ENOUGH, Notice};
use crate::nodes::Book as _;
use crate::source::{Happening, Heard, What};

#[derive(Debug, Default)]
pub(super) struct Own(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    deeds: FxHashMap<Deed, Lasting>,
    heard: Heard,
}

/// One change, as inotify tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Deed {
    /// Of a name in a directory.
    ToName(What, NodeId, CString),
    /// Of the content or the attributes of a node.
    ToNode(What, NodeId),
}

/// How often a deed is being done at the moment, and what was told of it. Each change of a name is
/// told, and once; those of a file's content or attributes may be told as one.
#[derive(Debug, Default)]
struct Lasting {
    times: usize,
    told: Vec<Happening>,
}

/// The view does something. If this is dropped, it was not done.
#[derive(Debug)]
pub struct Doing<'a> {
    directory: &'a Directory,
    deeds: Vec<Deed>,
}

impl Deed {
    /// A rename is told as two halves.
    pub fn rename(from: (NodeId, &CStr), to: (NodeId, &CStr)) -> [Deed; 2] {
        let half = |what, (directory, name): (NodeId, &CStr)| {
            Deed::ToName(what, directory, name.to_owned())
        };
        [half(What::MovedFrom, from), half(What::MovedTo, to)]
    }

    pub fn exchange(one: (NodeId, &CStr), other: (NodeId, &CStr)) -> Vec<Deed> {
        [Deed::rename(one, other), Deed::rename(other, one)].concat()
    }
}

impl Directory {
    /// Returns what was told since this was last asked.
    pub fn heard(&self) -> Heard {
        let mut notes = self.own.lock();
        self.hear(&mut notes, EVENTS_ENOUGH);
        std::mem::take(&mut notes.heard)
    }

    /// Begins to change what is in a file.
    pub fn begin_to_write(&self, node: NodeId) -> Doing<'_> {
        self.begin([Deed::ToNode(What::Written, node)])
    }

    /// Does what these tell of.
    pub(super) fn doing<T>(
        &self,
        deeds: impl IntoIterator<Item = Deed>,
        act: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let doing = self.begin(deeds);
        let done = act()?;
        doing.done();
        Ok(done)
    }

    fn begin(&self, deeds: impl IntoIterator<Item = Deed>) -> Doing<'_> {
        let is_told = self.watches.is_some();
        let deeds: Vec<Deed> = deeds.into_iter().filter(|_| is_told).collect();
        deeds.iter().for_each(|deed| self.own.lock().begin(deed));
        Doing { directory: self, deeds }
    }

    /// Reads what was told until now, of at most about so many events.
    fn hear(&self, notes: &mut Notes, most: usize) {
        let Some(watches) = &self.watches else { return };
        watches.read(most, |notice| {
            notes.heard.change(notice.change());
            if let Notice::Happening(happening) = notice
                && happening.what != What::Closed
            {
                let deed = self.deed_of(&happening);
                notes.happened(happening, deed);
            }
        });
    }

    /// What the view would be doing if this were its own; `None` if it knows nothing of it.
    fn deed_of(&self, Happening { directory, name, what, .. }: &Happening) -> Option<Deed> {
        if what.is_of_name() {
            return Some(Deed::ToName(*what, *directory, name.clone()));
        }
        Some(Deed::ToNode(*what, self.nodes.known(*directory, name)?))
    }

    /// Notes something, and has it looked at.
    fn note(&self, note: impl FnOnce(&mut Notes)) {
        let mut notes = self.own.lock();
        let was_quiet = notes.heard.is_nothing();
        note(&mut notes);
        if let Some(watches) = &self.watches
            && was_quiet
            && !notes.heard.is_nothing()
        {
            watches.ring();
        }
    }
}

impl Doing<'_> {
    /// It was done.
    pub fn done(mut self) {
        let deeds = std::mem::take(&mut self.deeds);
        self.directory.note(|notes| {
            self.directory.hear(notes, EVENTS_ALL);
            deeds.iter().for_each(|deed| notes.end(deed));
        });
    }
}

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        if !self.deeds.is_empty() {
            self.directory.note(|notes| self.deeds.iter().for_each(|deed| notes.take_back(deed)));
        }
    }
}

impl Own {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn begin(&mut self, deed: &Deed) {
        self.deeds.entry(deed.clone()).or_default().times += 1;
    }

    fn happened(&mut self, happening: Happening, deed: Option<Deed>) {
        let is_of_name = happening.what.is_of_name();
        match deed.and_then(|deed| self.deeds.get_mut(&deed)) {
            Some(lasting) if lasting.told.len() < lasting.times => lasting.told.push(happening),
            Some(_) if !is_of_name => {}
            Some(_) | None => self.heard.others_did(happening),
        }
    }

    /// A deed was done.
    fn end(&mut self, deed: &Deed) {
        self.one_less(deed, |lasting| drop(lasting.told.pop()));
    }

    /// A deed was not done: what was told of it is what others did.
    fn take_back(&mut self, deed: &Deed) {
        self.one_less(deed, |_| {});
    }

    fn one_less(&mut self, deed: &Deed, take: impl FnOnce(&mut Lasting)) {
        let Some(lasting) = self.deeds.get_mut(deed) else { return };
        take(lasting);
        lasting.times -= 1;
        let kept = lasting.times.min(lasting.told.len());
        let of_others = lasting.told.split_off(kept);
        if lasting.times == 0 {
            self.deeds.remove(deed);
        }
        of_others.into_iter().for_each(|happening| self.heard.others_did(happening));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use gate_fuse::{HandleId, Write};

    use super::*;
    use crate::source::File as _;

    const WRONLY: u32 = libc::O_WRONLY.cast_unsigned();

    /// A source with one file.
    struct World {
        bare: tempfile::TempDir,
        directory: Directory,
        file: NodeId,
    }

    impl World {
        fn new() -> World {
            let bare = tempfile::tempdir().unwrap();
            fs::write(bare.path().join("f"), "").unwrap();
            let directory = Directory::new(fs::File::open(bare.path()).unwrap(), 1).unwrap();
            let file = directory.lookup(NodeId::ROOT, c"f").unwrap().node;
            World { bare, directory, file }
        }

        fn write_beside(&self) {
            fs::write(self.bare.path().join("f"), "beside").unwrap();
        }

        fn write(&self) {
            let file = self.directory.open(self.file, WRONLY, false).unwrap();
            let doing = self.directory.begin_to_write(self.file);
            let (handle, data) = (HandleId(0), b"here".as_slice());
            let write =
                Write { handle, offset: 0, data, flags: 0, cached: false, kill_suidgid: false };
            file.write(&write).unwrap();
            doing.done();
        }

        fn by_others(&self) -> Vec<What> {
            let happened = self.directory.heard().by_others;
            happened.into_iter().map(|happening| happening.what).collect()
        }
    }

    /// Else the kernel would tell of both as of one.
    #[test]
    fn what_is_written_here_is_told_from_what_is_written_next_elsewhere() {
        let world = World::new();
        for _ in 0..3 {
            world.write();
            assert_eq!(world.by_others(), []);
            world.write();
            world.write_beside();
            assert_eq!(world.by_others(), [What::Written]);
        }
        assert!(world.directory.own.lock().deeds.is_empty());
    }

    #[test]
    fn what_fails_here_was_done_by_others() {
        let world = World::new();
        let doing = world.directory.begin_to_write(world.file);
        world.write_beside();
        assert_eq!(world.by_others(), [], "taken for the deed");
        drop(doing);
        assert_eq!(world.by_others(), [What::Written]);
        fs::write(world.bare.path().join("n"), "").unwrap();
        let deed = Deed::ToName(What::Made, NodeId::ROOT, c"n".to_owned());
        let failed: Result<(), _> = world.directory.doing([deed], || Err(Errno::EXIST));
        assert_eq!(failed, Err(Errno::EXIST));
        assert_eq!(world.by_others(), [What::Made]);
        assert!(world.directory.own.lock().deeds.is_empty());
    }

    /// Somebody makes and removes it, then the view makes it.
    #[test]
    fn of_the_changes_of_a_name_a_deed_is_one() {
        let world = World::new();
        let path = world.bare.path().join("n");
        fs::create_dir(&path).unwrap();
        fs::remove_dir(&path).unwrap();
        let deed = Deed::ToName(What::Made, NodeId::ROOT, c"n".to_owned());
        let made = || fs::create_dir(&path).map_err(|_| Errno::EXIST);
        world.directory.doing([deed], made).unwrap();
        let told = world.by_others();
        assert_eq!(told, [What::Gone, What::Made], "what is there was told last");
    }
}
