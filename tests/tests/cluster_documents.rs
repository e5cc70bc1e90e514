//! The documents that users start with, run as they are typed.
#![forbid(unsafe_code)]

use std::fs;

use anyhow::{Context as _, Result};
use spiderpool_tests::cluster::{Cluster, DefaultCni, Options};
use spiderpool_tests::document::{self, Document};
use spiderpool_tests::{privilege, release, teardown, tools};

const FOLDER: &str = "docs/get-started";

/// Runs a document on a cluster of its own.
fn works(name: &str, options: &Options, prepare: impl FnOnce(&Cluster) -> Result<()>) {
    if privilege::root_or_skip(name)
        && let Err(error) = run(name, options, prepare)
    {
        panic!("{error:#}");
    }
}

fn run(name: &str, options: &Options, prepare: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let document = Document::read(&tools::workspace().join(FOLDER).join(name).with_extension("md"))?;
    let before = teardown::Snapshot::take()?;
    let cluster = Cluster::up(options)?;
    release::load_images(&cluster)?;
    prepare(&cluster)?;
    document::run(&document, &cluster)?;
    let folder = cluster.folder().to_owned();
    cluster.down()?;
    before.check_nothing_left_of(&folder)
}

#[test]
fn cluster_document_calico() {
    works("calico", &Options::default(), Cluster::install_calico);
}

#[test]
fn cluster_document_cilium() {
    let options = Options { cni: DefaultCni::CiliumLike, ..Options::default() };
    works("cilium", &options, Cluster::install_cilium);
}

#[test]
fn cluster_document_calico_ipam_bgp() {
    works("calico-ipam-bgp", &Options::default(), |cluster| {
        cluster.install_calico()?;
        cluster.start_bird(&["10.245.0.0/16"])
    });
}

#[test]
fn cluster_document_calico_cloud() {
    let options = Options { domain: Some("example.internal".to_owned()), ..Options::default() };
    works("calico-cloud", &options, Cluster::install_calico);
}

#[test]
fn cluster_document_underlay() {
    works("underlay", &Options::default(), Cluster::install_calico);
}

#[test]
fn every_document_can_be_read_and_is_run() {
    let tests = include_str!("cluster_documents.rs");
    let folder = tools::workspace().join(FOLDER);
    let found = || -> Result<Vec<_>> {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    for path in found().unwrap_or_else(|error| panic!("{error:#}")) {
        let document = Document::read(&path).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!document.steps.is_empty(), "{}", path.display());
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        assert!(tests.contains(&format!("works(\"{name}\"")), "{name} is not run");
    }
}
