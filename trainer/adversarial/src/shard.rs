//! Sharding of images over ranks. Pure.

/// One rank's shard of a list that all ranks share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0 to `world_size - 1`.
    pub rank: usize,
    /// Number of ranks.
    pub world_size: usize,
}

impl Shard {
    /// The only shard of a single process: the whole list.
    pub const WHOLE: Self = Self { rank: 0, world_size: 1 };

    /// Every `world_size`-th item, beginning with the item at `rank`.
    pub fn select<I: Iterator>(self, items: I) -> impl Iterator<Item = I::Item> {
        items.skip(self.rank).step_by(self.world_size.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_partition_the_items() {
        let shard = |rank| Shard { rank, world_size: 3 }.select(0..7).collect::<Vec<_>>();
        assert_eq!([shard(0), shard(1), shard(2)], [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
        assert_eq!(Shard::WHOLE.select(0..3).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
