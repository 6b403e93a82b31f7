package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// The environment variables that make the test binary a client of gRPC's interoperability tests, which end the process
// when they fail: the case, where to dial, and the authority to ask for.
const (
	interopCase      = "OUTRIDER_E2E_INTEROP"
	interopTarget    = "OUTRIDER_E2E_INTEROP_TARGET"
	interopAuthority = "OUTRIDER_E2E_INTEROP_AUTHORITY"
)

// interopCases are gRPC's own cases, but for those about credentials of Google's.
var interopCases = map[string]func(context.Context, *grpc.ClientConn){
	"empty_unary":                 onService(interop.DoEmptyUnaryCall),
	"large_unary":                 onService(interop.DoLargeUnaryCall),
	"client_streaming":            onService(interop.DoClientStreaming),
	"server_streaming":            onService(interop.DoServerStreaming),
	"ping_pong":                   onService(interop.DoPingPong),
	"empty_stream":                onService(interop.DoEmptyStream),
	"timeout_on_sleeping_server":  onService(interop.DoTimeoutOnSleepingServer),
	"cancel_after_begin":          onService(interop.DoCancelAfterBegin),
	"cancel_after_first_response": onService(interop.DoCancelAfterFirstResponse),
	"status_code_and_message":     onService(interop.DoStatusCodeAndMessage),
	"special_status_message":      onService(interop.DoSpecialStatusMessage),
	"custom_metadata":             onService(interop.DoCustomMetadata),
	"unimplemented_method": func(ctx context.Context, c *grpc.ClientConn) {
		interop.DoUnimplementedMethod(ctx, c)
	},
	"unimplemented_service": func(ctx context.Context, c *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(c))
	},
	"rpc_soak": func(ctx context.Context, c *grpc.ClientConn) {
		interop.DoSoakTest(ctx, soak(func() (*grpc.ClientConn, func()) { return c, func() {} }))
	},
	"channel_soak": func(ctx context.Context, _ *grpc.ClientConn) {
		interop.DoSoakTest(ctx, soak(func() (*grpc.ClientConn, func()) {
			c, err := interopChannel()
			if err != nil {
				interopFailed(err)
			}
			return c, func() { _ = c.Close() }
		}))
	},
}

func onService(f func(context.Context, testpb.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn) {
	return func(ctx context.Context, c *grpc.ClientConn) { f(ctx, testpb.NewTestServiceClient(c)) }
}

func soak(channel func() (*grpc.ClientConn, func())) interop.SoakTestConfig {
	iterations := 100
	if long {
		iterations = 2000
	}
	return interop.SoakTestConfig{
		RequestSize: 27_182, ResponseSize: 31_415, PerIterationMaxAcceptableLatency: time.Minute, OverallTimeout: 5 * time.Minute,
		ServerAddr: os.Getenv(interopTarget), NumWorkers: 4, Iterations: iterations, ChannelForTest: channel,
	}
}

func interopFailed(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func interopChannel() (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	target := os.Getenv(interopTarget)
	if rest, ok := strings.CutPrefix(target, "tls:"); ok {
		target = rest
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}) // who the server is, is tested elsewhere
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	if a := os.Getenv(interopAuthority); a != "" {
		options = append(options, grpc.WithAuthority(a))
	}
	return grpc.NewClient(target, options...)
}

// runInterop runs one case in this process; a case that fails ends the process with another code than 0.
func runInterop(name string) {
	c, err := interopChannel()
	if err != nil {
		interopFailed(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	interopCases[name](ctx, c)
	cancel()
	_ = c.Close()
	fmt.Println("passed", name)
}

// interop runs all cases against a target, in processes of their own.
func (m *mesh) interop(t *testing.T, target, authority string, environment ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range interopCases {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), interopCase+"="+name, interopTarget+"="+target, interopAuthority+"="+authority)
			cmd.Env = append(cmd.Env, environment...)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "passed "+name) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestInterop runs gRPC's interoperability cases through two sidecars, as a gRPC client reaches a service in a pod: h2c
// to the outbound listener, with the authority naming the service.
func TestInterop(t *testing.T) {
	t.Parallel()
	text, apps := grpcMesh(startInterop(t, "v1"))
	m := up(t, text, apps)
	m.interop(t, "passthrough:///"+m.ready.Proxy, "calls:9000")
}

// TestInteropByConnect runs them as a gRPC client does that was told of an HTTP proxy by its environment.
func TestInteropByConnect(t *testing.T) {
	t.Parallel()
	text, apps := grpcMesh(startInterop(t, "v1"))
	m := up(t, text, apps)
	m.interop(t, "dns:///calls:9000", "", "HTTPS_PROXY=http://"+m.ready.Proxy, "NO_PROXY=")
}

// TestInteropUndeclared runs them on a port whose protocol nobody declared: HTTP/2 is found by its first bytes.
func TestInteropUndeclared(t *testing.T) {
	t.Parallel()
	text, apps := grpcMesh(startInterop(t, "v1"))
	m := up(t, strings.ReplaceAll(text, "name: grpc,", "name: data,"), apps)
	m.interop(t, "passthrough:///"+m.ready.Proxy, "calls:9000")
}
