//! A certificate authority for one test and the server identities that it issues, as rustls and as PEM files want
//! them. No expiry, revocation or broken chains.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A root of trust that only the test's own clients know.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.distinguished_name.push(DnType::CommonName, "egret test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, new_key()).expect("a root can be signed");
        Self { issuer }
    }

    /// A server certificate for these DNS names or literal addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names fit for a certificate");
        params.distinguished_name.push(DnType::CommonName, "egret test server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("the root can sign");
        Identity {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_der: key.serialize_der(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Writes the root as `ca.pem` into `dir`, for `curl --cacert` and its like.
    pub(crate) fn write_pem(&self, dir: &Path) -> PathBuf {
        let file = dir.join("ca.pem");
        fs::write(&file, self.issuer.pem()).expect("the test's directory is writable");
        file
    }

    /// A TLS client that trusts this root and nothing else.
    pub(crate) fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("the root is a certificate");
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// A server's certificate and key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_der: Vec<u8>,
    key_pem: String,
}

impl Identity {
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("the key belongs to the certificate");
        Arc::new(config)
    }

    /// Writes `server.pem` and `server.key` into `dir` and returns their paths in that order.
    pub(crate) fn write_pem(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let files = (dir.join("server.pem"), dir.join("server.key"));
        fs::write(&files.0, &self.certificate_pem).expect("the test's directory is writable");
        fs::write(&files.1, &self.key_pem).expect("the test's directory is writable");
        files
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("ring makes keys")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
