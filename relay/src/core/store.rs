//! What the relay remembers, in SQLite: nodes' certificates and last announces, descriptions by digest, the newest
//! fleet-signed notices and deployments. Nothing here is trusted by anybody: signed parts are verified again by their readers.
//! WAL with `synchronous = NORMAL`: a power cut may lose the last seconds, never the file.

use std::path::Path;

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, KeyId};
use outhaul_protocol::time::Time;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// The version of the tables below; a newer file is refused.
const VERSION: i64 = 2;
/// KiB of pages SQLite keeps: the relay's memory stays flat whatever the fleet's size.
const CACHE_KIB: i64 = 1024;
/// Bytes of all descriptions together; what was not asked for the longest goes first.
const DESCRIPTIONS: i64 = 256 << 20;

const SCHEMA: &str = "
CREATE TABLE nodes(
    id BLOB PRIMARY KEY, name TEXT NOT NULL, certificate BLOB NOT NULL, accepted_at INTEGER NOT NULL,
    connected_at INTEGER NOT NULL DEFAULT 0, last_seen INTEGER NOT NULL DEFAULT 0, announce BLOB);
CREATE INDEX nodes_by_name ON nodes(name);
CREATE TABLE removed(id BLOB PRIMARY KEY, serial INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE TABLE descriptions(digest BLOB PRIMARY KEY, bytes BLOB NOT NULL, used_at INTEGER NOT NULL);
CREATE TABLE notices(kind TEXT PRIMARY KEY, signed BLOB NOT NULL, chain BLOB NOT NULL, accepted_at INTEGER NOT NULL);
";
/// What version 2 has beside it.
const SINCE_2: &str = "
CREATE TABLE deployments(name TEXT PRIMARY KEY, signed BLOB NOT NULL, chain BLOB NOT NULL, accepted_at INTEGER NOT NULL);
";

/// The open database. Lives on its own thread.
#[derive(Debug)]
pub(crate) struct Db {
    connection: Connection,
}

/// A node as kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) id: KeyId,
    pub(crate) certificate: Vec<u8>,
    pub(crate) accepted_at: Time,
    pub(crate) connected_at: Time,
    pub(crate) last_seen: Time,
    pub(crate) announce: Option<Vec<u8>>,
}

/// A notice as kept.
#[derive(Debug, Clone)]
pub(crate) struct KeptNotice {
    pub(crate) signed: Vec<u8>,
    pub(crate) chain: Vec<u8>,
    pub(crate) accepted_at: Time,
}

/// The database failed. Peers hear only that; the log has the rest.
#[derive(Debug, thiserror::Error)]
#[error("the relay's database: {0}")]
pub(crate) struct StoreError(#[from] rusqlite::Error);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the database failed");
        Failure::new(Code::Internal, "the relay could not read or write its database")
    }
}

type Stored<T> = Result<T, StoreError>;

const NODE: &str = "SELECT id, certificate, accepted_at, connected_at, last_seen, announce FROM nodes";

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let time = |at: usize| row.get::<_, i64>(at).map(|secs| Time(secs.unsigned_abs()));
    Ok(Kept {
        id: KeyId(row.get(0)?),
        certificate: row.get(1)?,
        accepted_at: time(2)?,
        connected_at: time(3)?,
        last_seen: time(4)?,
        announce: row.get(5)?,
    })
}

/// Times fit; serials may use all 64 bits and are kept as they are, bit by bit.
fn bits(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

impl Db {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Db, Failure> {
        let failed = |what: &dyn std::fmt::Display| Failure::new(Code::BadConfig, format!("open `{}`: {what}", path.display()));
        let connection = Connection::open(path).map_err(|error| failed(&error))?;
        let db = Db { connection };
        match db.prepare().map_err(|error| failed(&error))? {
            VERSION => Ok(db),
            other => Err(failed(&format!("it is of version {other}, this relay knows {VERSION}"))
                .hint("update the relay, or move the file away: nodes come back by themselves")),
        }
    }

    fn prepare(&self) -> rusqlite::Result<i64> {
        let db = &self.connection;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.pragma_update(None, "journal_size_limit", 4 << 20)?;
        let version = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let missing = match version {
            0 => format!("{SCHEMA}{SINCE_2}"),
            1 => SINCE_2.to_owned(),
            _ => return Ok(version),
        };
        db.execute_batch(&format!("BEGIN; {missing} PRAGMA user_version = {VERSION}; COMMIT;"))?;
        Ok(VERSION)
    }

    /// Writes the log back into the file: what a drain ends with.
    pub(crate) fn checkpoint(&mut self) -> Stored<()> {
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// A node by its id.
    pub(crate) fn node(&mut self, id: &KeyId) -> Stored<Option<Kept>> {
        let mut query = self.connection.prepare_cached(&format!("{NODE} WHERE id = ?1"))?;
        Ok(query.query_row([&id.0[..]], kept).optional()?)
    }

    /// Nodes by id, from one on; at most so many.
    pub(crate) fn nodes_after(&mut self, after: Option<&KeyId>, most: u32) -> Stored<Vec<Kept>> {
        let mut query = self.connection.prepare_cached(&format!("{NODE} WHERE id > ?1 ORDER BY id LIMIT ?2"))?;
        let after = after.map_or(&[][..], |id| &id.0[..]);
        let rows = query.query_map(params![after, most], kept)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Nodes of this name, or whose id begins with it.
    pub(crate) fn nodes_named(&mut self, name: &str, most: u32) -> Stored<Vec<Kept>> {
        let (low, high) = prefix(name).unwrap_or(([0xff; 32], [0; 32]));
        let mut query = self.connection.prepare_cached(&format!("{NODE} WHERE name = ?1 OR id BETWEEN ?2 AND ?3 ORDER BY id LIMIT ?4"))?;
        let rows = query.query_map(params![name, &low[..], &high[..], most], kept)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Other nodes than these that hold a name.
    pub(crate) fn holds_name(&mut self, name: &str, except: [&KeyId; 2]) -> Stored<bool> {
        let mut query = self.connection.prepare_cached("SELECT 1 FROM nodes WHERE name = ?1 AND id NOT IN (?2, ?3)")?;
        Ok(query.exists(params![name, &except[0].0[..], &except[1].0[..]])?)
    }

    /// A new or newer certificate. Whoever puts it has verified it.
    pub(crate) fn put_node(&mut self, id: &KeyId, name: &str, certificate: &[u8], at: Time) -> Stored<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO nodes(id, name, certificate, accepted_at) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(id) DO UPDATE SET name = ?2, certificate = ?3, accepted_at = ?4",
            )?
            .execute(params![&id.0[..], name, certificate, bits(at.0)])?;
        self.connection.prepare_cached("DELETE FROM removed WHERE id = ?1")?.execute([&id.0[..]])?;
        Ok(())
    }

    /// Forgets a node; its certificates up to this serial bring it back no more.
    pub(crate) fn remove_node(&mut self, id: &KeyId, serial: u64, at: Time) -> Stored<()> {
        self.connection.prepare_cached("DELETE FROM nodes WHERE id = ?1")?.execute([&id.0[..]])?;
        self.connection.prepare_cached("INSERT OR REPLACE INTO removed(id, serial, at) VALUES(?1, ?2, ?3)")?.execute(params![
            &id.0[..],
            bits(serial),
            bits(at.0)
        ])?;
        Ok(())
    }

    /// The serial up to which certificates of a removed node count no more.
    pub(crate) fn removed(&mut self, id: &KeyId) -> Stored<Option<u64>> {
        let mut query = self.connection.prepare_cached("SELECT serial FROM removed WHERE id = ?1")?;
        let serial: Option<i64> = query.query_row([&id.0[..]], |row| row.get(0)).optional()?;
        Ok(serial.map(|serial| u64::from_ne_bytes(serial.to_ne_bytes())))
    }

    /// A node has connected.
    pub(crate) fn connected(&mut self, id: &KeyId, at: Time) -> Stored<()> {
        self.connection
            .prepare_cached("UPDATE nodes SET connected_at = ?2, last_seen = ?2 WHERE id = ?1")?
            .execute(params![&id.0[..], bits(at.0)])?;
        Ok(())
    }

    /// When nodes were last heard, all in one go.
    pub(crate) fn seen(&mut self, nodes: &[(KeyId, Time)]) -> Stored<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut update = transaction.prepare_cached("UPDATE nodes SET last_seen = ?2 WHERE id = ?1 AND last_seen < ?2")?;
            for (id, at) in nodes {
                update.execute(params![&id.0[..], bits(at.0)])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// A node's newest announce.
    pub(crate) fn put_announce(&mut self, id: &KeyId, announce: &[u8]) -> Stored<()> {
        self.connection.prepare_cached("UPDATE nodes SET announce = ?2 WHERE id = ?1")?.execute(params![&id.0[..], announce])?;
        Ok(())
    }

    /// Which of these descriptions are not here; the others count as used now.
    pub(crate) fn unknown_descriptions(&mut self, digests: Vec<Digest>, at: Time) -> Stored<Vec<Digest>> {
        let mut use_it = self.connection.prepare_cached("UPDATE descriptions SET used_at = ?2 WHERE digest = ?1")?;
        let mut unknown = Vec::new();
        for digest in digests {
            if use_it.execute(params![&digest.0[..], bits(at.0)])? == 0 && !unknown.contains(&digest) {
                unknown.push(digest);
            }
        }
        Ok(unknown)
    }

    /// A description by its digest.
    pub(crate) fn description(&mut self, digest: &Digest) -> Stored<Option<Vec<u8>>> {
        let mut query = self.connection.prepare_cached("SELECT bytes FROM descriptions WHERE digest = ?1")?;
        Ok(query.query_row([&digest.0[..]], |row| row.get(0)).optional()?)
    }

    /// Keeps a description whose digest was checked, and forgets those not used for the longest when all are too many.
    pub(crate) fn put_description(&mut self, digest: &Digest, bytes: &[u8], at: Time) -> Stored<()> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO descriptions(digest, bytes, used_at) VALUES(?1, ?2, ?3)")?
            .execute(params![&digest.0[..], bytes, bits(at.0)])?;
        let mut total: i64 = self.connection.query_row("SELECT coalesce(sum(length(bytes)), 0) FROM descriptions", [], |row| row.get(0))?;
        while total > DESCRIPTIONS {
            let oldest = "SELECT digest, length(bytes) FROM descriptions WHERE digest != ?1 ORDER BY used_at LIMIT 1";
            let found: Option<([u8; 32], i64)> =
                self.connection.query_row(oldest, [&digest.0[..]], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((oldest, length)) = found else { break };
            self.connection.execute("DELETE FROM descriptions WHERE digest = ?1", [&oldest[..]])?;
            total -= length;
        }
        Ok(())
    }

    /// The newest notice of a kind.
    pub(crate) fn notice(&mut self, kind: &str) -> Stored<Option<KeptNotice>> {
        let mut query = self.connection.prepare_cached("SELECT signed, chain, accepted_at FROM notices WHERE kind = ?1")?;
        Ok(query.query_row([kind], |row| notice(row, 0)).optional()?)
    }

    /// The newest deployment of each name.
    pub(crate) fn deployments(&mut self) -> Stored<Vec<(String, KeptNotice)>> {
        let mut query = self.connection.prepare_cached("SELECT name, signed, chain, accepted_at FROM deployments ORDER BY name")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, notice(row, 1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Keeps a deployment that was verified and found newer.
    pub(crate) fn put_deployment(&mut self, name: &str, kept: &KeptNotice) -> Stored<()> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO deployments(name, signed, chain, accepted_at) VALUES(?1, ?2, ?3, ?4)")?
            .execute(params![name, kept.signed, kept.chain, bits(kept.accepted_at.0)])?;
        Ok(())
    }

    /// Keeps a notice that was verified and found newer.
    pub(crate) fn put_notice(&mut self, kind: &str, notice: &KeptNotice) -> Stored<()> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO notices(kind, signed, chain, accepted_at) VALUES(?1, ?2, ?3, ?4)")?
            .execute(params![kind, notice.signed, notice.chain, bits(notice.accepted_at.0)])?;
        Ok(())
    }
}

/// Signed bytes, chain and time, from this column on.
fn notice(row: &Row<'_>, at: usize) -> rusqlite::Result<KeptNotice> {
    let accepted_at = Time(row.get::<_, i64>(at + 2)?.unsigned_abs());
    Ok(KeptNotice { signed: row.get(at)?, chain: row.get(at + 1)?, accepted_at })
}

/// The lowest and highest id that begin with these hexadecimal digits.
fn prefix(text: &str) -> Option<([u8; 32], [u8; 32])> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.is_empty() || text.len() > 64 || !digits {
        return None;
    }
    let filled = |with: &str| -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(format!("{text}{}", with.repeat(64 - text.len())), &mut bytes).ok()?;
        Some(bytes)
    };
    Some((filled("0")?, filled("f")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::keys::sha256;

    fn db() -> (Db, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a folder");
        (Db::open(&dir.path().join("relay.db")).expect("opens"), dir)
    }

    #[test]
    fn nodes_are_found_by_id_name_and_prefix_and_survive() {
        let (mut db, dir) = db();
        let (one, two) = (KeyId([0xab; 32]), KeyId([0xac; 32]));
        db.put_node(&one, "bench-1", b"c1", Time(5)).expect("puts");
        db.put_node(&two, "bench-2", b"c2", Time(6)).expect("puts");
        db.connected(&one, Time(7)).expect("writes");
        db.seen(&[(one, Time(9)), (two, Time(8))]).expect("writes");
        db.put_announce(&one, b"a").expect("writes");
        drop(db);
        let mut db = Db::open(&dir.path().join("relay.db")).expect("opens again");
        let node = db.node(&one).expect("reads").expect("is there");
        assert_eq!((node.certificate.as_slice(), node.announce.as_deref()), (&b"c1"[..], Some(&b"a"[..])));
        assert_eq!((node.accepted_at, node.connected_at, node.last_seen), (Time(5), Time(7), Time(9)));
        let ids = |found: Vec<Kept>| found.into_iter().map(|kept| kept.id).collect::<Vec<_>>();
        assert_eq!(ids(db.nodes_named("bench-2", 9).expect("reads")), [two]);
        assert_eq!(ids(db.nodes_named("ab", 9).expect("reads")), [one]);
        assert_eq!(ids(db.nodes_named("a", 9).expect("reads")), [one, two]);
        assert_eq!(ids(db.nodes_named("bench", 9).expect("reads")), []);
        assert_eq!(ids(db.nodes_after(None, 1).expect("reads")), [one]);
        assert_eq!(ids(db.nodes_after(Some(&one), 9).expect("reads")), [two]);
        assert!(db.holds_name("bench-1", [&two, &two]).expect("reads") && !db.holds_name("bench-1", [&one, &two]).expect("reads"));
    }

    #[test]
    fn a_removed_node_leaves_its_serial() {
        let (mut db, _dir) = db();
        let id = KeyId([1; 32]);
        db.put_node(&id, "x", b"c", Time(1)).expect("puts");
        db.remove_node(&id, u64::MAX, Time(2)).expect("removes");
        assert!(db.node(&id).expect("reads").is_none());
        assert_eq!(db.removed(&id).expect("reads"), Some(u64::MAX));
        db.put_node(&id, "x", b"c2", Time(3)).expect("puts");
        assert_eq!(db.removed(&id).expect("reads"), None);
    }

    #[test]
    fn descriptions_are_asked_for_once() {
        let (mut db, _dir) = db();
        let (one, two) = (sha256(b"one"), sha256(b"two"));
        db.put_description(&one, b"one", Time(1)).expect("puts");
        assert_eq!(db.unknown_descriptions(vec![one, two, two], Time(2)).expect("reads"), [two]);
        assert_eq!(db.description(&one).expect("reads").as_deref(), Some(&b"one"[..]));
        assert_eq!(db.description(&two).expect("reads"), None);
    }

    #[test]
    fn a_file_of_an_older_relay_goes_on() {
        let (mut db, dir) = db();
        db.put_node(&KeyId([1; 32]), "x", b"c", Time(1)).expect("puts");
        db.connection.execute_batch("DROP TABLE deployments; PRAGMA user_version = 1;").expect("as it was");
        drop(db);
        let mut db = Db::open(&dir.path().join("relay.db")).expect("opens");
        assert!(db.node(&KeyId([1; 32])).expect("reads").is_some() && db.deployments().expect("reads").is_empty());
        let kept = KeptNotice { signed: vec![1], chain: vec![2], accepted_at: Time(3) };
        db.put_deployment("thermal", &kept).expect("puts");
        assert_eq!(db.deployments().expect("reads")[0].0, "thermal");
    }

    #[test]
    fn a_file_of_a_newer_relay_is_refused() {
        let (db, dir) = db();
        db.connection.pragma_update(None, "user_version", 9).expect("sets");
        drop(db);
        let failure = Db::open(&dir.path().join("relay.db")).expect_err("newer");
        assert!(failure.message.ends_with("it is of version 9, this relay knows 2"), "{failure}");
    }
}
