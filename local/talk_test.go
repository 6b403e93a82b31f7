package local

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// A gateway's port is told once, with all the hosts that it is for.
func TestGatewaysAreToldOncePerPort(t *testing.T) {
	const gateways = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 18443, name: a, protocol: HTTP}, hosts: [a.example, ./b.example]}
  - {port: {number: 18443, name: b, protocol: HTTP}, hosts: ["*.c.example", a.example]}
  - {port: {number: 18444, name: c, protocol: HTTP}, hosts: [only.example, "*"]}
`
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"gateways.yaml": gateways})
	defer f.end()
	told := f.talk.String()
	listen := map[int]string{}
	for _, s := range f.Ready().Gateways[0].Servers {
		listen[s.Port] = s.URL()
	}
	for _, line := range []string{
		"  gateway  default/edge port 18443: " + listen[18443] + " for a.example, b.example, *.c.example\n",
		"  gateway  default/edge port 18444: " + listen[18444] + "\n",
	} {
		if strings.Count(told, line) != 1 {
			t.Errorf("does not tell %q once:\n%s", line, told)
		}
	}
	if n := strings.Count(told, "  gateway  "); n != 2 {
		t.Errorf("tells %d gateways:\n%s", n, told)
	}
	r, err := http.Get(f.Ready().Admin + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	page, err := io.ReadAll(r.Body)
	if err != nil || strings.Count(string(page), "18443 http for a.example, b.example, *.c.example") != 1 {
		t.Errorf("%v: the page says\n%s", err, page)
	}
}
