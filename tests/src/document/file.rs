//! Reading a document.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::output::AddressRanges;
use super::parse;
use super::step::Step;

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

impl Document {
    /// Reads a document.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let steps = parse::steps(&text).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), steps, ranges: AddressRanges::of(&text) })
    }
}
