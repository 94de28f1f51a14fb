//! Logs of membership: what holds, what is refused, and what each device can open.

use super::*;

struct World {
    owner: Identity,
    members: Members,
    log: Vec<Vec<u8>>,
}

impl World {
    fn new() -> World {
        let owner = Identity::random();
        let genesis = Genesis::make(&owner, 0);
        let (members, log) = Members::found(&genesis, &owner, 1).unwrap();
        World { owner, members, log: log.into() }
    }

    fn make(&self, change: Change) -> Result<Vec<u8>, MemberError> {
        self.members.make(&self.owner, 2, change)
    }

    fn accept(&mut self, change: Change) -> RecordId {
        let bytes = self.make(change).unwrap();
        let id = self.members.accept(&bytes, Some(&self.owner)).unwrap();
        self.log.push(bytes);
        id
    }

    fn add(&mut self, role: Role) -> Identity {
        let device = Identity::random();
        self.accept(add(&device, role));
        device
    }

    fn next_epoch(&mut self) {
        let epoch = self.members.next_epoch().unwrap();
        self.accept(epoch);
    }

    /// What a device knows that reads the log from its beginning.
    fn seen_by(&self, device: Option<&Identity>) -> Members {
        let mut members = self.before();
        for bytes in &self.log {
            members.accept(bytes, device).unwrap();
        }
        members
    }

    fn before(&self) -> Members {
        Members {
            bucket: self.members.bucket,
            founder: self.members.founder,
            places: HashMap::new(),
            head: RecordId(self.members.bucket.0),
            devices: BTreeMap::new(),
            roles: HashMap::new(),
            epochs: Vec::new(),
            keys: BTreeMap::new(),
        }
    }
}

fn add(device: &Identity, role: Role) -> Change {
    Change::Add { device: device.device(), key: device.agreement_key(), role }
}

fn remove(device: &Identity) -> Change {
    Change::Remove { device: device.device(), cut: Vec::new() }
}

#[test]
fn a_bucket_begins_with_its_owner_and_a_key() {
    let world = World::new();
    assert_eq!(world.members.role(&world.owner.device()), Some(Role::Owner));
    assert_eq!(world.members.epoch(), Some(0));
    let keys = world.members.keys(0).unwrap();
    let again = world.seen_by(Some(&world.owner));
    assert_eq!(again.keys(0).unwrap().entry, keys.entry);
    assert_eq!(again.head(), world.members.head());
    assert!(world.seen_by(None).keys(0).is_none(), "who is no member opens nothing");
}

#[test]
fn nobody_else_begins_a_bucket() {
    let owner = Identity::random();
    let members = Members::new(&Genesis::make(&owner, 0));
    let other = Identity::random();
    let wrong = [add(&other, Role::Owner), add(&owner, Role::Writer), remove(&owner)];
    for change in wrong {
        assert_eq!(members.make(&owner, 0, change), Err(MemberError::NotFounded));
    }
    let by_other = members.make(&other, 0, add(&owner, Role::Owner));
    assert_eq!(by_other, Err(MemberError::NotFounded));
    let mut members = members;
    let first = members.make(&owner, 0, add(&owner, Role::Owner)).unwrap();
    members.accept(&first, None).unwrap();
    let second = members.make(&owner, 0, add(&other, Role::Writer));
    assert_eq!(second, Err(MemberError::NotFounded), "a key is first");
}

#[test]
fn only_an_owner_changes_who_is_what() {
    let mut world = World::new();
    for role in [Role::Mirror, Role::Reader, Role::Writer] {
        let device = world.add(role);
        let made = world.members.make(&device, 3, remove(&world.owner));
        assert_eq!(made, Err(MemberError::NotOwner(device.device())));
    }
    let stranger = Identity::random();
    let made = world.members.make(&stranger, 3, add(&stranger, Role::Owner));
    assert_eq!(made, Err(MemberError::NotOwner(stranger.device())));
    let second = world.add(Role::Owner);
    let bytes = world.members.make(&second, 3, remove(&world.owner)).unwrap();
    world.members.accept(&bytes, None).unwrap();
    assert_eq!(world.members.role(&world.owner.device()), None);
    let made = world.make(add(&stranger, Role::Reader));
    assert_eq!(made, Err(MemberError::NotOwner(world.owner.device())), "it was removed");
}

#[test]
fn a_new_epoch_is_for_all_who_read_and_for_nobody_else() {
    let mut world = World::new();
    let [mirror, reader, writer] =
        [Role::Mirror, Role::Reader, Role::Writer].map(|role| world.add(role));
    world.next_epoch();
    let opens = |device: &Identity, epoch| world.seen_by(Some(device)).keys(epoch).is_some();
    assert!(!opens(&mirror, 1) && opens(&reader, 1) && opens(&writer, 1));
    assert!(!opens(&reader, 0), "what was before it was added is not given by itself");
    world.accept(remove(&reader));
    world.next_epoch();
    assert!(world.seen_by(Some(&reader)).keys(2).is_none(), "it was removed");
    assert!(world.seen_by(Some(&writer)).keys(2).is_some());
}

#[test]
fn older_keys_are_handed_on_to_those_who_read_and_lack_them() {
    let mut world = World::new();
    let (reader, mirror) = (world.add(Role::Reader), world.add(Role::Mirror));
    let handed = world.members.hand_on().unwrap();
    assert_eq!(handed.len(), 1);
    for change in handed {
        world.accept(change);
    }
    let seen = world.seen_by(Some(&reader));
    assert_eq!(seen.keys(0).unwrap().entry, world.members.keys(0).unwrap().entry);
    assert_eq!(seen.epoch(), Some(0), "it is no new epoch");
    assert!(world.seen_by(Some(&mirror)).keys(0).is_none());
    assert_eq!(world.members.hand_on(), Ok(Vec::new()), "all have it");
}

#[test]
fn keys_for_others_than_those_who_read_are_refused() {
    let mut world = World::new();
    let mirror = world.add(Role::Mirror);
    let Change::Epoch { check, keys, .. } = world.members.next_epoch().unwrap() else { panic!() };
    let epoch = |number, keys: &[SealedKey]| Change::Epoch { number, check, keys: keys.to_vec() };
    let for_mirror = SealedKey { device: mirror.device(), ..keys[0].clone() };
    assert_eq!(world.make(epoch(1, &[])), Err(MemberError::WrongReaders(1)));
    assert_eq!(world.make(epoch(1, &[for_mirror])), Err(MemberError::WrongReaders(1)));
    assert_eq!(world.make(epoch(2, &keys)), Err(MemberError::WrongEpoch(2)));
    assert_eq!(world.make(epoch(u64::MAX, &keys)), Err(MemberError::WrongEpoch(u64::MAX)));
    assert_eq!(world.make(epoch(0, &keys)), Err(MemberError::OtherKey(0)));
    let twice = [keys[0].clone(), keys[0].clone()];
    assert_eq!(world.make(epoch(1, &twice)), Err(MemberError::Disorder));
    assert!(world.make(epoch(1, &keys)).is_ok());
}

#[test]
fn a_log_that_forks_is_refused_by_name() {
    let mut world = World::new();
    let after = world.members.head();
    let one = world.make(add(&Identity::random(), Role::Reader)).unwrap();
    let two = world.make(add(&Identity::random(), Role::Reader)).unwrap();
    world.members.accept(&one, None).unwrap();
    let error = world.members.accept(&two, None).unwrap_err();
    assert_eq!(error, MemberError::Fork { after });
    assert!(error.to_string().contains("forks"));
    assert_eq!(world.members.accept(&one, None), Err(MemberError::Known), "it is there already");
    // A second beginning is a fork, too.
    let first = world.before().make(&world.owner, 9, add(&world.owner, Role::Owner)).unwrap();
    let error = world.members.accept(&first, None).unwrap_err();
    assert!(matches!(error, MemberError::Fork { .. }), "{error}");
}

#[test]
fn a_record_waits_for_those_before_it() {
    let mut world = World::new();
    world.add(Role::Reader);
    world.add(Role::Reader);
    let mut late = world.before();
    assert_eq!(late.accept(&world.log[1], None), Err(MemberError::Gap));
    late.accept(&world.log[0], None).unwrap();
    assert_eq!(late.accept(&world.log[2], None), Err(MemberError::Gap));
}

#[test]
fn what_a_device_was_allowed_at_a_record_stays_known() {
    let mut world = World::new();
    let before = world.members.head();
    let device = world.add(Role::Writer);
    let id = device.device();
    let added = world.members.head();
    world.next_epoch();
    let demoted = world.accept(Change::Role { device: id, role: Role::Reader });
    let removed = world.accept(remove(&device));
    let back = world.accept(add(&device, Role::Owner));
    let roles = [before, added, demoted, removed, back].map(|at| world.members.role_at(&id, &at));
    let expected = [None, Some(Role::Writer), Some(Role::Reader), None, Some(Role::Owner)];
    assert_eq!(roles, expected);
    assert_eq!(world.members.epoch_at(&added), Some(0));
    assert_eq!(world.members.epoch_at(&demoted), Some(1));
    assert_eq!(world.members.role_at(&id, &RecordId([9; 32])), None, "nobody knows that record");
}

#[test]
fn a_bucket_keeps_an_owner_and_members_change_to_something_else() {
    let mut world = World::new();
    let me = world.owner.device();
    let demote = Change::Role { device: me, role: Role::Writer };
    assert_eq!(world.make(remove(&world.owner)), Err(MemberError::LastOwner));
    assert_eq!(world.make(demote.clone()), Err(MemberError::LastOwner));
    let device = world.add(Role::Owner);
    assert_eq!(world.make(add(&device, Role::Reader)), Err(MemberError::NoChange));
    let same = Change::Role { device: device.device(), role: Role::Owner };
    assert_eq!(world.make(same), Err(MemberError::NoChange));
    assert!(world.make(demote).is_ok(), "there is another owner now");
    let stranger = Identity::random();
    assert_eq!(world.make(remove(&stranger)), Err(MemberError::NotMember(stranger.device())));
}

#[test]
fn a_device_without_a_real_key_is_not_added() {
    let world = World::new();
    let device = Identity::random();
    let weak = AgreementKey([0; 32]);
    let change = Change::Add { device: device.device(), key: weak, role: Role::Reader };
    assert_eq!(world.make(change), Err(MemberError::WeakKey));
    let mut weak = [0; 32];
    weak[0] = 1;
    let key = device.agreement_key();
    let change = Change::Add { device: DeviceId(weak), key, role: Role::Reader };
    assert_eq!(world.make(change), Err(MemberError::WeakKey));
}

#[test]
fn a_cut_names_each_feed_once() {
    let mut world = World::new();
    let device = world.add(Role::Writer).device();
    let cut = |feeds: &[u8]| Change::Remove {
        device,
        cut: feeds.iter().map(|feed| (FeedId([*feed; 32]), 3)).collect(),
    };
    assert_eq!(world.make(cut(&[2, 1])), Err(MemberError::Disorder));
    assert_eq!(world.make(cut(&[1, 1])), Err(MemberError::Disorder));
    assert!(world.make(cut(&[1, 2])).is_ok());
}

#[test]
fn n16_a_record_of_another_version_is_refused_by_name() {
    let mut world = World::new();
    let mut bytes = world.make(add(&Identity::random(), Role::Reader)).unwrap();
    bytes[0] = 2;
    let error = world.members.accept(&bytes, None).unwrap_err();
    assert_eq!(error, MemberError::UnknownVersion(2));
    assert!(error.to_string().contains("version 2"));
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_record_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let bytes = world.make(world.members.next_epoch().unwrap()).unwrap();
    let head = world.members.head();
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(world.members.accept(&flipped, None).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(world.members.accept(&bytes[..len], None).is_err(), "{len} bytes");
    }
    assert!(world.members.accept(&[&bytes[..], &[0]].concat(), None).is_err());
    assert_eq!(world.members.head(), head);
    assert!(world.members.accept(&bytes, None).is_ok());
}

#[test]
fn more_keys_than_there_can_be_devices_are_refused_before_there_is_room_for_them() {
    let mut world = World::new();
    let Change::Epoch { check, .. } = world.members.next_epoch().unwrap() else { panic!() };
    let empty = Change::Epoch { number: 1, check, keys: Vec::new() };
    let record = Record {
        version: VERSION,
        previous: world.members.head(),
        author: world.owner.device(),
        at_ms: 0,
        change: empty,
    };
    let mut bytes = record::encode(&record);
    // The count of keys is the last byte: it becomes the largest there is.
    bytes.pop();
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    let signature = world.owner.sign(Purpose::Member, blake3::hash(&bytes).as_bytes());
    bytes.extend_from_slice(&signature.0);
    assert_eq!(world.members.accept(&bytes, None), Err(MemberError::Damaged));
}
