//! Tokens of the API: made once, shown once, stored hashed.

use super::App;
use super::activation::random_token;
use super::clients::{Refused, conflict, missing};
use crate::domain::activation::Token;
use crate::domain::announcement;
use crate::domain::event::{Event, EventKind};
use crate::store;
use crate::store::tokens::{self, TokenRow};

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Orders,
    Pull,
    /// Everything.
    Admin,
}

impl Scope {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Pull => "pull",
            Self::Admin => "admin",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Orders, Self::Pull, Self::Admin].into_iter().find(|scope| scope.as_str() == text)
    }

    /// Whether a token of this scope may do what needs `other`.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self == other || self == Self::Admin
    }
}

impl App {
    /// Makes a token; its value is given here and never again.
    ///
    /// # Errors
    /// A bad or taken name.
    pub async fn create_token(
        &self,
        name: &str,
        scope: Scope,
    ) -> Result<(TokenRow, Token), Refused> {
        announcement::client_name(name).map_err(Refused::Because)?;
        let token = random_token().map_err(|error| Refused::Because(error.to_string()))?;
        let id = self.new_id();
        let event = Event::new(EventKind::TokenChanged)
            .with("token", name)
            .with("changed", "created")
            .with("scope", scope.as_str());
        let mut work = self.begin().await?;
        let row = (id.as_str(), name, scope.as_str());
        match tokens::insert(work.tx.db(), row, &token.hash(), work.now).await {
            Err(error) if store::is_duplicate(&error) => {
                return conflict(format!(
                    "token {name} exists already; `token revoke {name}` first"
                ));
            }
            other => other?,
        }
        work.note(event);
        work.commit().await?;
        let row = tokens::by_hash(self.store.db(), &token.hash()).await?;
        match row {
            Some(row) => Ok((row, token)),
            None => missing("the token was revoked in this moment"),
        }
    }

    /// # Errors
    /// No such token.
    pub async fn revoke_token(&self, name: &str) -> Result<(), Refused> {
        let event =
            Event::new(EventKind::TokenChanged).with("token", name).with("changed", "revoked");
        let mut work = self.begin().await?;
        if tokens::delete(work.tx.db(), name).await? == 0 {
            return missing(format!("there is no token {name}; `token list` shows all"));
        }
        work.note(event);
        work.commit().await?;
        Ok(())
    }

    /// What a bearer's token allows; none when it is not one of ours.
    ///
    /// # Errors
    /// The database.
    pub async fn scope_of(&self, bearer: &str) -> store::Result<Option<Scope>> {
        let Some(token) = Token::parse(bearer) else { return Ok(None) };
        let Some(row) = tokens::by_hash(self.store.db(), &token.hash()).await? else {
            return Ok(None);
        };
        tokens::note_use(self.store.db(), &row.id, self.now()).await?;
        Ok(Scope::parse(&row.scope))
    }

    /// As [`App::admin_token`], for somebody who logs in with it: its use is noted.
    ///
    /// # Errors
    /// The database.
    pub async fn enter_with(&self, token: &Token) -> store::Result<Option<String>> {
        let Some(row) = tokens::by_hash(self.store.db(), &token.hash()).await? else {
            return Ok(None);
        };
        if Scope::parse(&row.scope) != Some(Scope::Admin) {
            return Ok(None);
        }
        tokens::note_use(self.store.db(), &row.id, self.now()).await?;
        Ok(Some(row.name))
    }

    /// The name of a token of scope `admin`, by its hash; none when there is no such token (any more).
    ///
    /// # Errors
    /// The database.
    pub async fn admin_token(&self, hash: &str) -> store::Result<Option<String>> {
        let row = tokens::by_hash(self.store.db(), hash).await?;
        Ok(row.filter(|row| Scope::parse(&row.scope) == Some(Scope::Admin)).map(|row| row.name))
    }
}
