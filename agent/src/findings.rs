//! What a line of a worker's output tells of its trouble. Pure: takes a line, gives a [`Finding`].
//!
//! The texts are those of PyTorch, cuBLAS, cuDNN, cuFFT, ONNX Runtime, CTranslate2, huggingface_hub,
//! pyannote.audio, uvicorn and gunicorn. Every line passes one expression of all their first words; only
//! one in which it finds something is looked at closer. The name of an exception counts with its colon:
//! a traceback also shows lines of source that name it.

use std::sync::LazyLock;

use diarwatch_shared::clock::UnixMicros;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::masking::mask;

/// Bytes of a finding's text.
pub const TEXT_BYTES_MAX: usize = 480;
/// Bytes of a line that are looked at.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

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
    let line = line.get(..line.floor_char_boundary(LINE_BYTES_MAX)).unwrap_or(line);
    if GATE.as_ref().is_some_and(|gate| !gate.is_match(line)) {
        return None;
    }
    let fits = |(_, words): &&(FindingKind, &[&str])| words.iter().all(|word| line.contains(word));
    let (kind, _) = RULES.iter().find(fits)?;
    Some(Finding { kind: *kind, at, text: text(line) })
}

impl FindingKind {
    /// Its name in events and documents.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::CudaOutOfMemory => "cuda_out_of_memory",
            Self::CudaContextLost => "cuda_context_lost",
            Self::ModelDownload => "model_download",
            Self::Token => "token",
            Self::PortTaken => "port_taken",
            Self::DiskFull => "disk_full",
        }
    }
}

use FindingKind::{CudaContextLost, CudaOutOfMemory, DiskFull, ModelDownload, PortTaken, Token};

/// All words of a row have to be in a line; the first row that fits names it.
const RULES: [(FindingKind, &[&str]); 70] = [
    (CudaOutOfMemory, &["CUDA out of memory"]),
    (CudaOutOfMemory, &["torch.cuda.OutOfMemoryError:"]),
    (CudaOutOfMemory, &["torch.OutOfMemoryError:"]),
    (CudaOutOfMemory, &["CUDA error: out of memory"]),
    (CudaOutOfMemory, &["CUDA driver error: out of memory"]),
    (CudaOutOfMemory, &["CUDA failed with error out of memory"]),
    (CudaOutOfMemory, &["CUDA failure 2: out of memory"]),
    (CudaOutOfMemory, &["cuda runtime error (2)"]),
    (CudaOutOfMemory, &["CUDA_ERROR_OUT_OF_MEMORY"]),
    (CudaOutOfMemory, &["CUBLAS_STATUS_ALLOC_FAILED"]),
    (CudaOutOfMemory, &["CUDNN_STATUS_ALLOC_FAILED"]),
    (CudaOutOfMemory, &["CUFFT_ALLOC_FAILED"]),
    (CudaOutOfMemory, &["bfc_arena.cc", "Failed to allocate memory"]),
    (CudaContextLost, &["device-side assert triggered"]),
    (CudaContextLost, &["an illegal memory access was encountered"]),
    (CudaContextLost, &["an illegal instruction was encountered"]),
    (CudaContextLost, &["unspecified launch failure"]),
    (CudaContextLost, &["uncorrectable ECC error encountered"]),
    (CudaContextLost, &["the launch timed out and was terminated"]),
    (CudaContextLost, &["CUDA error: misaligned address"]),
    (CudaContextLost, &["CUDA error: unknown error"]),
    (CudaContextLost, &["CUDA error: hardware stack error"]),
    (CudaContextLost, &["CUDA error: invalid program counter"]),
    (CudaContextLost, &["Invalid access of peer GPU memory over nvlink"]),
    (CudaContextLost, &["CUDA-capable device", "busy or unavailable"]),
    (CudaContextLost, &["CUDA error: driver shutting down"]),
    (CudaContextLost, &["CUDA error: context is destroyed"]),
    (CudaContextLost, &["GPU is lost"]),
    (CudaContextLost, &["CUDNN_STATUS_EXECUTION_FAILED"]),
    (CudaContextLost, &["CUDNN_STATUS_INTERNAL_ERROR"]),
    (CudaContextLost, &["CUDNN_STATUS_MAPPING_ERROR"]),
    (CudaContextLost, &["CUDNN_STATUS_NOT_INITIALIZED"]),
    (CudaContextLost, &["CUBLAS_STATUS_EXECUTION_FAILED"]),
    (CudaContextLost, &["CUBLAS_STATUS_INTERNAL_ERROR"]),
    (CudaContextLost, &["CUBLAS_STATUS_NOT_INITIALIZED"]),
    (CudaContextLost, &["CUFFT_EXEC_FAILED"]),
    (Token, &["GatedRepoError:"]),
    (Token, &["Cannot access gated repo"]),
    (Token, &["trying to access a gated repo"]),
    (Token, &["private or gated"]),
    (Token, &["accept the user conditions"]),
    (Token, &["accept user conditions"]),
    (Token, &["use_auth_token=YOUR_AUTH_TOKEN"]),
    (Token, &["unexpected keyword argument 'use_auth_token'"]),
    (Token, &["LocalTokenNotFoundError:"]),
    (Token, &["Invalid user token"]),
    (Token, &["RepositoryNotFoundError: 401"]),
    (Token, &["401 Client Error", "/resolve/"]),
    (Token, &["403 Client Error", "/resolve/"]),
    (Token, &["401 Unauthorized", "huggingface.co"]),
    (Token, &["403 Forbidden", "huggingface.co"]),
    (ModelDownload, &["LocalEntryNotFoundError:"]),
    (ModelDownload, &["OfflineModeIsEnabled:"]),
    (ModelDownload, &["offline mode is enabled"]),
    (ModelDownload, &["Could not download", "pipeline"]),
    (ModelDownload, &["Could not download", "from "]),
    (ModelDownload, &["trying to locate the file", "on the Hub"]),
    (ModelDownload, &["host='huggingface.co'"]),
    (ModelDownload, &["Failed to resolve 'huggingface.co'"]),
    (ModelDownload, &["couldn't connect to", "huggingface.co"]),
    (ModelDownload, &["RepositoryNotFoundError:"]),
    (ModelDownload, &["RevisionNotFoundError:"]),
    (ModelDownload, &["HfHubHTTPError:"]),
    (PortTaken, &["address already in use"]),
    (PortTaken, &["Address already in use"]),
    (PortTaken, &["Connection in use:"]),
    (DiskFull, &["No space left on device"]),
    (DiskFull, &["Disk quota exceeded"]),
    (DiskFull, &["Not enough free disk space"]),
    (DiskFull, &["database or disk is full"]),
];

/// The first words of all rows.
static GATE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let mut words: Vec<String> =
        RULES.iter().filter_map(|(_, words)| words.first()).map(|word| regex::escape(word)).collect();
    words.sort_unstable();
    words.dedup();
    Regex::new(&words.join("|")).ok()
});

/// One bounded line without secrets and without what moves a terminal's cursor.
fn text(line: &str) -> String {
    let masked = mask(line.trim());
    let mut text: String = masked.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masking::tests::SECRETS;
    use proptest::prelude::*;

    const AT: UnixMicros = UnixMicros(7);
    /// A kind (or `none`) and a line that was really written, a row each.
    const LINES: &str = include_str!("findings/lines.tsv");

    fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
        LINES.lines().filter(|row| !row.starts_with('#')).map(|row| row.split_once('\t').unwrap())
    }

    #[test]
    fn every_real_line_is_named_as_what_it_is() {
        for (kind, line) in rows() {
            let found = find(line, AT).map_or("none", |finding| finding.kind.word());
            assert_eq!(found, kind, "{line}");
        }
        assert!(rows().count() >= 80, "the corpus is there");
    }

    #[test]
    fn every_rule_has_a_line_that_needs_it() {
        for (at, (kind, words)) in RULES.iter().enumerate() {
            let fits = |line: &str| words.iter().all(|word| line.contains(word));
            let first = |line: &str| RULES.iter().position(|(_, w)| w.iter().all(|word| line.contains(word)));
            assert!(rows().any(|(_, line)| fits(line) && first(line) == Some(at)), "{kind:?} {words:?}");
        }
    }

    #[test]
    fn the_name_of_a_kind_is_the_one_in_documents() {
        for (kind, _) in RULES {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }

    proptest! {
        #[test]
        fn whatever_the_line_the_text_is_one_bounded_line(
            before in "(\\PC|\n|\x1b|話){0,60}", at in 0..RULES.len(), after in "(\\PC|\n|話){0,60}", times in 0_usize..200,
        ) {
            let line = format!("{before}{}{}", RULES[at].1.concat(), after.repeat(times));
            if let Some(finding) = find(&line, AT) {
                prop_assert!(finding.text.len() <= TEXT_BYTES_MAX);
                prop_assert!(!finding.text.chars().any(char::is_control));
            }
        }

        #[test]
        fn a_finding_holds_no_secret(at in 0..SECRETS.len(), rule in 0..RULES.len()) {
            let (secret, gone) = SECRETS[at];
            let found = find(&format!("{} {secret} x", RULES[rule].1.join(" ")), AT).unwrap();
            prop_assert!(!found.text.contains(gone), "{}", found.text);
        }
    }
}
