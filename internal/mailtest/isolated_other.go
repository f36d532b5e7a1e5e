//go:build !linux

package mailtest

import "syscall"

// isolated is never called here: cannotRun says that servers need Linux.
func isolated() *syscall.SysProcAttr { return nil }
