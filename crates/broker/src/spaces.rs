//! Which source is served in which space, and where in it.
//!
//! A space is one source. A source inside a served one joins its space with a prefix; one above a
//! served one is refused. The space `default` is that of the stateless interface and of views that
//! came by host and port; the first such source binds it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use gate_api::process;
use gate_api::wire::{AttachRefusal, Attached, Directory, Origin, Rules, Source};
use gate_core::id::SpaceId;
use gate_core::lock::want::Place;
use gate_core::path::ViewPath;

use crate::source_lock::{SourceLock, Taken};

/// The name of the space that needs no name.
pub(crate) const DEFAULT: &str = "default";
/// Its id.
pub(crate) const DEFAULT_ID: SpaceId = SpaceId(0);
/// How many spaces there can be.
pub(crate) const SPACES_MAX: usize = 4_096;
/// Bytes of a space's name, at most.
const NAME_BYTES_MAX: usize = 4_096;

/// The paths of one source.
pub(crate) struct Space {
    /// What people call it.
    pub name: String,
    /// What it is bound to; a space of the stateless interface may have none.
    pub source: Option<Source>,
    /// How many clients have attached it: views, and those who hold something in it.
    pub clients: usize,
    /// Keeps other brokers of this machine away from the source.
    lock: Option<SourceLock>,
}

/// Where a source lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub space: SpaceId,
    pub prefix: ViewPath,
}

/// All spaces.
pub(crate) struct Spaces {
    spaces: BTreeMap<SpaceId, Space>,
}

/// How a source relates to a served one.
enum Relation {
    Same,
    Inside(ViewPath),
    Above,
    Apart,
}

impl Space {
    pub fn new(name: String, source: Option<Source>) -> Space {
        Space { name, source, clients: 0, lock: None }
    }

    /// Whether its names are told and never written down: on the disk those of a bucket are sealed.
    pub fn is_sealed(&self) -> bool {
        self.source.as_ref().is_some_and(|source| matches!(source.origin, Origin::Bucket(_)))
    }

    /// Says where another broker that came for the source would not be met.
    pub fn gap(&self) -> Option<String> {
        Some(self.lock.as_ref()?.gap()?.to_string())
    }
}

impl Spaces {
    /// Takes over those of a former run.
    pub fn restore(spaces: Vec<(SpaceId, Space)>) -> Spaces {
        let mut spaces: BTreeMap<_, _> = spaces.into_iter().collect();
        spaces.entry(DEFAULT_ID).or_insert_with(|| Space::new(DEFAULT.to_owned(), None));
        Spaces { spaces }
    }

    /// Keeps other brokers away from the sources of a former run; returns the spaces whose source
    /// another broker has meanwhile, and whose it is.
    pub fn lock_again(&mut self) -> Vec<(SpaceId, Taken)> {
        let mut taken = Vec::new();
        for (id, space) in &mut self.spaces {
            match space.source.as_ref().map(lock_source) {
                Some(Ok(lock)) => space.lock = lock,
                Some(Err(by)) => taken.push((*id, by)),
                None => {}
            }
        }
        taken
    }

    /// Serves a source: says where, and in which space; or why not.
    pub fn attach(&mut self, source: Source) -> Result<(Seat, Attached), AttachRefusal> {
        let (seat, notice) = match self.find(&source)? {
            Some(seat) => {
                self.check_joining(seat.space, &source)?;
                let notice = self.notice_of_joining(seat.space, &source);
                (seat, notice)
            }
            None => self.bind(source)?,
        };
        let space = self.spaces.get_mut(&seat.space).expect("found or made above");
        space.clients += 1;
        let gap = space.gap().map(|gap| format!("two brokers could come to serve it: {gap}"));
        let notice = match (notice, gap) {
            (Some(notice), Some(gap)) => Some(format!("{notice}\n{gap}")),
            (notice, gap) => notice.or(gap),
        };
        let attached = Attached { notice, ..self.attached(&seat) };
        Ok((seat, attached))
    }

    /// Says where an attached source lies.
    pub fn attached(&self, seat: &Seat) -> Attached {
        let space = self.spaces.get(&seat.space).expect("it is attached");
        Attached { space: space.name.clone(), prefix: seat.prefix.clone(), notice: None }
    }

    /// Counts one attachment of a former run.
    pub fn count_client(&mut self, id: SpaceId) {
        if let Some(space) = self.spaces.get_mut(&id) {
            space.clients += 1;
        }
    }

    /// Ends one attachment.
    pub fn detach(&mut self, id: SpaceId) {
        if let Some(space) = self.spaces.get_mut(&id) {
            space.clients = space.clients.saturating_sub(1);
        }
    }

    /// Forgets spaces that nobody attached and nothing is locked in; returns which.
    pub fn forget_unused(&mut self, is_locked_in: impl Fn(SpaceId) -> bool) -> Vec<SpaceId> {
        let unused: Vec<SpaceId> = self
            .spaces
            .iter()
            .filter(|(id, space)| {
                let idle = space.clients == 0 && (space.source.is_some() || **id != DEFAULT_ID);
                idle && !is_locked_in(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &unused {
            self.spaces.remove(id);
        }
        self.spaces.entry(DEFAULT_ID).or_insert_with(|| Space::new(DEFAULT.to_owned(), None));
        unused
    }

    /// Returns the space of that name; makes it if `make` and there is room.
    pub fn named(&mut self, name: &str, make: bool) -> Option<SpaceId> {
        let known = self.by_name(name);
        if known.is_some() || !make || name.len() > NAME_BYTES_MAX {
            return known;
        }
        let id = self.free_id()?;
        self.spaces.insert(id, Space::new(name.to_owned(), None));
        Some(id)
    }

    /// Returns the space a path of this machine lies in, and where in it.
    pub fn of_absolute(&self, path: &[u8]) -> Option<(SpaceId, ViewPath)> {
        let path = ViewPath::parse(path).ok()?;
        self.spaces.iter().find_map(|(id, space)| {
            let Origin::Directory(directory) = &space.source.as_ref()?.origin else { return None };
            let root = ViewPath::parse(&directory.path).ok()?;
            let here = directory.machine == process::machine();
            Some((*id, path.beneath(&root).filter(|_| here)?))
        })
    }

    pub fn get(&self, id: SpaceId) -> Option<&Space> {
        self.spaces.get(&id)
    }

    /// Whether names of what it touches are not written down.
    pub fn are_sealed(&self, places: &[Place]) -> bool {
        places.iter().any(|place| self.get(place.space).is_some_and(Space::is_sealed))
    }

    pub fn iter(&self) -> impl Iterator<Item = (SpaceId, &Space)> {
        self.spaces.iter().map(|(id, space)| (*id, space))
    }

    /// Returns where a source lies if it is, or is inside, a served one.
    fn find(&self, source: &Source) -> Result<Option<Seat>, AttachRefusal> {
        for (id, space) in &self.spaces {
            let Some(served) = &space.source else { continue };
            let prefix = match relation(&source.origin, &served.origin) {
                Relation::Same => ViewPath::root(),
                Relation::Inside(prefix) => prefix,
                Relation::Apart => continue,
                Relation::Above => {
                    return Err(AttachRefusal {
                        reason: format!(
                            "{} contains {}, which is served already",
                            shown(&source.origin),
                            shown(&served.origin)
                        ),
                        fix: "serve the directory above first, then the one in it".to_owned(),
                    });
                }
            };
            return Ok(Some(Seat { space: *id, prefix }));
        }
        Ok(None)
    }

    fn check_joining(&mut self, id: SpaceId, source: &Source) -> Result<(), AttachRefusal> {
        let space = self.spaces.get_mut(&id).expect("just found");
        let Some(served) = &mut space.source else { return Ok(()) };
        if let Some(wanted) = source.space.as_ref().filter(|wanted| **wanted != space.name) {
            return Err(AttachRefusal {
                reason: format!(
                    "{} is served in the space {}, not {wanted}",
                    shown(&source.origin),
                    space.name
                ),
                fix: format!("use `--space {}`, or leave it out", space.name),
            });
        }
        let (there, here) = match (&served.rules, &source.rules) {
            (_, None) => return Ok(()),
            (Some(there), Some(here)) if there != here && space.clients > 0 => (there, here),
            // Nobody sees it under other rules, now or any more.
            (_, Some(here)) => {
                served.rules = Some(here.clone());
                return Ok(());
            }
        };
        Err(AttachRefusal {
            reason: format!(
                "{} is served by other rules: {}",
                shown(&source.origin),
                difference(there, here)
            ),
            fix: "use the same policies and `--read-wait`, or end its other views and holds first"
                .to_owned(),
        })
    }

    fn notice_of_joining(&self, id: SpaceId, source: &Source) -> Option<String> {
        let name = &self.spaces[&id].name;
        (source.by_host_and_port && source.space.is_none() && id != DEFAULT_ID).then(|| {
            format!("served in the space {name}: locks of the space {DEFAULT} do not hold here")
        })
    }

    /// Binds a source that is not served yet to a space.
    fn bind(&mut self, source: Source) -> Result<(Seat, Option<String>), AttachRefusal> {
        let (name, notice) = self.choose_name(&source)?;
        let lock = lock_source(&source).map_err(|taken| AttachRefusal {
            reason: format!("{} is served by {taken}", shown(&source.origin)),
            fix: match taken {
                Taken::ByAnother(_) => "use that broker, or stop it first".to_owned(),
                Taken::ByThis => "name both by the mount that shows the whole of them".to_owned(),
            },
        })?;
        let id = self.named(&name, true).ok_or_else(|| AttachRefusal {
            reason: format!("there are {SPACES_MAX} spaces already"),
            fix: "unmount views that are not needed".to_owned(),
        })?;
        let space = self.spaces.get_mut(&id).expect("just named");
        space.source = Some(source);
        space.lock = lock;
        Ok((Seat { space: id, prefix: ViewPath::root() }, notice))
    }

    fn choose_name(&self, source: &Source) -> Result<(String, Option<String>), AttachRefusal> {
        let bound_to =
            |name: &str| self.by_name(name).and_then(|id| self.spaces[&id].source.as_ref());
        if let Some(name) = &source.space {
            return match bound_to(name) {
                None => Ok((name.clone(), None)),
                Some(other) => Err(AttachRefusal {
                    reason: format!("the space {name} is that of {}", shown(&other.origin)),
                    fix: "choose another name with `--space`, or leave it out".to_owned(),
                }),
            };
        }
        let own = (2..)
            .map(|number| format!("{} ({number})", shown(&source.origin)))
            .find(|name| bound_to(name).is_none());
        let own = match bound_to(&shown(&source.origin)) {
            Some(_) => own.expect("numbers do not end"),
            None => shown(&source.origin),
        };
        if !source.by_host_and_port {
            return Ok((own, None));
        }
        match bound_to(DEFAULT) {
            None => Ok((DEFAULT.to_owned(), None)),
            Some(other) => {
                let notice = format!(
                    "the space {DEFAULT} is that of {}: this source has the space {own} of its own",
                    shown(&other.origin)
                );
                Ok((own, Some(notice)))
            }
        }
    }

    fn by_name(&self, name: &str) -> Option<SpaceId> {
        self.spaces.iter().find(|(_, space)| space.name == name).map(|(id, _)| *id)
    }

    fn free_id(&self) -> Option<SpaceId> {
        let room = self.spaces.len() < SPACES_MAX;
        let last = self.spaces.keys().next_back()?;
        room.then(|| SpaceId(last.0 + 1))
    }
}

/// Returns a source as people write it.
pub(crate) fn shown(origin: &Origin) -> String {
    match origin {
        Origin::Directory(directory) => path_of(directory).display().to_string(),
        Origin::Bucket(id) => format!("bucket {id}"),
    }
}

/// Says what only some rules have, and in what they differ.
fn difference(there: &Rules, here: &Rules) -> String {
    let mut differences = Vec::new();
    if there.read_wait != here.read_wait {
        let shown = |rules: &Rules| match rules.read_wait {
            Some(limit) => format!("read_wait {limit:?}"),
            None => "read_wait for ever".to_owned(),
        };
        differences.push(format!("there {}, here {}", shown(there), shown(here)));
    }
    let only = |rules: &Rules, others: &Rules| {
        let is_known = |policy: &str| others.policies.split(' ').any(|other| other == policy);
        let own = rules.policies.split(' ').filter(|policy| !is_known(policy));
        own.collect::<Vec<_>>().join(" ")
    };
    let (of_there, of_here) = (only(there, here), only(here, there));
    for (place, own) in [("there", &of_there), ("here", &of_here)] {
        if !own.is_empty() {
            differences.push(format!("only {place} `{own}`"));
        }
    }
    if differences.is_empty() {
        differences.push("the same policies in another order".to_owned());
    }
    differences.join("; ")
}

fn path_of(directory: &Directory) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(directory.path.clone()).into()
}

fn relation(new: &Origin, served: &Origin) -> Relation {
    let (new, served) = match (new, served) {
        (Origin::Bucket(new), Origin::Bucket(served)) if new == served => return Relation::Same,
        (Origin::Directory(new), Origin::Directory(served)) => (new, served),
        _ => return Relation::Apart,
    };
    if new.machine != served.machine {
        return Relation::Apart;
    }
    if new.root == served.root {
        return Relation::Same;
    }
    if let Some(depth) = new.above.iter().position(|(inode, _)| *inode == served.root) {
        let names: Vec<&[u8]> = new.above[..=depth].iter().rev().map(|(_, n)| &n[..]).collect();
        return match ViewPath::parse(&names.join(&b'/')) {
            Ok(prefix) => Relation::Inside(prefix),
            Err(_) => Relation::Apart,
        };
    }
    match served.above.iter().any(|(inode, _)| *inode == new.root) {
        true => Relation::Above,
        false => Relation::Apart,
    }
}

fn lock_source(source: &Source) -> Result<Option<SourceLock>, Taken> {
    match &source.origin {
        Origin::Directory(directory) if directory.machine == process::machine() => {
            SourceLock::take(directory, &path_of(directory))
        }
        Origin::Directory(_) | Origin::Bucket(_) => Ok(None),
    }
}
