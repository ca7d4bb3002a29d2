//! Tests of the recognisers.
