//! Who a device is: two secrets, and the names that follow from them.
//!
//! With the one it signs, and is found by others; with the other it opens what was sealed for it.
//! Both lie in one file, which a passphrase may seal. Neither leaves the device, nor shows.

mod file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use file::{Costs, IdentityError, Passphrase, change_passphrase, is_sealed};

use crate::genesis::BucketId;
use crate::hash::{Context, Secret, derive_into};
use crate::random;
use crate::sign::{self, Purpose, Signature};

/// A device, by the key that it signs with; it is the id of its endpoint, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceId(pub [u8; 32]);

/// The X25519 key for which others seal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AgreementKey(pub [u8; 32]);

/// A device's own secrets.
pub struct Identity {
    signing: SigningKey,
    agreement: Secret,
}

/// What a device seals its own files of one bucket with.
pub struct LocalKeys {
    /// For the sectors of the index.
    pub sectors: Zeroizing<[u8; 64]>,
    /// For what is in no entry yet.
    pub dirty: Secret,
}

/// Why a text is no [`DeviceId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDeviceId;

impl Identity {
    /// Makes up a device.
    pub fn random() -> Identity {
        Identity::from_secrets(&random::bytes(), random::bytes())
    }

    /// Returns the device of an Ed25519 seed and an X25519 secret.
    pub fn from_secrets(seed: &[u8; 32], agreement: [u8; 32]) -> Identity {
        Identity { signing: SigningKey::from_bytes(seed), agreement: Secret::new(agreement) }
    }

    /// Returns what it is called.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.signing.verifying_key().to_bytes())
    }

    /// Returns the key for which others seal.
    pub fn agreement_key(&self) -> AgreementKey {
        let secret = x25519_dalek::StaticSecret::from(*self.agreement.bytes());
        AgreementKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// Signs what has a hash.
    pub fn sign(&self, purpose: Purpose, hash: &[u8; 32]) -> Signature {
        sign::sign(&self.signing, purpose, hash)
    }

    /// Returns the keys of its own files of a bucket.
    pub fn local_keys(&self, bucket: &BucketId) -> LocalKeys {
        let mut secret = Zeroizing::new([0; 64]);
        secret[..32].copy_from_slice(self.signing.as_bytes());
        secret[32..].copy_from_slice(&bucket.0);
        let mut keys = Zeroizing::new([0; 96]);
        derive_into(Context::Local, &secret[..], &mut keys[..]);
        let mut local = LocalKeys { sectors: Zeroizing::new([0; 64]), dirty: Secret::new([0; 32]) };
        local.sectors.copy_from_slice(&keys[..64]);
        local.dirty = Secret::new(*keys.last_chunk().expect("96 bytes end with 32"));
        local
    }

    /// Returns the secret with which it opens what others sealed for it.
    pub(crate) fn agreement(&self) -> &Secret {
        &self.agreement
    }
}

impl AgreementKey {
    /// Whether a secret can be agreed upon with it.
    pub(crate) fn is_sound(&self) -> bool {
        let any = x25519_dalek::StaticSecret::from([1; 32]);
        any.diffie_hellman(&x25519_dalek::PublicKey::from(self.0)).was_contributory()
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for DeviceId {
    type Err = NoDeviceId;

    fn from_str(text: &str) -> Result<DeviceId, NoDeviceId> {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NoDeviceId),
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(NoDeviceId) };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| NoDeviceId)?;
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        if sign::is_key(&bytes) { Ok(DeviceId(bytes)) } else { Err(NoDeviceId) }
    }
}

impl fmt::Display for NoDeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device's id is 64 digits, 0 to 9 and a to f, and a key")
    }
}

impl std::error::Error for NoDeviceId {}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("device:")?;
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("agreement:")?;
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

// Secrets show nowhere.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the identity of {:?}", self.device())
    }
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device's keys of a bucket")
    }
}
