use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;

fn image(content: &str) -> Image {
    let layer = Layer::default().file("/etc/b", content).file("/etc/a", "a").folder("/tmp", 0o1777);
    Image::new("example.test/thing:1", layer).entrypoint(&["/usr/bin/thing"])
}

fn entries(bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let (path, mode) = (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap());
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0), "{path}");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path, (mode, content))
    });
    entries.collect()
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn same_input_same_bytes_other_input_other_digest() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.tar"), folder.path().join("two.tar"));
    assert_eq!(image("x").write(&one).unwrap(), image("x").write(&two).unwrap());
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    assert_ne!(image("x").write(&one).unwrap(), image("y").write(&two).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing beside the images");
}

#[test]
fn every_reference_leads_to_a_blob_of_that_size_and_digest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let digest = image("x").write(&path).unwrap();
    let outer = entries(&fs::read(&path).unwrap());
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = &outer[&format!("blobs/{}", digest.replace(':', "/"))].1;
        assert_eq!(descriptor["size"], bytes.len());
        assert_eq!(Blob::new("", bytes.clone()).digest(), digest);
        bytes.clone()
    };
    let index = parse(&outer["index.json"].1);
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["digest"], digest);
    assert_eq!(descriptor["annotations"]["io.containerd.image.name"], "example.test/thing:1");
    let manifest = parse(&blob(descriptor));
    let config = parse(&blob(&manifest["config"]));
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/thing"]));
    let files = entries(&blob(&manifest["layers"][0]));
    // What Docker's older store reads.
    let docker = &parse(&outer["manifest.json"].1)[0];
    assert_eq!(docker["RepoTags"], json!(["example.test/thing:1"]));
    for (path, descriptor) in
        [(&docker["Config"], &manifest["config"]), (&docker["Layers"][0], &manifest["layers"][0])]
    {
        assert_eq!(outer[path.as_str().unwrap()].1, blob(descriptor));
    }
    assert_eq!(files.keys().collect::<Vec<_>>(), ["etc", "etc/a", "etc/b", "tmp"]);
    assert_eq!((files["tmp"].0, files["etc/b"].1.as_slice()), (0o1777, b"x".as_slice()));
}
