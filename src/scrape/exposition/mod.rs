//! Reads what targets answer.
