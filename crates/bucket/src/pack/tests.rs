//! What was put into a pack is found again, whatever was cut off or changed around it.

use super::*;

/// A chunk's bytes; packs do not care what they are.
fn sealed(seed: u8, len: usize) -> (Address, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    (hash::address(&bytes), bytes)
}

/// Makes a pack of chunks of some lengths.
fn pack_of(dir: &Path, lens: &[usize]) -> Vec<(Address, Place)> {
    let mut pack = Pack::create(dir, PackId(3)).unwrap();
    let put = |(n, len): (usize, &usize)| {
        let (address, bytes) = sealed(n as u8, *len);
        (address, pack.append(&address, &bytes).unwrap())
    };
    let placed = lens.iter().enumerate().map(put).collect();
    pack.sync().unwrap();
    placed
}

/// Returns the frames and the damage from some place on.
fn met(dir: &Path, from: u64) -> (Vec<(Address, Place)>, Vec<Met>, u64) {
    let file = File::open(PackId(3).path(dir)).unwrap();
    let (mut frames, mut damage) = (Vec::new(), Vec::new());
    let end = scan(&file, PackId(3), from, |met| {
        match met {
            Met::Frame(address, place) => frames.push((address, place)),
            met @ Met::Damage { .. } => damage.push(met),
        }
        Ok(())
    });
    (frames, damage, end.unwrap())
}

#[test]
fn what_was_put_is_read_and_scanned() {
    let dir = tempfile::tempdir().unwrap();
    let placed = pack_of(dir.path(), &[22, 5000, 100, SEALED_BYTES_MAX]);
    let file = open(dir.path(), PackId(3)).unwrap();
    for (n, (address, place)) in placed.iter().enumerate() {
        let found = read(&file, address, *place).unwrap().unwrap();
        assert!(found == sealed(n as u8, place.len as usize).1);
        let other = Address([0; 32]);
        assert_eq!(read(&file, &other, *place).unwrap(), None);
        let shifted = Place { offset: place.offset + 1, ..*place };
        assert_eq!(read(&file, address, shifted).unwrap(), None);
        let too_long = Place { len: u32::MAX, ..*place };
        assert_eq!(read(&file, address, too_long).unwrap(), None);
    }
    let (frames, damage, end) = met(dir.path(), PACK_HEAD.len() as u64);
    assert_eq!((frames, damage), (placed.clone(), vec![]));
    assert_eq!(end, placed[3].1.end());
    assert_eq!(list(dir.path()).unwrap(), [PackId(3)]);
}

#[test]
fn a_pack_cut_off_anywhere_has_the_frames_before() {
    let dir = tempfile::tempdir().unwrap();
    let placed = pack_of(dir.path(), &[22, 60, 40]);
    let path = PackId(3).path(dir.path());
    let whole = fs::read(&path).unwrap();
    for len in PACK_HEAD.len()..=whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let (frames, damage, end) = met(dir.path(), PACK_HEAD.len() as u64);
        let kept = placed.iter().filter(|(_, place)| place.end() <= len as u64).count();
        assert_eq!(frames, placed[..kept], "{len}");
        assert_eq!(damage.is_empty(), end == len as u64, "{len}");
    }
}

#[test]
fn a_bit_that_flipped_costs_one_frame_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let placed = pack_of(dir.path(), &[22, 60, 40]);
    let path = PackId(3).path(dir.path());
    let whole = fs::read(&path).unwrap();
    for bit in PACK_HEAD.len() * 8..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        let (frames, damage, _) = met(dir.path(), PACK_HEAD.len() as u64);
        let hit = placed.iter().position(|(_, place)| (bit as u64 / 8) < place.end()).unwrap();
        let mut rest = placed.clone();
        rest.remove(hit);
        assert_eq!(frames, rest, "bit {bit}");
        let from = u64::from(placed[hit].1.offset);
        let is_named = |met: &Met| matches!(met, Met::Damage { from: at, .. } if *at == from);
        assert!(damage.len() == 1 && damage.iter().all(is_named), "bit {bit}: {damage:?}");
    }
}

#[test]
fn n16_a_pack_of_a_later_gate_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    pack_of(dir.path(), &[22]);
    let path = PackId(3).path(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[VERSION_AT] = 2;
    fs::write(&path, &bytes).unwrap();
    let error = open(dir.path(), PackId(3)).unwrap_err();
    assert!(matches!(error, PackError::UnknownVersion(PackId(3), 2)), "{error}");
    assert_eq!(error.to_string(), "pack 00000003 has version 2, which this gate does not know");
    fs::write(&path, b"GAT").unwrap();
    assert!(matches!(open(dir.path(), PackId(3)), Err(PackError::NoPack(PackId(3)))));
}

#[test]
fn a_full_disk_leaves_the_end_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut pack = Pack::create(dir.path(), PackId(3)).unwrap();
    let (address, bytes) = sealed(1, 1000);
    pack.room = Some(500);
    let error = pack.append(&address, &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    pack.room = None;
    let place = pack.append(&address, &bytes).unwrap();
    assert_eq!(u64::from(place.offset), PACK_HEAD.len() as u64);
    assert_eq!(met(dir.path(), PACK_HEAD.len() as u64).0, [(address, place)]);
}

#[test]
fn names_that_are_no_packs_are_passed_over() {
    let named = |name: &str| PackId::of_name(name.as_ref());
    assert_eq!(named("00000012"), Some(PackId(12)));
    assert_eq!(named("4294967295"), Some(PackId(u32::MAX)));
    for name in ["12", "0000001x", "000000012", "4294967296", "", ".00000001"] {
        assert_eq!(named(name), None, "{name}");
    }
}
