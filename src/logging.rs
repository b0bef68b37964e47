//! Log lines: one JSON object each, for CloudWatch.
