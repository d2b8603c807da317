//! Compares outputs with expectations.
