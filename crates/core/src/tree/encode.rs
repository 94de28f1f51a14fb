//! How records become bytes: as postcard writes them.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Most records are shorter, and would grow byte by byte.
const RECORD_BYTES: usize = 256;

struct Growing(Vec<u8>);

impl Flavor for Growing {
    type Output = Vec<u8>;

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Returns a record as bytes.
pub fn encode<T: Serialize + ?Sized>(record: &T) -> Vec<u8> {
    append(record, Vec::new())
}

/// As [`encode`], after other bytes.
pub fn append<T: Serialize + ?Sized>(record: &T, mut to: Vec<u8>) -> Vec<u8> {
    to.reserve(RECORD_BYTES);
    let written = postcard::serialize_with_flavor(record, Growing(to));
    written.expect("records have no maps and no numbers of unknown length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_as_postcard_does() {
        let record = (300_u64, [7_u8; 32], vec![b"name".to_vec(); 100], "text", Some(-5_i64));
        let bytes = postcard::to_stdvec(&record).unwrap();
        assert_eq!(encode(&record), bytes);
        assert_eq!(append(&record, vec![1, 2]), [&[1, 2], &bytes[..]].concat());
    }
}
