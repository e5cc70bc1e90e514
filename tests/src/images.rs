//! What is in our own images.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use crate::oci::{Image, Layer};
use crate::tools;

/// Where the images live; a name and a tag follow.
pub const REPOSITORY: &str = "ghcr.io/spidernet-io/spiderpool";
/// The tag that the chart asks for.
pub const TAG: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// An image file.
#[derive(Debug, Clone)]
pub struct Written {
    /// The image's full name.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// The file.
    pub path: PathBuf,
}

/// Agent, plugins and eBPF object, from what `cargo xtask build` has made.
pub fn agent(tag: &str) -> Result<Image> {
    let layer = base()
        .program("/usr/bin/spiderpool-agent", &tools::spiderpool("spiderpool-agent")?)?
        .program("/usr/lib/spiderpool/cni/spiderpool", &tools::spiderpool("spiderpool")?)?
        .program("/usr/lib/spiderpool/cni/coordinator", &tools::spiderpool("coordinator")?)?
        .copy("/usr/lib/spiderpool/spiderpool.o", &tools::bpf_object()?)?;
    // The eBPF object has licences of its own.
    Ok(named("spiderpool-agent", tag, layer, "Apache-2.0 AND (MIT OR GPL-2.0-only)"))
}

/// Controller and init.
pub fn controller(tag: &str) -> Result<Image> {
    let layer = base()
        .program("/usr/bin/spiderpool-controller", &tools::spiderpool("spiderpool-controller")?)?
        .program("/usr/bin/spiderpool-init", &tools::spiderpool("spiderpool-init")?)?;
    Ok(named("spiderpool-controller", tag, layer, "Apache-2.0"))
}

/// Writes `spiderpool-agent.tar` and `spiderpool-controller.tar` into `folder`.
pub fn write(folder: &Path, tag: &str) -> Result<Vec<Written>> {
    let images = [("spiderpool-agent", agent(tag)?), ("spiderpool-controller", controller(tag)?)];
    let write = |(file, image): (&str, Image)| {
        let path = folder.join(file).with_extension("tar");
        Ok(Written { name: image.name().to_owned(), digest: image.write(&path)?, path })
    };
    images.into_iter().map(write).collect()
}

/// The file of one of our images (`spiderpool-agent`, `spiderpool-controller`), packed from what is built now.
pub fn packed(name: &str) -> Result<PathBuf> {
    static PACKED: OnceLock<Result<(), String>> = OnceLock::new();
    let pack = || write(&tools::images(), TAG).map(drop);
    PACKED
        .get_or_init(|| pack().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!("images cannot be packed: {error}"))?;
    Ok(tools::images().join(name).with_extension("tar").canonicalize()?)
}

fn named(program: &str, tag: &str, layer: Layer, licenses: &str) -> Image {
    Image::new(&format!("{REPOSITORY}/{program}:{tag}"), layer)
        .entrypoint(&[&format!("/usr/bin/{program}")])
        .label("org.opencontainers.image.title", program)
        .label("org.opencontainers.image.version", tag)
        .label("org.opencontainers.image.licenses", licenses)
}

/// What a static program may ask for: names of users, and a place for temporary files where the root is writable.
fn base() -> Layer {
    Layer::default()
        .file(
            "/etc/passwd",
            "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
        )
        .file("/etc/group", "root:x:0:\nnonroot:x:65532:\n")
        .folder("/tmp", 0o1777)
}
