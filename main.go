// Mailstow keeps a copy of your mail on your own disk.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"mailstow/internal/cli"
)

func main() {
	syscall.Umask(0o077)           // mail is nobody else's business
	signal.Ignore(syscall.SIGPIPE) // a reader that goes away must not end a run
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // half the usual: a large mailbox is to fit into a small machine
	}

	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		cancel(cli.Interrupted{Signal: (<-signals).(syscall.Signal)})
		signal.Reset() // a second signal ends the program at once
	}()
	os.Exit(cli.Run(ctx, cli.Env{
		Args:   os.Args[1:],
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Getenv: os.Getenv,
	}))
}
