//! Schemas on disk, one file each, named by content, so that any kept frame decodes.
//!
//! Takes schemas before the frames that use them; forgets one when no kept segment can use it any
//! more: the time of its file is that of its newest use, to a segment. Bounded per node. Blocking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diarwatch_shared::clock::UnixMicros;
use diarwatch_shared::log::replace_file;
use diarwatch_shared::node::NodeId;
use diarwatch_shared::schema::{Schema, SchemaId, schema_id};

use super::segments::{StoreError, modified};

/// New schemas that one node may bring while one segment is open (an hour at most); a sound agent
/// has a few in its life.
pub const NODE_SCHEMAS_MAX: usize = 256;

/// The schemas of a store.
#[derive(Debug)]
pub struct Schemas {
    directory: PathBuf,
    /// Those that a frame of the open segment uses.
    used: BTreeSet<SchemaId>,
    /// How many new ones each node brought while this segment is open.
    brought: BTreeMap<NodeId, usize>,
}

impl Schemas {
    /// The schemas of a store's directory; `used` are those of the open segment.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(store: &Path, used: BTreeSet<SchemaId>) -> Result<Self, StoreError> {
        let directory = store.join("schemas");
        std::fs::create_dir_all(&directory)
            .map_err(|source| StoreError::Io { path: directory.clone(), source })?;
        Ok(Self { directory, used, brought: BTreeMap::new() })
    }

    /// Keeps a schema of a node; false when it brought too many new ones.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep(&mut self, node: &NodeId, id: SchemaId, bytes: &[u8]) -> Result<bool, StoreError> {
        let path = self.path(id);
        if path.exists() {
            return Ok(true);
        }
        let brought = self.brought.entry(node.clone()).or_default();
        if *brought >= NODE_SCHEMAS_MAX {
            return Ok(false);
        }
        replace_file(&path, bytes).map_err(|source| StoreError::Io { path, source })?;
        *brought += 1;
        Ok(true)
    }

    /// A frame of the open segment uses a schema. It may have been forgotten since it was sent.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn uses(&mut self, id: SchemaId, schema: &Schema) -> Result<(), StoreError> {
        if self.used.contains(&id) {
            return Ok(());
        }
        let (path, bytes) = (self.path(id), schema.to_bytes());
        if !path.exists() && schema_id(&bytes) == id {
            replace_file(&path, &bytes).map_err(|source| StoreError::Io { path, source })?;
        }
        self.used.insert(id);
        Ok(())
    }

    /// A segment is closed at `now`: forgets what no segment written after `keep_from` can use.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn rotate(&mut self, keep_from: UnixMicros, now: UnixMicros) -> Result<(), StoreError> {
        for id in std::mem::take(&mut self.used) {
            // One that cannot be marked is written again by its next frame.
            let _ = mark(&self.path(id), now);
        }
        self.brought.clear();
        let fail = |source| StoreError::Io { path: self.directory.clone(), source };
        for entry in std::fs::read_dir(&self.directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if modified(&path) < keep_from {
                std::fs::remove_file(&path).map_err(|source| StoreError::Io { path, source })?;
            }
        }
        Ok(())
    }

    fn path(&self, id: SchemaId) -> PathBuf {
        self.directory.join(file_name(id))
    }
}

/// A schema kept in a store's directory.
#[must_use]
pub fn read_schema(store: &Path, id: SchemaId) -> Option<Schema> {
    let bytes = std::fs::read(store.join("schemas").join(file_name(id))).ok()?;
    Schema::from_bytes(&bytes).ok()
}

fn file_name(id: SchemaId) -> String {
    format!("{id}.json")
}

fn mark(path: &Path, now: UnixMicros) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_micros(now.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diarwatch_shared::clock;
    use diarwatch_shared::schema::{GroupDef, SeriesDef, SeriesKey};

    fn schema(name: &str) -> (SchemaId, Schema) {
        let series = vec![SeriesDef::of(SeriesKey::new(name, &[]))];
        let schema = Schema::new(vec![GroupDef { name: "g".into(), series }]);
        (schema_id(&schema.to_bytes()), schema)
    }

    fn node() -> NodeId {
        NodeId::new("gpu-01").unwrap()
    }

    #[test]
    fn a_schema_is_forgotten_when_no_kept_segment_can_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut schemas = Schemas::open(dir.path(), BTreeSet::new()).unwrap();
        let [(old, old_schema), (live, live_schema)] = [schema("old"), schema("live")];
        for (id, schema) in [(old, &old_schema), (live, &live_schema)] {
            assert!(schemas.keep(&node(), id, &schema.to_bytes()).unwrap());
            schemas.uses(id, schema).unwrap();
        }
        let day = |number: u32| clock::now().plus(Duration::from_secs(86_400) * number);
        schemas.rotate(day(0).minus(Duration::from_secs(86_400)), day(0)).unwrap();
        schemas.uses(live, &live_schema).unwrap();
        schemas.rotate(day(1), day(2)).unwrap();
        assert!(read_schema(dir.path(), old).is_none());
        assert_eq!(read_schema(dir.path(), live).as_ref(), Some(&live_schema));
        // The connection that sent it long ago sends a frame of it again.
        schemas.uses(old, &old_schema).unwrap();
        assert_eq!(read_schema(dir.path(), old).as_ref(), Some(&old_schema));
    }

    #[test]
    fn a_node_that_makes_up_schemas_is_stopped_and_its_neighbour_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut schemas = Schemas::open(dir.path(), BTreeSet::new()).unwrap();
        let mut keep = |node: &NodeId, number: usize| {
            let (id, schema) = schema(&format!("m{number}"));
            schemas.keep(node, id, &schema.to_bytes()).unwrap()
        };
        assert!((0..NODE_SCHEMAS_MAX).all(|number| keep(&node(), number)));
        assert!(!keep(&node(), NODE_SCHEMAS_MAX));
        assert!(keep(&node(), 0), "a known one is no new one");
        assert!(keep(&NodeId::new("gpu-02").unwrap(), NODE_SCHEMAS_MAX));
        schemas.rotate(UnixMicros(0), clock::now()).unwrap();
        let (id, schema) = schema("later");
        assert!(schemas.keep(&node(), id, &schema.to_bytes()).unwrap(), "the next segment is a new count");
    }
}
