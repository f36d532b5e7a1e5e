package maildir

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// ErrNewer is returned for an archive that a newer mailstow has written. It
// is left untouched.
var ErrNewer = errors.New("the archive was written by a newer mailstow")

// migrations bring an index forward, one schema version each. They are only
// ever added to.
var migrations = []string{`
CREATE TABLE state (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
) WITHOUT ROWID;

-- a directory below the account's that is a Maildir
CREATE TABLE folder (
	id        INTEGER PRIMARY KEY,
	path      TEXT NOT NULL UNIQUE,
	cur_mtime INTEGER NOT NULL DEFAULT 0, -- ns, when its files were last compared with the index
	new_mtime INTEGER NOT NULL DEFAULT 0
);

-- a server and login that mail came from
CREATE TABLE source (
	id   INTEGER PRIMARY KEY,
	name TEXT NOT NULL UNIQUE           -- imap:USER@HOST or pop3:USER@HOST
);

CREATE TABLE mailbox (
	id            INTEGER PRIMARY KEY,
	source        INTEGER NOT NULL REFERENCES source(id),
	folder        INTEGER NOT NULL REFERENCES folder(id),
	wire          BLOB NOT NULL,        -- the server's exact spelling
	delimiter     TEXT NOT NULL DEFAULT '',
	role          TEXT NOT NULL DEFAULT '',
	uidvalidity   INTEGER NOT NULL DEFAULT 0, -- these four as at the last complete pull
	uidnext       INTEGER NOT NULL DEFAULT 0,
	highestmodseq INTEGER NOT NULL DEFAULT 0,
	on_server     INTEGER NOT NULL DEFAULT 0,
	completed_at  INTEGER,              -- Unix seconds
	UNIQUE (source, wire)
);

CREATE TABLE message (
	id            INTEGER PRIMARY KEY,
	folder        INTEGER NOT NULL REFERENCES folder(id),
	key           TEXT NOT NULL,        -- of the file: its name before the colon
	size          INTEGER NOT NULL,     -- octets
	sha256        BLOB NOT NULL,
	lines_size    INTEGER NOT NULL,     -- octets with CRLF line ends, without the last one
	header_sha256 BLOB NOT NULL,        -- of the header block in that form
	message_id    TEXT NOT NULL DEFAULT '',
	date          INTEGER,              -- of the Date field, Unix seconds
	sender        TEXT NOT NULL DEFAULT '',
	subject       TEXT NOT NULL DEFAULT '',
	internal_date INTEGER NOT NULL,     -- Unix seconds; the file's mtime
	date_from     TEXT NOT NULL,        -- internaldate, received, date, now or file
	flags         TEXT NOT NULL DEFAULT '', -- and keywords, separated by blanks
	origin        TEXT NOT NULL,        -- server, or found: in the directory without being known
	archived_at   INTEGER NOT NULL,
	removed_at    INTEGER,              -- the file was found missing
	accepted      INTEGER NOT NULL DEFAULT 0, -- the user says that it may be missing
	UNIQUE (folder, key)
);
CREATE INDEX message_by_sha256 ON message (sha256);

-- which message on a server is which in the archive
CREATE TABLE mapping (
	mailbox  INTEGER NOT NULL REFERENCES mailbox(id),
	id       TEXT NOT NULL,             -- UIDVALIDITY:UID, or the POP3 unique-id
	message  INTEGER NOT NULL REFERENCES message(id),
	how      TEXT NOT NULL,             -- downloaded, or recognised (the body is not compared)
	note     TEXT NOT NULL DEFAULT '',  -- what is odd about it
	flags    TEXT NOT NULL DEFAULT '',  -- as the server told them last
	gone_at  INTEGER,                   -- the server no longer lists it
	PRIMARY KEY (mailbox, id)
) WITHOUT ROWID;
CREATE INDEX mapping_by_message ON mapping (message);

-- what could not be fetched; it is tried again on every run
CREATE TABLE failure (
	mailbox INTEGER NOT NULL REFERENCES mailbox(id),
	id      TEXT NOT NULL,
	reason  TEXT NOT NULL,
	since   INTEGER NOT NULL,
	tries   INTEGER NOT NULL DEFAULT 1,
	PRIMARY KEY (mailbox, id)
) WITHOUT ROWID;

CREATE TABLE run (
	id         INTEGER PRIMARY KEY,
	command    TEXT NOT NULL,
	source     TEXT NOT NULL,
	started_at INTEGER NOT NULL,
	ended_at   INTEGER,
	result     TEXT NOT NULL DEFAULT '', -- ok, incomplete, failed; empty while it runs or if it was killed
	reason     TEXT NOT NULL DEFAULT '',
	new        INTEGER NOT NULL DEFAULT 0,
	new_octets INTEGER NOT NULL DEFAULT 0,
	on_server  INTEGER NOT NULL DEFAULT 0,
	missing    INTEGER NOT NULL DEFAULT 0
);

-- A new index knows nothing yet: until the first run is done, it is as after
-- one that was killed.
INSERT INTO state VALUES ('writing', '0');
`, `
-- the server's name for the content, which copies in other mailboxes share; a
-- message that was not downloaded because of that has how = linked
ALTER TABLE mapping ADD COLUMN object TEXT NOT NULL DEFAULT '';
CREATE INDEX mapping_by_object ON mapping (object) WHERE object != '';
CREATE INDEX message_removed ON message (folder) WHERE removed_at IS NOT NULL;
`, `
-- getmail wrote the header anew: lines_size is of the body alone, header_sha256
-- of the fields' text without blanks and without what getmail adds
ALTER TABLE message ADD COLUMN rewritten INTEGER NOT NULL DEFAULT 0;
`, `
-- another form in which a server may have a message: it was repaired before it
-- was sent, or the server changes what it stores
CREATE TABLE form (
	message       INTEGER NOT NULL REFERENCES message(id),
	size          INTEGER NOT NULL,     -- octets
	header_sha256 BLOB NOT NULL,
	lines_size    INTEGER NOT NULL,
	sha256        BLOB NOT NULL,        -- empty where the octets are not known
	note          TEXT NOT NULL,        -- what was done to it
	PRIMARY KEY (message, size, header_sha256)
) WITHOUT ROWID;
ALTER TABLE run ADD COLUMN settled INTEGER NOT NULL DEFAULT 0; -- it is known what the server has of each folder
ALTER TABLE mailbox ADD COLUMN placed INTEGER REFERENCES folder(id); -- that was put into it last, to stay there
`}

// openIndex opens the database at path and brings its schema forward. A file
// that is no database is an [errDamagedIndex].
func openIndex(ctx context.Context, path string, readOnly bool) (*sql.DB, error) {
	version, err := schemaVersion(path)
	if err != nil {
		return nil, err
	}
	if version > len(migrations) {
		return nil, fmt.Errorf("%w: its index has version %d, this program knows %d", ErrNewer, version, len(migrations))
	}
	query := "_pragma=busy_timeout(30000)"
	if readOnly {
		query += "&mode=ro"
	} else {
		// EXTRA syncs the directory when the journal is deleted: a power cut
		// after a commit cannot bring the journal back and undo it.
		query += "&_pragma=journal_mode(delete)&_pragma=synchronous(extra)"
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: query}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	// Asked again: a run that was killed may have left a journal, which takes
	// back what stands in the header.
	err = db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	switch {
	case err != nil:
	case !readOnly:
		err = migrate(ctx, db, version)
	case version < len(migrations):
		err = fmt.Errorf("%w: its index is not complete; the next backup makes it so", ErrNone)
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("index %s: %w", path, err)
	}
	return db, nil
}

// schemaVersion reads the user version from the database's header without
// touching the file (SQLite file format, section 1.3). A file that does not
// exist has version 0.
func schemaVersion(path string) (int, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var header [64]byte
	n, err := io.ReadFull(f, header[:])
	if n == 0 && err == io.EOF {
		return 0, nil
	}
	if err != nil || string(header[:16]) != "SQLite format 3\x00" {
		return 0, errDamagedIndex
	}
	return int(binary.BigEndian.Uint32(header[60:])), nil
}

var errDamagedIndex = errors.New("the index is damaged")

func migrate(ctx context.Context, db *sql.DB, version int) error {
	for ; version < len(migrations); version++ {
		err := inTx(ctx, db, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version+1))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// inTx runs f in a transaction that is durable when inTx returns nil.
func inTx(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// rows calls scan for each row of a query.
func rows(ctx context.Context, db interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}, scan func(*sql.Rows) error, query string, args ...any) error {
	r, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer r.Close()
	for r.Next() {
		if err := scan(r); err != nil {
			return err
		}
	}
	return r.Err()
}

// maxVariables bounds the values of one query.
const maxVariables = 500

// rowsIn calls scan for each row of a query about values, which stand in it as
// %s; args are those before them. Many values are asked about in several queries.
func rowsIn[T any](ctx context.Context, db *sql.DB, values []T, scan func(*sql.Rows) error, query string, args ...any) error {
	for few := range slices.Chunk(values, maxVariables) {
		all := slices.Clone(args)
		for _, v := range few {
			all = append(all, v)
		}
		if err := rows(ctx, db, scan, fmt.Sprintf(query, "?"+strings.Repeat(",?", len(few)-1)), all...); err != nil {
			return err
		}
	}
	return nil
}

// seconds returns t for a column of Unix seconds, NULL for no time.
func seconds(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Unix()
}

func fromUnix(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(n.Int64, 0)
}
