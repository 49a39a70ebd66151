//! The fleet's CA and its certificates. The only file that knows rcgen.
//!
//! Takes a directory and names; gives PEM files, keys readable by their owner only. Nothing that
//! exists is ever overwritten. Leaves live for [`LEAF_DAYS`] until enrolment and renewal exist.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::identity::{AGGREGATOR_NAME, NODE_SUFFIX};
use diarwatch_shared::node::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Days that the CA is valid.
pub const CA_DAYS: u64 = 3_650;
/// Days that a node's or the aggregator's certificate is valid.
pub const LEAF_DAYS: u64 = 397;
const DAY: Duration = Duration::from_secs(86_400);

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The CA is there already.
    #[error(
        "{0} exists already; a new CA would cut off every node. Add a node with `pki node`, or name another directory"
    )]
    Exists(PathBuf),
    /// A node's files are there already.
    #[error("{0} exists already; move it away if the node is to get a new certificate")]
    NodeExists(PathBuf),
    /// A node was named twice; nothing was made.
    #[error("a node is named twice; name each once")]
    Twice,
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key or certificate could not be made.
    #[error("certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Makes a CA, the aggregator's certificate and one for each node; gives the files made.
///
/// # Errors
/// When a file exists already or cannot be written.
pub fn init(directory: &Path, nodes: &[NodeId], now: UnixMicros) -> Result<Vec<PathBuf>, PkiError> {
    let distinct: std::collections::BTreeSet<&NodeId> = nodes.iter().collect();
    if distinct.len() < nodes.len() {
        return Err(PkiError::Twice);
    }
    let ca_path = directory.join("ca.pem");
    if ca_path.exists() || directory.join("ca.key").exists() {
        return Err(PkiError::Exists(ca_path));
    }
    std::fs::create_dir_all(directory)
        .map_err(|source| PkiError::Io { path: directory.to_owned(), source })?;
    let key = KeyPair::generate()?;
    let params = ca_params(now)?;
    let certificate = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let mut made = Vec::new();
    write(directory, "ca.key", &issuer.key().serialize_pem(), 0o600, &mut made)?;
    write(directory, "ca.pem", &certificate.pem(), 0o644, &mut made)?;
    leaf(
        directory,
        "aggregator",
        AGGREGATOR_NAME,
        ExtendedKeyUsagePurpose::ServerAuth,
        &issuer,
        now,
        &mut made,
    )?;
    for node in nodes {
        made.extend(issue_node(directory, node, &issuer, now)?);
    }
    Ok(made)
}

/// Makes a certificate for one more node with the CA of the directory.
///
/// # Errors
/// When there is no CA, the node has files already, or they cannot be written.
pub fn node(directory: &Path, node: &NodeId, now: UnixMicros) -> Result<Vec<PathBuf>, PkiError> {
    let path = directory.join("ca.key");
    let pem = std::fs::read_to_string(&path).map_err(|source| PkiError::Io { path, source })?;
    let issuer = Issuer::new(ca_params(now)?, KeyPair::from_pem(&pem)?);
    issue_node(directory, node, &issuer, now)
}

fn issue_node(
    directory: &Path,
    node: &NodeId,
    issuer: &Issuer<'_, KeyPair>,
    now: UnixMicros,
) -> Result<Vec<PathBuf>, PkiError> {
    let path = directory.join(format!("{node}.pem"));
    // A node may not take the names of the fleet's own files.
    if path.exists() || node.as_str() == "ca" || node.as_str() == "aggregator" {
        return Err(PkiError::NodeExists(path));
    }
    let mut made = Vec::new();
    let name = format!("{node}{NODE_SUFFIX}");
    leaf(directory, node.as_str(), &name, ExtendedKeyUsagePurpose::ClientAuth, issuer, now, &mut made)?;
    Ok(made)
}

fn ca_params(now: UnixMicros) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "diarwatch CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, now, CA_DAYS);
    Ok(params)
}

fn leaf(
    directory: &Path,
    file: &str,
    dns_name: &str,
    usage: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'_, KeyPair>,
    now: UnixMicros,
    made: &mut Vec<PathBuf>,
) -> Result<(), PkiError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![dns_name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, file);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, now, LEAF_DAYS);
    let certificate = params.signed_by(&key, issuer)?;
    write(directory, &format!("{file}.key"), &key.serialize_pem(), 0o600, made)?;
    write(directory, &format!("{file}.pem"), &certificate.pem(), 0o644, made)
}

/// From a day ago, so that a node whose clock is behind is not refused.
fn valid_for(params: &mut CertificateParams, now: UnixMicros, days: u64) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_micros(now.0);
    params.not_before = now - DAY;
    params.not_after = now + DAY * u32::try_from(days).unwrap_or(u32::MAX);
}

fn write(
    directory: &Path,
    name: &str,
    text: &str,
    mode: u32,
    made: &mut Vec<PathBuf>,
) -> Result<(), PkiError> {
    let path = directory.join(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| PkiError::Io { path: path.clone(), source })?;
    made.push(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::clock;
    use diarwatch_shared::identity::Identity;
    use std::os::unix::fs::PermissionsExt;

    fn identity(directory: &Path, name: &str) -> Identity {
        let read = |file: &str| std::fs::read(directory.join(file)).unwrap();
        Identity::from_pem(&read("ca.pem"), &read(&format!("{name}.pem")), &read(&format!("{name}.key")))
            .unwrap()
    }

    #[test]
    fn a_node_is_named_by_its_certificate_and_keys_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = NodeId::new("gpu-01").unwrap();
        init(dir.path(), std::slice::from_ref(&first), clock::now()).unwrap();
        assert_eq!(identity(dir.path(), "gpu-01").node().unwrap(), first);
        assert!(identity(dir.path(), "aggregator").node().is_err(), "the aggregator is no node");
        assert!(identity(dir.path(), "aggregator").server().is_ok());
        let now = clock::now();
        assert!(identity(dir.path(), "gpu-01").check_node(now).is_ok());
        assert!(identity(dir.path(), "aggregator").check_aggregator(now).is_ok());
        let mode = std::fs::metadata(dir.path().join("gpu-01.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_the_other_end_would_refuse_is_refused_at_the_start() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let nodes = [NodeId::new("gpu-01").unwrap()];
        let now = clock::now();
        dirs.iter().for_each(|dir| drop(init(dir.path(), &nodes, now).unwrap()));
        let [home, abroad] = dirs.each_ref().map(tempfile::TempDir::path);
        assert!(identity(home, "aggregator").check_node(now).is_err());
        assert!(identity(home, "gpu-01").check_aggregator(now).is_err());
        let late = now.plus(DAY * 400);
        assert!(identity(home, "gpu-01").check_node(late).unwrap_err().to_string().contains("expired"));
        std::fs::copy(abroad.join("ca.pem"), home.join("ca.pem")).unwrap();
        assert!(identity(home, "gpu-01").check_node(now).is_err());
        assert!(identity(home, "aggregator").check_aggregator(now).is_err());
    }

    #[test]
    fn what_a_key_signs_only_its_own_certificate_verifies() {
        use diarwatch_shared::identity::verify;
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &[NodeId::new("gpu-01").unwrap()], clock::now()).unwrap();
        let certificate =
            |name: &str| CertificateDer::from_pem_file(dir.path().join(format!("{name}.pem"))).unwrap();
        let signature = identity(dir.path(), "aggregator").signer().unwrap().sign(b"restart w").unwrap();
        let own = certificate("aggregator");
        assert!(verify(&own, b"restart w", &signature).is_ok());
        assert!(verify(&own, b"restart x", &signature).is_err());
        assert!(verify(&own, b"restart w", &signature[1..]).is_err());
        assert!(verify(&own, b"restart w", &[]).is_err());
        assert!(verify(&certificate("gpu-01"), b"restart w", &signature).is_err());
        assert!(verify(&certificate("ca"), b"restart w", &signature).is_err());
    }

    #[test]
    fn nothing_is_said_before_the_handshake_is_over() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &[NodeId::new("gpu-01").unwrap()], clock::now()).unwrap();
        assert_eq!(identity(dir.path(), "aggregator").server().unwrap().max_early_data_size, 0);
        assert!(!identity(dir.path(), "gpu-01").client().unwrap().enable_early_data);
    }

    #[test]
    fn nothing_that_exists_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &[], clock::now()).unwrap();
        let ca = std::fs::read(dir.path().join("ca.pem")).unwrap();
        assert!(init(dir.path(), &[], clock::now()).is_err());
        let name = NodeId::new("gpu-02").unwrap();
        node(dir.path(), &name, clock::now()).unwrap();
        assert!(node(dir.path(), &name, clock::now()).is_err());
        assert!(node(dir.path(), &NodeId::new("aggregator").unwrap(), clock::now()).is_err());
        assert_eq!(std::fs::read(dir.path().join("ca.pem")).unwrap(), ca);
    }
}
