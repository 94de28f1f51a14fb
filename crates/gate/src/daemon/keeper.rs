//! The keeper of mounts: what is configured, what is there, and what is done about the difference.
//!
//! One lock holds what is known; nobody has it while a view is started, looked at or ended. Each of
//! that happens on the thread that asked for it, or, where nobody asked, on one that was started for
//! it; a thread for each view waits for the end of its server. What is known is written in the [`book`].

mod book;
pub mod events;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gate_api::process;
use gate_core::mount::{Found, Status, Step, Wish};
use gate_core::time::Time;
use tokio::sync::watch;
use uuid::Uuid;

use super::body::{self, Wanted, short};
use super::child::{self, Changes, Look};
use super::place;
use super::refusal::{Kind, Refusal};
use super::store::{Record, Settings, Store};
use book::{Book, Entry, wish_of};
use events::Lately;

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

impl Keeper {
    /// Finds what is configured; nothing is looked at, nor mounted, before [`Keeper::begin`].
    pub fn open(store: Store, state_dir: &Path) -> Result<Keeper, Refusal> {
        Ok(Keeper(Arc::new(Inner {
            state_dir: state_dir.to_owned(),
            began: Instant::now(),
            book: Mutex::new(Book::open(store)?),
            news: Condvar::new(),
        })))
    }

    /// Finds what of it is mounted already, and begins to keep it. Nobody waits for what is mounted
    /// now.
    pub fn begin(&self) {
        let (looking, looked) = channel();
        for id in self.book().ids() {
            let (keeper, looking) = (self.clone(), looking.clone());
            thread::spawn(move || keeper.settle(id, looking));
        }
        drop(looking);
        // A view that does not answer holds up nobody.
        let _ = looked.recv_timeout(SETTLED_PATIENCE);
        let healer = self.clone();
        thread::spawn(move || healer.heal());
        let watcher = self.clone();
        thread::spawn(move || {
            if let Err(error) = watcher.heed_unmounts() {
                tracing::warn!(%error, "that a dead view is unmounted is not seen any more");
            }
        });
    }

    /// Returns all mounts, the oldest first.
    pub fn all(&self) -> Vec<body::Mount> {
        let book = self.book();
        let mut all: Vec<&Entry> = book.entries().collect();
        all.sort_by(|a, b| {
            (&a.record.created_at, a.record.id).cmp(&(&b.record.created_at, b.record.id))
        });
        all.into_iter().map(Entry::body).collect()
    }

    /// Returns how many there are, by status.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::from(Status::ALL.map(|status| (status.word(), 0)));
        for entry in self.book().entries() {
            *counts.entry(entry.mount.status().word()).or_default() += 1;
        }
        counts
    }

    /// Returns what somebody reads along with who is told of each change.
    pub fn events(&self) -> watch::Receiver<Lately> {
        self.book().events.reader()
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
        book.change(id, |entry| {
            (entry.record, entry.mount.wish, entry.mount.found) = (record, wish, Found::Starting);
            entry.mount.failures.forget();
        })?;
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
        // The end of a daemon forgets who stopped what: it needs no room.
        let is_remembered = !book.is_ending;
        if is_remembered {
            book.store.put(&record)?;
        }
        let body = book.change(id, |entry| {
            (entry.record, entry.mount.wish) = (record.clone(), Wish::Down);
            match entry.mount.found {
                Found::Nothing => entry.error = None,
                _ => entry.mount.found = Found::Stopping,
            }
            entry.body()
        })?;
        if book.entry(id)?.mount.found == Found::Nothing {
            return Ok((body, None));
        }
        drop(book);
        let ended = child::end(&record, lazy);
        let look = child::look(&record);
        let mut book = self.book();
        self.0.news.notify_all();
        let entry = book.change(id, |entry| {
            entry.see(&look);
            match &ended {
                Ok(_) => entry.error = None,
                // It goes on as before.
                Err(_) => {
                    entry.mount.wish = before;
                    entry.record.stopped_in_boot = None;
                }
            }
            entry.clone()
        })?;
        match ended {
            Ok(notice) => Ok((entry.body(), notice)),
            Err(refusal) => {
                if is_remembered {
                    book.store.put(&entry.record)?;
                }
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
        book.remove(id);
        Ok(())
    }

    /// Unmounts all, and starts none any more: the daemon ends. If somebody uses one of them, it goes
    /// on, and so do those.
    pub fn unmount_all(&self, lazy: bool) -> Result<Vec<String>, Vec<Refusal>> {
        self.book().is_ending = true;
        let ids = self.book().ids();
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
        if let Err(error) = book.store.forget_stops() {
            tracing::warn!(%error, "mounts that somebody stopped stay so when the daemon is back");
        }
        Ok(notices)
    }

    /// As [`Keeper::unmount`], of one that may be about to be mounted.
    fn unmount_settled(
        &self,
        id: Uuid,
        lazy: bool,
    ) -> Result<(body::Mount, Option<String>), Refusal> {
        let is_under_way = |book: &mut Book| {
            let entry = book.entry(id);
            entry.is_ok_and(|e| matches!(e.mount.found, Found::Starting | Found::Stopping))
        };
        drop(self.0.news.wait_while(self.book(), is_under_way));
        self.unmount(id, lazy)
    }

    /// Looks what is there of a mount that was configured before, and brings it up if it is to be
    /// there: nobody is told that it is missing before that was tried.
    fn settle(&self, id: Uuid, looking: Sender<Infallible>) {
        let Ok(record) = self.book().entry(id).map(|entry| entry.record.clone()) else { return };
        let look = child::look(&record);
        let now = self.now();
        let mut book = self.book();
        let is_ending = book.is_ending;
        let is_due = book.change(id, |entry| {
            entry.find(&look);
            if let Look::Served(pid) = look {
                entry.mount.failures.served(now);
                self.clone().attend(id, record, pid);
            }
            let is_due = !is_ending && entry.mount.next_step(now) == Step::Start;
            let before = entry.mount.found;
            if is_due {
                entry.mount.found = Found::Starting;
            }
            is_due.then_some(before)
        });
        drop((book, looking));
        self.0.news.notify_all();
        if let Ok(Some(before)) = is_due {
            self.bring_up(id, before);
        }
    }

    /// Mounts what is marked as starting, which nobody asked for. What was dead and is gone somebody
    /// has unmounted.
    fn bring_up(&self, id: Uuid, before: Found) {
        let was_dead = before == Found::Dead;
        if was_dead && self.is_unmounted(id, Found::Starting) {
            return;
        }
        if let Err(refusal) = self.attempt(id) {
            tracing::warn!(mount = %id, "{}", refusal.message);
            if was_dead {
                self.is_unmounted(id, Found::Nothing);
            }
        }
    }

    /// Takes note of dead views that somebody unmounts, for ever.
    fn heed_unmounts(self) -> io::Result<()> {
        let changes = Changes::begin()?;
        loop {
            changes.next()?;
            let is_dead = |entry: &&Entry| entry.mount.found == Found::Dead;
            let dead: Vec<Uuid> =
                self.book().entries().filter(is_dead).map(|entry| entry.record.id).collect();
            for id in dead {
                self.is_unmounted(id, Found::Dead);
            }
        }
    }

    /// Looks whether a dead view was unmounted, if it is known as this still; then it is stopped, as a
    /// living one would be.
    fn is_unmounted(&self, id: Uuid, known: Found) -> bool {
        let Ok(record) = self.book().entry(id).map(|entry| entry.record.clone()) else {
            return false;
        };
        if child::look(&record) != Look::Nothing {
            return false;
        }
        let mut book = self.book();
        if !book.entry(id).is_ok_and(|entry| entry.mount.found == known) {
            return false;
        }
        let changed = book.change(id, |entry| {
            entry.unmounted();
            entry.record.clone()
        });
        if let Ok(record) = changed {
            self.remember(&book, &record);
        }
        self.0.news.notify_all();
        true
    }

    /// Writes down that a mount was unmounted by hand.
    fn remember(&self, book: &Book, record: &Record) {
        if let Err(error) = book.store.put(record) {
            tracing::warn!(%error, "it is not remembered that a mount was unmounted");
        }
    }

    /// Mounts what is marked as starting, and says what came of it.
    fn attempt(&self, id: Uuid) -> Result<body::Mount, Refusal> {
        let record = self.book().entry(id)?.record.clone();
        let outcome = child::start(&record, &self.0.state_dir);
        // Whatever was said, what is there counts: it may be there by another's hand.
        let look = child::look(&record);
        let now = self.now();
        let result = self.book().change(id, |entry| {
            entry.see(&look);
            match (look, outcome) {
                (Look::Served(pid), _) => {
                    entry.error = None;
                    entry.mount.failures.served(now);
                    self.clone().attend(id, record, pid);
                    Ok(entry.body())
                }
                (_, outcome) => {
                    entry.mount.failures.failed(now);
                    let gone = "it was mounted and is gone";
                    let gone = || Refusal::new(Kind::Failed, gone, "try again");
                    let refusal = outcome.err().unwrap_or_else(gone);
                    entry.error = Some(refusal.message.clone());
                    Err(refusal)
                }
            }
        })?;
        self.0.news.notify_all();
        result
    }

    /// Waits for the end of a view's server, and takes note of it.
    fn attend(self, id: Uuid, record: Record, pid: u32) {
        thread::spawn(move || {
            let look = child::await_end(&record, pid);
            let mut book = self.book();
            let is_other = |e: &Entry| e.pid != Some(pid) || e.mount.found != Found::Served;
            if book.entry(id).is_ok_and(is_other) {
                return;
            }
            let now = self.now();
            let changed = book.change(id, |entry| {
                entry.end(pid, &look, now);
                entry.record.clone()
            });
            let Ok(record) = changed else { return };
            match look {
                Look::Served(next) => self.clone().attend(id, record, next),
                Look::Nothing => self.remember(&book, &record),
                Look::Dead | Look::Odd(_) => {
                    tracing::warn!(point = %record.point.display(), pid, "a view's server died");
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
            let mut due = Vec::new();
            for entry in book.entries() {
                match entry.mount.next_step(now) {
                    Step::Start if !book.is_ending => {
                        due.push((entry.record.id, entry.mount.found));
                    }
                    Step::Wait(over) => next = Some(next.map_or(over, |next| next.min(over))),
                    Step::Start | Step::Rest => {}
                }
            }
            for (id, before) in due {
                let keeper = self.clone();
                let _ = book.change(id, |entry| entry.mount.found = Found::Starting);
                thread::spawn(move || keeper.bring_up(id, before));
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

fn now_written() -> String {
    jiff::Timestamp::now()
        .round(jiff::Unit::Millisecond)
        .unwrap_or_else(|_| jiff::Timestamp::now())
        .to_string()
}
