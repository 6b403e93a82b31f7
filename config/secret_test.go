package config

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestSecretValues reads Secrets that are wrong in every way, and looks for their values in what is said.
func TestSecretValues(t *testing.T) {
	const value = "hunter2hunter2"
	encoded := base64.StdEncoding.EncodeToString([]byte(value))
	f := func(want, text string) {
		t.Helper()
		file := Decode("secret.yaml", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"+text))
		said := fmt.Sprint(file.Findings)
		if !strings.Contains(said, want) {
			t.Errorf("%s: said %s; want %s", text, said, want)
		}
		for _, s := range []string{value, encoded, "4711"} {
			if strings.Contains(said, s) {
				t.Errorf("%s: a value is told: %s", text, said)
			}
		}
	}
	f("must be base64 text, and is not; encode the value", "data: {tls.key: "+value+"!}\n")
	f("write it on one line", "data:\n  tls.key: \""+encoded[:8]+" "+encoded[8:]+"\"\n")
	f("must be base64 text, and is a number", "data: {tls.key: 4711}\n")
	f("must be a string, and is a number; put it in quotes", "stringData: {tls.key: 4711}\n")
	f("must be a mapping, and is", "data: "+value+"\n")
	f("must be base64 text, and is a mapping", "data: {a: {b: "+value+"}}\n")
	f("the key is not valid", "stringData: {\"a b\": "+value+"}\n")
	f("has tls.crt and tls.key", "type: kubernetes.io/tls\nstringData: {tls.crt: "+value+"}\n")
	f("more than the limit of", "stringData: {a: "+strings.Repeat("4711", 300000)+"}\n")
}

// TestStringData puts stringData into data, over what is there.
func TestStringData(t *testing.T) {
	file := Decode("secret.yaml", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: QQ==, b: Qg==}\nstringData: {b: c, d: e}\n"))
	if len(file.Objects) != 1 {
		t.Fatal(file.Findings)
	}
	s := file.Objects[0].Spec.(*corev1.Secret)
	if s.Type != corev1.SecretTypeOpaque || len(s.StringData) != 0 || len(s.Data) != 3 || string(s.Data["a"]) != "A" || string(s.Data["b"]) != "c" || string(s.Data["d"]) != "e" {
		t.Errorf("read as type %s with %d and %d values", s.Type, len(s.Data), len(s.StringData))
	}
}
