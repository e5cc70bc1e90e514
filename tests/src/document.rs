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

mod output;
mod parse;
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use output::AddressRanges;
pub use run::run;

/// A document, as far as it is run.
#[derive(Debug)]
pub struct Document {
    /// Where it is.
    pub path: PathBuf,
    /// What is done, in this order.
    pub steps: Vec<Step>,
    /// The networks that it names.
    pub ranges: AddressRanges,
}

/// A block that is run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The line of its first command.
    pub line: usize,
    /// What is given to bash.
    pub script: String,
    /// The machines that it is run on; if there are none, it is the administrator's.
    pub machines: Vec<String>,
    /// What it prints, as the document has it.
    pub expected: Option<ExpectedOutput>,
    /// Whether it is run again until it succeeds: it only looks.
    pub retry: bool,
    /// Whether only the long form of the tests runs it.
    pub long: bool,
}

/// The output of a block that a document shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedOutput {
    /// The line where it begins.
    pub line: usize,
    /// Its lines.
    pub lines: Vec<String>,
}

impl Document {
    /// Reads a document.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let steps = parse::steps(&text).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), steps, ranges: AddressRanges::of(&text) })
    }
}
