//! The views of buckets, which the daemon serves itself: it alone may have a bucket open.
//!
//! Nothing here asks such a view anything: who serves it would wait for itself.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use gate_api::wire::{Inode, Origin, Rules, Source as Served};
use gate_api::{Address, Attachment, ClientInfo, Session, Watcher, mounts};
use gate_broker::Door;
use gate_bucket::vault::Cache;
use gate_core::lock::limits::TEXT_BYTES_MAX;
use gate_fuse::Cover;
use gate_view::kept::{Limits, Place};
use gate_view::mount::{About, Behind, Berth, Ears};
use gate_view::policy::{Policies, READ_WAIT_DEFAULT, Rule};
use gate_view::{Identity, Options, OwnerScope, Ready, backing, guard, written};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::buckets::Buckets;
use super::place;
use super::refusal::{Kind, Refusal};
use super::store::Record;
use super::views::Look;
use crate::sealed::Sealed;
use crate::unmount;

/// The views of buckets of one daemon.
pub struct Inside {
    state_dir: PathBuf,
    buckets: Buckets,
    door: Door,
    address: Address,
    /// By where they are.
    served: Arc<Showing>,
}

/// What is served.
#[derive(Default)]
struct Showing {
    by_point: Mutex<HashMap<PathBuf, Uuid>>,
    /// One of them has ended.
    ended: Condvar,
}

impl Inside {
    pub fn new(state_dir: &Path, buckets: Buckets, door: Door, address: Address) -> Inside {
        let state_dir = state_dir.canonicalize().unwrap_or_else(|_| state_dir.to_owned());
        Inside { state_dir, buckets, door, address, served: Arc::default() }
    }

    /// Returns which bucket is meant, what it is called, and where it lies.
    pub fn bucket(&self, words: &str) -> Result<(Uuid, String, PathBuf), Refusal> {
        let bucket = self.buckets.one(words).map_err(|refusal| match refusal.kind {
            Kind::NotFound => Refusal { kind: Kind::NoSuchBucket, ..refusal },
            _ => refusal,
        })?;
        Ok((bucket.bucket_id, bucket.name, self.buckets.path(bucket.bucket_id)))
    }

    /// Returns where a bucket is to be shown; the directory is made if it is missing.
    pub fn point(&self, point: &Path) -> Result<(PathBuf, Option<place::Made>), Refusal> {
        place::point_outside(point, &self.state_dir)
    }

    /// Mounts it, over its dead view if there is one.
    pub fn start(&self, record: &Record, bucket: Uuid) -> Result<(), Refusal> {
        let (point, made) = self.point(&record.point)?;
        let outcome = self.mount(record, bucket, point);
        if let (Err(_), Some(made)) = (&outcome, made) {
            made.undo();
        }
        outcome
    }

    fn mount(&self, record: &Record, bucket: Uuid, point: PathBuf) -> Result<(), Refusal> {
        let berth = self.berth(&point)?;
        let mut served = self.served();
        if let Some((other, _)) = served.iter().find(|(_, shown)| **shown == bucket) {
            let message = format!("the bucket is mounted at {} already", other.display());
            return Err(Refusal::new(Kind::State, message, "a bucket is shown at one place"));
        }
        let id = bucket.to_string();
        let live = self.buckets.get(&id)?;
        let cannot = |cause: &dyn std::fmt::Display, hint: &str| {
            let (name, point) = (record.source.display(), point.display());
            Refusal::new(Kind::Failed, format!("cannot mount {name} at {point}: {cause}"), hint)
        };
        let policies = Policies::new(Rule::shipped(), Some(READ_WAIT_DEFAULT));
        let policies = policies.map_err(|bad| cannot(&bad.reason, "look into the log"))?;
        let ears = Ears::new();
        let (session, attachment) = self
            .attach(&point, id, &policies, &ears)
            .map_err(|(cause, hint)| cannot(&cause, &hint))?;
        let dir = self.buckets.path(bucket);
        live.vault().set_cache(Cache {
            bytes_max: record.settings.cache_size_mb as usize * 1024 * 1024,
            age_max: Duration::from_secs(record.settings.cache_ttl_secs.into()),
        });
        let source = Sealed::new(live.clone(), &dir);
        let kept = Place::of(&self.state_dir, &dir, Limits::default());
        let about = about(&dir, &kept, bucket).map_err(|error| cannot(&error, "try again"))?;
        let behind =
            Behind::Tree { name: OsString::from(&record.source), source: Arc::new(source), about };
        let options = Options {
            mountpoint: point.clone(),
            berth,
            policies,
            identity: Identity {
                scope: OwnerScope::Process,
                owner: String::new(),
                agent: None,
                acquire_timeout: None,
            },
            release_on_flush: false,
            allow_other: record.settings.allow_other,
            read_only: record.settings.read_only,
            backing: backing::Policy::Nothing,
            kill: false,
            guard: guard::Policy::Allow,
            kept,
            about: About { broker: self.address.to_os_string() },
        };
        let ready = Ready::mount(behind, (session, &attachment), &ears, options)
            .map_err(|error| cannot(&error, "give an existing, empty directory"))?;
        served.insert(point.clone(), bucket);
        let all = Arc::clone(&self.served);
        let serve = move || {
            // What is asked of it ends here; what was done to the bucket is committed before it is said.
            let outcome = ready.serve();
            if let Err(error) = outcome {
                tracing::warn!(point = %point.display(), %error, "the view of a bucket ended");
            }
            if let Err(error) = live.settle() {
                tracing::warn!(%error, "what was done in a bucket is in no entry yet");
            }
            drop(live);
            let mut served = all.by_point.lock().unwrap_or_else(PoisonError::into_inner);
            served.remove(&point);
            all.ended.notify_all();
        };
        thread::spawn(serve);
        Ok(())
    }

    /// Takes the place of a dead view, or that of nothing.
    fn berth(&self, point: &Path) -> Result<Berth, Refusal> {
        let taken = |message: String| {
            Refusal::new(
                Kind::State,
                message,
                "choose an empty directory, or unmount what is there",
            )
        };
        let shown = point.display();
        let mount = mounts::at(point)
            .map_err(|error| Refusal::new(Kind::Failed, error, "is /proc mounted?"))?;
        match mount {
            Some(mount) if mount.is_gated && child_is_dead(point) => Cover::at(point)
                .map(Berth::Taken)
                .map_err(|error| taken(format!("the dead view at {shown} stays: {error}"))),
            Some(mount) => Err(taken(format!("{} is mounted at {shown}", mount.source.display()))),
            None => {
                let is_empty = fs::read_dir(point).is_ok_and(|mut all| all.next().is_none());
                let full =
                    || taken(format!("{shown} is not empty: the view would hide what is there"));
                is_empty.then_some(Berth::Free).ok_or_else(full)
            }
        }
    }

    fn attach(
        &self,
        point: &Path,
        bucket: String,
        policies: &Policies,
        ears: &Ears,
    ) -> Result<(Session, Attachment), (String, String)> {
        let mut name = format!("gate mount {}", point.display());
        name.truncate(name.floor_char_boundary(TEXT_BYTES_MAX));
        let watcher: Arc<dyn Watcher> = Arc::new(ears.clone());
        let session = Session::connect(self.door.clone(), ClientInfo::named(name), watcher);
        let session = session.map_err(|error| (error.to_string(), "try again".to_owned()))?;
        let source = Served {
            origin: Origin::Bucket(bucket),
            space: None,
            by_host_and_port: false,
            rules: Some(Rules { read_wait: policies.read_wait(), policies: policies.canonical() }),
        };
        let attachment = session.attach(source).map_err(|error| {
            (error.to_string(), "`gate status` tells how the broker is".to_owned())
        })?;
        Ok((session, attachment))
    }

    /// Looks what is there.
    pub fn look(&self, record: &Record) -> Look {
        if self.served().contains_key(&record.point) {
            return Look::Served(std::process::id());
        }
        match mounts::at(&record.point) {
            Err(error) => Look::Odd(format!("the table of mounts cannot be read: {error}")),
            Ok(None) => Look::Nothing,
            // Its daemon died.
            Ok(Some(mount)) if mount.is_gated && child_is_dead(&record.point) => Look::Dead,
            Ok(Some(mount)) => Look::Odd(format!("{} is mounted there", mount.source.display())),
        }
    }

    /// Waits until it is served no more.
    pub fn await_end(&self, record: &Record) {
        let is_served = |served: &mut HashMap<PathBuf, Uuid>| served.contains_key(&record.point);
        let ended = self.served.ended.wait_while(self.served(), is_served);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    /// Unmounts it, also while somebody uses it.
    pub fn detach(&self, record: &Record) {
        if self.served().contains_key(&record.point)
            && unmount::unmount(&record.point).is_err()
            && let Err(error) = gate_fuse::detach(&record.point)
        {
            tracing::warn!(point = %record.point.display(), %error, "a view stays");
        }
    }

    /// Sees to it that all that was done in buckets is in them.
    pub fn settle(&self) {
        self.buckets.settle();
    }

    fn served(&self) -> MutexGuard<'_, HashMap<PathBuf, Uuid>> {
        self.served.by_point.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what a view of a bucket tells of it.
fn about(dir: &Path, kept: &Place, bucket: Uuid) -> std::io::Result<Map<String, Value>> {
    #[derive(serde::Serialize)]
    struct Written<'a>(#[serde(with = "written")] &'a PathBuf);

    let stat = fs::metadata(dir)?;
    let root = Inode { device: stat.dev(), number: stat.ino() };
    let dir = dir.to_owned();
    Ok(Map::from_iter([
        ("source".to_owned(), json!(Written(&dir))),
        ("root".to_owned(), json!(root)),
        ("root_descriptor".to_owned(), json!(0)),
        ("kept".to_owned(), json!(kept)),
        ("bucket".to_owned(), json!(bucket)),
    ]))
}

fn child_is_dead(point: &Path) -> bool {
    // No view of this daemon: it is asked of none that would wait for this thread.
    let asked = point.to_owned();
    let patience = Duration::from_secs(5);
    let found = crate::within::within(patience, move || asked.symlink_metadata());
    matches!(found, Some(Err(error)) if gate_fuse::is_of_dead(&error))
}
