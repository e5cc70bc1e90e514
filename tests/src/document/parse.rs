//! From Markdown to steps.

use std::iter::{Enumerate, Peekable};
use std::str::Lines;

use anyhow::{Context as _, Result, bail, ensure};

use super::step::{ExpectedOutput, Step};

/// Blocks that show something that is neither typed nor printed.
const OTHERS: [&str; 4] = ["yaml", "json", "mermaid", "ini"];

/// What a comment says about the next block.
#[derive(Debug, PartialEq, Eq)]
enum Marker {
    Skip,
    Instead(String),
    On(Vec<String>),
    Picture,
    Long,
    Check(String),
}

struct Block {
    language: String,
    /// That of its first line.
    line: usize,
    lines: Vec<String>,
}

enum Part {
    Marker(usize, Marker),
    Block(Block),
    /// Anything that readers read.
    Prose,
}

/// The steps of a document; an error names the line.
pub(super) fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut markers: Vec<Marker> = Vec::new();
    // Whether the part before was a shell block, and whether it is run here.
    let mut before = None;
    for part in parts(text)? {
        match part {
            Part::Marker(line, Marker::Check(script)) => {
                steps.push(Step { line, script, retry: true, ..Step::default() });
                before = None;
            }
            Part::Marker(_, marker) => markers.push(marker),
            Part::Prose => {
                ensure!(markers.is_empty(), "a marker has no block after it: {markers:?}");
                before = None;
            }
            Part::Block(block) => {
                let line = block.line;
                before = take(block, std::mem::take(&mut markers), before, &mut steps)
                    .with_context(|| format!("line {line}"))?;
            }
        }
    }
    ensure!(markers.is_empty(), "a marker has no block after it: {markers:?}");
    Ok(steps)
}

/// Adds a block to the steps; the answer is for the block after it.
fn take(
    block: Block,
    markers: Vec<Marker>,
    before: Option<bool>,
    steps: &mut Vec<Step>,
) -> Result<Option<bool>> {
    match block.language.as_str() {
        "sh" | "bash" => {
            let step = shell(&block, markers)?;
            let is_run = step.is_some();
            steps.extend(step);
            Ok(Some(is_run))
        }
        "text" if markers == [Marker::Picture] => Ok(None),
        "text" => {
            ensure!(markers.is_empty(), "a marker of commands before output");
            let is_run = before.context("output that follows no commands; a picture needs the marker")?;
            if is_run && let Some(step) = steps.last_mut() {
                step.retry = true;
                step.expected = Some(ExpectedOutput { line: block.line, lines: block.lines });
            }
            Ok(None)
        }
        other if OTHERS.contains(&other) => {
            ensure!(markers.is_empty(), "a marker before a block that is not run");
            Ok(None)
        }
        other => {
            bail!("a block of the language {other:?}, which is neither run nor known as one that is not")
        }
    }
}

/// A shell block as a step; none if it is skipped.
fn shell(block: &Block, markers: Vec<Marker>) -> Result<Option<Step>> {
    let mut step = Step { line: block.line, script: block.lines.join("\n"), ..Step::default() };
    for marker in markers {
        match marker {
            Marker::Skip => return Ok(None),
            Marker::Instead(script) => step.script = script,
            Marker::On(machines) => step.machines = machines,
            Marker::Long => step.long = true,
            Marker::Picture | Marker::Check(_) => bail!("{marker:?} before commands"),
        }
    }
    Ok(Some(step))
}

fn parts(text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let start = line.trim_start();
        if let Some(language) = start.strip_prefix("```") {
            let indentation = line.len() - start.len();
            parts.push(Part::Block(block(&mut lines, language.trim(), number, indentation)?));
        } else if let Some(comment) = start.strip_prefix("<!--") {
            let marker = comment_text(&mut lines, comment).and_then(|text| marker(&text));
            let marker = marker.with_context(|| format!("line {number}"))?;
            parts.push(Part::Marker(number, marker));
        } else if !start.is_empty() {
            parts.push(Part::Prose);
        }
    }
    Ok(parts)
}

fn block(
    lines: &mut Peekable<Enumerate<Lines<'_>>>,
    language: &str,
    number: usize,
    indentation: usize,
) -> Result<Block> {
    let mut content = Vec::new();
    for (_, line) in lines.by_ref() {
        if line.trim() == "```" {
            return Ok(Block { language: language.to_owned(), line: number + 1, lines: content });
        }
        let margin = line.len() - line.trim_start().len();
        content.push(line[margin.min(indentation)..].to_owned());
    }
    bail!("the block of line {number} does not end")
}

/// The comment's text up to its end, which may be lines below.
fn comment_text(lines: &mut Peekable<Enumerate<Lines<'_>>>, first: &str) -> Result<String> {
    let mut text = first.to_owned();
    while !text.contains("-->") {
        let (_, line) = lines.next().context("a comment that does not end")?;
        text.push('\n');
        text.push_str(line);
    }
    let (text, rest) = text.split_once("-->").context("a comment that does not end")?;
    ensure!(rest.trim().is_empty(), "text after a comment");
    Ok(text.to_owned())
}

fn marker(text: &str) -> Result<Marker> {
    let text = text.trim();
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let value = value.trim();
    Ok(match name {
        "skip" => {
            ensure!(!value.is_empty(), "a block is skipped, and nothing says why");
            Marker::Skip
        }
        "instead" => Marker::Instead(value.to_owned()),
        "on" => Marker::On(value.split_whitespace().map(str::to_owned).collect()),
        "picture" => Marker::Picture,
        "long" => Marker::Long,
        "check" => Marker::Check(value.to_owned()),
        _ => bail!("an unknown marker {name:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> String {
        format!("{:#}", steps(text).unwrap_err())
    }

    #[test]
    fn blocks_are_run_in_order_with_what_they_print() {
        let text = "# T\n```sh\na\nb\n```\n\n```text\nout\n```\nprose\n\n   ```bash\n   c\n     d\n   ```\n";
        let steps = steps(text).unwrap();
        let expected = Some(ExpectedOutput { line: 8, lines: vec!["out".into()] });
        let first = Step { line: 3, script: "a\nb".into(), expected, retry: true, ..Step::default() };
        let second = Step { line: 13, script: "c\n  d".into(), ..Step::default() };
        assert_eq!(steps, [first, second]);
    }

    #[test]
    fn comments_say_what_is_different_here() {
        let text = "<!-- skip: no Internet -->\n```sh\nx\n```\n```text\nnot looked at\n```\n\
            <!-- on: node1 node2 -->\n<!-- instead:\ny\nz -->\n```sh\nx\n```\n<!-- check: true -->\n\
            <!-- picture -->\n```text\n+--+\n```\n```yaml\na: b\n```\n<!-- long -->\n```sh\nw\n```\n";
        let steps = steps(text).unwrap();
        let machines = vec!["node1".to_owned(), "node2".to_owned()];
        let instead = Step { line: 13, script: "y\nz".into(), machines, ..Step::default() };
        let check = Step { line: 15, script: "true".into(), retry: true, ..Step::default() };
        let long = Step { line: 25, script: "w".into(), long: true, ..Step::default() };
        assert_eq!(steps, [instead, check, long]);
    }

    #[test]
    fn what_would_not_be_run_by_mistake_is_refused() {
        assert!(failure("```\nkubectl\n```\n").contains("line 2: a block of the language \"\""));
        assert!(failure("```sh\nx\n").contains("does not end"));
        assert!(
            failure("<!-- skipp: x -->\n```sh\nx\n```\n").contains("line 1: an unknown marker \"skipp\"")
        );
        assert!(failure("<!-- skip: -->\n```sh\nx\n```\n").contains("nothing says why"));
        assert!(failure("<!-- skip: x -->\nprose\n").contains("no block after it"));
        assert!(failure("<!-- skip: x -->\n").contains("no block after it"));
        assert!(failure("```sh\nx\n```\nprose\n```text\nout\n```\n").contains("line 6: output that follows"));
    }
}
