-- One SQL for SQLite and PostgreSQL: TEXT and BIGINT only, times in Unix milliseconds, flags 0/1, ids ULID.
-- Never edited after a release: expand first, contract a release later.

-- Sequences that are gapless and in commit order, because the row is locked until the commit.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('events', 0);
INSERT INTO counters (name, value) VALUES ('changes', 0);

CREATE TABLE clients (
    id TEXT NOT NULL PRIMARY KEY,
    client_no TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    email TEXT NOT NULL,
    create_hotfolder BIGINT NOT NULL,
    hotfolder_delete_in_days BIGINT NOT NULL,
    language TEXT NOT NULL,
    removed BIGINT NOT NULL DEFAULT 0,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

CREATE TABLE contacts (
    id TEXT NOT NULL PRIMARY KEY,
    client_no TEXT NOT NULL,
    name TEXT NOT NULL,
    email TEXT NOT NULL,
    favourite BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX contacts_client ON contacts (client_no);

-- Portal Zugänge. password_hash is an argon2id PHC string or empty; version rises with every change,
-- so that a cached password check ends with it.
CREATE TABLE uplogin (
    id TEXT NOT NULL PRIMARY KEY,
    client_no TEXT NOT NULL,
    username TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    operator_credential BIGINT NOT NULL,
    checked BIGINT NOT NULL,
    activation_time BIGINT NOT NULL,
    first_login BIGINT NOT NULL,
    last_login BIGINT NOT NULL,
    settings TEXT NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX uplogin_client ON uplogin (client_no);

CREATE TABLE ssh_keys (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    public_key TEXT NOT NULL,
    comment TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (username, fingerprint)
);

CREATE TABLE system_defaults (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
INSERT INTO system_defaults (id, name, settings, created, updated) VALUES ('ptportal', 'ptportal', '{}', 0, 0);
INSERT INTO system_defaults (id, name, settings, created, updated) VALUES ('clients', 'clients', '{}', 0, 0);

CREATE TABLE projects (
    id TEXT NOT NULL PRIMARY KEY,
    project_no TEXT NOT NULL UNIQUE,
    client_no TEXT NOT NULL,
    job_description TEXT NOT NULL,
    due_date TEXT NOT NULL,
    contact TEXT NOT NULL,
    state TEXT NOT NULL,
    folder TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (client_no, folder)
);

CREATE TABLE tickets (
    id TEXT NOT NULL PRIMARY KEY,
    ticket_no TEXT NOT NULL,
    project_no TEXT NOT NULL,
    job_description TEXT NOT NULL,
    due_date TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (project_no, ticket_no)
);

-- The customer's tree: names are rows. parent is another entry's id, or PROJECT_ID/AREA for the top of an area.
-- current_upload is the newest version that is not final (receiving, incomplete, scanning, held) or empty;
-- released_upload is what the name shows once it is clean.
CREATE TABLE entries (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL,
    parent TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    kind TEXT NOT NULL,
    is_temporary BIGINT NOT NULL,
    released_upload TEXT NOT NULL,
    released_version BIGINT NOT NULL,
    current_upload TEXT NOT NULL,
    last_version BIGINT NOT NULL,
    mtime BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (parent, name)
);
CREATE INDEX entries_project ON entries (project_id);

CREATE TABLE uploads (
    id TEXT NOT NULL PRIMARY KEY,
    entry_id TEXT NOT NULL,
    client_no TEXT NOT NULL,
    username TEXT NOT NULL,
    project_no TEXT NOT NULL,
    ticket_no TEXT NOT NULL,
    path TEXT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    declared_size BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    mtime BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    signature TEXT NOT NULL,
    reason TEXT NOT NULL,
    scanner TEXT NOT NULL,
    waived_by TEXT NOT NULL,
    repeat_of TEXT NOT NULL,
    protocol TEXT NOT NULL,
    peer TEXT NOT NULL,
    node TEXT NOT NULL,
    scan_attempts BIGINT NOT NULL,
    scan_next BIGINT NOT NULL,
    started BIGINT NOT NULL,
    completed BIGINT NOT NULL,
    released BIGINT NOT NULL,
    delivered BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX uploads_state ON uploads (state);
CREATE INDEX uploads_entry ON uploads (entry_id);
CREATE INDEX uploads_path ON uploads (project_no, path);

-- The outbox: what must happen after an event, one row for each consumer. done and cancelled are final.
CREATE TABLE deliveries (
    id TEXT NOT NULL PRIMARY KEY,
    upload_id TEXT NOT NULL,
    entry_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    consumer TEXT NOT NULL,
    target TEXT NOT NULL,
    state TEXT NOT NULL,
    open BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_try BIGINT NOT NULL,
    last_error TEXT NOT NULL,
    temp_name TEXT NOT NULL,
    placed_name TEXT NOT NULL,
    taken BIGINT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (upload_id, consumer)
);
CREATE INDEX deliveries_due ON deliveries (open, next_try);
CREATE INDEX deliveries_entry ON deliveries (entry_id, open);

CREATE TABLE events (
    seq BIGINT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    time BIGINT NOT NULL,
    client_no TEXT NOT NULL,
    username TEXT NOT NULL,
    project_no TEXT NOT NULL,
    upload_id TEXT NOT NULL,
    path TEXT NOT NULL,
    peer TEXT NOT NULL,
    detail TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

-- What running servers must look at again: polled, in commit order.
CREATE TABLE changes (
    seq BIGINT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

CREATE TABLE nodes (
    id TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    heartbeat BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

CREATE TABLE bans (
    address TEXT NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL,
    reason TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
