//! `image`: builds everything and packs it into images, which is done by a binary of `spiderpool-tests`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    architecture::Architecture,
    artifacts, build, build_ebpf, process,
    setup::{self, Component},
    workspace::Workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// The images' tag; the chart's own version if not given
    #[arg(long)]
    tag: Option<String>,
    /// What the nodes' processors are; this machine's if not given
    #[arg(long, value_name = "ARCHITECTURE", default_value = Architecture::HOST.name())]
    arch: Architecture,
    /// Where the files go; target/images, with the architecture's name below it if that is not this machine's
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Options {
    fn out(&self) -> PathBuf {
        let folder = PathBuf::from("target/images");
        match (&self.out, self.arch) {
            (Some(out), _) => out.clone(),
            (None, Architecture::HOST) => folder,
            (None, other) => folder.join(other.name()),
        }
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, Component::BUILD)?;
    let of_images = workspace.of(options.arch);
    if options.arch != Architecture::HOST {
        setup::cross::ensure(options.arch)?;
    }
    setup::ensure(&of_images, Component::IMAGE)?;
    // The same object for both: eBPF has a byte order and no other trait of the processor.
    build_ebpf::build(workspace)?;
    build::of_images(&of_images)?;
    let mut cargo = build::release(workspace);
    cargo.args(["--package", "spiderpool-tests", "--bin", "image"]);
    let programs = artifacts::executables(&mut cargo)?;
    let program = programs.first().context("spiderpool-tests has no binary image")?;
    let mut image = process::command(program);
    of_images.export(&mut image);
    image.current_dir(workspace.root()).args(["--arch", options.arch.name()]).arg("--out").arg(options.out());
    if let Some(tag) = &options.tag {
        image.args(["--tag", tag]);
    }
    process::show(&mut image)
}
