package signin_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/mailtest"
	"mailstow/internal/signin"
)

func application(s *mailtest.SignIn) signin.Application {
	return signin.Application{ID: "me", Auth: s.URL + "/auth", Token: s.URL + "/token", Device: s.URL + "/device", Scopes: []string{"mail"}, Address: "alice@example.org"}
}

// visit does what a browser does, and returns where it ends up.
func visit(t *testing.T, address string) string {
	t.Helper()
	last := ""
	c := &http.Client{CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		last = r.URL.String()
		if strings.Contains(last, ":8085") { // nobody is there
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := c.Get(address)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return last + "\n" + string(b)
}

func TestEachFlowLetsIn(t *testing.T) {
	s := mailtest.NewSignIn(t)
	app := application(s)
	var at string
	for name, flow := range map[string]func() (*signin.Grant, error){
		"browser": func() (*signin.Grant, error) {
			pages := make(chan string, 1)
			g, err := app.Browser(t.Context(), func(a string) { go func() { pages <- visit(t, a) }() })
			if page := <-pages; !strings.Contains(page, "mailstow is let in") {
				t.Errorf("the browser shows %q", page)
			}
			return g, err
		},
		"paste": func() (*signin.Grant, error) {
			return app.Paste(t.Context(), func(a string) { at, _, _ = strings.Cut(visit(t, a), "\n") }, func() (string, error) { return at + "\r\n", nil })
		},
		"device": func() (*signin.Grant, error) {
			return app.FromDevice(t.Context(), func(address, code string) {
				if code != "ABCD-1234" || !strings.HasPrefix(address, s.URL) {
					t.Errorf("shown: %s, %s", address, code)
				}
			})
		},
	} {
		g, err := flow()
		if err != nil || s.Whose(g.Access) != "alice" || g.Refresh == "" || time.Until(g.Expires) < 50*time.Minute {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}

// An answer to another sign-in, or none, lets nobody in; nor does a no.
func TestForeignAnswerIsNotTaken(t *testing.T) {
	s := mailtest.NewSignIn(t)
	app := application(s)
	var first string
	take := func(answer func(own string) string) error {
		own := ""
		_, err := app.Paste(t.Context(), func(a string) { own, _, _ = strings.Cut(visit(t, a), "\n") }, func() (string, error) { return answer(own), nil })
		if first == "" {
			first = own
		}
		return err
	}
	if err := take(func(string) string { return "http://localhost:8085/?code=x&state=y" }); err == nil {
		t.Error("a made-up answer is taken")
	}
	if err := take(func(string) string { return first }); err == nil {
		t.Error("the answer to another sign-in is taken")
	}
	if err := take(func(string) string { return "what?" }); err == nil || !strings.Contains(err.Error(), "localhost") {
		t.Error(err)
	}
	s.Deny()
	var ended *signin.EndedError
	if err := take(func(own string) string { return own }); !errors.As(err, &ended) || ended.Code != "access_denied" {
		t.Errorf("a no: %v", err)
	}
}

// Nor does one end the sign-in that a person is at.
func TestStrayRequestsDoNotEndASignIn(t *testing.T) {
	s := mailtest.NewSignIn(t)
	app := application(s)
	g, err := app.Browser(t.Context(), func(a string) {
		u, err := url.Parse(a)
		if err != nil {
			t.Error(err)
		}
		own := u.Query().Get("redirect_uri")
		for _, stray := range []string{"favicon.ico", "?state=guess&code=x", "?state=guess&error=access_denied", "?code=x"} {
			if page := visit(t, own+stray); !strings.Contains(page, "404") {
				t.Errorf("%s is answered with %q", stray, page)
			}
		}
		go visit(t, a)
	})
	if err != nil || s.Whose(g.Access) != "alice" {
		t.Error(err)
	}
}

func TestWithoutAPerson(t *testing.T) {
	s := mailtest.NewSignIn(t)
	app := application(s)
	app.Secret = credential.NewSecret("app secret")
	if g, err := app.AppOnly(t.Context()); err != nil || s.Whose(g.Access) == "" {
		t.Errorf("%+v, %v", g, err)
	}
	app.Secret = credential.NewSecret("wrong")
	var refused *signin.RefusedError
	if _, err := app.AppOnly(t.Context()); !errors.As(err, &refused) || !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Errorf("a wrong secret: %v", err)
	}

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(token string) credential.Secret {
		b, _ := json.Marshal(map[string]string{"type": "service_account", "client_email": "robot@example.org", "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": token})
		return credential.NewSecret(string(b))
	}
	if g, err := signin.ServiceAccount(t.Context(), text(s.URL+"/token"), "bob@example.org", []string{"mail"}); err != nil || s.Whose(g.Access) != "bob" {
		t.Errorf("%+v, %v", g, err)
	}
	for _, wrong := range []credential.Secret{text("http://example.org/token"), credential.NewSecret("{}"), credential.NewSecret("secret")} {
		if _, err := signin.ServiceAccount(t.Context(), wrong, "bob@example.org", nil); err == nil || strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	}
}

// kept are two programs that share what is kept of a sign-in.
func kept(t *testing.T, s *mailtest.SignIn) (a, b *signin.Tokens) {
	t.Helper()
	dir, app := t.TempDir(), application(s)
	g, err := app.FromDevice(t.Context(), func(string, string) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, tokens := range []**signin.Tokens{&a, &b} {
		*tokens = &signin.Tokens{App: app, Server: "imap.example.org", Name: "alice", Store: credential.Store{Dir: filepath.Join(dir, "secrets")}, Locks: filepath.Join(dir, "locks")}
	}
	if _, err := a.Keep(t.Context(), g, []string{"imap.example.org"}, credential.InFile); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// A provider that gives another refresh token each time ends the one before: many
// at once, in several programs, must renew it one after the other, and once.
func TestManyRenewATokenOnce(t *testing.T) {
	s := mailtest.NewSignIn(t)
	a, b := kept(t, s)
	first, err := a.Token(t.Context(), credential.Secret{})
	if err != nil || s.Whose(first.Reveal()) != "alice" || s.Renewals() != 0 {
		t.Fatalf("%v, %d renewals", err, s.Renewals())
	}
	for round := 1; round < 4; round++ {
		s.Expire() // whatever was said of how long it lasts
		used := first
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				token, err := []*signin.Tokens{a, b}[i%2].Token(t.Context(), used)
				if err != nil || s.Whose(token.Reveal()) != "alice" {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		if s.Renewals() != round {
			t.Errorf("%d renewals, want %d", s.Renewals(), round)
		}
		if first, err = a.Token(t.Context(), credential.Secret{}); err != nil {
			t.Fatal(err)
		}
	}
}

// One that is about to end is not used; one that never lasts long is, while it
// does.
func TestTokenIsRenewedBeforeItEnds(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		lasts, left time.Duration
		good        bool
	}{
		{time.Hour, 30 * time.Minute, true}, {time.Hour, 6 * time.Minute, true}, {time.Hour, 4 * time.Minute, false}, {time.Hour, -time.Minute, false},
		{4 * time.Minute, 4 * time.Minute, true}, {4 * time.Minute, 2 * time.Minute, true}, {4 * time.Minute, 30 * time.Second, false},
	} {
		g := &signin.Grant{Access: "x", Renewed: now.Add(c.left - c.lasts), Expires: now.Add(c.left)}
		if g.Good(now) != c.good {
			t.Errorf("it lasts %v, %v are left: %v", c.lasts, c.left, !c.good)
		}
	}
	s := mailtest.NewSignIn(t)
	s.Lifetime = 4 * time.Minute
	a, _ := kept(t, s)
	for range 3 {
		if _, err := a.Token(t.Context(), credential.Secret{}); err != nil || s.Renewals() != 0 {
			t.Errorf("%d renewals, %v", s.Renewals(), err)
		}
	}
	s.Expire()
}

func TestSignInThatHasEndedNeedsAPerson(t *testing.T) {
	s := mailtest.NewSignIn(t)
	a, b := kept(t, s)
	stolen, err := a.Grant()
	if err != nil {
		t.Fatal(err)
	}
	used := credential.NewSecret(stolen.Access)
	if _, err := a.Token(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keep(t.Context(), stolen, []string{"imap.example.org"}, credential.InFile); err != nil { // an old copy is put in its place
		t.Fatal(err)
	}
	var ended *signin.EndedError
	if _, err := a.Token(t.Context(), used); !errors.As(err, &ended) || ended.Error() != "invalid_grant AADSTS700082: The refresh token has expired due to inactivity." {
		t.Errorf("%v", err)
	}
	s.Refuse("temporarily_unavailable", "")
	if _, err := a.Token(t.Context(), used); err == nil || errors.As(err, new(*signin.EndedError)) || errors.As(err, new(*signin.RefusedError)) {
		t.Errorf("a busy server: %v", err)
	}
	if err := a.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Token(t.Context(), used); !errors.Is(err, signin.ErrNeverGiven) {
		t.Error(err)
	}
}

func TestSecretsGoToHTTPSAlone(t *testing.T) {
	for _, app := range []signin.Application{
		{ID: "x", Auth: "http://example.org/auth", Token: "https://example.org/token"}, {ID: "x", Token: "http://example.org/token"}, {ID: "x", Token: "token"}, {Token: "https://example.org/token"},
	} {
		if app.Check() == nil {
			t.Errorf("%+v", app)
		}
	}
	if err := (&signin.Application{ID: "x", Auth: "https://example.org/a", Token: "https://example.org/t"}).Check(); err != nil {
		t.Error(err)
	}
}
