package netconn

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// ProxyFor returns the SOCKS5 proxy by which the environment wants a server to be
// reached (ALL_PROXY, NO_PROXY); nil for none. Proxies of other kinds are for the
// web, and do not count. This machine is reached without.
func ProxyFor(getenv func(string) string, addr string) (*url.URL, error) {
	either := func(name, other string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return getenv(other)
	}
	all := either("ALL_PROXY", "all_proxy")
	if !strings.HasPrefix(strings.ToLower(all), "socks") {
		return nil, nil
	}
	c := httpproxy.Config{HTTPSProxy: "socks5://any", NoProxy: either("NO_PROXY", "no_proxy")}
	if there, err := c.ProxyFunc()(&url.URL{Scheme: "https", Host: addr}); there == nil || err != nil {
		return nil, err
	}
	u, err := url.Parse(all)
	if err != nil || u.Host == "" || !slices.Contains([]string{"socks", "socks5", "socks5h"}, u.Scheme) {
		return nil, errors.New("ALL_PROXY is no address of a SOCKS5 proxy") // which may have a password in it
	}
	return &url.URL{Scheme: "socks5", User: u.User, Host: u.Host}, nil
}

// dial connects to the server, over the proxy if there is one: that looks its name
// up, too.
func (e Endpoint) dial(ctx context.Context, network string) (net.Conn, error) {
	direct := new(net.Dialer)
	if e.Proxy == nil {
		return direct.DialContext(ctx, network, e.Addr)
	}
	d, err := proxy.FromURL(e.Proxy, direct)
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, "tcp", e.Addr)
}
