package local

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/control"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pagePolicy allows the page its own style and nothing else: it loads nothing and runs no script.
var pagePolicy = "default-src 'none'; img-src data:; style-src 'sha256-" + styleSum(pageText) + "'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// styleSum is the hash by which a content security policy knows the page's style.
func styleSum(page string) string {
	_, rest, _ := strings.Cut(page, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// page is what the page shows.
type page struct {
	control.State
	Version    string
	Prometheus bool
	Example    string
	Ready      *Ready
	Services   []compile.ServiceInfo
	Rows       []workloadRow
	Gateways   []gatewayRow
	StandIns   []standInRow
	Breakers   []breakerRow
	Unused     int // breakers that have no row
	Resting    []restRow
	Changes    uint64 // of the configuration, since the start
}

// workloadRow is an instance, with how its proxy took its configuration.
type workloadRow struct {
	ReadyWorkload
	Running, Refused string
}

// gatewayRow is a Gateway object, with how its proxy took its configuration.
type gatewayRow struct {
	ReadyGateway
	Running, Refused string
}

func (m *Mesh) servePage(w http.ResponseWriter, _ *http.Request) {
	p := page{State: m.State(), Version: m.o.Version, Prometheus: m.prom != nil, Example: m.example(), Ready: m.Ready()}
	p.Services = p.Mesh.Services()
	p.Findings = worstFirst(p.Findings)
	f := m.plane.Feed()
	for _, ready := range p.Ready.Workloads {
		st := f.Status(control.InstanceKey(ready.Namespace, ready.Name, ready.Instance))
		p.Rows = append(p.Rows, workloadRow{ready, st.Running, st.Reason})
	}
	owners := m.gatewayKeys()
	for i, ready := range p.Ready.Gateways {
		var row gatewayRow
		if row.ReadyGateway = ready; i < len(owners) {
			st := f.Status(owners[i])
			row.Running, row.Refused = st.Running, st.Reason
		}
		p.Gateways = append(p.Gateways, row)
	}
	for _, s := range m.troupe.list() {
		if s.Behaviour != "" {
			p.StandIns = append(p.StandIns, s)
		}
	}
	p.Breakers, p.Unused = m.breakerRows()
	p.Resting = m.restRows()
	p.Changes = p.Generation - 1
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		http.Error(w, "cannot make the page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(b.Bytes()) // a client that left has its own reasons
}

// gatewayKeys returns the feed key of each Gateway object's proxy, in the order of Ready.
func (m *Mesh) gatewayKeys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for i := range m.plan.gateways {
		for range m.plan.gateways[i].Objects {
			out = append(out, m.plan.gateways[i].id())
		}
	}
	return out
}

func worstFirst(findings []config.Finding) []config.Finding {
	var out []config.Finding
	for _, severity := range []config.Severity{config.Error, config.Warning, config.Info} {
		for _, f := range findings {
			if f.Severity == severity {
				out = append(out, f)
			}
		}
	}
	return out
}
