//! `ci`: what a change has to pass.

use anyhow::Result;

use crate::{lint, test, workspace::Workspace};

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    lint::run(workspace)?;
    test::test(workspace, None, &[])
}
