//! What the stand-ins have in common as commands: binding an address, and the way to an exit number.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use diarwatch_shared::daemon;
use diarwatch_shared::exit::Exit;
use tokio::net::{TcpListener, UdpSocket};

use crate::say::say;

/// Why a stand-in ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum StandinError {
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}; choose a free port with `{option}`, or end what holds this one")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The option that names it.
        option: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The scenario file cannot be used.
    #[error("read the scenario {}: {problem}", path.display())]
    Scenario {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and how to write it.
        problem: String,
    },
    /// Serving ended.
    #[error("serve: {0}")]
    Serve(#[from] std::io::Error),
}

impl StandinError {
    /// The exit number of the table.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Listen { .. } => Exit::Unreachable,
            Self::Scenario { .. } => Exit::BadConfig,
            Self::Serve(_) => Exit::Critical,
        }
    }
}

/// The command line, or the exit number after its help or its mistake has been shown.
///
/// # Errors
/// The exit number to end with: 0 after help and version, else that of a wrong command line.
pub fn parsed<T>(result: Result<T, clap::Error>) -> Result<T, ExitCode> {
    result.map_err(|error| {
        // Where help goes when its reader is gone matters to nobody.
        drop(error.print());
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok.into(),
            _ => Exit::Usage.into(),
        }
    })
}

/// The exit number of a stand-in that ended; an error is shown on stderr.
pub fn ended(result: Result<u8, StandinError>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            drop(writeln!(std::io::stderr(), "diarwatch-standins: failed to {error}"));
            error.exit().into()
        }
    }
}

/// A TCP listener.
///
/// # Errors
/// When the address cannot be had; the text names the option to change.
pub async fn listen(address: SocketAddr, option: &'static str) -> Result<TcpListener, StandinError> {
    TcpListener::bind(address).await.map_err(|source| StandinError::Listen { address, option, source })
}

/// A UDP socket.
///
/// # Errors
/// When the address cannot be had; the text names the option to change.
pub async fn bind(address: SocketAddr, option: &'static str) -> Result<UdpSocket, StandinError> {
    UdpSocket::bind(address).await.map_err(|source| StandinError::Listen { address, option, source })
}

/// Says the line and runs until that ends with an exit number or a stop signal comes, which is a
/// clean end. Signals are watched before the line is said: who reads it may send one.
pub(crate) async fn until_stopped(
    line: &str,
    work: impl Future<Output = std::io::Result<u8>>,
) -> Result<u8, StandinError> {
    tokio::select! {
        biased;
        signal = daemon::stop_signal() => Ok(signal.map(|_| 0)?),
        code = async { say(line); work.await } => Ok(code?),
    }
}
