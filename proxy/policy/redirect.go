package policy

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// Redirect answers with a Location made of the request and replacements.
type Redirect struct {
	status int
	scheme string
	host   string
	port   int
	from   string
	path   *path
	// query says that the new path has a query or fragment of its own, which takes the place of the request's (Envoy).
	query bool
}

// NewRedirect compiles d; nil gives nil. It fails on a status that is no redirect, on characters that no Location can
// hold, and where a path cannot be compiled (NewRewrite).
func NewRedirect(d *model.Redirect) (*Redirect, error) {
	if d == nil {
		return nil, nil
	}
	switch d.Status {
	case 301, 302, 303, 307, 308:
	default:
		return nil, fmt.Errorf("cannot redirect with status %d: must be 301, 302, 303, 307 or 308", d.Status)
	}
	if !isClean(d.Scheme) || !isClean(d.Host) {
		return nil, fmt.Errorf("cannot redirect to %q: it has a space or control character", d.Scheme+"://"+d.Host)
	}
	if d.Port < 0 || d.Port > 65535 {
		return nil, fmt.Errorf("cannot redirect to port %d: must be 1 to 65535", d.Port)
	}
	switch d.PortFrom {
	case "", "request", "scheme":
	default:
		return nil, fmt.Errorf("cannot redirect with the port of %q: must be request, scheme or nothing", d.PortFrom)
	}
	p, err := newPath(d.Path)
	if err != nil {
		return nil, err
	}
	out := &Redirect{
		status: d.Status, scheme: strings.ToLower(d.Scheme), host: d.Host, port: d.Port, from: d.PortFrom, path: p,
		query: d.Path != nil && strings.ContainsAny(d.Path.Full, "?#"),
	}
	if strings.Contains(d.Host, ":") && d.Host[0] != '[' {
		out.host = "[" + d.Host + "]" // an IPv6 literal
	}
	return out, nil
}

// Status returns the status of the answer.
func (d *Redirect) Status() int { return d.status }

// AppendLocation appends the Location of r to dst: scheme://host[:port]/path?query, the query verbatim. Where neither
// the request nor the rule names a host it is the path alone. listenerPort is the port that the configuration speaks
// of; prefix and segments are what the match covered (route.Match).
func (d *Redirect) AppendLocation(dst []byte, r *message.Request, listenerPort int, prefix int, segments bool, s *Scratch) []byte {
	start := len(dst)
	dst = d.appendOrigin(dst, r, listenerPort)
	old := r.Path()
	out, changed := d.path.rewrite(s.path[:0], old, prefix, segments)
	s.path = out
	switch {
	case changed:
		dst = append(dst, out...)
	case len(old) == 0 || old[0] != '/':
		dst = append(dst, '/')
	case len(dst) == start:
		dst = trim(append(dst, old...), start) // with no host before it, "//name" would be one
	default:
		dst = append(dst, old...)
	}
	if d.query {
		return dst
	}
	return append(dst, r.Query()...)
}

// appendOrigin appends scheme, host and port, or nothing where there is no host.
func (d *Redirect) appendOrigin(dst []byte, r *message.Request, listenerPort int) []byte {
	host, own, _ := message.SplitAuthority(r.Authority())
	if len(d.host)+len(host) == 0 {
		return dst
	}
	old := "http" // of a request that names no scheme
	if string(r.Scheme()) == "https" {
		old = "https"
	}
	scheme := old
	if d.scheme != "" {
		scheme = d.scheme
	}
	dst = append(append(dst, scheme...), "://"...)
	if d.host != "" {
		dst = append(dst, d.host...)
	} else {
		dst = append(dst, host...)
	}
	if port := d.portOf(own, listenerPort, old); port != 0 && port != portOf(scheme) {
		dst = strconv.AppendInt(append(dst, ':'), int64(port), 10)
	}
	return dst
}

// portOf returns the Location's port, 0 for the scheme's own. own is the port of the request's authority, old its scheme.
func (d *Redirect) portOf(own, listenerPort int, old string) int {
	switch {
	case d.port != 0:
		return d.port
	case d.from == "request":
		port := cmp.Or(own, listenerPort)
		if d.scheme == "" && port == portOf("http") {
			return 0 // whatever TLS ended before us, it is not spoken there (Istio)
		}
		return port
	case d.from == "scheme" || d.host != "":
		return 0
	case own == portOf(old):
		// Envoy keeps the port across a change of scheme, but for the old scheme's own.
		return 0
	}
	return own
}

func portOf(scheme string) int {
	switch scheme {
	case "http":
		return 80
	case "https":
		return 443
	}
	return 0
}
