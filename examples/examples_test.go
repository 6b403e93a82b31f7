package examples_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/cli"
)

// TestExamplesAreClean checks each example as a user would: nothing is to be said about it.
func TestExamplesAreClean(t *testing.T) {
	used := map[string]bool{}
	f := func(files ...string) {
		t.Helper()
		args := []string{"check", "-o", "json", "--fail-on", "info"}
		for _, file := range files {
			used[file] = true
			args = append(args, "-f", file)
		}
		var out, errs strings.Builder
		code := cli.Run(context.Background(), args, strings.NewReader(""), &out, &errs)
		var found struct{ Findings []any }
		if err := json.Unmarshal([]byte(out.String()), &found); err != nil {
			t.Fatal(err)
		}
		if code != 0 || len(found.Findings) != 0 {
			t.Errorf("%v: exit code %d\n%s%s", files, code, out.String(), errs.String())
		}
	}
	f("storefront/resilience.yaml", "storefront/services.yaml", "storefront/traffic.yaml", "storefront/workloads.yaml")
	f("canary/http-route-canary.yaml")
	f("helloworld/helloworld-split.yaml")
	f("grpc/grpc-route.yaml", "grpc/virtual-service.yaml")
	base := []string{"bookinfo/bookinfo.yaml", "bookinfo/destination-rules.yaml", "bookinfo/gateway.yaml"}
	f(base...)
	for _, routes := range []string{"virtual-service-all-v1.yaml", "virtual-service-90-10.yaml", "virtual-service-reviews-test-v2.yaml"} {
		f(append(base[:len(base):len(base)], "bookinfo-routes/"+routes)...)
	}
	err := filepath.WalkDir(".", func(file string, _ os.DirEntry, err error) error {
		if filepath.Ext(file) == ".yaml" && !used[filepath.ToSlash(file)] {
			t.Errorf("%s is not checked", file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
