package mailtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// SignIn is where people let programs read their mail (OAuth2): everybody agrees
// at once.
type SignIn struct {
	URL string

	// Lifetime is how long an access token is good; an hour if it is zero.
	Lifetime time.Duration

	mu       sync.Mutex
	codes    map[string]url.Values // of sign-ins that have begun
	refresh  map[string]string     // good refresh tokens, and whose they are
	access   map[string]grantee
	devices  map[string]int // how often a device has asked
	renewals int
	refusal  [2]string // an error, and its description, that answers each question for a token
	denied   bool
}

type grantee struct {
	user    string
	expires time.Time
}

// NewSignIn starts one, which runs until the test ends.
func NewSignIn(t testing.TB) *SignIn {
	s := &SignIn{codes: map[string]url.Values{}, refresh: map[string]string{}, access: map[string]grantee{}, devices: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/auth", s.auth)
	mux.HandleFunc("/token", s.token)
	mux.HandleFunc("/device", s.device)
	mux.HandleFunc("/introspect", s.introspect)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

func random() string {
	var b [18]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Deny has the person say no from now on.
func (s *SignIn) Deny() { s.mu.Lock(); s.denied = true; s.mu.Unlock() }

// Refuse answers each question for a token with an error; "" answers again. {sent}
// in the description becomes what was sent.
func (s *SignIn) Refuse(code, description string) {
	s.mu.Lock()
	s.refusal = [2]string{code, description}
	s.mu.Unlock()
}

// Expire ends all access tokens, also those that should last.
func (s *SignIn) Expire() {
	s.mu.Lock()
	clear(s.access)
	s.mu.Unlock()
}

// Renewals is how often an access token was got with a refresh token.
func (s *SignIn) Renewals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewals
}

// Whose returns whose mail an access token opens, "" for none.
func (s *SignIn) Whose(token string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.access[token]; time.Now().Before(g.expires) {
		return g.user
	}
	return ""
}

func (s *SignIn) auth(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	to, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") == "" || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("state") == "" {
		http.Error(w, "what is this?", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := url.Values{"state": {q.Get("state")}}
	if s.denied {
		answer.Set("error", "access_denied")
		answer.Set("error_description", "The user said no.")
	} else {
		code := random()
		s.codes[code] = q
		answer.Set("code", code)
	}
	to.RawQuery = answer.Encode()
	http.Redirect(w, r, to.String(), http.StatusFound)
}

func (s *SignIn) device(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code := random()
	s.devices[code] = 0
	reply(w, http.StatusOK, map[string]any{"device_code": code, "user_code": "ABCD-1234", "verification_uri": s.URL + "/go", "expires_in": 60, "interval": 1})
}

// token answers the questions of RFC 6749, RFC 7636, RFC 8628 and RFC 7523.
func (s *SignIn) token(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	f := r.PostForm
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusal[0] != "" {
		refuse(w, s.refusal[0], strings.ReplaceAll(s.refusal[1], "{sent}", f.Encode()))
		return
	}
	user, refresh := "alice", random()
	switch f.Get("grant_type") {
	case "authorization_code":
		q, ok := s.codes[f.Get("code")]
		delete(s.codes, f.Get("code"))
		sum := sha256.Sum256([]byte(f.Get("code_verifier")))
		if !ok || q.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || q.Get("redirect_uri") != f.Get("redirect_uri") || q.Get("client_id") != f.Get("client_id") {
			refuse(w, "invalid_grant", "the code is not good")
			return
		}
		user = strings.Split(q.Get("login_hint"), "@")[0]
	case "refresh_token":
		owner, ok := s.refresh[f.Get("refresh_token")]
		delete(s.refresh, f.Get("refresh_token")) // each is good once
		if !ok {
			refuse(w, "invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.\r\nTrace ID: 1")
			return
		}
		user = owner
		s.renewals++
	case "urn:ietf:params:oauth:grant-type:device_code":
		if s.devices[f.Get("device_code")]++; s.devices[f.Get("device_code")] < 2 {
			refuse(w, "authorization_pending", "")
			return
		}
	case "client_credentials":
		if f.Get("client_secret") != "app secret" {
			refuse(w, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
			return
		}
		refresh = ""
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		part := strings.Split(f.Get("assertion"), ".")
		var claims struct{ Sub, Scope string }
		if b, err := base64.RawURLEncoding.DecodeString(part[min(1, len(part)-1)]); err != nil || json.Unmarshal(b, &claims) != nil || claims.Sub == "" {
			refuse(w, "invalid_grant", "no assertion")
			return
		}
		user, refresh = strings.Split(claims.Sub, "@")[0], ""
	default:
		refuse(w, "unsupported_grant_type", "")
		return
	}
	lifetime := s.Lifetime
	if lifetime == 0 {
		lifetime = time.Hour
	}
	access := random()
	s.access[access] = grantee{user, time.Now().Add(lifetime)}
	answer := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(lifetime.Seconds())}
	if refresh != "" {
		s.refresh[refresh] = user
		answer["refresh_token"] = refresh
	}
	reply(w, http.StatusOK, answer)
}

// introspect tells a mail server whose a token is (RFC 7662).
func (s *SignIn) introspect(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	user := s.Whose(r.Form.Get("token"))
	reply(w, http.StatusOK, map[string]any{"active": user != "", "username": user})
}

func refuse(w http.ResponseWriter, code, description string) {
	reply(w, http.StatusBadRequest, map[string]any{"error": code, "error_description": description})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
