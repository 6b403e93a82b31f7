package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The one finding that a text must give.
func only(t *testing.T, f File) Finding {
	t.Helper()
	if len(f.Findings) != 1 {
		t.Fatalf("want one finding, got %v", f.Findings)
	}
	return f.Findings[0]
}

func TestPosition(t *testing.T) {
	f := Decode("a.yaml", []byte(`# first line
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: a
  labels: {app.kubernetes.io/name: x}
spec:
  hosts:
  - a
  http:
  - route: [{destination: {host: a}}]
  - match:
    - headers:
        end-user: {exact: "ü", }
      uri:   {prefix: /}
    route:
      - destination: {host: a}
        weight: 5
`))
	if len(f.Objects) != 1 {
		t.Fatal(f.Findings)
	}
	o := f.Objects[0]
	at := func(field string, line, column int) {
		t.Helper()
		if got := o.Position(field); got != (Source{"a.yaml", line, column}) {
			t.Errorf("%s: got %v, want %d:%d", field, got, line, column)
		}
	}
	at("", 2, 1)
	at("metadata.labels[app.kubernetes.io/name]", 6, 12)
	at("spec.http[1]", 12, 5)
	at("spec.http[1].match[0].headers[end-user].exact", 14, 20)
	at("spec.http[1].match[0].headers.end-user", 14, 9)
	at("spec.http[1].match[0].uri", 15, 7)
	at("spec.http[1].match[0].uri.prefix", 15, 15)
	at("spec.http[1].route[0].weight", 18, 9)
	// What is not written stands where the nearest enclosing field does.
	at("spec.http[1].timeout", 12, 5)
	at("spec.http[7].timeout", 10, 3)
	at("nothing", 2, 1)
	at("spec.hosts[x]", 8, 3)
	if o.Has("spec.http[1].timeout") || !o.Has("spec.http[1].route") || o.Has("spec.hosts[1]") {
		t.Error("Has is wrong")
	}
	w := o.Finding("OR2001", Warning, "spec.http[1].route[0].weight", "has no effect", "remove it")
	if got, want := w.String(), "a.yaml:18:9: VirtualService default/a: spec.http[1].route[0].weight: has no effect; remove it"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if (&Object{Source: Source{"b", 1, 2}}).Position("x") != (Source{"b", 1, 2}) {
		t.Error("an object without text must give its source")
	}
}

func TestFindingJSON(t *testing.T) {
	f := Decode("a.yaml", []byte("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{prt: 1}]}\n"))
	got, err := json.Marshal(f.Findings)
	want := `[{"id":"OR1007","code":"IST0106","severity":"error","kind":"Service","namespace":"default","name":"a","file":"a.yaml","line":4,"column":17,` +
		`"message":"spec.ports[0].prt: unknown field","remedy":"did you mean port?"}]`
	if err != nil || string(got) != want {
		t.Errorf("got %s %v, want %s", got, err, want)
	}
}

// Messages decode as protojson does: the same text, brought to JSON and to protojson's durations, gives an equal message.
func TestProtojsonAgrees(t *testing.T) {
	text := `
hosts: [a]
gateways: [mesh]
exportTo: ["."]
http:
- name: first
  match: [{uri: {regex: x}, port: 80, sourceLabels: {a: b}, ignoreUriCase: true, withoutHeaders: {h: {}}}]
  route: [{destination: {host: h, port: {number: 8}}, weight: 3, headers: {request: {set: {a: b}, remove: [c]}}}]
  timeout: 1.5s
  retries: {attempts: 2, perTryTimeout: 0.25s, retryRemoteLocalities: false}
  fault: {delay: {percentage: {value: 0.5}, fixedDelay: 5s}, abort: {grpcStatus: UNAVAILABLE}}
  mirrorPercent: 3
  corsPolicy: {allowCredentials: true, unmatchedPreflights: IGNORE, allowOrigins: [{prefix: p}]}
- redirect: {derivePort: FROM_REQUEST_PORT, redirectCode: 302}
- directResponse: {status: 200, body: {bytes: aGVsbG8=}}
`
	spec := strings.ReplaceAll(text, "\n", "\n  ")
	f := Decode("a.yaml", []byte("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:"+spec))
	if len(f.Objects) != 1 {
		t.Fatal(f.Findings)
	}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := &networkingv1.VirtualService{}
	if err := protojson.Unmarshal(data, want); err != nil {
		t.Fatal(err)
	}
	if got := f.Objects[0].Spec.(*networkingv1.VirtualService); !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Kubernetes objects decode as kubectl's YAML library does.
func TestKubernetesAgrees(t *testing.T) {
	text := `
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: shop, annotations: {a: "1"}, creationTimestamp: "2026-01-02T03:04:05Z", ownerReferences: [{apiVersion: v1, kind: K, name: o, uid: u, controller: yes}]}
spec:
  terminationGracePeriodSeconds: 0o17
  priority: 0x10
  hostNetwork: off
  containers:
  - name: c
    command: [sh, -c, 'echo "x"']
    args:
    - |
      one
      two
    ports: [{containerPort: 8_080, protocol: TCP}]
    resources: {limits: {memory: 1Gi, cpu: 1.5}}
    livenessProbe: {httpGet: {port: web, path: /}, periodSeconds: 3}
    env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  volumes: [{name: v, configMap: {name: m, defaultMode: 0644}}]
  tolerations: [{operator: Exists}]
`
	f := Decode("a.yaml", []byte(text))
	if len(f.Objects) != 1 {
		t.Fatal(f.Findings)
	}
	want := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), want); err != nil {
		t.Fatal(err)
	}
	got := f.Objects[0].Spec.(*corev1.Pod)
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

// Plain values resolve as they do for kubectl: YAML 1.1 with its yes and no, old octals, dates as text.
func TestScalarsAgree(t *testing.T) {
	for _, plain := range []string{
		"n", "y", "Y", "on", "No", "yes", "OFF", "true", "~", "null", "2026-01-02", "0x1F", "017", "0o17", "0b11", "1_000", ".5", "-.5", "1.", "0.", "09",
		"1e3", "10.0", "+5", "1:30", "190:20:30", "685_230.15", "1e400", "!!str 5", "!!bool yes", "\"5\"", "'yes'", "0.10", "-0",
	} {
		f := func(data []byte) (v any) {
			if err := json.Unmarshal(data, &v); err != nil {
				t.Errorf("%s: %v", plain, err)
			}
			return v
		}
		text := []byte("a: " + plain)
		data, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(plain, err)
		}
		n, flaw := parseYAML(document{data: text}, new(int))
		if flaw != nil {
			t.Fatal(plain, flaw)
		}
		if got, want := f(appendJSON(nil, n)), f(data); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", plain, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine decodes: the race detector has nothing to find, and takes minutes for these")
	}
	const head = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: a\n"
	check := func(name, path, text, message string) {
		t.Helper()
		f := Decode(path, []byte(text))
		w := only(t, f)
		if w.ID != idLimit || !strings.Contains(w.Message, message) {
			t.Errorf("%s: got %v, want %q", name, w, message)
		}
	}
	laughs := head + "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
	for i := 1; i < 30; i++ {
		laughs += fmt.Sprintf("x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 10), ", "))
	}
	check("laughs", "a.yaml", laughs, "200000")
	check("laughs in merge keys", "a.yaml", strings.ReplaceAll(strings.ReplaceAll(laughs, "[a,", "[{a: b},"), ": &", ": &"), "200000")
	check("wide alias", "a.yaml", head+"x: &x ["+strings.Repeat("a,", 150_000)+"a]\ny: [*x, *x]\n", "200000")
	check("deep flow", "a.yaml", head+"x: "+strings.Repeat("[", 200)+strings.Repeat("]", 200)+"\n", "100")
	check("deep alias", "a.yaml", head+"x: &x "+strings.Repeat("[", 60)+strings.Repeat("]", 60)+"\ny: "+strings.Repeat("[", 60)+"*x"+strings.Repeat("]", 60)+"\n", "100")
	check("deep JSON", "a.json", strings.Repeat("[", 200), "100")
	check("many values", "a.yaml", head+"x: ["+strings.Repeat("1,", 500_001)+"]\n", "500000")
	check("many lines", "a.yaml", head+"x:\n"+strings.Repeat("- 1\n", 500_001), "500000")
	check("many JSON values", "a.json", `{"a": [`+strings.Repeat("1,", 500_001)+"1]}", "500000")
	check("long document", "a.yaml", head+"x: "+strings.Repeat("y", maxDocument)+"\n", fmt.Sprint(maxDocument))
	check("long file", "a.yaml", strings.Repeat("#", maxFile+1), fmt.Sprint(maxFile))
}

// A file of more than ten megabytes is read, and what it costs is bounded by its size.
func TestLargeFile(t *testing.T) {
	var b strings.Builder
	count, size := 0, 11<<20
	if raceEnabled {
		size = 1 << 20
	}
	for ; b.Len() < size; count++ {
		fmt.Fprintf(&b, sample, count, count)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := Decode("a.yaml", []byte(b.String()))
	runtime.ReadMemStats(&after)
	if len(f.Objects) != count || len(f.Findings) != 0 {
		t.Errorf("got %d of %d objects, %v", len(f.Objects), count, f.Findings)
	}
	bound := uint64(120)
	if raceEnabled {
		bound = 160 // it allocates for itself
	}
	if per := (after.TotalAlloc - before.TotalAlloc) / uint64(b.Len()); per > bound {
		t.Errorf("%d bytes allocated for each byte of text", per)
	}
}

func TestManyFindings(t *testing.T) {
	bad := "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n"
	for i := range 1000 {
		bad += fmt.Sprintf("  unknown%d: 1\n", i)
	}
	f := Decode("a.yaml", []byte(bad))
	if len(f.Findings) != maxFindings+1 {
		t.Errorf("got %d findings of one object", len(f.Findings))
	}
	f = Decode("a.yaml", []byte(strings.Repeat("apiVersion: v1\nkind: Servce\nmetadata: {name: a}\n---\n", 1000)))
	if len(f.Findings) != maxPerFile+1 || !strings.Contains(f.Findings[maxPerFile].Message, "800 more") {
		t.Errorf("got %d findings of one file, %v", len(f.Findings), f.Findings[len(f.Findings)-1])
	}
	f = Decode("a.yaml", []byte(strings.Repeat("a: [\n---\n", 100_000)))
	if len(f.Findings) != maxPerFile+1 || !f.Broken {
		t.Errorf("got %d findings of a hopeless file, broken %v", len(f.Findings), f.Broken)
	}
}

func TestLists(t *testing.T) {
	f := func(text string, objects, unused int, finding string) {
		t.Helper()
		got := Decode("a.yaml", []byte(text))
		n := 0
		for _, c := range got.Unused {
			n += c
		}
		if len(got.Objects) != objects || n != unused {
			t.Errorf("%s: got %d objects and %d unused, want %d and %d, %v", text, len(got.Objects), n, objects, unused, got.Findings)
		}
		if finding == "" && len(got.Findings) > 0 || finding != "" && (len(got.Findings) == 0 || got.Findings[0].String() != finding) {
			t.Errorf("%s: got %v, want %s", text, got.Findings, finding)
		}
	}
	const item = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}"
	f("{apiVersion: v1, kind: List, items: ["+item+"]}", 1, 0, "")
	f("{kind: List, items: ["+item+"]}", 1, 0, "")
	f("{apiVersion: v1, kind: List}", 0, 0, "")
	f("{apiVersion: v1, kind: List, items: null}", 0, 0, "")
	f("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List, items: ["+item+"]}]}", 1, 0, "")
	f("{apiVersion: v1, kind: ServiceAccountList, items: [{metadata: {name: a}}]}", 1, 0, "")
	f("{apiVersion: example.com/v1, kind: AllowList, metadata: {name: a}}", 0, 1, "")
	f("{apiVersion: v1, kind: List, items: {a: b}}", 0, 0, "a.yaml:1:37: the items of a List must be a list of objects; begin each item with a dash")
	f("{apiVersion: v1, kind: List, items: [1]}", 0, 0, "a.yaml:1:38: the document is a number, not an object; write apiVersion, kind, metadata and spec")
	f(item+"\n"+item, 0, 0, "a.yaml:2:1: a second document begins without --- on a line of its own; put --- on a line between two documents")
	f(`{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}} {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "b"}}`, 2, 0, "")
	f("---\n"+item+"\n--- "+item+"\n... # end\n", 2, 0, "")
	f("\ufeff# only a comment\n", 0, 0, "")
	f("a: 1\r--- \rb: 2\r", 0, 0, "a.yaml:2:1: a second document begins without --- on a line of its own; put --- on a line between two documents")
}

func TestNamespace(t *testing.T) {
	text := []byte("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: b, namespace: c}}\n- {apiVersion: v1, kind: ServiceAccount, metadata: {name: d, namespace: e}}\n")
	f := Options{Namespace: "shop"}.Decode("a.yaml", text)
	var got []string
	for _, o := range f.Objects {
		got = append(got, o.Namespace+"/"+o.Name)
	}
	if want := []string{"shop/a", "/b", "e/d"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v, %v", got, want, f.Findings)
	}
	if n := f.Objects[0].Spec.(*corev1.ServiceAccount).Namespace; n != "shop" {
		t.Errorf("the content is in namespace %q", n)
	}
}

// Each id is described once, in order, and every finding of the test data has a described id.
func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for i, d := range IDs {
		if seen[d.ID] || d.Meaning == "" || !findingID.MatchString(d.ID) || i > 0 && d.ID < IDs[i-1].ID {
			t.Errorf("the description of %s is wrong", d.ID)
		}
		seen[d.ID] = true
	}
	if len(codes) != len(IDs) {
		t.Error("an id is described twice")
	}
}

func TestMeshConfig(t *testing.T) {
	m, findings := MeshConfig([]byte("trustDomain: td\ndefaultServiceExportTo: [\".\"]\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\nunknown: 1\nconnectTimeout: never\n"), Source{"m.yaml", 1, 1})
	var got []string
	for _, f := range findings {
		got = append(got, string(f.Severity)+" "+f.String())
	}
	want := []string{
		"warning m.yaml:4:1: MeshConfig: unknown: unknown field; remove it",
		"error m.yaml:5:1: MeshConfig: connectTimeout: must be a duration, and never is a string; write such as 100ms, 5s or 1m30s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if m.TrustDomain != "td" || m.RootNamespace != "istio-system" || !reflect.DeepEqual(m.DefaultServiceExportTo, []string{"."}) || !reflect.DeepEqual(m.DefaultVirtualServiceExportTo, []string{"*"}) ||
		m.OutboundTrafficPolicy.Mode.String() != "REGISTRY_ONLY" || !m.EnableAutoMtls.Value || !m.LocalityLbSetting.Enabled.Value || m.ConnectTimeout.AsDuration() < 0 {
		t.Errorf("got %v", m)
	}
	m, findings = MeshConfig(nil, Source{"m.yaml", 1, 1})
	if len(findings) > 0 || m.OutboundTrafficPolicy.Mode.String() != "ALLOW_ANY" || m.ConnectTimeout.AsDuration().Seconds() != 10 {
		t.Errorf("got %v %v", m, findings)
	}

	f := Decode("c.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    rootNamespace: r\n    trustDomian: td\n"))
	if w, want := only(t, f).String(), "c.yaml:7:5: ConfigMap istio-system/istio: data.mesh.trustDomian: unknown field; did you mean trustDomain?"; w != want || len(f.Objects) != 1 {
		t.Errorf("got %s, want %s", w, want)
	} else if m, _ := f.Objects[0].MeshConfig(); m.RootNamespace != "r" {
		t.Errorf("got %v", m)
	}
	f = Decode("c.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    a: [\n"))
	if w := only(t, f); w.Line != 6 || w.Severity != Error || len(f.Objects) != 0 {
		t.Errorf("got %v", w)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "a: b", "---\n---\n", "{", "a: &a [*a]", "<<: {a: b}", "\t", "- - -", "? a", "kind: List\napiVersion: v1\nitems:\n- x", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n# outrider:ignore OR1234 x\n", "a: {{ b }}", "%YAML 1.1\n---\na: !!binary x"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	paths, err := filepath.Glob("testdata/*/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		if !strings.HasSuffix(path, ".golden") {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text), strings.HasSuffix(path, ".json"))
		}
	}
	f.Fuzz(func(t *testing.T, text string, isJSON bool) {
		name := "a.yaml"
		if isJSON {
			name = "a.json"
		}
		got := Decode(name, []byte(text))
		if len(got.Findings) > maxPerFile+1 {
			t.Errorf("%d findings", len(got.Findings))
		}
		lines := strings.Count(text, "\n") + strings.Count(text, "\r") + strings.Count(text, "\u2028") + strings.Count(text, "\u2029") + strings.Count(text, "\u0085") + 2
		for _, w := range got.Findings {
			if w.ID == "" || w.Message == "" || w.File != name || w.Line < 1 || w.Line > lines || w.Column < 1 {
				t.Errorf("finding %#v", w)
			}
		}
		for _, o := range got.Objects {
			if o.Name == "" || o.Spec == nil || o.Source.Line < 1 {
				t.Errorf("object %#v", o)
			}
		}
		if got := Decode(name, []byte(text)); len(got.Findings) > 0 && got.Findings[0].String() == "" {
			t.Error("an empty finding")
		}
	})
}

const sample = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews-%d
  namespace: default
  labels: {app: reviews}
spec:
  hosts:
  - reviews-%d
  http:
  - match:
    - headers:
        end-user:
          exact: jason
    route:
    - destination:
        host: reviews
        subset: v2
  - route:
    - destination:
        host: reviews
        subset: v1
      weight: 90
    - destination:
        host: reviews
        subset: v3
      weight: 10
    timeout: 5s
---
`

// A mesh of 2,000 objects, of five kinds.
func BenchmarkDecode(b *testing.B) {
	var text strings.Builder
	for i := range 400 {
		fmt.Fprintf(&text, sample, i, i)
		fmt.Fprintf(&text, "apiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec:\n  selector: {app: a}\n  ports:\n  - {name: http, port: 80, targetPort: 8080}\n---\n", i)
		fmt.Fprintf(&text, "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: a%d\n---\n", i)
		fmt.Fprintf(&text, "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d%d\n  labels: {app: a}\nspec:\n  replicas: 2\n  selector:\n    matchLabels: {app: a}\n  template:\n    metadata:\n      labels: {app: a, version: v1}\n    spec:\n      containers:\n      - name: c\n        image: image:1\n        ports:\n        - containerPort: 8080\n---\n", i)
		fmt.Fprintf(&text, "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: r%d\nspec:\n  host: reviews\n  subsets:\n  - name: v1\n    labels: {version: v1}\n  - name: v2\n    labels: {version: v2}\n---\n", i)
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if f := Decode("a.yaml", data); len(f.Objects) != 2000 {
			b.Fatal(len(f.Objects), f.Findings)
		}
	}
}
