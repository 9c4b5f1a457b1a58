//! The proof that clamd really scans (spec section 7, "The scanner is proven, not trusted").
//!
//! By default clamd says OK to whatever it skips: a file over a limit, a scan that took too long,
//! an archive nested too deep. Only replies to content of which we know the answer show that.

use std::{fmt, hint::black_box, time::Duration};

use bytes::Bytes;

use super::{
    Address, Clamd, ClamdError, Transport,
    reply::{Version, parse_reply, quote},
    transport::sparse_file,
};
use crate::domain::verdict::Answer;

/// What clamd.conf needs so that "OK" means "scanned to the end".
pub const CLAMD_CONF: &str = "\
AlertExceedsMax yes
MaxFileSize 0
MaxScanSize 20G
MaxScanTime 1200000
StreamMaxLength 0
";

/// How long one canary may take: as long as a window.
const CANARY_LIMIT: Duration = Duration::from_secs(30);

/// One byte more than the largest file that clamd scans, whatever `MaxFileSize` says.
const TOO_LARGE: u64 = 2_147_483_646;

/// `MaxRecursion` is 17 by default. A higher one up to 120 is still seen.
const NESTED_LEVELS: usize = 120;

/// What a proven scanner is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The transport whose canaries passed.
    pub transport: Transport,
    pub version: Version,
    pub max_threads: usize,
}

/// What kind of doubt there is about the scanner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnprovenKind {
    /// No connection, or no reply in time.
    Away,
    /// The infected canary was called clean.
    Blind,
    /// "OK" was said to what is over a limit: `AlertExceedsMax yes` is missing.
    SkipsSilently,
    /// Anything else.
    Odd,
}

impl fmt::Display for UnprovenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "the scanner is away",
            Self::Blind => "the scanner does not find the test virus",
            Self::SkipsSilently => "the scanner says OK to what it skips",
            Self::Odd => "the scanner answers oddly",
        })
    }
}

/// Why nothing that this clamd says may be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Unproven {
    pub kind: UnprovenKind,
    pub detail: String,
}

impl Unproven {
    /// What the operator can do about it; the lines for clamd.conf where they are the cure.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self.kind {
            UnprovenKind::Away => {
                "start clamd and wait until it has loaded its signatures, or correct `clamd` in \
                 [scan] of ptportal.toml\n"
                    .to_owned()
            }
            UnprovenKind::Blind => {
                "load signatures that know the EICAR test file: run freshclam, or put an own .ndb \
                 into DatabaseDirectory, and reload clamd\n"
                    .to_owned()
            }
            UnprovenKind::SkipsSilently => {
                format!("set these lines in clamd.conf and restart clamd:\n\n{CLAMD_CONF}")
            }
            UnprovenKind::Odd => {
                "look into the log of clamd; if it may not take descriptors (AppArmor: \
                 /etc/apparmor.d/local/usr.sbin.clamd), set `transport = \"instream\"` in [scan] \
                 of ptportal.toml\n"
                    .to_owned()
            }
        }
    }
}

impl From<ClamdError> for Unproven {
    fn from(error: ClamdError) -> Self {
        let kind = match &error {
            ClamdError::Unreachable { .. } | ClamdError::TimedOut { .. } => UnprovenKind::Away,
            ClamdError::Io { .. }
            | ClamdError::OddReply { .. }
            | ClamdError::NoDescriptors { .. } => UnprovenKind::Odd,
        };
        Self { kind, detail: error.to_string() }
    }
}

/// Scans the canaries over the wanted transport; `None` takes the first one that passes.
///
/// Repeat it every five minutes and when the version changes.
pub async fn prove(clamd: &Clamd, wanted: Option<Transport>) -> Result<Proof, Unproven> {
    clamd.ping().await?;
    let version = match clamd.version().await {
        Ok(version) => version,
        // A clamd that hides its version still scans; spec section 7 makes it no reason to stop.
        Err(ClamdError::OddReply { .. }) => Version::untold(),
        Err(error) => return Err(error.into()),
    };
    let max_threads = match clamd.max_threads().await {
        Ok(threads) => threads,
        // STATS may be switched off. One thread is the fewest that clamd can have.
        Err(ClamdError::OddReply { .. }) => 1,
        Err(error) => return Err(error.into()),
    };
    let transport = match wanted {
        Some(transport) => prove_transport(clamd, transport).await?,
        None => prove_any(clamd).await?,
    };
    Ok(Proof { transport, version, max_threads })
}

async fn prove_any(clamd: &Clamd) -> Result<Transport, Unproven> {
    match clamd.address() {
        Address::Unix(_) => {}
        Address::Tcp(_) => return prove_transport(clamd, Transport::Instream).await,
    }
    let first = match prove_transport(clamd, Transport::Fildes).await {
        Ok(transport) => return Ok(transport),
        Err(unproven) => unproven,
    };
    if first.kind == UnprovenKind::SkipsSilently {
        // The other transport would hide it where only the file above the ceiling shows it.
        return Err(first);
    }
    match prove_transport(clamd, Transport::Instream).await {
        Ok(transport) => {
            tracing::warn!(cause = %first, "clamd is used by instream, as fildes does not work");
            Ok(transport)
        }
        Err(second) => {
            let detail = format!("{}; {}", first.detail, second.detail);
            Err(Unproven { kind: second.kind, detail })
        }
    }
}

async fn prove_transport(clamd: &Clamd, transport: Transport) -> Result<Transport, Unproven> {
    for canary in Canary::all(transport) {
        let reply = canary.scan(clamd, transport).await?;
        canary.judge(&parse_reply(&reply)).map_err(|kind| Unproven {
            kind,
            detail: format!("{} over {transport} was answered {}", canary.name(), quote(&reply)),
        })?;
    }
    Ok(transport)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Canary {
    Clean,
    Infected,
    Nested,
    TooLarge,
}

impl Canary {
    fn all(transport: Transport) -> &'static [Self] {
        match transport {
            Transport::Fildes => &[Self::Clean, Self::Infected, Self::Nested, Self::TooLarge],
            // Two gigabytes would really be sent.
            Transport::Instream => &[Self::Clean, Self::Infected, Self::Nested],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Clean => "a clean text",
            Self::Infected => "the EICAR test file",
            Self::Nested => "a zip nested deeper than MaxRecursion",
            Self::TooLarge => "a file above 2 GiB",
        }
    }

    async fn scan(self, clamd: &Clamd, transport: Transport) -> Result<Vec<u8>, ClamdError> {
        let bytes = match self {
            Self::Clean => Bytes::from_static(b"ptportal asks whether the scanner is well.\n"),
            Self::Infected => eicar(),
            Self::Nested => nested_zip(),
            Self::TooLarge => {
                let file = sparse_file(TOO_LARGE)
                    .map_err(|cause| clamd.error("make a sparse file for", cause))?;
                return clamd.scan_file(&file, TOO_LARGE, transport, CANARY_LIMIT).await;
            }
        };
        clamd.scan_bytes(bytes, transport, CANARY_LIMIT).await
    }

    fn judge(self, answer: &Answer) -> Result<(), UnprovenKind> {
        match (self, answer) {
            (Self::Clean, Answer::Ok)
            | (Self::Infected, Answer::Found { .. })
            | (Self::Nested | Self::TooLarge, Answer::LimitExceeded { .. }) => Ok(()),
            (Self::Infected, Answer::Ok) => Err(UnprovenKind::Blind),
            (Self::Nested | Self::TooLarge, Answer::Ok) => Err(UnprovenKind::SkipsSilently),
            (Self::Clean | Self::Nested | Self::TooLarge, Answer::Found { .. })
            | (Self::Clean | Self::Infected, Answer::LimitExceeded { .. })
            | (
                Self::Clean | Self::Infected | Self::Nested | Self::TooLarge,
                Answer::Encrypted { .. } | Answer::Odd { .. },
            ) => Err(UnprovenKind::Odd),
        }
    }
}

/// The EICAR test file, which every scanner knows.
fn eicar() -> Bytes {
    // One half stands backwards, and is turned only at run time, so that no scanner takes our
    // source or our binary for the virus.
    const HEAD: &[u8] = br"X5O!P%@AP[4\PZX54(P^)7CC)7}$";
    const LIAT: &[u8] = b"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE";
    HEAD.iter().chain(black_box(LIAT).iter().rev()).copied().collect()
}

/// A harmless text in a zip in a zip and so on.
fn nested_zip() -> Bytes {
    // No layer of it is ever scanned by itself: clamd remembers clean content and would stop there.
    let text = b"This text lies deeper than clamd is allowed to look.\n".to_vec();
    (0..NESTED_LEVELS).fold(text, |content, _| zip_of(&content)).into()
}

/// A zip (PKWARE APPNOTE 6.3) with one stored, uncompressed file of the name `z`.
fn zip_of(content: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"z";
    let size = le32(content.len());
    let entry = [
        &[10, 0][..],     // version needed to extract: 1.0
        &[0; 4],          // no flags, stored
        &[0, 0, 0x21, 0], // 1980-01-01 00:00
        &crc32(content).to_le_bytes(),
        &size,         // compressed
        &size,         // uncompressed
        &[1, 0, 0, 0], // length of the name, no extra field
    ]
    .concat();
    let local = [&b"PK\x03\x04"[..], &entry, NAME, content].concat();
    // Made by version 1.0; no comment, first disk, no attributes, local header at offset 0.
    let central = [&b"PK\x01\x02\x0a\x00"[..], &entry, &[0; 14], NAME].concat();
    let end = [
        &b"PK\x05\x06\0\0\0\0\x01\0\x01\0"[..], // one entry on one disk
        &le32(central.len()),
        &le32(local.len()),
        &[0, 0], // no comment
    ]
    .concat();
    [local, central, end].concat()
}

fn le32(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

/// CRC-32 as zip has it (reflected, polynomial 0xEDB88320).
fn crc32(bytes: &[u8]) -> u32 {
    let next = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes
        .iter()
        .fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _bit| next(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(canary: Canary, reply: &[u8], expect: Result<(), UnprovenKind>) {
        assert_eq!(canary.judge(&parse_reply(reply)), expect);
    }

    #[test]
    fn each_canary_takes_only_its_own_answer() {
        use Canary::{Clean, Infected, Nested, TooLarge};
        use UnprovenKind::{Blind, Odd, SkipsSilently};
        let found = b"fd[12]: Win.Test.EICAR_HDB-1 FOUND\0";
        let limit = b"fd[12]: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0";
        let locked = b"fd[12]: Heuristics.Encrypted.Zip FOUND\0";
        check(Clean, b"stream: OK\0", Ok(()));
        check(Clean, found, Err(Odd));
        check(Clean, limit, Err(Odd));
        check(Infected, b"fd[12]: OK\0", Err(Blind));
        check(Infected, found, Ok(()));
        check(Infected, limit, Err(Odd));
        for canary in [Nested, TooLarge] {
            check(canary, b"fd[12]: OK\0", Err(SkipsSilently));
            check(canary, found, Err(Odd));
            check(canary, limit, Ok(()));
        }
        for canary in [Clean, Infected, Nested, TooLarge] {
            check(canary, b"", Err(Odd));
            check(canary, b"No file descriptor received. ERROR\0", Err(Odd));
            check(canary, locked, Err(Odd));
        }
    }

    #[test]
    fn the_file_above_the_ceiling_is_never_sent() {
        assert!(!Canary::all(Transport::Instream).contains(&Canary::TooLarge));
        assert!(Canary::all(Transport::Fildes).contains(&Canary::TooLarge));
    }

    #[test]
    fn the_test_virus_is_the_real_one() {
        assert_eq!(eicar().len(), 68);
        assert_eq!(crc32(&eicar()), 0x6851_CF3C);
    }

    #[test]
    fn crc32_is_that_of_zip() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_zip_has_the_structure_that_unzip_expects() {
        let zip = zip_of(b"hello");
        assert_eq!(zip.len(), 30 + 1 + 5 + 46 + 1 + 22);
        assert_eq!(&zip[..10], b"PK\x03\x04\x0a\x00\x00\x00\x00\x00");
        assert_eq!(zip[14..18], crc32(b"hello").to_le_bytes());
        assert_eq!(zip[18..22], [5, 0, 0, 0]);
        assert_eq!(&zip[30..40], b"zhelloPK\x01\x02");
        assert_eq!(&zip[83..87], b"PK\x05\x06");
        assert_eq!(zip[95..99], [47, 0, 0, 0], "size of the central directory");
        assert_eq!(zip[99..103], [36, 0, 0, 0], "its offset");
    }

    #[test]
    fn the_nested_zip_is_as_deep_as_it_says() {
        let whole = nested_zip();
        let mut zip = &whole[..];
        for _level in 0..NESTED_LEVELS {
            zip = zip.strip_prefix(b"PK\x03\x04").unwrap();
            zip = &zip[27..zip.len().saturating_sub(69)];
        }
        assert_eq!(zip, b"This text lies deeper than clamd is allowed to look.\n");
    }

    #[test]
    fn the_remedy_names_the_missing_line() {
        let unproven = |kind| Unproven { kind, detail: "x".to_owned() };
        let remedy = unproven(UnprovenKind::SkipsSilently).remedy();
        assert!(remedy.contains("\nAlertExceedsMax yes\n") && remedy.contains("MaxFileSize 0"));
        assert!(!unproven(UnprovenKind::Away).remedy().contains("AlertExceedsMax"));
        let shown = unproven(UnprovenKind::Blind).to_string();
        assert_eq!(shown, "the scanner does not find the test virus: x");
    }
}
