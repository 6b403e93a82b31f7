package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// TestGRPCurl asks a mesh of stand-ins with grpcurl, which knows of the service what reflection tells: through two sidecars,
// by the names that the cluster has.
func TestGRPCurl(t *testing.T) {
	t.Parallel()
	grpcurl, err := exec.LookPath("grpcurl")
	if err != nil {
		t.Skip("grpcurl is not installed: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3")
	}
	m := up(t, named80("grpc"))
	f := func(authority, want string, arguments ...string) {
		t.Helper()
		arguments = append([]string{"-plaintext", "-authority", authority}, arguments...)
		out, _ := exec.CommandContext(t.Context(), grpcurl, arguments...).CombinedOutput() // the text tells of failures, too
		for line := range strings.Lines(want) {
			if !strings.Contains(string(out), strings.TrimSuffix(line, "\n")) {
				t.Errorf("grpcurl %q does not say %q: %s", arguments, line, out)
			}
		}
	}
	at := m.ready.Proxy
	f("web", "grpc.health.v1.Health\ngrpc.reflection.v1.ServerReflection\noutrider.echo.v1.Echo", at, "list")
	f("web", "rpc Chat ( stream .outrider.echo.v1.EchoRequest ) returns ( stream .outrider.echo.v1.EchoResponse );", at, "describe", "outrider.echo.v1.Echo")
	f("web", `"message": "hello"`+"\n"+`"instance": "web-v1-0"`+"\n"+`"x-of-ours": "1"`, "-H", "x-of-ours: 1", "-d", `{"message": "hello"}`, at, "outrider.echo.v1.Echo/Echo")
	f("web", `"sequence": 3`, "-d", `{"message": "a"} {"message": "b"} {"message": "c"}`, at, "outrider.echo.v1.Echo/Chat")
	f("web", `"status": "SERVING"`, at, "grpc.health.v1.Health/Check")
	f("web:81", "Unavailable\nweb.default.svc.cluster.local does not serve this port", at, "list")
	// An answer of the mesh's own is a status with a message, which grpcurl shows as it would the application's.
	f("web", "Unavailable", "-H", "outrider-stand-in: status=503", "-d", "{}", at, "outrider.echo.v1.Echo/Echo")
}
