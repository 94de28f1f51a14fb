//! Who may read, write and own a bucket: a line of records, each signed by an owner.
//!
//! A record names the one before it, and is judged by what that left. What was accepted stays:
//! two records after one are a fork, which is refused by name; to join forks is not done here.
//! Keys of epochs are in the records, sealed for each device that may read. What somebody was
//! allowed at an earlier record can be asked for ever: entries are judged by the record they name.

mod error;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use gate_core::tree::id::FeedId;
use serde::{Deserialize, Serialize};

pub use error::MemberError;
pub use keys::{EpochKeys, SealedKey};

use crate::genesis::{BucketId, Genesis};
use crate::identity::{AgreementKey, DeviceId, Identity};
use crate::record::{self, Bytes, at_most};
use crate::sign::{self, Purpose, Signature};

/// The most bytes of a record and its signature.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// The most devices of a bucket.
pub const DEVICES_MAX: usize = 1024;
/// The most feeds that are cut when their device is removed.
pub const CUT_FEEDS_MAX: usize = 16_384;
/// The most records of a bucket.
pub const RECORDS_MAX: usize = 65_536;

const VERSION: u8 = 1;
const SIGNATURE_BYTES: usize = 64;

/// What a device may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// It keeps what it cannot read.
    Mirror,
    Reader,
    Writer,
    /// It says who is what.
    Owner,
}

/// A record, by its hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordId(pub [u8; 32]);

/// What a record changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Add {
        device: DeviceId,
        key: AgreementKey,
        role: Role,
    },
    Remove {
        device: DeviceId,
        /// How far each feed had come that it wrote, as far as the author knew; rising.
        #[serde(deserialize_with = "at_most::<_, _, CUT_FEEDS_MAX>")]
        cut: Vec<(FeedId, u64)>,
    },
    Role {
        device: DeviceId,
        role: Role,
    },
    /// A new key for all who read, or one that is there for some who do not have it.
    Epoch {
        number: u64,
        /// Derived from the key: all who are given it are given the same.
        check: [u8; 32],
        /// Rising by device.
        #[serde(deserialize_with = "at_most::<_, _, DEVICES_MAX>")]
        keys: Vec<SealedKey>,
    },
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u8,
    previous: RecordId,
    author: DeviceId,
    at_ms: u64,
    change: Change,
}

/// What all records of a bucket come to.
#[derive(Debug)]
pub struct Members {
    bucket: BucketId,
    founder: (DeviceId, AgreementKey),
    /// The place of each record.
    places: HashMap<RecordId, usize>,
    head: RecordId,
    devices: BTreeMap<DeviceId, Member>,
    /// From which record on each device that ever was a member was what.
    roles: HashMap<DeviceId, Vec<(usize, Option<Role>)>>,
    epochs: Vec<Epoch>,
    /// The keys that this device was given.
    keys: BTreeMap<u64, EpochKeys>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    key: AgreementKey,
    role: Role,
}

#[derive(Debug)]
struct Epoch {
    /// The record that began it.
    from: usize,
    check: [u8; 32],
    /// Who was given its key.
    given: BTreeSet<DeviceId>,
}

impl Members {
    /// Returns what there is before the first record.
    pub fn new(genesis: &Genesis) -> Members {
        Members {
            bucket: genesis.id(),
            founder: (genesis.owner(), genesis.owner_key()),
            places: HashMap::new(),
            head: RecordId(genesis.id().0),
            devices: BTreeMap::new(),
            roles: HashMap::new(),
            epochs: Vec::new(),
            keys: BTreeMap::new(),
        }
    }

    /// Makes the two records with which a bucket begins, and accepts them.
    pub fn found(
        genesis: &Genesis,
        owner: &Identity,
        at_ms: u64,
    ) -> Result<(Members, [Vec<u8>; 2]), MemberError> {
        let mut members = Members::new(genesis);
        let (device, key) = (owner.device(), owner.agreement_key());
        let add = members.make(owner, at_ms, Change::Add { device, key, role: Role::Owner })?;
        members.accept(&add, Some(owner))?;
        let epoch = members.make(owner, at_ms, members.next_epoch()?)?;
        members.accept(&epoch, Some(owner))?;
        Ok((members, [add, epoch]))
    }

    /// Makes the next record, which is accepted once it is kept.
    pub fn make(
        &self,
        author: &Identity,
        at_ms: u64,
        change: Change,
    ) -> Result<Vec<u8>, MemberError> {
        let author_id = author.device();
        let record =
            Record { version: VERSION, previous: self.head, author: author_id, at_ms, change };
        self.judge(&record)?;
        let mut bytes = record::encode(&record);
        let signature = author.sign(Purpose::Member, blake3::hash(&bytes).as_bytes());
        bytes.extend_from_slice(&signature.0);
        if bytes.len() > RECORD_BYTES_MAX { Err(MemberError::TooLong) } else { Ok(bytes) }
    }

    /// Verifies the next record, and changes what it says; `me` opens keys that are sealed for it.
    ///
    /// Whether a record holds is the same for all: a key that does not open changes nothing else.
    pub fn accept(&mut self, bytes: &[u8], me: Option<&Identity>) -> Result<RecordId, MemberError> {
        let (record, id) = read(bytes)?;
        if self.places.contains_key(&id) {
            return Err(MemberError::Known);
        }
        if record.previous != self.head {
            let is_known =
                self.places.contains_key(&record.previous) || record.previous.0 == self.bucket.0;
            let after = record.previous;
            return Err(if is_known { MemberError::Fork { after } } else { MemberError::Gap });
        }
        self.judge(&record)?;
        self.apply(record, id, me);
        Ok(id)
    }

    /// Returns the newest record; before the first one, what that names.
    pub fn head(&self) -> RecordId {
        self.head
    }

    /// Returns each device, its key and what it may do now.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceId, AgreementKey, Role)> {
        self.devices.iter().map(|(device, member)| (*device, member.key, member.role))
    }

    /// Returns what a device may do now.
    pub fn role(&self, device: &DeviceId) -> Option<Role> {
        self.devices.get(device).map(|member| member.role)
    }

    /// Returns what a device was allowed when a record was the newest.
    pub fn role_at(&self, device: &DeviceId, record: &RecordId) -> Option<Role> {
        let place = *self.places.get(record)?;
        let roles = self.roles.get(device)?;
        roles[..roles.partition_point(|(from, _)| *from <= place)].last()?.1
    }

    /// Returns the epoch that was when a record was the newest.
    pub fn epoch_at(&self, record: &RecordId) -> Option<u64> {
        let place = *self.places.get(record)?;
        (self.epochs.partition_point(|epoch| epoch.from <= place) as u64).checked_sub(1)
    }

    /// Returns how many records are before one that was accepted.
    pub fn place(&self, record: &RecordId) -> Option<usize> {
        self.places.get(record).copied()
    }

    /// Returns the epoch that is now.
    pub fn epoch(&self) -> Option<u64> {
        (self.epochs.len() as u64).checked_sub(1)
    }

    /// Returns the keys of an epoch, if this device was given them.
    pub fn keys(&self, epoch: u64) -> Option<&EpochKeys> {
        self.keys.get(&epoch)
    }

    /// Draws the key of the next epoch, for all who read.
    pub fn next_epoch(&self) -> Result<Change, MemberError> {
        self.share(self.epochs.len() as u64, &EpochKeys::random(), self.readers())
    }

    /// Gives the keys of all epochs that this device has to those who read and lack them.
    pub fn hand_on(&self) -> Result<Vec<Change>, MemberError> {
        let lacking = |epoch: &Epoch| -> Vec<_> {
            self.readers().filter(|(device, _)| !epoch.given.contains(device)).collect()
        };
        let epochs = self.epochs.iter().zip(0..);
        epochs
            .filter_map(|(epoch, number)| Some((number, self.keys(number)?, lacking(epoch))))
            .filter(|(.., devices)| !devices.is_empty())
            .map(|(number, keys, devices)| self.share(number, keys, devices.into_iter()))
            .collect()
    }

    fn readers(&self) -> impl Iterator<Item = (DeviceId, AgreementKey)> {
        self.devices().filter(|(.., role)| *role >= Role::Reader).map(|(id, key, _)| (id, key))
    }

    fn share(
        &self,
        number: u64,
        keys: &EpochKeys,
        devices: impl Iterator<Item = (DeviceId, AgreementKey)>,
    ) -> Result<Change, MemberError> {
        let sealed = devices.map(|(device, key)| keys.seal(&self.bucket, device, &key));
        let sealed: Option<Vec<_>> = sealed.collect();
        let sealed = sealed.ok_or(MemberError::WeakKey)?;
        Ok(Change::Epoch { number, check: keys.check(), keys: sealed })
    }

    fn judge(&self, record: &Record) -> Result<(), MemberError> {
        let (founder, founder_key) = self.founder;
        let founding = Change::Add { device: founder, key: founder_key, role: Role::Owner };
        let is_founding = match self.places.len() {
            0 => record.author == founder && record.change == founding,
            1 => matches!(record.change, Change::Epoch { .. }),
            RECORDS_MAX.. => return Err(MemberError::TooMany("records")),
            _ => true,
        };
        if !is_founding {
            return Err(MemberError::NotFounded);
        }
        if !self.places.is_empty() && self.role(&record.author) != Some(Role::Owner) {
            return Err(MemberError::NotOwner(record.author));
        }
        match &record.change {
            Change::Add { device, key, .. } => self.judge_add(device, key),
            Change::Remove { device, cut } => {
                let is_rising = cut.windows(2).all(|pair| pair[0].0 < pair[1].0);
                if is_rising { self.judge_end(device) } else { Err(MemberError::Disorder) }
            }
            Change::Role { device, role } => match self.role(device) {
                Some(now) if now == *role => Err(MemberError::NoChange),
                _ => self.judge_end(device),
            },
            Change::Epoch { number, check, keys } => self.judge_epoch(*number, check, keys),
        }
    }

    fn judge_add(&self, device: &DeviceId, key: &AgreementKey) -> Result<(), MemberError> {
        if self.devices.contains_key(device) {
            return Err(MemberError::NoChange);
        }
        if self.devices.len() == DEVICES_MAX {
            return Err(MemberError::TooMany("devices"));
        }
        let is_sound = sign::is_key(&device.0) && key.is_sound();
        if is_sound { Ok(()) } else { Err(MemberError::WeakKey) }
    }

    /// Judges whether a device may stop to be what it is: somebody must own the bucket.
    fn judge_end(&self, device: &DeviceId) -> Result<(), MemberError> {
        let role = self.role(device).ok_or(MemberError::NotMember(*device))?;
        let owners = self.devices().filter(|(.., role)| *role == Role::Owner).count();
        let is_last = role == Role::Owner && owners == 1;
        if is_last { Err(MemberError::LastOwner) } else { Ok(()) }
    }

    fn judge_epoch(
        &self,
        number: u64,
        check: &[u8; 32],
        keys: &[SealedKey],
    ) -> Result<(), MemberError> {
        if !keys.windows(2).all(|pair| pair[0].device < pair[1].device) {
            return Err(MemberError::Disorder);
        }
        let given = || keys.iter().map(|key| key.device);
        let place = usize::try_from(number).map_err(|_| MemberError::WrongEpoch(number))?;
        match self.epochs.get(place) {
            None if place > self.epochs.len() => Err(MemberError::WrongEpoch(number)),
            None if given().eq(self.readers().map(|(device, _)| device)) => Ok(()),
            Some(epoch) if epoch.check != *check => Err(MemberError::OtherKey(number)),
            Some(epoch) if !keys.is_empty() => {
                let is_lacking = |device: DeviceId| {
                    self.role(&device) >= Some(Role::Reader) && !epoch.given.contains(&device)
                };
                let are_lacking = given().all(is_lacking);
                if are_lacking { Ok(()) } else { Err(MemberError::WrongReaders(number)) }
            }
            _ => Err(MemberError::WrongReaders(number)),
        }
    }

    fn apply(&mut self, record: Record, id: RecordId, me: Option<&Identity>) {
        let place = self.places.len();
        self.places.insert(id, place);
        self.head = id;
        match record.change {
            Change::Add { device, key, role } => {
                self.devices.insert(device, Member { key, role });
                self.roles.entry(device).or_default().push((place, Some(role)));
                // It may come back with another key, and cannot open what it was given.
                for epoch in &mut self.epochs {
                    epoch.given.remove(&device);
                }
            }
            Change::Remove { device, .. } => {
                self.devices.remove(&device);
                self.roles.entry(device).or_default().push((place, None));
            }
            Change::Role { device, role } => {
                if let Some(member) = self.devices.get_mut(&device) {
                    member.role = role;
                }
                self.roles.entry(device).or_default().push((place, Some(role)));
            }
            Change::Epoch { number, check, keys } => {
                self.open(number, &check, &keys, me);
                let given = keys.iter().map(|key| key.device);
                match self.epochs.get_mut(number as usize) {
                    Some(epoch) => epoch.given.extend(given),
                    None => {
                        self.epochs.push(Epoch { from: place, check, given: given.collect() });
                    }
                }
            }
        }
    }

    fn open(&mut self, number: u64, check: &[u8; 32], keys: &[SealedKey], me: Option<&Identity>) {
        let Some(me) = me else { return };
        let device = me.device();
        let mine = keys.iter().find(|key| key.device == device);
        if let Some(keys) = mine.and_then(|key| key.open(&self.bucket, me, check)) {
            self.keys.insert(number, keys);
        }
    }
}

fn read(bytes: &[u8]) -> Result<(Record, RecordId), MemberError> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(version) => return Err(MemberError::UnknownVersion(*version)),
        None => return Err(MemberError::Damaged),
    }
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(MemberError::TooLong);
    }
    let (written, signature) =
        bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(MemberError::Damaged)?;
    let record: Record = record::decode(written).ok_or(MemberError::Damaged)?;
    let hash = blake3::hash(written);
    let signature: Signature = Bytes(*signature);
    if !sign::is_signed(&record.author.0, Purpose::Member, hash.as_bytes(), &signature) {
        return Err(MemberError::NotSigned);
    }
    Ok((record, RecordId(*hash.as_bytes())))
}

/// Reads a record, whoever signed it.
#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let _ = record::decode::<Record>(bytes);
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("record:")?;
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
