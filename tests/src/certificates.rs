//! Certificates for one test, made by openssl(1) in its scratch directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// A certificate and its key, in PEM files.
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pair {
    /// A new authority.
    pub fn authority(directory: &Path, name: &str) -> Self {
        Self::make(directory, name, &["-addext", "keyUsage=critical,keyCertSign"])
    }

    /// A certificate for 127.0.0.1, or for a client, that this authority has signed.
    pub fn sign(&self, directory: &Path, name: &str) -> Self {
        let (authority, key) = (self.certificate.to_string_lossy(), self.key.to_string_lossy());
        Self::make(
            directory,
            name,
            &[
                ["-CA", &authority, "-CAkey", &key],
                ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"],
            ]
            .concat(),
        )
    }

    fn make(directory: &Path, name: &str, more: &[&str]) -> Self {
        let file = |suffix: &str| directory.join(format!("{name}.{suffix}"));
        let pair = Self { certificate: file("pem"), key: file("key") };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        command.args(["-nodes", "-days", "1", "-subj", &format!("/CN={name}")]).args(more);
        command.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.certificate);
        let status = command.stderr(Stdio::null()).status().expect("openssl is installed");
        assert!(status.success(), "openssl makes {name}");
        pair
    }

    /// Serves with it; only clients that `clients` has signed, if given.
    pub(crate) fn acceptor(&self, clients: Option<&Self>) -> TlsAcceptor {
        let builder = ServerConfig::builder();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.read()).expect("an authority");
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                builder.with_client_cert_verifier(verifier.expect("it has a root"))
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("a key");
        let config = builder.with_single_cert(vec![self.read()], key);
        let mut config = config.expect("they belong together");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    fn read(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).expect("a certificate")
    }
}
