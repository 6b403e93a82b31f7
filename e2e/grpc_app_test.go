package e2e

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/orca"

	"github.com/outrider-mesh/outrider/local"
)

// grpcService is the YAML of a Service whose port 9000 is declared as gRPC.
func grpcService(name, labels string) string {
	return "---\napiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {selector: {" + labels + "}, ports: [{name: grpc, port: 9000, targetPort: 8080}]}\n"
}

// grpcMesh is a service "calls" of gRPC, with the versions that the applications play, in order v1, v2...
func grpcMesh(apps ...string) (text string, change func(*local.Options)) {
	text = grpcService("calls", "app: calls")
	subsets := ""
	var placed []local.App
	for i, app := range apps {
		v := "v" + string(rune('1'+i))
		text += workload("calls", v, 1) + grpcService("calls-"+v, "app: calls, version: "+v)
		subsets += "\n    - {name: " + v + ", labels: {version: " + v + "}}"
		placed = append(placed, local.App{Namespace: "default", Workload: "calls-" + v, Port: 8080, Addresses: []string{app}})
	}
	text += "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: calls}\nspec:\n  host: calls\n  subsets:" + subsets + "\n"
	return text, func(o *local.Options) { o.Apps = placed }
}

// startInterop serves gRPC's own test service inside the test, and returns where. Each answer's header says the name,
// and how many milliseconds the call had left when it came ("-" where it had no deadline).
func startInterop(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newInterop(name)
	done := make(chan struct{})
	go func() { // ends with Stop
		_ = s.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

// untilEnded is the request header that makes a stream last until the caller, or its deadline, ends it.
const untilEnded = "until-ended"

func newInterop(name string) *grpc.Server {
	tell := func(ctx context.Context) metadata.MD {
		left := "-"
		if d, ok := ctx.Deadline(); ok {
			left = time.Until(d).String()
		}
		return metadata.Pairs("served-by", name, "time-left", left)
	}
	s := grpc.NewServer(orca.CallMetricsServerOption(nil), grpc.MaxConcurrentStreams(1000),
		grpc.WaitForHandlers(true), // some of gRPC's own sleep on after their call was cancelled

		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := grpc.SetHeader(ctx, tell(ctx)); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(server any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := s.SetHeader(tell(s.Context())); err != nil {
				return err
			}
			if asked, _ := metadata.FromIncomingContext(s.Context()); asked.Get(untilEnded) != nil {
				<-s.Context().Done()
				return s.Context().Err()
			}
			return next(server, s)
		}))
	testpb.RegisterTestServiceServer(s, interop.NewTestServer())
	return s
}

// dialGRPC opens a channel to an address that calls what authority names.
func dialGRPC(t *testing.T, address, authority string, more ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority), grpc.WithNoProxy(),
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// calls opens a channel to a service by the local client's proxy, h2c with the authority naming the service.
func (m *mesh) calls(authority string, more ...grpc.DialOption) testpb.TestServiceClient {
	m.t.Helper()
	return testpb.NewTestServiceClient(dialGRPC(m.t, m.ready.Proxy, authority, more...))
}

// patience is a context for one call that should take no time.
func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// whoServes calls once and returns the version that answered.
func whoServes(ctx context.Context, c testpb.TestServiceClient) (string, error) {
	var header metadata.MD
	if _, err := c.EmptyCall(ctx, &testpb.Empty{}, grpc.Header(&header)); err != nil {
		return "", err
	}
	return header.Get("served-by")[0], nil
}
