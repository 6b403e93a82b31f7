package compile

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var meshConfigCoverage = covers("connectTimeout", "tcpKeepalive", "defaultHttpRetryPolicy", "defaultTrafficPolicy.", "defaultTrafficPolicy.connectionPool.",
	"defaultTrafficPolicy.outlierDetection.", "outboundTrafficPolicy.", "outboundTrafficPolicy.mode", "localityLbSetting", "defaultServiceExportTo",
	"defaultVirtualServiceExportTo", "defaultDestinationRuleExportTo", "rootNamespace", "pathNormalization", "h2UpgradePolicy", "protocolDetectionTimeout", "defaultConfig.", "defaultConfig.terminationDrainDuration",
	"accessLogFile", "accessLogEncoding", "accessLogFormat").
	and(poolCoverage.under("defaultTrafficPolicy.connectionPool."), outlierCoverage.under("defaultTrafficPolicy.outlierDetection."))

// readMeshConfig finds the mesh's configuration: of Options, else of the ConfigMap istio in istio-system, else Istio's defaults.
func (m *Mesh) readMeshConfig(objects []*config.Object, r *report) {
	m.config = m.options.MeshConfig
	for _, o := range objects {
		spec, ok := o.Spec.(*corev1.ConfigMap)
		if !ok || o.Namespace != "istio-system" || o.Name != "istio" || m.config != nil {
			continue
		}
		c, findings := config.MeshConfig([]byte(spec.Data["mesh"]), o.Source)
		if k := slices.IndexFunc(findings, func(f config.Finding) bool { return f.Severity == config.Error }); k >= 0 {
			r.error(o, badMeshConfig, "data.mesh", "correct it; until then, the defaults hold", "cannot read the mesh configuration: %s: %s", findings[k].Field, findings[k].Message)
			continue
		}
		m.config, m.configObject = c, o
	}
	if m.config == nil {
		m.config = &meshv1alpha1.MeshConfig{}
	}
	var without []string
	meshConfigCoverage.missing(written(m.config).ProtoReflect(), func(field string) { without = append(without, field) })
	if len(without) > 0 {
		r.warn(m.configObject, noEffect, "data.mesh", "remove them, or keep them for a version that has them", "mesh configuration without effect yet: %s", strings.Join(without, ", "))
	}
	m.root = cmp.Or(m.config.GetRootNamespace(), "istio-system")
	m.settings = model.Settings{PathNormalization: "BASE", Drain: model.Duration(5 * time.Second)}
	if n := m.config.GetPathNormalization().GetNormalization(); n != meshv1alpha1.MeshConfig_ProxyPathNormalization_DEFAULT {
		m.settings.PathNormalization = n.String()
	}
	if d := m.config.GetDefaultConfig().GetTerminationDrainDuration(); d != nil {
		m.settings.Drain = duration(d)
	}
	m.settings.AccessLog = m.accessLog(r)
}

// written returns c without the fields that say what Istio's defaults say.
func written(c *meshv1alpha1.MeshConfig) *meshv1alpha1.MeshConfig {
	out := proto.CloneOf(c)
	defaults, _ := config.MeshConfig(nil, config.Source{})
	d, m := defaults.ProtoReflect(), out.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		if f := m.Descriptor().Fields().Get(i); d.Has(f) && m.Has(f) && d.Get(f).Equal(m.Get(f)) {
			m.Clear(f)
		}
	}
	return out
}

// detection is how long a client may stay silent on a port of no declared protocol; 0 is the proxy's own limit, where Istio
// would wait for ever.
func (m *Mesh) detection() model.Duration { return duration(m.config.GetProtocolDetectionTimeout()) }

// registryOnly says whether hosts that are no services may not be reached.
func (m *Mesh) registryOnly() bool {
	p := m.config.GetOutboundTrafficPolicy()
	return p != nil && p.Mode == meshv1alpha1.MeshConfig_OutboundTrafficPolicy_REGISTRY_ONLY
}
