//! The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), without I/O: bytes in, requests out. What is answered
//! stands in [`super::reply`].
//!
//! Names stay raw bytes until `domain::path` decodes them. Bytes behind a complete request are ignored, because
//! rclone's library sends them.

/// Longest packet that a client may send, without its length field: 256 KiB of data and room for the head.
pub const MAX_PACKET: usize = 262_144 + 1024;
/// Longest data that one READ returns.
pub const MAX_READ: u32 = 261_120;

/// `SSH_FXP_*` numbers.
pub mod kind {
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSTAT: u8 = 8;
    pub const SETSTAT: u8 = 9;
    pub const FSETSTAT: u8 = 10;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const RMDIR: u8 = 15;
    pub const REALPATH: u8 = 16;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const READLINK: u8 = 19;
    pub const SYMLINK: u8 = 20;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 200;
    pub const EXTENDED_REPLY: u8 = 201;
}

/// `SSH_FX_*` codes (section 7 of the draft).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    OpUnsupported = 8,
}

impl Code {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::Eof => 1,
            Self::NoSuchFile => 2,
            Self::PermissionDenied => 3,
            Self::Failure => 4,
            Self::OpUnsupported => 8,
        }
    }
}

/// `SSH_FXF_*` flags of OPEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const APPEND: u32 = 4;
    pub const CREAT: u32 = 8;
    pub const TRUNC: u32 = 16;
    pub const EXCL: u32 = 32;

    #[must_use]
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// What a client says about a file; only size and times mean something here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileAttributes {
    pub size: Option<u64>,
    pub permissions: Option<u32>,
    /// Access and modification time in Unix seconds.
    pub times: Option<(u32, u32)>,
}

/// One request; `id` is the client's number for the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'p> {
    Init {
        version: u32,
    },
    Open {
        id: u32,
        path: &'p [u8],
        flags: OpenFlags,
        attributes: FileAttributes,
    },
    Close {
        id: u32,
        handle: &'p [u8],
    },
    Read {
        id: u32,
        handle: &'p [u8],
        offset: u64,
        len: u32,
    },
    Write {
        id: u32,
        handle: &'p [u8],
        offset: u64,
        data: &'p [u8],
    },
    Lstat {
        id: u32,
        path: &'p [u8],
    },
    Fstat {
        id: u32,
        handle: &'p [u8],
    },
    Setstat {
        id: u32,
        path: &'p [u8],
        attributes: FileAttributes,
    },
    Fsetstat {
        id: u32,
        handle: &'p [u8],
        attributes: FileAttributes,
    },
    Opendir {
        id: u32,
        path: &'p [u8],
    },
    Readdir {
        id: u32,
        handle: &'p [u8],
    },
    Remove {
        id: u32,
        path: &'p [u8],
    },
    Mkdir {
        id: u32,
        path: &'p [u8],
    },
    Rmdir {
        id: u32,
        path: &'p [u8],
    },
    Realpath {
        id: u32,
        path: &'p [u8],
    },
    Stat {
        id: u32,
        path: &'p [u8],
    },
    Rename {
        id: u32,
        from: &'p [u8],
        to: &'p [u8],
    },
    Readlink {
        id: u32,
    },
    Symlink {
        id: u32,
    },
    Extended {
        id: u32,
        name: &'p [u8],
        data: &'p [u8],
    },
    /// A number this version does not know; it is answered, not punished.
    Unknown {
        id: u32,
        kind: u8,
    },
}

/// The bytes are no SFTP: the connection is cut, never resynchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a packet of {0} bytes; at most {MAX_PACKET} are allowed")]
    TooLong(u64),
    #[error("an empty packet")]
    Empty,
    #[error("a packet that ends before its fields do (type {0})")]
    Cut(u8),
    #[error("a request before SSH_FXP_INIT, or a second one")]
    OutOfOrder,
}

/// Reads fields from the front of a packet.
pub struct Fields<'p>(pub &'p [u8]);

impl<'p> Fields<'p> {
    /// Takes `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'p [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A string: length and bytes.
    pub fn string(&mut self) -> Option<&'p [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    pub fn attributes(&mut self) -> Option<FileAttributes> {
        let flags = self.u32()?;
        let mut attributes = FileAttributes::default();
        if flags & 0x1 != 0 {
            attributes.size = Some(self.u64()?);
        }
        if flags & 0x2 != 0 {
            self.take(8)?;
        }
        if flags & 0x4 != 0 {
            attributes.permissions = Some(self.u32()?);
        }
        if flags & 0x8 != 0 {
            attributes.times = Some((self.u32()?, self.u32()?));
        }
        if flags & 0x8000_0000 != 0 {
            let pairs = self.u32()?;
            for _ in 0..pairs {
                self.string()?;
                self.string()?;
            }
        }
        Some(attributes)
    }
}

/// Reads one whole packet (without its length field).
///
/// # Errors
/// When fields are missing.
pub fn parse(packet: &[u8]) -> Result<Request<'_>, Malformed> {
    let (&kind, rest) = packet.split_first().ok_or(Malformed::Empty)?;
    parse_fields(kind, &mut Fields(rest)).ok_or(Malformed::Cut(kind))
}

fn parse_fields<'p>(kind: u8, f: &mut Fields<'p>) -> Option<Request<'p>> {
    if kind == kind::INIT {
        return Some(Request::Init { version: f.u32()? });
    }
    let id = f.u32()?;
    Some(match kind {
        kind::OPEN => Request::Open {
            id,
            path: f.string()?,
            flags: OpenFlags(f.u32()?),
            attributes: f.attributes()?,
        },
        kind::CLOSE => Request::Close { id, handle: f.string()? },
        kind::READ => Request::Read { id, handle: f.string()?, offset: f.u64()?, len: f.u32()? },
        kind::WRITE => {
            Request::Write { id, handle: f.string()?, offset: f.u64()?, data: f.string()? }
        }
        kind::LSTAT => Request::Lstat { id, path: f.string()? },
        kind::FSTAT => Request::Fstat { id, handle: f.string()? },
        kind::SETSTAT => Request::Setstat { id, path: f.string()?, attributes: f.attributes()? },
        kind::FSETSTAT => {
            Request::Fsetstat { id, handle: f.string()?, attributes: f.attributes()? }
        }
        kind::OPENDIR => Request::Opendir { id, path: f.string()? },
        kind::READDIR => Request::Readdir { id, handle: f.string()? },
        kind::REMOVE => Request::Remove { id, path: f.string()? },
        kind::MKDIR => Request::Mkdir { id, path: f.string()? },
        kind::RMDIR => Request::Rmdir { id, path: f.string()? },
        kind::REALPATH => Request::Realpath { id, path: f.string()? },
        kind::STAT => Request::Stat { id, path: f.string()? },
        kind::RENAME => Request::Rename { id, from: f.string()?, to: f.string()? },
        kind::READLINK => Request::Readlink { id },
        kind::SYMLINK => Request::Symlink { id },
        kind::EXTENDED => Request::Extended { id, name: f.string()?, data: f.0 },
        kind => Request::Unknown { id, kind },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8]) -> Vec<u8> {
        let len = u32::try_from(text.len()).unwrap();
        [&len.to_be_bytes(), text].concat()
    }

    #[test]
    fn requests_read_as_they_were_written() {
        let mut packet = vec![kind::OPEN, 0, 0, 0, 7];
        packet.extend(string(b"/a"));
        packet.extend([0, 0, 0, 0x1a, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
        let expect = Request::Open {
            id: 7,
            path: b"/a",
            flags: OpenFlags(0x1a),
            attributes: FileAttributes { size: Some(9), ..FileAttributes::default() },
        };
        assert_eq!(parse(&packet), Ok(expect));
    }

    #[test]
    fn junk_behind_a_write_is_ignored() {
        let mut packet = vec![kind::WRITE, 0, 0, 0, 1];
        packet.extend(string(b"h"));
        packet.extend([0u8; 8]);
        packet.extend(string(b"data"));
        packet.extend(b"junk");
        assert!(matches!(parse(&packet), Ok(Request::Write { data: b"data", .. })));
    }

    #[test]
    fn every_cut_packet_is_malformed_or_shorter_but_never_a_panic() {
        let mut whole = vec![kind::SETSTAT, 0, 0, 0, 1];
        whole.extend(string(b"/x"));
        whole.extend([0x80, 0, 0, 0x0f]);
        whole.extend([0u8; 8 + 8 + 4 + 8]);
        whole.extend([0, 0, 0, 1]);
        whole.extend(string(b"k"));
        whole.extend(string(b"v"));
        assert!(parse(&whole).is_ok());
        for cut in 1..whole.len() {
            assert_eq!(parse(&whole[..cut]), Err(Malformed::Cut(kind::SETSTAT)), "{cut}");
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut packet = Vec::new();
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            packet.push(u8::try_from(seed % 22).unwrap());
            for i in 0..(seed >> 40) % 40 {
                packet.push(seed.to_be_bytes()[usize::try_from(i % 8).unwrap()] & 3);
            }
            drop(parse(&packet));
        }
    }
}
