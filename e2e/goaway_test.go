package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/outrider-mesh/outrider/local"
)

// TestGoaway lets an HTTP/2 application end its connections all the time, as servers do that limit a connection's age: no
// request is lost, whatever its method, as those past GOAWAY's last stream were not processed.
func TestGoaway(t *testing.T) {
	t.Parallel()
	calls := int64(2000)
	if long {
		calls = 40_000
	}
	var served atomic.Int64
	app := func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1)%20 == 0 {
			w.Header().Set("Connection", "close") // net/http says GOAWAY
		}
		n, err := io.Copy(w, r.Body)
		if err != nil {
			t.Logf("the application reads %d bytes, %v", n, err)
		}
	}
	at := listenVersions(t, app)
	for _, w := range []way{{1, "http2", 2}, {2, "http2", 2}} {
		for _, sidecar := range []string{"true", "false"} {
			t.Run(fmt.Sprintf("%v, sidecar %s", w, sidecar), func(t *testing.T) {
				served.Store(0)
				m := up(t, strings.Replace(service("web", "app: web"), "{name: http,", "{name: http2,", 1)+workload("web", "v1", 1, "sidecar.istio.io/inject", sidecar), apps(at))
				c := m.speaking(w.client, m.ready.Proxy)
				var sent atomic.Int64
				m.crowd(t, 16, func(i int) error {
					for sent.Add(1) <= calls {
						body := strings.Repeat("x", i*1000)
						res, err := c.Post("http://web/", "text/plain", strings.NewReader(body))
						if err != nil {
							return err
						}
						got, err := io.ReadAll(res.Body)
						_ = res.Body.Close()
						if err != nil || res.StatusCode != 200 || string(got) != body {
							return fmt.Errorf("%d %s with %d bytes of %d: %w", res.StatusCode, res.Header.Get("x-outrider-reason"), len(got), len(body), err)
						}
					}
					return nil
				})
				if n := served.Load(); n != calls {
					t.Errorf("the application served %d requests, want each of %d once", n, calls)
				}
			})
		}
	}
}

// TestGRPCServerRestarts restarts one of two gRPC servers again and again, in good order: no call is lost.
func TestGRPCServerRestarts(t *testing.T) {
	t.Parallel()
	restarts := 4
	if long {
		restarts = 30
	}
	at := free(t, 2)
	begin := func(i int) (stop func()) {
		l, err := net.Listen("tcp", at[i])
		if err != nil {
			t.Fatal(err)
		}
		s := newInterop(fmt.Sprint(i))
		done := make(chan struct{})
		go func() { // ends with GracefulStop
			_ = s.Serve(l)
			close(done)
		}()
		return func() {
			s.GracefulStop()
			<-done
		}
	}
	stops := []func(){begin(0), begin(1)}
	// Without sidecars of their own: what cannot connect is sent to the other.
	text := grpcService("calls", "app: calls") + workload("calls", "v1", 2, "sidecar.istio.io/inject", "false")
	l := newLoad(t)
	m := up(t, text, func(o *local.Options) {
		o.Apps = []local.App{{Namespace: "default", Workload: "calls-v1", Port: 8080, Addresses: at}}
	})
	var sent atomic.Int64
	client := m.calls("calls:9000")
	l.Go(func() {
		m.crowd(t, 8, func(int) error {
			for {
				select {
				case <-l.over:
					return nil
				default:
				}
				if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
					return err
				}
				sent.Add(1)
			}
		})
	})
	for n := range restarts {
		before := sent.Load()
		m.await("calls go on", func() bool { return sent.Load() >= before+200 })
		stops[n%2]()
		before = sent.Load()
		m.await("calls go on without one server", func() bool { return sent.Load() >= before+100 })
		stops[n%2] = begin(n % 2)
	}
	l.end()
	stops[0]()
	stops[1]()
	t.Logf("%d calls, %d restarts", sent.Load(), restarts)
}

// TestGRPCInstancesComeAndGo scales a service up and down under load: sidecars that end let their calls end first.
func TestGRPCInstancesComeAndGo(t *testing.T) {
	t.Parallel()
	turns := 4
	if long {
		turns = 20
	}
	instances := func(n int) string { return grpcService("calls", "app: calls") + workload("calls", "v1", n) }
	l := newLoad(t)
	m := up(t, instances(3), func(o *local.Options) {
		o.StandIns = false
		o.Apps = []local.App{{Namespace: "default", Workload: "calls-v1", Port: 8080, Addresses: []string{startInterop(t, "0"), startInterop(t, "1"), startInterop(t, "2")}}}
	})
	var sent atomic.Int64
	client := m.calls("calls:9000")
	l.Go(func() {
		m.crowd(t, 8, func(int) error {
			for {
				select {
				case <-l.over:
					return nil
				default:
				}
				// Short streams, so that sidecars end while some are under way.
				s, err := client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 10}, {Size: 20_000, IntervalUs: 3000}}})
				for n := 0; err == nil; n++ {
					if _, err = s.Recv(); errors.Is(err, io.EOF) && n != 2 {
						return fmt.Errorf("a stream ends well after %d messages", n)
					}
				}
				if !errors.Is(err, io.EOF) {
					return err
				}
				sent.Add(1)
			}
		})
	})
	for n := range turns {
		before := sent.Load()
		m.await("calls go on", func() bool { return sent.Load() >= before+200 })
		m.edit("mesh.yaml", instances(1+n%3))
	}
	l.end()
	t.Logf("%d calls, %d edits", sent.Load(), turns)
}

// loneProxy is an outrider-proxy in a process of its own, the local client's in a mesh of one service.
func loneProxy(t *testing.T, objects, app string) (address string, cmd *exec.Cmd, said *transcript) {
	t.Helper()
	dir := t.TempDir()
	file, snapshot, ready := filepath.Join(dir, "mesh.yaml"), filepath.Join(dir, "s.json"), filepath.Join(dir, "ready.json")
	if err := os.WriteFile(file, []byte(objects), 0o666); err != nil {
		t.Fatal(err)
	}
	address = free(t, 1)[0]
	compile := exec.Command(built(t, "outrider"), "compile", "-f", file, "--workload", "default/local", "--app", app, "--proxy", address)
	out, err := compile.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(snapshot, out, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd, said = exec.Command(built(t, "outrider-proxy"), "run", "--snapshot", snapshot, "--admin", "127.0.0.1:0", "--ready-file", ready), &transcript{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // for when the test fails: it ends by itself
		_, _ = cmd.Process.Wait()
	})
	(&mesh{t: t}).await("the proxy is ready", func() bool {
		b, err := os.ReadFile(ready)
		return err == nil && json.Valid(b)
	})
	return address, cmd, said
}

// TestSIGTERMUnderCalls ends a sidecar with calls and streams under way: each ends as it would have, and the process well.
func TestSIGTERMUnderCalls(t *testing.T) {
	t.Parallel()
	app := startInterop(t, "v1")
	address, cmd, said := loneProxy(t, grpcService("calls", "app: calls")+workload("calls", "v1", 1, "sidecar.istio.io/inject", "false"), "calls-v1="+app)
	const streams = 30
	begun := make(chan struct{}, streams)
	term := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		c := testpb.NewTestServiceClient(dialGRPC(t, address, "calls:9000"))
		for i := range streams / 3 {
			wg.Go(func() {
				if err := overTheEnd(t.Context(), c, i, func() { begun <- struct{}{} }, term); err != nil {
					t.Errorf("stream %d: %v", i, err)
				}
			})
		}
	}
	for range streams {
		select {
		case <-begun:
		case <-time.After(time.Minute):
			t.Fatalf("not every stream begins: %s", said)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// It drains once it takes no new connection.
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		_ = c.Close()
		if time.Now().After(end) {
			t.Fatalf("it takes connections still: %s", said)
		}
	}
	close(term)
	wg.Wait()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the sidecar does not end well: %v\n%s", err, said)
	}
}

// overTheEnd exchanges messages on a stream before and after the sidecar was told to end.
func overTheEnd(ctx context.Context, c testpb.TestServiceClient, i int, begun func(), term <-chan struct{}) error {
	s, err := c.FullDuplexCall(ctx, grpc.WaitForReady(false))
	if err != nil {
		begun()
		return err
	}
	turn := func() error {
		if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: int32(1000 * i)}}}); err != nil {
			return err
		}
		got, err := s.Recv()
		if err == nil && len(got.GetPayload().GetBody()) != 1000*i {
			err = fmt.Errorf("a message of %d bytes", len(got.GetPayload().GetBody()))
		}
		return err
	}
	err = turn()
	begun()
	<-term
	for range 5 {
		if err == nil {
			err = turn()
		}
	}
	if err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("instead of the end: %w", err)
	}
	return nil
}
