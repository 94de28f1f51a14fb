//! Listings, in pieces.

use std::collections::BTreeSet;

use gate_fuse::Entry;

use super::*;
use crate::view::{list, list_found};

const FILES: usize = 5_000;
/// Small, so that there are many answers, and chunks end inside of answers and outside.
const ANSWER_BYTES: u32 = 1_000;

const DIRENT_BYTES: usize = 24;
const ENTRY_BYTES: usize = 128;

fn many() -> World {
    let world = World::new(&[]);
    (0..FILES).for_each(|number| fs::write(world.bare(&format!("file {number}")), b"").unwrap());
    world
}

/// The node, offset and name of each record; the node is 0 where the listing is plain.
fn records(mut bytes: &[u8], plus: bool) -> Vec<(u64, u64, String)> {
    let long = |bytes: &[u8], at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let node = if plus { long(bytes, 0) } else { 0 };
        let dirent = &bytes[if plus { ENTRY_BYTES } else { 0 }..];
        let name_len = u32::from_ne_bytes(dirent[16..20].try_into().unwrap()) as usize;
        let name = dirent[DIRENT_BYTES..DIRENT_BYTES + name_len].to_vec();
        records.push((node, long(dirent, 8), String::from_utf8(name).unwrap()));
        bytes = &dirent[(DIRENT_BYTES + name_len).next_multiple_of(8)..];
    }
    records
}

fn entry(found: &Found) -> Entry {
    let (node, attr) = (found.node, found.attr);
    let valid = std::time::Duration::ZERO;
    Entry { node, generation: 0, attr, entry_valid: valid, attr_valid: valid }
}

fn expected() -> BTreeSet<String> {
    let files = (0..FILES).map(|number| format!("file {number}"));
    files.chain([".".to_owned(), "..".to_owned()]).collect()
}

#[test]
fn every_name_comes_once_in_however_many_answers() {
    let world = many();
    let open = world.directory.opendir(NodeId::ROOT).unwrap();
    for _again in 0..2 {
        let (mut offset, mut names, mut answers) = (0, Vec::new(), 0);
        loop {
            let listing = list(&open, offset, ANSWER_BYTES).unwrap();
            let part = records(listing.as_ref(), false);
            let Some(last) = part.last() else { break };
            offset = last.1;
            answers += 1;
            names.extend(part.into_iter().map(|(_, _, name)| name));
        }
        assert!(answers > FILES / 50);
        assert_eq!(names.len(), FILES + 2);
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), expected());
    }
}

#[test]
fn a_listing_goes_on_from_any_entry() {
    let world = many();
    let open = world.directory.opendir(NodeId::ROOT).unwrap();
    let all = list(&open, 0, 1 << 20).unwrap();
    let all = records(all.as_ref(), false);
    for place in [0, 1, 700, 4_000, 1_000, all.len() - 2] {
        let rest = list(&open, all[place].1, ANSWER_BYTES).unwrap();
        assert_eq!(records(rest.as_ref(), false)[0], all[place + 1]);
    }
}

#[test]
fn only_what_is_sent_counts_as_looked_up() {
    let world = many();
    let open = world.directory.opendir(NodeId::ROOT).unwrap();
    let (mut offset, mut names) = (0, BTreeSet::new());
    let find = |name: &CStr| world.directory.lookup(NodeId::ROOT, name).ok().as_ref().map(entry);
    loop {
        let listing = list_found(&open, (offset, ANSWER_BYTES), find);
        let part = records(listing.unwrap().as_ref(), true);
        let Some(last) = part.last() else { break };
        offset = last.1;
        for (node, _, name) in part {
            assert_eq!(node == 0, name == "." || name == "..");
            world.directory.nodes.forget(NodeId(node), 1);
            names.insert(name);
        }
        assert_eq!(world.directory.nodes.count(), 1);
    }
    assert_eq!(names, expected());
}
