package compile

import (
	"strings"
	"testing"
)

// TestOutlierDetectionTurnsFailoverOn says that endpoints nearby are preferred once those that fail are ejected, unless the
// mesh or the rule turns that off.
func TestOutlierDetectionTurnsFailoverOn(t *testing.T) {
	f := func(mesh, text, client, want string) {
		t.Helper()
		more := rule(text)
		if mesh != "" {
			more += "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " + mesh + "\n"
		}
		m, findings := New(objectsOf(t, map[string]string{"a.yaml": shopWith("", "", more)}), Options{})
		for _, finding := range findings {
			if strings.Contains(finding.Message, "no effect") {
				t.Errorf("%s", finding)
			}
		}
		if got := seen(t, m, client, shopCluster); got != want {
			t.Errorf("%s %s: %s sees %s, want %s", mesh, text, client, got, want)
		}
	}
	const (
		outlier = "outlierDetection: {consecutive5xxErrors: 5, maxEjectionPercent: 100}"
		plain   = "11a:0/0 11b:0/0 12a:0/0 21a:0/0 31a:0/0"
	)
	f("", "connectionPool: {tcp: {connectTimeout: 1s}}", "in-11a", plain)
	f("", outlier, "in-11a", "11a:0/0 11b:1/0 12a:2/0 21a:3/0 31a:3/0")
	f("", outlier, "in-12", "11a:1/0 11b:1/0 12a:0/0 21a:2/0 31a:2/0")
	f("", outlier, "nowhere", plain)
	f("localityLbSetting: {enabled: false}", outlier, "in-11a", plain)
	f("localityLbSetting: {enabled: false}", outlier+", loadBalancer: {localityLbSetting: {enabled: true}}", "in-11a", "11a:0/0 11b:1/0 12a:2/0 21a:3/0 31a:3/0")
	f("localityLbSetting: {failover: [{from: r1, to: r3}]}", outlier, "in-11a", "11a:0/0 11b:1/0 12a:2/0 21a:4/0 31a:3/0")
	f("localityLbSetting: {failover: [{from: r1, to: r3}]}", outlier+", loadBalancer: {localityLbSetting: {enabled: false}}", "in-11a", plain)
	f("", outlier+", loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r2}]}}", "in-12", "11a:1/0 11b:1/0 12a:0/0 21a:2/0 31a:3/0")
	f("", outlier+", loadBalancer: {localityLbSetting: {failoverPriority: [version]}}", "in-11a", "11a:1/0 11b:0/0 12a:1/0 21a:1/0 31a:0/0")
	f("", outlier+", loadBalancer: {localityLbSetting: {distribute: [{from: r1, to: {r1: 90, r2: 10}}]}}", "in-11a", "11a:0/18 11b:0/18 12a:0/54 21a:0/10")
	f("defaultTrafficPolicy: {outlierDetection: {consecutive5xxErrors: 5}}", "loadBalancer: {localityLbSetting: {failoverPriority: [version]}}", "in-11a", "11a:1/0 11b:0/0 12a:1/0 21a:1/0 31a:0/0")
}
