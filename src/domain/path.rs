//! Names and paths as clients send them, parsed once at the edge.
//!
//! Knows nothing of the hotfolder's names (`hotname`) and of the real file system: a
//! [`VirtualPath`] is never turned into a [`std::path::Path`].

use std::borrow::Cow;
use std::fmt;

use encoding_rs::WINDOWS_1252;
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

/// The longest name, as on the usual file systems.
pub const NAME_BYTES: usize = 255;
/// The deepest path that a client may name.
pub const PATH_SEGMENTS: usize = 64;
/// The longest path that a client may name, slashes included: it must have room below the hotfolder (Linux takes 4,096
/// bytes) and in an index of PostgreSQL (2,704).
pub const PATH_BYTES: usize = 2048;

/// One segment of a path.
///
/// Invariant: NFC, 1 to 255 bytes, not `.` or `..`, without `/`, NUL, control characters, line
/// separators and bidi overrides. A backslash is allowed: clients send it inside names, and
/// `hotname` makes it safe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Takes one segment in any Unicode composition.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name: String = text.nfc().collect();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name == "." || name == ".." {
            return Err(NameError::Dots);
        }
        if name.contains('/') {
            return Err(NameError::Slash);
        }
        if let Some(character) = name.chars().find(|c| is_forbidden(*c)) {
            return Err(NameError::ControlCharacter { character });
        }
        if name.len() > NAME_BYTES {
            return Err(NameError::TooLong { bytes: name.len(), limit: NAME_BYTES });
        }
        Ok(Self(name))
    }

    /// Takes one segment as a client's bytes: UTF-8, else Windows-1252.
    pub fn from_bytes(raw: &[u8]) -> Result<Self, NameError> {
        Self::parse(&decode(raw))
    }

    /// The name in NFC.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An absolute path inside one client's tree.
///
/// Invariant: already normalised, since each segment is a [`Name`]. What [`resolve`](Self::resolve)
/// returns is also within [`PATH_SEGMENTS`] and [`PATH_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualPath(Vec<Name>);

impl VirtualPath {
    /// The top of the client's tree.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Whether this is the top of the tree.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the top down; none for the root.
    pub fn segments(&self) -> &[Name] {
        &self.0
    }

    /// The folder that holds this path; none for the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, above)| Self(above.to_vec()))
    }

    /// The last name; none for the root.
    pub fn file_name(&self) -> Option<&Name> {
        self.0.last()
    }

    /// The path of `name` inside this folder. The limits of clients' paths are not checked: the
    /// names of our own listings are joined here.
    #[must_use]
    pub fn join(&self, name: Name) -> Self {
        let mut segments = self.0.clone();
        segments.push(name);
        Self(segments)
    }

    /// Whether this is `folder` itself or lies somewhere below it.
    pub fn starts_with(&self, folder: &Self) -> bool {
        self.0.starts_with(&folder.0)
    }

    /// Reads a client's absolute or relative path; `self` is the working folder.
    ///
    /// The whole of `raw` is UTF-8 or the whole of it is Windows-1252, since a client encodes a
    /// path in one go. An empty path is the working folder.
    pub fn resolve(&self, raw: &[u8]) -> Result<Self, NameError> {
        let text = decode(raw);
        let mut segments = if text.starts_with('/') { Vec::new() } else { self.0.clone() };
        for segment in text.split('/') {
            match segment {
                "" | "." => {}
                // `..` at the root stays at the root: clients ask for `/..` to learn where the
                // top is, so this is an answer, not an attack to report.
                ".." => drop(segments.pop()),
                name => segments.push(Name::parse(name)?),
            }
            if segments.len() > PATH_SEGMENTS {
                return Err(NameError::TooDeep);
            }
        }
        let path = Self(segments);
        if path.to_string().len() > PATH_BYTES { Err(NameError::TooDeep) } else { Ok(path) }
    }
}

impl fmt::Display for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

/// Why a client's name or path is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("name is empty")]
    Empty,
    #[error("name is {bytes} bytes long, the limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("name holds the control character U+{:04X}", u32::from(*character))]
    ControlCharacter { character: char },
    #[error("name is \".\" or \"..\"")]
    Dots,
    #[error("name holds a slash")]
    Slash,
    /// Too many segments, or too many bytes in all.
    #[error("path is deeper than {PATH_SEGMENTS} folders or longer than {PATH_BYTES} bytes")]
    TooDeep,
}

impl NameError {
    /// What, why and what to do, in German, for the customer.
    pub fn german(&self) -> String {
        match self {
            Self::Empty => "Der Name ist leer. Dateien und Ordner brauchen einen Namen. Bitte \
                geben Sie einen Namen an."
                .to_owned(),
            Self::TooLong { bytes, limit } => format!(
                "Der Name ist zu lang: {bytes} Bytes, erlaubt sind {limit} (ein Umlaut zählt als \
                 zwei Bytes). Bitte kürzen Sie den Namen und senden Sie erneut."
            ),
            Self::ControlCharacter { character } => format!(
                "Der Name enthält das unsichtbare Steuerzeichen U+{:04X}. Solche Zeichen sind \
                 nicht erlaubt, weil sie den wahren Namen verbergen. Bitte benennen Sie um und \
                 senden Sie erneut.",
                u32::from(*character)
            ),
            Self::Dots => "Der Name besteht nur aus einem oder zwei Punkten. Diese Namen stehen \
                für den Ordner selbst und den Ordner darüber. Bitte wählen Sie einen anderen Namen."
                .to_owned(),
            Self::Slash => "Der Name enthält einen Schrägstrich (/). Der Schrägstrich trennt \
                Ordner voneinander. Bitte entfernen Sie ihn aus dem Namen."
                .to_owned(),
            Self::TooDeep => format!(
                "Der Pfad ist zu tief oder zu lang: Erlaubt sind {PATH_SEGMENTS} Ordnerebenen und \
                 {PATH_BYTES} Bytes. Bitte legen Sie die Datei in einen höheren Ordner oder \
                 kürzen Sie die Ordnernamen."
            ),
        }
    }

    /// What, why and what to do, in English, for the customer.
    pub fn english(&self) -> String {
        match self {
            Self::Empty => {
                "The name is empty. Files and folders need a name. Please give a name.".to_owned()
            }
            Self::TooLong { bytes, limit } => format!(
                "The name is too long: {bytes} bytes, {limit} are allowed (an accented letter \
                 counts as two bytes). Please shorten the name and send again."
            ),
            Self::ControlCharacter { character } => format!(
                "The name contains the invisible control character U+{:04X}. Such characters are \
                 not allowed because they hide the true name. Please rename and send again.",
                u32::from(*character)
            ),
            Self::Dots => "The name is only one or two dots. These names stand for the folder \
                itself and the folder above it. Please choose another name."
                .to_owned(),
            Self::Slash => "The name contains a slash (/). The slash separates folders. Please \
                remove it from the name."
                .to_owned(),
            Self::TooDeep => format!(
                "The path is too deep or too long: {PATH_SEGMENTS} folder levels and {PATH_BYTES} \
                 bytes are allowed. Please put the file into a higher folder or shorten the \
                 folder names."
            ),
        }
    }
}

/// Whether `name` is a dropping of macOS or Windows, which is accepted and dropped.
pub fn is_dropping(name: &Name) -> bool {
    let name = name.as_str();
    name.starts_with("._")
        || [".DS_Store", "Thumbs.db", "desktop.ini"].iter().any(|d| name.eq_ignore_ascii_case(d))
}

/// The key for sorting and for clashes by case: NFC in lower case.
pub fn fold(name: &str) -> String {
    // By character, not str::to_lowercase: there a final capital sigma depends on what follows,
    // and ΑΣ would not meet ασ.
    name.nfc().flat_map(char::to_lowercase).nfc().collect()
}

/// Characters that no name may hold: C0, DEL, C1, line separators, bidi marks, embeddings and overrides, and those that
/// cannot be seen, so that two names look like one.
pub(super) fn is_forbidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2060}'
                | '\u{FEFF}' | '\u{AD}' | '\u{3164}'
        )
}

/// UTF-8 if all of it is, else Windows-1252, which old Windows clients send.
pub fn decode(raw: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(raw) {
        Ok(text) => Cow::Borrowed(text),
        Err(_not_utf8) => WINDOWS_1252.decode_without_bom_handling(raw).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(folder: &str, raw: impl AsRef<[u8]>, expect: &str) {
        let folder = VirtualPath::root().resolve(folder.as_bytes()).unwrap();
        let path = folder.resolve(raw.as_ref());
        assert_eq!(path.map(|p| p.to_string()), Ok(expect.to_owned()));
    }

    #[track_caller]
    fn check_refused(raw: impl AsRef<[u8]>, expect: NameError) {
        assert_eq!(VirtualPath::root().resolve(raw.as_ref()), Err(expect));
    }

    #[track_caller]
    fn check_name(raw: impl AsRef<[u8]>, expect: Result<&str, NameError>) {
        let name = Name::from_bytes(raw.as_ref());
        assert_eq!(name.as_ref().map(Name::as_str), expect.as_ref().copied());
    }

    fn control(character: char) -> NameError {
        NameError::ControlCharacter { character }
    }

    #[test]
    fn a_path_stays_inside_the_tree() {
        check("/in", "", "/in");
        check("/", "../../etc/passwd", "/etc/passwd");
        check("/", "/..", "/");
        check("/in/x", "..", "/in");
        check("/in/x", "../../../..", "/");
        check("/in", "a//./b", "/in/a/b");
        check("/in", "//a///b//", "/a/b");
        check("/in", "a/b/../c/", "/in/a/c");
        check("/", "...", "/...");
        check("/", "..\\..\\x", "/..\\..\\x");
        check("/", "C:\\Druck\\a.pdf", "/C:\\Druck\\a.pdf");
        check("/", " a ", "/ a ");
    }

    #[test]
    fn a_path_is_decoded_as_a_whole() {
        check("/", "Mu\u{308}ller.pdf", "/Müller.pdf");
        check("/", b"M\xfcller/a.pdf", "/Müller/a.pdf");
        check("/", b"\x80uro.pdf", "/€uro.pdf");
        check("/", b"M\xc3\xbcller/M\xfcller", "/MÃ¼ller/Müller");
        check_refused(b"M\xfcller\x81", control('\u{81}'));
    }

    #[test]
    fn control_characters_are_refused() {
        check_refused("a\0b", control('\0'));
        check_refused("in/a\nb/c", control('\n'));
        check_refused("a\x7f", control('\x7f'));
        check_refused("a\u{85}", control('\u{85}'));
        check_refused("\u{202e}fdp.exe", control('\u{202e}'));
        check_refused("a\u{2069}/..", control('\u{2069}'));
        check_name("a\u{200d}b", Ok("a\u{200d}b"));
    }

    #[test]
    fn limits_hold() {
        check_name("ä".repeat(127), Ok(&"ä".repeat(127)));
        check_name("ä".repeat(128), Err(NameError::TooLong { bytes: 256, limit: 255 }));
        check_name("a\u{308}".repeat(127), Ok(&"ä".repeat(127)));
        // U+0958 has no composed form in NFC: three bytes become six.
        check_name("\u{958}".repeat(43), Err(NameError::TooLong { bytes: 258, limit: 255 }));
        check("/", "a/".repeat(64), &"/a".repeat(64));
        check("/", "a/../".repeat(1000), "/");
        check_refused("a/".repeat(65), NameError::TooDeep);
        let long = format!("/{}", "x".repeat(255)).repeat(8);
        check("/", &long, &long);
        check_refused(format!("{long}/a"), NameError::TooDeep);
    }

    #[test]
    fn a_name_is_one_segment() {
        check_name("", Err(NameError::Empty));
        check_name(".", Err(NameError::Dots));
        check_name("..", Err(NameError::Dots));
        check_name("a/b", Err(NameError::Slash));
        check_name(b"\xe4", Ok("ä"));
    }

    #[test]
    fn parents_and_prefixes() {
        let path = |text: &str| VirtualPath::root().resolve(text.as_bytes()).unwrap();
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/").parent(), None);
        assert_eq!(path("/a/b").file_name().map(Name::as_str), Some("b"));
        assert_eq!(path("/").file_name(), None);
        assert_eq!(path("/a").join(Name::parse("b").unwrap()), path("/a/b"));
        assert!(path("/a/b").starts_with(&path("/a")) && path("/a").starts_with(&path("/a")));
        assert!(!path("/ab").starts_with(&path("/a")));
    }

    #[test]
    fn droppings_are_known() {
        let dropping = |text: &str| is_dropping(&Name::parse(text).unwrap());
        assert!(
            ["._a.pdf", "._", ".ds_store", "THUMBS.DB", "Desktop.ini"].into_iter().all(dropping)
        );
        assert!(
            !["_.a", ".a", "Thumbs.db.pdf", "a._b", "desktop.ini.txt"].into_iter().any(dropping)
        );
    }

    #[test]
    fn fold_ignores_case_and_composition() {
        assert_eq!(fold("MU\u{308}LLER.PDF"), fold("müller.pdf"));
        assert_eq!(fold("ΑΣ"), fold("ασ"));
    }

    #[test]
    fn refusals_say_what_to_do() {
        let long = NameError::TooLong { bytes: 300, limit: 255 };
        let all = [NameError::Empty, long, control('\n'), NameError::Dots, NameError::Slash];
        for error in all.iter().chain([&NameError::TooDeep]) {
            assert!(error.german().contains(". Bitte ") && error.german().ends_with('.'));
            assert!(error.english().contains(". Please ") && error.english().ends_with('.'));
            assert!(!error.german().contains("  ") && !error.english().contains("  "));
        }
        assert_eq!(control('\n').to_string(), "name holds the control character U+000A");
    }

    #[test]
    fn any_bytes_give_a_normal_path_or_a_refusal() {
        let alphabet = b"//..aB\\ \0\xc3\xbc\xe4\xcc\x88\x80\xe2\xae~";
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000 {
            let byte = |_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                alphabet[usize::try_from(seed % alphabet.len() as u64).unwrap()]
            };
            let raw: Vec<u8> = (0..round % 24).map(byte).collect();
            if let Ok(path) = VirtualPath::root().resolve(&raw) {
                let again = VirtualPath::root().resolve(path.to_string().as_bytes());
                assert_eq!(again.as_ref(), Ok(&path));
                assert!(path.segments().iter().all(|n| Name::parse(n.as_str()).as_ref() == Ok(n)));
            }
        }
    }
}
