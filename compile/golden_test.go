package compile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// TestTranscripts compiles each testdata/*.txt and compares what its questions answer. A file is a sequence of sections
// "-- header --". A header with a file name (x.yaml) begins an input file; any other is a question, and the section its answer:
//
//	findings                      what New says
//	templates, gateways, services
//	for NAMESPACE/WORKLOAD[/INSTANCE] [TEXT...]       the outbound side of its first instance; only virtual hosts whose name has a TEXT
//	inbound NAMESPACE/WORKLOAD
//	gateway NAMESPACE/NAME
//	limits NAMESPACE/WORKLOAD, gateway-limits NAMESPACE/NAME    which rate limits hold where
//	breakers NAMESPACE/WORKLOAD, gateway-breakers NAMESPACE/NAME    what stands before which cluster
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sections := sectionsOf(string(text))
			var objects []*config.Object
			for _, s := range sections {
				if !s.input() {
					continue
				}
				f := config.Decode(s.header, []byte(withMaterial(t, s.body)))
				for _, finding := range f.Findings {
					if finding.Severity == config.Error {
						t.Errorf("input: %s", finding)
					}
				}
				objects = append(objects, f.Objects...)
			}
			m, findings := New(objects, Options{})
			p := place(m)
			var out strings.Builder
			for _, s := range sections {
				got := s.body
				if s.header != "" && !s.input() {
					got = answer(t, m, p, findings, s.header)
					if got != s.body && !*update {
						t.Errorf("%s\n--- got\n%s--- want\n%s", s.header, got, s.body)
					}
				}
				if s.header != "" {
					fmt.Fprintf(&out, "-- %s --\n", s.header)
				}
				out.WriteString(got)
			}
			if *update {
				if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// section is a part of a transcript; the first has no header and is a comment.
type section struct{ header, body string }

func (s section) input() bool { return strings.HasSuffix(s.header, ".yaml") }

func sectionsOf(text string) []section {
	out := []section{{}}
	for _, line := range strings.SplitAfter(text, "\n") {
		if h, ok := strings.CutPrefix(line, "-- "); ok {
			if h, ok := strings.CutSuffix(strings.TrimRight(h, "\n"), " --"); ok {
				out = append(out, section{header: h})
				continue
			}
		}
		out[len(out)-1].body += line
	}
	return out
}

// place gives every instance an address, as the mesh on one machine does.
func place(m *Mesh) *Placement {
	p := &Placement{}
	n := 0
	add := func(t Template) {
		for i := range t.Replicas {
			n++
			x := Instance{Namespace: t.Namespace, Workload: t.Name, Name: fmt.Sprintf("%s-%d", t.Name, i), Address: fmt.Sprintf("127.1.0.%d", n), Sidecar: t.Sidecar}
			if t.Sidecar {
				x.Outbound = x.Address + ":15001"
			}
			for _, tp := range t.Ports {
				x.Ports = append(x.Ports, InstancePort{Port: tp.Port, Listen: fmt.Sprintf("%s:%d", x.Address, tp.Port), App: fmt.Sprintf("127.0.0.1:%d", 20000+100*n+tp.Port%100)})
			}
			p.Instances = append(p.Instances, x)
		}
	}
	for _, t := range m.Templates() {
		add(t)
	}
	if m.workloads["default/local"] == nil {
		p.Instances = append(p.Instances, Instance{Namespace: "default", Workload: "local", Name: "local-0", Address: "127.0.0.1", Outbound: "127.0.0.1:15001", Sidecar: true})
	}
	for _, g := range m.Gateways() {
		for _, port := range g.Ports {
			p.Gateways = append(p.Gateways, GatewayListen{Namespace: g.Namespace, Workload: g.Name, Port: port, Listen: fmt.Sprintf("127.0.0.1:%d", 8000+port)})
		}
	}
	return p
}

func answer(t *testing.T, m *Mesh, p *Placement, findings []config.Finding, question string) string {
	var b strings.Builder
	words := strings.Fields(question)
	switch words[0] {
	case "findings":
		for _, f := range findings {
			fmt.Fprintf(&b, "%s %s", f.Severity, f.ID)
			if f.Code != "" {
				fmt.Fprintf(&b, "/%s", f.Code)
			}
			fmt.Fprintf(&b, " %s\n", f)
		}
	case "templates":
		for _, t := range m.Templates() {
			fmt.Fprintf(&b, "%s %s/%s x%d sa=%s canonical=%s/%s sidecar=%t", t.Kind, t.Namespace, t.Name, t.Replicas, t.ServiceAccount, t.CanonicalName, t.CanonicalRevision, t.Sidecar)
			for _, p := range t.Ports {
				fmt.Fprintf(&b, " %d(%s %s)", p.Port, p.Name, p.Protocol)
			}
			fmt.Fprintf(&b, " locality=%s/%s/%s %s:%d\n", t.Locality.Region, t.Locality.Zone, t.Locality.SubZone, t.Origin.File, t.Origin.Line)
		}
	case "gateways":
		for _, g := range m.Gateways() {
			fmt.Fprintf(&b, "%s/%s sa=%s ports=%v\n", g.Namespace, g.Name, g.ServiceAccount, g.Ports)
			for _, o := range g.Objects {
				fmt.Fprintf(&b, "  %s %s/%s %s:%d %v\n", o.Origin.Kind, o.Namespace, o.Name, o.Origin.File, o.Origin.Line, o.Servers)
			}
		}
	case "services":
		for _, s := range m.Services() {
			fmt.Fprintf(&b, "%s\n", s.Host)
			for _, p := range s.Ports {
				fmt.Fprintf(&b, "  %d %s %s proxied=%t %v\n", p.Port, p.Name, p.Protocol, p.Proxied, p.Workloads)
				for _, x := range p.Splits {
					fmt.Fprintf(&b, "    %s:%d conditional=%t\n", x.Origin.File, x.Origin.Line, x.Conditional)
					for _, d := range x.Destinations {
						fmt.Fprintf(&b, "      %d %s:%d subset=%q %v\n", d.Weight, d.Host, d.Port, d.Subset, d.Workloads)
					}
				}
			}
		}
	case "for", "inbound", "gateway", "breakers", "gateway-breakers", "limits", "gateway-limits":
		ns, name, _ := strings.Cut(words[1], "/")
		name, instance, _ := strings.Cut(name, "/")
		cut := func() (*model.Snapshot, error) { return m.For(p, ns, name, instance) }
		if strings.HasPrefix(words[0], "gateway") {
			cut = func() (*model.Snapshot, error) { return m.ForGateway(p, ns, name) }
		}
		s, err := cut()
		if err != nil {
			return "error: " + err.Error() + "\n"
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%s: invalid: %v", question, err)
		}
		if err := runnable(s); err != nil {
			t.Errorf("%s: cannot run: %v", question, err)
		}
		if strings.HasSuffix(words[0], "breakers") {
			showBreakers(t, &b, s)
			break
		}
		if strings.HasSuffix(words[0], "limits") {
			showLimits(t, &b, s)
			break
		}
		show(&b, s, words[0], words[2:])
	default:
		t.Fatalf("unknown question %q", question)
	}
	return b.String()
}

// show writes the part of a snapshot that a question asks for.
func show(b *strings.Builder, s *model.Snapshot, side string, hosts []string) {
	used := map[string]bool{}
	for _, l := range s.Listeners {
		if (l.Direction == model.Inbound) != (side == "inbound") {
			continue
		}
		fmt.Fprintf(b, "listener %s at %s %s%s\n", l.Name, l.Address, l.Protocol, listenerText(&l))
		for i := range s.Tables {
			if t := &s.Tables[i]; len(l.TLS) == 0 && t.Name == l.Table {
				showTable(b, t, side == "for" && l.Name == outbound, hosts, used)
			}
		}
		for i := range l.TLS {
			showTLS(b, s, &l.TLS[i], hosts, used)
		}
	}
	for _, c := range s.Clusters {
		if !used[c.Name] {
			continue
		}
		fmt.Fprintf(b, "cluster %s %s %s", c.Name, c.Kind, c.Protocol)
		if lb := c.LoadBalancer; lb.Policy != "" {
			fmt.Fprintf(b, " %s", lb.Policy)
			if lb.TableSize != 0 {
				fmt.Fprintf(b, "(%d)", lb.TableSize)
			}
			if h := lb.Hash; h != nil {
				fmt.Fprintf(b, " header=%q sourceIP=%t query=%q", h.Header, h.SourceIP, h.Query)
				if h.Cookie != nil {
					fmt.Fprintf(b, " cookie=%s path=%s ttl=%v attributes=%v", h.Cookie.Name, h.Cookie.Path, h.Cookie.TTL, h.Cookie.Attributes)
				}
			}
		}
		if c.ConnectTimeout != 0 {
			fmt.Fprintf(b, " connect=%s", c.ConnectTimeout)
		}
		b.WriteString(protectionText(&c))
		if c.MaxStreams != 0 {
			fmt.Fprintf(b, " streams=%d", c.MaxStreams)
		}
		if k := c.KeepAlive2; k != nil {
			fmt.Fprintf(b, " keepalive2=%s/%s", k.Interval, k.Timeout)
		}
		if t := c.TLS; t != nil {
			fmt.Fprintf(b, " tls{%s sni=%q names=%v trust=%s certificate=%s skip=%t}", t.Mode, t.SNI, t.SubjectAltNames, certificateText(t.Trust), certificateText(t.Certificate), t.SkipVerify)
		}
		if c.Origin != nil {
			fmt.Fprintf(b, " <%s>", originText(*c.Origin))
		}
		b.WriteString("\n")
		for _, e := range c.Endpoints {
			fmt.Fprintf(b, "  %s weight=%d %s %s/%s sidecar=%t", e.Address, e.Weight, e.Instance, e.Peer.Namespace, e.Peer.Name, e.Sidecar)
			if e.Locality != (model.Locality{}) {
				fmt.Fprintf(b, " %s/%s/%s", e.Locality.Region, e.Locality.Zone, e.Locality.SubZone)
			}
			b.WriteString("\n")
		}
	}
}

// showTable writes a table; brief leaves out the hosts of any port where none is asked for.
func showTable(b *strings.Builder, t *model.Table, brief bool, hosts []string, used map[string]bool) {
	for _, h := range t.Hosts {
		if brief && (h.Port == 0 && len(hosts) == 0 || !mentions(h.Name, hosts)) {
			continue
		}
		fmt.Fprintf(b, "  host %s port %d: %s\n", h.Name, h.Port, strings.Join(h.Domains, " "))
		for i := range h.Rules {
			fmt.Fprintf(b, "    %s\n", ruleText(&h.Rules[i], used))
		}
		for i := range h.Opaque {
			fmt.Fprintf(b, "    bytes %s\n", ruleText(&h.Opaque[i], used))
		}
	}
	if t.Unmatched != nil && len(hosts) == 0 {
		fmt.Fprintf(b, "  otherwise %s\n", ruleText(t.Unmatched, used))
	}
}

// showTLS writes one way in which a listener takes TLS, and what is inside.
func showTLS(b *strings.Builder, s *model.Snapshot, t *model.ServerTLS, hosts []string, used map[string]bool) {
	fmt.Fprintf(b, " tls %s %s inside %s:", t.Mode, strings.Join(t.Names, " "), t.Protocol)
	for i := range t.Certificates {
		fmt.Fprintf(b, " %s", certificateText(&t.Certificates[i]))
	}
	if t.Trust != nil {
		fmt.Fprintf(b, " trust=%s", certificateText(t.Trust))
	}
	for _, x := range []struct {
		name   string
		values []string
	}{{"names", t.SubjectAltNames}, {"pins", slices.Concat(t.SPKI, t.Hashes)}, {"suites", t.CipherSuites}} {
		if len(x.values) > 0 {
			fmt.Fprintf(b, " %s=%v", x.name, x.values)
		}
	}
	if t.MinVersion+t.MaxVersion != "" {
		fmt.Fprintf(b, " versions=%s..%s", t.MinVersion, t.MaxVersion)
	}
	fmt.Fprintf(b, " <%s>\n", originText(*t.Origin))
	for i := range s.Tables {
		if s.Tables[i].Name == t.Table {
			showTable(b, &s.Tables[i], false, hosts, used)
		}
	}
}

func listenerText(l *model.Listener) string {
	out := ""
	if l.Detect != 0 {
		out += " detect=" + l.Detect.String()
	}
	if l.Explicit && l.Name != outbound {
		out += " explicit"
	}
	if l.Origin != nil && l.Direction == model.Outbound {
		out += " <" + originText(*l.Origin) + ">"
	}
	return out
}

// certificateText names a certificate, its digest's beginning, and of its material only what is there.
func certificateText(c *model.Certificate) string {
	if c == nil {
		return "none"
	}
	out := c.Name
	for _, f := range []string{c.CertFile, c.KeyFile, c.CAFile, c.CRLFile} {
		if f != "" {
			out += ":" + f
		}
	}
	if m := c.Material; m != nil {
		out += fmt.Sprintf("(cert=%t key=%t ca=%t crl=%t)", m.Cert != nil, m.Key != nil, m.CA != nil, m.CRL != nil)
	}
	return out
}

func mentions(name string, hosts []string) bool {
	for _, h := range hosts {
		if strings.Contains(name, h) {
			return true
		}
	}
	return len(hosts) == 0
}

func originText(o model.Origin) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s/%s %s", o.Kind, o.Namespace, o.Name, o.Rule)) + fmt.Sprintf(" %s:%d", o.File, o.Line)
}

// ruleText writes a rule on one line, and marks the clusters that it uses.
func ruleText(r *model.Rule, used map[string]bool) string {
	var matches []string
	for i := range r.Matches {
		matches = append(matches, matchText(&r.Matches[i]))
	}
	out := "always"
	if len(matches) > 0 {
		out = strings.Join(matches, " | ")
	}
	out += " =>"
	switch {
	case r.Reply != nil:
		out += replyText(r.Reply)
	case r.Redirect != nil:
		d := r.Redirect
		out += fmt.Sprintf(" redirect %d scheme=%q host=%q port=%d portFrom=%q%s", d.Status, d.Scheme, d.Host, d.Port, d.PortFrom, pathText(d.Path))
	case r.Route != nil:
		for _, d := range r.Route.Destinations {
			out += fmt.Sprintf(" %d:", d.Weight)
			if d.Reply != nil {
				out += replyText(d.Reply)
			} else {
				used[d.Cluster] = true
				out += d.Cluster
			}
			out += editsText("request", d.Request) + editsText("response", d.Response)
		}
		if w := r.Route.Rewrite; w != nil {
			out += fmt.Sprintf(" rewrite authority=%q%s", w.Authority, pathText(w.Path))
		}
		if r.Route.Timeout != 0 {
			out += " timeout=" + r.Route.Timeout.String()
		}
		if r.Route.BackendTimeout != 0 {
			out += " backendTimeout=" + r.Route.BackendTimeout.String()
		}
		if r.Route.Idle != 0 {
			out += " idle=" + r.Route.Idle.String()
		}
		out += resilienceText(r.Route, used)
	}
	if c := r.CORS; c != nil {
		age := model.Duration(0)
		if c.MaxAge != nil {
			age = *c.MaxAge
		}
		out += fmt.Sprintf(" cors{origins=%v methods=%v headers=%v expose=%v maxAge=%s credentials=%t refuse=%t}", c.AllowOrigins, c.AllowMethods, c.AllowHeaders, c.ExposeHeaders, age, c.AllowCredentials, c.RefuseUnmatched)
	}
	return out + editsText("rule-request", r.Request) + editsText("rule-response", r.Response) + " <" + originText(r.Origin) + ">"
}

func replyText(r *model.Reply) string {
	return fmt.Sprintf(" reply %d %s %q", r.Status, r.Outcome, r.Body)
}

func pathText(p *model.PathRewrite) string {
	switch {
	case p == nil:
		return ""
	case p.Prefix != nil:
		return fmt.Sprintf(" prefix=%q", *p.Prefix)
	case p.Regex != nil:
		return fmt.Sprintf(" regex=%q->%q", p.Regex.Pattern, p.Regex.Substitution)
	}
	return fmt.Sprintf(" full=%q", p.Full)
}

func editsText(name string, e model.HeaderEdits) string {
	if len(e.Remove)+len(e.Set)+len(e.Add) == 0 {
		return ""
	}
	return fmt.Sprintf(" %s{remove=%v set=%v add=%v}", name, e.Remove, e.Set, e.Add)
}

func matchText(m *model.Match) string {
	var out []string
	one := func(name string, s *model.StringMatch) {
		if s != nil {
			out = append(out, fmt.Sprintf("%s %s %q", name, s.Kind, s.Value))
		}
	}
	one("path", m.Path)
	one("method", m.Method)
	one("authority", m.Authority)
	one("scheme", m.Scheme)
	keyed := func(kind string, all []model.KeyMatch) {
		for i := range all {
			not := ""
			if all[i].Not {
				not = "not "
			}
			one(not+kind+" "+all[i].Name, &all[i].StringMatch)
		}
	}
	keyed("header", m.Headers)
	keyed("query", m.Query)
	if len(out) == 0 {
		return "any"
	}
	return strings.Join(out, " & ")
}

// objectsOf decodes files for tests that ask in Go.
func objectsOf(t testing.TB, files map[string]string) []*config.Object {
	t.Helper()
	var objects []*config.Object
	var namesOf []string
	for name := range files {
		namesOf = append(namesOf, name)
	}
	sort.Strings(namesOf)
	for _, name := range namesOf {
		f := config.Decode(name, []byte(files[name]))
		for _, finding := range f.Findings {
			if finding.Severity == config.Error {
				t.Fatalf("input: %s", finding)
			}
		}
		objects = append(objects, f.Objects...)
	}
	return objects
}

// transcripts returns the content of all transcripts.
func transcripts(tb testing.TB) []string {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no transcripts: %v", err)
	}
	var out []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, string(text))
	}
	return out
}
