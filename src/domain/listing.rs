//! The line of `ls -l` for one name, which both protocols show and some clients parse.

use super::time::Timestamp;

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    pub is_folder: bool,
    pub is_writable: bool,
}

impl Looks {
    const fn mode(self) -> &'static str {
        match (self.is_folder, self.is_writable) {
            (true, true) => "drwxr-xr-x",
            (true, false) => "dr-xr-xr-x",
            (false, true) => "-rw-r--r--",
            (false, false) => "-r--r--r--",
        }
    }
}

/// A line as `ls -l` writes it, size in bytes, times in UTC.
#[must_use]
pub fn long_line(looks: Looks, size: u64, mtime: Timestamp, name: &str, now: Timestamp) -> String {
    format!("{}    1 portal   portal   {size:>12} {} {name}", looks.mode(), ls_date(mtime, now))
}

/// Clock time for what is younger than half a year, else the year.
fn ls_date(mtime: Timestamp, now: Timestamp) -> String {
    const HALF_YEAR_MS: u64 = 182 * 24 * 3600 * 1000;
    let moment = time::OffsetDateTime::from_unix_timestamp(mtime.0.div_euclid(1000))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let month: String = moment.month().to_string().chars().take(3).collect();
    if now.0.abs_diff(mtime.0) < HALF_YEAR_MS {
        format!("{month} {:>2} {:02}:{:02}", moment.day(), moment.hour(), moment.minute())
    } else {
        format!("{month} {:>2}  {}", moment.day(), moment.year())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_clients_expect() {
        let now = Timestamp(1_764_000_000_000);
        let check = |looks, size, mtime, name, expect: &str| {
            assert_eq!(long_line(looks, size, Timestamp(mtime), name, now), expect);
        };
        let file = Looks { is_folder: false, is_writable: true };
        check(
            file,
            1_048_576,
            1_763_996_400_000,
            "a b.pdf",
            "-rw-r--r--    1 portal   portal        1048576 Nov 24 15:00 a b.pdf",
        );
        let folder = Looks { is_folder: true, is_writable: false };
        check(
            folder,
            0,
            1_600_000_000_000,
            "Final",
            "dr-xr-xr-x    1 portal   portal              0 Sep 13  2020 Final",
        );
    }
}
