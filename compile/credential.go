package compile

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// readSecrets indexes what certificates are made of. Their values leave this package as model.Material only.
func (m *Mesh) readSecrets(objects []*config.Object) {
	m.secrets, m.authorities = map[string]*config.Object{}, map[string]*config.Object{}
	for _, o := range objects {
		switch o.Spec.(type) {
		case *corev1.Secret:
			m.secrets[key(o.Namespace, o.Name)] = o
		case *corev1.ConfigMap:
			m.authorities[key(o.Namespace, o.Name)] = o
		}
	}
}

// secretData returns the values of a Secret, or of a ConfigMap with authorities; nil for any other.
func secretData(o *config.Object) map[string][]byte {
	switch s := o.Spec.(type) {
	case *corev1.Secret:
		return s.Data
	case *corev1.ConfigMap:
		out := map[string][]byte{}
		for k, v := range s.Data {
			out[k] = []byte(v)
		}
		for k, v := range s.BinaryData {
			out[k] = v
		}
		return out
	}
	return nil
}

// digest names material, as far as it is used. It is of no use to who wants the material.
func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256(p)
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// credentials are the certificates that one field of an object asks for.
type credentials struct {
	object    *config.Object
	field     string
	namespace string // where Secrets are looked up
	files     bool   // only files can be used here (a Sidecar's listener)
}

// missing and broken report a credential that cannot be used; both return false.
func (c credentials) missing(field, kind, namespace, name, effect string, r *report) bool {
	r.error(c.object, secretMissing, field, "add the "+kind+" to that namespace, or correct the name", "there is no %s %s/%s; %s", kind, namespace, name, effect)
	return false
}

func (c credentials) broken(field string, o *config.Object, reason, effect string, r *report) bool {
	r.error(c.object, badSecret, field, "correct the "+o.Kind+" ("+at(origin(o, "", ""))+")", "%s %s; %s", describe(o), reason, effect)
	return false
}

// elsewhere names Secrets of that name in other namespaces: in a cluster they are looked up in the gateway proxy's own, such
// as istio-system, here in the Gateway object's.
func (m *Mesh) elsewhere(namespace, name string) string {
	var at []string
	for _, k := range sortedKeys(m.secrets) {
		if in, n, _ := strings.Cut(k, "/"); n == name && in != namespace {
			at = append(at, in)
		}
	}
	if len(at) == 0 {
		return ""
	}
	return "; there is one in " + strings.Join(at, ", ") + ", but it is looked up in " + namespace
}

// pair returns a Secret's certificate and key.
func (m *Mesh) pair(c credentials, field, name, effect string, r *report) (model.Certificate, bool) {
	name = strings.TrimPrefix(name, "kubernetes://")
	o := m.secrets[key(c.namespace, name)]
	if o == nil {
		return model.Certificate{}, c.missing(field, "Secret", c.namespace, name, effect+m.elsewhere(c.namespace, name), r)
	}
	material, err := certificate.FromSecret(secretData(o))
	if err != nil {
		return model.Certificate{}, c.broken(field, o, "cannot be used: "+err.Error(), effect, r)
	}
	if material.Cert == nil {
		return model.Certificate{}, c.broken(field, o, "has no certificate and key (tls.crt and tls.key, or cert and key)", effect, r)
	}
	return model.Certificate{
		Name: key(o.Namespace, o.Name), Material: &model.Material{Cert: material.Cert, Key: material.Key}, Digest: digest(material.Cert, material.Key),
	}, true
}

// roots returns a Secret's authorities: those of the Secret NAME-cacert before those of NAME itself, as Istio looks them up.
func (m *Mesh) roots(c credentials, field, name, effect string, r *report) (*model.Certificate, bool) {
	name = strings.TrimPrefix(name, "kubernetes://")
	o := m.secrets[key(c.namespace, name+"-cacert")]
	if o == nil {
		o = m.secrets[key(c.namespace, name)]
	}
	if o == nil {
		return nil, c.missing(field, "Secret", c.namespace, name, effect+m.elsewhere(c.namespace, name), r)
	}
	return m.rootsOf(c, field, o, effect, r)
}

// rootsOf returns the authorities in a Secret or ConfigMap.
func (m *Mesh) rootsOf(c credentials, field string, o *config.Object, effect string, r *report) (*model.Certificate, bool) {
	all, only := secretData(o), map[string][]byte{}
	for _, k := range []string{"cacert", "ca.crt", "crl", "ca.crl"} {
		if v, ok := all[k]; ok {
			only[k] = v
		}
	}
	if len(only["cacert"])+len(only["ca.crt"]) == 0 {
		return nil, c.broken(field, o, "has no certificate authorities (ca.crt or cacert), nor is there a Secret "+o.Name+"-cacert", effect, r)
	}
	material, err := certificate.FromSecret(only)
	if err != nil {
		return nil, c.broken(field, o, "cannot be used: "+err.Error(), effect, r)
	}
	return &model.Certificate{
		Name: key(o.Namespace, o.Name), Material: &model.Material{CA: material.CA, CRL: material.CRL}, Digest: digest(material.CA, material.CRL),
	}, true
}

// join adds the authorities of one to trust.
func join(trust, one *model.Certificate) {
	if trust.Name != "" {
		trust.Name += ","
	}
	trust.Name += one.Name
	add := func(all, more []byte) []byte {
		if len(more) == 0 {
			return all
		}
		return slices.Concat(all, more, []byte("\n"))
	}
	trust.Material.CA, trust.Material.CRL = add(trust.Material.CA, one.Material.CA), add(trust.Material.CRL, one.Material.CRL)
	trust.Digest = digest(trust.Material.CA, trust.Material.CRL)
}

// leftOut is what becomes of a server whose TLS cannot be set up.
const leftOut = "the server is left out: connections to its hosts are refused"

// ciphers are the names of TLS 1.2 suites that Istio knows; it ignores any other.
var ciphers = []string{
	"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
	"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA",
	"ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA", "DES-CBC3-SHA",
}

var tlsModes = map[networking.ServerTLSSettings_TLSmode]model.TLSMode{
	networking.ServerTLSSettings_PASSTHROUGH:     model.PassthroughTLS,
	networking.ServerTLSSettings_SIMPLE:          model.SimpleTLS,
	networking.ServerTLSSettings_MUTUAL:          model.MutualTLS,
	networking.ServerTLSSettings_OPTIONAL_MUTUAL: model.OptionalMutualTLS,
}

// serverTLS translates the TLS settings of a server, without its names; false where they cannot be kept.
func (m *Mesh) serverTLS(c credentials, t *networking.ServerTLSSettings, r *report) (*model.ServerTLS, bool) {
	mode, ok := tlsModes[t.Mode]
	if !ok {
		r.warn(c.object, serverLeftOut, c.field+".mode", "use SIMPLE, MUTUAL, OPTIONAL_MUTUAL or PASSTHROUGH", "TLS mode %s is not served yet; %s", t.Mode, leftOut)
		return nil, false
	}
	out := &model.ServerTLS{Mode: mode}
	if mode == model.PassthroughTLS {
		c.unopened(t, r)
		return out, true
	}
	if !m.serverCertificates(c, t, out, r) {
		return nil, false
	}
	if mode != model.SimpleTLS {
		if ok := m.serverTrust(c, t, out, r); !ok {
			return nil, false
		}
		out.SubjectAltNames = t.SubjectAltNames
	} else if len(t.SubjectAltNames)+len(t.VerifyCertificateSpki)+len(t.VerifyCertificateHash) > 0 {
		r.warn(c.object, noEffect, c.field, "use mode MUTUAL", "clients show no certificate in mode SIMPLE: subjectAltNames and pinned certificates have no effect")
	}
	if t.InsecureSkipVerify.GetValue() {
		r.warn(c.object, noEffect, c.field+".insecureSkipVerify", "use mode OPTIONAL_MUTUAL or SIMPLE", "insecureSkipVerify has no effect yet: a client's certificate must verify")
	}
	return out, versions(c, t, out, r)
}

// unopened warns where certificates stand that nothing here shows: the mode of a server that names none is PASSTHROUGH.
func (c credentials) unopened(t *networking.ServerTLSSettings, r *report) {
	field := ""
	switch {
	case t.CredentialName != "":
		field = ".credentialName"
	case len(t.CredentialNames) > 0:
		field = ".credentialNames"
	case t.ServerCertificate != "":
		field = ".serverCertificate"
	default:
		return
	}
	why := "mode PASSTHROUGH"
	if !c.object.Has(c.field + ".mode") {
		why = "tls without mode is PASSTHROUGH, which"
	}
	r.warn(c.object, noEffect, c.field+field, "write mode: SIMPLE to end TLS here, or remove it", "%s passes TLS on unopened: %s has no effect", why, field[1:])
}

// versions translates the range of versions, and the suites.
func versions(c credentials, t *networking.ServerTLSSettings, out *model.ServerTLS, r *report) bool {
	least, most := t.MinProtocolVersion, t.MaxProtocolVersion
	if least != networking.ServerTLSSettings_TLS_AUTO {
		out.MinVersion = least.String()
	}
	if most != networking.ServerTLSSettings_TLS_AUTO {
		out.MaxVersion = most.String()
	}
	if most != networking.ServerTLSSettings_TLS_AUTO && most < max(least, networking.ServerTLSSettings_TLSV1_2) && (least > most || least == networking.ServerTLSSettings_TLS_AUTO) {
		r.error(c.object, badValue, c.field+".maxProtocolVersion", "raise it, or lower minProtocolVersion (TLSV1_2 by default)", "maxProtocolVersion %s is below the least version: no client could connect; %s", most, leftOut)
		return false
	}
	for i, name := range t.CipherSuites {
		switch {
		case !slices.Contains(ciphers, name):
			r.warn(c.object, noEffect, element(c.field+".cipherSuites", i), "use one of Istio's names, such as ECDHE-ECDSA-AES128-GCM-SHA256", "cipher suite %q is unknown; it is ignored", name)
		case slices.Contains(out.CipherSuites, name):
			r.warn(c.object, noEffect, element(c.field+".cipherSuites", i), "remove it", "cipher suite %q is listed twice", name)
		default:
			out.CipherSuites = append(out.CipherSuites, name)
		}
	}
	return true
}

// serverCertificates finds a server's own certificates.
func (m *Mesh) serverCertificates(c credentials, t *networking.ServerTLSSettings, out *model.ServerTLS, r *report) bool {
	fields, names := []string{c.field + ".credentialName"}, []string{t.CredentialName}
	if len(t.CredentialNames) > 0 {
		fields, names = nil, t.CredentialNames
		for i := range names {
			fields = append(fields, element(c.field+".credentialNames", i))
		}
	}
	if names[0] != "" {
		if c.files {
			r.error(c.object, tlsRefused, fields[0], "write serverCertificate and privateKey", "a Sidecar has no credentialName; %s", leftOut)
			return false
		}
		for i, name := range names {
			pair, ok := m.pair(c, fields[i], name, leftOut, r)
			if !ok {
				return false
			}
			out.Certificates = append(out.Certificates, pair)
		}
		return true
	}
	add := func(field, cert, private string) bool {
		if cert == "" || private == "" {
			r.error(c.object, secretMissing, field, "write credentialName, or serverCertificate and privateKey", "the server has no certificate; %s", leftOut)
			return false
		}
		out.Certificates = append(out.Certificates, model.Certificate{Name: cert, CertFile: cert, KeyFile: private})
		return true
	}
	for i, p := range t.TlsCertificates {
		if !add(element(c.field+".tlsCertificates", i), p.ServerCertificate, p.PrivateKey) {
			return false
		}
	}
	return len(t.TlsCertificates) > 0 || add(c.field, t.ServerCertificate, t.PrivateKey)
}

// serverTrust finds what a server verifies its clients with.
func (m *Mesh) serverTrust(c credentials, t *networking.ServerTLSSettings, out *model.ServerTLS, r *report) (ok bool) {
	name, field := t.CredentialName, c.field+".credentialName"
	if len(t.CredentialNames) > 0 {
		name, field = t.CredentialNames[0], element(c.field+".credentialNames", 0)
	}
	switch {
	case t.CaCertCredentialName != "":
		field := c.field + ".caCertCredentialName"
		o := m.secrets[key(c.namespace, t.CaCertCredentialName)]
		if o == nil {
			o = m.authorities[key(c.namespace, t.CaCertCredentialName)]
		}
		if o == nil {
			return c.missing(field, "Secret or ConfigMap", c.namespace, t.CaCertCredentialName, leftOut, r)
		}
		if out.Trust, ok = m.rootsOf(c, field, o, leftOut, r); !ok {
			return false
		}
	case name != "":
		if out.Trust, ok = m.roots(c, field, name, leftOut, r); !ok {
			return false
		}
	case t.CaCertificates != "":
		out.Trust = &model.Certificate{Name: t.CaCertificates, CAFile: t.CaCertificates, CRLFile: t.CaCrl}
	default:
		r.error(c.object, secretMissing, c.field, "write caCertificates", "mode %s needs the authorities of the clients' certificates; %s", t.Mode, leftOut)
		return false
	}
	return pins(c, t, out, r)
}

// pins translates the certificates that clients are pinned to.
func pins(c credentials, t *networking.ServerTLSSettings, out *model.ServerTLS, r *report) bool {
	for i, p := range t.VerifyCertificateSpki {
		if sum, err := base64.StdEncoding.DecodeString(p); err != nil || len(sum) != sha256.Size {
			r.error(c.object, badValue, element(c.field+".verifyCertificateSpki", i), "write the base64 of the public key's SHA-256", "%q is no base64 of a SHA-256; %s", p, leftOut)
			return false
		}
		out.SPKI = append(out.SPKI, p)
	}
	for i, p := range t.VerifyCertificateHash {
		plain := strings.ToLower(strings.ReplaceAll(p, ":", ""))
		if sum, err := hex.DecodeString(plain); err != nil || len(sum) != sha256.Size {
			r.error(c.object, badValue, element(c.field+".verifyCertificateHash", i), "write the hex of the certificate's SHA-256", "%q is no hex of a SHA-256; %s", p, leftOut)
			return false
		}
		out.Hashes = append(out.Hashes, plain)
	}
	return true
}

// listenerTLS translates the TLS settings of a Gateway API listener; false where they cannot be kept.
func (m *Mesh) listenerTLS(o *config.Object, spec *gatewayv1.Gateway, l *gatewayv1.Listener, field string, r *report) (*model.ServerTLS, bool) {
	const effect = "the listener is left out: connections to its hostname are refused"
	out := &model.ServerTLS{Mode: model.SimpleTLS}
	if l.TLS == nil {
		r.error(o, secretMissing, field+".tls", "write certificateRefs", "the listener has no TLS settings; %s", effect)
		return nil, false
	}
	if len(l.TLS.Options) > 0 {
		r.without(o, field+".tls.options")
	}
	if l.TLS.Mode != nil && *l.TLS.Mode == gatewayv1.TLSModePassthrough {
		out.Mode = model.PassthroughTLS
		return out, true
	}
	if len(l.TLS.CertificateRefs) == 0 {
		r.error(o, secretMissing, field+".tls", "write certificateRefs", "the listener has no certificate; %s", effect)
		return nil, false
	}
	for i, ref := range l.TLS.CertificateRefs {
		at := element(field+".tls.certificateRefs", i)
		to := reference{"Gateway", o.Namespace, "Secret", o.Namespace, string(ref.Name)}
		if ref.Namespace != nil {
			to.toNamespace = string(*ref.Namespace)
		}
		if (ref.Kind != nil && *ref.Kind != "Secret") || (ref.Group != nil && *ref.Group != "" && *ref.Group != "core") {
			r.error(o, secretMissing, at+".kind", "refer to a Secret", "certificateRef %s is no Secret; %s", ref.Name, effect)
			return nil, false
		}
		if !m.granted(to) {
			r.error(o, notGranted, at, "add a ReferenceGrant from Gateway of namespace "+o.Namespace+" to Secret in namespace "+to.toNamespace,
				"certificateRef %s/%s is in another namespace, and no ReferenceGrant there allows it; %s", to.toNamespace, ref.Name, effect)
			return nil, false
		}
		pair, ok := m.pair(credentials{object: o, namespace: to.toNamespace}, at+".name", string(ref.Name), effect, r)
		if !ok {
			return nil, false
		}
		out.Certificates = append(out.Certificates, pair)
	}
	return out, m.frontend(o, spec, l, out, effect, r)
}

// frontend adds what a Gateway wants of its clients' certificates on a listener's port.
func (m *Mesh) frontend(o *config.Object, spec *gatewayv1.Gateway, l *gatewayv1.Listener, out *model.ServerTLS, effect string, r *report) bool {
	if spec.Spec.TLS == nil || spec.Spec.TLS.Frontend == nil {
		return true
	}
	field, v := "spec.tls.frontend.default.validation", spec.Spec.TLS.Frontend.Default.Validation
	for i, p := range spec.Spec.TLS.Frontend.PerPort {
		if p.Port == l.Port {
			field, v = element("spec.tls.frontend.perPort", i)+".tls.validation", p.TLS.Validation
		}
	}
	if v == nil {
		return true
	}
	if v.Mode == gatewayv1.AllowInsecureFallback {
		r.warn(o, serverLeftOut, field+".mode", "use AllowValidOnly", "mode %s is not served yet; %s", v.Mode, effect)
		return false
	}
	out.Mode = model.MutualTLS
	trust := &model.Certificate{Material: &model.Material{}}
	for i, ref := range v.CACertificateRefs {
		at := element(field+".caCertificateRefs", i)
		to := reference{"Gateway", o.Namespace, string(ref.Kind), o.Namespace, string(ref.Name)}
		if ref.Namespace != nil {
			to.toNamespace = string(*ref.Namespace)
		}
		if !m.granted(to) {
			r.error(o, notGranted, at, "add a ReferenceGrant from Gateway of namespace "+o.Namespace+" to "+to.toKind+" in namespace "+to.toNamespace,
				"caCertificateRef %s/%s is in another namespace, and no ReferenceGrant there allows it; %s", to.toNamespace, ref.Name, effect)
			return false
		}
		c := credentials{object: o, namespace: to.toNamespace}
		var from *config.Object
		switch ref.Kind {
		case "ConfigMap":
			from = m.authorities[key(to.toNamespace, to.name)]
		case "Secret":
			from = m.secrets[key(to.toNamespace, to.name)]
		}
		if from == nil {
			return c.missing(at+".name", string(ref.Kind), to.toNamespace, to.name, effect, r)
		}
		one, ok := m.rootsOf(c, at, from, effect, r)
		if !ok {
			return false
		}
		join(trust, one)
	}
	if trust.Name == "" {
		r.error(o, secretMissing, field, "write caCertificateRefs", "clients' certificates are to be verified, and no authorities are named; %s", effect)
		return false
	}
	out.Trust = trust
	return true
}
