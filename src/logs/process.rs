//! Configured processing of records: drop, redact, sample, rate limit, deduplicate.
