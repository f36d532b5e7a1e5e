//go:build !linux

package maildir

import (
	"errors"
	"os"
)

func canSyncAll(string) bool { return false }

func syncAll(*os.File) error { return errors.ErrUnsupported }
