//! Packs the page's assets: takes `assets/`, gives a table of names, bytes and gzipped bytes for
//! `src/dashboard/assets.rs`. A name holds a hash of its content, so that browsers may keep it for ever.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Constant, name, ending, type, and the files that are joined into it.
const ASSETS: [(&str, &str, &str, &str, &[&str]); 3] = [
    ("STYLE", "page", "css", "text/css; charset=utf-8", &["page.css", "vendor/uPlot.min.css"]),
    ("SCRIPT", "page", "js", "text/javascript; charset=utf-8", &["page.js"]),
    ("PLOT", "uplot", "js", "text/javascript; charset=utf-8", &["vendor/uPlot.iife.min.js"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=assets");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/dashboard");
    println!("cargo::rustc-env=DIARWATCH_PAGE={:016x}", hash(&templates(Path::new("src/dashboard"))?));
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut table = String::new();
    for (constant, name, ending, kind, files) in ASSETS {
        let mut bytes = Vec::new();
        for file in files {
            let path = Path::new("assets").join(file);
            let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            bytes.extend_from_slice(&text);
            bytes.push(b'\n');
        }
        let hashed = format!("{name}.{:016x}.{ending}", hash(&bytes));
        let (plain, packed) = (out.join(&hashed), out.join(format!("{hashed}.gz")));
        fs::write(&plain, &bytes)?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bytes)?;
        fs::write(&packed, encoder.finish()?)?;
        writeln!(
            table,
            "/// `{files:?}`.\npub const {constant}: Asset = Asset {{ path: \"/assets/{hashed}\", kind: \"{kind}\", \
             plain: include_bytes!({plain:?}), gzip: include_bytes!({packed:?}) }};"
        )?;
    }
    fs::write(out.join("assets.rs"), table)?;
    Ok(())
}

/// Every template and script, in order: a page of one build does not take the parts of another.
fn templates(folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut files = vec![PathBuf::from("assets/page.js")];
    for folder in [folder.to_owned(), folder.join("parts")] {
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|ending| ending == "html" || ending == "js"));
    files.sort();
    let mut bytes = Vec::new();
    for file in files {
        bytes.extend(fs::read(file)?);
    }
    Ok(bytes)
}

/// FNV-1a: tells one content from another; nobody is kept out by it.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
