-- Mails, activation links, order API and web pages. Tokens are stored as SHA-256 in hex, never in clear.

-- One row for each account and link. sent: when the mail server took it, from then on link_ttl counts.
CREATE TABLE ptportal_account_activation (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    mail_id TEXT NOT NULL,
    checked BIGINT NOT NULL,
    sent BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    used BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX activation_username ON ptportal_account_activation (username);

-- Kunden Email Vorlagen. owner: the PTworkflow user who sends it by hand.
CREATE TABLE client_email_template (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    content TEXT NOT NULL,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

CREATE TABLE email_signature (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    head_html TEXT NOT NULL,
    foot_html TEXT NOT NULL,
    head_text TEXT NOT NULL,
    foot_text TEXT NOT NULL,
    status TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

-- The queue of mails. The text is made from the template when a mail is sent, so no link ever lies here.
CREATE TABLE mails (
    id TEXT NOT NULL PRIMARY KEY,
    template TEXT NOT NULL,
    client_no TEXT NOT NULL,
    project_no TEXT NOT NULL,
    ticket_no TEXT NOT NULL,
    username TEXT NOT NULL,
    language TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    recipient_name TEXT NOT NULL,
    copy TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    queued BIGINT NOT NULL,
    next_try BIGINT NOT NULL,
    sent BIGINT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX mails_due ON mails (state, next_try);
CREATE INDEX mails_username ON mails (username, template);

CREATE TABLE api_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    last_used BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

-- Sessions of the pages; id is the SHA-256 of the cookie.
CREATE TABLE web_sessions (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    expires BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX web_sessions_username ON web_sessions (username);

-- Names for which somebody asked for a new link; looked up later, so that the answer tells nothing.
CREATE TABLE link_requests (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    peer TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
