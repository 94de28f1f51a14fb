//! The file of a device's identity: `docs/bucket-format.md`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::Identity;
use crate::envelope;
use crate::hash::{Context, Secret, derive};
use crate::{random, whole};

const MAGIC: &[u8; 6] = b"GATEID";
const VERSION: u8 = 1;
const OPEN: u8 = 0;
const SEALED: u8 = 1;

const HEAD_BYTES: usize = MAGIC.len() + 2;
const SECRETS_BYTES: usize = 64;
const CHECK_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// All before the nonce of a sealed one.
const SEAL_HEAD_BYTES: usize = HEAD_BYTES + 3 * 4 + SALT_BYTES;
const OPEN_BYTES: usize = HEAD_BYTES + SECRETS_BYTES + CHECK_BYTES;
const SEALED_BYTES: usize = SEAL_HEAD_BYTES + envelope::OVERHEAD_BYTES + SECRETS_BYTES;

/// The most memory that a file may ask for: a wrong one is not to end the machine.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// The most passes that a file may ask for.
const PASSES_MAX: u32 = 16;
/// The most lanes that a file may ask for.
const LANES_MAX: u32 = 16;

/// What trying a passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

/// What seals an identity.
pub struct Passphrase {
    words: Zeroizing<Vec<u8>>,
    /// For what is sealed with it; a file that is opened says itself what it costs.
    costs: Costs,
}

/// Why there is no identity.
#[derive(Debug)]
pub enum IdentityError {
    /// It would be overwritten: whoever has another one is another device.
    Exists(PathBuf),
    /// It must be made first.
    Missing(PathBuf),
    /// Something else is in its place.
    NoFile(PathBuf),
    /// Others may have read it.
    NotPrivate {
        path: PathBuf,
        mode: u32,
    },
    /// Another user made it, and may know it.
    NotOurs {
        path: PathBuf,
        owner: u32,
    },
    /// A newer program wrote it.
    UnknownVersion(u8),
    /// A backup must be put in its place.
    Damaged,
    /// It asks for more memory or time than is given.
    TooCostly(Costs),
    /// It is sealed, and can be opened with one only.
    NeedsPassphrase,
    /// It is sealed with another one, or damaged: nobody can tell.
    WrongPassphrase,
    /// An empty one would seal nothing.
    EmptyPassphrase,
    Io(io::Error),
}

impl Costs {
    /// Some tenths of a second, and memory that is dear to whoever tries many.
    pub const DEFAULT: Costs = Costs { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

    fn params(self) -> Result<Params, IdentityError> {
        let Costs { memory_kib, passes, lanes } = self;
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
            return Err(IdentityError::TooCostly(self));
        }
        Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| IdentityError::Damaged)
    }
}

impl Passphrase {
    /// Takes a passphrase over.
    pub fn new(words: Vec<u8>) -> Result<Passphrase, IdentityError> {
        Passphrase::costing(words, Costs::DEFAULT)
    }

    /// Takes a passphrase over that is to cost something else than usual.
    pub fn costing(words: Vec<u8>, costs: Costs) -> Result<Passphrase, IdentityError> {
        if words.is_empty() {
            return Err(IdentityError::EmptyPassphrase);
        }
        costs.params()?;
        Ok(Passphrase { words: Zeroizing::new(words), costs })
    }

    fn key(&self, costs: Costs, salt: &[u8]) -> Result<Secret, IdentityError> {
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, costs.params()?);
        let mut out = Zeroizing::new([0; 32]);
        argon.hash_password_into(&self.words, salt, &mut out[..]).map_err(|_| {
            // The lengths are fixed: what is left is that there is no memory.
            IdentityError::Io(io::ErrorKind::OutOfMemory.into())
        })?;
        Ok(derive(Context::Passphrase, &out[..]))
    }
}

impl Identity {
    /// Makes a device and its file; a file that is there stays as it is.
    pub fn make(path: &Path, passphrase: Option<&Passphrase>) -> Result<Identity, IdentityError> {
        let identity = Identity::random();
        whole::create(path, &identity.encode(passphrase)?).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists(path.to_owned()),
            _ => IdentityError::Io(error),
        })?;
        Ok(identity)
    }

    /// Opens a device's file, which nobody else can read.
    pub fn open(path: &Path, passphrase: Option<&Passphrase>) -> Result<Identity, IdentityError> {
        Identity::decode(&read(path)?, passphrase)
    }

    /// Returns the bytes of its file.
    pub fn encode(
        &self,
        passphrase: Option<&Passphrase>,
    ) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        match passphrase {
            None => Ok(self.encode_open()),
            Some(words) => self.encode_sealed(words, &random::bytes(), random::bytes()),
        }
    }

    /// Returns what a file holds.
    pub fn decode(
        bytes: &[u8],
        passphrase: Option<&Passphrase>,
    ) -> Result<Identity, IdentityError> {
        let secrets = if check(bytes)? {
            let words = passphrase.ok_or(IdentityError::NeedsPassphrase)?;
            let (head, sealed) = bytes.split_at(SEAL_HEAD_BYTES);
            let (costs, salt) = costs(head);
            let key = words.key(costs, salt)?;
            envelope::open(&key, head, sealed).ok_or(IdentityError::WrongPassphrase)?
        } else {
            Zeroizing::new(bytes[HEAD_BYTES..HEAD_BYTES + SECRETS_BYTES].to_vec())
        };
        let (seed, agreement) = secrets.split_at(32);
        let seed: &[u8; 32] = seed.try_into().map_err(|_| IdentityError::Damaged)?;
        let agreement: &[u8; 32] = agreement.try_into().map_err(|_| IdentityError::Damaged)?;
        Ok(Identity::from_secrets(seed, *agreement))
    }

    fn secrets(&self) -> Zeroizing<Vec<u8>> {
        let mut secrets = Zeroizing::new(Vec::with_capacity(SECRETS_BYTES));
        secrets.extend_from_slice(self.signing.as_bytes());
        secrets.extend_from_slice(self.agreement.bytes());
        secrets
    }

    fn encode_open(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(OPEN_BYTES));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, OPEN]);
        bytes.extend_from_slice(&self.secrets());
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        bytes
    }

    pub(crate) fn encode_sealed(
        &self,
        passphrase: &Passphrase,
        salt: &[u8; SALT_BYTES],
        nonce: [u8; envelope::NONCE_BYTES],
    ) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let Costs { memory_kib, passes, lanes } = passphrase.costs;
        let mut bytes = [&MAGIC[..], &[VERSION, SEALED]].concat();
        for cost in [memory_kib, passes, lanes] {
            bytes.extend_from_slice(&cost.to_le_bytes());
        }
        bytes.extend_from_slice(salt);
        let key = passphrase.key(passphrase.costs, salt)?;
        let sealed = envelope::seal_with(nonce, &key, &bytes, &self.secrets());
        bytes.extend_from_slice(&sealed);
        Ok(Zeroizing::new(bytes))
    }
}

/// Whether a passphrase is needed to open a device's file.
pub fn is_sealed(path: &Path) -> Result<bool, IdentityError> {
    check(&read(path)?)
}

/// Seals a device's file with another passphrase, or with none. A crash leaves the old or the new.
pub fn change_passphrase(
    path: &Path,
    old: Option<&Passphrase>,
    new: Option<&Passphrase>,
) -> Result<(), IdentityError> {
    let identity = Identity::open(path, old)?;
    whole::replace(path, &identity.encode(new)?).map_err(IdentityError::Io)
}

/// Reads a file that is the user's alone.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    // A pipe in its place is not to be waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file: File = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing(path.to_owned()),
        _ => IdentityError::Io(error),
    })?;
    let found = file.metadata().map_err(IdentityError::Io)?;
    let path = || path.to_owned();
    if !found.is_file() {
        return Err(IdentityError::NoFile(path()));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(IdentityError::NotOurs { path: path(), owner: found.uid() });
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::NotPrivate { path: path(), mode });
    }
    whole::read(&file, OPEN_BYTES.max(SEALED_BYTES)).map(Zeroizing::new).map_err(IdentityError::Io)
}

/// Checks what can be checked without a passphrase; returns whether one is needed.
fn check(bytes: &[u8]) -> Result<bool, IdentityError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(IdentityError::Damaged)?;
    match rest {
        [VERSION, OPEN, ..] if bytes.len() == OPEN_BYTES => {
            let (held, check) = bytes.split_at(OPEN_BYTES - CHECK_BYTES);
            let is_whole = blake3::hash(held).as_bytes() == check;
            if is_whole { Ok(false) } else { Err(IdentityError::Damaged) }
        }
        [VERSION, SEALED, ..] if bytes.len() == SEALED_BYTES => {
            costs(&bytes[..SEAL_HEAD_BYTES]).0.params()?;
            Ok(true)
        }
        [VERSION, ..] | [] => Err(IdentityError::Damaged),
        [version, ..] => Err(IdentityError::UnknownVersion(*version)),
    }
}

fn costs(head: &[u8]) -> (Costs, &[u8]) {
    let (numbers, salt) = head[HEAD_BYTES..].split_at(3 * 4);
    let at = |place: usize| {
        let bytes: [u8; 4] = numbers[4 * place..4 * place + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes)
    };
    (Costs { memory_kib: at(0), passes: at(1), lanes: at(2) }, salt)
}

impl IdentityError {
    /// Returns what to do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            IdentityError::NotPrivate { path, .. } => Some(format!(
                "if nobody read it, `chmod 600 {}`; else make a new identity",
                path.display()
            )),
            IdentityError::NotOurs { .. } => Some("run this as that user".into()),
            IdentityError::UnknownVersion(_) => Some("use a newer version of Gate".into()),
            IdentityError::Damaged => Some("put a backup of the file in its place".into()),
            IdentityError::Exists(_)
            | IdentityError::Missing(_)
            | IdentityError::NoFile(_)
            | IdentityError::TooCostly(_)
            | IdentityError::NeedsPassphrase
            | IdentityError::WrongPassphrase
            | IdentityError::EmptyPassphrase
            | IdentityError::Io(_) => None,
        }
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Exists(path) => write!(f, "{} is there already", path.display()),
            IdentityError::Missing(path) => write!(f, "there is no {}", path.display()),
            IdentityError::NoFile(path) => write!(f, "{} is no file", path.display()),
            IdentityError::NotPrivate { path, mode } => {
                write!(f, "others can read {}: its mode is {mode:04o}", path.display())
            }
            IdentityError::NotOurs { path, owner } => {
                write!(f, "{} belongs to user {owner}", path.display())
            }
            IdentityError::UnknownVersion(version) => {
                write!(f, "an identity of version {version} is not known here")
            }
            IdentityError::Damaged => f.write_str("the identity is damaged"),
            IdentityError::TooCostly(Costs { memory_kib, passes, lanes }) => write!(
                f,
                "the identity asks for {memory_kib} KiB, {passes} passes and {lanes} lanes: more \
                 than {MEMORY_KIB_MAX}, {PASSES_MAX} and {LANES_MAX} is not given"
            ),
            IdentityError::NeedsPassphrase => f.write_str("a passphrase seals the identity"),
            IdentityError::WrongPassphrase => {
                f.write_str("it is another passphrase, or the identity is damaged")
            }
            IdentityError::EmptyPassphrase => f.write_str("a passphrase has something in it"),
            IdentityError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let IdentityError::Io(error) = self { Some(error) } else { None }
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a passphrase")
    }
}
