//! A certificate authority for one control plane, and kubeconfig files of the identities that it signs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The authority, with its files in one folder.
#[derive(Debug)]
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate file and its key's file.
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    /// Makes the authority (`ca.crt`) and the key that signs service account tokens.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "spiderpool-tests");
        let key = KeyPair::generate()?;
        fs::write(folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
        let token_key = KeyPair::generate()?;
        fs::write(folder.join("sa.key"), token_key.serialize_pem())?;
        fs::write(folder.join("sa.pub"), token_key.public_key_pem())?;
        Ok(Self { issuer: Issuer::new(params, key), folder: folder.to_owned() })
    }

    /// The authority's certificate file.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The key of service account tokens: its private and its public half.
    pub(super) fn token_keys(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("sa.key"), self.folder.join("sa.pub"))
    }

    /// Signs a certificate for `user` in `group`, valid for `addresses` as a server.
    pub(super) fn sign(&self, user: &str, group: Option<&str>, addresses: &[String]) -> Result<Identity> {
        let mut params = CertificateParams::new(addresses.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let key = KeyPair::generate()?;
        let file = user.replace([':', '/'], "-");
        let identity = Identity {
            certificate: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        fs::write(&identity.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }

    /// Writes a kubeconfig file for `user` in `group`.
    pub(super) fn kubeconfig(&self, server: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let identity = self.sign(user, group, &[])?;
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": server, "certificate-authority": self.certificate()}}],
            "users": [{"name": user, "user": {"client-certificate": identity.certificate, "client-key": identity.key}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
            "current-context": "tests",
        });
        let path = identity.certificate.with_extension("kubeconfig");
        fs::write(&path, serde_json::to_string_pretty(&config)?)?;
        Ok(path)
    }
}
