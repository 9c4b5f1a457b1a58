-- What operators look at every second, without reading all that ever was.
CREATE INDEX hook_runs_failed ON hook_runs (updated) WHERE state = 'failed';
CREATE INDEX events_logins ON events (username, seq) WHERE kind = 'login';
