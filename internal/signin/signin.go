// Package signin gets tokens that let mailstow read a person's mail, from those
// with whom the person signs in (OAuth2, RFC 6749).
package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"mailstow/internal/credential"
)

// Application is what asks for leave: registered by the user, or by those who run
// the user's mail.
type Application struct {
	ID     string
	Secret credential.Secret // empty for one that cannot keep any

	Auth, Token string // URLs
	Device      string // "" if a machine without a browser cannot be let in

	Scopes []string
	Extra  map[string]string // further parameters of Auth

	Address string // whose mail it is about
}

// Grant is the leave that a person has given, and what came of it last. It is a
// secret.
type Grant struct {
	Refresh  string    `json:"refresh_token"`
	Access   string    `json:"access_token"`
	Expires  time.Time `json:"expires"`
	Given    time.Time `json:"given"`   // by the person
	Renewed  time.Time `json:"renewed"` // when there was an access token last
	ClientID string    `json:"client_id"`
	Token    string    `json:"token_url"`       // where it is renewed, and nowhere else
	Ended    string    `json:"ended,omitempty"` // why it could not be renewed any more
}

// early is how long before its end a token is taken for ended: a login, and what
// comes before it, takes time. It is less for one that does not last as long.
const early = 5 * time.Minute

// Good reports whether the access token can be used.
func (g *Grant) Good(now time.Time) bool {
	return g.Access != "" && now.Add(min(early, g.Expires.Sub(g.Renewed)/4)).Before(g.Expires)
}

// EndedError says that a person has to sign in again.
type EndedError struct {
	Code string // of RFC 6749 section 5.2, such as invalid_grant
	Text string // what was said, in a line
}

func (e *EndedError) Error() string { return strings.TrimSpace(e.Code + " " + e.Text) }

// RefusedError says that the sign-in does not work, in a way that signing in
// again does not cure.
type RefusedError struct{ Code, Text string }

func (e *RefusedError) Error() string { return strings.TrimSpace(e.Code + " " + e.Text) }

// client asks sign-in servers. It goes nowhere else with what it has to say, and
// does not wait without end.
var client = &http.Client{Timeout: 30 * time.Second, Transport: masking{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// masking keeps what a server repeats of the secrets that it was sent out of the
// errors that are made of its answer.
type masking struct{}

var secretParameters = []string{"client_secret", "refresh_token", "code", "code_verifier", "device_code", "assertion"}

func (masking) RoundTrip(r *http.Request) (*http.Response, error) {
	var secrets []string
	if r.Body != nil {
		sent, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
		form, _ := url.ParseQuery(string(sent))
		for _, name := range secretParameters {
			for _, secret := range form[name] {
				secrets = append(secrets, secret, url.QueryEscape(secret))
			}
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || answer.StatusCode < 400 {
		return answer, err
	}
	said, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	answer.Body.Close()
	answer.Body = io.NopCloser(strings.NewReader(credential.Hide(string(said), secrets...)))
	answer.ContentLength = -1
	return answer, err
}

// asking has the library use client.
func asking(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, client)
}

// config is the library's view of the application.
func (a *Application) config(redirect string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: a.ID, ClientSecret: a.Secret.Reveal(), Scopes: a.Scopes, RedirectURL: redirect,
		Endpoint: oauth2.Endpoint{AuthURL: a.Auth, TokenURL: a.Token, DeviceAuthURL: a.Device, AuthStyle: oauth2.AuthStyleInParams},
	}
}

// grant makes a grant of a token; the refresh token stays the old one if no other
// came.
func (a *Application) grant(t *oauth2.Token, old *Grant) *Grant {
	now := time.Now().UTC().Round(time.Second)
	g := &Grant{Refresh: t.RefreshToken, Access: t.AccessToken, Expires: t.Expiry.UTC(), Given: now, Renewed: now, ClientID: a.ID, Token: a.Token}
	if old != nil {
		g.Given = old.Given
		if g.Refresh == "" {
			g.Refresh = old.Refresh
		}
	}
	return g
}

// ErrNoRefresh is returned if a sign-in gives an access token alone, which would
// end within the hour.
var ErrNoRefresh = errors.New("no refresh token came with the sign-in, so that it would end within the hour")

// whole makes a grant of the answer to a sign-in.
func (a *Application) whole(t *oauth2.Token, err error) (*Grant, error) {
	if err != nil {
		return nil, explain(err)
	}
	if t.RefreshToken == "" {
		return nil, ErrNoRefresh
	}
	return a.grant(t, nil), nil
}

// Renew gets another access token. The grant that it returns takes the place of
// the old one, which may not be good any more.
func (a *Application) Renew(ctx context.Context, g *Grant) (*Grant, error) {
	t, err := a.config("").TokenSource(asking(ctx), &oauth2.Token{RefreshToken: g.Refresh}).Token()
	if err != nil {
		return nil, explain(err)
	}
	return a.grant(t, g), nil
}

// AppOnly gets an access token for the application itself, which may read the
// mail of all (RFC 6749 section 4.4).
func (a *Application) AppOnly(ctx context.Context) (*Grant, error) {
	c := clientcredentials.Config{ClientID: a.ID, ClientSecret: a.Secret.Reveal(), TokenURL: a.Token, Scopes: a.Scopes, AuthStyle: oauth2.AuthStyleInParams}
	t, err := c.Token(asking(ctx))
	if err != nil {
		return nil, explain(err)
	}
	return a.grant(t, nil), nil
}

// ServiceAccount gets an access token for the mail of an address with the key of
// a service account, which is JSON as Google gives it (RFC 7523).
func ServiceAccount(ctx context.Context, key credential.Secret, address string, scopes []string) (*Grant, error) {
	var k struct {
		Type  string `json:"type"`
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
		KeyID string `json:"private_key_id"`
		Token string `json:"token_uri"`
	}
	if json.Unmarshal([]byte(key.Reveal()), &k) != nil || k.Type != "service_account" || k.Email == "" || k.Key == "" {
		return nil, errors.New("it is not the key of a service account, in JSON")
	}
	if err := isSafe(k.Token); err != nil {
		return nil, err
	}
	c := jwt.Config{Email: k.Email, PrivateKey: []byte(k.Key), PrivateKeyID: k.KeyID, Subject: address, Scopes: scopes, TokenURL: k.Token}
	t, err := c.TokenSource(asking(ctx)).Token()
	if err != nil {
		return nil, explain(err)
	}
	a := Application{ID: k.Email}
	return a.grant(t, nil), nil
}

// isSafe returns an error for a URL to which no secret may go: all but HTTPS, and
// this machine.
func isSafe(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "127.0.0.1" || u.Hostname() == "localhost")) || u.Host == "" {
		return fmt.Errorf("%q is no HTTPS address", address)
	}
	return nil
}

// Check returns an error if the application cannot be asked for anything.
func (a *Application) Check() error {
	if a.ID == "" {
		return errors.New("there is no client ID")
	}
	for _, u := range []string{a.Auth, a.Token, a.Device} {
		if u != "" {
			if err := isSafe(u); err != nil {
				return err
			}
		}
	}
	return nil
}

// explain says what an error of the library means.
func explain(err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return err // not reached, say
	}
	code, text := answer.ErrorCode, firstLine(answer.ErrorDescription)
	if code == "" {
		status := 0
		if answer.Response != nil {
			status = answer.Response.StatusCode
		}
		if status >= 500 || status == 429 {
			return fmt.Errorf("the sign-in server answers with HTTP status %d", status)
		}
		return &RefusedError{Text: fmt.Sprintf("HTTP status %d", status)}
	}
	switch code {
	case "invalid_grant", "interaction_required", "consent_required", "login_required", "access_denied", "expired_token":
		return &EndedError{code, text}
	case "temporarily_unavailable", "server_error", "slow_down":
		return fmt.Errorf("the sign-in server is busy: %s %s", code, text)
	}
	return &RefusedError{code, text}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(line)
}
