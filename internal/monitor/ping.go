// Package monitor tells those who keep watch at night how a run goes: a service
// that waits for pings, a file of metrics, systemd.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Check is a check of healthchecks.io, or of a service that understands the same
// pings.
type Check struct {
	URL string
	Run string // a UUID that joins the start of a run to its end; "" for none
}

// pingWithin bounds a ping.
const pingWithin = 10 * time.Second

// maxBody is how much of a summary goes along, in octets.
const maxBody = 10_000

// Start says that a run begins.
func (c Check) Start(ctx context.Context) error { return c.ping(ctx, "/start", "") }

// End says how a run ended, by its exit status.
func (c Check) End(ctx context.Context, status int, summary string) error {
	return c.ping(ctx, fmt.Sprintf("/%d", status), summary)
}

func (c Check) ping(ctx context.Context, path, body string) error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("the address of the check is no URL") // which is a secret
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	if c.Run != "" {
		q := u.Query()
		q.Set("rid", c.Run)
		u.RawQuery = q.Encode()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingWithin) // also for a run that was interrupted
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(body[:min(len(body), maxBody)]))
	if err != nil {
		return errors.New("the address of the check is no URL")
	}
	req.Header.Set("User-Agent", "mailstow")
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // the address is a secret
	resp, err := client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the address
		}
		return fmt.Errorf("%s: %w", u.Host, err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers with HTTP status %d", u.Host, resp.StatusCode)
	}
	return nil
}
