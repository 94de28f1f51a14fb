//! Bytes that nobody can tell beforehand: keys, nonces, ids.

/// Draws random bytes from the system.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random bytes: Linux has since 3.17");
    bytes
}
