//! What is in our own images.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use crate::oci::{self, Image, Layer};
use crate::tools;

/// Where the images live; a name and a tag follow. No registry has them: who does not load them gets none of somebody else.
pub const REPOSITORY: &str = "localhost/spiderpool";
/// All of them, as their files and the last parts of their names are called.
pub const NAMES: [&str; 4] =
    ["spiderpool-agent", "spiderpool-controller", "multus-cni", "spiderpool-plugins"];
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
        .program("/usr/lib/spiderpool/cni/ifacer", &tools::spiderpool("ifacer")?)?
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

/// Multus with its installer, where its own image has them.
pub fn multus(tag: &str) -> Result<Image> {
    let layer = base()
        .program("/install_multus", &tools::kubernetes("install_multus")?)?
        .program("/usr/src/multus-cni/bin/multus", &tools::kubernetes("multus")?)?
        .program("/usr/src/multus-cni/bin/passthru", &tools::kubernetes("passthru-cni")?)?;
    let image = Image::new(&format!("{REPOSITORY}/multus-cni:{tag}"), layer).entrypoint(&["/install_multus"]);
    Ok(labelled(image, "multus-cni", tag, "Apache-2.0"))
}

/// The plugins of the CNI project, and what copies them.
pub fn plugins(tag: &str) -> Result<Image> {
    let agent = "/usr/bin/spiderpool-agent";
    let mut layer = base().program(agent, &tools::spiderpool("spiderpool-agent")?)?;
    for name in REFERENCE_PLUGINS {
        let plugin = tools::cni_plugins()?.join(name);
        layer = layer.program(&format!("/usr/lib/spiderpool/reference-plugins/{name}"), &plugin)?;
    }
    let image = Image::new(&format!("{REPOSITORY}/spiderpool-plugins:{tag}"), layer).entrypoint(&[agent]);
    Ok(labelled(image, "spiderpool-plugins", tag, "Apache-2.0"))
}

/// What `plugins.installCNI` brings.
pub const REFERENCE_PLUGINS: [&str; 10] = [
    "bridge",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "tuning",
    "vlan",
];

/// Writes `NAME.tar` of each of [`NAMES`] into `folder`, for this machine.
pub fn write(folder: &Path, tag: &str) -> Result<Vec<Written>> {
    write_for(oci::HOST, folder, tag)
}

/// The same for the architecture that the programs were built for.
pub fn write_for(architecture: &str, folder: &Path, tag: &str) -> Result<Vec<Written>> {
    let [agent_name, controller_name, multus_name, plugins_name] = NAMES;
    let images = [
        (agent_name, agent(tag)?),
        (controller_name, controller(tag)?),
        (multus_name, multus(tag)?),
        (plugins_name, plugins(tag)?),
    ];
    let write = |(file, image): (&str, Image)| {
        let path = folder.join(file).with_extension("tar");
        let image = image.architecture(architecture);
        Ok(Written { name: image.name().to_owned(), digest: image.write(&path)?, path })
    };
    images.into_iter().map(write).collect()
}

/// The file of one of our images ([`NAMES`]), packed from what is built now.
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
    let image = Image::new(&format!("{REPOSITORY}/{program}:{tag}"), layer)
        .entrypoint(&[&format!("/usr/bin/{program}")]);
    labelled(image, program, tag, licenses)
}

fn labelled(image: Image, title: &str, tag: &str, licenses: &str) -> Image {
    image
        .label("org.opencontainers.image.title", title)
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
