package compile

import "testing"

// The annotation switches the header of local answers on and off, for a workload's sidecar and for a Gateway.
func TestReasonAnnotation(t *testing.T) {
	m, _ := New(objectsOf(t, map[string]string{"a.yaml": `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}, annotations: {outrider.dev/reason-header: "false"}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, annotations: {outrider.dev/reason-header: "true"}}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
`}), Options{})
	p := place(m)
	web, err := m.For(p, "default", "web", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range web.Listeners {
		if l.Reason != "off" {
			t.Errorf("listener %s: reason %q, want off", l.Name, l.Reason)
		}
	}
	local, err := m.For(p, "default", "local", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := local.Listeners[0].Reason; got != "" {
		t.Errorf("the client's reason is %q, want the default", got)
	}
	gateway, err := m.ForGateway(p, "istio-system", "istio-ingressgateway")
	if err != nil {
		t.Fatal(err)
	}
	if got := gateway.Listeners[0].Reason; got != "on" {
		t.Errorf("the gateway's reason is %q, want on", got)
	}
}
