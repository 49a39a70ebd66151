//! Addresses that hold a secret: read from a file whenever a source connects, so that a changed one is
//! used without a restart. Gives the first line; a file that cannot be read says which and why.

use std::path::Path;

use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Bytes of such a file.
const FILE_BYTES_MAX: u64 = 4_096;

/// The text of the file, or the one that stands in the configuration.
///
/// # Errors
/// When the file cannot be read, is empty or is no text.
pub async fn address(file: Option<&Path>, plain: Option<&str>) -> Result<String, String> {
    let Some(path) = file else { return Ok(plain.unwrap_or_default().to_owned()) };
    let mut text = String::new();
    let read = async { File::open(path).await?.take(FILE_BYTES_MAX).read_to_string(&mut text).await };
    read.await.map_err(|error| {
        format!("{}: {error}; the agent's user has to be able to read it", path.display())
    })?;
    match text.trim() {
        "" => Err(format!("{} is empty; write the address into it", path.display())),
        address => Ok(address.to_owned()),
    }
}
