package netconn

import (
	"context"
	"errors"
	"net"
	"net/url"
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
	if !strings.HasPrefix(all, "socks") {
		return nil, nil
	}
	if u, err := url.Parse(all); err != nil || u.Host == "" || u.Scheme != "socks5" && u.Scheme != "socks5h" {
		return nil, errors.New("ALL_PROXY is no address of a SOCKS5 proxy") // which may have a password in it
	}
	c := httpproxy.Config{HTTPSProxy: all, NoProxy: either("NO_PROXY", "no_proxy")}
	return c.ProxyFunc()(&url.URL{Scheme: "https", Host: addr})
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
