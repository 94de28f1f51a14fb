//! Frames as the kernel sends them, byte by byte, and frames as it never would.

use super::*;
use crate::abi::{self, opcode};
use zerocopy::IntoBytes;

const HEADER_LEN: usize = size_of::<abi::InHeader>();

/// A frame as the kernel sends it; `extensions` is a multiple of 8 bytes.
fn frame(opcode: u32, body: &[&[u8]], extensions: &[u8]) -> Vec<u8> {
    let body = body.concat();
    let header = abi::InHeader {
        len: (HEADER_LEN + body.len() + extensions.len()) as u32,
        opcode,
        unique: 8,
        node: 5,
        uid: 1000,
        gid: 100,
        pid: 4321,
        extensions: (extensions.len() / 8) as u16,
        padding: 0,
    };
    [header.as_bytes(), &body, extensions].concat()
}

fn request(frame: &[u8]) -> Request<'_> {
    match decode(frame) {
        Ok(Incoming::Request(request)) => request,
        other => panic!("not a request: {other:?}"),
    }
}

fn operation(frame: &[u8]) -> Operation<'_> {
    request(frame).operation
}

fn fault(frame: &[u8]) -> Fault {
    match decode(frame) {
        Err(Malformed::Request { fault, .. }) => fault,
        other => panic!("not malformed: {other:?}"),
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

#[test]
fn header_tells_who_asks_about_what() {
    let frame = frame(opcode::LOOKUP, &[b"a\xffb\0"], &[]);
    let request = request(&frame);
    assert_eq!((request.unique, request.node), (Unique(8), NodeId(5)));
    let caller = Caller { uid: 1000, gid: 100, tid: 4321, supplementary_gid: None };
    assert_eq!(request.caller, caller);
    assert_eq!(request.operation, Operation::Lookup { name: c"a\xffb" });
}

#[test]
fn symlink_has_its_name_first_and_its_target_second() {
    let frame = frame(opcode::SYMLINK, &[b"name\0../a/target\0"], &[]);
    let expected = Operation::Symlink { name: c"name", target: c"../a/target" };
    assert_eq!(operation(&frame), expected);
}

#[test]
fn both_renames_are_one_operation() {
    let old = frame(opcode::RENAME, &[&longs(&[7]), b"a\0b\0"], &[]);
    let new = frame(opcode::RENAME2, &[&longs(&[7]), &words(&[2, 0]), b"a\0b\0"], &[]);
    for (frame, flags) in [(old, 0), (new, 2)] {
        let (name, new_name, new_parent) = (c"a", c"b", NodeId(7));
        assert_eq!(operation(&frame), Operation::Rename { name, new_parent, new_name, flags });
    }
}

#[test]
fn create_carries_mode_umask_and_the_group_that_matters() {
    let group = words(&[16, abi::EXT_GROUPS, 1, 2000]);
    let arguments = words(&[0o102, 0o100644, 0o22, 1]);
    let frame = frame(opcode::CREATE, &[&arguments, b"new\0"], &group);
    let request = request(&frame);
    assert_eq!(request.caller.supplementary_gid, Some(2000));
    let (flags, mode, umask) = (0o102, 0o100644, 0o22);
    let expected = Operation::Create { name: c"new", flags, mode, umask, kill_suidgid: true };
    assert_eq!(request.operation, expected);
}

#[test]
fn setattr_changes_only_what_is_marked() {
    // mode, size, atime to a time, mtime to now, by handle 9, killing suid.
    let valid = 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 11;
    let wire = abi::SetattrIn {
        valid,
        handle: 9,
        size: 3,
        atime: 11,
        atime_nsec: 12,
        mtime: 13,
        mode: 0o600,
        uid: 77,
        ..abi::SetattrIn::default()
    };
    let frame = frame(opcode::SETATTR, &[wire.as_bytes()], &[]);
    let expected = SetAttr {
        mode: Some(0o600),
        size: Some(3),
        atime: Some(SetTime::At(Timespec { tv_sec: 11, tv_nsec: 12 })),
        mtime: Some(SetTime::Now),
        handle: Some(HandleId(9)),
        kill_suidgid: true,
        ..SetAttr::default()
    };
    assert_eq!(operation(&frame), Operation::Setattr(expected));
}

#[test]
fn locks_say_whose_they_are_and_of_which_family() {
    let lock = abi::FileLock { start: 3, end: 9, kind: 1, pid: 77 };
    for (opcode, flags) in [(opcode::GETLK, 0), (opcode::SETLK, 0), (opcode::SETLKW, 1)] {
        let wire = abi::LkIn { handle: 4, owner: u64::MAX, lock, flags, padding: 0 };
        let frame = frame(opcode, &[wire.as_bytes()], &[]);
        let flock = flags == 1;
        let request = LockRequest { handle: HandleId(4), owner: u64::MAX, lock, flock };
        let expected = match opcode {
            opcode::GETLK => Operation::Getlk(request),
            opcode::SETLK => Operation::Setlk(request),
            _ => Operation::Setlkw(request),
        };
        assert_eq!(operation(&frame), expected);
    }
}

#[test]
fn an_ioctl_says_where_its_handle_is_from_and_borrows_its_input() {
    let wire = abi::IoctlIn {
        handle: 4,
        flags: 1 << 4,
        command: 0x4008_6602,
        argument: 0xdead,
        in_size: 4,
        out_size: 2,
    };
    let whole = frame(opcode::IOCTL, &[wire.as_bytes(), b"abcd"], &[]);
    let (handle, command) = (HandleId(4), 0x4008_6602);
    let (on_directory, input, out_size) = (true, b"abcd".as_slice(), 2);
    let expected = Operation::Ioctl { handle, on_directory, command, input, out_size };
    assert_eq!(operation(&whole), expected);
    assert_eq!(fault(&frame(opcode::IOCTL, &[wire.as_bytes(), b"abc"], &[])), Fault::Truncated);
}

#[test]
fn statx_may_come_by_a_handle() {
    for (getattr_flags, expected) in [(0, None), (1, Some(HandleId(4)))] {
        let wire = abi::StatxIn { getattr_flags, reserved: 0, handle: 4, flags: 5, mask: 0xfff };
        let frame = frame(opcode::STATX, &[wire.as_bytes()], &[]);
        let statx = Operation::Statx { handle: expected, flags: 5, mask: 0xfff };
        assert_eq!(operation(&frame), statx);
    }
}

#[test]
fn write_borrows_its_data() {
    // fh, offset, size 4, kill | cache, lock owner, O_APPEND.
    let head = [longs(&[9, 4096]), words(&[4, 0b101]), longs(&[1]), words(&[0o2000, 0])].concat();
    let frame = frame(opcode::WRITE, &[&head, b"data"], &[]);
    let expected = Write {
        handle: HandleId(9),
        offset: 4096,
        data: b"data",
        flags: 0o2000,
        cached: true,
        kill_suidgid: true,
    };
    assert_eq!(operation(&frame), Operation::Write(expected));
}

#[test]
fn setxattr_takes_an_empty_value_and_any_name() {
    let frame = frame(opcode::SETXATTR, &[&words(&[0, 1, 1, 0]), b"user.a/b\0"], &[]);
    let (name, value) = (c"user.a/b", &b""[..]);
    assert_eq!(operation(&frame), Operation::Setxattr { name, value, flags: 1, kill_sgid: true });
}

#[test]
fn tmpfile_ignores_the_name_that_the_kernel_makes_up() {
    let frame = frame(opcode::TMPFILE, &[&words(&[2, 0o600, 0o77, 0]), b"/\0"], &[]);
    assert_eq!(operation(&frame), Operation::Tmpfile { flags: 2, mode: 0o600, umask: 0o77 });
}

#[test]
fn forgets_come_singly_and_in_batches() {
    let one = frame(opcode::FORGET, &[&longs(&[3])], &[]);
    let many = frame(opcode::BATCH_FORGET, &[&words(&[2, 0]), &longs(&[6, 1, 7, 2])], &[]);
    let pairs = |frame: &[u8]| match decode(frame) {
        Ok(Incoming::Forget(forgets)) => forgets.collect::<Vec<_>>(),
        other => panic!("not a forget: {other:?}"),
    };
    assert_eq!(pairs(&one), [(NodeId(5), 3)]);
    assert_eq!(pairs(&many), [(NodeId(6), 1), (NodeId(7), 2)]);
}

#[test]
fn init_is_read_in_both_lengths() {
    let low = (InitFlags::INIT_EXT | InitFlags::MAX_PAGES).bits() as u32;
    let short = frame(opcode::INIT, &[&words(&[7, 35, 4096, low])], &[]);
    let long = frame(opcode::INIT, &[&words(&[7, 45, 4096, low, 1 << 5]), &[0; 44]], &[]);
    let offer = |frame: &[u8]| match decode(frame) {
        Ok(Incoming::Init { offer, .. }) => offer,
        other => panic!("not INIT: {other:?}"),
    };
    assert_eq!(offer(&short).minor, 35);
    assert!(!offer(&short).flags.contains(InitFlags::PASSTHROUGH));
    assert!(offer(&long).flags.contains(InitFlags::PASSTHROUGH | InitFlags::MAX_PAGES));
}

#[test]
fn interrupt_names_its_target() {
    let frame = frame(opcode::INTERRUPT, &[&longs(&[42])], &[]);
    assert!(matches!(decode(&frame), Ok(Incoming::Interrupt { target: Unique(42) })));
}

#[test]
fn unknown_operations_are_named() {
    assert_eq!(operation(&frame(53, &[], &[])), Operation::Unknown { opcode: 53 });
    assert_eq!(operation(&frame(u32::MAX, &[], &[])), Operation::Unknown { opcode: u32::MAX });
}

#[test]
fn names_are_single_components() {
    for name in [&b"\0"[..], b"a/b\0", b"/\0", b"no end", b""] {
        assert_eq!(fault(&frame(opcode::UNLINK, &[name], &[])), Fault::Name, "{name:?}");
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let write = abi::WriteIn { size: 5, ..abi::WriteIn::default() };
    let frame_of = |body: &[&[u8]], opcode| frame(opcode, body, &[]);
    assert_eq!(fault(&frame_of(&[write.as_bytes(), b"data"], opcode::WRITE)), Fault::Truncated);
    let batch = words(&[u32::MAX, 0]);
    assert_eq!(fault(&frame_of(&[&batch], opcode::BATCH_FORGET)), Fault::Truncated);
    let mut longer = frame_of(&[b"a\0"], opcode::LOOKUP);
    longer.push(0);
    assert_eq!(decode(&longer).err(), Some(Malformed::Frame));
    assert_eq!(decode(&longer[..39]).err(), Some(Malformed::Frame));
}

#[test]
fn extensions_that_do_not_add_up_are_refused() {
    let mkdir = words(&[0o755, 0]);
    let body: &[&[u8]] = &[&mkdir, b"d\0"];
    for bad in [words(&[0, 1]), words(&[64, 1]), words(&[8, abi::EXT_GROUPS])] {
        assert_eq!(fault(&frame(opcode::MKDIR, body, &bad)), Fault::Extension, "{bad:?}");
    }
    let mut beyond = frame(opcode::MKDIR, body, &[]);
    beyond[36] = u8::MAX;
    assert_eq!(fault(&beyond), Fault::Extension);
    let skipped = [words(&[8, 1]), words(&[16, abi::EXT_GROUPS, 0, 0])].concat();
    assert_eq!(request(&frame(opcode::MKDIR, body, &skipped)).caller.supplementary_gid, None);
}

/// Frames of every operation, whole, cut and mutated: each is decoded or refused, none panics,
/// and what is decoded points into the frame.
#[test]
fn no_bytes_make_the_decoder_panic() {
    const SEED: u64 = 0x5eed;
    const FRAMES: usize = 300_000;
    let mut random = Random(SEED);
    let mut accepted = 0;
    for _ in 0..FRAMES {
        let mut bytes = random_frame(&mut random);
        for _ in 0..random.below(4) {
            let place = random.below(bytes.len());
            bytes[place] = random.next() as u8;
        }
        if random.below(3) == 0 {
            bytes.truncate(random.below(bytes.len() + 1));
        }
        if random.below(4) != 0 && bytes.len() >= 4 {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
        }
        match decode(&bytes) {
            Ok(Incoming::Forget(forgets)) => accepted += forgets.count().min(1),
            Ok(_) => accepted += 1,
            Err(_) => {}
        }
    }
    assert!(accepted > FRAMES / 10, "only {accepted} frames got through: they test too little");
}

fn random_frame(random: &mut Random) -> Vec<u8> {
    let opcode = random.below(56) as u32;
    let mut body = vec![0; random.below(160)];
    body.iter_mut().for_each(|byte| *byte = random.next() as u8 & 0x63);
    body.extend_from_slice(b"name\0other\0");
    let mut extensions = vec![0; 8 * random.below(4)];
    extensions.iter_mut().for_each(|byte| *byte = random.next() as u8 & 0x28);
    frame(opcode, &[&body], &extensions)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
