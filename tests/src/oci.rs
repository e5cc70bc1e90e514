//! Writes container images without a container runtime: one uncompressed layer, as an OCI layout in a tar that
//! `ctr images import`, `podman load` and `docker load` read.
//!
//! The same input gives the same bytes: entries are sorted, nobody's clock and user get in.

mod layer;
mod layout;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

pub use layer::Layer;
use layout::{Blob, Layout};

/// This machine's architecture, in the words of OCI.
pub const HOST: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// An image of one layer.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    layer: Layer,
    entrypoint: Vec<String>,
    labels: Vec<(String, String)>,
    architecture: String,
}

impl Image {
    /// An image that is called `REGISTRY/REPOSITORY:TAG` once it is loaded.
    pub fn new(name: &str, layer: Layer) -> Self {
        Self {
            name: name.to_owned(),
            layer,
            entrypoint: Vec::new(),
            labels: Vec::new(),
            architecture: HOST.to_owned(),
        }
    }

    /// What a container without a command runs.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A label, as `docker inspect` shows it.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The architecture of its programs, in the words of OCI; this machine's if nothing is said.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// Its full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the tar in one step, and answers with the digest of the image.
    pub fn write(&self, path: &Path) -> Result<String> {
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", self.layer.tar()?);
        let config = Blob::json("application/vnd.oci.image.config.v1+json", &self.config(&layer))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": layout::MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        });
        let manifest = Blob::json(layout::MANIFEST, &manifest)?;
        let digest = manifest.digest().to_owned();
        let index = self.index(&manifest);
        let docker = json!([{"Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()]}]);
        let bytes = Layout { index, docker, blobs: vec![layer, config, manifest] }.tar()?;
        publish(path, &bytes).with_context(|| format!("image {}: {}", self.name, path.display()))?;
        Ok(digest)
    }

    fn config(&self, layer: &Blob) -> Value {
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut config = self.platform();
        config["created"] = json!("1970-01-01T00:00:00Z");
        config["config"] = json!({
            "User": "0:0",
            "WorkingDir": "/",
            "Env": ["PATH=/usr/bin:/bin"],
            "Entrypoint": self.entrypoint,
            "Labels": labels,
        });
        // Uncompressed, so the layer's digest is that of its contents too.
        config["rootfs"] = json!({"type": "layers", "diff_ids": [layer.digest()]});
        config
    }

    fn index(&self, manifest: &Blob) -> Value {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut descriptor = manifest.descriptor();
        descriptor["platform"] = self.platform();
        descriptor["annotations"] =
            json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
        json!({"schemaVersion": 2, "mediaType": layout::INDEX, "manifests": [descriptor]})
    }

    fn platform(&self) -> Value {
        json!({"architecture": self.architecture, "os": "linux"})
    }
}

fn publish(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = File::create(&fresh)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // Half an image helps nobody, and a full disk least.
        let _left = fs::remove_file(&fresh);
    }
    Ok(written?)
}

#[cfg(test)]
mod tests;
