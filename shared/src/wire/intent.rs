//! An intent on its way: signed by the key of the aggregator's certificate, opened by whoever sees that
//! certificate on the connection. Takes an [`Intent`] and a key; gives the message with the exact bytes
//! that were signed, and back. What is not signed is not even read.

use std::fmt::Write;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::control::{FromAggregator, Intent};
use crate::identity::{self, IdentityError, Signer};
use crate::limits::INTENT_BYTES_MAX;

/// No intent is good for longer than this.
pub const INTENT_LIFE_MAX: Duration = Duration::from_secs(300);
/// Characters of an intent's id.
pub const INTENT_ID_CHARS_MAX: usize = 64;

/// Why an intent is not one.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// It is larger than any can be.
    #[error("the intent has more than {INTENT_BYTES_MAX} bytes")]
    TooLong,
    /// It is not signed, or not by this peer.
    #[error("the intent is not signed by this aggregator: {0}")]
    Signature(IdentityError),
    /// It is signed and cannot be read.
    #[error("the intent cannot be read; the aggregator may be of a later version: {0}")]
    Form(serde_json::Error),
}

/// The message that carries an intent.
///
/// # Errors
/// When it is too long or the key refuses.
pub fn seal(intent: &Intent, signer: &Signer) -> Result<FromAggregator, IntentError> {
    let text = serde_json::to_string(intent).map_err(IntentError::Form)?;
    if text.len() > INTENT_BYTES_MAX {
        return Err(IntentError::TooLong);
    }
    let signature = signer.sign(text.as_bytes()).map_err(IntentError::Signature)?;
    Ok(FromAggregator::Intent { intent: text, signature: hex(&signature) })
}

/// The intent of a message, when the key of `peer` signed it. Whether it may be followed is not said.
///
/// # Errors
/// When it is too long, not signed by that key, or of another form.
pub fn open(text: &str, signature: &str, peer: &CertificateDer<'_>) -> Result<Intent, IntentError> {
    if text.len() > INTENT_BYTES_MAX || signature.len() > INTENT_BYTES_MAX {
        return Err(IntentError::TooLong);
    }
    let signature = unhex(signature).ok_or(IntentError::Signature(IdentityError::Forged))?;
    identity::verify(peer, text.as_bytes(), &signature).map_err(IntentError::Signature)?;
    serde_json::from_str(text).map_err(IntentError::Form)
}

/// Bytes in base 16, lower case.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of a text in base 16; none when it is not.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_16_goes_there_and_back_and_takes_nothing_else() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        assert_eq!(hex(&[0, 0xAB]), "00ab");
        for bad in ["a", "0g", "é", "0x", "+1", " 1"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
