//! Opening: look before SQLite does, recover, check, then count the boot epoch up.
//!
//! Nothing is written before everything has been checked, except that the tables of a store which
//! was never opened before are made. Order of what becomes durable: the recovered log folded into
//! the database file and emptied, epoch + 1 with "not clean", that folded in as well. So every
//! frame in the log belongs to this boot, and a database file that says "not clean" must have a log
//! file beside it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evermill_core::row::Table;
use rusqlite::config::DbConfig;
use rusqlite::types::FromSql;
use rusqlite::{Connection, DEFAULT_NAME, ErrorCode, FileControl, OpenFlags, params};

use super::commit::Tx;
use super::history::Segment;
use super::{Options, SqliteStore, checkpoint, file, log, schema};
use crate::error::{CommitError, StoreError};
use crate::header::{FORMAT, HeaderRow};
use crate::limits;
use crate::lock::DirLock;
use crate::step::Step;
use crate::store::{Header, StoreId};
use crate::sum::{Sums, Tally};

/// See [`SqliteStore::open`].
pub(super) fn open(lock: DirLock, options: Options) -> Result<SqliteStore, StoreError> {
    refuse_network(lock.dir())?;
    options.step(Step::OpenLocked);
    let path = lock.dir().join(SqliteStore::FILE);
    let log_found = look(&path, &options)?;
    let connection =
        connect(&path, &options).map_err(|error| sqlite_error(&path, "opening", &error))?;
    make_tables(&connection, &path, &options)?;

    let row = read_header(&connection, &path)?;
    if !log_found && !row.clean {
        let what = format!("its log {} is missing", log_path(&path).display());
        return Err(StoreError::Damaged { path, what });
    }
    let sums = Sums::new(row.store_id);
    check_shards(&connection, &path, &row, sums)?;
    let closed_segments = read_segments(&connection, &path, &row, sums)?;
    check_schema(&connection, &path, &row, &closed_segments)?;

    let opened = Header {
        format: FORMAT,
        store_id: row.store_id,
        epoch: row.epoch + 1,
        clean: row.clean,
        last: row.last(),
    };
    let mut store = SqliteStore {
        connection,
        row,
        opened,
        sums,
        closed_segments,
        options,
        path,
        stopped: false,
        lock,
    };
    count_epoch(&mut store)?;
    Ok(store)
}

/// Makes the file if there is none, and judges file and log; true when there is a log.
fn look(path: &Path, options: &Options) -> Result<bool, StoreError> {
    let failed = |doing| move |cause: std::io::Error| io_error(path, doing, &cause);
    let log = log_path(path);
    if !path.try_exists().map_err(failed("looking for it"))? {
        if log.try_exists().map_err(failed("looking for its log"))? {
            let what = format!("it is missing, but its log {} is there", log.display());
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                what,
            });
        }
        file::create(path).map_err(failed("creating it"))?;
        options.step(Step::OpenFileMade);
    }
    file::check(path)?;
    let found = log::scan(&log).map_err(|cause| io_error(&log, "reading it", &cause))?;
    options.step(Step::OpenLogScanned);
    match found {
        log::Found::Missing => Ok(false),
        log::Found::Sound => Ok(true),
        log::Found::Damaged(what) => Err(StoreError::Damaged { path: log, what }),
    }
}

fn log_path(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

fn connect(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // The log file stays for ever, so that its absence means something.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.file_control(DEFAULT_NAME, FileControl::PersistWal(&mut 1))?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous={}; PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON;
         PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit={};
         PRAGMA secure_delete=OFF; PRAGMA cache_size={}; PRAGMA temp_store=MEMORY;
         PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF; PRAGMA mmap_size=0",
        if options.skips_fsync() { "OFF" } else { "FULL" },
        limits::LOG_BYTES_KEPT,
        limits::CACHE_PAGES,
    ))?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Makes the tables of a store that was never opened before, in one transaction.
fn make_tables(connection: &Connection, path: &Path, options: &Options) -> Result<(), StoreError> {
    let failed = |error| sqlite_error(path, "making its tables", &error);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if tables > 0 {
        return Ok(());
    }
    if !file::is_untouched(path).map_err(|cause| io_error(path, "reading it", &cause))? {
        let what = "it has no tables".to_owned();
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            what,
        });
    }
    let id = random_id().map_err(|cause| io_error(path, "drawing its id", &cause))?;
    let body = HeaderRow::new(id).encode();
    let make = || {
        let transaction = connection.unchecked_transaction()?;
        for sql in schema::all(&Table::ALL, [0].into_iter()) {
            transaction.execute_batch(&sql)?;
        }
        let sum = Sums::header(&body).cast_signed();
        transaction.execute("INSERT INTO header VALUES(1, ?1, ?2)", params![body, sum])?;
        transaction.commit()
    };
    make().map_err(failed)?;
    options.step(Step::OpenTablesMade);
    Ok(())
}

impl Tx<'_> {
    /// Makes a store of an older format one of [`FORMAT`]: adds the tables it lacks. It is part of
    /// the commit that counts the epoch, so a kill leaves the one or the other.
    fn upgrade(&mut self) -> rusqlite::Result<()> {
        let known = self.next.tables().len();
        for table in &Table::ALL[known..] {
            self.connection.execute_batch(&schema::truth(*table))?;
        }
        self.connection
            .pragma_update(None, "user_version", FORMAT)?;
        self.next.format = FORMAT;
        Ok(())
    }
}

fn random_id() -> std::io::Result<StoreId> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(StoreId(id))
}

/// The first durable act of a boot; it also makes an older format this one.
fn count_epoch(store: &mut SqliteStore) -> Result<(), StoreError> {
    let folded = |store: &SqliteStore| {
        checkpoint(&store.connection, "TRUNCATE")
            .map_err(|error| sqlite_error(&store.path, "folding in its log", &error))
    };
    folded(store)?;
    let epoch = store.opened.epoch;
    let counted = store.transact(|tx| {
        if tx.next.format < FORMAT {
            tx.upgrade()?;
        }
        tx.next.epoch = epoch;
        tx.next.clean = false;
        Ok(())
    });
    counted.map_err(|error| match error {
        CommitError::Full => io_text(&store.path, "counting the boot epoch", "the disk is full"),
        error => StoreError::Stopped(Arc::from(error.to_string())),
    })?;
    store.options.step(Step::OpenEpochCommitted);
    folded(store)?;
    store.options.step(Step::OpenCheckpointed);
    Ok(())
}

/// Reads and judges the header row.
pub(super) fn read_header(connection: &Connection, path: &Path) -> Result<HeaderRow, StoreError> {
    let damaged = |what: &str| StoreError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let failed = |error| sqlite_error(path, "reading its header row", &error);
    let (body, sum) = connection
        .prepare_cached("SELECT body, sum FROM header WHERE id = 1")
        .and_then(|mut select| {
            select.query_row([], |row| Ok((get::<Vec<u8>>(row, 0)?, get::<i64>(row, 1)?)))
        })
        .map_err(failed)?;
    if Sums::header(&body) != sum.cast_unsigned() {
        return Err(damaged("the header row fails its checksum"));
    }
    let row =
        HeaderRow::decode(&body).ok_or_else(|| damaged("the header row has a wrong shape"))?;
    let format: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed)?;
    if row.format == format {
        Ok(row)
    } else {
        Err(damaged("the header row has another format than the file"))
    }
}

/// Reads and judges the shards.
pub(super) fn check_shards(
    connection: &Connection,
    path: &Path,
    header: &HeaderRow,
    sums: Sums,
) -> Result<(), StoreError> {
    let failed = |error| sqlite_error(path, "reading its shards", &error);
    let damaged = |what: &str| StoreError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let mut statement = connection
        .prepare("SELECT shard, token, epoch, sum FROM shard")
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut tally = Tally::default();
    while let Some(row) = rows.next().map_err(failed)? {
        let shard: u32 = get(row, 0).map_err(failed)?;
        let number = |column| {
            get::<i64>(row, column)
                .map(i64::cast_unsigned)
                .map_err(failed)
        };
        let sum = sums.shard(shard, number(1)?, number(2)?);
        if sum != number(3)? {
            return Err(damaged("a shard's row fails its checksum"));
        }
        tally.add(sum);
    }
    if tally == header.shards {
        return Ok(());
    }
    Err(damaged(
        "the rows of table shard are not the ones last written",
    ))
}

/// Reads and judges the summaries of closed segments, oldest first.
pub(super) fn read_segments(
    connection: &Connection,
    path: &Path,
    header: &HeaderRow,
    sums: Sums,
) -> Result<Vec<Segment>, StoreError> {
    let failed = |error| sqlite_error(path, "reading its segments", &error);
    let damaged = |what: &str| StoreError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let mut statement = connection
        .prepare_cached("SELECT number, body, sum FROM segment ORDER BY number")
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut tally = Tally::default();
    let mut segments = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let number = get::<i64>(row, 0).map_err(failed)?.cast_unsigned();
        let body: Vec<u8> = get(row, 1).map_err(failed)?;
        let sum = sums.segment(number, &body);
        if sum != get::<i64>(row, 2).map_err(failed)?.cast_unsigned() {
            return Err(damaged("a segment's row fails its checksum"));
        }
        tally.add(sum);
        let segment = Segment::decode(number, &body);
        segments.push(segment.ok_or_else(|| damaged("a segment's row has a wrong shape"))?);
    }
    if tally == header.history.closed {
        return Ok(segments);
    }
    Err(damaged(
        "the rows of table segment are not the ones last written",
    ))
}

/// Compares the schema with what header and segments ask for.
pub(super) fn check_schema(
    connection: &Connection,
    path: &Path,
    header: &HeaderRow,
    closed: &[Segment],
) -> Result<(), StoreError> {
    let numbers = closed
        .iter()
        .map(|segment| segment.number)
        .chain([header.history.open]);
    match schema::difference(connection, header.tables(), numbers) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(StoreError::Damaged {
            path: path.to_owned(),
            what,
        }),
        Err(error) => Err(sqlite_error(path, "reading its schema", &error)),
    }
}

/// A column; a wrong type becomes an error, never a converted value.
fn get<T: FromSql>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T> {
    row.get(column)
}

/// Turns SQLite's refusal into ours. The SQL is fixed, so that whatever is neither I/O nor memory
/// says something about the content.
pub(super) fn sqlite_error(
    path: &Path,
    doing: &'static str,
    error: &rusqlite::Error,
) -> StoreError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::NoLargeFileSupport,
        ) => io_text(path, doing, &error.to_string()),
        _ => StoreError::Damaged {
            path: path.to_owned(),
            what: format!("{doing}: {error}"),
        },
    }
}

fn io_error(path: &Path, doing: &'static str, cause: &std::io::Error) -> StoreError {
    io_text(path, doing, &cause.to_string())
}

fn io_text(path: &Path, doing: &'static str, cause: &str) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        doing,
        cause: Arc::from(cause),
    }
}

/// Locks and fsync are not to be trusted there.
#[cfg(target_os = "linux")]
fn refuse_network(dir: &Path) -> Result<(), StoreError> {
    /// Magic numbers of statfs(2).
    const NETWORK: [(u64, &str); 4] = [
        (0x6969, "NFS"),
        (0x517B, "SMB"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB2"),
    ];
    let stat = rustix::fs::statfs(dir)
        .map_err(|cause| io_error(dir, "asking for its file system", &cause.into()))?;
    let found = NETWORK
        .iter()
        .find(|(magic, _)| *magic == stat.f_type as u64);
    found.map_or(Ok(()), |(_, kind)| {
        Err(StoreError::Network {
            path: dir.to_owned(),
            kind,
        })
    })
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_dir: &Path) -> Result<(), StoreError> {
    Ok(())
}
