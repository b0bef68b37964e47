//! One file at a time.
