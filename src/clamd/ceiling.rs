//! What clamd's MaxFileSize really is, found out by asking: clamd does not tell its settings.

use std::time::Duration;

use super::reply::parse_reply;
use super::{Clamd, ClamdError, Transport, transport};
use crate::domain::verdict::Answer;

/// Larger files clamd never scans, whatever is set (2^31 - 3).
const CEILING: u64 = 2_147_483_645;
/// A file above the limit is answered within a millisecond; one below is really scanned.
const AT_ONCE: Duration = Duration::from_millis(300);

/// The largest size in steps of halving (so up to twice as much) that clamd really scans, in bytes; `None` where only
/// INSTREAM works, because nobody sends gigabytes of zeros to find out.
///
/// # Errors
/// When clamd does not answer as it should.
pub async fn max_file_size(clamd: &Clamd, by: Transport) -> Result<Option<u64>, ClamdError> {
    if by == Transport::Instream {
        return Ok(None);
    }
    let mut size = CEILING;
    while size > 1 << 20 {
        if is_scanned(clamd, size).await? {
            return Ok(Some(size));
        }
        size >>= 1;
    }
    Ok(Some(size))
}

async fn is_scanned(clamd: &Clamd, size: u64) -> Result<bool, ClamdError> {
    let file =
        transport::sparse_file(size).map_err(|cause| clamd.error("make a sparse file", cause))?;
    match clamd.scan_file(&file, size, Transport::Fildes, AT_ONCE).await {
        Ok(reply) => match parse_reply(&reply) {
            Answer::LimitExceeded { .. } => Ok(false),
            Answer::Ok | Answer::Found { .. } | Answer::Encrypted { .. } | Answer::Odd { .. } => {
                Ok(true)
            }
        },
        Err(ClamdError::TimedOut { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}
