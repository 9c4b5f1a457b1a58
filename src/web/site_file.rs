//! `/home/filezilla.xml`: the connection for FileZilla's import, without the password.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use quick_xml::escape::escape;

use super::home::{Connection, connection};
use super::page::see_other;
use super::{Web, forms};
use crate::http::Caller;

/// FileZilla's numbers of protocols (its ServerProtocol): SFTP, FTP over implicit TLS, FTP with explicit TLS required.
const SFTP: u8 = 1;
const FTPS_IMPLICIT: u8 = 3;
const FTPS_EXPLICIT: u8 = 4;
/// FileZilla asks for the password and forgets it.
const ASK: u8 = 2;

pub(super) async fn download(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let Some(visitor) = forms::visitor(&web, &headers, &caller).await else {
        return see_other("/");
    };
    let kind = [
        (header::CONTENT_TYPE, "application/xml; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"filezilla.xml\""),
    ];
    (kind, site_file(&connection(&web, &visitor))).into_response()
}

fn site_file(connection: &Connection) -> String {
    let sites = [
        (SFTP, "SFTP", connection.sftp_port),
        (FTPS_EXPLICIT, "FTPS", connection.ftps_port),
        (FTPS_IMPLICIT, "FTPS (implicit)", connection.implicit_port),
    ];
    let mut out =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<FileZilla3>\n<Servers>\n".to_owned();
    for (protocol, name, port) in sites {
        let Some(port) = port else { continue };
        let (host, user) = (escape(connection.host.as_str()), escape(connection.username.as_str()));
        out.push_str(&format!(
            "<Server>\n<Host>{host}</Host>\n<Port>{port}</Port>\n<Protocol>{protocol}</Protocol>\n<Type>0</Type>\n\
             <User>{user}</User>\n<Logontype>{ASK}</Logontype>\n<EncodingType>UTF-8</EncodingType>\n\
             <BypassProxy>0</BypassProxy>\n<Name>{host} {name}</Name>\n</Server>\n"
        ));
    }
    out.push_str("</Servers>\n</FileZilla3>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_each_way_and_no_password() {
        let connection = Connection {
            host: "portal.example".to_owned(),
            username: "a&b".to_owned(),
            sftp_port: Some(2022),
            ftps_port: None,
            implicit_port: Some(990),
        };
        let text = site_file(&connection);
        for part in
            ["<Protocol>1</Protocol>", "<Protocol>3</Protocol>", "<Port>990</Port>", "a&amp;b"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("<Protocol>4</Protocol>") && !text.contains("<Pass"));
    }
}
