//! From bytes of the control connection to lines (RFC 959 section 5.3.1), without a socket.

use thiserror::Error;

/// The longest line, its end not counted (spec section 10).
pub const LINE_MAX: usize = 4096;

/// TELNET's "interpret as command" (RFC 854): clients put IAC IP, IAC DM before ABOR.
const IAC: u8 = 255;
const FIRST_TELNET_COMMAND: u8 = 240;
/// From WILL on a TELNET command has an option behind it.
const WILL: u8 = 251;

/// A client that sends no line end is cut off: nothing may be buffered without a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a line is longer than {LINE_MAX} bytes")]
pub struct LineTooLong;

/// Bytes that came, until a whole line can be taken.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether something came behind the last line that was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next line without its end and without TELNET commands; none while it is not whole.
    ///
    /// # Errors
    /// [`LineTooLong`], also when its end has not come yet.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
            // The CR of a line of the greatest length may have come before its LF.
            return if self.buffer.len() > LINE_MAX.saturating_add(1) {
                Err(LineTooLong)
            } else {
                Ok(None)
            };
        };
        let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > LINE_MAX {
            return Err(LineTooLong);
        }
        Ok(Some(without_telnet(line)))
    }
}

/// A byte 255 that begins no TELNET command stays: it is `ÿ` in a name from an old client.
fn without_telnet(line: Vec<u8>) -> Vec<u8> {
    if !line.contains(&IAC) {
        return line;
    }
    let mut kept = Vec::with_capacity(line.len());
    let mut bytes = line.into_iter().peekable();
    while let Some(byte) = bytes.next() {
        if byte != IAC {
            kept.push(byte);
            continue;
        }
        match bytes.peek().copied() {
            Some(IAC) => {
                bytes.next();
                kept.push(IAC);
            }
            Some(command) if command >= FIRST_TELNET_COMMAND => {
                bytes.next();
                if command >= WILL {
                    bytes.next();
                }
            }
            Some(_) | None => kept.push(IAC),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &[u8], expect: &[&[u8]]) {
        // Whole, and byte by byte: how TCP cuts the stream must not matter.
        for step in [input.len().max(1), 1] {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in input.chunks(step) {
                lines.push(piece);
                while let Some(line) = lines.next_line().unwrap() {
                    found.push(line);
                }
            }
            assert_eq!(found, expect, "in steps of {step}");
        }
    }

    #[test]
    fn lines_end_with_cr_lf_or_lf() {
        check(b"NOOP\r\n", &[b"NOOP"]);
        check(b"NOOP\nPWD\r\n", &[b"NOOP", b"PWD"]);
        check(b"CWD a\rb\r\n", &[b"CWD a\rb"]);
        check(b"\r\n", &[b""]);
        check(b"NOO", &[]);
    }

    #[test]
    fn telnet_commands_go_and_letters_stay() {
        check(b"\xff\xf4\xff\xf2ABOR\r\n", &[b"ABOR"]);
        check(b"\xff\xfb\x01NOOP\r\n", &[b"NOOP"]);
        check(b"STOR \xff\xff.pdf\r\n", &[b"STOR \xff.pdf"]);
        check(b"STOR \xffa.pdf\r\n", &[b"STOR \xffa.pdf"]);
        check(b"STOR a\xff\r\n", &[b"STOR a\xff"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_its_bound() {
        let mut lines = Lines::default();
        lines.push(&[b'a'; LINE_MAX]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"\r");
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"a");
        assert_eq!(lines.next_line(), Err(LineTooLong));
        let mut lines = Lines::default();
        lines.push(&[b'a'; LINE_MAX]);
        lines.push(b"\r\n");
        assert_eq!(lines.next_line().unwrap().map(|l| l.len()), Some(LINE_MAX));
    }
}
