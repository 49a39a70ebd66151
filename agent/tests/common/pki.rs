//! A CA and the certificates of one node and one aggregator, made for a test as `pki init` makes them.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::identity::{AGGREGATOR_NAME, NODE_SUFFIX};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Writes `ca`, `node`, `aggregator` and, of another CA, `stranger`.
pub fn make(directory: &Path) {
    let ca = authority(directory, "ca");
    leaf(directory, "node", &format!("{}{NODE_SUFFIX}", super::NODE), &ca);
    leaf(directory, "aggregator", AGGREGATOR_NAME, &ca);
    let other = authority(directory, "other-ca");
    leaf(directory, "stranger", AGGREGATOR_NAME, &other);
}

/// Writes `ca` and `node` anew; the node's certificate is good from and until these days from now.
pub fn renew(directory: &Path, days: Range<i64>) {
    let ca = authority(directory, "ca");
    let at = |days: i64| {
        let micros = i64::try_from(clock::now().0).unwrap() + days * 86_400_000_000;
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_micros(u64::try_from(micros).unwrap())
    };
    let mut params = CertificateParams::new(vec![format!("{}{NODE_SUFFIX}", super::NODE)]).unwrap();
    (params.not_before, params.not_after) = (at(days.start), at(days.end));
    signed(directory, "node", &params, &ca);
}

fn authority(directory: &Path, file: &str) -> Issuer<'static, KeyPair> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join(format!("{file}.pem")), certificate.pem()).unwrap();
    Issuer::new(params, key)
}

fn leaf(directory: &Path, file: &str, name: &str, issuer: &Issuer<'_, KeyPair>) {
    signed(directory, file, &CertificateParams::new(vec![name.to_owned()]).unwrap(), issuer);
}

fn signed(directory: &Path, file: &str, params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(directory.join(format!("{file}.pem")), certificate.pem()).unwrap();
    std::fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
}
