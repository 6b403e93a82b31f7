package compile

import (
	"strings"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/accesslog"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// accessLog reads the mesh's accessLogFile, accessLogEncoding and accessLogFormat; nil is no log, Istio's default.
func (m *Mesh) accessLog(r *report) *model.AccessLog {
	c := m.config
	if c.GetAccessLogFile() == "" {
		return nil
	}
	l := &model.AccessLog{File: c.GetAccessLogFile(), Encoding: "TEXT", Format: c.GetAccessLogFormat()}
	parse := accesslog.ParseText
	if c.GetAccessLogEncoding() == meshv1alpha1.MeshConfig_JSON {
		l.Encoding, parse = "JSON", accesslog.ParseJSON
	}
	_, problems := parse(l.Format)
	for _, p := range problems {
		m.warnOfConfig(r, badLogFormat, "accessLogFormat", p.Remedy, "%s: %s", short(p.Text), p.Why)
	}
	return l
}

// short is text as a message can quote it.
func short(text string) string {
	if line, _, more := strings.Cut(strings.TrimSpace(text), "\n"); more || len(line) > 80 {
		return line[:min(len(line), 80)] + "…"
	}
	return strings.TrimSpace(text)
}

// warnOfConfig warns of a field of the mesh configuration, at its own line where that is in a ConfigMap's block of text.
func (m *Mesh) warnOfConfig(r *report, id ID, field, remedy, format string, args ...any) {
	if r == nil {
		return
	}
	before := len(r.findings)
	r.warn(m.configObject, id, "data.mesh", remedy, format, args...)
	for i := before; i < len(r.findings); i++ {
		f := &r.findings[i]
		if f.Field = field; m.configObject == nil {
			continue
		}
		f.Field = "data.mesh." + field
		if line, column := lineOf(m.configObject, field); line > 0 {
			f.Line += line
			f.Column = column
		}
	}
}

// lineOf finds a field of the mesh configuration in its text: the line, from 1, and the column in the file; 0 where it is not
// written in a line of its own.
func lineOf(o *config.Object, field string) (line, column int) {
	spec, ok := o.Spec.(*corev1.ConfigMap)
	if !ok || !strings.Contains(spec.Data["mesh"], "\n") {
		return 0, 0
	}
	for text := range strings.Lines(spec.Data["mesh"]) {
		line++
		if strings.HasPrefix(text, field+":") {
			return line, o.Position("data.mesh").Column + 2 // block text is indented by two as a rule
		}
	}
	return 0, 0
}
