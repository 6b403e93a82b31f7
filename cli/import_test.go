package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImport(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("application.properties", "hystrix.command.GetRatings.circuitBreaker.requestVolumeThreshold=5\nhystrix.command.GetRatings.requestCache.enabled=true\n")
	bad := write("bad.properties", "hystrix.command.a.circuitBreaker.requestVolumeThreshold=five\n")
	resilience := write("application.yml", "resilience4j.circuitbreaker.instances.ratings: {slidingWindowType: TIME_BASED, slidingWindowSize: 10}\n")
	service := write("service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: ratings, namespace: shop}\nspec: {selector: {app: ratings}, ports: [{name: http, port: 9080}]}\n")
	run := func(in string, args ...string) (code int, out, errs string) {
		var o, e bytes.Buffer
		code = Run(context.Background(), args, strings.NewReader(in), &o, &e)
		return code, o.String(), e.String()
	}
	f := func(code int, out, errs, in string, args ...string) {
		t.Helper()
		got, o, e := run(in, args...)
		if got != code || !strings.Contains(o, out) || !strings.Contains(e, errs) {
			t.Errorf("%q: exit code %d, want %d; out:\n%s\nerr:\n%s", args, got, code, o, e)
		}
	}
	f(0, "requestVolumeThreshold: 5", good+":2: note: hystrix.command.GetRatings.requestCache.enabled does not carry over", "", "import", "hystrix", good)
	f(0, "host: getratings", "1 CircuitBreaker\n", "", "import", "hystrix", good)
	f(0, "host: ratings.shop\n", "", "", "import", "hystrix", good, "--host", "GetRatings=ratings.shop")
	f(0, "namespace: shop\n", "", "", "import", "hystrix", good, "-n", "shop")
	f(1, "kind: CircuitBreaker", bad+":1: error: ", "", "import", "hystrix", bad)
	f(0, "kind: CircuitBreaker", "", "", "import", "resilience4j", resilience)
	f(0, "kind: CircuitBreaker", "", "resilience4j.bulkhead.instances.a.maxConcurrentCalls: 3", "import", "resilience4j", "-")
	f(0, "kind: CircuitBreaker", "", "hystrix.command.a.circuitBreaker.enabled=true", "import", "hystrix", "-")
	f(0, "import hystrix|resilience4j", "", "", "import")
	f(2, "", `cannot import from "spring"`, "", "import", "spring")
	f(2, "", "give one file", "", "import", "hystrix")
	f(2, "", "give one file", "", "import", "hystrix", good, bad)
	f(2, "", "no such file", "", "import", "hystrix", filepath.Join(dir, "absent.properties"))
	f(2, "", "no property of the tree \"hystrix\"", "", "import", "hystrix", resilience)
	f(2, "", "no property of the tree \"resilience4j\"", "", "import", "resilience4j", good)
	f(2, "", "cannot read the YAML", "a: [", "import", "resilience4j", "-")
	f(2, "", "cannot read --host", "", "import", "hystrix", good, "--host", "GetRatings")
	f(2, "", "twice", "", "import", "hystrix", good, "--host", "GetRatings=a", "--host", "GetRatings=b")
	f(2, "", "is not a valid host name", "", "import", "hystrix", good, "--host", "GetRatings=http://ratings")
	f(2, "", "is not a valid name", "", "import", "hystrix", good, "-n", "Shop")

	// What it prints is read by the rest, and guards what it is mapped to.
	_, out, _ := run("", "import", "hystrix", good, "--host", "GetRatings=ratings", "-n", "shop")
	f(0, "", "no findings", out, "check", "-f", service, "-f", "-")
	f(0, `"shop/getratings"`, "", out, "compile", "-f", service, "-f", "-", "--workload", "default/local")
	_, out, _ = run("", "import", "resilience4j", resilience)
	f(0, "OR2060", "1 warning", out, "check", "-f", service, "-f", "-")
}
