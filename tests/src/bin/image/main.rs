//! `cargo xtask image`: packs what `build` has made into images.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use spiderpool_tests::images::{self, TAG};
use spiderpool_tests::oci;

#[derive(Parser)]
#[command(name = "image", about = "Writes all images as OCI tars")]
struct Arguments {
    /// The images' tag.
    #[arg(long, default_value = TAG)]
    tag: String,
    /// What the programs were built for.
    #[arg(long, default_value = oci::HOST, value_parser = ["amd64", "arm64"])]
    arch: String,
    /// The folder that gets the files.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { tag, arch, out } = Arguments::parse();
    for written in images::write_for(&arch, &out, &tag)? {
        let path = written.path.display();
        let size = fs::metadata(&written.path).with_context(|| format!("cannot read {path}"))?.len();
        println!("{path}  {:.1} MiB\n  {}\n  {}", size as f64 / 1_048_576.0, written.name, written.digest);
    }
    Ok(())
}
