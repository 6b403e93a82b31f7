package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/route"
	"github.com/outrider-mesh/outrider/wire/message"
)

// CORS answers preflights and marks answers as Envoy does: an allowed origin is echoed, and "*" for all methods or all
// headers echoes what the preflight asks for. Among others "*" stays as it is: to browsers that send credentials it is a
// name like any other.
type CORS struct {
	any     bool // every origin is allowed
	origins []route.Text

	methods, headers, expose, maxAge []byte
	anyMethod, anyHeader             bool
	credentials, refuse              bool
}

// Names of the fields of the Fetch standard.
const (
	requestMethod    = "access-control-request-method"
	requestHeaders   = "access-control-request-headers"
	allowOrigin      = "access-control-allow-origin"
	allowCredentials = "access-control-allow-credentials"
	allowMethods     = "access-control-allow-methods"
	allowHeaders     = "access-control-allow-headers"
	exposeHeaders    = "access-control-expose-headers"
	maxAge           = "access-control-max-age"
)

// NewCORS compiles c; nil gives nil. It fails on a bad comparison of origins and on names that no field can hold.
func NewCORS(c *model.CORS) (*CORS, error) {
	if c == nil {
		return nil, nil
	}
	out := &CORS{
		credentials: c.AllowCredentials, refuse: c.RefuseUnmatched,
		anyMethod: slices.Equal(c.AllowMethods, []string{"*"}), anyHeader: slices.Equal(c.AllowHeaders, []string{"*"}),
		methods: []byte(strings.Join(c.AllowMethods, ",")), headers: []byte(strings.Join(c.AllowHeaders, ",")),
		expose: []byte(strings.Join(c.ExposeHeaders, ",")),
	}
	for _, names := range [][]string{c.AllowMethods, c.AllowHeaders, c.ExposeHeaders} {
		for _, name := range names {
			if !isToken(name) {
				return nil, fmt.Errorf("cannot allow %q by CORS: it is neither a method nor a header name", name)
			}
		}
	}
	for _, o := range c.AllowOrigins {
		if o.Kind == model.Exact && o.Value == "*" {
			out.any = true
			continue
		}
		t, err := route.NewText(o)
		if err != nil {
			return nil, fmt.Errorf("cannot allow an origin: %w", err)
		}
		out.origins = append(out.origins, t)
	}
	if c.MaxAge != nil {
		out.maxAge = strconv.AppendInt(nil, int64(c.MaxAge.Std()/time.Second), 10)
	}
	return out, nil
}

func (c *CORS) allows(origin []byte) bool {
	if c.any {
		return true
	}
	for i := range c.origins {
		if c.origins[i].Match(origin) {
			return true
		}
	}
	return false
}

// Preflight says whether r is a preflight to be answered here, and then makes resp, which must be empty, that answer:
// status 200 and no body. A preflight of an origin that is not allowed goes on, unless RefuseUnmatched: then its answer
// has no CORS fields.
func (c *CORS) Preflight(r *message.Request, resp *message.Response) bool {
	if c == nil || string(r.Method()) != "OPTIONS" {
		return false
	}
	origin, _ := r.Get(message.Origin)
	method, _ := r.Lookup(requestMethod)
	if len(origin) == 0 || len(method) == 0 {
		return false
	}
	allowed := c.allows(origin)
	if !allowed && !c.refuse {
		return false
	}
	resp.Status, resp.BodyLength = 200, message.NoBody
	if !allowed {
		return true
	}
	c.mark(origin, resp)
	if c.anyMethod {
		put(resp, allowMethods, method)
	} else {
		put(resp, allowMethods, c.methods)
	}
	if c.anyHeader {
		headers, _ := r.Lookup(requestHeaders)
		put(resp, allowHeaders, headers)
	} else {
		put(resp, allowHeaders, c.headers)
	}
	put(resp, maxAge, c.maxAge)
	put(resp, exposeHeaders, c.expose) // browsers ask the answer itself for it; Envoy gives it here as well
	return true
}

// Mark adds the CORS fields to the answer to a request of that origin, in the place of any that the application gave.
// origin is the request's field Origin as received; nothing where it has none, and then nothing is added.
func (c *CORS) Mark(origin []byte, resp *message.Response) {
	if c == nil || len(origin) == 0 || !c.allows(origin) {
		return
	}
	c.mark(origin, resp)
	put(resp, exposeHeaders, c.expose)
}

var yes = []byte("true")

func (c *CORS) mark(origin []byte, resp *message.Response) {
	put(resp, allowOrigin, origin)
	if c.credentials {
		put(resp, allowCredentials, yes)
	}
}

func put(resp *message.Response, name string, value []byte) {
	if len(value) > 0 {
		resp.SetBytes(message.IdentifyString(name), name, value)
	}
}
