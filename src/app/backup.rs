//! `ptportal backup` and `restore`: database, keys, certificates and configuration in one tar file, taken while the server
//! serves. Contents in the vault are files of their own; `fsck` tells what a restored database misses of them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::domain::content::ContentHasher;
use crate::domain::time::Timestamp;
use crate::store::{Store, dump};
use crate::vault;

const MANIFEST: &str = "manifest.json";
const ROWS: &str = "database.jsonl";

/// What stands in a backup, at its end, when everything is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub program: String,
    /// Of the tables.
    pub schema: i64,
    pub created: String,
    pub rows: u64,
    /// SHA-256 of each part.
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    /// In bytes.
    pub size: u64,
    pub sha256: String,
}

/// A file beside the database, and its name in the backup.
struct Beside {
    name: String,
    path: PathBuf,
}

/// Host keys, certificate and key, and what tells this installation from another.
fn files(config: &Config, file: Option<&Path>) -> io::Result<Vec<Beside>> {
    let mut all = Vec::new();
    match fs::read_dir(&config.sftp.host_key_dir) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with("ssh_host_") && entry.file_type()?.is_file() {
                    all.push(Beside { name: format!("host-keys/{name}"), path: entry.path() });
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let data = &config.data_dir;
    for (name, path) in [
        ("tls/certificate.pem", config.ftps.certificate.clone()),
        ("tls/private-key.pem", config.ftps.private_key.clone()),
        ("data/share-id", data.join("share-id")),
        ("data/host-keys", data.join("host-keys")),
        ("client.ini", config.mail.client_ini.clone()),
    ] {
        if path.is_file() {
            all.push(Beside { name: name.to_owned(), path });
        }
    }
    if let Some(path) = file {
        all.push(Beside { name: "ptportal.toml".to_owned(), path: path.to_owned() });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Where a part goes back to; nothing for what an operator puts back by hand.
fn home_of(config: &Config, name: &str) -> Option<PathBuf> {
    match name {
        "tls/certificate.pem" => Some(config.ftps.certificate.clone()),
        "tls/private-key.pem" => Some(config.ftps.private_key.clone()),
        "data/share-id" => Some(config.data_dir.join("share-id")),
        "data/host-keys" => Some(config.data_dir.join("host-keys")),
        _ => {
            let key = name.strip_prefix("host-keys/")?;
            let is_plain = key.starts_with("ssh_host_") && !key.contains(['/', '\0']);
            is_plain.then(|| config.sftp.host_key_dir.join(key))
        }
    }
}

/// Writes a backup; the file must not be there.
///
/// # Errors
/// Database or disk; then no file stays.
pub async fn backup(
    store: &Store,
    (config, file): (&Config, Option<&Path>),
    target: &Path,
    now: Timestamp,
) -> anyhow::Result<Manifest> {
    let mut options = fs::OpenOptions::new();
    let open = options.write(true).create_new(true).mode(0o600).open(target);
    let out = open.map_err(|error| anyhow::anyhow!("{}: {error}", target.display()))?;
    let written = write(store, (config, file), out, target, now).await;
    if written.is_err() {
        // Half a backup is worse than none.
        fs::remove_file(target).ok();
    }
    written
}

async fn write(
    store: &Store,
    (config, file): (&Config, Option<&Path>),
    out: File,
    target: &Path,
    now: Timestamp,
) -> anyhow::Result<Manifest> {
    // A tar wants sizes first, so rows go to a file beside before.
    let rows_path = target.with_extension("rows.part");
    let mut options = fs::OpenOptions::new();
    let rows_file =
        options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&rows_path)?;
    // Nobody finds it, whatever happens.
    fs::remove_file(&rows_path)?;
    let mut rows = BufWriter::new(rows_file);
    let mut count = 0u64;
    store
        .dump(|table, row| {
            count = count.saturating_add(1);
            serde_json::to_writer(&mut rows, &serde_json::json!([table, row]))?;
            rows.write_all(b"\n")
        })
        .await?;
    let mut rows = rows.into_inner().map_err(io::IntoInnerError::into_error)?;
    let mut tar = tar::Builder::new(BufWriter::new(out));
    let mut parts = vec![append(&mut tar, ROWS, &mut rows, now)?];
    for beside in files(config, file)? {
        parts.push(append(&mut tar, &beside.name, &mut File::open(&beside.path)?, now)?);
    }
    let manifest = Manifest {
        program: format!("ptportal {}", env!("CARGO_PKG_VERSION")),
        schema: dump::schema_version(),
        created: now.to_string(),
        rows: count,
        parts,
    };
    let text = serde_json::to_vec_pretty(&manifest)?;
    let mut header = header(u64::try_from(text.len())?, now);
    tar.append_data(&mut header, MANIFEST, text.as_slice())?;
    let mut out = tar.into_inner()?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(manifest)
}

fn header(size: u64, now: Timestamp) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(u64::from(now.seconds()));
    header
}

fn append(
    tar: &mut tar::Builder<BufWriter<File>>,
    name: &str,
    file: &mut File,
    now: Timestamp,
) -> anyhow::Result<Part> {
    file.seek(SeekFrom::Start(0))?;
    let size = file.metadata()?.len();
    let mut hashed = Hashed { inner: file.take(size), hasher: ContentHasher::default() };
    let mut header = header(size, now);
    tar.append_data(&mut header, name, &mut hashed)?;
    let sha256 = hashed.hasher.finish().as_str().to_owned();
    Ok(Part { name: name.to_owned(), size, sha256 })
}

/// Hashes what is read through it.
struct Hashed<R> {
    inner: R,
    hasher: ContentHasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct Restored {
    pub rows: u64,
    pub files: Vec<String>,
    /// Were there already and are others, so they stay.
    pub kept: Vec<String>,
    /// Stay in the backup: their places are not for the service to write to.
    pub by_hand: Vec<String>,
}

/// Puts a backup back: into an empty database, and files where none are.
///
/// # Errors
/// A damaged or newer backup, a database that is in use; then nothing has changed.
pub async fn restore(store: &Store, config: &Config, source: &Path) -> anyhow::Result<Restored> {
    let manifest = check(source)?;
    anyhow::ensure!(
        manifest.schema <= dump::schema_version(),
        "the backup is from a newer version ({}); install that one first",
        manifest.program
    );
    store.migrate_to(manifest.schema).await?;
    anyhow::ensure!(
        !store.is_in_use().await?,
        "the database is in use; restore into an empty data_dir (or an empty PostgreSQL database)"
    );
    let rows = part(source, ROWS)?;
    let lines = BufReader::new(rows).lines().map(|line| {
        let (table, row): (String, Map<String, Value>) = serde_json::from_str(&line?)?;
        Ok((table, row))
    });
    let mut restored = Restored { rows: store.fill(lines).await?, ..Restored::default() };
    store.migrate().await?;
    for each in &manifest.parts {
        let Some(home) = home_of(config, &each.name) else {
            if each.name != ROWS {
                restored.by_hand.push(each.name.clone());
            }
            continue;
        };
        let mut bytes = Vec::new();
        part(source, &each.name)?.read_to_end(&mut bytes)?;
        if home.exists() {
            if fs::read(&home)? != bytes {
                restored.kept.push(home.display().to_string());
            }
            continue;
        }
        let (Some(dir), Some(name)) = (home.parent(), home.file_name()) else { continue };
        vault::make_private_dir(dir)?;
        vault::write_private(dir, &name.to_string_lossy(), &bytes)?;
        restored.files.push(home.display().to_string());
    }
    Ok(restored)
}

/// Reads a backup from end to end and compares what it holds with what it says.
fn check(source: &Path) -> anyhow::Result<Manifest> {
    let open = || File::open(source).map_err(|e| anyhow::anyhow!("{}: {e}", source.display()));
    let mut found = Vec::new();
    let mut manifest = None;
    for entry in tar::Archive::new(BufReader::new(open()?)).entries()? {
        let mut entry =
            entry.map_err(|e| anyhow::anyhow!("{}: no backup: {e}", source.display()))?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if name == MANIFEST {
            manifest = Some(serde_json::from_reader::<_, Manifest>(&mut entry)?);
            continue;
        }
        let size = entry.size();
        let mut hashed = Hashed { inner: &mut entry, hasher: ContentHasher::default() };
        io::copy(&mut hashed, &mut io::sink())?;
        found.push(Part { name, size, sha256: hashed.hasher.finish().as_str().to_owned() });
    }
    let manifest = manifest.ok_or_else(|| {
        anyhow::anyhow!(
            "{} is cut off, or no backup of ptportal: it has no manifest",
            source.display()
        )
    })?;
    for part in &manifest.parts {
        let is_whole = found
            .iter()
            .any(|f| f.name == part.name && f.sha256 == part.sha256 && f.size == part.size);
        anyhow::ensure!(
            is_whole,
            "{}: {} is damaged; use another backup",
            source.display(),
            part.name
        );
    }
    Ok(manifest)
}

/// One part of a backup.
fn part(source: &Path, wanted: &str) -> anyhow::Result<impl Read + use<>> {
    let mut file = File::open(source)?;
    let mut place = None;
    for entry in tar::Archive::new(&mut file).entries_with_seek()? {
        let entry = entry?;
        if entry.path()?.to_string_lossy() == wanted {
            place = Some((entry.raw_file_position(), entry.size()));
            break;
        }
    }
    let (position, size) = place.ok_or_else(|| anyhow::anyhow!("the backup has no {wanted}"))?;
    file.seek(SeekFrom::Start(position))?;
    Ok(file.take(size))
}
