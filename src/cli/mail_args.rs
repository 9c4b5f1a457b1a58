//! The words of `mail`, `template`, `signature` and `user`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, ClapArgs)]
pub(super) struct MailTarget {
    /// Name of a template
    #[arg(long, value_name = "NAME")]
    pub(super) template: Option<String>,
    #[arg(long, value_name = "NO", requires = "template")]
    pub(super) client: Option<String>,
    #[arg(long, value_name = "NO", requires = "template")]
    pub(super) project: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum MailCommand {
    /// Mails, newest first
    List,
    /// One mail with its text; links lead to the page that gives a fresh one
    Show { id: String },
    /// Send a draft or a failed mail, or write one by hand
    Send {
        #[arg(required_unless_present = "template", conflicts_with = "template")]
        id: Option<String>,
        #[command(flatten)]
        target: MailTarget,
        /// The user who sends it and gets a copy (default: the template's user)
        #[arg(long = "as", value_name = "USER", requires = "template")]
        user: Option<String>,
    },
    /// What a mail would say
    Preview {
        #[command(flatten)]
        target: MailTarget,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TemplateCommand {
    /// All templates
    List,
    /// One template
    Show { name: String },
    /// Write a template; a broken one is refused with its line
    Set {
        name: String,
        #[arg(long)]
        subject: Option<String>,
        /// File with the content (HTML with placeholders), or - for standard input
        #[arg(long, value_name = "F")]
        content_file: Option<PathBuf>,
        /// The PTworkflow user who sends it by hand
        #[arg(long)]
        user: Option<String>,
        /// Send no mails of this kind by itself
        #[arg(long)]
        inactive: bool,
        /// Send mails of this kind again
        #[arg(long, conflicts_with = "inactive")]
        active: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SignatureCommand {
    /// All signatures; the active one stands under every mail
    List,
    /// One signature
    Show { name: String },
    /// Write a signature; parts that are not named are empty
    Set {
        name: String,
        #[arg(long, value_name = "F")]
        head_html: Option<PathBuf>,
        #[arg(long, value_name = "F")]
        foot_html: Option<PathBuf>,
        #[arg(long, value_name = "F")]
        head_text: Option<PathBuf>,
        #[arg(long, value_name = "F")]
        foot_text: Option<PathBuf>,
        /// Keep it, but do not use it
        #[arg(long)]
        inactive: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user, or give one another address
    Add {
        name: String,
        #[arg(long)]
        email: String,
    },
    /// All users
    List,
}
