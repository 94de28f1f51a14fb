//! Laws that tests hold to inputs at random.
//!
//! `proptest!` is for those that are quick: it tries as many inputs as the environment asks for, whatever its
//! configuration says. What makes buckets, or reads much, is held here to a share of as many.

use std::panic::Location;

use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::{TestCaseResult, TestRunner};

/// Holds a law to one input for each `per` that the environment asks for.
#[track_caller]
pub(crate) fn hold<S: Strategy>(per: u32, inputs: &S, law: impl Fn(S::Value) -> TestCaseResult) {
    let usual = ProptestConfig::default();
    let (cases, source_file) = (usual.cases.div_ceil(per), Some(Location::caller().file()));
    let mut runner = TestRunner::new(ProptestConfig { cases, source_file, ..usual });
    runner.run(inputs, law).unwrap_or_else(|error| panic!("{error}"));
}
