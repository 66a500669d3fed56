//! dat-trainer
fn main() {}
