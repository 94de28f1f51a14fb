//! Answers as the kernel reads them, from one end of a socket that stands in for the device.

use std::os::fd::OwnedFd;
use std::sync::mpsc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::channel::Device;

/// A kernel of one request, number 8.
struct Kernel {
    socket: OwnedFd,
    channel: Arc<Channel>,
    parking: Arc<Parking>,
}

impl Kernel {
    fn new() -> Kernel {
        let kind = SocketType::SEQPACKET;
        let (socket, device) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::NONBLOCK, None).unwrap();
        let channel = Arc::new(Channel::new(Device(device)));
        Kernel { socket, channel, parking: Arc::default() }
    }

    fn reply(&self) -> Reply {
        Reply::new(Unique(8), Arc::clone(&self.channel), Arc::clone(&self.parking))
    }

    /// The next answer: its error and its body.
    fn answer(&self) -> Option<(i32, Vec<u8>)> {
        let mut frame = vec![0; 1 << 16];
        let len = rustix::io::read(&self.socket, &mut frame).ok()?;
        let (header, body) = frame[..len].split_at(16);
        assert_eq!(header[..4], (len as u32).to_ne_bytes());
        assert_eq!(header[8..], 8_u64.to_ne_bytes());
        Some((i32::from_ne_bytes(header[4..8].try_into().unwrap()), body.to_vec()))
    }
}

fn entry() -> Entry {
    Entry {
        node: NodeId(3),
        generation: 0,
        attr: Attr { ino: 77, mode: 0o100_644, ..Attr::default() },
        entry_valid: Duration::from_millis(1500),
        attr_valid: Duration::from_secs(2),
    }
}

#[test]
fn entry_and_handle_follow_each_other() {
    let kernel = Kernel::new();
    let opened = Opened {
        handle: HandleId(9),
        flags: OpenFlags::KEEP_CACHE | OpenFlags::NOFLUSH,
        backing: Some(BackingId(4)),
    };
    kernel.reply().created(&entry(), &opened);
    let (error, body) = kernel.answer().unwrap();
    assert_eq!((error, body.len()), (0, 128 + 16));
    let long = |at: usize| u64::from_ne_bytes(body[at..at + 8].try_into().unwrap());
    let word = |at: usize| u32::from_ne_bytes(body[at..at + 4].try_into().unwrap());
    assert_eq!([long(0), long(16), long(24), long(40)], [3, 1, 2, 77]);
    assert_eq!([word(32), word(36), word(100)], [500_000_000, 0, 0o100_644]);
    assert_eq!((long(128), word(136), word(140)), (9, 0b10_0010, 4));
}

#[test]
fn the_kernel_is_never_told_to_keep_what_it_has_of_a_backed_file() {
    let kernel = Kernel::new();
    let flags = OpenFlags::KEEP_CACHE | OpenFlags::PASSTHROUGH | OpenFlags::NOFLUSH;
    kernel.reply().opened(&Opened { handle: HandleId(9), flags, backing: Some(BackingId(4)) });
    let (_, body) = kernel.answer().unwrap();
    let expected = OpenFlags::PASSTHROUGH | OpenFlags::NOFLUSH;
    assert_eq!(body[8..12], expected.bits().to_ne_bytes());
}

#[test]
fn errors_are_negative_and_never_the_kernels_own() {
    let kernel = Kernel::new();
    kernel.reply().error(Errno::DEADLK);
    kernel.reply().error(Errno::from_raw_os_error(512));
    assert_eq!(kernel.answer(), Some((-35, vec![])));
    assert_eq!(kernel.answer(), Some((-5, vec![])));
}

#[test]
fn a_dropped_reply_answers_eio() {
    let kernel = Kernel::new();
    drop(kernel.reply());
    assert_eq!(kernel.answer(), Some((-5, vec![])));
    assert_eq!(kernel.answer(), None);
}

#[test]
fn data_is_what_was_filled_in() {
    let kernel = Kernel::new();
    kernel.reply().data_with(100, |buffer| {
        assert_eq!(buffer.len(), 100);
        buffer[..2].copy_from_slice(b"ab");
        Ok(2)
    });
    kernel.reply().data_with(1, |buffer| Ok(buffer.len()));
    kernel.reply().data_with(9, |_| Err(Errno::BADF));
    assert_eq!(kernel.answer(), Some((0, b"ab".to_vec())));
    assert_eq!(kernel.answer(), Some((0, b"a".to_vec())));
    assert_eq!(kernel.answer(), Some((-9, vec![])));
}

#[test]
fn listings_are_padded_and_end_where_they_are_full() {
    let name = |name| DirEntry { ino: 6, offset: 2, kind: 8, name };
    let mut plain = DirBuffer::new(72);
    assert!(plain.push(&name(b"12345678")));
    assert!(plain.push(&name(b"123456789")));
    assert!(!plain.push(&name(b"1")));
    assert_eq!(plain.as_ref().len(), 32 + 40);
    assert_eq!(plain.as_ref()[16..34], *b"\x08\0\0\0\x08\0\0\x0012345678\x06\0");
    let mut plus = DirPlusBuffer::new(160 + 152);
    assert!(plus.fits(b"12345678"));
    assert!(plus.push(Some(&entry()), &name(b"12345678")));
    assert!(!plus.fits(b"1"));
    assert!(!plus.push(None, &name(b"1")));
    assert_eq!(plus.as_ref().len(), 160);
    assert_eq!(plus.as_ref()[..8], 3_u64.to_ne_bytes());
}

#[test]
fn a_parked_reply_goes_to_whoever_comes_first() {
    let kernel = Kernel::new();
    let parked = kernel.reply().park(|reply| reply.error(Errno::INTR));
    parked.resume().unwrap().ok();
    kernel.parking.interrupt(Unique(8));
    assert_eq!((kernel.answer(), kernel.answer()), (Some((0, vec![])), None));

    let kernel = Kernel::new();
    let parked = kernel.reply().park(|reply| reply.error(Errno::INTR));
    kernel.parking.interrupt(Unique(8));
    assert!(parked.resume().is_none());
    assert_eq!((kernel.answer(), kernel.answer()), (Some((-4, vec![])), None));
}

#[test]
fn an_interrupt_that_overtakes_its_request_is_remembered() {
    let kernel = Kernel::new();
    kernel.parking.interrupt(Unique(8));
    let (sender, receiver) = mpsc::channel();
    let parked = kernel.reply().park(move |reply| {
        sender.send(()).unwrap();
        reply.error(Errno::INTR);
    });
    receiver.try_recv().unwrap();
    assert!(parked.resume().is_none());
    assert_eq!(kernel.answer(), Some((-4, vec![])));
}

#[test]
fn a_dropped_claim_answers_eio() {
    let kernel = Kernel::new();
    drop(kernel.reply().park(|reply| reply.error(Errno::INTR)));
    assert_eq!(kernel.answer(), Some((-5, vec![])));
}

#[test]
fn the_end_interrupts_all_that_wait_and_all_that_would() {
    let kernel = Kernel::new();
    let first = kernel.reply().park(|reply| reply.error(Errno::INTR));
    kernel.parking.close();
    let second = kernel.reply().park(|reply| reply.error(Errno::INTR));
    assert!(first.resume().is_none() && second.resume().is_none());
    assert_eq!(kernel.answer(), Some((-4, vec![])));
    assert_eq!(kernel.answer(), Some((-4, vec![])));
}
