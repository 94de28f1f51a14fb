//! The keeper of mounts: what is configured, what is there, and what is done about the difference.
//!
//! One lock holds what is known; nobody has it while a view is started, looked at or ended. Each of
//! that happens on the thread that asked for it, or, where nobody asked, on one that was started for
//! it; a thread for each view waits for the end of its server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gate_api::process;
use gate_core::mount::{Failures, Found, Mount, Status, Step, Wish};
use gate_core::time::Time;
use uuid::Uuid;

use super::body::{self, Wanted, short};
use super::child::{self, Look};
use super::place;
use super::refusal::{Kind, Refusal};
use super::store::{Record, Settings, Store};

/// How many mounts may be configured.
const MOUNTS_MAX: usize = 256;
/// Bounds of what is kept of a bucket: MiB, and seconds.
const CACHE_SIZE_MB_MAX: u32 = 1 << 20;
const CACHE_TTL_SECS_MAX: u32 = 365 * 24 * 3600;

/// How long a daemon that starts waits for the views that are there already to say so.
const SETTLED_PATIENCE: Duration = Duration::from_secs(1);

/// Keeps the mounts of one daemon.
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

struct Inner {
    state_dir: PathBuf,
    began: Instant,
    book: Mutex<Book>,
    /// That something in the book has changed.
    news: Condvar,
}

struct Book {
    store: Store,
    entries: BTreeMap<Uuid, Entry>,
    /// Nothing is started any more.
    is_ending: bool,
}

struct Entry {
    record: Record,
    mount: Mount,
    pid: Option<u32>,
    error: Option<String>,
}

impl Keeper {
    /// Finds what is configured and what of that is mounted already, and begins to keep it. Nobody
    /// waits for what is mounted now.
    pub fn start(store: Store, state_dir: &Path) -> Result<Keeper, Refusal> {
        let entries = store.all()?.into_iter().map(|record| (record.id, Entry::new(record)));
        let entries: BTreeMap<Uuid, Entry> = entries.collect();
        let ids: Vec<Uuid> = entries.keys().copied().collect();
        let book = Book { entries, store, is_ending: false };
        let keeper = Keeper(Arc::new(Inner {
            state_dir: state_dir.to_owned(),
            began: Instant::now(),
            book: Mutex::new(book),
            news: Condvar::new(),
        }));
        for id in ids {
            let keeper = keeper.clone();
            thread::spawn(move || keeper.settle(id));
        }
        // A view that does not answer holds up nobody.
        let is_unsettled = |book: &mut Book| {
            book.entries.values().any(|entry| entry.mount.found == Found::Starting)
        };
        drop(keeper.0.news.wait_timeout_while(keeper.book(), SETTLED_PATIENCE, is_unsettled));
        let healer = keeper.clone();
        thread::spawn(move || healer.heal());
        Ok(keeper)
    }

    /// Returns all mounts, the oldest first.
    pub fn all(&self) -> Vec<body::Mount> {
        let book = self.book();
        let mut all: Vec<&Entry> = book.entries.values().collect();
        all.sort_by(|a, b| {
            (&a.record.created_at, a.record.id).cmp(&(&b.record.created_at, b.record.id))
        });
        all.into_iter().map(Entry::body).collect()
    }

    /// Returns how many there are, by status.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::from(Status::ALL.map(|status| (status.word(), 0)));
        for entry in self.book().entries.values() {
            *counts.entry(entry.mount.status().word()).or_default() += 1;
        }
        counts
    }

    /// Returns one mount.
    pub fn one(&self, id: Uuid) -> Result<body::Mount, Refusal> {
        self.book().entry(id).map(|entry| entry.body())
    }

    /// Configures a mount.
    pub fn add(&self, wanted: Wanted) -> Result<body::Mount, Refusal> {
        if wanted.bucket.is_some() || wanted.bucket_id.is_some() {
            let hint = "`gate bucket list` shows those that are there";
            return Err(Refusal::new(Kind::NoSuchBucket, "no such bucket", hint));
        }
        let (Some(source), Some(point)) = (&wanted.source, &wanted.mount_point) else {
            let missing = if wanted.source.is_none() { "source" } else { "mount_point" };
            let hint = "say which directory, and where it is to be shown";
            return Err(Refusal::new(Kind::Invalid, format!("{missing} is missing"), hint));
        };
        let source = place::source(&source.0)?;
        let settings = wanted.applied(Settings {
            enabled: true,
            auto_mount: false,
            read_only: false,
            allow_other: rustix::process::geteuid().is_root(),
            cache_size_mb: 100,
            cache_ttl_secs: 60,
        })?;
        let (point, made) = place::point(&point.0, &source)?;
        let now = now_written();
        let record = Record {
            id: Uuid::new_v4(),
            source,
            point,
            settings,
            stopped_in_boot: None,
            created_at: now.clone(),
            updated_at: now,
        };
        // A view may be there that was mounted by hand.
        let look = child::look(&record);
        let mut entry = Entry::new(record);
        entry.find(&look);
        let outcome = self.enter(entry);
        if let (Err(_), Some(made)) = (&outcome, made) {
            made.undo();
        }
        outcome
    }

    fn enter(&self, mut entry: Entry) -> Result<body::Mount, Refusal> {
        let mut book = self.book();
        if book.entries.len() >= MOUNTS_MAX {
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
        let (id, body) = (entry.record.id, entry.body());
        if let Some(pid) = entry.pid {
            entry.mount.failures.served(self.now());
            self.clone().attend(id, entry.record.clone(), pid);
        }
        book.entries.insert(id, entry);
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
            (record.point, made) = place::point(&point.0, &record.source)?;
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
        let entry = book.entry(record.id)?;
        entry.mount.wish = match (entry.mount.wish, wish_of(&record)) {
            (Wish::Down, _) => Wish::Down,
            (Wish::Up | Wish::Kept, wish) => wish,
        };
        entry.record = record;
        let body = entry.body();
        self.0.news.notify_all();
        Ok(body)
    }

    /// Mounts it, and waits until it is there.
    pub fn mount(&self, id: Uuid) -> Result<body::Mount, Refusal> {
        let mut book = self.book();
        if book.is_ending {
            return Err(Refusal::new(Kind::State, "the daemon is ending", "start it again first"));
        }
        let entry = book.entry(id)?;
        if !entry.record.settings.enabled {
            let hint = format!("`gate mount set {} --enabled true`", short(id));
            return Err(Refusal::new(Kind::State, "the mount is not enabled", hint));
        }
        if !matches!(entry.mount.found, Found::Nothing | Found::Dead) {
            let text = format!("the mount is {}", entry.mount.status().word());
            return Err(Refusal::new(Kind::State, text, "`gate mount list` shows how it is"));
        }
        let mut record = entry.record.clone();
        record.stopped_in_boot = None;
        let wish = wish_of(&record);
        book.store.put(&record)?;
        let entry = book.entry(id)?;
        (entry.record, entry.mount.wish, entry.mount.found) = (record, wish, Found::Starting);
        entry.mount.failures.forget();
        drop(book);
        self.attempt(id)
    }

    /// Unmounts it, and waits until it is gone.
    pub fn unmount(&self, id: Uuid, lazy: bool) -> Result<(body::Mount, Option<String>), Refusal> {
        let mut book = self.book();
        let entry = book.entry(id)?;
        match entry.mount.found {
            Found::Starting | Found::Stopping => {
                let text = format!("the mount is {}", entry.mount.status().word());
                return Err(Refusal::new(Kind::State, text, "try again when that is done"));
            }
            Found::Nothing | Found::Served | Found::Dead => {}
        }
        let mut record = entry.record.clone();
        record.stopped_in_boot = Some(process::machine());
        let before = entry.mount.wish;
        book.store.put(&record)?;
        let entry = book.entry(id)?;
        (entry.record, entry.mount.wish) = (record.clone(), Wish::Down);
        if entry.mount.found == Found::Nothing {
            entry.error = None;
            return Ok((entry.body(), None));
        }
        entry.mount.found = Found::Stopping;
        drop(book);
        let ended = child::end(&record, lazy);
        let look = child::look(&record);
        let mut book = self.book();
        self.0.news.notify_all();
        let entry = book.entry(id)?;
        entry.see(&look);
        match ended {
            Ok(notice) => {
                entry.error = None;
                Ok((entry.body(), notice))
            }
            Err(refusal) => {
                // It goes on as before.
                entry.mount.wish = before;
                entry.record.stopped_in_boot = None;
                let record = entry.record.clone();
                book.store.put(&record)?;
                Err(refusal)
            }
        }
    }

    /// Forgets a mount, which is stopped if it runs.
    pub fn remove(&self, id: Uuid) -> Result<(), Refusal> {
        self.unmount(id, false)?;
        let mut book = self.book();
        book.entry(id)?;
        book.store.remove(id)?;
        book.entries.remove(&id);
        Ok(())
    }

    /// Unmounts all, and starts none any more: the daemon ends. If somebody uses one of them, it goes
    /// on, and so do those.
    pub fn unmount_all(&self, lazy: bool) -> Result<Vec<String>, Vec<Refusal>> {
        self.book().is_ending = true;
        let ids: Vec<Uuid> = self.book().entries.keys().copied().collect();
        let end = |id| {
            let keeper = self.clone();
            thread::spawn(move || keeper.unmount_settled(id, lazy))
        };
        let ends: Vec<_> = ids.into_iter().map(end).collect();
        let (mut notices, mut refusals) = (Vec::new(), Vec::new());
        for end in ends {
            match end.join() {
                Ok(Ok((_, notice))) => notices.extend(notice),
                Ok(Err(refusal)) if refusal.kind == Kind::NotFound => {}
                Ok(Err(refusal)) => refusals.push(refusal),
                // It was told when it happened.
                Err(_) => {}
            }
        }
        let mut book = self.book();
        if !refusals.is_empty() {
            book.is_ending = false;
            return Err(refusals);
        }
        match book.store.forget_stops() {
            Ok(()) => Ok(notices),
            Err(error) => {
                book.is_ending = false;
                Err(vec![error.into()])
            }
        }
    }

    /// As [`Keeper::unmount`], of one that may be about to be mounted.
    fn unmount_settled(
        &self,
        id: Uuid,
        lazy: bool,
    ) -> Result<(body::Mount, Option<String>), Refusal> {
        let is_under_way = |book: &mut Book| {
            let entry = book.entries.get(&id);
            entry.is_some_and(|e| matches!(e.mount.found, Found::Starting | Found::Stopping))
        };
        drop(self.0.news.wait_while(self.book(), is_under_way));
        self.unmount(id, lazy)
    }

    /// Looks what is there of a mount that was configured before.
    fn settle(&self, id: Uuid) {
        let Ok(record) = self.book().entry(id).map(|entry| entry.record.clone()) else { return };
        let look = child::look(&record);
        let now = self.now();
        if let Ok(entry) = self.book().entry(id) {
            entry.find(&look);
            if let Look::Served(pid) = look {
                entry.mount.failures.served(now);
                self.clone().attend(id, record, pid);
            }
        }
        self.0.news.notify_all();
    }

    /// Mounts what is marked as starting, and says what came of it.
    fn attempt(&self, id: Uuid) -> Result<body::Mount, Refusal> {
        let record = self.book().entry(id)?.record.clone();
        let outcome = child::start(&record, &self.0.state_dir);
        // Whatever was said, what is there counts: it may be there by another's hand.
        let look = child::look(&record);
        let now = self.now();
        let mut book = self.book();
        let entry = book.entry(id)?;
        entry.see(&look);
        let result = match (look, outcome) {
            (Look::Served(pid), _) => {
                entry.error = None;
                entry.mount.failures.served(now);
                self.clone().attend(id, record, pid);
                Ok(entry.body())
            }
            (_, outcome) => {
                entry.mount.failures.failed(now);
                let gone = || Refusal::new(Kind::Failed, "it was mounted and is gone", "try again");
                let refusal = outcome.err().unwrap_or_else(gone);
                entry.error = Some(refusal.message.clone());
                Err(refusal)
            }
        };
        self.0.news.notify_all();
        result
    }

    /// Waits for the end of a view's server, and takes note of it.
    fn attend(self, id: Uuid, record: Record, pid: u32) {
        thread::spawn(move || {
            let look = child::await_end(&record, pid);
            let mut book = self.book();
            let now = self.now();
            let Ok(entry) = book.entry(id) else { return };
            if entry.pid != Some(pid) || entry.mount.found != Found::Served {
                return;
            }
            entry.see(&look);
            match look {
                Look::Served(next) => {
                    entry.mount.failures.served(now);
                    self.clone().attend(id, entry.record.clone(), next);
                }
                // Somebody unmounted it by hand.
                Look::Nothing => {
                    entry.mount.wish = Wish::Down;
                    entry.record.stopped_in_boot = Some(process::machine());
                    let record = entry.record.clone();
                    if let Err(error) = book.store.put(&record) {
                        tracing::warn!(%error, "it is not remembered that a mount was unmounted");
                    }
                }
                Look::Dead | Look::Odd(_) => {
                    entry.mount.failures.failed(now);
                    let text = format!("its server, process {pid}, died");
                    tracing::warn!(point = %entry.record.point.display(), text);
                    entry.error = Some(text);
                }
            }
            self.0.news.notify_all();
        });
    }

    /// Mounts what is to be mounted, for ever.
    fn heal(self) {
        let mut book = self.book();
        loop {
            let now = self.now();
            let mut next: Option<Time> = None;
            let is_ending = book.is_ending;
            for (id, entry) in &mut book.entries {
                match entry.mount.next_step(now) {
                    Step::Start if !is_ending => {
                        entry.mount.found = Found::Starting;
                        let (keeper, id) = (self.clone(), *id);
                        thread::spawn(move || {
                            if let Err(refusal) = keeper.attempt(id) {
                                tracing::warn!(mount = %id, "{}", refusal.message);
                            }
                        });
                    }
                    Step::Wait(over) => next = Some(next.map_or(over, |next| next.min(over))),
                    Step::Start | Step::Rest => {}
                }
            }
            book = match next {
                Some(over) => {
                    let patience = over.since(now);
                    let woken = self.0.news.wait_timeout(book, patience);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.0.news.wait(book).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.0.began.elapsed()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn entry(&mut self, id: Uuid) -> Result<&mut Entry, Refusal> {
        self.entries.get_mut(&id).ok_or_else(|| {
            let hint = "`gate mount list` shows those that are there";
            Refusal::new(Kind::NotFound, format!("no mount has the id {id}"), hint)
        })
    }

    /// Checks that no other mount is configured there, nor above or below.
    fn check_point(&self, point: &Path, own: Uuid) -> Result<(), Refusal> {
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
    fn new(record: Record) -> Entry {
        let (wish, failures) = (wish_of(&record), Failures::default());
        let mount = Mount { wish, found: Found::Starting, failures };
        Entry { record, mount, pid: None, error: None }
    }

    /// Takes note of what was there before this daemon.
    fn find(&mut self, look: &Look) {
        self.see(look);
        match look {
            Look::Nothing if self.mount.wish == Wish::Up => self.mount.wish = Wish::Down,
            Look::Dead => self.error = Some("its server died while no daemon was there".to_owned()),
            Look::Nothing | Look::Served(_) | Look::Odd(_) => {}
        }
    }

    fn see(&mut self, look: &Look) {
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

    fn body(&self) -> body::Mount {
        let Record { id, source, point, settings, created_at, updated_at, .. } =
            self.record.clone();
        let status = self.mount.status();
        body::Mount {
            mount_id: id,
            bucket_id: None,
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

/// Returns what is wanted of a mount that nobody said anything about: to be kept, or as it is.
fn wish_of(record: &Record) -> Wish {
    let Settings { enabled, auto_mount, .. } = record.settings;
    let is_stopped = record.stopped_in_boot == Some(process::machine());
    match (enabled && auto_mount, is_stopped) {
        (true, false) => Wish::Kept,
        (_, true) => Wish::Down,
        (false, false) => Wish::Up,
    }
}

fn now_written() -> String {
    jiff::Timestamp::now()
        .round(jiff::Unit::Millisecond)
        .unwrap_or_else(|_| jiff::Timestamp::now())
        .to_string()
}
