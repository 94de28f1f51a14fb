//! Hashes, and the keys that are made from others.

use gate_core::tree::id::Address;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What is derived, and from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    BucketId,
    Chunk,
    Dedupe,
    Entry,
    Checkpoint,
    Local,
    Passphrase,
    EpochCheck,
}

/// A secret of 32 bytes. It shows nowhere, and is wiped when it goes.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Context {
    fn words(self) -> &'static str {
        match self {
            Context::BucketId => "gate 2026 bucket v1 id",
            Context::Chunk => "gate 2026 bucket v1 chunk",
            Context::Dedupe => "gate 2026 bucket v1 dedupe",
            Context::Entry => "gate 2026 bucket v1 entry",
            Context::Checkpoint => "gate 2026 bucket v1 checkpoint",
            Context::Local => "gate 2026 bucket v1 local",
            Context::Passphrase => "gate 2026 device v1 passphrase",
            Context::EpochCheck => "gate 2026 bucket v1 epoch check",
        }
    }
}

impl Secret {
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a secret")
    }
}

/// Derives as many bytes as are wanted.
pub fn derive_into(context: Context, secret: &[u8], out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(context.words());
    hasher.update(secret).finalize_xof().fill(out);
}

/// Derives a secret.
pub fn derive(context: Context, secret: &[u8]) -> Secret {
    let mut bytes = [0; 32];
    derive_into(context, secret, &mut bytes);
    Secret(bytes)
}

/// Returns the hash of bytes under a key.
pub fn keyed(key: &Secret, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Returns where sealed bytes are found.
pub fn address(sealed: &[u8]) -> Address {
    Address(*blake3::hash(sealed).as_bytes())
}
