package retry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"mailstow/internal/retry"
)

func TestPauseDoubles(t *testing.T) {
	for n, least := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second} {
		synctest.Test(t, func(t *testing.T) { // time stands still unless everyone sleeps
			start := time.Now()
			if err := retry.Pause(t.Context(), time.Second, n); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d < least || d > least*3/2 {
				t.Errorf("pause %d took %v, want %v to half as long again", n, d, least)
			}
		})
	}
}

func TestPauseEndsWithItsContext(t *testing.T) {
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := retry.Pause(ctx, time.Hour, 1); !errors.Is(err, cause) {
		t.Errorf("error = %v, want %v", err, cause)
	}
}

func TestMarksAreSeenThroughWrapping(t *testing.T) {
	inner := errors.New("x")
	p, r := fmt.Errorf("a: %w", retry.Permanent(inner)), fmt.Errorf("a: %w", retry.Refused(inner))
	if !retry.IsPermanent(p) || retry.IsRefused(p) || !retry.IsRefused(r) || retry.IsPermanent(r) {
		t.Error("marks are mixed up")
	}
	if !errors.Is(p, inner) || !errors.Is(r, inner) {
		t.Error("the cause is lost")
	}
}
