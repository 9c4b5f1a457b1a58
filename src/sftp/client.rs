//! One SSH connection: login, channels, and nothing but the `sftp` subsystem in them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use russh::keys::HashAlg;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session as Transport,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Pty};
use tokio_util::sync::CancellationToken;

use super::engine::{Broken, Engine};
use crate::app::App;
use crate::app::login::{Door, LoginRefusal, Method};
use crate::app::session::Session;
use crate::domain::event::{Event, EventKind};
use crate::guard::{Guard, Ticket};

/// Channels of one connection (spec section 9).
const CHANNELS_MAX: usize = 8;
/// Told to whoever asks for a shell, a command or scp's old protocol.
const SFTP_ONLY: &str = "This service allows sftp connections only.\r\n";

/// What the watch over a connection sees of it.
pub(super) struct Activity {
    last: Mutex<Instant>,
    /// Uploads whose CLOSE is being answered.
    pub(super) busy: Arc<AtomicUsize>,
    /// Cancelled once a session exists.
    pub(super) logged_in: CancellationToken,
    /// The session, for ending it when its account ends.
    pub(super) session: Mutex<Option<CancellationToken>>,
}

impl Activity {
    #[must_use]
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            last: Mutex::new(Instant::now()),
            busy: Arc::default(),
            logged_in: CancellationToken::new(),
            session: Mutex::new(None),
        })
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Time since the client last asked for something.
    #[must_use]
    pub(super) fn idle(&self) -> std::time::Duration {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// russh's handler for one client.
pub(super) struct Client {
    app: Arc<App>,
    guard: Arc<Guard>,
    ticket: Ticket,
    peer: IpAddr,
    activity: Arc<Activity>,
    session: Option<Arc<Session>>,
    /// Right credentials, but the account says no: told in the disconnect.
    refused: Option<String>,
    channels: HashMap<ChannelId, Option<Engine>>,
    handles: Arc<AtomicUsize>,
}

impl Client {
    #[must_use]
    pub(super) fn new(
        app: Arc<App>,
        guard: Arc<Guard>,
        ticket: Ticket,
        peer: IpAddr,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            app,
            guard,
            ticket,
            peer,
            activity,
            session: None,
            refused: None,
            channels: HashMap::new(),
            handles: Arc::default(),
        }
    }

    fn door(&self, method: Method) -> Door {
        Door { protocol: "sftp", peer: self.peer, method }
    }

    /// A ban counts for connections that are open too.
    fn not_banned(&self) -> Result<(), russh::Error> {
        if self.guard.is_banned(self.peer) { Err(russh::Error::Disconnect) } else { Ok(()) }
    }

    async fn settle_login(&mut self, login: Result<Session, LoginRefusal>, counts: bool) -> Auth {
        match login {
            Ok(session) => {
                let ended = session.ended.clone();
                *self.activity.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
                self.session = Some(Arc::new(session));
                self.refused = None;
                Auth::Accept
            }
            Err(LoginRefusal::Told { code, text }) => {
                // Only whoever has the right credentials comes here; the connection ends with the reason.
                self.refused = Some(format!("{text} [{code}]"));
                Auth::Accept
            }
            Err(LoginRefusal::Rejected) => {
                if counts {
                    self.guard.note_failure(self.peer).await;
                }
                rejected()
            }
        }
    }

    /// Logs why the connection is cut, once, and cuts it.
    async fn cut(
        &mut self,
        broken: &Broken,
        transport: &mut Transport,
    ) -> Result<(), russh::Error> {
        let mut event = Event::new(EventKind::ProtocolError).peer(&self.peer.to_string());
        if let Some(session) = &self.session {
            event = session.event(EventKind::ProtocolError);
        }
        self.app.record(event.with("reason", broken.to_string())).await;
        self.channels.clear();
        transport.disconnect(Disconnect::ProtocolError, "malformed SFTP packet", "en")
    }

    async fn feed(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        transport: &mut Transport,
    ) -> Result<(), russh::Error> {
        self.activity.touch();
        let Some(Some(engine)) = self.channels.get_mut(&channel) else { return Ok(()) };
        let fed = engine.feed(data, transport).await;
        match fed {
            Ok(()) => Ok(()),
            Err(broken) => self.cut(&broken, transport).await,
        }
    }

    fn refuse_program(
        &mut self,
        channel: ChannelId,
        transport: &mut Transport,
    ) -> Result<(), russh::Error> {
        transport.channel_success(channel)?;
        transport.extended_data(channel, 1, SFTP_ONLY.as_bytes().to_vec())?;
        transport.exit_status_request(channel, 1)?;
        transport.eof(channel)?;
        transport.close(channel)
    }
}

/// A refused attempt leaves every method open; russh would take "password" away.
fn rejected() -> Auth {
    Auth::Reject { proceed_with_methods: Some(methods()), partial_success: false }
}

/// The methods offered.
#[must_use]
pub(super) fn methods() -> MethodSet {
    let all = [MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive];
    MethodSet::from(all.as_slice())
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        Ok(rejected())
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        self.not_banned()?;
        let login = self.app.login_with_password(self.door(Method::Password), user, password).await;
        Ok(self.settle_login(login, true).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let fingerprint = offer.public_key.fingerprint(HashAlg::Sha256).to_string();
        let is_known = self.app.knows_key(user, &fingerprint).await;
        Ok(if is_known { Auth::Accept } else { rejected() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
        let login = self.app.login_with_key(self.door(Method::PublicKey), user, &fingerprint).await;
        Ok(self.settle_login(login, false).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Password: ".into(), false)].into(),
            });
        };
        let answer = response.next().unwrap_or_default();
        let Ok(password) = std::str::from_utf8(&answer) else { return Ok(rejected()) };
        let password = password.to_owned();
        self.not_banned()?;
        let login = self
            .app
            .login_with_password(self.door(Method::KeyboardInteractive), user, &password)
            .await;
        Ok(self.settle_login(login, true).await)
    }

    async fn auth_succeeded(&mut self, transport: &mut Transport) -> Result<(), Self::Error> {
        if let Some(text) = &self.refused {
            // Whoever stays all the same is cut when the time for a login is over.
            return transport.disconnect(Disconnect::ByApplication, text, "en");
        }
        self.ticket.authenticated();
        self.activity.touch();
        self.activity.logged_in.cancel();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        if self.session.is_none() {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        } else if self.channels.len() >= CHANNELS_MAX {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        } else {
            self.channels.insert(channel.id(), None);
            reply.accept().await;
        }
        // `channel` is dropped here: an unread receiver would block the connection after 100 messages.
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        let (Some(session), Some(slot)) = (&self.session, self.channels.get_mut(&channel)) else {
            return transport.channel_failure(channel);
        };
        if name != "sftp" || slot.is_some() {
            return transport.channel_failure(channel);
        }
        let counts = (Arc::clone(&self.handles), Arc::clone(&self.activity.busy));
        *slot = Some(Engine::new(Arc::clone(session), channel, transport.handle(), counts));
        transport.channel_success(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        self.refuse_program(channel, transport)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        self.refuse_program(channel, transport)
    }

    // What russh would leave without an answer, so that a client which waits for one would wait for ever.
    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        transport.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        transport.channel_failure(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        transport.channel_failure(channel)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        self.feed(channel, data, transport).await
    }

    async fn window_adjusted(
        &mut self,
        channel: ChannelId,
        _size: u32,
        transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        self.activity.touch();
        let Some(Some(engine)) = self.channels.get_mut(&channel) else { return Ok(()) };
        match engine.window_adjusted(transport).await {
            Ok(()) => Ok(()),
            Err(broken) => self.cut(&broken, transport).await,
        }
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        if let Some(Some(engine)) = self.channels.get(&channel) {
            engine.end_after_answers();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _transport: &mut Transport,
    ) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }
}
