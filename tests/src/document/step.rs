//! What is run of a document, and what it is to print.

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
