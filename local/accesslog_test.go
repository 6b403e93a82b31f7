package local

import (
	"fmt"
	"strings"
	"testing"
)

const accessFormat = `log:%HOSTNAME% %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %OUTRIDER_REASON% %UPSTREAM_CLUSTER% %ROUTE_NAME%`

// meshLog is a ConfigMap istio with a mesh configuration.
func meshLog(lines string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n" + lines
}

// An edit of the mesh's configuration switches the access logs of all sidecars on and off, while requests pass.
func TestAccessLogOfTheMesh(t *testing.T) {
	out := &journal{}
	f := run(t, Options{StandIns: true, NoPrometheus: true, Out: out}, map[string]string{
		"base.yaml": documents(webService, deployment("v1", 1, "")), "mesh.yaml": meshLog("    connectTimeout: 5s\n"),
	})
	if status, _, _ := f.get("http://web/before"); status != 200 {
		t.Fatalf("got %d", status)
	}
	stop := f.traffic("http://web/load")
	on := meshLog("    accessLogFile: /dev/stdout\n    accessLogFormat: '" + accessFormat + "'\n")
	f.write("mesh.yaml", on)
	f.until("both sides log", func() bool {
		return strings.Contains(out.String(), "log:local GET /load 200 - - outbound|80||web.default.svc.cluster.local default\n") &&
			strings.Contains(out.String(), "log:web-v1-0 GET /load 200 - - inbound|8080|| default\n")
	})
	f.get("http://web:81/refused")
	f.until("the refusal is logged", func() bool { return strings.Contains(out.String(), " /refused 503 NR no_route ") })
	f.write("mesh.yaml", meshLog("    connectTimeout: 6s\n"))
	f.until("nobody logs any more", func() bool {
		before := out.String()
		for range 20 {
			f.get("http://web/off")
		}
		return !strings.Contains(out.String()[len(before):], "/off")
	})
	if sent, failed := stop(); len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
	f.end()
	for line := range strings.Lines(out.String()) {
		var host, method, path string
		if n, _ := fmt.Sscanf(line, "log:%s %s %s", &host, &method, &path); n != 3 || strings.Count(line, "log:") != 1 {
			t.Errorf("the line %q", line)
		}
		if path == "/before" {
			t.Errorf("logged before the log was switched on: %q", line)
		}
	}
}
