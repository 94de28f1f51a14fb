//! What a keeper knows of its mounts: what is configured of each, and how it is.
//!
//! Whoever has a mount to change does so by [`Book::change`] alone, so that each change is told.

use std::collections::BTreeMap;
use std::path::Path;

use gate_api::process;
use gate_core::mount::{Failures, Found, Mount, Status, Wish};
use gate_core::time::Time;
use uuid::Uuid;

use super::events::Events;
use crate::daemon::body::{self, short};
use crate::daemon::refusal::{Kind, Refusal};
use crate::daemon::store::{Record, Settings, Store};
use crate::daemon::views::Look;

/// All that is known.
pub struct Book {
    pub store: Store,
    /// Nothing is started any more.
    pub is_ending: bool,
    pub events: Events,
    entries: BTreeMap<Uuid, Entry>,
}

/// One mount.
#[derive(Clone)]
pub struct Entry {
    pub record: Record,
    pub mount: Mount,
    pub pid: Option<u32>,
    pub error: Option<String>,
}

impl Book {
    /// Reads what is configured; nobody has looked yet how that is.
    pub fn open(store: Store) -> Result<Book, Refusal> {
        let entries = store.all()?.into_iter().map(|record| (record.id, Entry::new(record)));
        let entries = entries.collect();
        Ok(Book { store, is_ending: false, events: Events::begin(), entries })
    }

    /// Returns all mounts.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Returns the ids of all.
    pub fn ids(&self) -> Vec<Uuid> {
        self.entries.keys().copied().collect()
    }

    /// Returns one mount.
    pub fn entry(&self, id: Uuid) -> Result<&Entry, Refusal> {
        self.entries.get(&id).ok_or_else(|| unknown(id))
    }

    /// Changes one mount, and tells what became of it.
    pub fn change<T>(
        &mut self,
        id: Uuid,
        change: impl FnOnce(&mut Entry) -> T,
    ) -> Result<T, Refusal> {
        let entry = self.entries.get_mut(&id).ok_or_else(|| unknown(id))?;
        let before = entry.body();
        let outcome = change(entry);
        self.events.tell(Some(&before), Some(&entry.body()));
        Ok(outcome)
    }

    /// Takes note of a new one.
    pub fn add(&mut self, entry: Entry) {
        self.events.tell(None, Some(&entry.body()));
        self.entries.insert(entry.record.id, entry);
    }

    /// Forgets one.
    pub fn remove(&mut self, id: Uuid) {
        if let Some(entry) = self.entries.remove(&id) {
            self.events.tell(Some(&entry.body()), None);
        }
    }

    /// Checks that no other mount is configured there, nor above or below.
    pub fn check_point(&self, point: &Path, own: Uuid) -> Result<(), Refusal> {
        let mut others = self.entries.values().filter(|entry| entry.record.id != own);
        let meets = |other: &Path| point.starts_with(other) || other.starts_with(point);
        match others.find(|entry| meets(&entry.record.point)) {
            None => Ok(()),
            Some(Entry { record, .. }) if record.point == point => {
                let text =
                    format!("{} is the mount point of {}", point.display(), short(record.id));
                Err(Refusal::new(Kind::Taken, text, "choose another, or remove that mount"))
            }
            Some(Entry { record, .. }) => {
                let (point, other) = (point.display(), record.point.display());
                let text = format!(
                    "{point} and {other}, where {} is shown, lie in one another",
                    short(record.id)
                );
                Err(Refusal::new(Kind::Taken, text, "choose a mount point beside it"))
            }
        }
    }
}

impl Entry {
    /// Returns a mount that nobody has looked at yet.
    pub fn new(record: Record) -> Entry {
        let (wish, failures) = (wish_of(&record), Failures::default());
        let mount = Mount { wish, found: Found::Starting, failures };
        Entry { record, mount, pid: None, error: None }
    }

    /// Takes note of what was there before this daemon.
    pub fn find(&mut self, look: &Look) {
        self.see(look);
        match look {
            Look::Nothing if self.mount.wish == Wish::Up => self.mount.wish = Wish::Down,
            Look::Dead => self.error = Some("its server died while no daemon was there".to_owned()),
            Look::Nothing | Look::Served(_) | Look::Odd(_) => {}
        }
    }

    /// Takes note of what became of its server, which has ended.
    pub fn end(&mut self, pid: u32, look: &Look, now: Time) {
        self.see(look);
        match look {
            Look::Served(_) => self.mount.failures.served(now),
            Look::Nothing => self.unmounted(),
            Look::Dead | Look::Odd(_) => {
                self.mount.failures.failed(now);
                self.error = Some(format!("its server, process {pid}, died"));
            }
        }
    }

    /// Takes note that somebody unmounted it by hand.
    pub fn unmounted(&mut self) {
        self.see(&Look::Nothing);
        self.mount.wish = Wish::Down;
        self.record.stopped_in_boot = Some(process::machine());
    }

    /// Takes note of what is there.
    pub fn see(&mut self, look: &Look) {
        (self.mount.found, self.pid) = match look {
            Look::Nothing => (Found::Nothing, None),
            Look::Served(pid) => (Found::Served, Some(*pid)),
            Look::Dead => (Found::Dead, None),
            Look::Odd(what) => {
                self.error = Some(what.clone());
                (Found::Nothing, None)
            }
        };
    }

    /// Returns what is told of it.
    pub fn body(&self) -> body::Mount {
        let Record { id, bucket, source, point, settings, created_at, updated_at, .. } =
            self.record.clone();
        let status = self.mount.status();
        body::Mount {
            mount_id: id,
            bucket_id: bucket,
            source,
            mount_point: point,
            enabled: settings.enabled,
            auto_mount: settings.auto_mount,
            read_only: settings.read_only,
            allow_other: settings.allow_other,
            cache_size_mb: settings.cache_size_mb,
            cache_ttl_secs: settings.cache_ttl_secs,
            pid: self.pid,
            status: status.word().to_owned(),
            error_message: self.error.clone().filter(|_| status == Status::Error),
            created_at,
            updated_at,
        }
    }
}

fn unknown(id: Uuid) -> Refusal {
    let hint = "`gate mount list` shows those that are there";
    Refusal::new(Kind::NotFound, format!("no mount has the id {id}"), hint)
}

/// Returns what is wanted of a mount that nobody said anything about: to be kept, or as it is.
pub fn wish_of(record: &Record) -> Wish {
    let Settings { enabled, auto_mount, .. } = record.settings;
    let is_stopped = record.stopped_in_boot == Some(process::machine());
    match (enabled && auto_mount, is_stopped) {
        (true, false) => Wish::Kept,
        (_, true) => Wish::Down,
        (false, false) => Wish::Up,
    }
}
