package signin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// patience is how long a person may take.
const patience = 10 * time.Minute

// attempt is one sign-in.
type attempt struct {
	app             *Application
	config          *oauth2.Config
	state, verifier string
}

func (a *Application) begin(redirect string) *attempt {
	var random [24]byte
	rand.Read(random[:])
	return &attempt{app: a, config: a.config(redirect), state: base64.RawURLEncoding.EncodeToString(random[:]), verifier: oauth2.GenerateVerifier()}
}

// url is where the person has to go.
func (t *attempt) url() string {
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(t.verifier)} // RFC 7636
	for k, v := range t.app.Extra {
		options = append(options, oauth2.SetAuthURLParam(k, v))
	}
	if t.app.Address != "" {
		options = append(options, oauth2.SetAuthURLParam("login_hint", t.app.Address))
	}
	return t.config.AuthCodeURL(t.state, options...)
}

// answered reports whether the parameters of an address are the answer to this
// sign-in.
func (t *attempt) answered(q url.Values) bool {
	return subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(t.state)) == 1
}

// finish takes the parameters with which the browser came back.
func (t *attempt) finish(ctx context.Context, q url.Values) (*Grant, error) {
	if !t.answered(q) {
		return nil, errors.New("this is not the answer to this sign-in")
	}
	if code := q.Get("error"); code != "" {
		return nil, explain(&oauth2.RetrieveError{ErrorCode: code, ErrorDescription: q.Get("error_description")})
	}
	if q.Get("code") == "" {
		return nil, errors.New("the address has no code in it")
	}
	return t.app.whole(t.config.Exchange(asking(ctx), q.Get("code"), oauth2.VerifierOption(t.verifier)))
}

// Browser has the person sign in with a browser on this machine, which comes back
// to a port of it (RFC 8252). open is told where to go.
func (a *Application) Browser(ctx context.Context, open func(address string)) (*Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	host := "127.0.0.1"
	if strings.Contains(a.Auth, "microsoft") { // which knows http://localhost, with any port
		host = "localhost"
	}
	t := a.begin(fmt.Sprintf("http://%s:%d/", host, ln.Addr().(*net.TCPAddr).Port))
	type end struct {
		grant *Grant
		err   error
	}
	ended := make(chan end, 1)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if !t.answered(q) { // /favicon.ico, an earlier sign-in, or somebody's guess
			http.NotFound(w, r)
			return
		}
		grant, err := t.finish(ctx, q)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err != nil {
			fmt.Fprintln(w, "mailstow was not let in. Look at its window.")
		} else {
			fmt.Fprintln(w, "mailstow is let in. You can close this page.")
		}
		select {
		case ended <- end{grant, err}:
		default:
		}
	})}
	go server.Serve(ln)
	defer server.Close()
	open(t.url())
	select {
	case e := <-ended:
		quit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		server.Shutdown(quit) // the page goes out first
		return e.grant, e.err
	case <-ctx.Done():
		if context.Cause(ctx) == context.DeadlineExceeded {
			return nil, fmt.Errorf("nobody has signed in for %v", patience)
		}
		return nil, context.Cause(ctx)
	}
}

// Paste has the person sign in with a browser anywhere. It ends up at an address
// that cannot be opened, and read returns that.
func (a *Application) Paste(ctx context.Context, open func(address string), read func() (string, error)) (*Grant, error) {
	t := a.begin("http://localhost:8085/")
	open(t.url())
	text, err := read()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.RawQuery == "" {
		return nil, errors.New("that is not the address of the last page: it begins with http://localhost")
	}
	return t.finish(ctx, u.Query())
}

// FromDevice has the person sign in anywhere, with a short code (RFC 8628). show
// is told where to go, and the code.
func (a *Application) FromDevice(ctx context.Context, show func(address, code string)) (*Grant, error) {
	if a.Device == "" {
		return nil, errors.New("there is no sign-in with a code here")
	}
	c := a.config("")
	d, err := c.DeviceAuth(asking(ctx))
	if err != nil {
		return nil, explain(err)
	}
	show(d.VerificationURI, d.UserCode)
	return a.whole(c.DeviceAccessToken(asking(ctx), d))
}
