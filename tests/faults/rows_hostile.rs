//! Rows 9 to 15: what a pod can do to its own log.
