//! Buckets: sealed trees of files, every version kept.
//!
//! What lies on the disk is in `docs/bucket-format.md`, what it means in `gate_core::tree`.

pub mod bucket;
pub mod checkpoint;
pub mod contents;
pub mod cut;
pub mod draft;
pub mod entry;
pub mod envelope;
pub mod feed;
pub mod frames;
pub mod genesis;
#[cfg(test)]
mod golden;
pub mod hash;
pub mod identity;
pub mod index;
#[cfg(test)]
mod law;
pub mod live;
pub mod log;
pub mod members;
pub mod merge;
pub mod pack;
pub mod parts;
pub mod random;
pub mod record;
pub mod seal;
pub mod sectors;
pub mod shelf;
pub mod sign;
pub mod store;
pub mod vault;
pub mod whole;

/// What only a fuzzer calls: what is read behind a signature or a seal that it cannot make.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads bytes as the operations of an entry.
    pub fn ops(bytes: &[u8]) {
        if let Ok(ops) = crate::entry::read_ops(bytes) {
            assert!(ops.iter().all(|op| op.check().is_ok()));
        }
    }

    /// Reads bytes as what a frame of the log holds.
    pub fn log(bytes: &[u8]) {
        crate::log::read_records(bytes);
    }

    /// Reads bytes as a record of membership.
    pub fn member(bytes: &[u8]) {
        crate::members::read_any(bytes);
    }

    /// Reads bytes as what a checkpoint seals, and as the rows of a state.
    pub fn checkpoint(bytes: &[u8]) {
        let _refused = crate::checkpoint::Held::decode(bytes);
        let mut rows = crate::shelf::rows::RowsIn::new(bytes);
        let mut tables = gate_core::tree::tables::Memory::default();
        while let Ok(Some(row)) = rows.read_row() {
            let Ok(()) = row.put(&mut tables);
        }
    }

    /// Reads bytes as what a chunk seals.
    pub fn chunk(bytes: &[u8]) {
        if let Ok(len) = crate::seal::Workbench::new().decoded_len(bytes) {
            assert!(len <= gate_core::tree::op::CHUNK_BYTES_MAX as usize);
        }
    }
}
