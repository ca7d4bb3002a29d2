//! Certificates: whom to trust and whom to be.
//!
//! Invariant: files are read when the first https connection is made, never before, and the platform's roots are
//! loaded only when no CA file is given.

use std::path::{Path, PathBuf};

use hyper_rustls::ConfigBuilderExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Error;
use super::auth::FileStamp;
use crate::tls;

/// Certificates of one endpoint. Files are read again when they change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificates of the authorities to trust, instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate and its chain; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the client certificate's private key.
    pub key_file: Option<PathBuf>,
    /// Accept any certificate. For a laptop only; refused together with credentials.
    pub insecure_skip_verify: bool,
}

/// One state of the three files.
pub(in crate::sink) type Stamp = [Option<FileStamp>; 3];

impl Tls {
    /// Checks what can be checked without reading a file.
    pub fn check(&self) -> Result<(), Error> {
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Err(Error::Tls("tls.cert_file and tls.key_file need each other".to_owned()));
        }
        Ok(())
    }

    /// The state of the files now.
    pub(super) fn stamp(&self) -> Stamp {
        [&self.ca_file, &self.cert_file, &self.key_file].map(|path| path.as_deref().map(FileStamp::of))
    }

    /// Reads the files into a TLS client configuration without ALPN. Loads the platform's roots when no CA file
    /// is given, which takes some milliseconds and about a megabyte.
    pub fn client_config(&self) -> Result<ClientConfig, Error> {
        self.check()?;
        let builder = tls::builder();
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(tls::accept_any())
        } else if let Some(path) = &self.ca_file {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.ca_file", path)? {
                roots.add(certificate).map_err(|error| unusable("tls.ca_file", path, error))?;
            }
            builder.with_root_certificates(roots)
        } else {
            builder.try_with_platform_verifier().map_err(|error| Error::Tls(error.to_string()))?
        };
        match (&self.cert_file, &self.key_file) {
            (Some(cert_file), Some(key_file)) => {
                let chain = certificates("tls.cert_file", cert_file)?;
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| unusable("tls.key_file", key_file, error))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| unusable("tls.key_file", key_file, error))
            }
            _ => Ok(builder.with_no_client_auth()),
        }
    }

    /// A configuration that trusts nobody, for connectors of plain http endpoints.
    pub(super) fn none() -> ClientConfig {
        tls::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    }
}

fn unusable(what: &'static str, path: &Path, error: impl std::fmt::Display) -> Error {
    Error::File { what, path: path.display().to_string(), why: error.to_string() }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(what, path, error))?.collect();
    let found = found.map_err(|error| unusable(what, path, error))?;
    if found.is_empty() {
        return Err(unusable(what, path, "it holds no certificate"));
    }
    Ok(found)
}
