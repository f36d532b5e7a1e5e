package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/internal/provider"
	"mailstow/internal/signin"
	"mailstow/mailbox"
)

// The ways to log in with an access token that mailstow gets by itself: a person
// signs in once, an application may read all mail, or a service account may.
const (
	byPerson  = "oauth2"
	byApp     = "oauth2-app"
	byService = "google-service-account"
)

var signIns = []string{byPerson, byApp, byService}

// signsIn has an account log in with access tokens.
func (p *program) signsIn(a *account, set config.Account) error {
	how := a.method
	a.method, a.changing = "oauth2", true // the best way with a token that the server offers
	if how == byService {
		return p.asService(a, set)
	}
	app, secret, err := p.application(a, set, how)
	if err != nil {
		return err
	}
	if how == byApp {
		a.tokens = keptInMemory(func(ctx context.Context) (_ *signin.Grant, err error) {
			app := app
			if app.Secret, err = secret(ctx); err != nil {
				return nil, err
			}
			return app.AppOnly(ctx)
		})
	} else {
		a.signIn = func() *signin.Tokens {
			t := p.tokens(a.name)
			t.App, t.Secret, t.Server = app, secret, a.server()
			return t
		}
		a.tokens = func(ctx context.Context, used credential.Secret) (credential.Secret, error) {
			return a.signIn().Token(ctx, used)
		}
	}
	p.useTokens(a)
	return nil
}

// tokens is what is kept of the sign-in of an account.
func (p *program) tokens(account string) *signin.Tokens {
	return &signin.Tokens{Name: grantName(account), Store: p.store(), Locks: p.stateDir("locks")}
}

// useTokens has an account log in with what its tokens give.
func (p *program) useTokens(a *account) {
	tokens := a.tokens
	a.tokens = func(ctx context.Context, used credential.Secret) (credential.Secret, error) {
		s, err := tokens(ctx, used)
		return s, a.signInFailed(err)
	}
	a.password = func(ctx context.Context) (credential.Secret, error) { return a.tokens(ctx, credential.Secret{}) }
}

// application returns the application that an account is read by, without its
// secret, and where that is from.
func (p *program) application(a *account, set config.Account, how string) (app signin.Application, secret func(context.Context) (credential.Secret, error), err error) {
	known := &provider.SignIn{}
	if a.provider != nil && a.provider.SignIn != nil {
		known = a.provider.SignIn
	}
	o := set.OAuth2.Or(set.Applications[known.Kind])
	tenant := strings.NewReplacer("{tenant}", first(o.Tenant, "common"))
	app = signin.Application{
		ID: o.ClientID, Auth: first(o.AuthURL, tenant.Replace(known.Auth)), Token: first(o.TokenURL, tenant.Replace(known.Token)), Device: first(o.DeviceURL, tenant.Replace(known.Device)),
		Scopes: o.Scopes, Extra: known.Extra, Address: first(a.address, a.user),
	}
	if app.Scopes == nil {
		app.Scopes = known.IMAPScopes
		if a.protocol == mailbox.POP3 {
			app.Scopes = known.POP3Scopes
		}
		if how == byApp {
			app.Scopes = known.AppScopes
		}
	}
	table := "[oauth2." + known.Kind + "]"
	if known.Kind == "" {
		table = "[accounts." + first(set.Name, "NAME") + ".oauth2]"
	}
	switch {
	case app.Token == "" || app.Auth == "" && how == byPerson:
		return app, nil, configFailed("it is not known where one signs in for "+a.host, "give auth_url, token_url and scopes in "+table+", or a provider; mailstow providers lists them")
	case app.ID == "":
		return app, nil, configFailed("OAuth2 needs a client ID of your own", "client_id = \"...\" in "+table+"; man mailstow-oauth2 says how to get one")
	}
	if err := app.Check(); err != nil {
		return app, nil, configFailed("OAuth2: "+err.Error(), "")
	}
	return app, func(ctx context.Context) (credential.Secret, error) {
		if o.Command != nil {
			return commandSecret(credential.FromCommand(ctx, "client secret command", o.Command))
		}
		return o.ClientSecret, nil
	}, nil
}

// asService has an account log in as a service account of Google, which may read
// the mail of a whole domain.
func (p *program) asService(a *account, set config.Account) error {
	known := provider.Named("gmail").SignIn
	o := set.OAuth2.Or(set.Applications[known.Kind])
	if o.KeyFile == "" {
		return configFailed("a service account needs its key", `key_file = "FILE.json" in [oauth2.google]`)
	}
	scopes := o.Scopes
	if scopes == nil {
		scopes = known.IMAPScopes
	}
	a.tokens = keptInMemory(func(ctx context.Context) (*signin.Grant, error) {
		f, err := os.Open(o.KeyFile)
		if err != nil {
			return nil, configFailed("the key of the service account cannot be read: "+err.Error(), "")
		}
		defer f.Close()
		if err := credential.Private(f); err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(f, 1<<20))
		if err != nil {
			return nil, err
		}
		return signin.ServiceAccount(ctx, credential.NewSecret(string(b)), first(a.address, a.user), scopes)
	})
	p.useTokens(a)
	return nil
}

// keptInMemory returns access tokens that cost nobody a sign-in, each as long as it
// is good.
func keptInMemory(get func(context.Context) (*signin.Grant, error)) func(context.Context, credential.Secret) (credential.Secret, error) {
	var mu sync.Mutex
	var kept *signin.Grant
	return func(ctx context.Context, used credential.Secret) (credential.Secret, error) {
		mu.Lock()
		defer mu.Unlock()
		if kept == nil || !kept.Good(time.Now()) || kept.Access == used.Reveal() {
			g, err := get(ctx)
			if err != nil {
				return credential.Secret{}, err
			}
			kept = g
		}
		return credential.NewSecret(kept.Access), nil
	}
}

// store is where secrets of this user are kept.
func (p *program) store() credential.Store {
	return credential.Store{Keyring: credential.HasKeyring(p.Getenv), Dir: p.stateDir("secrets")}
}

// reasons are what Microsoft's codes mean.
var reasons = []struct{ code, why string }{
	{"AADSTS700082", "nobody has used it for 90 days."},
	{"AADSTS70043", "your organisation has people sign in again after some time."},
	{"AADSTS50173", "the password was changed."},
	{"AADSTS50076", "your organisation wants a second factor."},
	{"AADSTS53003", "a policy of your organisation does not let this program in."},
	{"AADSTS65001", "those who run your organisation have not agreed to this program."},
	{"AADSTS7000218", "the application is not allowed to be one without a secret: switch on \"Allow public client flows\"."},
	{"AADSTS700025", "the application has no secret: leave out client_secret."},
	{"AADSTS7000215", "the client secret is wrong; what is needed is its value, not its ID."},
	{"AADSTS7000222", "the client secret has expired."},
	{"AADSTS700016", "the application is not known in this tenant."},
	{"AADSTS50059", "the tenant is missing: tenant = \"...\"."},
}

// signInFailed makes problems of errors of a sign-in.
func (a *account) signInFailed(err error) error {
	var ended *signin.EndedError
	var refused *signin.RefusedError
	pr := problem{status: exitLogin, code: "oauth_expired", do: "mailstow auth login " + a.arg + "      (on a machine without a browser: --flow paste)"}
	switch {
	case err == nil, errors.As(err, new(*problemError)), errors.Is(err, credential.ErrNotPrivate):
		return err
	case errors.As(err, new(*signin.KeepError)):
		pr.what, pr.status, pr.code, pr.do = err.Error(), exitDisk, "not_writable", "make room, or see that it can be written; the sign-in was not renewed, so that it is not lost"
	case errors.Is(err, signin.ErrNeverGiven):
		pr.what, pr.code = "nobody has signed in for this account yet", "oauth_consent"
	case errors.Is(err, signin.ErrOtherApplication):
		pr.what, pr.code = "the sign-in that is kept was for another application than client_id, or with another sign-in server", "oauth_consent"
	case errors.As(err, new(*credential.ElsewhereError)):
		return a.keptElsewhere(err)
	case errors.As(err, new(*signin.KeptError)):
		pr.what = err.Error()
	case errors.As(err, &ended):
		pr.what, pr.server = "the sign-in has ended and must be done again in a browser", ended.Error()
		if ended.Code == "access_denied" {
			pr.what, pr.code = "mailstow was not let in", "oauth_consent"
		}
	case errors.As(err, &refused):
		pr.what, pr.server, pr.code, pr.do = "the sign-in server does not accept mailstow's application", refused.Error(), "oauth_consent", "look at client_id, client_secret and tenant in the config file; man mailstow-oauth2 says what they have to be"
	default:
		return &serverError{fmt.Errorf("the sign-in server cannot be asked: %w", err)}
	}
	if i := slices.IndexFunc(reasons, func(r struct{ code, why string }) bool { return strings.Contains(pr.server, r.code+":") }); i >= 0 {
		pr.why = reasons[i].why
	}
	return &problemError{pr, err}
}
