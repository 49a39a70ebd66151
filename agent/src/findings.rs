//! What a line of a worker's output tells of its trouble. Pure: takes a line, gives a [`Finding`].

use diarwatch_shared::clock::UnixMicros;
use serde::{Deserialize, Serialize};

/// Something that a worker wrote and that matters to whoever judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// When it was written.
    pub at: UnixMicros,
    /// The line, masked and cut.
    pub text: String,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// An allocation on the GPU failed; the worker may live on.
    CudaOutOfMemory,
    /// The process has lost its CUDA context: nothing on the GPU works in it any more.
    CudaContextLost,
    /// A model could not be downloaded.
    ModelDownload,
    /// A token is missing, wrong, or its owner has not accepted the model's terms.
    Token,
    /// The port that the worker listens on is taken.
    PortTaken,
    /// The disk is full.
    DiskFull,
}

/// What this line tells, if anything.
#[must_use]
pub fn find(line: &str, at: UnixMicros) -> Option<Finding> {
    let lost = line.contains("torch.cuda.OutOfMemoryError");
    lost.then(|| Finding { kind: FindingKind::CudaOutOfMemory, at, text: line.to_owned() })
}
