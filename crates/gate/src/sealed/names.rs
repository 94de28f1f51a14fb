//! Names in a bucket: what comes, goes and is listed; and extended attributes.

use std::ffi::{CStr, CString};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use gate_bucket::live::{IfThere, Live, Saved, Seer};
use gate_core::tree::op::Name;
use gate_core::tree::shown::Directory;
use gate_fuse::{DirEntry, Errno, NodeId};
use gate_view::source::{Listing, SetXattr, Who};
use rustix::fs::{FileType, RenameFlags, XattrFlags};

use super::faces::Faces;
use super::node::Leaf;
use super::{Sealed, c_string, errno_of, is_litter};
use gate_view::nodes::Anchor as _;

/// The extended attributes that a bucket carries: those of users.
const CARRIED: &[u8] = b"user.";

/// A directory of a bucket, open.
pub struct Open {
    live: Arc<Live>,
    faces: Arc<Faces>,
    directory: Directory,
    entries: Mutex<Option<Vec<Entry>>>,
    own: u64,
    above: u64,
}

struct Entry {
    name: CString,
    ino: u64,
    kind: FileType,
}

impl Open {
    pub fn new(
        (live, faces): (&Arc<Live>, &Arc<Faces>),
        directory: Directory,
        own: u64,
        above: u64,
    ) -> Open {
        let (live, faces) = (Arc::clone(live), Arc::clone(faces));
        Open { live, faces, directory, entries: Mutex::default(), own, above }
    }

    fn read(&self) -> Result<Vec<Entry>, Errno> {
        let list = self.live.list(&self.directory).map_err(errno_of)?;
        let mut entries = Vec::with_capacity(list.len() + 2);
        for (name, ino) in [(c".", self.own), (c"..", self.above)] {
            entries.push(Entry { name: name.to_owned(), ino, kind: FileType::Directory });
        }
        for shown in list {
            let kind = self.live.kind(&shown.what).map_err(errno_of)?;
            let face = self.faces.of(shown.what.file());
            let leaf = Leaf::new(shown.what, face, &kind);
            let (name, ino, kind) = (c_string(&shown.name), leaf.ino(), leaf.kind());
            entries.push(Entry { name, ino, kind });
        }
        Ok(entries)
    }
}

impl Listing for Open {
    fn visit(
        &self,
        mark: u64,
        take: &mut dyn FnMut(&DirEntry<'_>, &CStr) -> bool,
    ) -> Result<(), Errno> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Who begins anew sees what is there by now.
        if mark == 0 || entries.is_none() {
            *entries = Some(self.read()?);
        }
        let entries = entries.as_deref().unwrap_or_default();
        for (offset, entry) in (1..).zip(entries).skip(usize::try_from(mark).unwrap_or(usize::MAX))
        {
            let Entry { name, ino, kind } = entry;
            let kind = (kind.as_raw_mode() >> 12) as u8;
            let shown = DirEntry { ino: *ino, offset, kind, name: name.to_bytes() };
            if !take(&shown, name) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self, _data_only: bool) -> Result<(), Errno> {
        self.live.sync().map_err(|error| errno_of(error.into()))
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open {:?}", self.directory)
    }
}

/// Whom a bucket takes somebody for.
pub fn seer(who: &Who) -> Seer {
    let mut hasher = DefaultHasher::new();
    who.hash(&mut hasher);
    Seer(hasher.finish())
}

impl Sealed {
    /// Returns where something new is to be put.
    pub(super) fn new_place(
        &self,
        parent: NodeId,
        name: &CStr,
    ) -> Result<(Directory, Name), Errno> {
        if is_litter(name.to_bytes()) { Err(Errno::PERM) } else { self.place(parent, name) }
    }

    pub(super) fn remove(
        &self,
        parent: NodeId,
        name: &CStr,
        is_directory: bool,
    ) -> Result<(), Errno> {
        let (directory, checked) = self.place(parent, name)?;
        let node = self.nodes.child((parent, name.to_bytes()));
        self.live.remove(&directory, &checked, is_directory).map_err(errno_of)?;
        self.changed(node);
        self.changed(Some(parent));
        self.nodes.unlinked((parent, name.to_bytes()));
        Ok(())
    }

    pub(super) fn give_name(
        &self,
        (parent, name): (NodeId, &CStr),
        (to, to_name): (NodeId, &CStr),
        flags: u32,
        by: &Who,
    ) -> Result<(), Errno> {
        let if_there = match RenameFlags::from_bits_retain(flags) {
            flags if flags.is_empty() && self.faces.has_room() => IfThere::Succeed,
            flags if flags.is_empty() => IfThere::Replace,
            RenameFlags::NOREPLACE => IfThere::Refuse,
            RenameFlags::EXCHANGE => IfThere::Exchange,
            _ => return Err(Errno::INVAL),
        };
        let (from, checked) = self.place(parent, name)?;
        let (directory, to_checked) = self.new_place(to, to_name)?;
        let (one, other) = ((parent, name.to_bytes()), (to, to_name.to_bytes()));
        let known = [self.nodes.child(one), self.nodes.child(other), Some(parent), Some(to)];
        let (place, to_place) = ((&from, &checked), (&directory, &to_checked));
        let rename = || self.live.rename(place, to_place, if_there, seer(by)).map_err(errno_of);
        self.keep_apart([known[0], known[1]], rename)?;
        known.into_iter().for_each(|node| self.changed(node));
        match if_there {
            IfThere::Exchange => self.nodes.exchanged(one, other),
            IfThere::Succeed | IfThere::Replace | IfThere::Refuse => self.nodes.renamed(one, other),
        }
        Ok(())
    }

    /// Renames, and lets the two nodes stand for what they are then, in one step for whoever looks at them.
    fn keep_apart(
        &self,
        nodes: [Option<NodeId>; 2],
        rename: impl FnOnce() -> Result<Option<Saved>, Errno>,
    ) -> Result<(), Errno> {
        let is_one = nodes[0] == nodes[1];
        let known = nodes.map(|node| node.and_then(|node| self.nodes.get(node).ok()));
        let [new, old] = &known;
        let (new, old) = (new.as_deref(), old.as_deref().filter(|_| !is_one));
        // Who renames the other way round takes them in this order, too.
        let (new, old) = if nodes[0] < nodes[1] {
            let new = new.map(|leaf| leaf.what_mut());
            (new, old.map(|leaf| leaf.what_mut()))
        } else {
            let old = old.map(|leaf| leaf.what_mut());
            (new.map(|leaf| leaf.what_mut()), old)
        };
        let Some(Saved { from, is, left }) = rename()? else { return Ok(()) };
        self.faces.hand_on(from, is.file());
        if let Some(mut new) = new {
            *new = is;
        }
        if let Some(mut old) = old {
            *old = left;
        }
        Ok(())
    }

    pub(super) fn extended(&self, node: NodeId, name: &CStr) -> Result<Vec<u8>, Errno> {
        let name = name.to_bytes();
        if !name.starts_with(CARRIED) {
            return Err(if name.starts_with(b"system.") {
                Errno::OPNOTSUPP
            } else {
                Errno::NODATA
            });
        }
        let mut all = self.live.extended(&self.nodes.get(node)?.what()).map_err(errno_of)?;
        all.remove(name).ok_or(Errno::NODATA)
    }

    pub(super) fn set_extended(&self, node: NodeId, xattr: &SetXattr<'_>) -> Result<(), Errno> {
        let name = xattr.name.to_bytes();
        if !name.starts_with(CARRIED) {
            return Err(Errno::OPNOTSUPP);
        }
        let node = self.nodes.get(node)?;
        let flags = XattrFlags::from_bits_retain(xattr.flags);
        let is_there = self.live.extended(&node.what()).map_err(errno_of)?.contains_key(name);
        if is_there && flags.contains(XattrFlags::CREATE) {
            return Err(Errno::EXIST);
        }
        if !is_there && flags.contains(XattrFlags::REPLACE) {
            return Err(Errno::NODATA);
        }
        self.live.set_extended(&node.what(), name, Some(xattr.value)).map_err(errno_of)?;
        node.change();
        Ok(())
    }
}
