//! The field pairs of a sync, checked against what both systems have. Pure.
