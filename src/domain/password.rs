//! Which passwords customers may choose (spec section 11).

use unicode_normalization::UnicodeNormalization;

use crate::domain::account::Language;

/// Why a new password is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    #[error("the password has fewer than 12 characters; choose a longer one")]
    TooShort,
    #[error("the password has more than 128 characters; choose a shorter one")]
    TooLong,
    #[error("the password holds control characters; use letters, digits and signs")]
    ControlCharacter,
    #[error("the password is the username; choose another")]
    IsUsername,
    #[error("the password is one of the commonest, or easily guessed; choose another")]
    Common,
}

impl BadPassword {
    /// For the person who chose it.
    #[must_use]
    pub const fn text(self, language: Language) -> &'static str {
        match (self, language) {
            (Self::TooShort, Language::De) => {
                "Das Passwort hat weniger als 12 Zeichen. Bitte wählen Sie ein längeres."
            }
            (Self::TooShort, Language::En) => {
                "The password has fewer than 12 characters. Please choose a longer one."
            }
            (Self::TooLong, Language::De) => {
                "Das Passwort hat mehr als 128 Zeichen. Bitte wählen Sie ein kürzeres."
            }
            (Self::TooLong, Language::En) => {
                "The password has more than 128 characters. Please choose a shorter one."
            }
            (Self::ControlCharacter, Language::De) => {
                "Das Passwort enthält Steuerzeichen. Bitte nehmen Sie Buchstaben, Ziffern und Zeichen."
            }
            (Self::ControlCharacter, Language::En) => {
                "The password holds control characters. Please use letters, digits and signs."
            }
            (Self::IsUsername, Language::De) => {
                "Das Passwort ist der Benutzername. Bitte wählen Sie ein anderes."
            }
            (Self::IsUsername, Language::En) => {
                "The password is the username. Please choose another."
            }
            (Self::Common, Language::De) => {
                "Dieses Passwort ist zu gebräuchlich oder leicht zu erraten. Bitte wählen Sie ein anderes, zum Beispiel das vorgeschlagene."
            }
            (Self::Common, Language::En) => {
                "This password is too common or easily guessed. Please choose another, for example the suggested one."
            }
        }
    }
}

/// Checks a new password (spec section 11) and brings it into NFC. `words` are the customer's own: company, numbers.
///
/// # Errors
/// The reason, for the person who chose it.
pub fn acceptable(
    (username, words): (&str, &[&str]),
    password: &str,
) -> Result<String, BadPassword> {
    let normal: String = password.nfc().collect();
    let length = normal.chars().count();
    if length < 12 {
        return Err(BadPassword::TooShort);
    }
    if length > 128 {
        return Err(BadPassword::TooLong);
    }
    // U+FFFD stands where bytes were no text: nobody could type that again.
    if normal.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        return Err(BadPassword::ControlCharacter);
    }
    let folded = normal.to_lowercase();
    if folded == username.to_lowercase() {
        return Err(BadPassword::IsUsername);
    }
    let letters = folded.trim_end_matches(|c: char| c.is_ascii_digit() || "!?.".contains(c));
    let mut distinct: Vec<char> = folded.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 4 || COMMON.contains(&letters) || COMMON.contains(&folded.as_str()) {
        return Err(BadPassword::Common);
    }
    // The estimate's time grows with the length; a long one that begins with something good is good.
    let beginning: String = normal.chars().take(40).collect();
    let mut known = vec![username];
    known.extend(words.iter().filter(|word| word.chars().count() > 2));
    if zxcvbn::zxcvbn(&beginning, &known).score() < zxcvbn::Score::Two {
        return Err(BadPassword::Common);
    }
    Ok(normal)
}

/// What Germans choose when twelve characters are asked for (compared without digits and `!?.` at the end); English
/// words, names, dates and rows of keys are known to the estimate.
const COMMON: [&str; 20] = [
    "passwort",
    "passwortpasswort",
    "qwertzuiop",
    "qwertzuiopü",
    "qwertzuiopasdf",
    "administrator",
    "willkommen",
    "hallohallo",
    "schalke",
    "1q2w3e4r5t6z",
    "q1w2e3r4t5z6",
    "abcdefghijkl",
    "abc",
    "123456789abc",
    "geheimgeheim",
    "sommer",
    "winter",
    "druckerei",
    "ptportal",
    "ptworkflow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_policy_of_spec_section_11() {
        let check = |password: &str| {
            acceptable(("druckkunde-4711", &["Muster & Söhne GmbH"]), password).map(|_| ())
        };
        assert_eq!(check("kurz"), Err(BadPassword::TooShort));
        assert_eq!(check(&"äb1-".repeat(33)), Err(BadPassword::TooLong));
        assert_eq!(check("Druckkunde-4711"), Err(BadPassword::IsUsername));
        assert_eq!(check("Passwort123456"), Err(BadPassword::Common));
        assert_eq!(check("aaaaaaaaaaaaaa"), Err(BadPassword::Common));
        assert_eq!(check("zwölf\u{7}Zeichen!"), Err(BadPassword::ControlCharacter));
        for common in
            ["password1234", "123456789012", "qwertyuiop12", "iloveyou1234", "aaaabbbbcccc"]
        {
            assert_eq!(check(common), Err(BadPassword::Common), "{common}");
        }
        for good in
            ["zwölf Zeichen sind genug", "correct horse battery staple", "Ein gutes Kennwort 17"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }
}
