//! `image`: builds everything and packs it into images, which is done by a binary of `spiderpool-tests`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    artifacts, build, process,
    setup::{self, Component},
    workspace::Workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// The images' tag; the chart's own version if not given
    #[arg(long)]
    tag: Option<String>,
    /// Where the files go
    #[arg(long, value_name = "FOLDER", default_value = "target/images")]
    out: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, &[Component::BUILD, Component::IMAGE].concat())?;
    build::build(workspace)?;
    let mut cargo = build::release(workspace);
    cargo.args(["--package", "spiderpool-tests", "--bin", "image"]);
    let programs = artifacts::executables(&mut cargo)?;
    let program = programs.first().context("spiderpool-tests has no binary image")?;
    let mut image = process::command(program);
    workspace.export(&mut image);
    image.current_dir(workspace.root()).arg("--out").arg(&options.out);
    if let Some(tag) = &options.tag {
        image.args(["--tag", tag]);
    }
    process::show(&mut image)
}
