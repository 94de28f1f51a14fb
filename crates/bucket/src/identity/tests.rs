//! Files of identities: made once, opened by whoever may, refused when anything is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

/// What is cheap enough to be tried for each bit.
const CHEAP: Costs = Costs { memory_kib: 8, passes: 1, lanes: 1 };

fn words(words: &str) -> Passphrase {
    Passphrase::costing(words.into(), CHEAP).unwrap()
}

struct Place {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    Place { path: directory.path().join("identity"), _directory: directory }
}

#[test]
fn an_identity_is_made_once_and_opened_again() {
    let Place { path, _directory } = &place();
    let made = Identity::make(path, None).unwrap();
    let opened = Identity::open(path, None).unwrap();
    assert_eq!((made.device(), made.agreement_key()), (opened.device(), opened.agreement_key()));
    assert!(!is_sealed(path).unwrap());
    assert!(matches!(Identity::make(path, None), Err(IdentityError::Exists(_))));
    assert_eq!(Identity::open(path, None).unwrap().device(), made.device());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_passphrase_comes_changes_and_goes() {
    let Place { path, _directory } = &place();
    let device = Identity::make(path, None).unwrap().device();
    let steps = [(None, Some("one")), (Some("one"), Some("two")), (Some("two"), None)];
    for (old, new) in steps {
        let (old, new) = (old.map(words), new.map(words));
        change_passphrase(path, old.as_ref(), new.as_ref()).unwrap();
        assert_eq!(is_sealed(path).unwrap(), new.is_some());
        assert_eq!(Identity::open(path, new.as_ref()).unwrap().device(), device);
    }
}

#[test]
fn a_sealed_identity_opens_with_its_passphrase_alone() {
    let Place { path, _directory } = &place();
    Identity::make(path, Some(&words("right"))).unwrap();
    assert!(matches!(Identity::open(path, None), Err(IdentityError::NeedsPassphrase)));
    let wrong = Identity::open(path, Some(&words("wrong")));
    assert!(matches!(wrong, Err(IdentityError::WrongPassphrase)));
    let kept = change_passphrase(path, Some(&words("wrong")), None);
    assert!(matches!(kept, Err(IdentityError::WrongPassphrase)));
    assert!(Identity::open(path, Some(&words("right"))).is_ok());
    assert!(matches!(Passphrase::new(Vec::new()), Err(IdentityError::EmptyPassphrase)));
}

#[test]
fn a_file_that_others_can_read_is_refused_and_it_says_what_to_do() {
    let Place { path, _directory } = &place();
    Identity::make(path, None).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::open(path, None).unwrap_err();
        assert!(matches!(error, IdentityError::NotPrivate { .. }), "{mode:o}");
        assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
        assert!(error.hint().unwrap().contains("chmod 600"));
        assert!(is_sealed(path).is_err());
    }
}

#[test]
fn what_is_no_file_is_neither_read_nor_waited_for() {
    let Place { path, _directory } = &place();
    assert!(matches!(Identity::open(path, None), Err(IdentityError::Missing(_))));
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
    assert!(matches!(Identity::open(path, None), Err(IdentityError::NoFile(_))));
}

#[test]
fn n16_an_identity_of_another_version_is_refused_by_name() {
    let mut bytes = Identity::random().encode(None).unwrap();
    bytes[6] = 9;
    let error = Identity::decode(&bytes, None).unwrap_err();
    assert!(matches!(error, IdentityError::UnknownVersion(9)));
    assert!(error.to_string().contains("version 9") && error.hint().is_some());
}

#[test]
fn n12_an_identity_and_a_passphrase_show_nothing() {
    let identity = Identity::from_secrets(&[0xAB; 32], [0xCD; 32]);
    let local = identity.local_keys(&BucketId([1; 32]));
    let shown = format!("{identity:?} {:?} {local:?}", words("hunter2"));
    assert!(!shown.contains("hunter2"), "{shown}");
    for secret in ["abab", "cdcd", "171, 171", "205, 205"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_an_identity_is_refused() {
    let identity = Identity::random();
    for passphrase in [None, Some(words("words"))] {
        let bytes = identity.encode(passphrase.as_ref()).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&flipped, passphrase.as_ref()).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Identity::decode(&bytes[..len], passphrase.as_ref()).is_err(), "{len} bytes");
        }
        assert!(Identity::decode(&[&bytes[..], &[0]].concat(), passphrase.as_ref()).is_err());
    }
}

#[test]
fn a_file_that_asks_for_all_memory_or_all_time_is_refused() {
    let bytes = Identity::random().encode(Some(&words("words"))).unwrap();
    // Memory, passes, lanes.
    for place in [8, 12, 16] {
        let mut dear = bytes.clone();
        dear[place..place + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = Identity::decode(&dear, Some(&words("words"))).unwrap_err();
        assert!(matches!(error, IdentityError::TooCostly(_)), "{error}");
    }
}

#[test]
fn keys_of_own_files_differ_by_device_by_bucket_and_by_use() {
    let (one, two) = (Identity::random(), Identity::random());
    let keys = |identity: &Identity, bucket: u8| identity.local_keys(&BucketId([bucket; 32]));
    let first = keys(&one, 1);
    assert_eq!(first.sectors, keys(&one, 1).sectors);
    assert_ne!(first.sectors, keys(&one, 2).sectors);
    assert_ne!(first.sectors, keys(&two, 1).sectors);
    assert_ne!(first.sectors[..32], first.sectors[32..]);
    assert_ne!(&first.sectors[32..], first.dirty.bytes());
}

#[test]
fn a_device_is_written_as_64_digits_and_read_back() {
    let device = Identity::random().device();
    let text = device.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(text.parse(), Ok(device));
    for wrong in [&text[1..], &text.to_uppercase()[..], &format!("{text}0"), "", "xyz"] {
        // A text of digits alone has no other case.
        assert!(*wrong == text || wrong.parse::<DeviceId>().is_err(), "{wrong}");
    }
    let weak = format!("01{}", "0".repeat(62));
    assert_eq!(weak.parse::<DeviceId>(), Err(NoDeviceId));
}
