package local

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestDrainLetsExchangesEnd(t *testing.T) {
	arrived, release := make(chan bool), make(chan bool)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- true
		<-release
		_, _ = io.WriteString(w, `{"instance":"slow"}`)
	}))
	defer app.Close()
	mapping, err := ParseApp("web-v1="+strings.TrimPrefix(app.URL, "http://"), "default")
	if err != nil {
		t.Fatal(err)
	}
	f := run(t, Options{Apps: []App{mapping}, NoPrometheus: true}, map[string]string{"mesh.yaml": documents(webService, deployment("v1", 1, ""))})
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, e, reason := f.get("http://web/"); status != 200 || e.Instance != "slow" {
			t.Errorf("an exchange under way was cut off: %d %s %+v", status, reason, e)
		}
	})
	<-arrived
	ended := make(chan bool)
	go func() {
		f.end()
		close(ended)
	}()
	f.until("new connections are refused", func() bool {
		conn, err := net.Dial("tcp", f.Ready().Proxy)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case <-ended:
		t.Error("the mesh ended before the exchange did")
	default:
	}
	close(release)
	wg.Wait()
	<-ended
}

func TestDrainLetsRequestsGoOnInside(t *testing.T) {
	arrived, release := make(chan bool), make(chan bool)
	var outbound atomic.Pointer[string]
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- true
		<-release // until the mesh drains: only then the application calls on
		c := via(*outbound.Load())
		defer c.CloseIdleConnections()
		resp, err := c.Get("http://web/inner")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	defer front.Close()
	mapping, err := ParseApp("front-v1="+strings.TrimPrefix(front.URL, "http://"), "default")
	if err != nil {
		t.Fatal(err)
	}
	frontText := strings.ReplaceAll(documents(webService, deployment("v1", 1, "")), "web", "front")
	f := run(t, Options{Apps: []App{mapping}, StandIns: true, NoPrometheus: true}, map[string]string{"mesh.yaml": documents(webService, deployment("v1", 1, ""), frontText)})
	outbound.Store(&f.Ready().Workloads[0].Outbound)
	if f.Ready().Workloads[0].Name != "front-v1" {
		t.Fatalf("%+v", f.Ready().Workloads[0])
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, e, reason := f.get("http://front/"); status != 200 || e.Path != "/inner" {
			t.Errorf("a request inside the mesh was refused: %d %s %+v", status, reason, e)
		}
	})
	<-arrived
	wg.Go(f.end)
	f.until("no more requests enter", func() bool {
		conn, err := net.Dial("tcp", f.Ready().Proxy)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(release)
	wg.Wait()
}
