//! The listener's certificate, looked at before the start and read again when its files change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use pingora::listeners::tls::Acceptor;
use pingora::tls::{PrivateKeyDer, ServerConfig, install_default_crypto_provider, version};

use super::peer::{LARGEST_PEM, blocks, certificates};
use crate::config::Config;
use crate::files;
use crate::metrics::Metrics;
use crate::model::{Fault, Faults};

/// How long before its end a certificate is worth a word: those that are renewed by themselves are renewed a month before.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub(super) struct Unusable {
    file: PathBuf,
    /// The key of the configuration that names the file.
    key: &'static str,
    why: String,
    hint: Option<String>,
}

impl Unusable {
    /// As a fault of `config`.
    pub(super) fn fault(&self, config: &Config) -> Fault {
        let fault = Fault::new(config.places.of_key(self.key), format!("`{}`: {self}", self.key));
        Fault { hint: self.hint.clone(), ..fault }
    }
}

/// What is wrong with the listener's certificate at `now`, and what soon will be.
pub(super) fn look(config: &Config, now: SystemTime) -> (Faults, Vec<Fault>) {
    let (mut faults, mut notes) = (Faults::default(), Vec::new());
    let Some((certificate, key)) = &config.listen.tls else { return (faults, notes) };
    let pair = match pair(certificate, key) {
        Ok(pair) => pair,
        Err(unusable) => {
            faults.push(unusable.fault(config));
            return (faults, notes);
        }
    };
    let told = |message: String| {
        let fault =
            Fault::new(config.places.of_key(CERTIFICATE), format!("`{CERTIFICATE}`: {}: {message}", certificate.display()));
        fault.hint("renew it; the files are read again when they change")
    };
    let days = |from: SystemTime, to: SystemTime| to.duration_since(from).map_or(0, |time| time.as_secs() / (24 * 60 * 60));
    if now > pair.ends {
        faults.push(told(format!("the certificate ended {} days ago", days(pair.ends, now))));
    } else if now < pair.begins {
        faults.push(told(format!("the certificate is not valid for another {} days", days(now, pair.begins))));
    } else if pair.ends < now + SOON {
        notes.push(told(format!("the certificate ends in {} days", days(now, pair.ends))));
    }
    (faults, notes)
}

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
    pub(super) fn load(files: (PathBuf, PathBuf), metrics: Metrics) -> Result<Self, Unusable> {
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
            Err(error) => tracing::error!(%error, "new certificate refused; the old one stays"),
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

const CERTIFICATE: &str = "listen.tls.certificate";
const KEY: &str = "listen.tls.key";

/// A chain with its key, and the time in which its first certificate is valid.
struct Pair {
    config: ServerConfig,
    begins: SystemTime,
    ends: SystemTime,
}

#[expect(clippy::cast_precision_loss, reason = "a float holds every second of the next millions of years")]
fn acceptor(certificate: &Path, key: &Path) -> Result<(Acceptor, f64), Unusable> {
    let Pair { mut config, ends, .. } = pair(certificate, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let ends = ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as f64;
    Ok((Acceptor::from_server_config(Arc::new(config)), ends))
}

fn pair(certificate: &Path, key: &Path) -> Result<Pair, Unusable> {
    install_default_crypto_provider();
    let unusable = |why: String| Unusable { file: certificate.to_owned(), key: CERTIFICATE, why, hint: None };
    let chain = certificates(certificate).map_err(unusable)?;
    let Some(leaf) = chain.first() else {
        let swapped = blocks(certificate).is_ok_and(|labels| labels.iter().any(|(label, _)| label.ends_with("PRIVATE KEY")));
        let hint = swapped.then(|| "it holds a key: are `certificate` and `key` swapped?".to_owned());
        return Err(Unusable { hint, ..unusable("holds no certificate".to_owned()) });
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| unusable(error.to_string()))?;
    let time =
        |time: x509_parser::time::ASN1Time| UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default());
    let (begins, ends) = (time(parsed.validity().not_before), time(parsed.validity().not_after));
    let key_der = private_key(key)?;
    let config = ServerConfig::builder_with_protocol_versions(&[&version::TLS12, &version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| match error.to_string() {
            why if why.contains("KeyMismatch") => Unusable {
                file: key.to_owned(),
                key: KEY,
                why: format!("is not the key of {}", certificate.display()),
                hint: Some(
                    "in the file of the certificate the gate's own stands first, the authorities' behind it; `openssl pkey -in KEY \
                     -pubout` and `openssl x509 -in CERTIFICATE -noout -pubkey` print the same of a pair"
                        .to_owned(),
                ),
            },
            why => Unusable { file: key.to_owned(), key: KEY, why: format!("with {}: {why}", certificate.display()), hint: None },
        })?;
    Ok(Pair { config, begins, ends })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    let unusable = |why: &str, hint: Option<&str>| Unusable {
        file: path.to_owned(),
        key: KEY,
        why: why.to_owned(),
        hint: hint.map(str::to_owned),
    };
    let encrypted = "write it without: `openssl pkey -in KEY -out PLAIN`, and let only the gate's user read it";
    let text = files::bytes(path, LARGEST_PEM).map_err(|error| unusable(&error.to_string(), None))?;
    let is_encrypted = |line: &[u8]| line.starts_with(b"Proc-Type:") || line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY");
    if text.split(|byte| *byte == b'\n').any(is_encrypted) {
        return Err(unusable("the key is encrypted; rolegate takes it without a passphrase", Some(encrypted)));
    }
    let blocks = blocks(path).map_err(|why| unusable(&why, None))?;
    let is_certificate = blocks.iter().any(|(label, _)| label == "CERTIFICATE");
    for (label, contents) in blocks {
        match label.as_str() {
            "PRIVATE KEY" => return Ok(PrivateKeyDer::Pkcs8(contents.into())),
            "RSA PRIVATE KEY" => return Ok(PrivateKeyDer::Pkcs1(contents.into())),
            "EC PRIVATE KEY" => return Ok(PrivateKeyDer::Sec1(contents.into())),
            _ => {}
        }
    }
    let hint = if is_certificate {
        "it holds a certificate: are `certificate` and `key` swapped?"
    } else {
        "a key in PEM begins with `-----BEGIN PRIVATE KEY-----`; for one in DER: `openssl pkey -inform DER -in KEY -out KEY.pem`"
    };
    Err(unusable("holds no private key", Some(hint)))
}
