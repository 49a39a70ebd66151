//! The house rules as tests: what CONTRIBUTING.md asks and ARCHITECTURE.md claims, held against
//! the tree.
//!
//! Takes the files of the checkout; gives, for each rule that is broken, `file:line: what; how to
//! mend`. Each rule is a pure function over texts, so each is also shown a text that breaks it.

#![expect(clippy::panic, reason = "helpers of tests: a missing file is a failed test")]

mod architecture;
mod doors;
mod files;
mod pages;
mod tree;
