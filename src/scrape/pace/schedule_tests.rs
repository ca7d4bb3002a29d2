//! Tests of the ticks.

use super::*;
