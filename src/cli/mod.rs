//! FRONT the commands of spec section 3, on the same use cases as everything else.

mod args;
mod demo;
mod mail;
mod mail_args;
mod operate;
mod print;
mod pull;
mod registry;
mod service;
mod settings;
mod upkeep;
mod watch;
mod workflow;
mod workflow_args;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use self::args::{Args, Command};
use self::print::Printer;
use crate::app::{App, Clock, control};
use crate::config::{self, Loaded};
use crate::store::{self, StoreError};
use crate::{logging, serve};

/// What every command works with.
struct Context {
    printer: Printer,
    loaded: Loaded,
    clock: Clock,
    is_verbose: bool,
}

impl Context {
    /// Opens database and folders for one command.
    async fn open(&self) -> anyhow::Result<Arc<App>> {
        let config = &self.loaded.config;
        let database = config.sqlite_file();
        let is_new = config.database.url.is_empty() && !database.exists();
        let app = serve::open(config.clone(), self.clock).await?;
        if is_new && self.loaded.file.is_none() {
            print::complain(&format!(
                "there is no ptportal.toml here, and a new, empty database was made: {}; `--config FILE` names the settings of another one",
                database.display()
            ));
        }
        Ok(app)
    }

    /// After a change: wakes the servers on this data folder, if any run.
    async fn wake(&self) {
        control::wake(&self.loaded.config.data_dir).await;
    }
}

/// Reads the arguments, runs one command, prints its result or one clear line why not.
pub async fn main(clock: Clock) -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to standard output with status 0, wrong usage to standard error with 2.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match Box::pin(run(args, clock)).await {
        Ok(code) => code,
        Err(error) => {
            print::complain(&told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each said once (those of the database repeat theirs), and what to do where it is known.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        if !told.ends_with(&said) {
            told = if told.is_empty() { said } else { format!("{told}: {said}") };
        }
    }
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<StoreError>());
    if causes.any(store::is_out_of_room) {
        told.push_str(
            "; make room on the disk of the database (data_dir, or PostgreSQL's) and try again",
        );
    }
    told
}

async fn run(args: Args, clock: Clock) -> anyhow::Result<ExitCode> {
    let printer = Printer::new(args.json);
    if let Command::Demo(demo) = args.command {
        Box::pin(demo::run(demo, clock)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = load(args.config.as_deref())?;
    let context = Context { printer, loaded, clock, is_verbose: args.verbose };
    if !matches!(args.command, Command::Serve | Command::Pull(_)) {
        start_quiet_log(&context);
    }
    match args.command {
        Command::Serve => Box::pin(service::serve(&context)).await?,
        Command::Check { init_hotfolder } => return service::check(&context, init_hotfolder).await,
        Command::Config(args::ConfigCommand::Show) => service::show_config(&context)?,
        Command::Client(command) => registry::client(&context, command).await?,
        Command::Contact(command) => registry::contact(&context, command).await?,
        Command::Account(command) => registry::account(&context, command).await?,
        Command::Project(command) => registry::project(&context, command).await?,
        Command::Ticket(command) => registry::ticket(&context, command).await?,
        Command::Default(command) => registry::default(&context, command).await?,
        Command::Upload(command) => operate::upload(&context, command).await?,
        Command::Delivery(command) => operate::delivery(&context, command).await?,
        Command::Mail(command) => mail::mail(&context, command).await?,
        Command::Template(command) => mail::template(&context, command).await?,
        Command::Signature(command) => mail::signature(&context, command).await?,
        Command::User(command) => mail::user(&context, command).await?,
        Command::Token(command) => registry::token(&context, command).await?,
        Command::Hook(command) => return workflow::hook(&context, command).await,
        Command::Publish(command) => workflow::publish(&context, command).await?,
        Command::Pull(args) => return Box::pin(pull::run(&context, args)).await,
        Command::Watch => watch::watch(&context).await?,
        Command::Events(filter) => operate::events(&context, filter).await?,
        Command::Ban(command) => operate::ban(&context, command).await?,
        Command::Backup { file } => upkeep::backup(&context, &file).await?,
        Command::Restore { file } => upkeep::restore(&context, &file).await?,
        Command::Fsck { deep, repair } => return upkeep::fsck(&context, deep, repair).await,
        Command::Demo(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn load(file: Option<&Path>) -> anyhow::Result<Loaded> {
    let here: PathBuf = std::env::current_dir()?;
    Ok(config::load(file, &here, std::env::vars())?)
}

/// Commands print results; only warnings (or with -v everything) go to the log on standard error.
fn start_quiet_log(context: &Context) {
    let level = if context.is_verbose { "debug" } else { "error" };
    let log =
        config::Log { level: level.to_owned(), file: None, ..context.loaded.config.log.clone() };
    if let Err(error) = logging::start(&log) {
        print::complain(&format!("log: {error}"));
    }
}
