//! The words of `hook`, `publish` and `pull`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, Subcommand)]
pub(super) enum HookCommand {
    /// Run the hooks of an event with a sample, and show what they print
    Test {
        /// For example upload.delivered
        event: String,
    },
    /// Runs of hooks and calls of webhooks, newest first
    List {
        /// pending, done or failed
        #[arg(long)]
        state: Option<String>,
    },
    /// One run with its output
    Show { id: String },
    /// Run again what was given up
    Retry {
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// Everything that was given up
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PublishCommand {
    /// Removals that wait, or the files of a project that the customer sees
    List { project_no: Option<String> },
    /// Let removals follow: the files that vanished from the hotfolder are meant to be gone
    Confirm {
        project_no: String,
        /// Only this folder
        folder: Option<String>,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct PullArgs {
    /// Address of the portal's order API, for example <https://portal.example:8081>
    #[arg(long, value_name = "URL")]
    pub(super) from: String,
    /// File whose first line is a token of scope pull
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: PathBuf,
    /// The hotfolder
    #[arg(long, value_name = "DIR")]
    pub(super) into: PathBuf,
    /// Folder whose files go back to customers; may be given several times
    #[arg(long, value_name = "NAME", default_values = ["In Bearbeitung", "Final"])]
    pub(super) publish: Vec<String>,
    /// Certificate (PEM) that the portal is trusted by, beside those of the system
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Seconds between looks when nothing is to be done
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub(super) every: u64,
    /// Bring everything that waits, then end
    #[arg(long)]
    pub(super) once: bool,
}
