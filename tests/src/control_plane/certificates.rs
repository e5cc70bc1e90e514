//! A certificate authority for one control plane, and kubeconfig files of the identities that it signs.
//!
//! All is in one folder: `ca.crt`, `ca.key`, and for each identity USER.crt, USER.key and USER.kubeconfig.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The authority, with its files in one folder.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate file and its key's file.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Identity {
    /// The files of `user`, existing or not.
    pub(crate) fn of(folder: &Path, user: &str) -> Self {
        let file = user.replace([':', '/'], "-");
        Self { certificate: folder.join(format!("{file}.crt")), key: folder.join(format!("{file}.key")) }
    }

    /// The kubeconfig file of the same user.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.certificate.with_extension("kubeconfig")
    }
}

impl Authority {
    /// Makes the authority and the key that signs service account tokens.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let key = KeyPair::generate()?;
        fs::write(folder.join("ca.crt"), parameters().self_signed(&key)?.pem())?;
        fs::write(folder.join("ca.key"), key.serialize_pem())?;
        let token_key = KeyPair::generate()?;
        fs::write(folder.join("sa.key"), token_key.serialize_pem())?;
        fs::write(folder.join("sa.pub"), token_key.public_key_pem())?;
        Ok(Self { issuer: Issuer::new(parameters(), key), folder: folder.to_owned() })
    }

    /// An authority that was made before.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let key = KeyPair::from_pem(&fs::read_to_string(folder.join("ca.key"))?)?;
        Ok(Self { issuer: Issuer::new(parameters(), key), folder: folder.to_owned() })
    }

    /// The authority's own key.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// The authority's certificate file.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The key of service account tokens: its private and its public half.
    pub(crate) fn token_keys(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("sa.key"), self.folder.join("sa.pub"))
    }

    /// Signs a certificate for `user` in `group`, valid for `addresses` as a server.
    pub(crate) fn sign(&self, user: &str, group: Option<&str>, addresses: &[String]) -> Result<Identity> {
        let mut params = CertificateParams::new(addresses.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let key = KeyPair::generate()?;
        let identity = Identity::of(&self.folder, user);
        fs::write(&identity.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }

    /// Writes a kubeconfig file for `user` in `group`.
    pub(crate) fn kubeconfig(&self, server: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let identity = self.sign(user, group, &[])?;
        self.kubeconfig_of(server, user, &identity)
    }

    /// Writes a kubeconfig file for an identity that is signed already.
    pub(crate) fn kubeconfig_of(&self, server: &str, user: &str, identity: &Identity) -> Result<PathBuf> {
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": server, "certificate-authority": self.certificate()}}],
            "users": [{"name": user, "user": {"client-certificate": identity.certificate, "client-key": identity.key}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
            "current-context": "tests",
        });
        let path = identity.kubeconfig();
        fs::write(&path, serde_json::to_string_pretty(&config)?)?;
        Ok(path)
    }
}

/// The same each time: together with its key they are the authority.
fn parameters() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "spiderpool-tests");
    params
}
