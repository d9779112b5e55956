//! Versions that no run and no activation needs any more, and what only they had (W16).

use std::collections::BTreeSet;

use bytes::Bytes;
use evermill_core::row::{Key, Table, Write};

use crate::bundle;
use crate::record::Record;
use crate::shard::Shard;

impl Shard {
    /// Forgets them, at the start in the commit that strikes them from their runs' rows. The latest few
    /// of each DAG are kept, to go back to.
    pub(crate) fn forget_unused_versions(&mut self) {
        let mut used: BTreeSet<&str> = self.machine.versions().collect();
        used.extend(self.records.values().flat_map(Record::kept));
        let unused: Vec<String> = self
            .versions
            .keys()
            .filter(|version| !used.contains(version.as_str()))
            .cloned()
            .collect();
        for version in unused {
            self.versions.remove(&version);
            self.forget(Table::Version, &version);
            let folder = bundle::folder(&self.world.data_dir, &version);
            self.executor.forget(&folder.to_string_lossy());
            // What stays behind is a copy that nobody reads.
            std::fs::remove_dir_all(folder).ok();
        }
        let needed: BTreeSet<&String> = self
            .versions
            .values()
            .flat_map(|version| &version.outline.files)
            .collect();
        let files: Vec<String> = self
            .stored_files
            .iter()
            .filter(|file| !needed.contains(file))
            .cloned()
            .collect();
        for file in files {
            self.stored_files.remove(&file);
            self.forget(Table::Bundle, &file);
        }
    }

    fn forget(&mut self, table: Table, hash: &str) {
        let key = Key {
            run: 0,
            lane: 0,
            id: Bytes::copy_from_slice(hash.as_bytes()),
        };
        self.decision.writes.push(Write::Delete(table, key));
        self.unseal();
    }
}
