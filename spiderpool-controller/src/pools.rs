//! What users and agents see of a pool's use: its status, and bitmaps for picking. Views: what counts are the
//! addresses themselves.

mod release;
mod usage;
mod view;
mod writer;

pub use writer::Writer;
