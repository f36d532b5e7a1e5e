package cli

import (
	"errors"
	"fmt"
	"strings"

	"mailstow/internal/credential"
)

// understood says what a refused login means where that is known: of this
// provider, or of where the password is from.
func (a *account) understood(err error) error {
	var refused *credential.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	pr := problem{server: refused.Answer, status: exitLogin, code: "auth_failed"}
	if a.provider != nil {
		if r := a.provider.Refused(refused.Answer); r != nil {
			pr.what, pr.why, pr.do, pr.code = r.What, r.Why, strings.ReplaceAll(r.Do, "{account}", a.name), first(r.Code, pr.code)
			return &problemError{pr, err}
		}
	}
	pr.what = fmt.Sprintf("login refused by %s for user %q", refused.Server, refused.User)
	pr.do = "check the user name and the password"
	if a.from != "" {
		pr.do = "check what " + a.from + " gives"
	}
	switch {
	case !strings.Contains(refused.User, "@") && strings.Contains(a.address, "@"):
		pr.do += fmt.Sprintf("; some servers want the whole address: user = %q", a.address)
	case !strings.Contains(refused.User, "@"):
		pr.do += "; some servers want the whole address as the name"
	default:
		pr.do += "; some servers want a password made for this program, or the name without its domain"
	}
	return &problemError{pr, err}
}
