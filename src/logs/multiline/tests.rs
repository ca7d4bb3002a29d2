//! Tests of the joiner.
