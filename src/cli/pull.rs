//! `ptportal pull`: set up, run until a signal.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::FlockOperation;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::service::until_signal;
use super::settings::Settings;
use super::workflow_args::PullArgs;
use crate::app::new_id;
use crate::app::puller::Puller;
use crate::hotfolder::Hotfolder;
use crate::logging;
use crate::remote::Remote;

/// Two pulls into one folder would work on the same downloads.
fn lock(file: &Path) -> anyhow::Result<File> {
    let name = file.display();
    let file = File::open(file).with_context(|| format!("{name}"))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another pull with this token runs here ({name} is locked)"))?;
    Ok(file)
}

pub(super) async fn run(context: &Context, args: PullArgs) -> anyhow::Result<ExitCode> {
    let mut log = context.loaded.config.log.clone();
    if context.is_verbose {
        "debug".clone_into(&mut log.level);
    }
    logging::start(&log)?;
    let file = args.token_file.display();
    let token =
        std::fs::read_to_string(&args.token_file).with_context(|| format!("token file {file}"))?;
    let token = token.lines().next().unwrap_or_default().trim();
    anyhow::ensure!(
        !token.is_empty(),
        "{file} is empty; its first line must be a token of scope pull"
    );
    let ca = match &args.ca {
        None => None,
        Some(path) => {
            Some(std::fs::read(path).with_context(|| format!("--ca {}", path.display()))?)
        }
    };
    let remote = Remote::new(&args.from, token, ca.as_deref())
        .with_context(|| format!("--from {}", args.from))?;
    // Remembers which share is ours, so that an unmounted one is not taken for an empty one.
    let mut id_file = args.token_file.clone().into_os_string();
    id_file.push(".share-id");
    let (id, modes) = (new_id((context.clock)()), context.loaded.config.hotfolder.modes);
    let share = Hotfolder::open(&args.into, id_file.as_ref(), id.as_str(), modes)?;
    let _lock = lock(Path::new(&id_file))?;
    let puller = Puller {
        share: Arc::new(share),
        remote,
        every: Duration::from_secs(args.every.max(1)),
        publish: args.publish,
        stop: CancellationToken::new(),
    };
    if args.once {
        let count = puller.pull_once().await?;
        tracing::info!(count, "everything that waited is here");
        return Ok(ExitCode::SUCCESS);
    }
    tracing::info!(from = args.from, into = %args.into.display(), "pulling");
    let stop = puller.stop.clone();
    let running = puller.run();
    tokio::pin!(running);
    let mut settings = Settings::new(context);
    tokio::select! {
        () = &mut running => {}
        signalled = until_signal(async || drop(settings.read_again())) => {
            tracing::info!(signal = signalled?, "told to stop");
            stop.cancel();
            // What is being placed may end; what does not end is gone on with at the next start.
            tokio::time::timeout(Duration::from_secs(30), running).await.ok();
        }
    }
    Ok(ExitCode::SUCCESS)
}
