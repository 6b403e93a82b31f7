package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEditUnderTraffic(t *testing.T) {
	base := documents(webService, subsets, deployment("v1", 1, ""), deployment("v2", 1, ""))
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"base.yaml": base, "split.yaml": split(100, 0)})
	if _, e, _ := f.get("http://web/"); e.Version != "v1" {
		t.Fatalf("before: %+v", e)
	}
	stop := f.traffic("http://web/")
	for i := range 6 {
		want := "v2"
		if i%2 == 1 {
			want = "v1"
		}
		saved := time.Now()
		f.write("split.yaml", split(100*(i%2), 100*(1-i%2)))
		f.until("requests go to "+want, func() bool {
			_, e, _ := f.get("http://web/")
			return e.Version == want
		})
		t.Logf("the edit took effect after %v", time.Since(saved))
	}
	sent, failed := stop()
	if len(failed) > 0 || sent < 100 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
	if want := "changed VirtualService default/web (" + filepath.Join(f.dir, "split.yaml") + ":1)\n"; !strings.Contains(f.talk.String(), want) {
		t.Errorf("people are not told %q:\n%s", want, f.talk)
	}
	if !strings.Contains(f.talk.String(), "a new configuration: ") {
		t.Errorf("people are not told who has it:\n%s", f.talk)
	}
}

func TestWorkloadsComeAndGoUnderTraffic(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{
		"service.yaml": webService, "v1.yaml": deployment("v1", 2, ""),
	})
	instances := func() string {
		var out []string
		for _, w := range f.Ready().Workloads {
			if w.Name != "local" {
				out = append(out, w.Instance)
			}
		}
		return strings.Join(out, " ")
	}
	before := f.Ready()
	stop := f.traffic("http://web/")
	f.write("v2.yaml", deployment("v2", 2, ""))
	f.until("v2 runs", func() bool { return instances() == "web-v1-0 web-v1-1 web-v2-0 web-v2-1" })
	f.until("v2 is asked", func() bool { _, e, _ := f.get("http://web/"); return e.Version == "v2" })
	if after := f.Ready(); after.Workloads[1].Address != before.Workloads[1].Address || after.Workloads[1].Inbound[0] != before.Workloads[1].Inbound[0] {
		t.Errorf("an instance moved: %+v, then %+v", before.Workloads[1], after.Workloads[1])
	}
	f.write("v1.yaml", deployment("v1", 1, "")) // one instance fewer
	f.until("one instance is gone", func() bool { return instances() == "web-v1-0 web-v2-0 web-v2-1" })
	if err := os.Remove(filepath.Join(f.dir, "v1.yaml")); err != nil {
		t.Fatal(err)
	}
	f.until("v1 is gone", func() bool { return instances() == "web-v2-0 web-v2-1" })
	f.until("people know", func() bool { return strings.Contains(f.talk.String(), "removed Deployment default/web-v1") })
	for range 20 {
		if status, e, reason := f.get("http://web/"); e.Version != "v2" {
			t.Fatalf("%d %s %+v", status, reason, e)
		}
	}
	if sent, failed := stop(); len(failed) > 0 || sent < 100 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
}

func TestBrokenEditKeepsTheOld(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{
		"base.yaml": documents(webService, subsets, deployment("v1", 1, ""), deployment("v2", 1, "")), "split.yaml": split(100, 0),
	})
	version := func(want string) bool { _, e, _ := f.get("http://web/"); return e.Version == want }
	told := func(want string) {
		t.Helper()
		f.until("people are told "+want, func() bool { return strings.Contains(f.talk.String(), want) })
	}
	path := filepath.Join(f.dir, "split.yaml")

	// One object is wrong; the rest of the change is applied.
	f.write("split.yaml", documents(strings.Replace(split(0, 100), "route:", "rowte:", 1), strings.ReplaceAll(webService, "web", "other")))
	told("error: " + path + ":7:5: VirtualService default/web: ")
	told("added Service default/other")
	told("kept VirtualService default/web (" + path + ":1): its last good version stays in force")
	if !version("v1") {
		t.Error("the last good version must stay")
	}
	// The text is so broken that documents cannot be told apart.
	f.write("split.yaml", "\t{{{\n  ]]: nonsense\n")
	told("error: " + path + ":1:")
	if !version("v1") {
		t.Error("the last good version must stay")
	}
	if got := len(f.State().Findings); got == 0 {
		t.Error("the finding must stay too")
	}
	f.write("split.yaml", split(0, 100))
	f.until("the corrected version is in force", func() bool { return version("v2") })
	f.until("nothing is found in corrected files", func() bool { return len(f.State().Findings) == 0 })
}
