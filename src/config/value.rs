//! The meaning of single values. Each function returns the value or the problem and its remedy.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glob::Pattern;
use unicode_normalization::UnicodeNormalization;

use super::{ClamdAddress, Patience};

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
pub(super) const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;
/// Longer, and adding it to a point in time might overflow.
const LONGEST_MS: u64 = 100 * YEAR_MS;

const LAYOUT_PLACEHOLDERS: [&str; 6] =
    ["client_no", "project_no", "ticket_no", "username", "client_name", "folder"];

/// The text as a basic TOML string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{} is not a size; write for example 16MiB", quoted(text));
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = match unit {
        "" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        "TiB" => TIB,
        _ => return Err(wrong()),
    };
    // The database keeps sizes as BIGINT.
    let fits = |bytes: &u64| i64::try_from(*bytes).is_ok();
    number
        .checked_mul(factor)
        .filter(fits)
        .ok_or_else(|| format!("{} is too large for a size", quoted(text)))
}

/// With the largest unit that leaves a whole number.
pub(super) fn size_text(bytes: u64) -> String {
    let unit = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
        .into_iter()
        .find(|(factor, _)| bytes > 0 && bytes.is_multiple_of(*factor));
    match unit {
        Some((factor, unit)) => format!("{}{unit}", bytes.checked_div(factor).unwrap_or(bytes)),
        None => bytes.to_string(),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{} is not a duration; write a number with ms, s, m, h, d or y", quoted(text));
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = match unit {
        "" if number == 0 => 1,
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        "y" => YEAR_MS,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(factor)
        .filter(|ms| *ms <= LONGEST_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{} is too long; write at most 100y", quoted(text)))
}

pub(super) fn patience(text: &str) -> Result<Patience, String> {
    if text == "verdict" {
        return Ok(Patience::Verdict);
    }
    duration(text).map(Patience::For).map_err(|problem| format!("{problem}, or \"verdict\""))
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}

/// Not empty, and without NUL, which no file system takes.
pub(super) fn path(text: &str, base: &Path) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("is empty; name a path".to_owned());
    }
    if text.contains('\0') {
        return Err(format!("{} is not a path", quoted(text)));
    }
    Ok(base.join(text))
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "{} is not an IP address with a port; write for example [::]:2022 or 127.0.0.1:2022",
            quoted(text)
        )
    })
}

/// An address that strangers cannot reach.
pub(super) fn internal_address(text: &str) -> Result<SocketAddr, String> {
    let address = listen_address(text)?;
    let is_internal = match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    };
    if is_internal {
        return Ok(address);
    }
    Err(format!(
        "{} could be reached by strangers; write a loopback or private address, as 127.0.0.1:9090",
        quoted(text)
    ))
}

/// `50000-50999`, both ends included.
pub(super) fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong =
        || format!("{} is not a range of ports; write for example 50000-50999", quoted(text));
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => {
            Err(format!("{} ends before it begins; write the lower port first", quoted(text)))
        }
        _ => Err(wrong()),
    }
}

/// A host name or an IPv4 address; empty is none.
pub(super) fn host_or_none(text: &str) -> Result<Option<String>, String> {
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    match text {
        "" => Ok(None),
        text if text.len() <= 253 && text.chars().all(is_host) => Ok(Some(text.to_owned())),
        text => Err(format!(
            "{} is neither an IPv4 address nor a host name; write for example 203.0.113.7 (IPv6 clients use EPSV, which needs no address)",
            quoted(text)
        )),
    }
}

/// Text on one line.
pub(super) fn line(text: &str) -> Result<String, String> {
    if text.contains(char::is_control) || text.chars().count() > 200 {
        return Err("must be one line of at most 200 characters".to_owned());
    }
    Ok(text.trim().to_owned())
}

pub(super) fn mail_address(text: &str) -> Result<String, String> {
    if crate::domain::mail::is_address(text) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is not an address; write for example vorstufe@druckerei.example", quoted(text)))
}

pub(super) fn mail_address_or_none(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() { Ok(None) } else { mail_address(text).map(Some) }
}

/// A name that a certificate can hold; an authority proves no wildcards over HTTP (RFC 8555 section 8.3).
pub(super) fn domain(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.len() <= 253 && text.contains('.') && text.split('.').all(is_label) {
        return Ok(text.to_lowercase());
    }
    Err(format!("{} is not a domain; write for example portal.druckerei.de", quoted(text)))
}

pub(super) fn https_url(text: &str) -> Result<String, String> {
    if text.starts_with("https://") && webhook_url(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("{} is not an address; write https://host/path", quoted(text)))
}

/// `{stem}.xml`: what the file's name becomes.
pub(super) fn ticket_name(text: &str) -> Result<String, String> {
    let stripped = text.replace("{stem}", "x").replace("{name}", "x");
    let is_plain =
        !stripped.contains(['{', '}', '/', '\\']) && !stripped.contains(char::is_control);
    if stripped != text && is_plain && stripped != "x" {
        return Ok(text.to_owned());
    }
    Err(format!("{} is not a name for tickets; write {{stem}}.xml or {{name}}.xml", quoted(text)))
}

/// Only what can be called: no credentials in the address, because it is shown in lists.
pub(super) fn webhook_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let is_url = host.is_some_and(|host| !host.is_empty() && !host.contains('@'));
    if is_url && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is not an address for webhooks; write https://host/path, without user or password",
        quoted(text)
    ))
}

/// Standard Webhooks: base64, with or without `whsec_`; other text counts as it is.
pub(super) fn webhook_secret(text: &str) -> Result<Vec<u8>, String> {
    let decode = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).ok();
    let key = match text.strip_prefix("whsec_") {
        Some(encoded) => decode(encoded)
            .ok_or_else(|| "begins with whsec_, but what follows is not base64".to_owned())?,
        None => decode(text).unwrap_or_else(|| text.as_bytes().to_vec()),
    };
    if key.len() < 16 {
        return Err(
            "is too short to sign with; make one with: echo whsec_$(openssl rand -base64 32)"
                .to_owned(),
        );
    }
    Ok(key)
}

pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    if text.is_empty() {
        return Err("\"\" is not a pattern; remove the entry".to_owned());
    }
    Pattern::new(text).map_err(|error| {
        format!("{} is not a pattern: {}; write for example *.tmp", quoted(text), error.msg)
    })
}

/// None is `off`.
pub(super) fn clamd_address(text: &str, base: &Path) -> Result<Option<ClamdAddress>, String> {
    let wrong = || {
        format!(
            "{} is not an address of clamd; \
             write unix:/run/clamav/clamd.ctl, tcp:127.0.0.1:3310 or off",
            quoted(text)
        )
    };
    if text == "off" {
        return Ok(None);
    }
    if let Some(socket) = text.strip_prefix("unix:") {
        return path(socket, base).map(|path| Some(ClamdAddress::Unix(path))).map_err(|_| wrong());
    }
    let address = text.strip_prefix("tcp:").ok_or_else(wrong)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    let has_host = !host.is_empty() && !host.contains(['/', ' ']);
    let has_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if !has_host || !has_port || (host.contains(':') && !is_ipv6) {
        return Err(wrong());
    }
    Ok(Some(ClamdAddress::Tcp(address.to_owned())))
}

/// Permissions as `chmod` writes them: `0664`; the owner always reads and writes.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    match mode {
        Some(mode) if mode & 0o600 == 0o600 => Ok(mode),
        Some(_) | None => {
            Err(format!("{} are not permissions; write for example 0664", quoted(text)))
        }
    }
}

/// Never repeats a password in its problem.
pub(super) fn database_url(text: &str) -> Result<String, String> {
    if text.is_empty() || ["postgres://", "postgresql://"].iter().any(|p| text.starts_with(p)) {
        return Ok(text.to_owned());
    }
    if text.starts_with("sqlite:") {
        return Err("SQLite has no url here: its file is ptportal.db in data_dir; \
                    set url = \"\" and, for another place, data_dir"
            .to_owned());
    }
    Err("does not begin with postgres://; \
         write postgres://user:password@host/name, or \"\" for SQLite"
        .to_owned())
}

/// The url with `***` for each password: before the last `@`, and in its parameters.
pub(super) fn masked_url(url: &str) -> String {
    // Unescaped, a password may hold `/`, `?` and `@`: better too much is masked than too little.
    let (before, rest) = url.rsplit_once('@').map_or((None, url), |(b, r)| (Some(b), r));
    let (address, parameters) = rest.split_once('?').map_or((rest, None), |(a, p)| (a, Some(p)));
    let mut masked = String::new();
    if before.is_some_and(|before| before.contains('?')) {
        // Either a password with `?`, or a parameter with `@`.
        return "postgres://***".to_owned();
    }
    if let Some(before) = before {
        let (scheme, user) = before.split_once("://").unwrap_or(("", before));
        if !scheme.is_empty() {
            masked.push_str(&format!("{scheme}://"));
        }
        match user.split_once(':') {
            Some((name, _password)) => masked.push_str(&format!("{name}:***@")),
            None => masked.push_str(&format!("{user}@")),
        }
    }
    masked.push_str(address);
    if let Some(parameters) = parameters {
        let parameters: Vec<String> = parameters.split('&').map(masked_parameter).collect();
        masked.push_str(&format!("?{}", parameters.join("&")));
    }
    masked
}

fn masked_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_lowercase().contains("pass") => format!("{name}=***"),
        Some(_) | None => parameter.to_owned(),
    }
}

pub(super) fn layout(text: &str) -> Result<String, String> {
    if text.starts_with('/') || text.contains(|c: char| c == '\\' || c.is_control()) {
        return Err(format!(
            "{} must be a path below hotfolder.root, with / between its folders",
            quoted(text)
        ));
    }
    if let Some(bad) = text.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        return Err(format!(
            "{} must not contain the folder {}; write names and placeholders, with one / between",
            quoted(text),
            quoted(bad)
        ));
    }
    check_placeholders(text, &LAYOUT_PLACEHOLDERS)?;
    Ok(text.to_owned())
}

pub(super) fn project_folder(text: &str) -> Result<String, String> {
    if !text.contains("{project_no}") {
        return Err(format!("{} must contain {{project_no}}", quoted(text)));
    }
    if text.contains('/') || text.contains(char::is_control) {
        return Err(format!("{} must be one name, without /", quoted(text)));
    }
    check_placeholders(text, &["project_no"])?;
    Ok(text.nfc().collect())
}

fn check_placeholders(text: &str, allowed: &[&str]) -> Result<(), String> {
    let unpaired = || format!("{} has a brace without its pair", quoted(text));
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').ok_or_else(unpaired)?;
        if before.contains('}') {
            return Err(unpaired());
        }
        if !allowed.contains(&name) {
            let list: Vec<String> = allowed.iter().map(|name| format!("{{{name}}}")).collect();
            return Err(format!(
                "{{{name}}} is not a placeholder here; write one of {}",
                list.join(" ")
            ));
        }
        rest = tail;
    }
    if rest.contains('}') { Err(unpaired()) } else { Ok(()) }
}

pub(super) fn folder_name(text: &str) -> Result<String, String> {
    let name: String = text.nfc().collect();
    let is_name = !matches!(name.as_str(), "" | "." | "..") && name.len() <= 255;
    if !is_name || name.contains('/') || name.contains(char::is_control) {
        return Err(format!("{} is not a folder's name; write one name, without /", quoted(text)));
    }
    if name.to_lowercase() == "status.txt" {
        return Err(format!("{} is the portal's own file; choose another name", quoted(text)));
    }
    Ok(name)
}
