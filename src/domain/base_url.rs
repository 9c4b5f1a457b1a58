//! Where customers find the portal's pages: what links in mails begin with, and the only host that is answered.

use std::fmt;

/// `https://portal.example.com`, or with a port.
///
/// Invariant: scheme `http` or `https`, a host, no path, no user, no query; without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    is_https: bool,
    /// Lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl BaseUrl {
    /// # Errors
    /// A sentence that says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not the address of a site; write for example https://portal.example.com"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('/') {
            return Err(format!("{text:?} has a path; the portal needs a host name of its own"));
        }
        let (host, port) = split(authority).ok_or_else(wrong)?;
        let port = port.unwrap_or(if is_https { 443 } else { 80 });
        Ok(Self { is_https, host, port })
    }

    #[must_use]
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Without the port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether only this machine can mean it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Whether a `Host` header speaks of this site. A site on loopback goes by any loopback name.
    #[must_use]
    pub fn is_spoken_of(&self, host_header: &str) -> bool {
        let Some((host, port)) = split(host_header) else { return false };
        if self.is_loopback() && is_loopback(&host) {
            return true;
        }
        host == self.host && port.unwrap_or(if self.is_https { 443 } else { 80 }) == self.port
    }

    /// Whether an `Origin` header is this site's.
    #[must_use]
    pub fn is_origin(&self, origin: &str) -> bool {
        match origin.split_once("://") {
            Some((scheme, authority)) => {
                (scheme == "https") == self.is_https && self.is_spoken_of(authority)
            }
            None => false,
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.is_https { ("https", 443) } else { ("http", 80) };
        if self.port == usual {
            write!(f, "{scheme}://{}", self.host)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// Host in lower case and port of `host`, `host:port` or `[::1]:port`.
fn split(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        Some(_) | None => (authority, None),
    };
    let is_ipv6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let fits = match is_ipv6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_host = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            !host.is_empty() && host.len() <= 253 && host.chars().all(is_host)
        }
    };
    fits.then(|| (host.to_ascii_lowercase(), port))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_read_and_written_without_its_usual_port() {
        let check = |text: &str, expect: &str| {
            assert_eq!(BaseUrl::parse(text).unwrap().to_string(), expect, "{text}");
        };
        check("https://Portal.Example.com/", "https://portal.example.com");
        check("https://portal.example.com:443", "https://portal.example.com");
        check("http://localhost:8080", "http://localhost:8080");
        check("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443");
        for bad in [
            "",
            "portal.example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://a:x",
            "https://a?b",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_foreign_host_is_known() {
        let site = BaseUrl::parse("https://portal.example.com").unwrap();
        assert!(
            site.is_spoken_of("portal.example.com") && site.is_spoken_of("PORTAL.example.com:443")
        );
        for foreign in [
            "evil.example",
            "portal.example.com:8443",
            "",
            "portal.example.com.evil.example",
            "a b",
        ] {
            assert!(!site.is_spoken_of(foreign), "{foreign}");
        }
        assert!(
            site.is_origin("https://portal.example.com")
                && !site.is_origin("http://portal.example.com")
        );
        assert!(!site.is_origin("null"));
        let local = BaseUrl::parse("http://localhost:8080").unwrap();
        assert!(local.is_spoken_of("127.0.0.1:9999") && !local.is_spoken_of("192.0.2.1:8080"));
    }
}
