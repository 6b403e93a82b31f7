package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrider-mesh/outrider/local"
)

// callCounts calls n times on one channel, workers at a time, and counts who served.
func callCounts(t *testing.T, c testpb.TestServiceClient, n, workers int, headers ...string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next atomic.Int64
	for range workers {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				who, err := whoServes(metadata.AppendToOutgoingContext(t.Context(), headers...), c)
				if err != nil {
					who = err.Error()
				}
				mu.Lock()
				counts[who]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return counts
}

// virtual is a VirtualService of a host with the http routes of that YAML.
func virtual(host, routes string) string {
	return "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: " + host + "}\nspec:\n  hosts: [" + host + "]\n  http:\n" + routes
}

// virtualCalls is a VirtualService of "calls".
func virtualCalls(routes string) string { return virtual("calls", routes) }

// TestGRPCSplits shares calls on one channel between versions: each call is drawn for, not each connection.
func TestGRPCSplits(t *testing.T) {
	t.Parallel()
	const n = 2000
	text, apps := grpcMesh(startInterop(t, "v1"), startInterop(t, "v2"))
	f := func(name, objects string, weights map[string]float64, headers ...string) {
		t.Run(name, func(t *testing.T) {
			m := up(t, text+objects, apps)
			shared(t, callCounts(t, m.calls("calls:9000"), n, 16, headers...), weights)
		})
	}
	f("VirtualService", virtualCalls(`
  - route:
    - {destination: {host: calls, subset: v1}, weight: 80}
    - {destination: {host: calls, subset: v2}, weight: 20}
`), map[string]float64{"v1": 80, "v2": 20})
	f("VirtualService by method", virtualCalls(`
  - match: [{uri: {exact: /grpc.testing.TestService/EmptyCall}}]
    route: [{destination: {host: calls, subset: v2}}]
  - route: [{destination: {host: calls, subset: v1}}]
`), map[string]float64{"v2": 1})
	f("round robin without a route", "", map[string]float64{"v1": 1, "v2": 1})
	route := func(match string) string {
		return `---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{group: "", kind: Service, name: calls, port: 9000}]
  rules:
  - matches: [` + match + `]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: seen, value: "yes"}]}}]
    backendRefs: [{name: calls-v1, port: 9000, weight: 1}, {name: calls-v2, port: 9000, weight: 3}]
  - backendRefs: [{name: calls-v1, port: 9000}]
`
	}
	f("GRPCRoute by service", route("{method: {service: grpc.testing.TestService}}"), map[string]float64{"v1": 1, "v2": 3})
	f("GRPCRoute by method", route("{method: {service: grpc.testing.TestService, method: EmptyCall}}"), map[string]float64{"v1": 1, "v2": 3})
	f("GRPCRoute by another method", route("{method: {service: grpc.testing.TestService, method: UnaryCall}}"), map[string]float64{"v1": 1})
	f("GRPCRoute by a header", route("{headers: [{name: tier, value: gold}]}"), map[string]float64{"v1": 1, "v2": 3}, "tier", "gold")
	f("GRPCRoute by a header that is not there", route("{headers: [{name: tier, value: gold}]}"), map[string]float64{"v1": 1})
	f("GRPCRoute by a method's pattern", route(`{method: {type: RegularExpression, service: "grpc\\.[a-z]+\\..*", method: "Empty.*"}}`), map[string]float64{"v1": 1, "v2": 3})
}

// TestGRPCMetrics makes calls of every kind and finds exactly these in Istio's metrics, at client and server.
func TestGRPCMetrics(t *testing.T) {
	t.Parallel()
	text, apps := grpcMesh(startInterop(t, "v1"))
	m := up(t, text, prometheus, apps)
	c := m.calls("calls:9000")
	ctx := patience(t)
	for range 7 {
		if _, err := c.EmptyCall(ctx, &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.ResourceExhausted), Message: "no more"}})
		if s := status.Convert(err); s.Code() != codes.ResourceExhausted || s.Message() != "no more" {
			t.Fatal(err)
		}
	}
	if _, err := c.UnimplementedCall(ctx, &testpb.Empty{}); status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	in, err := c.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if err := in.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 3000)}}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := in.CloseAndRecv(); err != nil || got.AggregatedPayloadSize != 120_000 {
		t.Fatal(got, err)
	}
	both, err := c.FullDuplexCall(t.Context()) // it lasts while scrapes are waited for
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(responses int) {
		t.Helper()
		req := &testpb.StreamingOutputCallRequest{}
		for range responses {
			req.ResponseParameters = append(req.ResponseParameters, &testpb.ResponseParameters{Size: 100})
		}
		if err := both.Send(req); err != nil {
			t.Fatal(err)
		}
		for range responses {
			if _, err := both.Recv(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 10 {
		exchange(3)
	}
	// A stream's messages are told while it lasts.
	requests, responses := 7.0+3+1+40+10, 7.0+1+30
	sides := []string{`reporter="source",source_workload="local"`, `reporter="destination"`}
	messages := func(direction, side string) float64 {
		return m.value(`istio_` + direction + `_messages_total{` + side + `,destination_service_name="calls"}`)
	}
	for _, side := range sides {
		for deadline := time.Now().Add(time.Minute); ; {
			m.scraped()
			up, down := messages("request", side), messages("response", side)
			if up == requests && down == responses {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("with a stream open, %s counts %v and %v messages, want %v and %v", side, up, down, requests, responses)
				break
			}
		}
	}
	exchange(5)
	if err := both.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := both.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	m.scraped()
	f := m.counted
	for _, side := range sides {
		all := `istio_requests_total{` + side + `,destination_service_name="calls"`
		f(13, all+`,request_protocol="grpc"}`)
		f(0, all+`,request_protocol!="grpc"}`)
		f(13, all+`,response_code="200"}`)
		f(9, all+`,grpc_response_status="0"}`)
		f(3, all+`,grpc_response_status="8"}`)
		f(1, all+`,grpc_response_status="12"}`)
		f(requests+1, `istio_request_messages_total{`+side+`,destination_service_name="calls"}`)
		f(responses+5, `istio_response_messages_total{`+side+`,destination_service_name="calls"}`)
		f(13, `istio_request_duration_milliseconds_count{`+side+`,destination_service_name="calls"}`)
	}
	f(0, `sum(outrider_active_requests)`)
}

// TestGRPCDeadlines: the client's deadline reaches the server, capped by the route's timeout, and either ends the call.
func TestGRPCDeadlines(t *testing.T) {
	t.Parallel()
	text, apps := grpcMesh(startInterop(t, "v1"))
	m := up(t, text, apps)
	c := m.calls("calls:9000")
	left := func(t *testing.T, within time.Duration) time.Duration {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		var header metadata.MD
		if _, err := c.EmptyCall(ctx, &testpb.Empty{}, grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		d, err := time.ParseDuration(header.Get("time-left")[0])
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	end := func(t *testing.T, within time.Duration, want ...codes.Code) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		s, err := c.StreamingOutputCall(metadata.AppendToOutgoingContext(ctx, untilEnded, "yes"), &testpb.StreamingOutputCallRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		if !slices.Contains(want, status.Code(err)) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	t.Run("the client's alone", func(t *testing.T) {
		if got := left(t, time.Hour); got > time.Hour || got < 50*time.Minute {
			t.Errorf("the server has %v, want an hour", got)
		}
		end(t, 300*time.Millisecond, codes.DeadlineExceeded)
	})
	m.edit("route.yaml", virtualCalls("  - timeout: 15s\n    route: [{destination: {host: calls}}]\n"))
	t.Run("the route's is shorter", func(t *testing.T) {
		if got := left(t, time.Hour); got > 15*time.Second {
			t.Errorf("the server has %v, want the route's 15 s at most", got)
		}
	})
	t.Run("the client's is shorter", func(t *testing.T) {
		if got := left(t, 9*time.Second); got > 9*time.Second {
			t.Errorf("the server has %v, want the client's 9 s at most", got)
		}
	})
	m.edit("route.yaml", virtualCalls("  - timeout: 0.3s\n    route: [{destination: {host: calls}}]\n"))
	// The server has the route's timeout for its deadline, so it may be the one that ends the call.
	t.Run("the route's ends the call", func(t *testing.T) { end(t, time.Hour, codes.Unavailable, codes.DeadlineExceeded) })
}

// TestGRPCLocalAnswers asks for what cannot be had: the answers are gRPC's, with a message.
func TestGRPCLocalAnswers(t *testing.T) {
	t.Parallel()
	text, apps := grpcMesh(startInterop(t, "v1"))
	closed := "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"
	// One service has no endpoint at all, another one whose application is gone, and "calls" knows some paths only.
	text += grpcService("empty", "app: empty") + grpcService("gone", "app: gone") + workload("gone", "v1", 1) + virtualCalls(`
  - match: [{uri: {prefix: /grpc.testing.TestService/Empty}}]
    route: [{destination: {host: calls}}]
  - match: [{uri: {prefix: /grpc.testing.TestService/Unary}}]
    directResponse: {status: 403, body: {string: "not for you: 100 % ü"}}
`) + closed
	m := up(t, text, prometheus, func(o *local.Options) {
		apps(o)
		o.Apps = append(o.Apps, local.App{Namespace: "default", Workload: "gone-v1", Port: 8080, Addresses: []string{free(t, 1)[0]}})
	})
	f := func(name, authority string, call func(context.Context, testpb.TestServiceClient) error, code codes.Code, message string) {
		t.Helper()
		s := status.Convert(call(patience(t), m.calls(authority)))
		if s.Code() != code || !strings.Contains(s.Message(), message) {
			t.Errorf("%s: %v %q, want %v %q", name, s.Code(), s.Message(), code, message)
		}
	}
	empty := func(ctx context.Context, c testpb.TestServiceClient) error {
		_, err := c.EmptyCall(ctx, &testpb.Empty{})
		return err
	}
	unary := func(ctx context.Context, c testpb.TestServiceClient) error {
		_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{})
		return err
	}
	stream := func(ctx context.Context, c testpb.TestServiceClient) error {
		s, err := c.FullDuplexCall(ctx)
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	f("well", "calls:9000", empty, codes.OK, "")
	f("no endpoint", "empty:9000", empty, codes.Unavailable, "no healthy upstream")
	f("no endpoint, a stream", "empty:9000", stream, codes.Unavailable, "no healthy upstream")
	f("no connection", "gone:9000", empty, codes.Unavailable, "upstream connect error")
	f("no rule", "calls:9000", stream, codes.Unimplemented, "")
	f("answered by the route", "calls:9000", unary, codes.PermissionDenied, "not for you: 100 % ü")
	f("unknown host", "nobody.example:9000", empty, codes.Unavailable, "REGISTRY_ONLY")
	f("unknown port", "calls:1234", empty, codes.Unavailable, "9000")
	m.scraped()
	for expression, want := range map[string]float64{
		`istio_requests_total{reporter="source",destination_service_name="empty",request_protocol="grpc",grpc_response_status="14",response_flags="UH"}`: 2,
		`istio_requests_total{reporter="source",destination_service_name="calls",request_protocol="grpc",grpc_response_status="7"}`:                      1, // the proxy's own answers
		`istio_requests_total{reporter="source",destination_service_name="calls",request_protocol="grpc",grpc_response_status="12"}`:                     1,
	} {
		m.counted(want, expression)
	}
}

// TestGRPCWeb: what is not gRPC itself passes as the HTTP that it is, and is counted as that.
func TestGRPCWeb(t *testing.T) {
	t.Parallel()
	app := listen(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = w.Write(append(body, "\x80\x00\x00\x00\x0fgrpc-status:0\r\n"...))
	})
	m := up(t, balanced(1, "{simple: RANDOM}"), prometheus, apps(app))
	for _, kind := range []string{"application/grpc-web+proto", "application/grpc-web-text", "application/grpc-web"} {
		res, err := m.http.Post("http://web/pkg.Service/Method", kind, strings.NewReader("\x00\x00\x00\x00\x02ab"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if got := res.Header.Get("Content-Type"); err != nil || got != kind || string(body) != "\x00\x00\x00\x00\x02ab\x80\x00\x00\x00\x0fgrpc-status:0\r\n" {
			t.Errorf("%s: %q of type %q, %v", kind, body, got, err)
		}
	}
	m.scraped()
	m.counted(3, `istio_requests_total{reporter="source",destination_service_name="web",request_protocol="http",grpc_response_status=""}`)
}

// TestGRPCReloads changes routes while calls and streams run: no call fails and no stream breaks.
func TestGRPCReloads(t *testing.T) {
	t.Parallel()
	reloads, calls := 10, int64(3000)
	if long {
		reloads, calls = 60, 60_000
	}
	text, apps := grpcMesh(startInterop(t, "v1"), startInterop(t, "v2"))
	l := newLoad(t)
	m := up(t, text, apps)
	weights := func(v1, v2 int) string {
		return virtualCalls(fmt.Sprintf("  - route:\n    - {destination: {host: calls, subset: v1}, weight: %d}\n    - {destination: {host: calls, subset: v2}, weight: %d}\n", v1, v2))
	}
	m.edit("route.yaml", weights(50, 50))
	var sent, exchanged atomic.Int64
	clients := make([]testpb.TestServiceClient, 4)
	for i := range clients {
		clients[i] = m.calls("calls:9000")
	}
	l.Go(func() {
		m.crowd(t, 16, func(i int) error {
			if i >= 12 {
				return pingPong(t.Context(), clients[i%4], &exchanged, l.over)
			}
			for {
				select {
				case <-l.over:
					return nil
				default:
				}
				if _, err := clients[i%4].EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
					return err
				}
				sent.Add(1)
			}
		})
	})
	for i := range reloads {
		target, turns := calls*int64(i+1)/int64(reloads), exchanged.Load()
		m.await("calls and streams go on", func() bool { return sent.Load() >= target && exchanged.Load() >= turns+4 })
		m.edit("route.yaml", weights(10+i, 90-i))
	}
	l.end()
	t.Logf("%d calls, %d turns of 4 streams, %d reloads", sent.Load(), exchanged.Load(), reloads)
}

// pingPong holds one stream on which each message is answered, until it is told to stop.
func pingPong(ctx context.Context, c testpb.TestServiceClient, turns *atomic.Int64, stop <-chan struct{}) error {
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: int32(n % 5000)}}}); err != nil {
			return err
		}
		got, err := s.Recv()
		if err != nil || len(got.GetPayload().GetBody()) != n%5000 {
			return fmt.Errorf("turn %d: %d bytes, %w", n, len(got.GetPayload().GetBody()), err)
		}
		turns.Add(1)
		select {
		case <-stop:
			if err := s.CloseSend(); err != nil {
				return err
			}
			if _, err := s.Recv(); !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		case <-time.After(time.Millisecond): // a pace that leaves the machine to others
		}
	}
}
