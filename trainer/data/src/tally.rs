//! Counts items and keeps the first ones, so that a message can name some of many. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of items that are kept.
const KEPT: usize = 10;
/// Longest item that is kept, in characters.
const MAX_LENGTH: usize = 300;

/// A number of items and the first ten of them. It is displayed as `a; b; and 7 more`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    count: u64,
    first: Vec<String>,
}

impl Tally {
    /// Counts an item.
    pub fn add(&mut self, item: impl AsRef<str>) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(item.as_ref().chars().take(MAX_LENGTH).collect());
        }
    }

    /// Adds the items of another tally.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(KEPT);
    }

    /// The number of items.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("; "))?;
        match self.count - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_ten_and_counts_the_rest() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        tally.add("a");
        tally.add("b");
        assert_eq!(tally.to_string(), "a; b");
        let mut many = Tally::default();
        (0..12).for_each(|item| many.add(item.to_string()));
        tally.append(many);
        assert_eq!(tally.count(), 14);
        assert_eq!(tally.to_string(), "a; b; 0; 1; 2; 3; 4; 5; 6; 7; and 4 more");
    }
}
