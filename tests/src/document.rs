//! Documents whose commands are run as their readers type them, and whose shown output is compared with the real one.
//!
//! A fenced block `sh` or `bash` is run; a block `text` right after it is what it prints ([`ExpectedOutput`]). HTML comments,
//! which readers do not see, say what is different here, right before the block that they are about:
//!
//! * `<!-- skip: why -->`: only a real cluster can do that. What it prints is not looked at either.
//! * `<!-- instead: script -->`: the same, with something that takes its place here.
//! * `<!-- on: node1 node2 -->`: the machines to run it on; without it, where an administrator has kubectl and Helm.
//! * `<!-- long -->`: run in the long form of the tests alone.
//! * `<!-- picture -->`: the block `text` after it is no output.
//! * `<!-- check: script -->`: stands alone: a block that is run and that readers do not see.

mod file;
mod output;
mod parse;
mod run;
mod step;

pub use file::Document;
pub use output::AddressRanges;
pub use run::run;
pub use step::{ExpectedOutput, Step};
