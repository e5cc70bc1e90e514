//! The tar around an image: `oci-layout`, `index.json` and the blobs by their digests, and the `manifest.json` that
//! Docker's older image store reads in their place.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType};

use super::layer::append;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A piece of an image.
pub(super) struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    pub(super) fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let mut digest = "sha256:".to_owned();
        for byte in Sha256::digest(&bytes) {
            // Writing to a string cannot fail.
            let _ok = write!(digest, "{byte:02x}");
        }
        Self { media_type, bytes, digest }
    }

    pub(super) fn json(media_type: &'static str, value: &Value) -> Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(value)?))
    }

    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// Where it is in the tar.
    pub(super) fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }

    pub(super) fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// All of it.
pub(super) struct Layout {
    pub(super) index: Value,
    /// The same in the form of `docker save`.
    pub(super) docker: Value,
    pub(super) blobs: Vec<Blob>,
}

impl Layout {
    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for folder in ["blobs", "blobs/sha256"] {
            append(&mut tar, Path::new(folder), EntryType::Directory, 0o755, &[])?;
        }
        let mut file = |path: &str, content: &[u8]| {
            append(&mut tar, Path::new(path), EntryType::Regular, 0o644, content)
        };
        for blob in &self.blobs {
            file(&blob.path(), &blob.bytes)?;
        }
        file("index.json", &serde_json::to_vec(&self.index)?)?;
        file("manifest.json", &serde_json::to_vec(&self.docker)?)?;
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(tar.into_inner()?)
    }
}
