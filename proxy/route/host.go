package route

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/outrider-mesh/outrider/wire/message"
)

// directory finds the virtual host of an authority.
type directory struct {
	exact    map[string]*claims
	wildcard map[string]*claims // by suffix without "*.", "" for "*"
}

// claims are the hosts that own one name, each at its port.
type claims struct {
	everywhere *index // port 0
	at         []claim
}

type claim struct {
	port int
	to   *index
}

func newDirectory() directory {
	return directory{exact: map[string]*claims{}, wildcard: map[string]*claims{}}
}

// add gives domain at port to x, unless an earlier one has it.
func (d *directory) add(domain string, port int, x *index) error {
	names, name := d.exact, unbracket(strings.ToLower(domain))
	switch {
	case domain == "":
		return fmt.Errorf("a domain is empty")
	case domain == "*":
		names, name = d.wildcard, ""
	case strings.HasPrefix(domain, "*.") && len(domain) > 2 && !strings.Contains(domain[2:], "*"):
		names, name = d.wildcard, name[2:]
	case strings.Contains(domain, "*"):
		return fmt.Errorf("domain %q: a wildcard is %q or begins with %q", domain, "*", "*.")
	}
	c := names[name]
	if c == nil {
		c = &claims{}
		names[name] = c
	}
	if port == 0 {
		if c.everywhere == nil {
			c.everywhere = x
		}
		return nil
	}
	if c.find(port) == nil {
		c.at = append(c.at, claim{port, x})
	}
	return nil
}

func (c *claims) find(port int) *index {
	for i := range c.at {
		if c.at[i].port == port {
			return c.at[i].to
		}
	}
	return nil
}

// find looks up name, in lower case, in the order that model.VirtualHost gives; nil where no host has it.
func (d *directory) find(name []byte, port int) *index {
	if c := d.exact[string(name)]; c != nil {
		if x := c.find(port); x != nil {
			return x
		}
		if c.everywhere != nil {
			return c.everywhere
		}
	}
	if len(d.wildcard) == 0 {
		return nil
	}
	// The suffix after each dot, longest first, then "" for "*". "*." stands for one or more labels, so a dot that the
	// name begins with does not count.
	var everywhere *index
	for at := min(1, len(name)); ; {
		if dot := bytes.IndexByte(name[at:], '.'); dot >= 0 {
			at += dot + 1
		} else {
			at = len(name)
		}
		if c := d.wildcard[string(name[at:])]; c != nil {
			if x := c.find(port); x != nil {
				return x
			}
			if everywhere == nil {
				everywhere = c.everywhere
			}
		}
		if at == len(name) {
			return everywhere
		}
	}
}

// split cuts an authority into its host, without the brackets of an IPv6 literal, and its port: port where it names none.
func split(authority []byte, port int) (host []byte, number int) {
	host, number, ok := message.SplitAuthority(authority)
	if number == 0 {
		number = port
	}
	if n := len(host); ok && n > 2 && host[0] == '[' {
		host = host[1 : n-1]
	}
	return host, number
}

func unbracket(s string) string {
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' && strings.Contains(s, ":") {
		return s[1 : len(s)-1]
	}
	return s
}
