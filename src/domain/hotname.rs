//! Names that are safe on Windows shares, for the hotfolder, and folder names for the portal.
//!
//! Takes any text, knows nothing of the file system: whether a name is taken is the caller's
//! question, asked with [`clash_key`] and answered with [`nth`].

use std::fmt;

use unicode_normalization::UnicodeNormalization;

use super::path::{NAME_BYTES, is_forbidden};

/// A safe name is cut to this, so that ` (2)` and a share's deep folders still fit.
const SAFE_BYTES: usize = 200;
/// What [`nth`] may use.
const NUMBERED_BYTES: usize = 220;
/// A longer "extension", with its dot, is part of the name.
const EXTENSION_BYTES: usize = 20;

/// A file or folder name that Windows shares take as it is.
///
/// Invariant: NFC, 1 to 220 bytes, no reserved, control or bidi character, no device name, no dot
/// or blank at the end, none at the front. Only made in this module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafeName(String);

impl SafeName {
    /// The name as it stands on the share.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SafeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes any text a file name of at most 200 bytes that is safe on Windows shares.
///
/// A safe text stays as it is. Whenever something had to change, `~` and four digits of a hash of
/// the original stand before the extension, so that `a:b.pdf` and `a?b.pdf` stay two files.
pub fn safe_file_name(name: &str) -> SafeName {
    make_safe(name, split_extension)
}

/// Like [`safe_file_name`], for a folder: the whole text is the stem.
pub fn safe_folder_name(name: &str) -> SafeName {
    make_safe(name, |folder| (folder, ""))
}

/// The name for the `n`th file of a name: the first is `name` itself, the second `plakat (2).pdf`.
pub fn nth(name: &SafeName, n: u32) -> SafeName {
    if n < 2 {
        return name.clone();
    }
    let (stem, extension) = split_extension(name.as_str());
    SafeName(join_within(NUMBERED_BYTES, stem, &format!(" ({n})"), extension))
}

/// Equal for names that Windows takes for the same.
pub fn clash_key(name: &SafeName) -> String {
    clash_key_of(&name.0)
}

/// The same for a name that was found in a folder, whoever made it.
pub fn clash_key_of(name: &str) -> String {
    // Windows compares by simple upper case: ς, σ and Σ are one there, ß and SS are two.
    let upper = name.nfc().map(|c| single(c.to_uppercase()).unwrap_or(c));
    upper.flat_map(char::to_lowercase).nfc().collect()
}

/// What stands for the placeholders of a layout.
#[derive(Clone, Copy, Debug)]
pub struct LayoutValues<'a> {
    pub client_no: &'a str,
    pub client_name: &'a str,
    pub project_no: &'a str,
    pub ticket_no: &'a str,
    pub username: &'a str,
    pub folder: &'a str,
}

impl<'a> LayoutValues<'a> {
    fn of(&self, placeholder: &str) -> Option<&'a str> {
        match placeholder {
            "client_no" => Some(self.client_no),
            "client_name" => Some(self.client_name),
            "project_no" => Some(self.project_no),
            "ticket_no" => Some(self.ticket_no),
            "username" => Some(self.username),
            "folder" => Some(self.folder),
            _ => None,
        }
    }
}

/// The folders from the hotfolder's root down, by a layout such as
/// `{client_no}/{project_no}/{folder}`.
///
/// Each value stays within its segment, whatever it holds. Segments that come out empty vanish;
/// an unknown placeholder is literal text.
pub fn layout(template: &str, values: &LayoutValues<'_>) -> Vec<SafeName> {
    template
        .split('/')
        .map(|segment| fill(segment, values))
        // "{ticket_no} {client_name}" without a ticket leaves a blank that is nobody's name.
        .filter(|text| !text.trim().is_empty())
        .map(|text| safe_folder_name(text.trim()))
        .collect()
}

/// A text, such as a project number, as a valid [`Name`](super::path::Name) for the customer's
/// tree. Different texts may give the same name: the caller makes it unique.
pub fn portal_folder_name(text: &str) -> String {
    let replaced: String = text
        .nfc()
        .map(|c| if matches!(c, '/' | '\\') || is_forbidden(c) { '-' } else { c })
        .nfc()
        .collect();
    match cut(replaced.trim(), NAME_BYTES).trim_end() {
        "" | "." | ".." => "_".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether a text is a relative path without steps upwards, as a placed file's is.
pub fn is_below(path: &str) -> bool {
    let is_name = |part: &str| !matches!(part, "" | "." | "..");
    path.len() < 4096 && !path.contains('\0') && path.split('/').all(is_name)
}

fn make_safe(name: &str, split: fn(&str) -> (&str, &str)) -> SafeName {
    let original: String = name.nfc().collect();
    let safe = replace(&original);
    if safe == original && safe.len() <= SAFE_BYTES {
        return SafeName(safe);
    }
    let (stem, extension) = split(&safe);
    SafeName(join_within(SAFE_BYTES, stem, &format!("~{:04x}", hash16(&original)), extension))
}

/// Replaces what Windows or a watcher would not take, but for the length.
fn replace(original: &str) -> String {
    let replaced: String =
        original.chars().map(|c| if is_unsafe(c) { '_' } else { c }).nfc().collect();
    let name = replaced.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    let bare = name.trim_start();
    if name.is_empty() {
        "_".to_owned()
    } else if bare.len() < name.len() {
        format!("_{bare}")
    } else if let Some(hidden) = name.strip_prefix('.') {
        // A watcher would not see a hidden file.
        format!("_{hidden}")
    } else if is_device(name) {
        // At the front, since a device keeps its meaning before any extension: NUL.tar.gz.
        format!("_{name}")
    } else {
        name.to_owned()
    }
}

/// `stem`, `suffix` and `extension` in `limit` bytes, at the cost of the stem.
fn join_within(limit: usize, stem: &str, suffix: &str, extension: &str) -> String {
    let room = limit.saturating_sub(suffix.len()).saturating_sub(extension.len());
    format!("{}{suffix}{extension}", cut(stem, room))
}

/// At most `limit` bytes of `text`, cut between characters.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// Stem and extension with its dot; `.tar.gz` and its like are one extension. "Nr. 5 neu" has none.
fn split_extension(name: &str) -> (&str, &str) {
    let Some((before, _)) = name.rsplit_once('.') else { return (name, "") };
    let stem = match before.rsplit_once('.') {
        Some((stem, middle)) if middle.eq_ignore_ascii_case("tar") => stem,
        _ => before,
    };
    name.split_at_checked(stem.len())
        .filter(|(stem, extension)| {
            let fits = (2..=EXTENSION_BYTES).contains(&extension.len());
            fits && !stem.is_empty() && !extension.contains(char::is_whitespace)
        })
        .unwrap_or((name, ""))
}

fn is_unsafe(character: char) -> bool {
    let is_reserved = matches!(character, '<' | '>' | ':' | '"' | '/' | '\\' | '|' | '?' | '*');
    let is_bidi_mark = matches!(character, '\u{61C}' | '\u{200E}' | '\u{200F}');
    // Samba, macOS and cifs mounts let these private characters stand for the reserved ones.
    let is_mapped = matches!(character, '\u{F000}'..='\u{F0FF}');
    is_reserved || is_bidi_mark || is_mapped || is_forbidden(character)
}

/// Whether Windows opens a device instead of a file: `aux`, `Com1.pdf`, `NUL .tar.gz`.
fn is_device(name: &str) -> bool {
    let base = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    if matches!(base.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let port = base.strip_prefix("COM").or_else(|| base.strip_prefix("LPT"));
    let number = port.and_then(|digits| single(digits.chars()));
    number.is_some_and(|c| matches!(c, '0'..='9' | '¹' | '²' | '³'))
}

/// The one character of `characters`, if it is one.
fn single(mut characters: impl Iterator<Item = char>) -> Option<char> {
    let first = characters.next()?;
    characters.next().is_none().then_some(first)
}

/// 16 bits of FNV-1a 64, the same for ever: names on shares depend on it.
fn hash16(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The last byte of a text hardly reaches the upper digits of FNV-1a: "a:" and "a?" would
    // be equal there. The finish of MurmurHash3 spreads it.
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed ^ (mixed >> 33)) >> 48
}

/// The text of one segment of a layout, its placeholders replaced by safe values.
fn fill(segment: &str, values: &LayoutValues<'_>) -> String {
    let mut text = String::new();
    let mut rest = segment;
    while let Some((literal, tail)) = rest.split_once('{') {
        text.push_str(literal);
        let known = tail.split_once('}').and_then(|(key, after)| Some((values.of(key)?, after)));
        let Some((value, after)) = known else {
            text.push('{');
            rest = tail;
            continue;
        };
        // No value is no text, not the "_" of an empty name.
        if !value.is_empty() {
            text.push_str(safe_folder_name(value).as_str());
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::path::{Name, fold};
    use super::*;

    /// `~#` in `expect` stands for the hash of the NFC of `name`.
    fn marked(name: &str, expect: &str) -> String {
        let original: String = name.nfc().collect();
        expect.replace("~#", &format!("~{:04x}", hash16(&original)))
    }

    #[track_caller]
    fn check(name: &str, expect: &str) {
        assert_eq!(safe_file_name(name).as_str(), marked(name, expect));
    }

    #[track_caller]
    fn check_folder(name: &str, expect: &str) {
        assert_eq!(safe_folder_name(name).as_str(), marked(name, expect));
    }

    #[track_caller]
    fn check_layout(template: &str, expect: &[&str]) {
        let values = LayoutValues {
            client_no: "10023",
            client_name: "Müller & Söhne",
            project_no: "2026/0815-1",
            ticket_no: "",
            username: "..",
            folder: "In Bearbeitung",
        };
        let path = layout(template, &values);
        assert_eq!(path.iter().map(SafeName::as_str).collect::<Vec<_>>(), expect);
    }

    /// Written apart from the code above, so that both must be wrong to miss something.
    fn is_valid(name: &str, limit: usize) -> bool {
        let base = name.split('.').next().unwrap().trim().to_lowercase();
        let devices = ["con", "prn", "aux", "nul", "conin$", "conout$"];
        let is_port = (base.starts_with("com") || base.starts_with("lpt"))
            && base.chars().count() == 4
            && base.ends_with(|c| "123456789¹²³".contains(c));
        (1..=limit).contains(&name.len())
            && name.nfc().eq(name.chars())
            && !name.chars().any(|c| c.is_control() || "<>:\"/\\|?*\u{202e}\u{200f}".contains(c))
            && !name.starts_with([' ', '.', '\u{a0}'])
            && !name.ends_with([' ', '.', '\u{a0}'])
            && !devices.contains(&base.as_str())
            && !is_port
    }

    #[test]
    fn places_lie_below_the_hotfolder() {
        assert!(is_below("1001/2026-0815/Eingehend/a.pdf"));
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "a\0"] {
            assert!(!is_below(bad), "{bad:?}");
        }
    }

    #[test]
    fn good_names_stay_as_they_are() {
        let names = "plakat.pdf|Plakat A1 (final).pdf|a b|Müller.pdf|a..b.pdf|v1.2|_|~$x.docx|\
            a~1b2c.pdf|CONTRACT.pdf|com.pdf|COM10.txt|COMA.txt|a.con|{x}.pdf|日本.pdf|😀.pdf|a\u{200d}b";
        names.split('|').for_each(|name| check(name, name));
        check("Mu\u{308}ller.pdf", "Müller.pdf");
        check(&"a".repeat(200), &"a".repeat(200));
    }

    #[test]
    fn nasty_names_become_safe() {
        check("", "_~#");
        check(".", "_~#");
        check("..", "_~#");
        check("   ", "_~#");
        check("a.", "a~#");
        check("a ", "a~#");
        check("a.pdf. .", "a~#.pdf");
        check(" a.pdf", "_a~#.pdf");
        check(" .a.pdf", "_.a~#.pdf");
        check(".htaccess", "_htaccess~#");
        check(".ptportal-tmp", "_ptportal-tmp~#");
        check("..\\..\\x.exe", "_._.._x~#.exe");
        check("a:b?.pdf", "a_b_~#.pdf");
        // A name on a share must not change with a new version, so one hash stands here.
        check("a:b.pdf", "a_b~fac8.pdf");
        check("<>:\"/\\|?*", "_________~#");
        check("a\0b\n.pdf", "a_b_~#.pdf");
        check("\u{202e}fdp.exe", "_fdp~#.exe");
        check("a\u{f022}b", "a_b~#");
        check("Nr. 5 neu?", "Nr. 5 neu_~#");
        check("<\u{338}.pdf", "\u{226e}.pdf");
    }

    #[test]
    fn device_names_become_files() {
        check("aux", "_aux~#");
        check("CON.pdf", "_CON~#.pdf");
        check("nul.tar.gz", "_nul~#.tar.gz");
        check("nul.a.pdf", "_nul.a~#.pdf");
        check("Prn .pdf", "_Prn ~#.pdf");
        check("com1.txt", "_com1~#.txt");
        check("LPT9", "_LPT9~#");
        check("COM¹.pdf", "_COM¹~#.pdf");
        check("conin$", "_conin$~#");
        check("CONOUT$.x", "_CONOUT$~#.x");
        check("aux. ", "_aux~#");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        check(&"ä".repeat(150), &format!("{}~#", "ä".repeat(97)));
        check(&format!("{}.pdf", "ä".repeat(148)), &format!("{}~#.pdf", "ä".repeat(95)));
        check(&format!("{}.tar.gz", "a".repeat(293)), &format!("{}~#.tar.gz", "a".repeat(188)));
        check(&format!("a.{}", "b".repeat(298)), &format!("a.{}~#", "b".repeat(193)));
        check_folder(&format!("{}.pdf", "x".repeat(296)), &format!("{}~#", "x".repeat(195)));
    }

    #[test]
    fn folders_have_no_extension() {
        check_folder("v1.2", "v1.2");
        check_folder("v1.2?", "v1.2_~#");
        check_folder("2026/0815-1", "2026_0815-1~#");
        check_folder("con.pdf", "_con.pdf~#");
    }

    #[test]
    fn a_number_stands_before_the_extension() {
        let numbered = |name: &str, n| nth(&safe_file_name(name), n).to_string();
        assert_eq!(numbered("plakat.pdf", 1), "plakat.pdf");
        assert_eq!(numbered("plakat.pdf", 2), "plakat (2).pdf");
        assert_eq!(numbered("a.TAR.gz", 3), "a (3).TAR.gz");
        assert_eq!(numbered("a", 12), "a (12)");
        assert_eq!(numbered(&"a".repeat(200), 2), format!("{} (2)", "a".repeat(200)));
        let max = nth(&safe_file_name(&"ä".repeat(100)), u32::MAX);
        assert_eq!(nth(&max, u32::MAX).as_str().len(), 220);
    }

    #[test]
    fn clash_key_is_the_eye_of_windows() {
        let key = |name: &str| clash_key(&safe_file_name(name));
        assert_eq!(key("MU\u{308}LLER.PDF"), key("müller.pdf"));
        assert_eq!(key("ΟΔΟΣ"), key("οδος"));
        assert_ne!(key("straße"), key("strasse"));
        assert_ne!(key("a:"), key("a?"));
    }

    #[test]
    fn a_layout_gives_one_folder_for_each_segment() {
        let project = marked("2026/0815-1", "2026_0815-1~#");
        let dots = marked("..", "_~#");
        check_layout("{client_no}/{project_no}/{folder}", &["10023", &project, "In Bearbeitung"]);
        check_layout("{client_no} {client_name}", &["10023 Müller & Söhne"]);
        check_layout("/in//{ticket_no}/{ticket_no} {folder}/", &["in", "In Bearbeitung"]);
        check_layout("{username}/x", &[&dots, "x"]);
        check_layout("../{nothing}/{", &[&dots, "{nothing}", "{"]);
        check_layout("aux", &[&marked("aux", "_aux~#")]);
        check_layout("{ticket_no}", &[]);
    }

    #[test]
    fn portal_folders_are_names() {
        assert_eq!(portal_folder_name("2026/0815-1"), "2026-0815-1");
        assert!(["", " ", ".", ".."].iter().all(|text| portal_folder_name(text) == "_"));
        assert_eq!(portal_folder_name("a\0\u{202e}b\\ "), "a--b-");
        for text in [".. ", "ä\u{2028}", "/", "\u{308}/\u{338}", &"ä".repeat(300)] {
            let name = portal_folder_name(text);
            assert_eq!(Name::parse(&name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn different_names_stay_different() {
        let stems = "a|A|a.b|con|CON|nul.tar|ä|a\u{308}|ß|..|.|.a|com1|lpt¹|a\u{200d}|~1|_|_a|a_";
        let frames =
            "#|#.|#..|# | #|#.pdf|#.PDF|#:|#?|#*.pdf|#\\.pdf|#/x|.#|#\0|#\u{202e}|#\u{7f}.gz";
        let long = (190..320).step_by(7).map(|n| format!("{}.pdf", "ü".repeat(n)));
        let nasty = stems.split('|').flat_map(|s| frames.split('|').map(|f| f.replace('#', s)));
        let mut taken = HashMap::new();
        for name in nasty.chain(long) {
            let safe = safe_file_name(&name);
            assert!(is_valid(safe.as_str(), 200), "{name:?} became {safe:?}");
            if let Some(other) = taken.insert(clash_key(&safe), fold(&name)) {
                assert_eq!(other, fold(&name), "both became {safe}");
            }
        }
        assert!(taken.len() > 200);
    }

    #[test]
    fn any_text_becomes_a_valid_name() {
        let alphabet: Vec<char> =
            "..  aAuxXnNulLcCoOmM1¹$:?*\\/|<>\"\0\n\u{7f}\u{85}\u{202e}\u{200f}\u{a0}\u{308}\u{338}äßσΣ😀~_-()"
                .chars()
                .collect();
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        for round in 0..20_000 {
            let length = if round % 10 == 0 { next(300) } else { next(9) };
            let text: String = (0..length).map(|_| alphabet[next(alphabet.len())]).collect();
            for safe in [safe_file_name(&text), safe_folder_name(&text)] {
                assert!(is_valid(safe.as_str(), 200), "{text:?} became {safe:?}");
                assert_eq!(safe_folder_name(safe.as_str()), safe);
                assert_eq!(safe_file_name(safe.as_str()), safe);
                assert!(is_valid(nth(&safe, 2).as_str(), 220), "{text:?} became {safe:?}");
                assert_eq!(Name::parse(safe.as_str()).unwrap().as_str(), safe.as_str());
            }
            let portal = portal_folder_name(&text);
            assert_eq!(Name::parse(&portal).unwrap().as_str(), portal);
        }
    }
}
