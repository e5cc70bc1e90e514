//! `chart`: packages the Helm chart and writes an index, so that `helm repo add` works from any web server.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    process,
    setup::{self, Component},
    workspace::Workspace,
};

const CHART: &str = "charts/spiderpool";

#[derive(Args)]
pub(crate) struct Options {
    /// Where package and index go; an index that is there keeps its other versions
    #[arg(long, value_name = "FOLDER", default_value = "target/chart")]
    out: PathBuf,
    /// Where the folder will be served; packages are found beside the index if not given
    #[arg(long)]
    url: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, &[Component::Helm])?;
    let out = workspace.root().join(&options.out);
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let helm = || {
        let mut helm = process::command(workspace.tools().join("bin/helm"));
        helm.current_dir(workspace.root());
        helm
    };
    process::show(helm().args(["package", CHART, "--destination"]).arg(&out))?;
    let mut index = helm();
    index.args(["repo", "index"]).arg(&out);
    if let Some(url) = &options.url {
        index.args(["--url", url]);
    }
    let there = out.join("index.yaml");
    if there.exists() {
        index.arg("--merge").arg(&there);
    }
    process::show(&mut index)?;
    println!("{}", there.display());
    println!(
        "serve the folder, then: helm repo add spiderpool URL; helm install spiderpool spiderpool/spiderpool"
    );
    Ok(())
}
