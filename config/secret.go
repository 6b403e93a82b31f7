package config

import (
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Secret's values are never part of a finding: what does not fit is said without them.

// readSecret reads a Secret with a decoder that quotes no values.
func readSecret(d *decoder, n *node) (any, *metav1.ObjectMeta) {
	d.secret = true
	return whole[corev1.Secret](d, n)
}

// defaultSecret does what the API server does: stringData goes into data, where it replaces what is there.
func defaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) == 0 {
		return
	}
	data := maps.Clone(s.Data)
	if data == nil {
		data = map[string][]byte{}
	}
	for k, v := range s.StringData {
		data[k] = []byte(v)
	}
	s.Data, s.StringData = data, nil
}

// dataKey is the form of a key of a Secret or ConfigMap.
var dataKey = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

func checkSecret(c *checker, s *corev1.Secret) {
	size := 0
	for key, value := range s.Data {
		field := "data[" + key + "]"
		if !c.object.Has(field) {
			field = "stringData[" + key + "]"
		}
		size += len(value)
		c.unless(dataKey.MatchString(key) && key != "." && !strings.HasPrefix(key, ".."), idName, field, "the key is not valid", "use letters, digits, -, _ and .")
	}
	c.unless(size <= corev1.MaxSecretSize, idTooMany, "data", fmt.Sprintf("the values have %d bytes, more than the limit of %d", size, corev1.MaxSecretSize), "split it into several Secrets")
	if s.Type == corev1.SecretTypeTLS {
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			_, there := s.Data[key]
			c.required(there, "data["+key+"]", "a Secret of type kubernetes.io/tls has tls.crt and tls.key")
		}
	}
}

// foreign says whether an object of a kind that is read is one that the mesh has no use for: a ConfigMap without authorities that
// is not the mesh's own, or a Secret that holds no certificates by its type.
func foreign(o *Object) bool {
	switch {
	case o.Group != "":
	case o.Kind == "ConfigMap":
		data := o.node.find("data")
		return (o.Namespace != "istio-system" || o.Name != "istio") && data.child("ca.crt") == nil && data.child("cacert") == nil
	case o.Kind == "Secret":
		t := o.node.scalar("type")
		return t != string(corev1.SecretTypeTLS) &&
			(strings.HasPrefix(t, "kubernetes.io/") || strings.HasPrefix(t, "bootstrap.kubernetes.io/") || strings.HasPrefix(t, "helm.sh/"))
	}
	return false
}

// unspeakable says what stands where something else is wanted, without the value.
func unspeakable(n *node, wanted string) (message, remedy string) {
	message = "must be " + wanted + ", and is " + n.shape.String()
	if n.shape == text && wanted == "base64 text" {
		message = "must be base64 text, and is not"
		if _, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.value), "")); err != nil {
			return message, "encode the value, or write it as it is below stringData"
		}
		return message, "write it on one line"
	}
	if wanted == "a string" {
		return message, "put it in quotes"
	}
	return message, "write " + wanted
}
