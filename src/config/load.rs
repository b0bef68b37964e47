//! Reading the file: every problem at once.
