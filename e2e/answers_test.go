package e2e

import "testing"

// TestAnswersCount counts what the sidecar answers itself for the service that was asked for, as dashboards expect it, and
// what is no service's by the names that Istio gives it.
func TestAnswersCount(t *testing.T) {
	t.Parallel()
	text := versions(1) + `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {exact: /hello}}], directResponse: {status: 200, body: {string: hello}}}
  - {match: [{uri: {exact: /old}}], redirect: {uri: /new}}
  - {match: [{uri: {exact: /broken}}], fault: {abort: {httpStatus: 500, percentage: {value: 100}}}, route: [{destination: {host: web}}]}
  - {match: [{uri: {prefix: /a}}], route: [{destination: {host: web}}]}
`
	m := up(t, text, prometheus)
	f := func(target string, status, n int) {
		t.Helper()
		for range n {
			if a := m.get(target); a.Status != status {
				t.Errorf("%s: %d %s", target, a.Status, a.Text)
			}
		}
	}
	f("http://web/hello", 200, 3)
	f("http://web/old", 301, 2)
	f("http://web/broken", 500, 4)
	f("http://web/else", 404, 1)
	f("http://web:81/", 503, 5)
	f("http://127.0.0.1:1/", 503, 6)
	m.scraped()
	const web = `istio_requests_total{reporter="source",destination_service="web.default.svc.cluster.local",destination_service_name="web",destination_workload="unknown",`
	m.counted(3, web+`response_code="200"}`)
	m.counted(2, web+`response_code="301"}`)
	m.counted(4, web+`response_code="500",response_flags="FI"}`)
	m.counted(1, web+`response_code="404",response_flags="NR"}`)
	m.counted(5, web+`response_code="503",response_flags="NR"}`)
	m.counted(6, `istio_requests_total{reporter="source",destination_service="unknown",destination_service_name="PassthroughCluster",response_code="503"}`)

	m.edit("scope.yaml", "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: [\"*/*\"]}]}\n")
	f("http://127.0.0.1:1/", 502, 7)
	m.scraped()
	m.counted(7, `istio_requests_total{reporter="source",destination_service="unknown",destination_service_name="BlackHoleCluster",response_code="502"}`)
}
