//! The listener's certificate and key: whatever is wrong with them is told at the key that names them, before clients find out.

use std::fs;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rolegate::config::{Config, Flags};
use rolegate::proxy::{Server, StartError};

use super::{Folder, PLAIN};

const PAIR: &str = "[listen]\ntls = { certificate = \"cert.pem\", key = \"key.pem\" }";
const CERTIFICATE: &str = "rolegate.toml:2:23: `listen.tls.certificate`: cert.pem: ";
const KEY: &str = "rolegate.toml:2:41: `listen.tls.key`: key.pem: ";

/// A certificate that is valid between these years, and its key.
fn pair(from: i32, to: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn folder(certificate: &str, key: &str) -> Folder {
    let folder = Folder::new(PLAIN);
    folder.change("rolegate.toml", "[listen]", PAIR);
    fs::write(folder.path("cert.pem"), certificate).unwrap();
    fs::write(folder.path("key.pem"), key).unwrap();
    folder
}

#[test]
fn what_is_wrong_with_a_certificate_or_its_key_is_told_with_the_way_out_and_run_does_not_start() {
    let (certificate, key) = pair(2000, 2100);
    let (other, _) = pair(2000, 2100);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
    for (certificate, key, told, hint) in [
        (
            key.as_str(),
            certificate.as_str(),
            format!("{CERTIFICATE}holds no certificate"),
            "are `certificate` and `key` swapped?",
        ),
        (&certificate, &certificate, format!("{KEY}holds no private key"), "are `certificate` and `key` swapped?"),
        (&other, &key, format!("{KEY}is not the key of cert.pem"), "in the file of the certificate the gate's own stands first"),
        (&certificate, encrypted, format!("{KEY}the key is encrypted"), "openssl pkey -in KEY -out PLAIN"),
        (&certificate, old, format!("{KEY}the key is encrypted"), "openssl pkey -in KEY -out PLAIN"),
        ("nothing", &key, format!("{CERTIFICATE}holds no certificate"), ""),
        (&certificate, "nothing", format!("{KEY}holds no private key"), "begins with `-----BEGIN PRIVATE KEY-----`"),
    ] {
        let folder = folder(certificate, key);
        let check = folder.check(&[], 3).err;
        assert!(
            check.starts_with(&told) && check.contains(hint) && check.ends_with("\n1 fault\n"),
            "not `{told}` ({hint}):\n{check}"
        );
        let run = crate::support::Program::new(&["run", "--config", "rolegate.toml"]).within(folder.0.path()).run();
        assert_eq!((run.code, run.err.as_str()), (3, check.as_str()), "`run` says the same");
    }
    let good = folder(&certificate, &key);
    good.check(&[], 0);
    for name in ["cert.pem", "key.pem"] {
        let folder = folder(&certificate, &key);
        fs::remove_file(folder.path(name)).unwrap();
        let check = folder.check(&[], 3).err;
        let at = if name == "cert.pem" { CERTIFICATE } else { KEY };
        assert!(check.starts_with(&format!("{at}No such file")), "{check}");
        std::os::unix::fs::symlink("/dev/zero", folder.path(name)).unwrap();
        let check = folder.check(&[], 3).err;
        assert!(check.starts_with(&format!("{at}is not a regular file but a device")), "{check}");
    }
}

#[test]
fn a_certificate_out_of_its_time_is_a_fault_of_check_and_one_that_soon_is_a_note() {
    let (ended, key) = pair(2001, 2002);
    let ended = folder(&ended, &key);
    let told = ended.check(&[], 3).err;
    assert!(told.starts_with(&format!("{CERTIFICATE}the certificate ended ")) && told.contains("hint: renew it"), "{told}");
    // Clients may be told not to mind; to refuse the start would take the choice from them.
    let config = Config::load(Some(&ended.path("rolegate.toml")), &Flags::default()).unwrap();
    assert!(!matches!(Server::bind(config), Err(StartError::Tls(_))));
    let (early, key) = pair(2090, 2100);
    let told = folder(&early, &key).check(&[], 3).err;
    assert!(told.contains("the certificate is not valid for another "), "{told}");

    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(10 * 24 * 60 * 60 + 60);
    params.not_after = soon.into();
    let key = KeyPair::generate().unwrap();
    let told = folder(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem()).check(&[], 0).out;
    assert!(told.contains(&format!("note: {CERTIFICATE}the certificate ends in 10 days")), "{told}");
}

#[test]
fn an_authority_that_cannot_be_used_is_told_at_its_key() {
    let folder = Folder::new(PLAIN);
    folder.change("rolegate.toml", "http://127.0.0.1:9", "https://127.0.0.1:9");
    folder.change("rolegate.toml", "[policies]", "tls = { ca = \"ca.pem\" }\n[policies]");
    let check = folder.check(&[], 3).err;
    assert!(check.starts_with("rolegate.toml:8:14: `upstream.tls.ca`: ca.pem: No such file"), "{check}");
    let run = crate::support::Program::new(&["run", "--config", "rolegate.toml"]).within(folder.0.path()).run();
    assert_eq!((run.code, run.err.as_str()), (3, check.as_str()));
}
