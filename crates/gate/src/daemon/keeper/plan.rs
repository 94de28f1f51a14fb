//! What is configured: mounts that are added and changed.

use std::path::{Path, PathBuf};

use gate_core::mount::{Found, Wish};
use uuid::Uuid;

use super::Keeper;
use super::book::{Entry, wish_of};
use crate::daemon::body::{self, Wanted, short};
use crate::daemon::place;
use crate::daemon::refusal::{Kind, Refusal};
use crate::daemon::store::{Record, Settings};

/// How many mounts may be configured.
const MOUNTS_MAX: usize = 256;
/// Bounds of what is kept of a bucket: MiB, and seconds.
const CACHE_SIZE_MB_MAX: u32 = 1 << 20;
const CACHE_TTL_SECS_MAX: u32 = 365 * 24 * 3600;

impl Keeper {
    /// Configures a mount.
    pub fn add(&self, wanted: Wanted) -> Result<body::Mount, Refusal> {
        if wanted.source.is_none() && wanted.bucket.is_none() && wanted.bucket_id.is_none() {
            return Err(missing("source"));
        }
        let point = wanted.mount_point.as_ref().ok_or_else(|| missing("mount_point"))?;
        let (source, bucket, home) = self.behind(&wanted)?;
        let settings = wanted.applied(Settings {
            enabled: true,
            auto_mount: false,
            read_only: false,
            allow_other: rustix::process::geteuid().is_root(),
            cache_size_mb: 100,
            cache_ttl_secs: 60,
        })?;
        let (point, made) = self.point(&point.0, bucket, &home)?;
        let now = now_written();
        let record = Record {
            id: Uuid::new_v4(),
            source,
            bucket,
            point,
            settings,
            stopped_in_boot: None,
            created_at: now.clone(),
            updated_at: now,
        };
        // A view may be there that was mounted by hand.
        let look = self.0.views.look(&record);
        let mut entry = Entry::new(record);
        entry.find(&look);
        let outcome = self.enter(entry);
        if let (Err(_), Some(made)) = (&outcome, made) {
            made.undo();
        }
        outcome
    }

    /// Returns what is to be shown, as it is called; the bucket, if it is one; and where that lies.
    fn behind(&self, wanted: &Wanted) -> Result<(PathBuf, Option<Uuid>, PathBuf), Refusal> {
        match (&wanted.source, wanted.bucket.as_ref().or(wanted.bucket_id.as_ref())) {
            (Some(_), Some(_)) => {
                let hint = "leave one of them out";
                Err(Refusal::new(Kind::Invalid, "both a directory and a bucket are named", hint))
            }
            (Some(source), None) => {
                let source = place::source(&source.0)?;
                Ok((source.clone(), None, source))
            }
            (None, Some(bucket)) => {
                let (id, name, dir) = self.0.views.inside.bucket(bucket)?;
                Ok((name.into(), Some(id), dir))
            }
            (None, None) => Err(missing("source")),
        }
    }

    /// Returns where something is to be shown; the directory is made if it is missing.
    fn point(
        &self,
        point: &Path,
        bucket: Option<Uuid>,
        home: &Path,
    ) -> Result<(PathBuf, Option<place::Made>), Refusal> {
        match bucket {
            None => place::point(point, home),
            Some(_) => self.0.views.inside.point(point),
        }
    }

    fn enter(&self, mut entry: Entry) -> Result<body::Mount, Refusal> {
        let mut book = self.book();
        if book.entries().count() >= MOUNTS_MAX {
            let text = format!("there are {MOUNTS_MAX} mounts already");
            return Err(Refusal::new(Kind::Limit, text, "remove one: `gate mount remove ID`"));
        }
        book.check_point(&entry.record.point, entry.record.id)?;
        // Who adds a mount says when it is to start.
        entry.mount.wish = match entry.mount.found {
            Found::Nothing => Wish::Down,
            _ => wish_of(&entry.record),
        };
        book.store.put(&entry.record)?;
        let body = entry.body();
        if let Some(pid) = entry.pid {
            entry.mount.failures.served(self.now());
            self.clone().attend(entry.record.id, entry.record.clone(), pid);
        }
        book.add(entry);
        Ok(body)
    }

    /// Changes what is configured. What a view was mounted with it keeps until it is mounted anew.
    pub fn set(&self, id: Uuid, wanted: &Wanted) -> Result<body::Mount, Refusal> {
        if wanted.source.is_some() || wanted.bucket.is_some() || wanted.bucket_id.is_some() {
            let hint = "add another mount, and remove this one";
            return Err(Refusal::new(Kind::Invalid, "a mount keeps its source", hint));
        }
        let (before, found) = self.book().entry(id).map(|e| (e.record.clone(), e.mount.found))?;
        let mut record = before.clone();
        record.settings = wanted.applied(record.settings)?;
        let mut made = None;
        if let Some(point) = &wanted.mount_point {
            (record.point, made) = self.point(&point.0, record.bucket, &record.source)?;
            if record.point != before.point && found != Found::Nothing {
                made.into_iter().for_each(place::Made::undo);
                let hint = format!("stop it first: `gate mount stop {}`", short(id));
                return Err(Refusal::new(Kind::State, "it is mounted where it was", hint));
            }
        }
        record.updated_at = now_written();
        let outcome = self.replace(record);
        if let (Err(_), Some(made)) = (&outcome, made) {
            made.undo();
        }
        outcome
    }

    fn replace(&self, record: Record) -> Result<body::Mount, Refusal> {
        let mut book = self.book();
        book.check_point(&record.point, record.id)?;
        book.entry(record.id)?;
        book.store.put(&record)?;
        let body = book.change(record.id, |entry| {
            entry.mount.wish = match (entry.mount.wish, wish_of(&record)) {
                (Wish::Down, _) => Wish::Down,
                (Wish::Up | Wish::Kept, wish) => wish,
            };
            entry.record = record;
            entry.body()
        });
        self.0.news.notify_all();
        body
    }

    /// Notes what a bucket is called from now on.
    pub fn renamed(&self, bucket: Uuid, name: &str) -> Result<(), Refusal> {
        let mut book = self.book();
        for id in book.ids() {
            let mut record = book.entry(id)?.record.clone();
            if record.bucket == Some(bucket) {
                record.source = name.into();
                book.store.put(&record)?;
                book.change(id, |entry| entry.record = record)?;
            }
        }
        Ok(())
    }
}

fn missing(field: &str) -> Refusal {
    let hint = "say which directory or bucket, and where it is to be shown";
    Refusal::new(Kind::Invalid, format!("{field} is missing"), hint)
}

impl Wanted {
    /// Returns settings with what is wanted otherwise.
    fn applied(&self, before: Settings) -> Result<Settings, Refusal> {
        let settings = Settings {
            enabled: self.enabled.unwrap_or(before.enabled),
            auto_mount: self.auto_mount.unwrap_or(before.auto_mount),
            read_only: self.read_only.unwrap_or(before.read_only),
            allow_other: self.allow_other.unwrap_or(before.allow_other),
            cache_size_mb: self.cache_size_mb.unwrap_or(before.cache_size_mb),
            cache_ttl_secs: self.cache_ttl_secs.unwrap_or(before.cache_ttl_secs),
        };
        let bounded = |field, value: u32, least, most| match (least..=most).contains(&value) {
            true => Ok(()),
            false => {
                let text = format!("{field} is {value}");
                let hint = format!("give a number from {least} to {most}");
                Err(Refusal::new(Kind::Invalid, text, hint))
            }
        };
        bounded("cache_size_mb", settings.cache_size_mb, 1, CACHE_SIZE_MB_MAX)?;
        bounded("cache_ttl_secs", settings.cache_ttl_secs, 0, CACHE_TTL_SECS_MAX)?;
        Ok(settings)
    }
}

pub(super) fn now_written() -> String {
    jiff::Timestamp::now()
        .round(jiff::Unit::Millisecond)
        .unwrap_or_else(|_| jiff::Timestamp::now())
        .to_string()
}
