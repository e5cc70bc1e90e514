//! What users and agents see of a pool's use: its status, and bitmaps for picking. Views: what counts are the
//! addresses themselves.

mod finalizer;
mod status;
mod usage;
mod writer;

pub use writer::Writer;
