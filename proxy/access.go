package proxy

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/accesslog"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// This file is the access log: one line for each exchange, and for each opaque connection when it ends. Without a log an
// exchange pays for a load and a comparison.

// accessLog is the log in force.
type accessLog struct {
	format   *accesslog.Format
	file     *accesslog.File
	instance string // whose lines these are
}

// Streams are what /dev/stdout and /dev/stderr mean in a configuration; those of the process where nil.
type Streams struct{ Stdout, Stderr io.Writer }

// opened makes the log of a snapshot, nil where it has none. The file goes on where it stays the same; fresh says that it does not.
func (p *Proxy) opened(s *model.AccessLog, instance string) (l *accessLog, fresh bool, err error) {
	if s == nil || s.File == "" {
		return nil, false, nil
	}
	l = &accessLog{format: formatOf(s), instance: instance}
	if old := p.access.Load(); old != nil && old.file.Path() == s.File {
		l.file = old.file
		return l, false, nil
	}
	l.file, err = accesslog.Open(s.File, accesslog.Options{Stdout: p.streams.Stdout, Stderr: p.streams.Stderr, Counts: &p.lines, Log: p.log})
	if err != nil {
		return nil, false, err
	}
	return l, true, nil
}

// formatOf compiles a format; what has no meaning in it was told to who wrote it, and stays as it is written.
func formatOf(s *model.AccessLog) (f *accesslog.Format) {
	if s.Encoding == "JSON" {
		f, _ = accesslog.ParseJSON(s.Format)
	} else {
		f, _ = accesslog.ParseText(s.Format)
	}
	return f
}

// logTo puts a log in force, and ends that before it.
func (p *Proxy) logTo(l *accessLog) {
	old := p.access.Swap(l)
	if old != nil && (l == nil || l.file != old.file) {
		old.file.Close()
	}
}

// line writes the exchange's line. A log that is replaced meanwhile leaves it to the next one.
func (x *exchange) line() {
	p := x.conn.proxy
	for l := p.access.Load(); l != nil; {
		r := accesslog.Record{Host: l.instance}
		x.describe(&r)
		x.text = l.format.Append(x.text[:0], &r)
		if l.file.Write(x.text) {
			return
		}
		next := p.access.Load()
		if next == l {
			return // the proxy ends
		}
		l = next
	}
}

// describe tells a line what there is to tell.
func (x *exchange) describe(r *accesslog.Record) {
	c, e := x.conn, &endings[x.outcome]
	r.Duration = time.Duration(now() - x.begin)
	r.Start = time.Now().Add(-r.Duration)
	r.Status, r.GRPCStatus = x.status, -1
	if x.grpc {
		if r.GRPCStatus = x.grpcStatus; r.GRPCStatus < 0 && x.status != 0 {
			r.GRPCStatus = telemetry.GRPCOf(x.status)
		}
	}
	x.spare = (e.flags | x.flags).AppendTo(x.spare[:0])
	r.Flags = x.spare
	if x.outcome > configured {
		r.Reason = e.name
	}
	if len(x.req.Method()) > 0 && !x.unread {
		r.Request, r.Path = &x.req, x.original
	}
	if len(x.req.Method()) > 0 || x.unread {
		r.Protocol = protocolOf(x.req.Version)
		switch {
		case x.outcome == configured:
			r.Details = "direct_response"
		case x.outcome != passed:
			r.Details = e.name
		case x.status != 0:
			r.Details = "via_upstream"
		}
	}
	if x.status != 0 {
		r.Response, r.Trailers = &x.res.Head, &x.trailers
	}
	r.ReceivedHeads, r.SentHeads = x.headReceived, min(x.headSent, x.sent)
	r.Received, r.Sent = max(0, x.received-x.headReceived), max(0, x.sent-x.headSent)
	r.Attempts, r.TransportFailure = x.tries, x.distrust
	if x.rule != nil {
		r.Route = x.rule.name
	}
	if t := x.target; t != nil && t.cluster != nil {
		r.Cluster = t.cluster.Spec.Name
	}
	if x.member != nil {
		r.UpstreamHost = x.member.Address()
	}
	r.Upstream, r.UpstreamLocal = x.there, x.here
	r.Remote, r.Local = c.remote, addrPort(c.link.Conn().LocalAddr())
	r.ServerName = c.asked
}

func protocolOf(v message.Version) string {
	switch v {
	case message.HTTP10:
		return "HTTP/1.0"
	case message.HTTP2:
		return "HTTP/2"
	}
	return "HTTP/1.1"
}

// locate notes between which addresses the attempt's connection is.
func (x *exchange) locate() {
	if x.conn.proxy.access.Load() == nil {
		return
	}
	l := (*link.Link)(nil)
	if x.up != nil {
		l = &x.up.Link
	} else {
		l = x.shared.Link()
	}
	x.there, x.here = addrPort(l.Conn().RemoteAddr()), addrPort(l.Conn().LocalAddr())
}

// remember keeps the path as it was before a rewrite.
func (x *exchange) remember() {
	if x.rule.rewrite != nil && x.conn.proxy.access.Load() != nil {
		x.original = append(append(x.original[:0], x.req.Path()...), x.req.Query()...)
	}
}

// named notes the server name that a client of TLS asked for.
func (c *conn) named(name string) {
	if c.proxy.access.Load() != nil {
		c.asked = strings.Clone(name) // of its own: the handshake's memory goes
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// routeName is what a rule is called in logs, in Istio's words: a VirtualService's rule by its name, if it has one; a route of
// the Gateway API by namespace, name and place; "allow_any" and "block_all" for hosts that the mesh does not know; else "default".
func routeName(r *model.Rule) string {
	o := &r.Origin
	list, index, indexed := strings.Cut(o.Rule, "[")
	indexed = indexed && strings.HasSuffix(index, "]")
	switch {
	case o.Kind == "VirtualService" && indexed && (list == "http" || list == "tcp" || list == "tls"):
		return ""
	case o.Kind == "VirtualService":
		return o.Rule
	case strings.HasSuffix(o.Kind, "Route"):
		if indexed {
			return o.Namespace + "." + o.Name + "." + strings.TrimSuffix(index, "]")
		}
		return strings.TrimSuffix(o.Namespace+"."+o.Name+"."+o.Rule, ".")
	case o.Rule == "allow_any" || o.Rule == "block_all":
		return o.Rule
	}
	return "default"
}

var descLines = prometheus.NewDesc("outrider_access_log_lines_total",
	"Lines of the access log: written; dropped, as the file was too slow; failed, as it could not be written.", []string{"result"}, nil)

// collectLines is Collect for them, where there is or was a log.
func (p *Proxy) collectLines(counter func(d *prometheus.Desc, v uint64, l ...string)) {
	written, dropped, failed := p.lines.Written.Load(), p.lines.Dropped.Load(), p.lines.Failed.Load()
	if p.access.Load() == nil && written+dropped+failed == 0 {
		return
	}
	counter(descLines, written, "written")
	counter(descLines, dropped, "dropped")
	counter(descLines, failed, "failed")
}
