//! One FTPS session from greeting to end. One task owns all its state; a transfer runs as a future beside the lines
//! that come meanwhile.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Front;
use super::command::{Command, Inside, parse};
use super::control::{Control, Lost};
use super::data::{Pending, Progress};
use super::facts::Facts;
use super::phase::{Once, Phase, Protection, objection};
use super::reply::{Reply, refused};
use super::texts;
use super::tls::SessionTls;
use crate::app::login::{Door, LoginRefusal, Method};
use crate::app::session::Session;
use crate::domain::account::Language;
use crate::domain::event::{Event, EventKind};
use crate::domain::path::{self, VirtualPath};
use crate::domain::refusal::Refusal;
use crate::guard::{ATTEMPTS_MAX, DRAIN, REJECTION, Ticket};
use crate::steps;

/// Lines that may wait while a transfer runs.
const QUEUE_MAX: usize = 32;
/// An aborted transfer puts away what came; this is only for a disk that hangs.
const ABORTING: Duration = Duration::from_secs(10);

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// QUIT, or the client has closed.
    Client,
    Lost,
    /// The login took too long.
    Grace,
    Idle,
    AccountEnded,
    Shutdown,
    /// The client has read its 421 already.
    Told,
    TooManyAttempts,
    /// What no FTP client does.
    Protocol(&'static str),
}

impl End {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Client => "closed by the client",
            Self::Lost => "connection lost",
            Self::Grace => "login took too long",
            Self::Idle => "idle",
            Self::AccountEnded => "the account has ended",
            Self::Shutdown | Self::Told => "shutdown",
            Self::TooManyAttempts => "too many wrong passwords",
            Self::Protocol(what) => what,
        }
    }
}

/// What follows a command.
pub(super) enum Next {
    Reply(Reply),
    Transfer(Transfer),
    StartTls,
    Close(Option<Reply>, End),
}

impl From<Reply> for Next {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// A transfer that was granted.
pub(super) struct Transfer {
    /// 150.
    pub(super) opening: Reply,
    /// Ends in the final reply.
    pub(super) running: Pin<Box<dyn Future<Output = Reply> + Send>>,
    pub(super) abort: CancellationToken,
    pub(super) progress: Arc<Progress>,
}

pub(super) struct Client {
    pub(super) front: Arc<Front>,
    control: Control,
    ticket: Ticket,
    pub(super) peer: IpAddr,
    pub(super) local: IpAddr,
    pub(super) tls: SessionTls,
    began: Instant,
    pub(super) protection: Protection,
    user: Option<String>,
    attempts: usize,
    pub(super) session: Option<Arc<Session>>,
    pub(super) cwd: VirtualPath,
    /// Opened by PASV or EPSV, for the transfer that follows.
    pub(super) pending: Option<Pending>,
    /// EPSV ALL was said.
    pub(super) only_epsv: bool,
    pub(super) facts: Facts,
    once: Once,
    queue: VecDeque<Vec<u8>>,
    told_at: Instant,
    /// The shortest time from a reply to the next command.
    pub(super) turnaround: Duration,
}

impl Client {
    /// # Errors
    /// When the stream has no address any more, or there is no randomness.
    pub(super) fn new(
        front: Arc<Front>,
        ticket: Ticket,
        stream: TcpStream,
        peer: IpAddr,
    ) -> std::io::Result<Self> {
        let tls = front.tls.session()?;
        let local = stream.local_addr()?.ip().to_canonical();
        Ok(Self {
            front,
            control: Control::new(stream),
            ticket,
            peer,
            local,
            tls,
            began: Instant::now(),
            protection: Protection::Clear,
            user: None,
            attempts: 0,
            session: None,
            cwd: VirtualPath::root(),
            pending: None,
            only_epsv: false,
            facts: Facts::default(),
            once: Once::default(),
            queue: VecDeque::new(),
            told_at: Instant::now(),
            turnaround: Duration::MAX,
        })
    }

    /// Serves the client until the end.
    pub(super) async fn run(mut self, is_implicit: bool) {
        let end = match self.greet(is_implicit).await {
            Ok(()) => self.talk().await,
            Err(end) => end,
        };
        self.farewell(&end).await;
        self.control.close().await;
        tracing::debug!(peer = %self.peer, reason = end.reason(), "connection ended");
        let Self { front, session, ticket, peer, .. } = self;
        // Strangers do not wait here for the database.
        drop(ticket);
        if let End::Protocol(reason) = end {
            let event = match &session {
                Some(session) => session.event(EventKind::ProtocolError),
                None if front.guard.is_worth_a_line(peer) => {
                    Event::new(EventKind::ProtocolError).peer(&peer.to_string())
                }
                None => return,
            };
            front.app.record(event.with("reason", reason)).await;
        }
    }

    async fn greet(&mut self, is_implicit: bool) -> Result<(), End> {
        if is_implicit {
            self.start_tls().await?;
            self.protection = Protection::Private;
        }
        self.send(&Reply::new(220, "ptportal ready.")).await
    }

    async fn send(&mut self, reply: &Reply) -> Result<(), End> {
        let sent = self.control.send(reply).await.map_err(|_| End::Lost);
        self.told_at = Instant::now();
        sent
    }

    async fn talk(&mut self) -> End {
        loop {
            let line = match self.next_line().await {
                Ok(line) => line,
                Err(end) => return end,
            };
            let command = parse(&line);
            if let ControlFlow::Break(end) = self.step(command).await {
                return end;
            }
        }
    }

    /// The next line to work on, or why there is none.
    async fn next_line(&mut self) -> Result<Vec<u8>, End> {
        if let Some(line) = self.queue.pop_front() {
            return Ok(line);
        }
        let limits = self.front.app.limits();
        let (patience, late) = match &self.session {
            Some(_) => (limits.idle_timeout, End::Idle),
            None => (limits.login_grace.saturating_sub(self.began.elapsed()), End::Grace),
        };
        let app = Arc::clone(&self.front.app);
        tokio::select! {
            line = self.control.next_line() => {
                self.turnaround = self.turnaround.min(self.told_at.elapsed());
                line.map_err(|lost| match lost {
                    Lost::Closed => End::Client,
                    Lost::TooLong(_) => End::Protocol("a line is too long"),
                })
            }
            () = tokio::time::sleep(patience) => Err(late),
            () = app.stop.cancelled() => Err(End::Shutdown),
            () = account_end(self.session.as_ref()) => Err(End::AccountEnded),
        }
    }

    pub(super) const fn is_private(&self) -> bool {
        self.control.is_private()
    }

    /// REST, for the transfer that follows.
    pub(super) const fn keep_restart(&mut self, offset: u64) {
        self.once.restart = offset;
    }

    /// ALLO, for the transfer that follows.
    pub(super) const fn keep_declared(&mut self, size: u64) {
        self.once.declared = Some(size);
    }

    /// RNFR, for the RNTO that follows.
    pub(super) fn keep_rename_from(&mut self, path: VirtualPath) {
        self.once.rename_from = Some(path);
    }

    fn phase(&self) -> Phase {
        match (&self.session, self.control.is_private()) {
            (Some(_), _) => Phase::LoggedIn,
            (None, true) => Phase::Secured,
            (None, false) => Phase::Clear,
        }
    }

    pub(super) fn language(&self) -> Language {
        self.session.as_ref().map_or(Language::En, |session| session.language())
    }

    async fn step(&mut self, command: Command) -> ControlFlow<End> {
        steps::reach("ftps.command");
        let once = self.once.take_for(&command);
        let next = match objection(&command, self.phase(), self.protection) {
            Some(reply) => Next::Reply(reply),
            None => self.answer(command, once).await,
        };
        let done = match next {
            Next::Reply(reply) => {
                let sent = self.send(&reply).await;
                // 421 says that the connection ends (RFC 959 section 5.4).
                if reply.code == 421 { Err(End::Told) } else { sent }
            }
            Next::Transfer(transfer) => self.transfer(transfer).await,
            Next::StartTls => self.upgrade().await,
            Next::Close(reply, end) => {
                if let Some(reply) = reply {
                    // Whoever is gone already needs no last word.
                    self.send(&reply).await.ok();
                }
                Err(end)
            }
        };
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(end) => ControlFlow::Break(end),
        }
    }

    /// AUTH TLS: nothing may lie behind it in clear, or it would be taken for what came under TLS.
    async fn upgrade(&mut self) -> Result<(), End> {
        if self.control.has_more() || !self.queue.is_empty() {
            self.send(&Reply::new(421, "Commands behind AUTH TLS in clear are not accepted."))
                .await?;
            return Err(End::Protocol("commands in clear behind AUTH TLS"));
        }
        self.send(&Reply::new(234, "TLS may begin.")).await?;
        self.user = None;
        self.start_tls().await
    }

    async fn start_tls(&mut self) -> Result<(), End> {
        let Some(stream) = self.control.take_clear() else { return Err(End::Lost) };
        match self.tls.control(stream).await {
            Ok(stream) => {
                tracing::debug!(peer = %self.peer, tls = super::tls::describe(&stream), "TLS");
                self.control.set_private(stream);
                Ok(())
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "no TLS");
                Err(End::Lost)
            }
        }
    }

    /// Runs a transfer while lines come: ABOR, STAT and NOOP are answered at once, all others wait for their turn.
    async fn transfer(&mut self, transfer: Transfer) -> Result<(), End> {
        let Transfer { opening, mut running, abort, progress } = transfer;
        if let Err(end) = self.send(&opening).await {
            drop(stop(&abort, &mut running).await);
            return Err(end);
        }
        let app = Arc::clone(&self.front.app);
        let drained = async {
            app.stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::pin!(drained);
        let end = loop {
            tokio::select! {
                // The control connection first: a client that gives up may end its data connection as if all had been
                // sent, and only ABOR or the end of the control connection tells.
                biased;
                line = self.control.next_line() => match line {
                    Ok(line) => {
                        let command = parse(&line);
                        if command == Command::Inside(Inside::Abor) && !progress.is_complete() {
                            let reply = stop(&abort, &mut running).await;
                            let reply = reply.unwrap_or_else(|| Reply::new(426, "Transfer aborted."));
                            self.send(&reply).await?;
                            return self.send(&Reply::new(226, "Aborted.")).await;
                        }
                        if self.queue.len() >= QUEUE_MAX {
                            break End::Protocol("too many commands during a transfer");
                        }
                        match self.said_at_once(&command, &progress) {
                            Some(reply) => self.send(&reply).await?,
                            None => self.queue.push_back(line),
                        }
                    }
                    Err(Lost::Closed) => break End::Lost,
                    Err(Lost::TooLong(_)) => break End::Protocol("a line is too long"),
                },
                () = account_end(self.session.as_ref()) => break End::AccountEnded,
                reply = &mut running => return self.send(&reply).await,
                () = &mut drained => break End::Shutdown,
            }
        };
        // The control connection must outlive its transfer: without it nobody says that the file is whole.
        if let Some(reply) = stop(&abort, &mut running).await {
            // What became of the file, before why the connection ends. Whoever is gone already needs neither.
            self.send(&reply).await.ok();
        }
        Err(end)
    }

    /// What is answered while a transfer runs, as long as nothing waits before it.
    fn said_at_once(&self, command: &Command, progress: &Progress) -> Option<Reply> {
        if !self.queue.is_empty() {
            return None;
        }
        if *command == Command::Noop {
            return Some(Reply::new(200, "OK"));
        }
        let is_stat = *command == Command::Inside(Inside::Stat(None));
        is_stat.then(|| Reply::new(213, format!("{} bytes so far.", progress.bytes())))
    }

    async fn farewell(&mut self, end: &End) {
        let language = self.language();
        let reference = self.session.as_ref().map(|s| s.id.to_string()).unwrap_or_default();
        let reply = match end {
            End::Client | End::Lost | End::Told => return,
            End::Grace => Reply::new(421, "The login took too long."),
            End::Idle => {
                let limit = self.front.app.limits().idle_timeout.as_secs();
                Reply::new(421, texts::idle(language, limit))
            }
            End::AccountEnded => {
                Reply { code: 421, ..refused(&Refusal::AccountEnded, language, &reference) }
            }
            End::Shutdown => refused(&Refusal::ShuttingDown, language, &reference),
            End::TooManyAttempts => Reply::new(421, "Too many wrong passwords."),
            End::Protocol("a line is too long") => {
                Reply::new(421, "The line is longer than 4096 bytes.")
            }
            End::Protocol(_) => return,
        };
        // Whoever is gone already needs no last word.
        self.send(&reply).await.ok();
    }

    pub(super) fn name_user(&mut self, name: &[u8]) -> Reply {
        if self.session.is_some() {
            return Reply::new(503, "Logged in already; connect anew for another account.");
        }
        self.user = Some(path::decode(name).into_owned());
        Reply::new(331, "Password required.")
    }

    pub(super) async fn log_in(&mut self, password: &[u8]) -> Next {
        if self.session.is_some() {
            return Reply::new(503, "Logged in already.").into();
        }
        let Some(user) = self.user.take() else {
            return Reply::new(503, "Send USER first.").into();
        };
        // A ban counts for connections that are open too.
        if self.front.guard.is_banned(self.peer) {
            return Next::Close(None, End::TooManyAttempts);
        }
        let began = Instant::now();
        let door = Door { protocol: "ftps", peer: self.peer, method: Method::Password };
        let password = path::decode(password).into_owned();
        match self.front.app.login_with_password(door, &user, &password).await {
            Ok(session) => {
                self.ticket.authenticated();
                let text = texts::welcome(session.language());
                self.session = Some(Arc::new(session));
                Reply::new(230, text).into()
            }
            Err(LoginRefusal::Told { code, text }) => {
                Next::Close(Some(Reply::new(530, format!("{text} [{code}]"))), End::Client)
            }
            Err(LoginRefusal::Rejected) => {
                self.front.guard.note_failure(self.peer).await;
                self.attempts = self.attempts.saturating_add(1);
                tokio::time::sleep(REJECTION.saturating_sub(began.elapsed())).await;
                let reply = Reply::new(530, "Name or password is wrong.");
                if self.attempts >= ATTEMPTS_MAX {
                    return Next::Close(None, End::TooManyAttempts);
                }
                reply.into()
            }
        }
    }
}

async fn account_end(session: Option<&Arc<Session>>) {
    match session {
        Some(session) => session.ended.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Lets a transfer put away what came, and gives its reply; none when it takes too long to know what becomes of it.
async fn stop(
    abort: &CancellationToken,
    running: &mut Pin<Box<dyn Future<Output = Reply> + Send>>,
) -> Option<Reply> {
    abort.cancel();
    tokio::time::timeout(ABORTING, running).await.ok()
}
