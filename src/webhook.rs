//! ADAPTER webhooks: signed calls to addresses that the configuration names (Standard Webhooks, `webhook-signature` v1).
//!
//! No redirect is followed, so an answer cannot send the call elsewhere; what is read of an answer is bounded.

use anyhow::Context as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::time::Timestamp;

const CONNECT: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(15);
/// Kept of an answer, in bytes.
const ANSWER_MAX: usize = 4096;

/// A call; `id` and `body` are the same at every attempt.
#[derive(Debug)]
pub struct Call<'a> {
    pub url: &'a str,
    pub id: &'a str,
    pub body: &'a str,
    pub secret: &'a [u8],
    pub now: Timestamp,
}

/// Why a call does not count as taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("{0}")]
    Now(String),
    /// The receiver wants no more (410).
    #[error("{0}")]
    ForGood(String),
}

/// Makes calls over connections that it keeps.
#[derive(Debug, Clone)]
pub struct Caller(reqwest::Client);

impl Caller {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            .no_proxy()
            .user_agent(concat!("ptportal/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("webhooks need the certificates of authorities; install ca-certificates")?;
        Ok(Self(client))
    }

    /// Calls once; gives the answer's status and beginning.
    ///
    /// # Errors
    /// Anything but a status of 200 to 299.
    pub async fn post(&self, call: &Call<'_>) -> Result<String, NotTaken> {
        let seconds = call.now.0.div_euclid(1000);
        let signature = sign(call.secret, call.id, seconds, call.body);
        let sent = self
            .0
            .post(call.url)
            .header("content-type", "application/json")
            .header("webhook-id", call.id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", signature)
            .body(call.body.to_owned())
            .send();
        let mut response = sent.await.map_err(|error| NotTaken::Now(told(&error)))?;
        let status = response.status();
        let mut answer = Vec::new();
        // What breaks off after the status has no say.
        while let Ok(Some(piece)) = response.chunk().await {
            let room = ANSWER_MAX.saturating_sub(answer.len()).min(piece.len());
            answer.extend_from_slice(piece.get(..room).unwrap_or_default());
            if answer.len() >= ANSWER_MAX {
                break;
            }
        }
        let text = String::from_utf8_lossy(&answer).replace('\0', "\u{fffd}");
        match status.as_u16() {
            200..=299 => Ok(format!("{status}\n{text}")),
            410 => Err(NotTaken::ForGood(format!("the receiver answers {status}: {text}"))),
            300..=399 => Err(NotTaken::Now(format!(
                "the receiver answers {status}; redirects are not followed, correct the url"
            ))),
            _ => Err(NotTaken::Now(format!("the receiver answers {status}: {text}"))),
        }
    }
}

/// The header's value: version and base64 of the HMAC-SHA256 over `id.timestamp.body`.
fn sign(secret: &[u8], id: &str, seconds: i64, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", data_encoding::BASE64.encode(&mac.finalize().into_bytes()))
}

/// An error with its causes; the address is known to the reader.
fn told(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "no answer in time".to_owned() } else { String::new() };
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = if text.is_empty() { inner_text } else { format!("{text}: {inner_text}") };
        }
        source = inner.source();
    }
    if text.is_empty() { "the call failed".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_the_standard_shows() {
        let secret = data_encoding::BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
