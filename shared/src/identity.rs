//! Who is at the other end: TLS 1.3 with certificates on both sides, one CA, one provider (ring).
//!
//! Takes PEM bytes and a peer's certificate; gives rustls configurations and the node's name. The
//! name comes from the certificate, never from a message. A node's certificate names
//! `NODE.node.diarwatch.internal`, the aggregator's [`AGGREGATOR_NAME`].

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm, UnixTime,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use crate::clock::UnixMicros;
use crate::node::NodeId;
use crate::wire::ALPN;

/// The DNS name in the aggregator's certificate, wherever it is reached.
pub const AGGREGATOR_NAME: &str = "aggregator.diarwatch.internal";
/// What follows the node's name in its certificate.
pub const NODE_SUFFIX: &str = ".node.diarwatch.internal";

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The CA file holds no certificate.
    #[error("CA certificate is not readable as PEM: {0}")]
    Ca(String),
    /// The certificate file holds no certificate.
    #[error("certificate is not readable as PEM: {0}")]
    Certificate(String),
    /// The key file holds no key.
    #[error("private key is not readable as PEM: {0}")]
    Key(String),
    /// The certificate is of another CA, is not valid now, or is for the other side.
    #[error("certificate cannot be used here: {0}")]
    Refused(String),
    /// Certificate and key do not fit, or the CA cannot be used.
    #[error("identity cannot be used: {0}")]
    Unfit(String),
    /// The certificate names no node.
    #[error("certificate names no node: it has no DNS name that ends in `{NODE_SUFFIX}`")]
    NoNode,
    /// A text was not signed by the key of this certificate.
    #[error("the signature is not that of the peer's certificate")]
    Forged,
}

/// The key of a certificate, to sign a text by.
#[derive(Debug)]
pub struct Signer(Box<dyn rustls::sign::Signer>);

impl Signer {
    /// Signs the bytes as they are. TLS 1.3 signs with this key too, but never bytes that are JSON: each
    /// of its texts begins with 64 blanks and a word.
    ///
    /// # Errors
    /// When the key refuses.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.0.sign(bytes).map_err(unfit)
    }
}

/// A CA, a certificate of it and the key, as read from PEM files.
#[derive(Debug)]
pub struct Identity {
    ca: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads the three PEM texts.
    ///
    /// # Errors
    /// When one of them holds nothing of its kind.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self {
            ca: certificates(ca).map_err(IdentityError::Ca)?,
            chain: certificates(certificate).map_err(IdentityError::Certificate)?,
            key: PrivateKeyDer::from_pem_slice(key).map_err(|error| IdentityError::Key(error.to_string()))?,
        })
    }

    /// The node that this identity is for.
    ///
    /// # Errors
    /// When the certificate is not a node's.
    pub fn node(&self) -> Result<NodeId, IdentityError> {
        self.chain.first().ok_or(IdentityError::NoNode).and_then(node_of)
    }

    /// Refuses at the start what the aggregator would refuse at `now`: a node's certificate that the CA
    /// did not sign, that has expired, or that is not a node's.
    ///
    /// # Errors
    /// As said.
    pub fn check_node(&self, now: UnixMicros) -> Result<(), IdentityError> {
        self.node()?;
        verify_node(&self.ca, &self.chain, unix(now))?.map_err(|error| refused(&error))
    }

    /// Refuses at the start what every agent would refuse at `now`: a certificate that the CA did not
    /// sign, that has expired, or that is not the aggregator's.
    ///
    /// # Errors
    /// As said.
    pub fn check_aggregator(&self, now: UnixMicros) -> Result<(), IdentityError> {
        let roots = Arc::new(roots(&self.ca)?);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(unfit)?;
        let (leaf, chain) = self.chain.split_first().ok_or(IdentityError::NoNode)?;
        let name = ServerName::try_from(AGGREGATOR_NAME).map_err(unfit)?;
        let verified = verifier.verify_server_cert(leaf, chain, &name, &[], unix(now));
        verified.map(drop).map_err(|error| refused(&error))
    }

    /// The key of this identity, for texts that the other end verifies by the certificate.
    ///
    /// # Errors
    /// When the key is of a kind that nobody verifies here.
    pub fn signer(&self) -> Result<Signer, IdentityError> {
        let key = provider().key_provider.load_private_key(self.key.clone_key()).map_err(unfit)?;
        let offered: Vec<_> = mapping().iter().map(|(scheme, _)| *scheme).collect();
        let signer = key.choose_scheme(&offered).ok_or_else(|| unfit("no scheme to sign by fits the key"))?;
        Ok(Signer(signer))
    }

    /// The client side, for the agent.
    ///
    /// # Errors
    /// When the key does not fit the certificate or the CA cannot be used.
    pub fn client(self) -> Result<ClientConfig, IdentityError> {
        let roots = roots(&self.ca)?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unfit)?
            .with_root_certificates(roots)
            .with_client_auth_cert(self.chain, self.key)
            .map_err(unfit)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// The server side, for the aggregator: a peer without a certificate of the CA is refused.
    ///
    /// # Errors
    /// When the key does not fit the certificate or the CA cannot be used.
    pub fn server(self) -> Result<ServerConfig, IdentityError> {
        let roots = Arc::new(roots(&self.ca)?);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(unfit)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain, self.key)
            .map_err(unfit)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

/// The node named by a verified certificate.
///
/// # Errors
/// When it names none.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<NodeId, IdentityError> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(unfit)?;
    let node = parsed.valid_dns_names().find_map(|name| name.strip_suffix(NODE_SUFFIX).map(str::to_owned));
    NodeId::new(node.ok_or(IdentityError::NoNode)?).map_err(unfit)
}

/// Whether the key of `certificate` signed these bytes. The certificate itself is not judged: ask only
/// for one that a connection has verified.
///
/// # Errors
/// When it did not.
pub fn verify(certificate: &CertificateDer<'_>, bytes: &[u8], signature: &[u8]) -> Result<(), IdentityError> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(unfit)?;
    // As in TLS 1.3, one algorithm a scheme.
    let mut algorithms = mapping().iter().filter_map(|(_, algorithms)| algorithms.first());
    let signed = |algorithm: &&'static dyn SignatureVerificationAlgorithm| {
        parsed.verify_signature(*algorithm, bytes, signature).is_ok()
    };
    if algorithms.any(signed) { Ok(()) } else { Err(IdentityError::Forged) }
}

/// A node's certificate, as far as it can be judged without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The node that it names.
    pub node: NodeId,
    /// When it is good.
    pub term: Term,
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Now, and until then; without an end when that is thousands of years away.
    Valid(Option<UnixMicros>),
    /// It was, until then.
    Ended(UnixMicros),
    /// It will be, from then on.
    NotYet(UnixMicros),
}

/// Judges a node's certificate at `now`. That it is not valid at this time is an answer, no error.
///
/// # Errors
/// When the PEM texts hold no certificates, the CA did not sign it, or it is not a node's.
pub fn node_certificate(
    ca: &[u8],
    certificate: &[u8],
    now: UnixMicros,
) -> Result<NodeCertificate, IdentityError> {
    // After every end that is meant: the verifier's refusal then says when that was.
    const LONG_AFTER: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(200_000_000_000));
    let ca = certificates(ca).map_err(IdentityError::Ca)?;
    let chain = certificates(certificate).map_err(IdentityError::Certificate)?;
    let node = chain.first().ok_or(IdentityError::NoNode).and_then(node_of)?;
    let term = match verify_node(&ca, &chain, unix(now))? {
        Ok(()) => match verify_node(&ca, &chain, LONG_AFTER)? {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => Term::Valid(Some(micros(not_after))),
            _ => Term::Valid(None),
        },
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Term::Ended(micros(not_after))
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => Term::NotYet(micros(not_before)),
        Err(error) => return Err(refused(&error)),
    };
    Ok(NodeCertificate { node, term })
}

/// What the aggregator's verifier would say of a node's certificate.
fn verify_node(
    ca: &[CertificateDer<'static>],
    chain: &[CertificateDer<'static>],
    at: UnixTime,
) -> Result<Result<(), rustls::Error>, IdentityError> {
    let roots = Arc::new(roots(ca)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(unfit)?;
    let (leaf, chain) = chain.split_first().ok_or(IdentityError::NoNode)?;
    Ok(verifier.verify_client_cert(leaf, chain, at).map(drop))
}

type Mapping = &'static [(SignatureScheme, &'static [&'static dyn SignatureVerificationAlgorithm])];

/// Schemes of signatures, each with what verifies it.
fn mapping() -> Mapping {
    provider().signature_verification_algorithms.mapping
}

/// The one TLS provider.
#[must_use]
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match list {
        Ok(list) if list.is_empty() => Err(String::from("it holds no certificate")),
        Ok(list) => Ok(list),
        Err(error) => Err(error.to_string()),
    }
}

fn roots(ca: &[CertificateDer<'static>]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots.add(certificate.clone()).map_err(unfit)?;
    }
    Ok(roots)
}

fn unix(now: UnixMicros) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_micros(now.0))
}

fn micros(at: UnixTime) -> UnixMicros {
    UnixMicros(at.as_secs().saturating_mul(1_000_000))
}

fn refused(error: &rustls::Error) -> IdentityError {
    IdentityError::Refused(error.to_string())
}

fn unfit(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Unfit(error.to_string())
}
