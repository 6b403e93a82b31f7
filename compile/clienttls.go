package compile

import (
	"fmt"

	networking "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// originates says whether a peer is to be spoken to with TLS that the user's own settings open.
func originates(t *networking.ClientTLSSettings) bool {
	return t != nil && (t.Mode == networking.ClientTLSSettings_SIMPLE || t.Mode == networking.ClientTLSSettings_MUTUAL)
}

// clientTLS translates the TLS settings of a DestinationRule for a client whose Secrets are in namespace; where they cannot be
// kept, it says why in a sentence, and nothing may be sent. Findings go to r.
func (m *Mesh) clientTLS(o *config.Object, field string, t *networking.ClientTLSSettings, namespace string, r *report) (*model.ClientTLS, string) {
	const effect = "requests are answered 503, never sent in plaintext"
	out := &model.ClientTLS{Mode: model.SimpleTLS, SNI: t.Sni, SubjectAltNames: t.SubjectAltNames, SkipVerify: t.InsecureSkipVerify.GetValue()}
	if t.Mode == networking.ClientTLSSettings_MUTUAL {
		out.Mode = model.MutualTLS
	}
	c := credentials{object: o, field: field, namespace: namespace}
	refuse := func(what string) string {
		return fmt.Sprintf("%s (%s) asks for TLS mode %s, and %s; nothing is sent in plaintext\n", describe(o), at(origin(o, field, "")), t.Mode, what)
	}
	if t.CredentialName != "" {
		if namespace == "" {
			r.error(o, tlsRefused, field+".credentialName", "add a workloadSelector, or name files",
				"sidecars take a credentialName only from a DestinationRule with workloadSelector; %s", effect)
			return nil, refuse("its credentialName is for gateways only")
		}
		var ok bool
		if out.Mode == model.MutualTLS {
			pair, found := m.pair(c, field+".credentialName", t.CredentialName, effect, r)
			if !found {
				return nil, refuse("Secret " + key(namespace, t.CredentialName) + " cannot be used")
			}
			out.Certificate = &pair
		}
		if !out.SkipVerify {
			if out.Trust, ok = m.roots(c, field+".credentialName", t.CredentialName, effect, r); !ok {
				return nil, refuse("Secret " + key(namespace, t.CredentialName) + " cannot be used")
			}
		}
	} else {
		if out.Mode == model.MutualTLS {
			if t.ClientCertificate == "" || t.PrivateKey == "" {
				r.error(o, tlsRefused, field, "write clientCertificate and privateKey", "mode MUTUAL has no certificate to show; %s", effect)
				return nil, refuse("it has no certificate to show")
			}
			out.Certificate = &model.Certificate{Name: t.ClientCertificate, CertFile: t.ClientCertificate, KeyFile: t.PrivateKey}
		}
		if t.CaCertificates != "" && t.CaCertificates != "system" {
			out.Trust = &model.Certificate{Name: t.CaCertificates, CAFile: t.CaCertificates, CRLFile: t.CaCrl}
		} else if t.CaCrl != "" {
			r.without(o, field+".caCrl")
		}
	}
	if out.SkipVerify {
		out.Trust, out.SubjectAltNames = nil, nil
	}
	return out, ""
}

// reportTLS reports the TLS modes that cannot be kept.
func (m *Mesh) reportTLS(o *config.Object, field string, d *destinationRule, p *networking.TrafficPolicy, r *report) {
	report := func(field string, t *networking.ClientTLSSettings) {
		switch {
		case t == nil || t.Mode == networking.ClientTLSSettings_DISABLE:
		case originates(t):
			if t.CredentialName != "" {
				d.credentials = true
			}
			from := d.secrets("")
			if t.CredentialName != "" && from == "" && len(m.gateways) > 0 { // it is for gateways: each looks for itself
				from = m.gateways[0].Namespace
				for _, g := range m.gateways {
					if out, _ := m.clientTLS(o, field, t, g.Namespace, nil); out != nil {
						return
					}
				}
			}
			m.clientTLS(o, field, t, from, r)
		default:
			r.warn(o, noEffect, field+".mode", "remove it, or keep it for a version that has it",
				"TLS mode %s has no effect yet: requests between sidecars are plaintext", t.Mode)
		}
	}
	report(field+".tls", p.GetTls())
	for i, l := range p.GetPortLevelSettings() {
		report(fmt.Sprintf("%s.portLevelSettings[%d].tls", field, i), l.Tls)
	}
}

// secrets returns the namespace in which a client of d finds its Secrets: a gateway's own, or, with a workloadSelector, d's;
// "" is nowhere.
func (d *destinationRule) secrets(gateway string) string {
	if len(d.selector) > 0 {
		return d.object.Namespace
	}
	return gateway
}

// backendTLS is what a BackendTLSPolicy says of a port.
type backendTLS struct {
	tls     *model.ClientTLS
	refused string
	origin  model.Origin
}

// readBackendTLS attaches BackendTLSPolicies to the ports of their Services; the first of a port has it.
func (m *Mesh) readBackendTLS(objects []*config.Object, r *report) {
	for _, o := range objects {
		spec, ok := o.Spec.(*gatewayv1.BackendTLSPolicy)
		if !ok {
			continue
		}
		if len(spec.Spec.Options) > 0 {
			r.without(o, "spec.options")
		}
		b := m.backendTLS(o, &spec.Spec.Validation, r)
		for i, t := range spec.Spec.TargetRefs {
			field := element("spec.targetRefs", i)
			svc := m.policyTarget(o, field, t.LocalPolicyTargetReference, r)
			if svc == nil {
				continue
			}
			found := false
			for _, p := range svc.ports {
				if t.SectionName != nil && string(*t.SectionName) != p.name {
					continue
				}
				if found = true; p.backendTLS != nil {
					r.warn(o, noEffect, field, "keep one of them", "port %s of %s has a BackendTLSPolicy already (%s), which comes first", p.text(), svc.Host, at(p.backendTLS.origin))
					continue
				}
				p.backendTLS = b
			}
			if !found {
				r.error(o, unknownPort, field+".sectionName", "its ports: "+portList(svc), "Service %s/%s has no such port", o.Namespace, t.Name)
			}
		}
	}
}

func (m *Mesh) backendTLS(o *config.Object, v *gatewayv1.BackendTLSPolicyValidation, r *report) *backendTLS {
	const field, effect = "spec.validation.caCertificateRefs", "requests are answered 503, never sent without verifying"
	b := &backendTLS{origin: origin(o, "spec.validation", ""), tls: &model.ClientTLS{Mode: model.SimpleTLS, SNI: string(v.Hostname)}}
	for _, n := range v.SubjectAltNames {
		name := string(n.Hostname)
		if name == "" {
			name = string(n.URI)
		}
		b.tls.SubjectAltNames = append(b.tls.SubjectAltNames, name)
	}
	trust := &model.Certificate{Material: &model.Material{}}
	for i, ref := range v.CACertificateRefs {
		at := element(field, i)
		var from *config.Object
		switch {
		case ref.Group != "" && ref.Group != "core":
		case ref.Kind == "ConfigMap":
			from = m.authorities[key(o.Namespace, string(ref.Name))]
		case ref.Kind == "Secret":
			from = m.secrets[key(o.Namespace, string(ref.Name))]
		}
		c := credentials{object: o, field: field, namespace: o.Namespace}
		ok := from != nil
		var one *model.Certificate
		if !ok {
			c.missing(at, string(ref.Kind), o.Namespace, string(ref.Name), effect, r)
		} else {
			one, ok = m.rootsOf(c, at, from, effect, r)
		}
		if !ok {
			b.refused = fmt.Sprintf("%s (%s) names authorities that cannot be used; nothing is sent without verifying\n", describe(o), position(o))
			return b
		}
		join(trust, one)
	}
	if len(v.CACertificateRefs) > 0 {
		b.tls.Trust = trust
	}
	return b
}
