//! From a line to a command: pure, lenient, never an end of the session.

/// What a client asks for (spec section 10). Paths stay raw bytes until `domain::path` decodes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    // RFC 4217 and 2228
    Auth(String),
    Pbsz,
    Prot(String),
    Ccc,
    // RFC 959
    User(Vec<u8>),
    Pass(Vec<u8>),
    Acct,
    Quit,
    Syst,
    Help,
    Noop,
    // RFC 2389
    Feat,
    Opts(String),
    /// The name of the client's program.
    Clnt,
    /// For whoever is logged in.
    Inside(Inside),
    /// What needs a data connection.
    Data(DataCommand),
    /// The command is known, its argument is not.
    Syntax(&'static str),
    /// Known, and not offered here.
    NotOffered,
    Unknown,
    /// Another protocol speaks: a browser that was led here (ALPACA).
    Foreign,
}

/// Commands that need a login and no data connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inside {
    // RFC 959
    Cwd(Vec<u8>),
    Cdup,
    Pwd,
    Mkd(Vec<u8>),
    Rmd(Vec<u8>),
    Dele(Vec<u8>),
    Rnfr(Vec<u8>),
    Rnto(Vec<u8>),
    Type(String),
    Mode(String),
    Stru(String),
    Rest(u64),
    Allo(u64),
    Abor,
    Stat(Option<Vec<u8>>),
    Site(Site),
    Pasv,
    /// PORT, EPRT, LPRT: active mode.
    Active,
    // RFC 2428, 3659
    Epsv(Epsv),
    Size(Vec<u8>),
    Mdtm(Vec<u8>),
    Mfmt {
        time: Vec<u8>,
        path: Vec<u8>,
    },
    Mlst(Vec<u8>),
    // draft-ietf-ftpext2-hash, and the older form of it
    Hash(Vec<u8>),
    Xsha256(Vec<u8>),
}

/// Commands that open a data connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataCommand {
    Retr(Vec<u8>),
    Stor(Vec<u8>),
    Appe(Vec<u8>),
    /// The wished name may be empty.
    Stou(Vec<u8>),
    List(Vec<u8>),
    Nlst(Vec<u8>),
    Mlsd(Vec<u8>),
}

/// SITE commands that clients send after an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// Accepted, changes nothing.
    Chmod(Vec<u8>),
    /// The modification time, `YYYYMMDDhhmm[ss]`.
    Utime {
        time: Vec<u8>,
        path: Vec<u8>,
    },
    Help,
    Other,
}

/// RFC 2428 section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epsv {
    Any,
    Ipv4,
    Ipv6,
    OtherFamily,
    /// From now on nothing but EPSV.
    All,
}

/// Reads one line.
#[must_use]
pub fn parse(line: &[u8]) -> Command {
    let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (verb, rest) = line.split_at_checked(at).unwrap_or((line, &[]));
    let argument = rest.strip_prefix(b" ").unwrap_or(rest);
    let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
    named(&verb, argument)
}

/// The table of verbs; the X forms are those of RFC 775.
fn named(verb: &str, argument: &[u8]) -> Command {
    if let Some(inside) = inside(verb, argument) {
        return inside.map_or_else(Command::Syntax, Command::Inside);
    }
    if let Some(data) = data(verb, argument) {
        return data.map_or_else(Command::Syntax, Command::Data);
    }
    let word = |command: fn(String) -> Command, usage| match text(argument) {
        Some(word) if !word.is_empty() => command(word),
        Some(_) | None => Command::Syntax(usage),
    };
    match verb {
        "AUTH" => word(Command::Auth, "AUTH TLS"),
        "PBSZ" => Command::Pbsz,
        "PROT" => word(Command::Prot, "PROT P"),
        "CCC" => Command::Ccc,
        "USER" if argument.is_empty() => Command::Syntax("USER name"),
        "USER" => Command::User(argument.to_vec()),
        "PASS" => Command::Pass(argument.to_vec()),
        "ACCT" => Command::Acct,
        "QUIT" => Command::Quit,
        "SYST" => Command::Syst,
        "HELP" => Command::Help,
        "NOOP" => Command::Noop,
        "FEAT" => Command::Feat,
        "OPTS" => word(Command::Opts, "OPTS UTF8 ON"),
        "CLNT" => Command::Clnt,
        "REIN" | "SMNT" | "LPSV" | "HOST" | "LANG" | "ADAT" | "MIC" | "CONF" | "ENC" | "AVBL"
        | "CSID" | "XCRC" | "XMD5" | "XSHA" | "XSHA1" | "XSHA512" | "MD5" | "COMB" | "DSIZ"
        | "MFCT" | "MFF" | "RANG" | "THMB" => Command::NotOffered,
        "GET" | "POST" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "CONNECT" | "PATCH" | "TRACE"
        | "EHLO" | "HELO" => Command::Foreign,
        other if other.ends_with(':') || other.starts_with("SSH-") => Command::Foreign,
        _ => Command::Unknown,
    }
}

/// A command, or how it is used.
type Parsed<T> = Result<T, &'static str>;

fn inside(verb: &str, argument: &[u8]) -> Option<Parsed<Inside>> {
    let path = |command: fn(Vec<u8>) -> Inside, usage| match argument {
        [] => Err(usage),
        path => Ok(command(path.to_vec())),
    };
    let word = |command: fn(String) -> Inside, usage| match text(argument) {
        Some(word) if !word.is_empty() => Ok(command(word)),
        Some(_) | None => Err(usage),
    };
    Some(match verb {
        "CWD" | "XCWD" => path(Inside::Cwd, "CWD path"),
        "CDUP" | "XCUP" => Ok(Inside::Cdup),
        "PWD" | "XPWD" => Ok(Inside::Pwd),
        "MKD" | "XMKD" => path(Inside::Mkd, "MKD path"),
        "RMD" | "XRMD" => path(Inside::Rmd, "RMD path"),
        "DELE" => path(Inside::Dele, "DELE path"),
        "RNFR" => path(Inside::Rnfr, "RNFR path"),
        "RNTO" => path(Inside::Rnto, "RNTO path"),
        "TYPE" => word(Inside::Type, "TYPE I"),
        "MODE" => word(Inside::Mode, "MODE S"),
        "STRU" => word(Inside::Stru, "STRU F"),
        "REST" => number(argument).map(Inside::Rest).ok_or("REST offset"),
        "ALLO" => allo(argument),
        "ABOR" => Ok(Inside::Abor),
        "STAT" if argument.is_empty() => Ok(Inside::Stat(None)),
        "STAT" => Ok(Inside::Stat(Some(without_options(argument)))),
        "SITE" => site(argument).map(Inside::Site),
        "PASV" => Ok(Inside::Pasv),
        "PORT" | "EPRT" | "LPRT" => Ok(Inside::Active),
        "EPSV" => epsv(argument).map(Inside::Epsv),
        "SIZE" => path(Inside::Size, "SIZE path"),
        "MDTM" => path(Inside::Mdtm, "MDTM path"),
        "MFMT" => time_and_path(argument)
            .map(|(time, path)| Inside::Mfmt { time, path })
            .ok_or("MFMT YYYYMMDDhhmmss path"),
        "MLST" => Ok(Inside::Mlst(argument.to_vec())),
        "HASH" => path(Inside::Hash, "HASH path"),
        "XSHA256" => path(Inside::Xsha256, "XSHA256 path"),
        _ => return None,
    })
}

fn data(verb: &str, argument: &[u8]) -> Option<Parsed<DataCommand>> {
    let path = |command: fn(Vec<u8>) -> DataCommand, usage| match argument {
        [] => Err(usage),
        path => Ok(command(path.to_vec())),
    };
    Some(match verb {
        "RETR" => path(DataCommand::Retr, "RETR path"),
        "STOR" => path(DataCommand::Stor, "STOR path"),
        "APPE" => path(DataCommand::Appe, "APPE path"),
        "STOU" => Ok(DataCommand::Stou(argument.to_vec())),
        "LIST" => Ok(DataCommand::List(without_options(argument))),
        "NLST" => Ok(DataCommand::Nlst(without_options(argument))),
        "MLSD" => Ok(DataCommand::Mlsd(argument.to_vec())),
        _ => return None,
    })
}

fn text(argument: &[u8]) -> Option<String> {
    std::str::from_utf8(argument).ok().map(|text| text.trim().to_owned())
}

fn number(argument: &[u8]) -> Option<u64> {
    let text = text(argument)?;
    // `+5` is a number for Rust, not for RFC 3659 section 5.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `ALLO size [R record]` (RFC 959 section 4.1.3).
fn allo(argument: &[u8]) -> Parsed<Inside> {
    let first = argument.split(|byte| *byte == b' ').next().unwrap_or_default();
    number(first).map(Inside::Allo).ok_or("ALLO size")
}

/// RFC 2428 section 3: 1 is IPv4, 2 is IPv6.
fn epsv(argument: &[u8]) -> Parsed<Epsv> {
    match text(argument).map(|text| text.to_ascii_uppercase()).as_deref() {
        Some("") => Ok(Epsv::Any),
        Some("1") => Ok(Epsv::Ipv4),
        Some("2") => Ok(Epsv::Ipv6),
        Some("ALL") => Ok(Epsv::All),
        Some(other) if other.bytes().all(|b| b.is_ascii_digit()) => Ok(Epsv::OtherFamily),
        Some(_) | None => Err("EPSV [1|2|ALL]"),
    }
}

/// `-la` and its like in front of a path: clients treat LIST as `ls`.
fn without_options(argument: &[u8]) -> Vec<u8> {
    let mut rest = argument;
    while rest.starts_with(b"-") {
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        rest = rest.get(end..).unwrap_or_default();
        while let Some(after) = rest.strip_prefix(b" ") {
            rest = after;
        }
    }
    rest.to_vec()
}

/// `20261124101500[.123] path` (RFC 3659 section 2.3, draft-somers-ftp-mfxx).
pub(super) fn time_and_path(argument: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = argument.iter().position(|byte| *byte == b' ')?;
    let (time, path) = argument.split_at_checked(at)?;
    let path = path.strip_prefix(b" ").filter(|path| !path.is_empty())?;
    let is_time = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    (time.len() >= 12 && time.iter().all(is_time)).then(|| (time.to_vec(), path.to_vec()))
}

fn site(argument: &[u8]) -> Parsed<Site> {
    let at = argument.iter().position(|byte| *byte == b' ').unwrap_or(argument.len());
    let (verb, rest) = argument.split_at_checked(at).unwrap_or((argument, &[]));
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    match verb.to_ascii_uppercase().as_slice() {
        b"CHMOD" => {
            let at = rest.iter().position(|byte| *byte == b' ').ok_or("SITE CHMOD mode path")?;
            Ok(Site::Chmod(rest.get(at.saturating_add(1)..).unwrap_or_default().to_vec()))
        }
        b"UTIME" => {
            let (time, path) = utime(rest).ok_or("SITE UTIME YYYYMMDDhhmm[ss] path")?;
            Ok(Site::Utime { time, path })
        }
        b"HELP" => Ok(Site::Help),
        _ => Ok(Site::Other),
    }
}

/// Both forms in use: `UTIME time path`, and `UTIME path access modification creation UTC`.
fn utime(rest: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if let Some(found) = time_and_path(rest) {
        return Some(found);
    }
    let words: Vec<&[u8]> = rest.split(|byte| *byte == b' ').collect();
    let [path @ .., _access, modification, _creation, b"UTC"] = words.as_slice() else {
        return None;
    };
    let is_time = modification.len() >= 12 && modification.iter().all(u8::is_ascii_digit);
    (is_time && !path.is_empty()).then(|| (modification.to_vec(), path.join(&b' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &[u8], expect: Command) {
        assert_eq!(parse(line), expect, "{}", String::from_utf8_lossy(line));
    }

    #[test]
    fn commands_are_read_in_any_case_and_with_any_name() {
        check(b"noop", Command::Noop);
        check(b"STOR a b.pdf ", Command::Data(DataCommand::Stor(b"a b.pdf ".to_vec())));
        check(b"STOR  a", Command::Data(DataCommand::Stor(b" a".to_vec())));
        check(b"CWD M\xfcller", Command::Inside(Inside::Cwd(b"M\xfcller".to_vec())));
        check(b"XMKD x", Command::Inside(Inside::Mkd(b"x".to_vec())));
        check(b"PASS ", Command::Pass(Vec::new()));
        check(b"PASS  two blanks ", Command::Pass(b" two blanks ".to_vec()));
        check(b"", Command::Unknown);
        check(b"\x00\xff", Command::Unknown);
    }

    #[test]
    fn what_is_wrong_is_told_and_ends_nothing() {
        check(b"MKD", Command::Syntax("MKD path"));
        check(b"REST abc", Command::Syntax("REST offset"));
        check(b"REST -1", Command::Syntax("REST offset"));
        check(b"REST +1", Command::Syntax("REST offset"));
        check(b"REST 99999999999999999999999", Command::Syntax("REST offset"));
        check(b"REST 1099511627776", Command::Inside(Inside::Rest(1 << 40)));
        check(b"NOOP x", Command::Noop);
        check(b"PWD /", Command::Inside(Inside::Pwd));
        check(b"EPSV x", Command::Syntax("EPSV [1|2|ALL]"));
        check(b"EPSV 3", Command::Inside(Inside::Epsv(Epsv::OtherFamily)));
        check(b"epsv all", Command::Inside(Inside::Epsv(Epsv::All)));
    }

    #[test]
    fn options_of_ls_are_not_names() {
        check(b"LIST -la", Command::Data(DataCommand::List(Vec::new())));
        check(b"LIST -a -l /x y", Command::Data(DataCommand::List(b"/x y".to_vec())));
        check(b"NLST x -l", Command::Data(DataCommand::Nlst(b"x -l".to_vec())));
        check(b"STAT -l", Command::Inside(Inside::Stat(Some(Vec::new()))));
    }

    #[test]
    fn times_come_in_three_forms() {
        let both = |path: &[u8]| (b"20261124101500".to_vec(), path.to_vec());
        let (time, path) = both(b"a b.pdf");
        check(b"MFMT 20261124101500 a b.pdf", Command::Inside(Inside::Mfmt { time, path }));
        let (time, path) = both(b"a b.pdf");
        check(
            b"SITE UTIME 20261124101500 a b.pdf",
            Command::Inside(Inside::Site(Site::Utime { time, path })),
        );
        let (time, path) = both(b"a b.pdf");
        check(
            b"SITE UTIME a b.pdf 20261124091500 20261124101500 20261124101500 UTC",
            Command::Inside(Inside::Site(Site::Utime { time, path })),
        );
        check(b"MFMT soon x", Command::Syntax("MFMT YYYYMMDDhhmmss path"));
        check(b"SITE CHMOD 644 a b", Command::Inside(Inside::Site(Site::Chmod(b"a b".to_vec()))));
        check(b"SITE EXEC ls", Command::Inside(Inside::Site(Site::Other)));
        check(b"ALLO 100 R 10", Command::Inside(Inside::Allo(100)));
    }

    #[test]
    fn browsers_are_recognised() {
        check(b"GET / HTTP/1.1", Command::Foreign);
        check(b"Host: ftp.example", Command::Foreign);
        check(b"SSH-2.0-OpenSSH_9.2", Command::Foreign);
    }
}
