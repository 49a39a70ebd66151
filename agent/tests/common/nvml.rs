//! The fake NVML in the place of the driver's library. It is built with the tests, beside the agent.

use std::path::{Path, PathBuf};

/// Puts the library into a folder under the driver's own name: nothing else tells that it is a fake.
pub fn put_in_place(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let beside = folder.join("new");
    std::fs::copy(built(), &beside).unwrap();
    std::fs::rename(beside, folder.join("libnvidia-ml.so.1")).unwrap();
}

fn built() -> PathBuf {
    let agent = Path::new(env!("CARGO_BIN_EXE_diarwatch-agent"));
    let folder = agent.parent().unwrap();
    let places = [folder.join("deps"), folder.to_owned()];
    let found = places.iter().map(|place| place.join("libdiarwatch_fake_nvml.so")).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no fake NVML in {places:?}; it is a dev-dependency of this package"))
}
