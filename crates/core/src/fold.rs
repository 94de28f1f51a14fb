//! FNV-1a: bytes spread over a number that is the same in each release.
//!
//! It tells one text or one name from another, not a forgery.

/// What a number begins with.
pub const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Returns the number of some bytes.
pub fn fold(bytes: &[u8]) -> u64 {
    fold_into(BASIS, bytes)
}

/// Returns the number of what `start` stands for, and some bytes after it.
pub fn fold_into(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |number, byte| (number ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of its authors.
    #[test]
    fn a_number_is_the_same_in_each_release() {
        for (text, number) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(fold(text.as_bytes()), number, "{text}");
        }
        assert_eq!(fold_into(fold(b"foo"), b"bar"), fold(b"foobar"));
    }
}
