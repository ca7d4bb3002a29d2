//! Tests of the address guard.

use super::*;
