//! The keeper of mounts: what is configured, what is there, and what is done about the difference.
//!
//! One lock holds what is known; nobody has it while a view is started, looked at or ended. Each of
//! that happens on the thread that asked for it, or, where nobody asked, on one that was started for
//! it; a thread for each view waits for the end of its server. What is known is written in the [`book`].

mod book;
pub mod events;
mod plan;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gate_api::process;
use gate_core::mount::{Found, Status, Step, Wish};
use gate_core::time::Time;
use tokio::sync::watch;
use uuid::Uuid;

use super::body::{self, short};
use super::refusal::{Kind, Refusal};
use super::store::{Record, Store};
use super::views::{Changes, Look, Views};
use book::{Book, Entry, wish_of};
use events::Lately;

/// How long a daemon that starts waits for the views that are there already to say so.
const SETTLED_PATIENCE: Duration = Duration::from_secs(1);

/// Keeps the mounts of one daemon.
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

struct Inner {
    views: Views,
    began: Instant,
    book: Mutex<Book>,
    /// That something in the book has changed.
    news: Condvar,
}

impl Keeper {
    /// Finds what is configured; nothing is looked at, nor mounted, before [`Keeper::begin`].
    pub fn open(store: Store, views: Views) -> Result<Keeper, Refusal> {
        Ok(Keeper(Arc::new(Inner {
            views,
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
        let ended = self.0.views.end(&record, lazy);
        let look = self.0.views.look(&record);
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

    /// Ends all views that this process serves, also those that somebody uses: it ends itself.
    pub fn end_inside(&self) {
        let all: Vec<Record> = {
            let mut book = self.book();
            book.is_ending = true;
            book.entries().map(|entry| entry.record.clone()).collect()
        };
        for record in all.iter().filter(|record| record.bucket.is_some()) {
            self.0.views.inside.detach(record);
        }
        self.0.views.inside.settle();
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
        let look = self.0.views.look(&record);
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
        if self.0.views.look(&record) != Look::Nothing {
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
        let outcome = self.0.views.start(&record);
        // Whatever was said, what is there counts: it may be there by another's hand.
        let look = self.0.views.look(&record);
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
            let look = self.0.views.await_end(&record, pid);
            let mut book = self.book();
            let is_other = |e: &Entry| e.pid != Some(pid) || e.mount.found != Found::Served;
            // With the end of this process all go that it serves: nobody unmounted them.
            let goes_along = book.is_ending && record.bucket.is_some();
            if goes_along || book.entry(id).is_ok_and(is_other) {
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
