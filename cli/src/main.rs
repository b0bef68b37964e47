//! The hubferry command line.
fn main() {}
