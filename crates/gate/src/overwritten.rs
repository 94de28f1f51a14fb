//! What the guard of a view did about a path, in the view or behind it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gate_api::mounts;
use gate_view::kept::{Limits, Outcome, Place, Store, Version};

use crate::board;
use crate::config::Settings;
use crate::failure::{Exit, Failure};
use crate::output::printable;
use crate::reach::BrokerFlags;
use crate::seen::About;

/// How many of them `gate why` tells.
const TOLD_MAX: usize = 10;

/// A path, and where that is kept which was overwritten there.
#[derive(Debug)]
pub struct Kept {
    /// The path, absolute.
    pub absolute: PathBuf,
    /// The same from the source's root.
    path: PathBuf,
    /// The store.
    pub place: Place,
    pub seat: Seat,
}

/// Where a path lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// Behind a view: who opens it takes no turn.
    Behind,
    /// In a view of this user.
    OwnView,
    /// In another user's view: what that tells of its store is that user's word.
    OthersView,
}

impl Kept {
    /// Finds the store of a path, which need not exist any more.
    pub fn find(path: &Path) -> Result<Kept, Failure> {
        let absolute = std::path::absolute(path).ok().and_then(|path| resolve(&path));
        let unknown = || {
            let what = format!("nothing is known of {}", path.display());
            let cause = "it is neither in a gated view nor behind one of which versions were kept";
            Failure::new(what, cause, "`gate status` lists the views").exit(Exit::Unable)
        };
        let absolute = absolute.ok_or_else(unknown)?;
        if let Ok(about) = About::of(&absolute)
            && let Ok(inner) = absolute.strip_prefix(&about.mountpoint)
        {
            let path = inner.to_owned();
            let seat = Seat::in_view(&absolute);
            return Ok(Kept { absolute, path, place: about.kept, seat });
        }
        let state_dir = BrokerFlags::default().state_dir(&Settings::load()?)?;
        let place = |source: &Path| Place::of(&state_dir, source, Limits::default());
        let source = absolute.ancestors().find(|source| place(source).dir.exists());
        let source = source.ok_or_else(unknown)?;
        let inner = absolute.strip_prefix(source).expect("it is one of its ancestors");
        Ok(Kept { path: inner.to_owned(), place: place(source), seat: Seat::Behind, absolute })
    }

    /// Returns what was overwritten at the path and beneath it, oldest first.
    pub fn versions(&self) -> Result<Vec<Version>, Failure> {
        let mut versions = Store::versions(&self.place.dir).map_err(|error| {
            let what = format!("cannot look into {}", self.place.dir.display());
            Failure::new(what, error, "who mounted the view may: ask them, or root")
        })?;
        versions.retain(|version| version.record.path.starts_with(&self.path));
        Ok(versions)
    }

    /// Returns whether a version is of the very path.
    pub fn is_of(&self, version: &Version) -> bool {
        version.record.path == self.path
    }

    /// Tells, for people, what was overwritten lately; nothing if nothing was.
    pub fn tell_lately(&self, shown: &Path) -> String {
        let versions = self.versions().unwrap_or_default();
        let mut text = String::new();
        if !versions.is_empty() {
            text.push_str("overwritten by who had not seen it\n");
        }
        for version in versions.iter().rev().take(TOLD_MAX).rev() {
            let _ = writeln!(text, "  {}", printable(&tell(version)));
        }
        let is_kept = |version: &&Version| version.record.outcome == Outcome::Kept;
        if let Some(newest) = versions.iter().rfind(is_kept) {
            let path = match self.is_of(newest) {
                true => shown.display(),
                false => newest.record.path.display(),
            };
            let advice =
                format!("what to do: `gate restore {path} --version {}` brings it back", newest.id);
            let _ = writeln!(text, "{}", printable(&advice));
        }
        if versions.last().is_some_and(|last| last.record.outcome == Outcome::Refused) {
            text.push_str("what to do: let it read the file, and then write\n");
        }
        text
    }
}

impl Seat {
    fn in_view(path: &Path) -> Seat {
        let own = rustix::process::geteuid().as_raw();
        match mounts::of(path) {
            Ok(Some(mount)) if mount.user == Some(own) => Seat::OwnView,
            Ok(_) | Err(_) => Seat::OthersView,
        }
    }
}

fn tell(version: &Version) -> String {
    let record = &version.record;
    let (at, agent) = (board::local(record.at_ms), &record.agent);
    let (op, path, size) = (&record.op, record.path.display(), record.file.size);
    let outcome = outcome(&record.outcome, version.id);
    format!("{at} {agent} {op} {path}, {size} bytes: {outcome}")
}

/// Says what became of what was overwritten.
pub fn outcome(outcome: &Outcome, id: u64) -> String {
    match outcome {
        Outcome::Kept => format!("kept as version {id}"),
        Outcome::TooLarge => "not kept: it was too large".to_owned(),
        Outcome::Failed(why) => format!("not kept: {why}"),
        Outcome::Refused => "refused (EBUSY)".to_owned(),
    }
}

/// Makes a path free of links, as far as it exists.
fn resolve(absolute: &Path) -> Option<PathBuf> {
    absolute.ancestors().find_map(|above| {
        let rest = absolute.strip_prefix(above).ok()?;
        let above = above.canonicalize().ok()?;
        Some(if rest.as_os_str().is_empty() { above } else { above.join(rest) })
    })
}
