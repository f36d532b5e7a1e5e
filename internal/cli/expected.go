package cli

import (
	"context"
	"maps"
	"slices"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/mailbox"
	"mailstow/migrate"
)

// expected is an archive, if there is one, as it will be when a backup that was
// tried has been done. It serves a dry run.
type expected struct {
	migrate.Archive // nil for none
	coming          map[string]report.Tally
	known           map[string]bool // folders that the archive has
}

// expecting makes one of how the backup would go.
func expecting(ar migrate.Archive, tallies []report.Tally) expected {
	e := expected{ar, map[string]report.Tally{}, map[string]bool{}}
	for _, t := range tallies {
		if t.Skipped == "" {
			e.coming[t.Path] = t
		}
	}
	return e
}

func (e expected) Folders(ctx context.Context) (all []migrate.Folder, err error) {
	if e.Archive != nil {
		if all, err = e.Archive.Folders(ctx); err != nil {
			return nil, err
		}
	}
	for i, f := range all {
		t := e.coming[f.Path]
		e.known[f.Path], all[i].Messages, all[i].Octets = true, f.Messages+t.New, f.Octets+t.Octets
	}
	for _, path := range slices.Sorted(maps.Keys(e.coming)) {
		if t := e.coming[path]; !e.known[path] {
			all = append(all, migrate.Folder{Path: path, Name: t.Mailbox, Role: t.Role, Messages: t.New, Octets: t.Octets})
		}
	}
	return all, nil
}

func (e expected) Unclaimed(ctx context.Context, folder string, m mailbox.Mailbox, live func(mailbox.ID) bool) (free []fingerprint.Candidate, err error) {
	if e.known[folder] {
		free, err = e.Archive.Unclaimed(ctx, folder, m, live)
	}
	t := e.coming[folder]
	for i := range t.New { // their sizes are known together only
		size := t.Octets / int64(t.New)
		if i == 0 {
			size += t.Octets % int64(t.New)
		}
		free = append(free, fingerprint.Candidate{Message: -1 - int64(i), Print: fingerprint.Print{Size: size, Lines: size}, Arrived: time.Now().Unix()})
	}
	return free, err
}

func (e expected) EachHeld(ctx context.Context, folder string, m mailbox.Mailbox, fn func(migrate.Held)) error {
	if !e.known[folder] {
		return nil
	}
	return e.Archive.EachHeld(ctx, folder, m, fn)
}

func (e expected) Forms(ctx context.Context, folder string) ([]fingerprint.Candidate, error) {
	if !e.known[folder] {
		return nil, nil
	}
	return e.Archive.Forms(ctx, folder)
}

func (e expected) Place(m mailbox.Mailbox, folder string, stay bool) {
	if e.known[folder] {
		e.Archive.Place(m, folder, stay)
	}
}

func (e expected) Describe(ctx context.Context, message int64) (migrate.Description, error) {
	if message < 0 {
		return migrate.Description{Subject: "(on the source)"}, nil
	}
	return e.Archive.Describe(ctx, message)
}

func (e expected) Begin() migrate.Batch {
	if e.Archive == nil {
		return noBatch{}
	}
	return e.Archive.Begin()
}

// noBatch takes the notes of a dry run without an archive: there are none.
type noBatch struct{ migrate.Batch }

func (noBatch) Commit(context.Context) error { return nil }
