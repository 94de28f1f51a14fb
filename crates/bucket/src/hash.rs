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
    Log,
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
            Context::Log => "gate 2026 bucket v1 log",
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
    derive_under(context.words(), secret, out);
}

fn derive_under(words: &str, secret: &[u8], out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(words);
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Those of BLAKE3's authors (github.com/BLAKE3-team/BLAKE3, CC0), as they are.
    #[derive(Deserialize)]
    struct Vectors {
        key: String,
        cases: Vec<Case>,
    }

    /// The context of all of them.
    const WORDS: &str = "BLAKE3 2019-12-27 16:29:52 test vectors context";

    #[derive(Deserialize)]
    struct Case {
        input_len: usize,
        hash: String,
        keyed_hash: String,
        derive_key: String,
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn they_are_the_hashes_that_the_authors_of_blake3_published() {
        let vectors = include_str!("../fixtures/vectors/blake3.json");
        let vectors: Vectors = serde_json::from_str(vectors).unwrap();
        let key = Secret::new(vectors.key.as_bytes().try_into().unwrap());
        assert_eq!(vectors.cases.len(), 22);
        for case in vectors.cases {
            let input: Vec<u8> = (0..=250).cycle().take(case.input_len).collect();
            let len = case.input_len;
            assert_eq!(hex(&address(&input).0), case.hash[..64], "{len} bytes");
            for at in [0, len / 2, len] {
                let (one, other) = input.split_at(at);
                assert_eq!(hex(&keyed(&key, &[one, other])), case.keyed_hash[..64], "{len} bytes");
            }
            // More than 64 bytes: the later blocks of what is derived are those of the vectors, too.
            let mut derived = vec![0; case.derive_key.len() / 2];
            derive_under(WORDS, &input, &mut derived);
            assert_eq!(hex(&derived), case.derive_key, "{len} bytes");
        }
    }
}
