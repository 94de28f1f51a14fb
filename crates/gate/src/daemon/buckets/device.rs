//! The device for which buckets are sealed: its file, and its keys while they are open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gate_bucket::identity::{Identity, IdentityError, Passphrase, change_passphrase, is_sealed};

use super::body::{self, Secret};
use crate::daemon::refusal::{Kind, Refusal};

/// The file in the state directory.
const FILE: &str = "identity";

/// The device that this daemon is.
pub struct Device {
    path: PathBuf,
    /// Once it was opened.
    identity: Mutex<Option<Arc<Identity>>>,
}

impl Device {
    /// Takes that of a state directory, if there is one.
    pub fn find(state_dir: &Path) -> Device {
        Device { path: state_dir.join(FILE), identity: Mutex::default() }
    }

    /// Tells how it is.
    pub fn describe(&self) -> Result<body::Device, Refusal> {
        let has_passphrase = match is_sealed(&self.path) {
            Ok(is_sealed) => is_sealed,
            Err(IdentityError::Missing(_)) => {
                let state = "none".to_owned();
                return Ok(body::Device { state, device_id: None, has_passphrase: false });
            }
            Err(error) => return Err(refusal(&error)),
        };
        let identity = match self.get() {
            Ok(identity) => Some(identity),
            Err(refusal) if refusal.kind == Kind::Locked => None,
            Err(refusal) => return Err(refusal),
        };
        let state = if identity.is_some() { "open" } else { "locked" }.to_owned();
        let device_id = identity.map(|identity| identity.device().to_string());
        Ok(body::Device { state, device_id, has_passphrase })
    }

    /// Returns its keys, if they are open or no passphrase is needed to open them.
    pub fn get(&self) -> Result<Arc<Identity>, Refusal> {
        self.open(&mut self.lock())
    }

    /// As [`Device::get`], makes one without a passphrase where there is none; says whether it did.
    pub fn get_or_make(&self) -> Result<(Arc<Identity>, bool), Refusal> {
        let mut opened = self.lock();
        match self.open(&mut opened) {
            Err(refusal) if refusal.kind == Kind::NoDevice => {
                Ok((self.make_as(&mut opened, None)?, true))
            }
            outcome => Ok((outcome?, false)),
        }
    }

    /// Makes one where there is none; tells how it is then.
    pub fn make(&self, passphrase: Option<Secret>) -> Result<body::Device, Refusal> {
        let passphrase = read(passphrase)?;
        self.make_as(&mut self.lock(), passphrase.as_ref())?;
        self.describe()
    }

    /// Opens its keys, for as long as this daemon runs; tells how it is then.
    pub fn unlock(&self, passphrase: Option<Secret>) -> Result<body::Device, Refusal> {
        let passphrase = read(passphrase)?;
        // Also where it is open: who asks wants to know whether the passphrase is right.
        let mut opened = self.lock();
        let identity = Identity::open(&self.path, passphrase.as_ref());
        *opened = Some(Arc::new(identity.map_err(|error| refusal(&error))?));
        drop(opened);
        self.describe()
    }

    /// Has another passphrase open it from now on, or none; tells how it is then.
    pub fn change_passphrase(
        &self,
        old: Option<Secret>,
        new: Option<Secret>,
    ) -> Result<body::Device, Refusal> {
        let (old, new) = (read(old)?, read(new)?);
        let turn = self.lock();
        let changed = change_passphrase(&self.path, old.as_ref(), new.as_ref());
        changed.map_err(|error| refusal(&error))?;
        drop(turn);
        self.describe()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Identity>>> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, opened: &mut Option<Arc<Identity>>) -> Result<Arc<Identity>, Refusal> {
        if let Some(identity) = opened {
            return Ok(identity.clone());
        }
        let identity = Identity::open(&self.path, None).map_err(|error| refusal(&error))?;
        Ok(opened.insert(Arc::new(identity)).clone())
    }

    fn make_as(
        &self,
        opened: &mut Option<Arc<Identity>>,
        passphrase: Option<&Passphrase>,
    ) -> Result<Arc<Identity>, Refusal> {
        let identity = Identity::make(&self.path, passphrase).map_err(|error| refusal(&error))?;
        Ok(opened.insert(Arc::new(identity)).clone())
    }
}

fn read(words: Option<Secret>) -> Result<Option<Passphrase>, Refusal> {
    let read = |Secret(mut words)| Passphrase::new(std::mem::take(&mut *words).into_bytes());
    words.map(read).transpose().map_err(|error| refusal(&error))
}

fn refusal(error: &IdentityError) -> Refusal {
    let (kind, hint) = match error {
        IdentityError::Missing(_) => (Kind::NoDevice, "make it: `gate init`"),
        IdentityError::NeedsPassphrase => (Kind::Locked, "open it: `gate unlock`"),
        IdentityError::WrongPassphrase => (Kind::Locked, "try again, or put a backup in its place"),
        IdentityError::Exists(_) => {
            (Kind::Taken, "nothing was changed; if it is locked, `gate unlock` opens it")
        }
        IdentityError::EmptyPassphrase => (Kind::Invalid, "leave it out for none"),
        _ => (Kind::Failed, "look at the file in the state directory"),
    };
    let hint = error.hint().unwrap_or_else(|| hint.to_owned());
    Refusal::new(kind, format!("the device cannot be used: {error}"), hint)
}
