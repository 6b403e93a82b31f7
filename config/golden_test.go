package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
)

var update = flag.Bool("update", false, "rewrite the .golden files")

// transcript is what a file reads as: findings, rejected names, objects with their content.
func transcript(t *testing.T, path string, contents bool) string {
	t.Helper()
	files, err := Load([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range files.Findings {
		code := f.Code
		if code != "" {
			code = " " + code
		}
		fmt.Fprintf(&b, "%s %s%s %s\n", f.Severity, f.ID, code, strings.Replace(f.String(), filepath.ToSlash(path), filepath.Base(path), -1))
	}
	for _, f := range files.Files {
		for _, k := range f.Rejected {
			fmt.Fprintf(&b, "rejected %s %s/%s\n", k.Kind, k.Namespace, k.Name)
		}
		if f.Broken {
			b.WriteString("broken\n")
		}
	}
	for _, o := range files.Objects {
		fmt.Fprintf(&b, "%d:%d %s/%s %s %s/%s\n", o.Source.Line, o.Source.Column, o.Group, o.Version, o.Kind, o.Namespace, o.Name)
		if contents {
			b.WriteString("  " + spec(t, o) + "\n")
		}
	}
	return b.String()
}

// spec is an object's content as JSON, the same in every run; of a Secret, only what may be shown.
func spec(t *testing.T, o *Object) string {
	t.Helper()
	if s, ok := o.Spec.(*corev1.Secret); ok {
		out := "type " + string(s.Type)
		for _, k := range slices.Sorted(maps.Keys(s.Data)) {
			out += fmt.Sprintf(" %s(%d bytes)", k, len(s.Data[k]))
		}
		return out + fmt.Sprintf(" stringData %d", len(s.StringData))
	}
	data, err := json.Marshal(o.Spec)
	if m, ok := o.Spec.(proto.Message); ok {
		data, err = protojson.Marshal(m)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil { // protojson varies its white space on purpose
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*/*")
	if err != nil || len(paths) == 0 {
		t.Fatal("no test data", err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, ".golden") {
			continue
		}
		t.Run(strings.TrimPrefix(path, "testdata/"), func(t *testing.T) {
			got := transcript(t, path, strings.Contains(path, "/valid/"))
			golden := path + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}
