//! The crate against small models built in code: what is read, folded, refused, written and read back.

mod body;
mod build;
mod constants;
mod errors;
mod expose;
mod external;
mod fold;
mod fuse;
mod hostile;
mod rotation;
mod round_trip;
mod saturation;
mod skeleton;
mod skipped;
mod write;
