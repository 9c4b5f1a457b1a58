"""A database as an earlier version left it, with the rows of a present one.

Usage: older_schema.py MIGRATIONS VERSION PRESENT.db sqlite OLDER.db   (makes OLDER.db)
       older_schema.py MIGRATIONS VERSION PRESENT.db postgres          (prints SQL)
Columns and tables that VERSION did not have are left out.
"""
import hashlib
import pathlib
import sqlite3
import sys

migrations, version, present, kind = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
files = [f for f in sorted(migrations.glob("*.sql")) if int(f.name[:4]) <= version]

older = sqlite3.connect(":memory:" if kind == "postgres" else sys.argv[5])
older.execute("PRAGMA journal_mode = WAL")
for f in files:
    older.executescript(f.read_text())
tables = [t for (t,) in older.execute("SELECT name FROM sqlite_master WHERE type = 'table'") if not t.startswith("sqlite")]
source = sqlite3.connect(present)


def columns(database, table):
    return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]


def literal(value):
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


statements = []
for table in tables:
    names = [c for c in columns(older, table) if c in columns(source, table)]
    # Later migrations bring counters of their own.
    kept = [name for (name,) in older.execute("SELECT name FROM counters")] if table == "counters" else None
    statements.append(f"DELETE FROM {table};")
    for row in source.execute(f"SELECT {', '.join(names)} FROM {table}"):
        if kept is not None and row[names.index("name")] not in kept:
            continue
        statements.append(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(map(literal, row))});")

blob, flag = ("BLOB", "1") if kind == "sqlite" else ("BYTEA", "TRUE")
statements.append(
    "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, "
    "installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, "
    f"checksum {blob} NOT NULL, execution_time BIGINT NOT NULL);")
for f in files:
    digest = hashlib.sha384(f.read_bytes()).hexdigest()
    digest = f"X'{digest}'" if kind == "sqlite" else f"'\\x{digest}'"
    statements.append("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) "
                      f"VALUES ({int(f.name[:4])}, '{f.stem[5:]}', {flag}, {digest}, 0);")
if kind == "sqlite":
    older.executescript("\n".join(statements))
    older.commit()
    older.close()
else:
    for f in files:
        print(f.read_text())
    print("\n".join(statements))
