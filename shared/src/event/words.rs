//! The words in events: causes, and what is wanted done about a GPU. A word of a later version is read as
//! unknown or other.

use serde::{Deserialize, Serialize};

/// Recovery actions that NVML has numbers for.
pub(super) const RECOVERY_ACTIONS: u32 = 8;

/// Why a worker is stopped or started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its process ended.
    Exited,
    /// It could not be started.
    StartFailed,
    /// It was not ready in the time a start may take.
    StartOverdue,
    /// It says that it is not ready, and does nothing.
    NotReady,
    /// It lives and nothing of it moves.
    Wedged,
    /// Its GPU memory grows with each job.
    GpuMemoryGrowth,
    /// It runs out of GPU memory.
    CudaOutOfMemory,
    /// Nothing on the GPU works in its process any more.
    CudaContextLost,
    /// The GPU driver says that the application has to be restarted.
    Xid,
    /// It came up without its GPU.
    FellToCpu,
    /// It says that it is ready, and a job made up for it does not come to its end.
    ProofFailed,
    /// A person wanted it.
    Operator,
    /// Its configuration changed.
    Reconfigured,
    /// A cause of a later version.
    #[serde(other)]
    Unknown,
}

/// What an XID calls for. Nothing but the restart of a worker is ever done by an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum XidAction {
    /// Nothing is published about it. Also one of a later version.
    Unknown,
    /// Nothing: it informs.
    Ignore,
    /// Something else tells more; look there.
    Watch,
    /// A procedure of the vendor's that a person follows.
    Workflow,
    /// Start the program that it hit anew.
    RestartWorker,
    /// Reset the GPU.
    ResetGpu,
    /// Take the GPU out of use.
    Isolate,
    /// Reboot the machine.
    Reboot,
}

impl XidAction {
    /// Every action, the mildest first.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Ignore,
        Self::Watch,
        Self::Workflow,
        Self::RestartWorker,
        Self::ResetGpu,
        Self::Isolate,
        Self::Reboot,
    ];

    /// The word used in JSON and in configurations.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ignore => "ignore",
            Self::Watch => "watch",
            Self::Workflow => "workflow",
            Self::RestartWorker => "restart_worker",
            Self::ResetGpu => "reset_gpu",
            Self::Isolate => "isolate",
            Self::Reboot => "reboot",
        }
    }

    /// The action of a word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }
}

/// What the driver wants done about a GPU: NVML's recovery action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// A reset of the GPU.
    GpuReset,
    /// A reboot of the machine.
    NodeReboot,
    /// An end of all peer-to-peer traffic.
    DrainP2p,
    /// The same, and a reset.
    DrainAndReset,
    /// Something of a later driver.
    Other,
}

impl From<String> for XidAction {
    fn from(word: String) -> Self {
        Self::named(&word).unwrap_or(Self::Unknown)
    }
}

impl From<XidAction> for String {
    fn from(action: XidAction) -> Self {
        action.word().to_owned()
    }
}

impl From<String> for RecoveryAction {
    fn from(word: String) -> Self {
        let numbers = 0..RECOVERY_ACTIONS;
        numbers.map(Self::of).find(|action| action.word() == word).unwrap_or(Self::Other)
    }
}

impl From<RecoveryAction> for String {
    fn from(action: RecoveryAction) -> Self {
        action.word().to_owned()
    }
}

impl RecoveryAction {
    /// The action of NVML's number.
    #[must_use]
    pub fn of(number: u32) -> Self {
        match number {
            0 => Self::None,
            // 6 resets the bus of the GPU, and the GPU with it.
            1 | 6 => Self::GpuReset,
            2 | 7 => Self::NodeReboot,
            3 => Self::DrainP2p,
            4 => Self::DrainAndReset,
            _ => Self::Other,
        }
    }

    /// The word used in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GpuReset => "gpu_reset",
            Self::NodeReboot => "node_reboot",
            Self::DrainP2p => "drain_p2p",
            Self::DrainAndReset => "drain_and_reset",
            Self::Other => "other",
        }
    }
}
