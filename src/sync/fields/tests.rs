//! Tests of the pairs.
