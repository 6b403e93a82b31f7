package config

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	networkingv1 "istio.io/api/networking/v1alpha3"
)

// MeshConfig reads Istio's MeshConfig from YAML or JSON text and gives absent fields Istio's defaults. A field that MeshConfig lacks
// is a warning, as it has no effect in Istio either; anything else that does not fit is an error.
// The source is where the text begins: a file's name with line 1 and column 1, or a place within a file.
// The result is never nil; with findings of severity error it holds what could be read.
func MeshConfig(data []byte, source Source) (*meshv1alpha1.MeshConfig, []Finding) {
	o := &Object{Kind: "MeshConfig", Source: source}
	m := &meshv1alpha1.MeshConfig{}
	n, flaw := parseText(data)
	var findings []Finding
	if flaw != nil {
		w := o.Finding(flaw.id, Error, "", flaw.message, flaw.remedy)
		w.Line, w.Column = flaw.line, flaw.column
		findings = append(findings, w)
	}
	if n != nil {
		o.node = n
		d := &decoder{}
		d.message(n, m.ProtoReflect())
		for _, f := range d.misfits() {
			severity := Error
			if f.id == idUnknown {
				severity = Warning
			}
			w := o.Finding(f.id, severity, f.field, f.message, f.remedy)
			if n.find(f.field) == nil {
				w.Line, w.Column = int(f.line), int(f.column)
			}
			findings = append(findings, w)
		}
	}
	for i := range findings {
		findings[i].Line += max(source.Line, 1) - 1
		findings[i].Column += max(source.Column, 1) - 1
	}
	defaultMeshConfig(m)
	return m, findings
}

// parseText reads the one document of a text.
func parseText(data []byte) (*node, *flaw) {
	if len(data) > maxFile {
		return nil, &flaw{idLimit, 1, 1, "the text is larger than the limit for a file", "shorten it"}
	}
	if at := invalid(data); at >= 0 {
		line, column := document{data: data}.place(at)
		return nil, &flaw{idEncoding, line, column, "the text is not UTF-8", "save it as UTF-8"}
	}
	documents := split(data)
	switch len(documents) {
	case 0:
		return nil, nil
	case 1:
		again := maxAgain
		return parseYAML(documents[0], &again)
	}
	return nil, &flaw{idSyntax, documents[1].before + 1, 1, "there is more than one document", "keep one"}
}

// MeshConfig reads the MeshConfig of the ConfigMap `istio` (key `mesh`); places are those in the ConfigMap's file.
// The result is nil for an object that is no ConfigMap.
func (o *Object) MeshConfig() (*meshv1alpha1.MeshConfig, []Finding) {
	data := o.node.find("data").child("mesh")
	if o.Kind != "ConfigMap" || data == nil {
		return nil, nil
	}
	source := o.Position("data.mesh")
	m, findings := MeshConfig([]byte(data.value), Source{File: source.File, Line: 1, Column: 1})
	for i := range findings {
		f := &findings[i]
		f.Kind, f.Namespace, f.Name = o.Kind, o.Namespace, o.Name
		f.Field = strings.TrimSuffix("data.mesh."+f.Field, ".")
		if data.literal {
			f.Line += int(data.line)
			f.Column += source.Column + 1 // block text is indented by two as a rule
		} else {
			f.Line, f.Column = source.Line, source.Column
		}
	}
	return m, findings
}

// defaultMeshConfig gives absent fields what Istio gives them. Lists and messages are replaced as a whole, as in Istio.
func defaultMeshConfig(m *meshv1alpha1.MeshConfig) {
	word := func(p *string, value string) {
		if *p == "" {
			*p = value
		}
	}
	word(&m.TrustDomain, "cluster.local")
	word(&m.RootNamespace, "istio-system")
	word(&m.IngressService, "istio-ingressgateway")
	word(&m.IngressSelector, "ingressgateway")
	word(&m.IngressClass, "istio")
	for _, to := range []*[]string{&m.DefaultServiceExportTo, &m.DefaultVirtualServiceExportTo, &m.DefaultDestinationRuleExportTo} {
		if len(*to) == 0 {
			*to = []string{"*"}
		}
	}
	if m.ProxyListenPort == 0 {
		m.ProxyListenPort = 15001
	}
	if m.ProxyInboundListenPort == 0 {
		m.ProxyInboundListenPort = 15006
	}
	if m.ConnectTimeout == nil {
		m.ConnectTimeout = durationpb.New(10 * time.Second)
	}
	if m.ProtocolDetectionTimeout == nil {
		m.ProtocolDetectionTimeout = durationpb.New(0)
	}
	if m.DnsRefreshRate == nil {
		m.DnsRefreshRate = durationpb.New(time.Minute)
	}
	if m.EnableAutoMtls == nil {
		m.EnableAutoMtls = wrapperspb.Bool(true)
	}
	if m.EnablePrometheusMerge == nil {
		m.EnablePrometheusMerge = wrapperspb.Bool(true)
	}
	if m.OutboundTrafficPolicy == nil {
		m.OutboundTrafficPolicy = &meshv1alpha1.MeshConfig_OutboundTrafficPolicy{Mode: meshv1alpha1.MeshConfig_OutboundTrafficPolicy_ALLOW_ANY}
	}
	if m.InboundTrafficPolicy == nil {
		m.InboundTrafficPolicy = &meshv1alpha1.MeshConfig_InboundTrafficPolicy{Mode: meshv1alpha1.MeshConfig_InboundTrafficPolicy_PASSTHROUGH}
	}
	if m.LocalityLbSetting == nil {
		m.LocalityLbSetting = &networkingv1.LocalityLoadBalancerSetting{Enabled: wrapperspb.Bool(true)}
	}
}
