//! `assay`.
fn main() {}
