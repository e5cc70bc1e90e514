//! Which addresses are in use, as bitmaps: one per aligned block of 65,536 addresses.

use std::iter;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::ip::{Family, IpRange, IpSet};

/// Addresses of a block. An IPv4 block is a /16, an IPv6 block a /112.
pub const BLOCK: u128 = 1 << 16;

/// One block, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageBlock {
    /// Its first address.
    pub base: IpAddr,
    /// Base64 of the bitmap: bit n is `base` + n, the lowest bit of a byte first; zero bytes at the end left out.
    pub bitmap: String,
    /// How many bits are set.
    pub in_use: u32,
}

/// Why a stored block cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UsageError {
    /// The base is not the first address of a block.
    #[error("usage block {0} does not start at a multiple of 65536 addresses")]
    Base(IpAddr),
    /// The bitmap is not base64.
    #[error("bitmap of usage block {base} is invalid: {cause}")]
    Bitmap {
        /// The block.
        base: IpAddr,
        /// What the decoder says.
        cause: String,
    },
}

/// The first address of the block that an address is in.
pub fn block_base(addr: IpAddr) -> IpAddr {
    Family::of(addr).addr(Family::number(addr) & !(BLOCK - 1))
}

/// The members of a set that are in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMembers {
    base: IpAddr,
    /// First and last offset of each run, ascending.
    runs: Vec<(u16, u16)>,
}

/// The blocks that hold a member of the set, ascending; made as they are asked for, in one pass over the set.
pub fn blocks(in_use: &IpSet) -> impl Iterator<Item = BlockMembers> {
    let family = in_use.family();
    let mut ranges =
        in_use.ranges().map(|range| (Family::number(range.first()), Family::number(range.last())));
    let mut next = ranges.next();
    iter::from_fn(move || {
        let base = next?.0 & !(BLOCK - 1);
        let end = base + (BLOCK - 1);
        let mut runs = Vec::new();
        while let Some((first, last)) = next.filter(|(first, _)| *first <= end) {
            runs.push(((first - base) as u16, (last.min(end) - base) as u16));
            next = if last > end { Some((end + 1, last)) } else { ranges.next() };
        }
        Some(BlockMembers { base: family.addr(base), runs })
    })
}

/// The blocks that hold a member of the set, as they are stored.
pub fn encode(in_use: &IpSet) -> impl Iterator<Item = UsageBlock> {
    blocks(in_use).map(|block| block.encode())
}

impl BlockMembers {
    /// The block's first address.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.runs.iter().map(|(first, last)| u32::from(last - first) + 1).sum()
    }

    /// How many addresses of the block are in another set.
    pub fn count_of(&self, set: &IpSet) -> u128 {
        let last = Family::of(self.base).addr(Family::number(self.base) + (BLOCK - 1));
        IpRange::new(self.base, last).map_or(0, |block| set.count_within(block))
    }

    /// The block as it is stored.
    pub fn encode(&self) -> UsageBlock {
        let mut bytes = Vec::new();
        for (first, last) in self.runs.iter().map(|(first, last)| (usize::from(*first), usize::from(*last))) {
            bytes.resize(last / 8 + 1, 0u8);
            for bit in first..=last {
                bytes[bit / 8] |= 1 << (bit % 8);
            }
        }
        UsageBlock { base: self.base, bitmap: STANDARD.encode(bytes), in_use: self.count() }
    }
}

/// The addresses whose bits are set. Bits behind the block's end are ignored.
pub fn decode(base: IpAddr, bitmap: &str) -> Result<IpSet, UsageError> {
    if block_base(base) != base {
        return Err(UsageError::Base(base));
    }
    let bytes =
        STANDARD.decode(bitmap).map_err(|error| UsageError::Bitmap { base, cause: error.to_string() })?;
    let family = Family::of(base);
    let set = |bit: usize| bytes.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
    let bits = (bytes.len() * 8).min(BLOCK as usize);
    let addresses =
        (0..bits).filter(|bit| set(*bit)).map(|bit| family.addr(Family::number(base) + bit as u128));
    Ok(IpSet::from_ranges(family, addresses.map(IpRange::single)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[&str]) -> IpSet {
        let ranges: Vec<IpRange> = ranges.iter().map(|r| r.parse().unwrap()).collect();
        IpSet::from_ranges(ranges[0].family(), ranges)
    }

    fn decode_all(blocks: &[UsageBlock], family: Family) -> IpSet {
        blocks.iter().fold(IpSet::empty(family), |all, b| all.union(&decode(b.base, &b.bitmap).unwrap()))
    }

    #[test]
    fn layout_of_a_block() {
        let blocks: Vec<_> = encode(&set(&["10.6.0.0", "10.6.0.9-10.6.0.10"])).collect();
        let expect =
            UsageBlock { base: "10.6.0.0".parse().unwrap(), bitmap: STANDARD.encode([1, 6]), in_use: 3 };
        assert_eq!(blocks, [expect]);
        assert_eq!(encode(&IpSet::empty(Family::V6)).count(), 0);
    }

    #[test]
    fn a_range_over_several_blocks_ends_with_the_address_space() {
        let v4 = set(&["255.253.255.255-255.255.255.255"]);
        let blocks: Vec<_> = encode(&v4).collect();
        assert_eq!(blocks.iter().map(|b| b.in_use).collect::<Vec<_>>(), [1, 65_536, 65_536]);
        assert_eq!(decode_all(&blocks, Family::V4), v4);
        let top = set(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
        assert_eq!(decode_all(&encode(&top).collect::<Vec<_>>(), Family::V6), top);
    }

    #[test]
    fn a_huge_set_costs_only_the_blocks_that_are_asked_for() {
        let all = set(&["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
        assert_eq!(encode(&all).take(2).last().unwrap().base.to_string(), "::1:0");
    }

    #[test]
    fn members_of_a_block_are_counted_in_both_sets() {
        let usable = set(&["fd00::1-fd00::ff", "fd00::2:0-fd00::3:0"]);
        let blocks: Vec<_> = blocks(&set(&["fd00::7-fd00::9", "fd00::1:5", "fd00::2:1"])).collect();
        assert_eq!(blocks.iter().map(BlockMembers::count).collect::<Vec<_>>(), [3, 1, 1]);
        assert_eq!(blocks.iter().map(|block| block.count_of(&usable)).collect::<Vec<_>>(), [255, 0, 65_536]);
    }

    #[test]
    fn bad_blocks_are_refused() {
        assert!(decode("10.6.0.1".parse().unwrap(), "").is_err());
        assert!(decode("10.6.0.0".parse().unwrap(), "*").is_err());
        let long = STANDARD.encode(vec![0xff; 8193]);
        assert_eq!(decode("10.6.0.0".parse().unwrap(), &long).unwrap().len(), BLOCK);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn decode_is_the_inverse(
            ranges in proptest::collection::vec((0u128..200_000, 0u128..3000), 0..8),
            v6 in any::<bool>(),
        ) {
            let (family, base) = if v6 { (Family::V6, 0xfd00_u128 << 112) } else { (Family::V4, 0x0a06_0000) };
            let ranges = ranges.iter().map(|(first, more)| {
                IpRange::new(family.addr(base + first), family.addr(base + first + more)).unwrap()
            });
            let in_use = IpSet::from_ranges(family, ranges);
            let blocks: Vec<_> = encode(&in_use).collect();
            prop_assert_eq!(blocks.iter().map(|b| u128::from(b.in_use)).sum::<u128>(), in_use.len());
            prop_assert!(blocks.iter().all(|b| b.in_use > 0));
            prop_assert!(blocks.windows(2).all(|pair| pair[0].base < pair[1].base));
            prop_assert_eq!(decode_all(&blocks, family), in_use);
        }
    }
}
