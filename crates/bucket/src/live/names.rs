//! What is where in a bucket in use, and what it is called.

use std::collections::BTreeMap;

use gate_core::tree::diff::MODE_DEFAULT;
use gate_core::tree::id::{FileId, LinkId};
use gate_core::tree::op::{Attribute, Kind, Name, Stamp};
use gate_core::tree::record::FileRecord;
use gate_core::tree::shown::{Directory, Shown, What};

use super::{Live, Opened, Pending, Saved, Seer, now};
use crate::draft::{DraftError, Meta, Over};
use crate::random;

/// The mode of directories in `.conflicts`.
const MODE_ASIDE: u32 = 0o555;

/// What is known of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub kind: Kind,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Bytes of what a file holds, or of where a symbolic link leads.
    pub size: u64,
    pub modified: Stamp,
    /// How many names it has.
    pub names: u64,
}

/// What a rename does where something has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfThere {
    /// It stays the file that it is, and gets what is in the other, if both are files with one name (rule 7); else
    /// as `Replace`.
    Succeed,
    /// It loses the name.
    Replace,
    Refuse,
    /// Both get the name of the other.
    Exchange,
}

impl Live {
    /// Finds a name in a directory.
    pub fn find(&self, parent: &Directory, name: &Name) -> Result<Option<What>, DraftError> {
        self.inner.look(|pending| pending.draft.at(parent, name))
    }

    /// Returns all that is in a directory, by name.
    pub fn list(&self, directory: &Directory) -> Result<Vec<Shown>, DraftError> {
        self.inner.look(|pending| {
            let draft = &pending.draft;
            Ok(draft.tree().list(directory, draft.lens())?)
        })
    }

    /// Returns what something is.
    pub fn facts(&self, what: &What) -> Result<Facts, DraftError> {
        let working = match what {
            What::File { file, .. } => self.inner.in_use(*file),
            What::Directory(_) | What::Beside { .. } => None,
        };
        let now = working.map(|working| {
            let face = working.face();
            (face.contents.size(), face.modified, face.gone.clone())
        });
        let facts = match &now {
            Some((.., Some(gone))) => gone.clone(),
            _ => self.inner.look(|pending| pending.facts(what))?,
        };
        let (size, modified) = now.map_or((facts.size, facts.modified), |now| (now.0, now.1));
        // Nobody made it: it is as old as its bucket, until something comes into it.
        let is_as_old = modified == Stamp::default()
            && matches!(what, What::Directory(of) if of.is_aside() || of.first() == FileId::ROOT);
        let modified = if is_as_old { self.inner.born } else { modified };
        Ok(Facts { size, modified, ..facts })
    }

    /// Returns what is in a file or a directory, in short.
    pub fn kind(&self, what: &What) -> Result<Kind, DraftError> {
        self.inner.look(|pending| pending.kind(what))
    }

    /// Returns the extended attributes of something, by name.
    pub fn extended(&self, what: &What) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, DraftError> {
        let record = self.inner.look(|pending| pending.draft.file(what.file()))?;
        let set = record.extended.into_iter();
        Ok(set.filter_map(|(name, set)| Some((name, set.value?))).collect())
    }

    /// Makes a directory where nothing is.
    pub fn make_directory(
        &self,
        parent: &Directory,
        name: &Name,
        mode: u32,
    ) -> Result<What, DraftError> {
        self.inner.alter(|pending| {
            let meta = pending.entered(parent, mode)?;
            pending.draft.make_directory_at(parent, name, meta)?;
            pending.draft.at(parent, name)?.ok_or(DraftError::NotFound)
        })
    }

    /// Makes a file, or a symbolic link, where nothing is.
    pub fn make_file(
        &self,
        parent: &Directory,
        name: &Name,
        kind: &Kind,
        mode: u32,
    ) -> Result<What, DraftError> {
        self.inner.alter(|pending| {
            let meta = pending.entered(parent, mode)?;
            let (link, file) = pending.draft.make_file_at(parent, name, kind.clone(), meta)?;
            self.inner.sights.make(file);
            Ok(What::File { link, file })
        })
    }

    /// Gives a file another name, where nothing is.
    pub fn link(&self, what: &What, parent: &Directory, name: &Name) -> Result<What, DraftError> {
        let file = match what {
            What::File { file, .. } => *file,
            What::Directory(_) => return Err(DraftError::IsADirectory),
            What::Beside { .. } => return Err(DraftError::IsBeside),
        };
        // One that never had a name is made by its first.
        let nameless = self.inner.in_use(file).and_then(|working| working.face().gone.clone());
        let what = self.inner.alter(|pending| {
            let Meta { modified, .. } = pending.entered(parent, 0)?;
            let link = match &nameless {
                None => pending.draft.link_at(file, parent, name)?,
                Some(Facts { kind, mode, .. }) => {
                    let meta = Meta { mode: *mode, modified };
                    pending.draft.name_at(file, parent, name, kind.clone(), meta)?
                }
            };
            Ok(What::File { link, file })
        })?;
        if nameless.is_some() {
            self.inner.got_name(file);
        }
        Ok(what)
    }

    /// Makes and opens a file without a name, to be written.
    pub fn make_nameless(&self, mode: u32) -> (What, Opened) {
        let (file, link) = (FileId::of_file(random::bytes()), LinkId::of_file(random::bytes()));
        let facts = Facts { kind: Kind::File, mode, size: 0, modified: now(), names: 0 };
        self.inner.sights.make(file);
        (What::File { link, file }, Opened::nameless(&self.inner, file, facts))
    }

    /// Takes away a name of a file, or an empty directory, as said.
    pub fn remove(
        &self,
        parent: &Directory,
        name: &Name,
        is_directory: bool,
    ) -> Result<(), DraftError> {
        let gone = self.inner.alter(|pending| {
            let what = pending.draft.at(parent, name)?.ok_or(DraftError::NotFound)?;
            match (&what, is_directory) {
                (What::Directory(_), false) => return Err(DraftError::IsADirectory),
                (What::File { .. } | What::Beside { .. }, true) => {
                    return Err(DraftError::NotADirectory);
                }
                _ => {}
            }
            pending.draft.remove_this(&what)?;
            pending.touch(parent);
            pending.without_names(&what)
        })?;
        self.inner.let_go(gone);
        Ok(())
    }

    /// Somebody has opened something: of its versions they know those that there are now.
    pub fn saw(&self, who: Seer, what: &What) -> Result<(), DraftError> {
        if let What::File { file, .. } = what {
            let record = self.inner.look(|pending| pending.draft.file(*file))?;
            self.inner.sights.open(who, *file, &record);
        }
        Ok(())
    }

    /// Gives something another name. A file that was put in place of one with that name is told of.
    pub fn rename(
        &self,
        (parent, name): (&Directory, &Name),
        (to, to_name): (&Directory, &Name),
        if_there: IfThere,
        by: Seer,
    ) -> Result<Option<Saved>, DraftError> {
        if if_there == IfThere::Succeed
            && let Some(saved) = self.inner.save_over((parent, name), (to, to_name), by)?
        {
            return Ok(Some(saved));
        }
        let gone = self.inner.alter(|pending| {
            let what = pending.draft.at(parent, name)?.ok_or(DraftError::NotFound)?;
            let there = pending.draft.at(to, to_name)?;
            match (&there, if_there) {
                (_, IfThere::Exchange) => {
                    pending.draft.exchange((parent, name), (to, to_name))?;
                }
                (Some(_), IfThere::Refuse) => return Err(DraftError::Exists),
                (_, IfThere::Refuse | IfThere::Replace | IfThere::Succeed) => {
                    pending.draft.rename_to(what, to, to_name, Over::Name)?;
                }
            }
            pending.touch(parent);
            pending.touch(to);
            there.as_ref().map_or(Ok(None), |there| pending.without_names(there))
        })?;
        self.inner.let_go(gone);
        Ok(None)
    }

    /// Sets the permission bits of something, 0o7777.
    pub fn set_mode(&self, what: &What, mode: u32) -> Result<(), DraftError> {
        self.set(what, &Attribute::Mode(mode))
    }

    /// Sets when something was modified.
    pub fn set_modified(&self, what: &What, modified: Stamp) -> Result<(), DraftError> {
        if let What::File { file, .. } = what
            && let Some(working) = self.inner.in_use(*file)
        {
            working.face_mut().modified = modified;
        }
        self.set(what, &Attribute::Modified(modified))
    }

    /// Sets an extended attribute of something, or removes it.
    pub fn set_extended(
        &self,
        what: &What,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), DraftError> {
        let (name, value) = (name.to_vec(), value.map(<[u8]>::to_vec));
        self.set(what, &Attribute::Extended { name, value })
    }

    fn set(&self, what: &What, attribute: &Attribute) -> Result<(), DraftError> {
        let file = what.file();
        if matches!(what, What::Directory(directory) if directory.is_aside()) {
            return Err(DraftError::IsBeside);
        }
        if let Some(working) = self.inner.in_use(file)
            && let Some(gone) = &mut working.face_mut().gone
        {
            if let Attribute::Mode(mode) = attribute {
                gone.mode = *mode;
            }
            return Ok(());
        }
        self.inner.alter(|pending| {
            if let Attribute::Modified(_) = attribute {
                pending.directories.remove(&file);
            }
            pending.draft.set_attribute(file, attribute.clone())
        })
    }
}

impl Pending {
    fn kind(&self, what: &What) -> Result<Kind, DraftError> {
        Ok(kind_of(&self.draft.file(what.file())?, what))
    }

    pub(super) fn facts(&self, what: &What) -> Result<Facts, DraftError> {
        let file = what.file();
        let record = self.draft.file(file)?;
        let kind = kind_of(&record, what);
        let version = match what {
            What::Beside { version, .. } => record.heads.get(version),
            What::File { .. } | What::Directory(_) => record.winner().map(|(_, head)| head),
        };
        let merged = match what {
            What::File { .. } => self.draft.merged(&record)?,
            What::Beside { .. } | What::Directory(_) => None,
        };
        let size = match &kind {
            Kind::File => merged
                .map(|merged| merged.size)
                .or(version.map(|version| version.size))
                .unwrap_or(0),
            Kind::Symlink(target) => target.len() as u64,
            Kind::Directory => 0,
        };
        let set = record.modified.as_ref().map_or(Stamp::default(), |set| set.value);
        let modified = self.directories.get(&file).copied().unwrap_or(set);
        let mode = match what {
            // Nobody can change what is in it, but by taking something out.
            What::Directory(directory) if directory.is_aside() => MODE_ASIDE,
            _ => record.mode.as_ref().map_or(MODE_DEFAULT, |mode| mode.value),
        };
        let names = match (&kind, what) {
            (Kind::Directory, _) | (_, What::Beside { .. }) => 1,
            _ => self.draft.count_names(&record)?,
        };
        Ok(Facts { kind, mode, size, modified, names })
    }

    /// Something comes into a directory: it must be there still.
    fn entered(&mut self, parent: &Directory, mode: u32) -> Result<Meta, DraftError> {
        if parent.is_aside() {
            return Err(DraftError::IsBeside);
        }
        if !self.is_there(parent)? {
            return Err(DraftError::NotFound);
        }
        self.touch(parent);
        Ok(Meta { mode, modified: now() })
    }

    /// Whether a directory has a name, or is the one without.
    fn is_there(&self, directory: &Directory) -> Result<bool, DraftError> {
        let first = directory.first();
        if first == FileId::ROOT {
            return Ok(true);
        }
        let link = self.draft.link_record(LinkId::of_directory(first))?;
        Ok(link.is_some_and(|link| link.is_shown))
    }

    /// Something came into a directory, or went.
    pub(super) fn touch(&mut self, directory: &Directory) {
        // Nobody made one that shows versions, so it has no times.
        if !directory.is_aside() {
            self.directories.insert(directory.first(), now());
        }
    }

    /// Returns the file that something was, if that has no name any more.
    fn without_names(&self, what: &What) -> Result<Option<(FileId, Facts)>, DraftError> {
        let What::File { file, .. } = what else { return Ok(None) };
        let facts = self.facts(what)?;
        Ok((facts.names == 0).then_some((*file, facts)))
    }
}

fn kind_of(record: &FileRecord, what: &What) -> Kind {
    match (&record.made, what) {
        (Some(made), _) => made.value.clone(),
        (None, What::Directory(_)) => Kind::Directory,
        (None, What::File { .. } | What::Beside { .. }) => Kind::File,
    }
}
