//go:build !linux

package maildir

import (
	"errors"
	"os"
)

func canSyncAll(string) bool { return false }

func syncAll(*os.File) error { return errors.ErrUnsupported }

// dropCached does nothing: what follows may be read from memory.
func dropCached(*os.File) {}
