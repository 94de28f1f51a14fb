//! A root directory with five files, each with an open of its own kind.

use std::ffi::CStr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::*;

pub(super) const HELLO: NodeId = NodeId(2);
pub(super) const LATER: NodeId = NodeId(3);
pub(super) const PARKED: NodeId = NodeId(4);
pub(super) const PANIC: NodeId = NodeId(5);
pub(super) const STUCK: NodeId = NodeId(6);

const FILES: [(&CStr, NodeId); 5] = [
    (c"hello", HELLO),
    (c"later", LATER),
    (c"parked", PARKED),
    (c"panic", PANIC),
    (c"stuck", STUCK),
];

/// Nothing expires by itself: what changes was notified.
const VALID: Duration = Duration::from_secs(3600);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Parked,
    Interrupted,
    Stuck,
    Forgotten(NodeId),
}

pub(super) struct Memory {
    /// What the files hold; without it `hello` does not exist.
    pub content: Mutex<Option<Vec<u8>>>,
    /// What `hello` is read from instead.
    pub backing: Mutex<Option<Backing>>,
    /// Opens of `parked`, oldest first.
    pub parked: Mutex<Vec<Parked>>,
    /// Opens of `stuck` occupy their worker while this is held.
    pub stuck: Mutex<()>,
    pub events: Mutex<(Sender<Event>, Receiver<Event>)>,
    sender: Sender<Event>,
}

impl Default for Memory {
    fn default() -> Memory {
        let (sender, receiver) = channel();
        Memory {
            content: Mutex::new(Some(b"hello, world\n".to_vec())),
            backing: Mutex::default(),
            parked: Mutex::default(),
            stuck: Mutex::default(),
            events: Mutex::new((sender.clone(), receiver)),
            sender,
        }
    }
}

impl FileSystem for Memory {
    fn handle(&self, request: Request<'_>, reply: Reply) {
        match request.operation {
            Operation::Lookup { name } => self.lookup(name, reply),
            Operation::Getattr { .. } => reply.attr(&self.attr(request.node), VALID),
            Operation::Open { .. } => self.open(request.node, reply),
            Operation::Opendir { .. } => open(reply),
            Operation::Read { offset, size, .. } => {
                let content = self.content.lock().unwrap().clone().unwrap_or_default();
                let rest = content.get(offset as usize..).unwrap_or_default();
                reply.data_with(size, |buffer| Ok(copy(rest, buffer)));
            }
            Operation::Readdir { offset, size, .. } => {
                let mut listing = DirBuffer::new(size);
                let _ = entries(offset).all(|(_, entry)| listing.push(&entry));
                reply.directory(listing);
            }
            Operation::Readdirplus { offset, size, .. } => {
                let mut listing = DirPlusBuffer::new(size);
                let _ = entries(offset)
                    .all(|(node, entry)| listing.push(Some(&self.entry(node)), &entry));
                reply.directory(listing);
            }
            Operation::Release { .. } | Operation::Releasedir { .. } => reply.ok(),
            _ => reply.error(Errno::NOSYS),
        }
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        assert!(lookups > 0);
        self.sender.send(Event::Forgotten(node)).unwrap();
    }
}

impl Memory {
    fn lookup(&self, name: &CStr, reply: Reply) {
        let missing = self.content.lock().unwrap().is_none();
        let known = FILES.iter().find(|(known, _)| *known == name);
        match known.filter(|(_, node)| !(*node == HELLO && missing)) {
            Some(&(_, node)) => reply.entry(&self.entry(node)),
            None => reply.no_entry(VALID),
        }
    }

    fn entry(&self, node: NodeId) -> Entry {
        let attr = self.attr(node);
        Entry { node, generation: 0, attr, entry_valid: VALID, attr_valid: VALID }
    }

    fn attr(&self, node: NodeId) -> Attr {
        let size = self.content.lock().unwrap().as_ref().map_or(0, Vec::len) as u64;
        let mode = if node == NodeId::ROOT { 0o40_755 } else { 0o100_644 };
        Attr { ino: node.0, size, mode, nlink: 1, ..Attr::default() }
    }

    fn open(&self, node: NodeId, reply: Reply) {
        match node {
            LATER => drop(std::thread::spawn(move || open(reply))),
            PARKED => {
                let sender = self.sender.clone();
                let parked = reply.park(move |reply| {
                    reply.error(Errno::INTR);
                    sender.send(Event::Interrupted).unwrap();
                });
                self.parked.lock().unwrap().push(parked);
                self.sender.send(Event::Parked).unwrap();
            }
            HELLO => {
                let backing = self.backing.lock().unwrap();
                let flags = match *backing {
                    Some(_) => OpenFlags::PASSTHROUGH,
                    None => OpenFlags::empty(),
                };
                let backing = backing.as_ref().map(Backing::id);
                reply.opened(&Opened { handle: HandleId(1), flags, backing });
            }
            STUCK => {
                self.sender.send(Event::Stuck).unwrap();
                drop(self.stuck.lock().unwrap());
                open(reply);
            }
            PANIC if crate::is_answering() => panic!("a fault on purpose"),
            _ => open(reply),
        }
    }
}

pub(super) fn open(reply: Reply) {
    reply.opened(&Opened { handle: HandleId(1), flags: OpenFlags::empty(), backing: None });
}

fn entries(offset: u64) -> impl Iterator<Item = (NodeId, DirEntry<'static>)> {
    const DT_REG: u8 = 8;
    let numbered = FILES.iter().zip(1..).skip(offset as usize);
    numbered.map(|((name, node), next)| {
        let name = name.to_bytes();
        (*node, DirEntry { ino: node.0, offset: next, kind: DT_REG, name })
    })
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}
