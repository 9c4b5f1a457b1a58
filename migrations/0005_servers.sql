-- What several servers must know of each other.

-- Who is logged in where: counted against the limit of an account by all servers together, shown to operators.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    username TEXT NOT NULL,
    client_no TEXT NOT NULL,
    protocol TEXT NOT NULL,
    peer TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX sessions_username ON sessions (username);
CREATE INDEX sessions_node ON sessions (node);

-- Rejected passwords of an address, counted by all servers together.
CREATE TABLE login_failures (
    id TEXT NOT NULL PRIMARY KEY,
    peer TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX login_failures_peer ON login_failures (peer, created);

-- "Why could they not log in?"
CREATE INDEX events_failed_logins ON events (username, seq) WHERE kind = 'login.failed';
