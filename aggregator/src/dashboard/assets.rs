//! The page's assets, packed by `build.rs`: served out of memory under names that hold their hash.

/// One asset.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Its path.
    pub path: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// Its bytes.
    pub plain: &'static [u8],
    /// The same, gzipped.
    pub gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Every asset.
pub const ALL: [Asset; 3] = [STYLE, SCRIPT, PLOT];

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_packed_is_what_is_plain_and_its_name_holds_its_hash() {
        for asset in ALL {
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(asset.gzip).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, asset.plain, "{}", asset.path);
            let hash = asset.path.split('.').nth(1).unwrap();
            assert!(hash.len() == 16 && asset.path.starts_with("/assets/"), "{}", asset.path);
        }
    }

    #[test]
    fn the_vendored_files_are_those_that_the_page_names() {
        let readme = include_str!("../../assets/vendor/README.md");
        let files: [(&str, &[u8]); 2] = [
            ("uPlot.iife.min.js", include_bytes!("../../assets/vendor/uPlot.iife.min.js")),
            ("uPlot.min.css", include_bytes!("../../assets/vendor/uPlot.min.css")),
        ];
        for (name, bytes) in files {
            // The vocabulary knows the first eight bytes of a SHA-256.
            let hex = diarwatch_shared::schema::schema_id(bytes).to_string();
            let line = readme.lines().find(|line| line.ends_with(&format!("  {name}"))).unwrap();
            assert!(line.starts_with(&hex), "{name} begins with {hex}");
        }
    }

    #[test]
    fn the_assets_leave_room_for_the_page_in_what_a_first_load_may_weigh() {
        let packed: usize = ALL.iter().map(|asset| asset.gzip.len()).sum();
        assert!(packed <= 40 * 1_024, "{packed} bytes; the whole first load may have 64 KiB");
        assert!(
            STYLE.gzip.len() <= 6 * 1_024,
            "{} bytes; readable without a script in 15 KiB",
            STYLE.gzip.len()
        );
    }
}
