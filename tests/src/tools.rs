//! Where the programs are that tests start. `cargo xtask` sets the variables; without them the workspace's target folder counts.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The workspace's root folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn folder(variable: &str, fallback: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| target().join(fallback), PathBuf::from)
}

fn existing(path: &Path, remedy: &str) -> Result<PathBuf> {
    if !path.exists() {
        bail!("{} does not exist: run `cargo xtask {remedy}`", path.display());
    }
    Ok(path.canonicalize()?)
}

/// A program of Kubernetes (`etcd`, `kube-apiserver`, `kubelet`, `kubectl`, `helm`), below `$SPIDERPOOL_TOOLS/bin`.
pub fn kubernetes(name: &str) -> Result<PathBuf> {
    existing(&folder("SPIDERPOOL_TOOLS", "tools").join("bin").join(name), "setup")
}

/// The folder that [`kubernetes`] and [`cni_plugins`] are in.
pub fn folder_of_programs() -> Result<PathBuf> {
    existing(&folder("SPIDERPOOL_TOOLS", "tools"), "setup")
}

/// The folder of the folders of clusters; made if it is not there.
pub fn clusters() -> Result<PathBuf> {
    let path = target().join("clusters");
    std::fs::create_dir_all(&path)?;
    Ok(path.canonicalize()?)
}

/// The folder of the images that clusters start with; made if it is not there.
pub fn cluster_images() -> Result<PathBuf> {
    let path = target().join("cluster-images");
    std::fs::create_dir_all(&path)?;
    Ok(path.canonicalize()?)
}

/// The folder of the CNI reference plugins, `$SPIDERPOOL_TOOLS/cni`.
pub fn cni_plugins() -> Result<PathBuf> {
    existing(&folder("SPIDERPOOL_TOOLS", "tools").join("cni"), "setup")
}

/// One of our own binaries (`spiderpool`, `spiderpool-agent`, `testbox`), below `$SPIDERPOOL_BIN`.
pub fn spiderpool(name: &str) -> Result<PathBuf> {
    existing(&folder("SPIDERPOOL_BIN", "bin").join(name), "build")
}

/// The compiled eBPF object, `$SPIDERPOOL_BPF_OBJECT`.
pub fn bpf_object() -> Result<PathBuf> {
    existing(&folder("SPIDERPOOL_BPF_OBJECT", "bpf/spiderpool.o"), "build-ebpf")
}

/// The folder of our CRDs.
pub fn crds() -> Result<PathBuf> {
    existing(&workspace().join("charts/spiderpool/crds"), "crds")
}

/// The Helm chart.
pub fn chart() -> Result<PathBuf> {
    existing(&workspace().join("charts/spiderpool"), "crds")
}

/// The folder that our images are packed into.
pub(crate) fn images() -> PathBuf {
    target().join("images")
}

/// Where the logs of the last run of each test binary are kept.
pub fn kept_logs() -> PathBuf {
    target().join("test-logs")
}
