//! What each operation asks of the broker.

use std::ffi::CStr;

use gate_api::Ask;
use gate_core::lock::key::FileKey;
use gate_core::lock::want::{Node, Op, Place, Want};
use gate_core::path::ViewPath;
use gate_fuse::{Attr, NodeId};
use rustix::fs::FileType;

use super::View;
use crate::asker::Asker;
use crate::policy::Gating;

impl View {
    /// Returns what an operation on existing names, or on names to be, asks for; `None` if none
    /// of them is gated.
    pub(super) fn want(&self, op: Op, places: Vec<Option<Place>>) -> Option<Want> {
        let places: Vec<Place> = places.into_iter().flatten().collect();
        (!places.is_empty()).then_some(Want { op, places })
    }

    /// Returns the place of a name with what stands there now, unless it is not gated.
    pub(super) fn place_of_name(&self, parent: NodeId, name: &CStr) -> Option<Place> {
        let node = match self.source.peek(parent, name) {
            Ok((key, attr)) => node_kind(key, &attr),
            Err(_) => Node::None,
        };
        self.place(self.path_in(parent, name), node)
    }

    /// Returns the place of a name that is to be made, unless it is not gated.
    pub(super) fn place_to_make(&self, parent: NodeId, name: &CStr) -> Option<Place> {
        self.place(self.path_in(parent, name), Node::None)
    }

    /// Returns the place of a known node, unless it is not gated.
    pub(super) fn place_of_node(&self, node: NodeId) -> Option<Place> {
        let attr = self.source.getattr(node).ok()?;
        let key = self.source.file_key(node).ok()?;
        self.place_known(node, node_kind(key, &attr))
    }

    /// Returns the place of a node that is known to be a file, unless it is not gated.
    pub(super) fn place_of_file(&self, node: NodeId) -> Option<Place> {
        let key = self.source.file_key(node).ok()?;
        self.place_known(node, Node::File(key))
    }

    /// The kernel does not say by which of its names a file is opened: one that is gated counts.
    fn place_known(&self, known: NodeId, node: Node) -> Option<Place> {
        let paths = self.source.book().paths_of(known);
        if paths.is_empty() {
            return self.place(None, node);
        }
        paths.into_iter().find_map(|path| self.place(Some(path), node))
    }

    fn place(&self, path: Option<Vec<u8>>, node: Node) -> Option<Place> {
        if self.gating(path.as_deref()) == Gating::None {
            return None;
        }
        // A path that is too long for the rules has no name for them either.
        let path = path.and_then(|path| ViewPath::parse(&path).ok());
        Some(Place { space: self.settings.space, path, node })
    }

    pub(super) fn ask(&self, asker: &Asker, want: Want) -> Ask {
        Ask {
            party: asker.party.clone(),
            caller: asker.caller,
            patience: asker.patience,
            read_wait: self.settings.policies.read_wait(),
            label: self.settings.identity.label(asker),
            want,
        }
    }
}

fn node_kind(key: FileKey, attr: &Attr) -> Node {
    match FileType::from_raw_mode(attr.mode) {
        FileType::RegularFile => Node::File(key),
        FileType::Directory => Node::Directory,
        _ => Node::None,
    }
}
