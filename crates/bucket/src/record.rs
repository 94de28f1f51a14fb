//! How records are written and read: as postcard does, within bounds, in one way only.
//!
//! A record that could be written in two ways would have two hashes. Whatever is read here is
//! written again and compared, so a number with idle bytes at its end is refused.

use std::fmt;
use std::marker::PhantomData;

pub use gate_core::tree::encode::encode;
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So many bytes, written without their number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes<const N: usize>(pub [u8; N]);

/// Reads a record of which these are all bytes.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    take(bytes).filter(|(_, rest)| rest.is_empty()).map(|(record, _)| record)
}

/// Reads a record, and returns what comes after it.
pub fn take<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (record, rest) = postcard::take_from_bytes::<T>(bytes).ok()?;
    let read = &bytes[..bytes.len() - rest.len()];
    (encode(&record) == read).then_some((record, rest))
}

/// Reads a sequence of at most so many: what a record says of itself allocates nothing.
pub fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Items<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Items::<T, MAX>(PhantomData))
}

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes<N>, D::Error> {
        struct Array<const N: usize>;

        impl<'de, const N: usize> Visitor<'de> for Array<N> {
            type Value = Bytes<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes<N>, A::Error> {
                let mut bytes = [0; N];
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte =
                        seq.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &self))?;
                }
                Ok(Bytes(bytes))
            }
        }

        deserializer.deserialize_tuple(N, Array)
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "…{N}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        number: u64,
        signature: Bytes<64>,
        #[serde(deserialize_with = "at_most::<_, _, 3>")]
        items: Vec<[u8; 32]>,
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let sample = Sample { number: 300, signature: Bytes([7; 64]), items: vec![[1; 32]; 3] };
        let bytes = encode(&sample);
        assert_eq!(bytes.len(), 2 + 64 + 1 + 3 * 32);
        assert_eq!(decode(&bytes), Some(sample));
        assert_eq!(decode::<Sample>(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode::<Sample>(&[&bytes[..], &[0]].concat()), None, "nothing comes after");
    }

    #[test]
    fn a_number_is_written_in_one_way() {
        assert_eq!(decode::<u64>(&[5]), Some(5));
        assert_eq!(decode::<u64>(&[0x85, 0]), None);
    }

    #[test]
    fn more_items_than_may_be_are_refused() {
        let head = [&[1][..], &[0; 64]].concat();
        let with = |count: &[u8], items: usize| {
            let items = vec![0; 32 * items];
            decode::<Sample>(&[&head[..], count, &items].concat())
        };
        assert!(with(&[3], 3).is_some());
        assert_eq!(with(&[4], 4), None);
        let all = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(with(&all, 4), None, "nobody has room for as many");
    }
}
