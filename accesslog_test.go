package outrider_test

import (
	"testing"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
)

// The example of docs/access-log.md has no finding, and switches the log on.
func TestAccessLogExample(t *testing.T) {
	const page = "docs/access-log.md"
	read := 0
	for _, b := range blocksOf(t, page) {
		if b.language != "yaml" {
			continue
		}
		read++
		f := config.Decode(page, []byte(b.text))
		mesh, findings := compile.New(f.Objects, compile.Options{})
		if len(f.Findings)+len(findings) > 0 {
			t.Errorf("%s:%d: %v %v", page, b.line, f.Findings, findings)
		}
		s, err := mesh.For(&compile.Placement{Instances: []compile.Instance{{Namespace: "default", Workload: "local", Name: "local", Address: "127.0.0.1", Outbound: "127.0.0.1:15001", Sidecar: true}}}, "default", "local", "")
		if err != nil {
			t.Fatal(err)
		}
		if l := s.Settings.AccessLog; l == nil || l.File != "/dev/stdout" || l.Encoding != "JSON" {
			t.Errorf("%s:%d: the snapshot's access log is %+v", page, b.line, l)
		}
	}
	if read == 0 {
		t.Errorf("%s has no example", page)
	}
}
