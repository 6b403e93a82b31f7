package compile

import (
	"testing"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// The mesh's access log reaches every snapshot; without accessLogFile there is none, whatever else is said.
func TestAccessLog(t *testing.T) {
	f := func(c *meshv1alpha1.MeshConfig, want *model.AccessLog) {
		t.Helper()
		m, findings := New(nil, Options{MeshConfig: c})
		if len(findings) > 0 {
			t.Errorf("findings: %v", findings)
		}
		got := m.settings.AccessLog
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	f(&meshv1alpha1.MeshConfig{}, nil)
	f(&meshv1alpha1.MeshConfig{AccessLogFormat: "%PROTOCOL%", AccessLogEncoding: meshv1alpha1.MeshConfig_JSON}, nil)
	f(&meshv1alpha1.MeshConfig{AccessLogFile: "/dev/stdout"}, &model.AccessLog{File: "/dev/stdout", Encoding: "TEXT"})
	f(&meshv1alpha1.MeshConfig{AccessLogFile: "/tmp/log", AccessLogEncoding: meshv1alpha1.MeshConfig_JSON, AccessLogFormat: `{"a":"%PROTOCOL%"}`},
		&model.AccessLog{File: "/tmp/log", Encoding: "JSON", Format: `{"a":"%PROTOCOL%"}`})
}
