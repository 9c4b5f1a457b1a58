//! Mails by their kind, and what an address is (spec section 11).

/// The named templates, as rows of `client_email_template`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MailKind {
    /// Activation: carries the first link.
    Access,
    /// Asks for print data of a new project or ticket.
    UploadRequest,
    /// A link that the customer asked for.
    NewPassword,
    /// To operators: what came in.
    DataArrived,
    /// To the customer: what came in.
    Receipt,
    /// To operators: a virus was refused.
    VirusFound,
    /// To the customer: a virus was found after the upload had been answered.
    VirusFoundLate,
    /// To the customer: staff have put files into a folder.
    FilesReady,
}

impl MailKind {
    pub const ALL: [Self; 8] = [
        Self::Access,
        Self::UploadRequest,
        Self::NewPassword,
        Self::DataArrived,
        Self::Receipt,
        Self::VirusFound,
        Self::VirusFoundLate,
        Self::FilesReady,
    ];

    /// The name of the template.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "Hotfolder Portalzugang",
            Self::UploadRequest => "Hotfolder Datenupload",
            Self::NewPassword => "Hotfolder Neues Passwort",
            Self::DataArrived => "Hotfolder Dateneingang",
            Self::Receipt => "Hotfolder Empfangsbestätigung",
            Self::VirusFound => "Hotfolder Virenfund",
            Self::VirusFoundLate => "Hotfolder Virenfund Kunde",
            Self::FilesReady => "Hotfolder Daten bereit",
        }
    }

    /// Whether operators get it: it does not depend on the customer's account.
    #[must_use]
    pub const fn is_internal(self) -> bool {
        match self {
            Self::DataArrived | Self::VirusFound => true,
            Self::Access
            | Self::UploadRequest
            | Self::NewPassword
            | Self::Receipt
            | Self::VirusFoundLate
            | Self::FilesReady => false,
        }
    }

    /// Whether it is sent before anybody switches it on: what goes to customers for every batch is not.
    #[must_use]
    pub const fn is_on_by_itself(self) -> bool {
        match self {
            Self::Receipt | Self::FilesReady => false,
            Self::Access
            | Self::UploadRequest
            | Self::NewPassword
            | Self::DataArrived
            | Self::VirusFound
            | Self::VirusFoundLate => true,
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Which placeholder holds a fresh token, made when the mail is sent and never before.
    #[must_use]
    pub const fn token_place(self) -> Option<TokenPlace> {
        match self {
            Self::Access => Some(TokenPlace::FirstLink),
            Self::NewPassword => Some(TokenPlace::Link),
            Self::UploadRequest
            | Self::DataArrived
            | Self::Receipt
            | Self::VirusFound
            | Self::VirusFoundLate
            | Self::FilesReady => None,
        }
    }
}

/// The placeholders that can hold a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPlace {
    /// `portal_first_activation_link`
    FirstLink,
    /// `portal_activation_link`
    Link,
}

/// What becomes of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailState {
    /// Waits for a person.
    Draft,
    /// Waits for the mail server.
    Queued,
    Sent,
    Failed,
}

impl MailState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }
}

/// Longest address that SMTP carries (RFC 5321 section 4.5.3.1.3: a path of 256 with its brackets).
const ADDRESS_MAX: usize = 254;

/// Whether a text can stand as one address in a mail: no display name, no quotes, nothing that could end a header line.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else { return false };
    let is_user = |c: char| !c.is_control() && !c.is_whitespace() && !"()<>[]:;@\\,\"".contains(c);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= ADDRESS_MAX
        && !user.is_empty()
        && user.len() <= 64
        && user.chars().all(is_user)
        && !user.starts_with('.')
        && !user.ends_with('.')
        && !user.contains("..")
        && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_what_only_looks_like_one() {
        for good in [
            "a@b.example",
            "Vor.Nach+druck@mail.example.com",
            "portal@localhost",
            "ü@müller.example",
        ] {
            assert!(is_address(good), "{good}");
        }
        let long = format!("{}@b.example", "x".repeat(65));
        for bad in [
            "",
            "a",
            "@b.example",
            "a@",
            "a b@c.example",
            "a@b..example",
            "a@-b.example",
            "a\r\nBcc: x@y.example",
            "<a@b.example>",
            "a@b.example,c@d.example",
            "a@b@c.example\n",
            "\"a\"@b.example",
            ".a@b.example",
            "a@b_c.example",
            &long,
        ] {
            assert!(!is_address(bad), "{bad:?}");
        }
    }
}
