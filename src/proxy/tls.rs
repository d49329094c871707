//! The listener's certificate, read again when its files change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::listeners::tls::Acceptor;
use pingora::tls::{PrivateKeyDer, ServerConfig, install_default_crypto_provider, version};

use crate::files;
use crate::metrics::Metrics;

/// The certificate in use, and where it came from.
pub(super) struct Certificate {
    files: (PathBuf, PathBuf),
    acceptor: ArcSwap<Acceptor>,
    /// The files as they were when they were read last.
    read: parking_lot::Mutex<Option<[State; 2]>>,
    metrics: Metrics,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a chain and its key, both PEM.
    pub(super) fn load(files: (PathBuf, PathBuf), metrics: Metrics) -> Result<Self, String> {
        let (acceptor, ends) = acceptor(&files.0, &files.1)?;
        metrics.certificate_expiry(ends);
        let read = parking_lot::Mutex::new(states(&files));
        Ok(Self { files, acceptor: ArcSwap::from_pointee(acceptor), read, metrics })
    }

    /// What handshakes use from now on.
    pub(super) fn acceptor(&self) -> Arc<Acceptor> {
        self.acceptor.load_full()
    }

    /// Reads the files again if they changed; a pair that is no good leaves the old one in use.
    pub(super) fn refresh(&self) {
        let now = states(&self.files);
        let mut read = self.read.lock();
        if now.is_none() || *read == now {
            return;
        }
        *read = now;
        match acceptor(&self.files.0, &self.files.1) {
            Ok((acceptor, ends)) => {
                self.acceptor.store(Arc::new(acceptor));
                self.metrics.certificate_expiry(ends);
                tracing::info!(certificate = %self.files.0.display(), "certificate replaced");
            }
            Err(error) => tracing::error!(error, "new certificate refused; the old one stays"),
        }
    }
}

/// What changes with a file's content, by whatever way it does: who copies a file may keep its time of modification, and nobody
/// can keep the other one.
type State = (u64, u64, u64, i64, i64);

fn states(files: &(PathBuf, PathBuf)) -> Option<[State; 2]> {
    let of = |at: Metadata| (at.dev(), at.ino(), at.size(), at.ctime(), at.ctime_nsec());
    let of = |path: &Path| std::fs::metadata(path).map(of).ok();
    Some([of(&files.0)?, of(&files.1)?])
}

#[expect(clippy::cast_precision_loss, reason = "a float holds every second of the next millions of years")]
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<(Acceptor, f64), String> {
    install_default_crypto_provider();
    let chain = super::peer::certificates(certificate)?;
    let Some(leaf) = chain.first() else { return Err(format!("{}: holds no certificate", certificate.display())) };
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| format!("{}: {error}", certificate.display()))?;
    let ends = parsed.validity().not_after.timestamp() as f64;
    let key_der = private_key(key)?;
    let mut config = ServerConfig::builder_with_protocol_versions(&[&version::TLS12, &version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| format!("{} with {}: {error}", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Acceptor::from_server_config(Arc::new(config)), ends))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = files::bytes(path, super::peer::LARGEST_PEM).map_err(|error| format!("{}: {error}", path.display()))?;
    for pem in x509_parser::pem::Pem::iter_from_buffer(&bytes) {
        let pem = pem.map_err(|error| format!("{}: {error}", path.display()))?;
        match pem.label.as_str() {
            "PRIVATE KEY" => return Ok(PrivateKeyDer::Pkcs8(pem.contents.into())),
            "RSA PRIVATE KEY" => return Ok(PrivateKeyDer::Pkcs1(pem.contents.into())),
            "EC PRIVATE KEY" => return Ok(PrivateKeyDer::Sec1(pem.contents.into())),
            _ => {}
        }
    }
    Err(format!("{}: holds no private key", path.display()))
}
