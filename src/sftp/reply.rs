//! What a client is answered, as bytes: the replies of SFTP version 3 (draft-ietf-secsh-filexfer-02 section 7).

use bytes::{Bytes, BytesMut};

use super::packet::{Code, kind};

/// Builds replies one behind the other, each with its length field.
#[derive(Default)]
pub struct Replies(BytesMut);

impl Replies {
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was built, to be sent.
    pub fn take(&mut self) -> Bytes {
        // The memory comes back to this buffer when the transport has dropped the bytes.
        self.0.split().freeze()
    }

    fn packet(&mut self, kind: u8, build: impl FnOnce(&mut BytesMut)) {
        let at = self.0.len();
        self.0.extend_from_slice(&[0, 0, 0, 0, kind]);
        build(&mut self.0);
        let len = self.0.len().saturating_sub(at).saturating_sub(4);
        let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(field) = self.0.get_mut(at..at.saturating_add(4)) {
            field.copy_from_slice(&len);
        }
    }

    pub fn version(&mut self, extensions: &[(&str, &[u8])]) {
        self.packet(kind::VERSION, |out| {
            put_u32(out, 3);
            for (name, data) in extensions {
                put_string(out, name.as_bytes());
                put_string(out, data);
            }
        });
    }

    pub fn status(&mut self, id: u32, code: Code, text: &str, language: &str) {
        self.packet(kind::STATUS, |out| {
            put_u32(out, id);
            put_u32(out, code.number());
            put_string(out, text.as_bytes());
            put_string(out, language.as_bytes());
        });
    }

    pub fn handle(&mut self, id: u32, handle: &[u8]) {
        self.packet(kind::HANDLE, |out| {
            put_u32(out, id);
            put_string(out, handle);
        });
    }

    pub fn data(&mut self, id: u32, data: &[u8]) {
        self.0.reserve(data.len().saturating_add(32));
        self.packet(kind::DATA, |out| {
            put_u32(out, id);
            put_string(out, data);
        });
    }

    /// DATA whose bytes are read straight into the reply; nothing is sent when `read` gives none or fails.
    ///
    /// # Errors
    /// What `read` says.
    pub fn data_from(
        &mut self,
        id: u32,
        max: usize,
        read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        const HEAD: usize = 13;
        let at = self.0.len();
        let begin = at.saturating_add(HEAD);
        self.0.resize(begin.saturating_add(max), 0);
        let result = self.0.get_mut(begin..).map_or(Ok(0), read);
        let n = result.as_ref().copied().unwrap_or(0);
        if n == 0 {
            self.0.truncate(at);
            return result;
        }
        self.0.truncate(begin.saturating_add(n));
        let size =
            |extra: usize| u32::try_from(n.saturating_add(extra)).unwrap_or(u32::MAX).to_be_bytes();
        let mut head = BytesMut::with_capacity(HEAD);
        head.extend_from_slice(&size(9));
        head.extend_from_slice(&[kind::DATA]);
        put_u32(&mut head, id);
        head.extend_from_slice(&size(0));
        if let Some(field) = self.0.get_mut(at..begin) {
            field.copy_from_slice(&head);
        }
        result
    }

    pub fn attributes(&mut self, id: u32, attributes: &Shown) {
        self.packet(kind::ATTRS, |out| {
            put_u32(out, id);
            attributes.put(out);
        });
    }

    pub fn names<'n>(
        &mut self,
        id: u32,
        names: impl ExactSizeIterator<Item = (&'n str, String, Shown)>,
    ) {
        self.packet(kind::NAME, |out| {
            put_u32(out, id);
            put_u32(out, u32::try_from(names.len()).unwrap_or(0));
            for (name, long_name, attributes) in names {
                put_string(out, name.as_bytes());
                put_string(out, long_name.as_bytes());
                attributes.put(out);
            }
        });
    }

    /// The answer to an extension, `fields` in its own format.
    pub fn extended(&mut self, id: u32, fields: &[u64]) {
        self.packet(kind::EXTENDED_REPLY, |out| {
            put_u32(out, id);
            for field in fields {
                out.extend_from_slice(&field.to_be_bytes());
            }
        });
    }
}

/// What a client is shown of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub size: u64,
    /// POSIX mode with the file type.
    pub mode: u32,
    /// Unix seconds.
    pub mtime: u32,
}

impl Shown {
    fn put(&self, out: &mut BytesMut) {
        put_u32(out, 0x1 | 0x2 | 0x4 | 0x8);
        out.extend_from_slice(&self.size.to_be_bytes());
        put_u32(out, 1000);
        put_u32(out, 1000);
        put_u32(out, self.mode);
        put_u32(out, self.mtime);
        put_u32(out, self.mtime);
    }
}

fn put_u32(out: &mut BytesMut, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_string(out: &mut BytesMut, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).unwrap_or(0));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_carry_their_length() {
        let mut replies = Replies::default();
        replies.status(5, Code::Ok, "ok", "en");
        let bytes = replies.take();
        let len = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(usize::try_from(len).unwrap() + 4, bytes.len());
        assert_eq!(bytes[4], kind::STATUS);
    }
}
