//! `watch`: a live view in the terminal. [`board`] knows what is shown and what keys mean, [`draw`] how it looks.

mod board;
mod draw;
mod rows;
#[cfg(test)]
mod sample;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::board::{Action, Board};
use super::Context;
use super::operate::operator;
use crate::app::picture::{Lookout, Picture};
use crate::app::{App, control};
use crate::store;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a pressed key may wait for the view to end.
const KEY_WAIT: Duration = Duration::from_millis(200);

type Looked = store::Result<Picture>;

pub(super) async fn watch(context: &Context) -> anyhow::Result<()> {
    let app = context.open().await?;
    if context.printer.is_json() {
        context.printer.one(&Lookout::new(app).look().await?.json());
        return Ok(());
    }
    if !std::io::stdout().is_terminal() {
        anyhow::bail!("watch needs a terminal; `ptportal --json watch` prints the picture once");
    }
    let mut work = JoinSet::new();
    let pictures = look(&mut work, Arc::clone(&app));
    let keys = read_keys();
    let terminal = ratatui::try_init()?;
    let shown = run(terminal, &app, pictures, keys).await;
    ratatui::restore();
    shown
}

/// Looks once a second, in a task of its own: a share that hangs must not hold the keys.
fn look(work: &mut JoinSet<()>, app: Arc<App>) -> mpsc::Receiver<Looked> {
    let (sender, receiver) = mpsc::channel(1);
    work.spawn(async move {
        let mut lookout = Lookout::new(app);
        while sender.send(lookout.look().await).await.is_ok() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    receiver
}

/// Reading a terminal blocks; the thread ends with the view, at the latest with the process.
fn read_keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(KEY_WAIT) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(event) = event::read() else { return };
                    if sender.blocking_send(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    });
    receiver
}

async fn run(
    mut terminal: DefaultTerminal,
    app: &Arc<App>,
    mut pictures: mpsc::Receiver<Looked>,
    mut keys: mpsc::Receiver<Event>,
) -> anyhow::Result<()> {
    let mut board = Board::new();
    loop {
        terminal.draw(|frame| draw::draw(frame, &board))?;
        let key = tokio::select! {
            Some(looked) = pictures.recv() => {
                match looked {
                    Ok(picture) => board.show(picture),
                    Err(error) => board.say(format!("the database does not answer: {error}")),
                }
                continue;
            }
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => key,
                // Another size: draw anew.
                Some(_) => continue,
                // The terminal is gone.
                None => return Ok(()),
            },
        };
        match board.press(key) {
            Action::None => {}
            Action::Quit => return Ok(()),
            asked @ (Action::RetryUpload(_)
            | Action::RetryDelivery(_)
            | Action::Release { .. }
            | Action::Reject { .. }) => {
                let said = act(app, asked).await;
                board.say(said);
                control::wake(&app.config.data_dir).await;
            }
        }
    }
}

/// Does what was asked for; what came of it, in a line.
async fn act(app: &Arc<App>, action: Action) -> String {
    let done = match action {
        Action::None | Action::Quit => return String::new(),
        Action::RetryUpload(id) => {
            app.retry_upload(&id).await.map(|_| format!("{id}: scanned now"))
        }
        Action::RetryDelivery(id) => {
            app.retry_deliveries(&id).await.map(|_| format!("{id}: delivered now"))
        }
        Action::Release { id, reason } => app
            .release_upload(&id, (&operator(), &reason), false)
            .await
            .map(|row| format!("{} is released", row.path)),
        Action::Reject { id, reason } => app
            .reject_upload(&id, (&operator(), &reason))
            .await
            .map(|row| format!("{} is rejected", row.path)),
    };
    done.unwrap_or_else(|refused| refused.to_string())
}
