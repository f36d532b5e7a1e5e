package maildir

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"mailstow/internal/fingerprint"
)

// FolderInfo is what the index knows of a folder.
type FolderInfo struct {
	Path     string // below the account's directory
	Name     string // as the server calls it, or as the directory's name decodes
	Role     string
	Messages int
	Octets   int64
	OnServer int // at the last complete pull
}

// Folders returns the archive's folders, in order of their paths.
func (a *Archive) Folders(ctx context.Context) ([]FolderInfo, error) {
	var all []FolderInfo
	return all, rows(ctx, a.db, func(r *sql.Rows) error {
		var f FolderInfo
		if err := r.Scan(&f.Path, &f.Role, &f.OnServer, &f.Messages, &f.Octets); err != nil {
			return err
		}
		f.Name = nameOfPath(f.Path).String()
		all = append(all, f)
		return nil
	}, `SELECT f.path, ifnull(max(b.role), ''), ifnull(max(b.on_server), 0),
		(SELECT count(*) FROM message m WHERE m.folder = f.id AND m.removed_at IS NULL),
		(SELECT ifnull(sum(size), 0) FROM message m WHERE m.folder = f.id AND m.removed_at IS NULL)
		FROM folder f LEFT JOIN mailbox b ON b.folder = f.id GROUP BY f.id ORDER BY f.path`)
}

// MessageInfo is what the index knows of a message.
type MessageInfo struct {
	File         string // below the account's directory
	Size         int64
	SHA256       fingerprint.Sum
	InternalDate time.Time
	Date         time.Time // of the Date field; zero if there is none
	From         string
	Subject      string
	MessageID    string
	Flags        []string
}

// Messages calls f with each message of a folder, the newest first.
func (a *Archive) Messages(ctx context.Context, folderPath string, f func(MessageInfo) error) error {
	fo := a.folders[folderPath]
	if fo == nil {
		return errors.New("there is no such folder")
	}
	names, err := a.onDisk(fo, nil)
	if err != nil {
		return err
	}
	return rows(ctx, a.db, func(r *sql.Rows) error {
		var m MessageInfo
		var key, flags string
		var sum []byte
		var internal, date sql.NullInt64
		if err := r.Scan(&key, &m.Size, &sum, &internal, &date, &m.From, &m.Subject, &m.MessageID, &flags); err != nil {
			return err
		}
		if names[key] == "" {
			return nil
		}
		copy(m.SHA256[:], sum)
		m.File, m.InternalDate, m.Date, m.Flags = fo.path+"/"+names[key], fromUnix(internal), fromUnix(date), strings.Fields(flags)
		return f(m)
	}, `SELECT key, size, sha256, internal_date, date, sender, subject, message_id, flags FROM message
		WHERE folder = ? AND removed_at IS NULL ORDER BY internal_date DESC, id DESC`, fo.id)
}

// Failure is a message that could not be fetched.
type Failure struct {
	Folder, ID, Reason string
	Since              time.Time
	Tries              int
}

// Failures returns the messages that are still missing because they could not
// be fetched.
func (a *Archive) Failures(ctx context.Context) ([]Failure, error) {
	var all []Failure
	return all, rows(ctx, a.db, func(r *sql.Rows) error {
		var f Failure
		var since sql.NullInt64
		if err := r.Scan(&f.Folder, &f.ID, &f.Reason, &since, &f.Tries); err != nil {
			return err
		}
		f.Since = fromUnix(since)
		all = append(all, f)
		return nil
	}, `SELECT f.path, x.id, x.reason, x.since, x.tries FROM failure x JOIN mailbox b ON b.id = x.mailbox
		JOIN folder f ON f.id = b.folder
		WHERE NOT EXISTS (SELECT 1 FROM mapping p WHERE p.mailbox = x.mailbox AND p.id = x.id) ORDER BY f.path, x.id`)
}

// LastRuns returns the last backup of all, and the last that was good: ok, or
// paused with something that it had brought, as the first weeks of a large account
// are; nil where there was none.
func (a *Archive) LastRuns(ctx context.Context) (last, good *Run, err error) {
	if last, err = a.run(ctx, "WHERE command = 'backup'"); err == nil {
		good, err = a.run(ctx, "WHERE command = 'backup' AND (result = 'ok' OR result = 'paused' AND new > 0)")
	}
	return last, good, err
}

func (a *Archive) run(ctx context.Context, where string, args ...any) (*Run, error) {
	var r Run
	var started, ended sql.NullInt64
	err := a.db.QueryRowContext(ctx, "SELECT command, source, started_at, ended_at, result, reason, new, new_octets, on_server, missing FROM run "+where+" ORDER BY id DESC LIMIT 1", args...).
		Scan(&r.Command, &r.Source, &started, &ended, &r.Result, &r.Reason, &r.New, &r.NewOctets, &r.OnServer, &r.Missing)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	r.Started, r.Ended = fromUnix(started), fromUnix(ended)
	return &r, err
}

// AcceptRemoved says of every message whose file is gone that this is as the
// user wants it. It returns how many they are.
func (a *Archive) AcceptRemoved(ctx context.Context) (int64, error) {
	r, err := a.db.ExecContext(ctx, "UPDATE message SET accepted = 1 WHERE removed_at IS NOT NULL AND accepted = 0")
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
