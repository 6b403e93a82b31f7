package probe

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// expect asks, and compares what is wrong: "" is nothing, else a part of the error.
func expect(t *testing.T, what string, p *model.Probe, want string) {
	t.Helper()
	if p.Timeout == 0 {
		p.Timeout = model.Duration(10 * time.Second)
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.Timeout.Std())
	defer cancel()
	switch err := ask(ctx, p); {
	case err == nil && want != "":
		t.Errorf("%s: a good answer, want %q", what, want)
	case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestHTTP(t *testing.T) {
	release := make(chan struct{})
	away := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect that leads away was followed") }))
	defer away.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{status}", func(w http.ResponseWriter, r *http.Request) {
		status := map[string]int{"200": 200, "204": 204, "304": 304, "399": 399, "400": 400, "503": 503}
		w.WriteHeader(status[r.PathValue("status")])
	})
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/status/503", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, away.URL, http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { <-release })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("short"))
	})
	mux.HandleFunc("/told", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "vm.example.com" || r.Header.Get("User-Agent") != "mine" || strings.Join(r.Header["X-Two"], " ") != "a b" || r.URL.RawQuery != "full=1" || r.Method != http.MethodGet {
			t.Errorf("%s %s host %s: %v", r.Method, r.URL, r.Host, r.Header)
		}
	})
	mux.HandleFunc("/plain", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "localhost:8080" || r.Header.Get("User-Agent") != userAgent {
			t.Errorf("host %s: %v", r.Host, r.Header)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(release)
	get := func(path string, headers ...model.NameValue) *model.Probe {
		return &model.Probe{Address: strings.TrimPrefix(server.URL, "http://"), HTTP: &model.HTTPProbe{Host: "localhost:8080", Path: path, Headers: headers}}
	}
	for _, status := range []string{"200", "204", "304", "399"} {
		expect(t, status, get("/status/"+status), "")
	}
	expect(t, "400", get("/status/400"), "status 400")
	expect(t, "503", get("/status/503"), "GET http://"+strings.TrimPrefix(server.URL, "http://")+"/status/503: status 503")
	expect(t, "a redirect within the host", get("/here"), "status 503")
	expect(t, "a redirect that leads away", get("/away"), "")
	expect(t, "redirects without end", get("/loop"), "redirects more than 10 times")
	expect(t, "an answer that breaks off", get("/broken"), "")
	expect(t, "headers", get("/told?full=1", model.NameValue{Name: "host", Value: "vm.example.com"}, model.NameValue{Name: "User-Agent", Value: "mine"},
		model.NameValue{Name: "X-Two", Value: "a"}, model.NameValue{Name: "X-Two", Value: "b"}), "")
	expect(t, "no headers", get("/plain"), "")
	slow := get("/slow")
	slow.Timeout = model.Duration(50 * time.Millisecond)
	expect(t, "no answer", slow, "no answer within 50ms")
	expect(t, "nobody", &model.Probe{Address: nobody(t), HTTP: &model.HTTPProbe{Host: "localhost", Path: "/"}}, "refused")
	expect(t, "TLS to a plain port", &model.Probe{Address: get("").Address, HTTP: &model.HTTPProbe{TLS: true, Host: "localhost", Path: "/"}}, "HTTP response to HTTPS client")
}

func TestHTTPS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			t.Error("no TLS")
		}
	}))
	defer server.Close()
	expect(t, "a certificate of nobody", &model.Probe{
		Address: strings.TrimPrefix(server.URL, "https://"), HTTP: &model.HTTPProbe{TLS: true, Host: "localhost:443", Path: "/"},
	}, "")
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expect(t, "a listener", &model.Probe{Address: l.Addr().String()}, "")
	expect(t, "nobody", &model.Probe{Address: nobody(t)}, "refused")
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	checks := health.NewServer()
	checks.SetServingStatus("up", grpc_health_v1.HealthCheckResponse_SERVING)
	checks.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, checks)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // waited for below
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	about := func(service string) *model.Probe {
		return &model.Probe{Address: l.Addr().String(), GRPC: &model.GRPCProbe{Service: service}}
	}
	expect(t, "the server", about(""), "")
	expect(t, "a service", about("up"), "")
	expect(t, "a service that is down", about("down"), "it says NOT_SERVING")
	expect(t, "an unknown service", about("none"), "gRPC status 5: unknown service")
	checks.Shutdown()
	expect(t, "a server that ends", about(""), "NOT_SERVING")

	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	without := grpc.NewServer()
	go func() { served <- without.Serve(bare) }() // waited for below
	expect(t, "a server without health", &model.Probe{Address: bare.Addr().String(), GRPC: &model.GRPCProbe{}}, "gRPC status 12")
	without.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	expect(t, "nobody", &model.Probe{Address: nobody(t), GRPC: &model.GRPCProbe{}}, "refused")
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	expect(t, "a server of HTTP/1.1", &model.Probe{Address: strings.TrimPrefix(web.URL, "http://"), GRPC: &model.GRPCProbe{}}, "gRPC health of ")
}

func TestServingTakesOnlyAnswers(t *testing.T) {
	f := func(frame, want string) {
		t.Helper()
		err := serving([]byte(frame))
		if got := ""; err != nil {
			if got = err.Error(); got != want {
				t.Errorf("%q: %s, want %q", frame, got, want)
			}
		} else if want != "" {
			t.Errorf("%q: taken, want %q", frame, want)
		}
	}
	f("\x00\x00\x00\x00\x02\x08\x01", "")
	f("\x00\x00\x00\x00\x05\x12\x01a\x08\x01", "") // a field that is not known
	f("\x00\x00\x00\x00\x00", "it says UNKNOWN")
	f("\x00\x00\x00\x00\x02\x08\x02", "it says NOT_SERVING")
	f("\x00\x00\x00\x00\x02\x08\x07", "it says 7")
	f("", "the answer is no message of gRPC")
	f("\x01\x00\x00\x00\x02\x08\x01", "the answer is no message of gRPC")
	f("\x00\x00\x00\x00\x03\x08\x01", "the answer is no message of gRPC")
	f("\x00\x00\x00\x00\x01\x08", "the answer is no HealthCheckResponse")
	f("\x00\x00\x00\x00\x01\xff", "the answer is no HealthCheckResponse")
}
