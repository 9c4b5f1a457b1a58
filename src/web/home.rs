//! `/home`: connection data, projects, and the state of each upload.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::login::{Notice, notice_of};
use super::page::{self, Reader, page, see_other};
use super::{Web, forms};
use crate::app::overview;
use crate::app::web_sessions::Visitor;
use crate::domain::time::Timestamp;
use crate::http::Caller;
use crate::store::accounts;

/// What went wrong in one of the page's forms.
#[derive(Debug, Default)]
pub(super) struct Problems<'a> {
    pub(super) password: Option<&'a str>,
    /// It was the current password that was wrong.
    pub(super) is_current_wrong: bool,
    pub(super) key: Option<&'a str>,
    /// What was pasted as a key and refused.
    pub(super) refused_key: &'a str,
}

/// How a customer connects.
pub(super) struct Connection {
    pub(super) host: String,
    pub(super) username: String,
    pub(super) sftp_port: Option<u16>,
    pub(super) ftps_port: Option<u16>,
    pub(super) implicit_port: Option<u16>,
}

/// As far as the account may use each protocol.
pub(super) fn connection(web: &Web, visitor: &Visitor) -> Connection {
    let config = &web.app.config;
    let port = |protocol: &str, port: Option<u16>| {
        port.filter(|_| visitor.settings.allows_protocol(protocol))
    };
    Connection {
        host: web.app.public_host(),
        username: visitor.account.username.clone(),
        sftp_port: port("sftp", config.sftp_port()),
        ftps_port: port("ftps", config.ftps_port()),
        implicit_port: port(
            "ftps",
            config.ftps.implicit_listen.first().map(std::net::SocketAddr::port),
        ),
    }
}

pub(super) async fn show(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Notice>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Some(visitor) = forms::visitor(&web, &headers, &caller).await else {
        return see_other("/");
    };
    let reader = Reader::of_visitor(&web, &visitor);
    let notice = match notice_of(query).as_str() {
        "password" => Some(reader.say("Ihr Passwort ist geändert.", "Your password is changed.")),
        "key-added" => Some(reader.say("Der Schlüssel ist eingetragen.", "The key is added.")),
        "key-removed" => Some(reader.say("Der Schlüssel ist entfernt.", "The key is removed.")),
        _ => None,
    };
    home(&web, &reader, &visitor, (StatusCode::OK, notice), &Problems::default()).await
}

/// The page with everything on it.
pub(super) async fn home(
    web: &Web,
    reader: &Reader,
    visitor: &Visitor,
    (status, notice): (StatusCode, Option<&str>),
    problems: &Problems<'_>,
) -> Response {
    match values(web, visitor).await {
        Ok(mut values) => {
            if let Some(map) = values.as_object_mut() {
                map.insert("notice".to_owned(), json!(notice));
                map.insert("password_error".to_owned(), json!(problems.password));
                map.insert("current_is_wrong".to_owned(), json!(problems.is_current_wrong));
                map.insert("key_error".to_owned(), json!(problems.key));
                map.insert("refused_key".to_owned(), json!(problems.refused_key));
            }
            page(web, reader, (status, "home.html"), values)
        }
        Err(error) => {
            page::busy(web, reader, "a customer's page could not be put together", &error)
        }
    }
}

async fn values(web: &Web, visitor: &Visitor) -> crate::store::Result<Value> {
    let app = &web.app;
    let language = visitor.settings.language.unwrap_or(app.config.language);
    let account = &visitor.account;
    let client = crate::store::clients::client(app.store.db(), &account.client_no).await?;
    let projects = app.overview(&account.client_no, &visitor.settings).await?;
    let keys = accounts::keys(app.store.db(), &account.username).await?;
    let keys: Vec<Value> = keys
        .into_iter()
        .map(|key| {
            let added: String = Timestamp(key.created).to_string().chars().take(10).collect();
            let added = overview::day(&added, language);
            json!({"fingerprint": key.fingerprint, "comment": key.comment, "added": added})
        })
        .collect();
    let Connection { host, username, sftp_port, ftps_port, implicit_port } =
        connection(web, visitor);
    let is_ftps = ftps_port.is_some() || implicit_port.is_some();
    let validity = web.certificate.as_ref().filter(|_| is_ftps).map(|c| c.validity());
    let sftp_link = sftp_port.map(|port| format!("sftp://{username}@{host}:{port}/"));
    Ok(json!({
        "username": username, "client_name": client.map(|c| c.name).unwrap_or_default(), "host": host,
        "sftp_port": sftp_port, "ftps_port": ftps_port, "implicit_port": implicit_port,
        "fingerprints": app.host_keys,
        "tls_fingerprint": validity.as_ref().map(|v| v.fingerprint.clone()).unwrap_or_default(),
        "tls_self_signed": validity.is_some_and(|v| v.is_self_signed),
        "sftp_command": sftp_port.map(|port| format!("sftp -P {port} {username}@{host}")),
        "winscp_command": sftp_link.as_ref().map(|link| format!("winscp.exe {link}")),
        "sftp_link": sftp_link,
        "site_file": sftp_port.is_some() || is_ftps,
        "projects": projects, "keys": keys,
    }))
}
