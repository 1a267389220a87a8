//! A budget for comparisons.
//!
//! Whether one rule covers another is decided for pairs. The indexes leave few pairs in any real policy; for a policy
//! that is designed to have many, the search stops when the budget is used instead of taking hours.

/// The remaining comparisons of two hosts, paths or conditions.
#[derive(Debug)]
pub struct Effort {
    left: usize,
    is_spent: bool,
}

/// The warning that a search was not finished.
pub const SPENT: &str = "has too many similar rules to compare all of them: some unreachable rules may not be listed";

/// The suggested action.
pub const HELP: &str = "split the policy, or write rules for one destination as one rule";

impl Default for Effort {
    /// Enough for a second or two.
    fn default() -> Effort {
        Effort { left: 20_000_000, is_spent: false }
    }
}

impl Effort {
    /// Whether this many comparisons are within the budget; subtracts them.
    pub fn spend(&mut self, comparisons: usize) -> bool {
        match self.left.checked_sub(comparisons.max(1)) {
            Some(left) => self.left = left,
            None => self.is_spent = true,
        }
        !self.is_spent
    }

    /// Whether the budget was ever exceeded.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }
}
