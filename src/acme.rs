//! ADAPTER a certificate authority that speaks ACME (RFC 8555), by the challenge over HTTP (section 8.3).
//!
//! Knows the protocol's steps and where its files lie below `data_dir/acme`: the account's key, the answers to challenges
//! (which every server on the data folder may have to give), and the last pair of key and chain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Error,
    Identifier, NewAccount, NewOrder, OrderStatus, Problem, RetryPolicy,
};

use crate::config;
use crate::vault::{make_private_dir, write_private};

/// An authority looks at the challenge from several places and takes its time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Everything together, whatever hangs.
const LIMIT: Duration = Duration::from_secs(300);
const ACCOUNT: &str = "account.json";
const CHALLENGES: &str = "challenges";
const PAIR: &str = "pair.pem";
/// Longer tokens no authority makes.
const TOKEN_MAX: usize = 128;

/// Below `data_dir`.
#[derive(Debug, Clone)]
pub struct Files(PathBuf);

/// A new key and the certificates for it, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub private_key: String,
    pub chain: String,
}

impl Files {
    #[must_use]
    pub fn below(data_dir: &Path) -> Self {
        Self(data_dir.join("acme"))
    }

    /// What is answered at `/.well-known/acme-challenge/TOKEN`; nothing for tokens that nobody waits for.
    #[must_use]
    pub fn answer(&self, token: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(CHALLENGES).join(checked(token)?)).ok()
    }

    fn challenge(&self, token: &str, answer: &str) -> anyhow::Result<()> {
        let Some(token) = checked(token) else { anyhow::bail!("the challenge {token:?} is odd") };
        let dir = self.0.join(CHALLENGES);
        make_private_dir(&dir)?;
        Ok(write_private(&dir, token, answer.as_bytes())?)
    }

    /// Answers of an order that is over.
    fn clear(&self) {
        std::fs::remove_dir_all(self.0.join(CHALLENGES)).ok();
    }

    /// The last pair; kept as one file, because two cannot be replaced at once.
    #[must_use]
    pub fn pair(&self) -> Option<Pair> {
        let text = std::fs::read_to_string(self.0.join(PAIR)).ok()?;
        let end = "-----END PRIVATE KEY-----\n";
        let (key, chain) = text.split_once(end)?;
        Some(Pair { private_key: format!("{key}{end}"), chain: chain.to_owned() })
    }

    /// The file of [`Self::pair`], key and chain in one.
    #[must_use]
    pub fn pair_file(&self) -> PathBuf {
        self.0.join(PAIR)
    }

    /// Keeps a pair, and puts it where the services read it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn install(&self, pair: &Pair, (chain, key): (&Path, &Path)) -> std::io::Result<()> {
        make_private_dir(&self.0)?;
        let whole = format!("{}{}", pair.private_key, pair.chain);
        write_private(&self.0, PAIR, whole.as_bytes())?;
        self.put(pair, (chain, key))
    }

    /// After an end between the two files.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put(&self, pair: &Pair, (chain, key): (&Path, &Path)) -> std::io::Result<()> {
        for (path, text) in [(key, &pair.private_key), (chain, &pair.chain)] {
            let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(std::io::Error::other(format!("{} names no file", path.display())));
            };
            make_private_dir(dir)?;
            write_private(dir, &name.to_string_lossy(), text.as_bytes())?;
        }
        Ok(())
    }

    async fn account(&self, wanted: &config::Acme) -> anyhow::Result<Account> {
        match self.known_account(wanted) {
            Some(known) => Ok(builder(wanted)?.from_credentials(known).await?),
            None => self.new_account(wanted).await,
        }
    }

    /// The one with this authority, if its file can be read.
    fn known_account(&self, wanted: &config::Acme) -> Option<AccountCredentials> {
        let text = std::fs::read_to_string(self.0.join(ACCOUNT)).ok()?;
        text.contains(&wanted.directory).then(|| serde_json::from_str(&text).ok())?
    }

    async fn new_account(&self, wanted: &config::Acme) -> anyhow::Result<Account> {
        let contact = wanted.email.as_ref().map(|address| format!("mailto:{address}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = wanted.directory.clone();
        let (account, credentials) = builder(wanted)?.create(&new, directory, None).await?;
        make_private_dir(&self.0)?;
        write_private(&self.0, ACCOUNT, &serde_json::to_vec(&credentials)?)?;
        Ok(account)
    }

    /// Gets a certificate for all domains.
    ///
    /// # Errors
    /// What the authority, the network or the disk says.
    pub async fn obtain(&self, wanted: &config::Acme) -> anyhow::Result<Pair> {
        let obtained = tokio::time::timeout(LIMIT, self.order(wanted)).await;
        self.clear();
        obtained.map_err(|_| anyhow::anyhow!("no certificate within {} s", LIMIT.as_secs()))?
    }

    async fn order(&self, wanted: &config::Acme) -> anyhow::Result<Pair> {
        let names: Vec<Identifier> = wanted.domains.iter().cloned().map(Identifier::Dns).collect();
        let new = NewOrder::new(&names);
        let mut order = match self.account(wanted).await?.new_order(&new).await {
            Err(Error::Api(problem)) if is_without_account(&problem) => {
                tracing::warn!(%problem, "the authority does not take our account any more; a new one is made");
                self.new_account(wanted).await?.new_order(&new).await?
            }
            order => order?,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(mut challenge) = authorization.challenge(ChallengeType::Http01) else {
                anyhow::bail!("the authority offers no challenge over HTTP");
            };
            let answer = challenge.key_authorization();
            self.challenge(&challenge.token, answer.as_str())?;
            challenge.set_ready().await?;
        }
        let retries = RetryPolicy::default().timeout(PATIENCE);
        let status = order.poll_ready(&retries).await?;
        if status != OrderStatus::Ready {
            anyhow::bail!("the authority says the order is {status:?}");
        }
        let private_key = order.finalize().await?;
        let chain = order.poll_certificate(&retries).await?;
        Ok(Pair { private_key, chain })
    }
}

fn builder(wanted: &config::Acme) -> Result<AccountBuilder, Error> {
    match &wanted.ca {
        Some(file) => Account::builder_with_root(file),
        None => Account::builder(),
    }
}

/// Whether the authority has lost the account (RFC 8555 section 6.7) or closed it (section 7.3.6).
fn is_without_account(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next());
    matches!(kind, Some("accountDoesNotExist" | "unauthorized"))
}

/// A token that is a file name and nothing else (RFC 8555 section 8.3: base64url).
fn checked(token: &str) -> Option<&str> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (!token.is_empty() && token.len() <= TOKEN_MAX && token.bytes().all(is_plain)).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_given_for_open_challenges_only() {
        let dir = std::env::temp_dir().join(format!("ptportal-acme-{}", std::process::id()));
        let files = Files::below(&dir);
        files.challenge("abc_-1", "abc_-1.print").unwrap();
        assert_eq!(files.answer("abc_-1").as_deref(), Some("abc_-1.print"));
        for odd in ["", "other", "../account.json", "a/b", "ä", &"a".repeat(200)] {
            assert_eq!(files.answer(odd), None, "{odd}");
        }
        assert!(files.challenge("../x", "y").is_err());
        files.clear();
        assert_eq!(files.answer("abc_-1"), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_pair_is_kept_whole_and_put_where_the_services_read_it() {
        let dir = std::env::temp_dir().join(format!("ptportal-pair-{}", std::process::id()));
        let files = Files::below(&dir);
        assert_eq!(files.pair(), None);
        let pair = Pair {
            private_key: "-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n".to_owned(),
            chain: "-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----\n".to_owned(),
        };
        let (chain, key) = (dir.join("certs/server.crt"), dir.join("certs/server.key"));
        files.install(&pair, (&chain, &key)).unwrap();
        assert_eq!(files.pair(), Some(pair.clone()));
        assert_eq!(std::fs::read_to_string(&chain).unwrap(), pair.chain);
        assert_eq!(std::fs::read_to_string(&key).unwrap(), pair.private_key);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
