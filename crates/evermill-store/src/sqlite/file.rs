//! The database file before SQLite sees it: how an empty one is made, and what its first hundred
//! bytes must say. Offsets are those of <https://www.sqlite.org/fileformat2.html>, section 1.3.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::error::StoreError;
use crate::header::{FORMAT, tables_of};
use crate::limits::{PAGE_BYTES, PAGE_RESERVED_BYTES};
use crate::lock::leave_to_owner;

/// Marks the file as ours: "EvMl".
const APPLICATION_ID: u32 = 0x4576_4D6C;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Both version bytes of a file in WAL mode.
const WAL_MODE: u8 = 2;
/// Version of SQLite that wrote the file; only informative.
const SQLITE_VERSION: u32 = 3_054_001;

/// An empty database of one page: page size and WAL mode set, bytes reserved on every page for
/// checksums. SQLite takes these from the file, and some of them it takes from nowhere else later.
pub(super) fn empty_database() -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let u32_at = |value: u32| value.to_be_bytes();
    put(0, MAGIC);
    put(16, &(PAGE_BYTES as u16).to_be_bytes());
    put(18, &[WAL_MODE, WAL_MODE, PAGE_RESERVED_BYTES as u8]);
    // Payload fractions: fixed by the format.
    put(21, &[64, 32, 32]);
    // Change counter, pages in the file.
    put(24, &u32_at(1));
    put(28, &u32_at(1));
    // Schema format 4, UTF-8.
    put(44, &u32_at(4));
    put(56, &u32_at(1));
    put(60, &u32_at(FORMAT));
    put(68, &u32_at(APPLICATION_ID));
    // The change counter for which the page count holds.
    put(92, &u32_at(1));
    put(96, &u32_at(SQLITE_VERSION));
    // An empty leaf of a table b-tree: no cells, content starts at the end of the usable page.
    put(100, &[13]);
    put(
        105,
        &((PAGE_BYTES - PAGE_RESERVED_BYTES) as u16).to_be_bytes(),
    );
    page
}

/// Makes the file whole or not at all: written aside, synced, renamed, directory synced.
pub(super) fn create(path: &Path) -> io::Result<()> {
    let aside = path.with_extension("db.new");
    let mut file = File::create(&aside)?;
    restrict(&file)?;
    leave_to_owner(&file, &aside)?;
    file.write_all(&empty_database())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    sync_dir(path)
}

#[cfg(unix)]
fn restrict(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn restrict(_file: &File) -> io::Result<()> {
    Ok(())
}

fn sync_dir(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Whether the file is as [`create`] left it.
pub(super) fn is_untouched(path: &Path) -> io::Result<bool> {
    if fs::metadata(path)?.len() != PAGE_BYTES as u64 {
        return Ok(false);
    }
    Ok(fs::read(path)? == empty_database())
}

/// Checks what SQLite would take on trust. Version first: a newer format may change the rest.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let damaged = |what: String| StoreError::Damaged {
        path: path.to_owned(),
        what,
    };
    let mut head = [0_u8; 100];
    let length = File::open(path)
        .and_then(|mut file| file.read_exact(&mut head).and_then(|()| file.metadata()))
        .map_err(|cause| damaged(format!("its first 100 bytes cannot be read ({cause})")))?
        .len();
    let u16_at = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let u32_at =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..16] != *MAGIC {
        return Err(damaged("it is not an SQLite database".to_owned()));
    }
    let application = u32_at(68);
    if application != APPLICATION_ID {
        return Err(damaged(format!(
            "its application id is {application:#010x}, not evermill's {APPLICATION_ID:#010x}"
        )));
    }
    let found = u32_at(60);
    if found > FORMAT {
        return Err(StoreError::NewerFormat {
            path: path.to_owned(),
            found,
            known: FORMAT,
        });
    }
    if tables_of(found).is_none() {
        return Err(damaged(format!("its format is {found}, which never was")));
    }
    let expected: [(&str, u32, u32); 7] = [
        ("page size", u32::from(u16_at(16)), PAGE_BYTES as u32),
        ("write version", u32::from(head[18]), u32::from(WAL_MODE)),
        ("read version", u32::from(head[19]), u32::from(WAL_MODE)),
        (
            "bytes reserved per page",
            u32::from(head[20]),
            PAGE_RESERVED_BYTES as u32,
        ),
        ("schema format", u32_at(44), 4),
        ("auto-vacuum root", u32_at(52), 0),
        ("text encoding", u32_at(56), 1),
    ];
    for (name, found, wanted) in expected {
        if found != wanted {
            return Err(damaged(format!("its {name} is {found}, not {wanted}")));
        }
    }
    if length % PAGE_BYTES as u64 != 0 {
        return Err(damaged(format!(
            "its length of {length} bytes is not a whole number of pages"
        )));
    }
    Ok(())
}
