//! The words of the command line (spec section 3).

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::mail_args::{MailCommand, SignatureCommand, TemplateCommand, UserCommand};
use super::workflow_args::{HookCommand, PublishCommand, PullArgs};
use crate::domain::account::Language;

/// Customer portal of print shops: SFTP in, scanned by clamd, delivered to the hotfolder exactly once.
#[derive(Debug, Parser)]
#[command(name = "ptportal", version, arg_required_else_help = true)]
pub(super) struct Args {
    /// Configuration file (default: ./ptportal.toml, then /etc/ptportal/ptportal.toml, else defaults)
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more on standard error
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run every service that the configuration enables, until SIGTERM or SIGINT
    Serve,
    /// Check configuration, database, clamd, hotfolder and ports; exit 1 if anything fails
    Check {
        /// Make the hotfolder's marker file: this folder is the right one
        #[arg(long)]
        init_hotfolder: bool,
    },
    /// The effective configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Customers (Kunden)
    #[command(subcommand)]
    Client(ClientCommand),
    /// Contacts of a customer (Ansprechpartner)
    #[command(subcommand)]
    Contact(ContactCommand),
    /// Portal accounts (Portalzugänge)
    #[command(subcommand)]
    Account(AccountCommand),
    /// Projects (Vorgänge, Aufträge)
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Tickets, parts of a project
    #[command(subcommand)]
    Ticket(TicketCommand),
    /// System defaults (Systemstandards)
    #[command(subcommand)]
    Default(DefaultCommand),
    /// Uploads: what came in, and what an operator decides about it
    #[command(subcommand)]
    Upload(UploadCommand),
    /// Deliveries into the hotfolder
    #[command(subcommand)]
    Delivery(DeliveryCommand),
    /// Mails: what waits, what was sent, and sending by hand
    #[command(subcommand)]
    Mail(MailCommand),
    /// Templates of mails (Kunden Email Vorlagen)
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Signatures of mails (Emailsignatur)
    #[command(subcommand)]
    Signature(SignatureCommand),
    /// PTworkflow users, the owners of templates
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens of the order API
    #[command(subcommand)]
    Token(TokenCommand),
    /// Hooks and webhooks: what they did, and trying them
    #[command(subcommand)]
    Hook(HookCommand),
    /// Files of staff that the customer sees
    #[command(subcommand)]
    Publish(PublishCommand),
    /// Bring deliveries of a portal in a DMZ into the hotfolder here, and staff's files back
    Pull(PullArgs),
    /// A live view in the terminal: sessions, transfers, scans, deliveries, events, and what is wrong
    Watch,
    /// The audit trail
    Events(EventsFilter),
    /// Addresses that are banned after failed logins
    #[command(subcommand)]
    Ban(BanCommand),
    /// Copy database, keys, certificates and configuration into one new file, also while the server runs
    Backup { file: PathBuf },
    /// Put a backup back: into an empty database, and files where none are
    Restore { file: PathBuf },
    /// Compare vault, rows and sidecars; exit 1 if something is wrong
    Fsck {
        /// Read every content and compare its SHA-256
        #[arg(long)]
        deep: bool,
        /// Rebuild rows from sidecars (as held), clear dead names, remove what was forgotten
        #[arg(long)]
        repair: bool,
    },
    /// A complete instance with a private clamd and a sample customer in a folder of its own
    Demo(DemoArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Every key with its value and where it comes from; secrets are masked
    Show,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ClientOptions {
    /// Company name
    #[arg(long)]
    pub(super) name: Option<String>,
    #[arg(long)]
    pub(super) email: Option<String>,
    /// The customer is meant for the portal: its projects get folders (with =false: not any more)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) create_hotfolder: Option<bool>,
    /// Days without any change after which a project expires; 0 means never
    #[arg(long, value_name = "D")]
    pub(super) delete_in_days: Option<u32>,
    /// Language of what the customer reads: de or en
    #[arg(long)]
    pub(super) language: Option<Language>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Add a customer
    Add {
        #[arg(value_name = "NO")]
        client_no: String,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// All customers
    List,
    /// One customer
    Show {
        #[arg(value_name = "NO")]
        client_no: String,
    },
    /// Change a customer
    Set {
        #[arg(value_name = "NO")]
        client_no: String,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Remove a customer; what must stay for the record is anonymised
    Remove {
        #[arg(value_name = "NO")]
        client_no: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ContactCommand {
    /// Add a contact
    Add {
        client_no: String,
        #[arg(long)]
        name: String,
        #[arg(long)]
        email: String,
        /// Mails go to this contact first
        #[arg(long)]
        favourite: bool,
    },
    /// All contacts of a customer
    List { client_no: String },
    /// Remove a contact
    Remove { id: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Create an account; prints its row
    Create {
        client_no: String,
        /// Username (default: from the system default's `username_pattern`)
        #[arg(long)]
        username: Option<String>,
        /// Create it disabled
        #[arg(long)]
        inactive: bool,
        /// Setting of the account, may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
        settings: Vec<(String, String)>,
    },
    /// All accounts
    List,
    /// One account
    Show { username: String },
    /// Allow logins
    Enable { username: String },
    /// Forbid logins and end running sessions
    Disable { username: String },
    /// Change settings
    Set {
        username: String,
        #[arg(value_name = "KEY=VALUE", value_parser = key_value, required = true)]
        settings: Vec<(String, String)>,
    },
    /// Let the system default count again
    Unset {
        username: String,
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
    /// Set the password directly
    Password {
        username: String,
        /// Read one line from standard input
        #[arg(long, required = true)]
        stdin: bool,
    },
    /// SSH public keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// A fresh activation link: printed, or mailed
    Link {
        username: String,
        /// Mail it instead of printing it
        #[arg(long)]
        send: bool,
    },
    /// Import accounts with their hashes and keys: JSON or a table (`username`, `client_no`, `password_hash`,
    /// `keys`, `client_name`, `client_email`); all or nothing
    Import { file: PathBuf },
    /// Remove an account
    Remove { username: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Add a public key from a file, or - for standard input
    Add { username: String, file: PathBuf },
    /// All keys of an account
    List { username: String },
    /// Remove a key by its fingerprint (SHA256:…)
    Remove { username: String, fingerprint: String },
}

#[derive(Debug, ClapArgs)]
pub(super) struct JobOptions {
    /// What is printed
    #[arg(long)]
    pub(super) description: Option<String>,
    /// YYYY-MM-DD or RFC 3339
    #[arg(long, value_name = "DATE")]
    pub(super) due: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ProjectCommand {
    /// Announce a project; the same again changes nothing
    Add {
        client_no: String,
        project_no: String,
        #[command(flatten)]
        options: JobOptions,
        /// Id of a contact
        #[arg(long, value_name = "ID")]
        contact: Option<String>,
    },
    /// All projects
    List,
    /// One project with its tickets
    Show { project_no: String },
    /// Close a project; its folders are no longer shown
    Close { project_no: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum TicketCommand {
    /// Announce a ticket; the same again changes nothing
    Add {
        project_no: String,
        ticket_no: String,
        #[command(flatten)]
        options: JobOptions,
    },
    /// All tickets of a project
    List { project_no: String },
    /// Remove a ticket
    Remove { project_no: String, ticket_no: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum DefaultCommand {
    /// All system defaults
    List,
    /// One system default
    Show { name: String },
    /// Change keys of `ptportal` (account settings) or `clients`; an empty value removes a key
    Set {
        name: String,
        #[arg(value_name = "KEY=VALUE", value_parser = key_value, required = true)]
        settings: Vec<(String, String)>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum UploadCommand {
    /// Uploads, newest first
    List {
        /// receiving, incomplete, scanning, released, infected, held, rejected or deleted
        #[arg(long)]
        state: Option<String>,
        #[arg(long, value_name = "NO")]
        client: Option<String>,
        #[arg(long, value_name = "NO")]
        project: Option<String>,
    },
    /// One upload with its deliveries
    Show { id: String },
    /// Scan again now
    Retry { id: String },
    /// Release a held upload
    Release {
        id: String,
        /// Why; kept on the upload
        #[arg(long)]
        reason: String,
        /// Also an infected one, from quarantine
        #[arg(long)]
        false_positive: bool,
    },
    /// Reject a held upload; its bytes go
    Reject {
        id: String,
        /// Why; kept on the upload
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DeliveryCommand {
    /// Deliveries, newest first
    List {
        /// pending, placing, stuck, done, cancelled or superseded
        #[arg(long)]
        state: Option<String>,
    },
    /// Try again now
    Retry {
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// Every open delivery
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; its value is shown once
    Create {
        name: String,
        /// orders, pull or admin
        #[arg(long, default_value = "orders")]
        scope: String,
    },
    /// All tokens, without their values
    List,
    /// Make a token worthless at once
    Revoke { name: String },
}

#[derive(Debug, ClapArgs)]
pub(super) struct EventsFilter {
    /// Go on with new events until interrupted
    #[arg(long)]
    pub(super) follow: bool,
    /// RFC 3339 or YYYY-MM-DD
    #[arg(long, value_name = "T")]
    pub(super) since: Option<String>,
    #[arg(long, value_name = "NO")]
    pub(super) client: Option<String>,
    #[arg(long, value_name = "NO")]
    pub(super) project: Option<String>,
    /// For example upload.released
    #[arg(long, value_name = "K")]
    pub(super) kind: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum BanCommand {
    /// Banned addresses
    List,
    /// Let an address in again
    Remove { address: String },
}

#[derive(Debug, ClapArgs)]
pub(super) struct DemoArgs {
    /// Where everything lies; made when missing
    #[arg(long, value_name = "DIR", default_value = "demo")]
    pub(super) dir: PathBuf,
    /// Port of the SFTP service on 127.0.0.1
    #[arg(long, default_value_t = 2022)]
    pub(super) port: u16,
    /// Port of the FTPS service on 127.0.0.1
    #[arg(long, default_value_t = 2121)]
    pub(super) ftps_port: u16,
    /// Port of the web pages on 127.0.0.1
    #[arg(long, default_value_t = 8080)]
    pub(super) web_port: u16,
    /// Port of the order API on 127.0.0.1
    #[arg(long, default_value_t = 8081)]
    pub(super) api_port: u16,
    /// Port of metrics and the operators' page on 127.0.0.1
    #[arg(long, default_value_t = 9090)]
    pub(super) admin_port: u16,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("{text:?} is not KEY=VALUE")),
    }
}
