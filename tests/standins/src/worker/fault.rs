//! How a worker dies, and what it says when it fails: the real texts and the real ends. Nothing here comes
//! back to normal by itself.

use std::io::Write;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::say::flush;

/// Memory that is taken on command, MiB.
const MEMORY_MIB_MAX: u32 = 16 * 1_024;
/// Memory that is taken in one piece, MiB.
const PIECE_MIB: u32 = 4;
const MIB: usize = 1 << 20;

/// As PyTorch 2.1 says it.
const CUDA_OUT_OF_MEMORY: &str = "Traceback (most recent call last):
  File \"/app/worker.py\", line 118, in diarize
    annotation = pipeline({\"waveform\": waveform, \"sample_rate\": sample_rate})
torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.46 GiB. GPU 0 has a total capacity of 7.75 GiB of which 312.44 MiB is free. Including non-PyTorch memory, this process has 7.43 GiB memory in use. Of the allocated memory 6.81 GiB is allocated by PyTorch, and 402.10 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF
";

/// As pyannote.audio 3.1 prints it, without its addresses.
const NO_MODEL: &str = "
Could not download 'pyannote/speaker-diarization-3.1' pipeline.
It might be because the pipeline is private or gated so make
sure to authenticate. Create your access token and retry with:

   >>> Pipeline.from_pretrained('pyannote/speaker-diarization-3.1',
   ...                          use_auth_token=YOUR_AUTH_TOKEN)

If this still does not work, it might be because the pipeline is gated:
accept the user conditions.
";
const NO_MODEL_TRACEBACK: &str = "Traceback (most recent call last):
  File \"/app/worker.py\", line 31, in <module>
    pipeline.to(torch.device(\"cuda\"))
AttributeError: 'NoneType' object has no attribute 'to'
";

/// Says on stderr that CUDA has no memory.
pub(super) fn say_out_of_memory() {
    drop(std::io::stderr().write_all(CUDA_OUT_OF_MEMORY.as_bytes()));
}

/// Says that the model cannot be had, as pyannote does: the reason on stdout, the fall on stderr.
pub(super) fn say_no_model() {
    let mut stdout = std::io::stdout();
    drop(stdout.write_all(NO_MODEL.as_bytes()).and_then(|()| stdout.flush()));
    drop(std::io::stderr().write_all(NO_MODEL_TRACEBACK.as_bytes()));
}

/// Dies at once, without a word; what was said before is written.
pub(super) fn die() -> ! {
    flush();
    // The first process of a container is not killed from inside: then it aborts.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

/// Dies by SIGABRT after a time.
pub(super) fn crash_after(time: Duration) -> Result<(), String> {
    spawn("crash", move || {
        std::thread::sleep(time);
        flush();
        std::process::abort()
    })
}

/// Takes memory in a thread of its own and keeps it, until the kernel has enough of it.
pub(super) fn take_memory(mib: u32) -> Result<(), String> {
    if mib > MEMORY_MIB_MAX {
        return Err(format!("host_oom takes at most {MEMORY_MIB_MAX} MiB"));
    }
    spawn("memory", move || {
        let pieces = (0..mib.div_ceil(PIECE_MIB)).map(|_| vec![1_u8; PIECE_MIB as usize * MIB]);
        let taken: Vec<Vec<u8>> = pieces.collect();
        loop {
            std::thread::park();
            // Whoever wakes it finds the memory still in use.
            std::hint::black_box(&taken);
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|error| format!("start a thread: {error}"))
}
