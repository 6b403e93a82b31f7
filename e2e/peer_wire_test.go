package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// fields are those of a head, or of trailers, with names in lower case.
type fields [][2]string

func fieldsOf(h http.Header) (out fields) {
	for name, values := range h {
		for _, v := range values {
			out = append(out, [2]string{strings.ToLower(name), v})
		}
	}
	return out
}

func (f fields) get(name string) string {
	for _, one := range f {
		if one[0] == name {
			return one[1]
		}
	}
	return ""
}

// alone are the fields that Envoy keeps one of: what is added it joins to what is there.
var alone = map[string]bool{
	"user-agent": true, "x-forwarded-proto": true, "content-type": true, "access-control-allow-origin": true, "location": true, "vary": true, "access-control-expose-headers": true,
}

// text lists fields by name, but for those that differ by intent and the ones named; the order of those of one name stays.
func (f fields) text(without ...string) string {
	var out []string
	last := ""
	f = slices.Clone(f)
	slices.SortStableFunc(f, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	for _, one := range f {
		name, value := one[0], one[1]
		switch {
		case name == "server", name == "date", name == "x-scenario", strings.HasPrefix(name, "x-envoy-"), strings.HasPrefix(name, "x-outrider-"), slices.Contains(without, name):
		case name == last && alone[name]:
			out[len(out)-1] += "," + value
		default:
			out = append(out, name+"="+value)
		}
		last = name
	}
	return fmt.Sprintf("%q", out)
}

// wireRequest is a request as it goes out, in either version.
type wireRequest struct {
	version           int
	method, target    string
	authority         string
	headers, trailers fields
	body              string
	chunked           bool // without a length
}

// wireAnswer is what comes back.
type wireAnswer struct {
	status            string // or how it failed
	headers, trailers fields
	body              string
	cut               bool
}

// send sends a request on a connection of its own.
func (r *wireRequest) send(address string) wireAnswer {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return wireAnswer{status: err.Error()}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if r.version == 2 {
		return r.send2(c)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method, r.target, r.authority)
	for _, h := range r.headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	switch {
	case r.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		if r.body != "" {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(r.body), r.body)
		}
		b.WriteString("0\r\n")
		for _, h := range r.trailers {
			fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
		}
		b.WriteString("\r\n")
	case r.body != "" || r.method == "POST":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(r.body), r.body)
	default:
		b.WriteString("\r\n")
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		return wireAnswer{status: "cannot write"}
	}
	for in := bufio.NewReader(c); ; {
		res, err := http.ReadResponse(in, &http.Request{Method: r.method})
		if err != nil {
			return wireAnswer{status: "no answer"}
		}
		if res.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(res.Body)
		a := wireAnswer{status: fmt.Sprint(res.StatusCode), headers: fieldsOf(res.Header), body: string(body), trailers: fieldsOf(res.Trailer), cut: err != nil}
		if len(res.TransferEncoding) > 0 {
			a.headers = append(a.headers, [2]string{"transfer-encoding", "chunked"})
		}
		return a
	}
}

func (r *wireRequest) send2(c net.Conn) (a wireAnswer) {
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	head := func(all fields, end bool) {
		block.Reset()
		for _, f := range all {
			_ = enc.WriteField(hpack.HeaderField{Name: strings.ToLower(f[0]), Value: f[1]})
		}
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: end, EndHeaders: true})
	}
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = fr.WriteSettings()
	all := append(fields{{":method", r.method}, {":scheme", "http"}, {":path", r.target}, {":authority", r.authority}}, r.headers...)
	if r.body != "" && !r.chunked {
		all = append(all, [2]string{"content-length", fmt.Sprint(len(r.body))})
	}
	bare := r.body == "" && !r.chunked
	head(all, bare)
	if !bare {
		_ = fr.WriteData(1, len(r.trailers) == 0, []byte(r.body))
	}
	if len(r.trailers) > 0 {
		head(r.trailers, true)
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return wireAnswer{status: "no answer"}
		}
		end := false
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = fr.WriteSettingsAck()
			}
		case *http2.RSTStreamFrame:
			a.cut = true
			return a
		case *http2.MetaHeadersFrame:
			if strings.HasPrefix(f.PseudoValue("status"), "1") {
				continue
			}
			for _, h := range f.RegularFields() {
				if a.status == "" {
					a.headers = append(a.headers, [2]string{h.Name, h.Value})
				} else {
					a.trailers = append(a.trailers, [2]string{h.Name, h.Value})
				}
			}
			if a.status == "" {
				a.status = f.PseudoValue("status")
			}
			end = f.StreamEnded()
		case *http2.DataFrame:
			a.body += string(f.Data())
			end = f.StreamEnded()
		}
		if end {
			return a
		}
	}
}
