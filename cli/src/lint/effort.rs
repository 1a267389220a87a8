//! How much may be compared with how much.
//!
//! Whether one rule covers another is asked of pairs. The indexes leave few pairs in any policy that somebody wrote; in
//! one that is made to have many, the search ends here instead of taking hours.

/// Comparisons of two hosts, paths or conditions that may still be made.
#[derive(Debug)]
pub struct Effort {
    left: usize,
    is_spent: bool,
}

/// The warning of a search that ended early.
pub const SPENT: &str = "has too many rules alike to compare them all: some that nothing reaches may not be listed";

/// The remedy.
pub const HELP: &str = "split the policy, or write rules for one destination as one rule";

impl Default for Effort {
    /// Enough for a second or two.
    fn default() -> Effort {
        Effort { left: 20_000_000, is_spent: false }
    }
}

impl Effort {
    /// Whether so many comparisons may still be made.
    pub fn spend(&mut self, comparisons: usize) -> bool {
        match self.left.checked_sub(comparisons.max(1)) {
            Some(left) => self.left = left,
            None => self.is_spent = true,
        }
        !self.is_spent
    }

    /// Whether there was ever too much to do.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }
}
