//! Finds the file, overlays the environment, and says where each value came from.

use std::io;
use std::path::{Path, PathBuf};

use super::Config;
use super::given::{self, Settings};
use super::reader::Reader;
use super::sections;

const FILE_NAME: &str = "ptportal.toml";
const SYSTEM_FILE: &str = "/etc/ptportal/ptportal.toml";

/// A configuration and where it came from (spec section 4).
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// One per key, in the order of spec section 4.
    pub origins: Vec<Origin>,
}

/// Where the value of one key came from (spec section 4, for `ptportal config show`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// For example `scan.window`.
    pub key: String,
    /// As TOML, as it was written; a password in `database.url` is masked.
    pub value: String,
    pub source: Source,
}

/// The source of a value (spec section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Default,
    File { line: usize },
    Environment { variable: String },
}

impl Source {
    /// `default`, `ptportal.toml:12` or the variable's name, for the operator (spec section 4).
    pub fn describe(&self, file: Option<&Path>) -> String {
        let name = file.and_then(Path::file_name).map_or(Path::new(FILE_NAME), Path::new);
        self.place(Some(name))
    }

    /// The same with the whole path, as error messages begin.
    pub(super) fn place(&self, file: Option<&Path>) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::File { line } => {
                format!("{}:{line}", file.unwrap_or(Path::new(FILE_NAME)).display())
            }
            Self::Environment { variable } => variable.clone(),
        }
    }
}

/// Why the start is refused: one line with file, line, key and what to do (spec section 4).
#[derive(thiserror::Error, Debug)]
pub enum ConfigError {
    #[error("{}: there is no such file; create it or correct --config", .path.display())]
    Missing { path: PathBuf },
    #[error("{}: cannot be read: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: io::Error },
    /// Not TOML.
    #[error("{place}: {problem}")]
    Syntax { place: String, problem: String },
    /// A key that is unknown, or not part of this version.
    #[error("{place}: {key}: {problem}")]
    Key { place: String, key: String, problem: String },
    /// A value of the wrong type, out of range, or against another value.
    #[error("{place}: {key}: {problem}")]
    Value { place: String, key: String, problem: String },
}

/// Reads the configuration (spec section 4).
///
/// Without `explicit`, `ptportal.toml` in the working directory is tried, then
/// `/etc/ptportal/ptportal.toml`; without either the defaults hold. Variables of `environment`
/// override the file.
pub fn load(
    explicit: Option<&Path>,
    working_dir: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let file = match explicit {
        Some(path) => {
            let path = working_dir.join(path);
            Some(read(&path)?.ok_or(ConfigError::Missing { path })?)
        }
        None => match read_here(&working_dir.join(FILE_NAME))? {
            Some(file) => Some(file),
            None => read(Path::new(SYSTEM_FILE))?,
        },
    };
    interpret(file, working_dir, environment.into_iter().collect())
}

/// The file's path and bytes; none if it does not exist.
type Found = (PathBuf, Vec<u8>);

fn read(path: &Path) -> Result<Option<Found>, ConfigError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some((path.to_owned(), bytes))),
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(ConfigError::Unreadable { path: path.to_owned(), reason }),
    }
}

/// As [`read`]; in a folder that this user may not look into (`sudo -u` from someone's home) nothing is meant for it.
fn read_here(path: &Path) -> Result<Option<Found>, ConfigError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Ok(_) | Err(_) => read(path),
    }
}

/// All of [`load`] but the search for the file.
pub(super) fn interpret(
    file: Option<Found>,
    working_dir: &Path,
    environment: Vec<(String, String)>,
) -> Result<Loaded, ConfigError> {
    let known = known_keys()?;
    let (file, mut settings) = match file {
        Some((path, bytes)) => {
            let settings = Settings::parse(&path, &bytes)?;
            (Some(path), settings)
        }
        None => (None, Settings::default()),
    };
    let base = file.as_deref().and_then(Path::parent).unwrap_or(working_dir).to_owned();
    given::overlay(&mut settings, environment, &known)?;
    given::refuse_unknown(&settings, &known, file.as_deref())?;
    let mut reader = Reader::new(file.clone(), base, settings);
    let config = sections::read(&mut reader)?;
    Ok(Loaded { config, file, origins: reader.into_origins() })
}

/// The keys that [`sections::read`] asks for, so that they are listed nowhere twice.
fn known_keys() -> Result<Vec<String>, ConfigError> {
    let mut reader = Reader::new(None, PathBuf::new(), Settings::default());
    sections::read(&mut reader)?;
    Ok(reader.into_origins().into_iter().map(|origin| origin.key).collect())
}
