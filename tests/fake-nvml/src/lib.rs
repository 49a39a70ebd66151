//! A stand-in for `libnvidia-ml.so.1`: takes NVML calls from the program under test and the values
//! of a scenario file that may change while it runs, gives the answers a driver would give.
//!
//! The way of one call: an entry point (`system`, `device`, `process`, `samples`, `fields`,
//! `events`) enters `state`, which counts it, has `book` read the file again when it changed and
//! applies what the file says about calls (error, lost, hang, delay); then the value is an `expr` of the
//! `scenario` at this moment, written out by `abi`. A caller that is slow is not noticed here: every
//! call stands alone, and nothing is kept for it but the event sets.
//!
//! Put the library in place as `libnvidia-ml.so.1` on the loader's path.
//! `DIARWATCH_FAKE_NVML_SCENARIO` names the scenario file (see `scenario.example`); without it
//! there is one healthy RTX 4060. `DIARWATCH_FAKE_NVML_CLAIMS` names a folder in which processes say what
//! they hold of a GPU (see `claims`); it counts on top of the scenario.
//! `DIARWATCH_FAKE_NVML_STATS` names a file for call counts.
//!
//! Invariant: no entry point panics, for a panic may not cross into C; a null pointer is answered
//! with "invalid argument".
#![expect(
    unsafe_code,
    reason = "a C ABI is exported here; pointers of the caller are touched in abi.rs only"
)]

mod abi;
mod book;
mod claims;
mod clock;
mod device;
mod events;
mod expr;
mod fields;
mod memory;
mod process;
mod samples;
mod scenario;
mod state;
mod stats;
mod system;

/// Marks this library as a simulation: who finds this symbol in the NVML that was loaded says
/// SIMULATED wherever its values are shown. Always 1.
#[unsafe(no_mangle)]
pub extern "C" fn diarwatch_simulated_nvml() -> u32 {
    1
}

/// The number of NVML calls so far, for tests that count them.
#[unsafe(no_mangle)]
pub extern "C" fn diarwatch_fake_nvml_calls() -> u64 {
    stats::calls()
}
