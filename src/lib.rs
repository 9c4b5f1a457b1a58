//! ptportal: the customer portal of print shops that run PTworkflow.
//!
//! # The map
//!
//! Imports go down only: **fronts → app → adapters → domain** (`tests/it/architecture.rs` decides).
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`domain`] | rules without I/O, clock or randomness: paths, verdicts, refusals, names for Windows shares |
//! | [`config`] | `ptportal.toml` and environment into one checked type |
//! | [`logging`], [`metering`] | one line for each event, text or JSON; numbers for Prometheus |
//! | [`steps`] | where tests end the process; nothing in a release |
//! | [`store`] | SQL, the same on SQLite and PostgreSQL |
//! | [`vault`] | the data folder: spool, sealed content, quarantine |
//! | [`clamd`] | clamd: scans, strict replies, canaries |
//! | [`hotfolder`] | the print shop's share |
//! | [`acme`] | a certificate authority that speaks ACME |
//! | [`certificate`] | the TLS certificate: read, made, reloaded |
//! | [`remote`] | the portal at the other end of a pull |
//! | [`process`], [`webhook`] | programs of the print shop; signed calls to other systems |
//! | [`mailer`] | mails to a mail server, or into files |
//! | [`template`] | mails that operators write, and the portal's pages |
//! | [`app`] | use cases: login, session, upload, scan queue, mirror, recovery, orders, links, mails, what operators do |
//! | [`sftp`] | FRONT SFTP on russh |
//! | [`ftps`] | FRONT FTPS on tokio-rustls |
//! | [`web`] | FRONT the customers' pages |
//! | [`api`] | FRONT the order API |
//! | [`http`], [`tls`] | what stands before pages and API: connections, limits, who is calling; the certificate |
//! | [`admin`] | FRONT metrics, health and readiness, never public |
//! | [`challenge`] | FRONT what a certificate authority asks |
//! | [`desk`] | FRONT the operators' page, on the admin address |
//! | [`guard`], [`listen`] | what stands before every front: sockets, limits and bans |
//! | [`serve`] | start and stop order |
//! | [`cli`] | FRONT the commands |
//!
//! # Promises, and where they are kept
//!
//! 1. Nothing unscanned, infected or partial is readable or delivered: only [`domain::verdict::Releasable`] leads to a
//!    release, and only [`domain::verdict::judge`] makes the `Clean` in it.
//! 2. OK means durable: [`vault::Vault::seal`], then the commit of `scanning`, then any answer (`app::upload`).
//! 3. Exactly once: `app::mirror` records the name before it renames; our own temporary file is the witness.
//! 4. What a customer names never reaches a disk: names are rows (`app::tree`), content lies under our ids.
//! 5. A client's pace blocks nobody: the SFTP engine runs in russh's callbacks with paced replies (`sftp::engine`), CLOSE
//!    is answered from a task; an FTPS session is one task (`ftps::client`) with its transfer beside it (`ftps::transfer`).
//! 6. What one protocol forbids the other forbids too: both call [`app::session::Session`], and each turns one
//!    [`domain::refusal::Refusal`] into its own codes in one table (`sftp::status`, `ftps::reply`).
//!
//! 7. A link is used once, by who sets a password with it: [`app::activation`] takes it in the transaction that sets the
//!    password; tokens are made when a mail is sent and stored as hashes.
//!
//! # One order, walked
//!
//! `api::orders` (or `app::import_folder`, or `cli`) reads an [`domain::announcement::Announcement`], checked as a whole →
//! [`app::App::announce`] writes client, project, tickets, account and mails in one transaction, as
//! [`domain::decision::decide`] says → `app::mails` claims the mail, makes the token, fills the template, hands it to
//! [`mailer`] → the customer's POST on `web::activation` → [`app::App::activate`] → login, over any protocol.
//!
//! # One upload, walked
//!
//! `sftp::engine` takes a WRITE → [`app::upload::Upload::write_at`] gathers 512 KiB and hands them to the disk while hashing
//! → `app::follow` scans finished windows behind the watermark (an alarm, never a verdict) → CLOSE:
//! [`app::upload::Upload::finish`] seals → `app::settle` commits `scanning` → `app::scans` asks clamd about the whole file →
//! `judge` → `app::settle` releases in one transaction with event and delivery → the client reads OK → `app::mirror`
//! places it in the hotfolder.
//!
//! Over FTPS the same: STOR opens the upload before the 150, `ftps::transfer` writes until close_notify (large pieces are
//! hashed on the thread of the connection, not the disk's), answers it, and its final reply is the verdict.
//!
//! # One crash, walked
//!
//! The process dies. The next start takes the lock of the data folder, and `app::recovery` looks at each upload of a
//! dead process: a file in `vault/` was complete (its scan goes on), a file in `spool/` was not (`incomplete`,
//! resumable). Deliveries in `placing` look for their temporary file: there means rename now, gone means it has happened.

pub mod acme;
pub mod admin;
pub mod api;
pub mod app;
pub mod certificate;
pub mod challenge;
pub mod clamd;
pub mod cli;
pub mod config;
pub mod desk;
pub mod domain;
pub mod ftps;
pub mod guard;
pub mod hotfolder;
pub mod http;
pub mod listen;
pub mod logging;
pub mod mailer;
pub mod metering;
pub mod process;
pub mod remote;
pub mod serve;
pub mod sftp;
pub mod steps;
pub mod store;
pub mod template;
pub mod tls;
pub mod vault;
pub mod web;
pub mod webhook;
