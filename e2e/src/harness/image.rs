//! Container images without an engine and without a registry: an OCI archive, the same bytes for the same input.
//!
//! Rendering ([`Image::archive`]) is pure; [`libs`] finds what a dynamically linked program needs.

pub mod libs;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::process::Cmd;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const PASSWD: &str = "root:x:0:0::/:/none\nnonroot:x:65532:65532::/:/none\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";
/// Names are looked up in files first, then by DNS; without this file glibc asks nobody.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    pub mode: u32,
    pub content: Vec<u8>,
}

/// Files by path, without the leading slash.
pub type Files = BTreeMap<String, ImageFile>;

/// Everything an image says and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Full name with tag.
    pub name: String,
    pub entrypoint: Vec<String>,
    pub env: Vec<String>,
    /// `UID:GID`.
    pub user: String,
    /// Libraries and the like, which change seldom and which nodes keep once for all images.
    pub base: Files,
    pub files: Files,
}

/// `NAME` alone means one of ours.
pub fn full_name(name: &str) -> String {
    let name = if name.contains('/') {
        name.to_owned()
    } else {
        format!("gonka.local/{name}")
    };
    if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        name
    } else {
        format!("{name}:dev")
    }
}

/// Adds a file of this machine.
pub fn add(files: &mut Files, source: &Path, path: &str, mode: u32) -> Result<()> {
    ensure!(
        path.starts_with('/') && !path.ends_with('/'),
        "{path:?} is not a path in an image, which begins with /"
    );
    let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    files.insert(path.trim_start_matches('/').into(), ImageFile { mode, content });
    Ok(())
}

/// Replaces a program that was added by what strip(1) leaves of it.
pub async fn strip(files: &mut Files, source: &Path, path: &str) -> Result<()> {
    let folder = tempdir()?;
    let copy = folder.join("stripped");
    Cmd::new("strip")
        .args(["-o".as_ref(), copy.as_os_str(), source.as_os_str()])
        .text()
        .await?;
    let added = add(files, &copy, path, 0o755);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    added
}

fn tempdir() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("gonka-fleet-image-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// What every image has, so that it works as the user it runs as.
pub fn base_files() -> Files {
    let text = |content: &str| ImageFile {
        mode: 0o644,
        content: content.into(),
    };
    [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/nsswitch.conf", NSSWITCH),
    ]
    .into_iter()
    .map(|(path, content)| (path.to_owned(), text(content)))
    .collect()
}

impl Image {
    /// The archive's bytes and the digest of its manifest.
    pub fn archive(&self) -> Result<(Vec<u8>, String)> {
        let mut blobs = BTreeMap::new();
        let layers = [layer(&self.base, true)?, layer(&self.files, false)?].map(|bytes| blob(&mut blobs, bytes, LAYER));
        let digests: Vec<_> = layers.iter().map(|l| l["digest"].clone()).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": self.env, "User": self.user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = blob(&mut blobs, config.to_string().into_bytes(), CONFIG);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut manifest = blob(&mut blobs, manifest.to_string().into_bytes(), MANIFEST);
        let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        // Without this an import has no name.
        manifest["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});

        let mut tar = Builder::new(Vec::new());
        append(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", 0o644, index.to_string().as_bytes())?;
        for (hash, bytes) in &blobs {
            append(&mut tar, &format!("blobs/sha256/{hash}"), 0o644, bytes)?;
        }
        Ok((tar.into_inner().context("cannot finish the archive")?, digest))
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn blob(blobs: &mut BTreeMap<String, Vec<u8>>, bytes: Vec<u8>, media_type: &str) -> serde_json::Value {
    let hash = hex::encode(Sha256::digest(&bytes));
    let descriptor = json!({"mediaType": media_type, "digest": format!("sha256:{hash}"), "size": bytes.len()});
    blobs.insert(hash, bytes);
    descriptor
}

/// Folders come before what is in them; owner, time and order never vary.
fn layer(files: &Files, with_tmp: bool) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut folders: BTreeMap<&str, u32> = BTreeMap::new();
    if with_tmp {
        folders.insert("tmp", 0o1777);
    }
    for path in files.keys() {
        for (slash, _) in path.match_indices('/') {
            folders.entry(&path[..slash]).or_insert(0o755);
        }
    }
    for (folder, mode) in folders {
        let mut header = header(mode, 0);
        header.set_entry_type(EntryType::Directory);
        tar.append_data(&mut header, format!("{folder}/"), &[][..])
            .with_context(|| format!("cannot add {folder}"))?;
    }
    for (path, file) in files {
        append(&mut tar, path, file.mode, &file.content)?;
    }
    tar.into_inner().context("cannot finish a layer")
}

fn append(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    tar.append_data(&mut header(mode, bytes.len() as u64), path, bytes)
        .with_context(|| format!("cannot add {path}"))
}

fn header(mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn image() -> Image {
        let content = b"\x7fELF".to_vec();
        Image {
            name: full_name("probe"),
            entrypoint: vec!["/bin/probe".into()],
            env: vec!["A=b".into()],
            user: "65532:65532".into(),
            base: base_files(),
            files: [("bin/probe".to_owned(), ImageFile { mode: 0o755, content })].into(),
        }
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let read = |mut entry: tar::Entry<'_, &[u8]>| {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        };
        tar.entries().unwrap().map(|e| read(e.unwrap())).collect()
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(image().archive().unwrap(), image().archive().unwrap());
        let other = Image { env: vec![], ..image() };
        assert_ne!(image().archive().unwrap().1, other.archive().unwrap().1);
    }

    #[test]
    fn the_index_leads_to_a_manifest_whose_parts_are_all_there_under_their_digests() {
        let (bytes, digest) = image().archive().unwrap();
        let entries = entries(&bytes);
        let json = |path: &str| serde_json::from_slice::<serde_json::Value>(&entries[path]).unwrap();
        let of = |descriptor: &serde_json::Value| {
            format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"))
        };
        let index = json("index.json");
        let reference = &index["manifests"][0];
        assert_eq!(
            reference["annotations"]["io.containerd.image.name"],
            "gonka.local/probe:dev"
        );
        assert_eq!(reference["digest"], digest);
        let manifest = json(&of(reference));
        let config = json(&of(&manifest["config"]));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][1], layers[1]["digest"]);
        for (path, content) in entries.iter().filter(|(path, _)| path.starts_with("blobs/")) {
            assert!(path.ends_with(&hex::encode(Sha256::digest(content))));
        }
        let base = super::tests::entries(&entries[&of(&layers[0])]);
        assert!(base.contains_key("tmp/") && base.contains_key("etc/passwd"));
        let top = super::tests::entries(&entries[&of(&layers[1])]);
        assert_eq!(top.keys().collect::<Vec<_>>(), ["bin/", "bin/probe"]);
    }

    #[test]
    fn short_names_become_ours_and_full_names_stay() {
        assert_eq!(full_name("operator"), "gonka.local/operator:dev");
        assert_eq!(full_name("operator:1"), "gonka.local/operator:1");
        assert_eq!(full_name("a.b:5000/x"), "a.b:5000/x:dev");
        assert_eq!(full_name("a.b/x:2"), "a.b/x:2");
    }

    #[test]
    fn paths_outside_the_image_root_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(add(&mut Files::new(), file.path(), "bin/x", 0o755).is_err());
        assert!(add(&mut Files::new(), file.path(), "/bin/", 0o755).is_err());
    }
}
