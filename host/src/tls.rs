//! Whom a server's certificate has to be from, and what this device shows of itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Result};
use crate::setters::setters;

/// Which variables replace the authorities that the system trusts, as for OpenSSL and curl.
const TRUST_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// How a server is known, and how this device makes itself known, over `https`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsSettings {
    /// PEM file with the authorities to trust, in place of the system's and of `SSL_CERT_FILE`.
    pub ca_file: Option<PathBuf>,
    /// What is shown to servers that ask for a certificate.
    pub client: Option<ClientCertificate>,
}

/// A certificate of this device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// PEM file with the certificate, and those between it and the authority's.
    pub certificate_file: PathBuf,
    /// PEM file with its private key; may be the same file.
    pub key_file: PathBuf,
}

setters!(TlsSettings {
    ca_file: Option<PathBuf>,
    client: Option<ClientCertificate>,
});

impl ClientCertificate {
    /// The certificate in one PEM file and its private key in another, or the same.
    pub fn new(
        certificate_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
    ) -> ClientCertificate {
        ClientCertificate {
            certificate_file: certificate_file.into(),
            key_file: key_file.into(),
        }
    }
}

/// What connections are secured with. Offers HTTP/2.
///
/// Errors: [`Error::Setting`] that names the file and what is wrong with it.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Internal(format!("TLS: {error}")))?
        .with_root_certificates(roots(settings.ca_file.as_deref())?);
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = certificates("client_certificate_file", &client.certificate_file)?;
            let key = private_key(&client.key_file)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Error::Setting {
                    name: "client_key_file",
                    message: format!(
                        "{} and {} do not make a certificate with its key: {error}",
                        client.certificate_file.display(),
                        client.key_file.display()
                    ),
                })?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The authorities of the file; else those that `SSL_CERT_FILE` or `SSL_CERT_DIR` name; else the
/// system's; else Mozilla's.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore> {
    if let Some(file) = ca_file {
        let mut roots = RootCertStore::empty();
        for (number, certificate) in certificates("ca_file", file)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| {
                let nth = number + 1;
                let message = format!("certificate {nth} in {}: {error}", file.display());
                Error::Setting {
                    name: "ca_file",
                    message,
                }
            })?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that cannot be read is no reason to do without the others.
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 {
        tracing::debug!(
            ignored,
            "certificates of the system that are not understood"
        );
    }
    if !roots.is_empty() {
        return Ok(roots);
    }
    let variable = TRUST_VARIABLES
        .into_iter()
        .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if let Some(name) = variable {
        let why = found
            .errors
            .first()
            .map_or_else(|| "there is no certificate".to_owned(), ToString::to_string);
        return Err(Error::Setting {
            name,
            message: format!("no authority to trust could be read: {why}"),
        });
    }
    tracing::debug!("the system trusts nobody; Mozilla's list is used");
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(roots)
}

/// All certificates of a PEM file, at least one.
fn certificates(name: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let refuse = |message: String| Error::Setting {
        name,
        message: format!("{}: {message}", file.display()),
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| refuse(pem_words(&error)))?;
    if certificates.is_empty() {
        return Err(refuse(
            "there is no certificate in it; PEM is expected (-----BEGIN CERTIFICATE-----)"
                .to_owned(),
        ));
    }
    Ok(certificates)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| Error::Setting {
        name: "client_key_file",
        message: format!(
            "{}: {}",
            file.display(),
            match error {
                pem::Error::NoItemsFound =>
                    "there is no private key in it; PEM without a password is expected".to_owned(),
                error => pem_words(&error),
            }
        ),
    })
}

/// Never what is in the file: it may be a key.
fn pem_words(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is nothing in it that is PEM".to_owned(),
        _ => "it is damaged PEM".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: &TlsSettings) -> String {
        client_config(settings).unwrap_err().to_string()
    }

    #[test]
    fn files_that_are_no_certificates_are_refused_with_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let junk = folder.path().join("junk.pem");
        std::fs::write(&junk, "secret: hunter2\n").unwrap();
        let damaged = folder.path().join("damaged.pem");
        let text = "-----BEGIN CERTIFICATE-----\nhunter2!!\n-----END CERTIFICATE-----\n";
        std::fs::write(&damaged, text).unwrap();
        let not_one = folder.path().join("not-one.pem");
        let text = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
        std::fs::write(&not_one, text).unwrap();
        for (file, why) in [
            (folder.path().join("nowhere.pem"), "No such file"),
            (junk, "no certificate in it"),
            (damaged, "damaged PEM"),
            (not_one, "certificate 1"),
        ] {
            let message = refused(&TlsSettings {
                ca_file: Some(file.clone()),
                client: None,
            });
            assert!(message.contains("ca_file"), "{message}");
            assert!(message.contains(&file.display().to_string()), "{message}");
            assert!(message.contains(why), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
