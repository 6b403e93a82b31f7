//go:build linux

package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/bench/load"
)

// roles are what this program does instead of measuring when its first argument names one: the proxies written in Go
// that it measures run as processes of their own. The arguments that follow are the lane, the address to listen at, the
// backends, separated by commas, and the files of the certificate and its key.
var roles = map[string]func(args []string) error{
	"bare-go":       bareGo,
	"reverse-proxy": reverseProxy,
}

func findSelf(*bench) (string, string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", fmt.Errorf("cannot find this program's file: %w", err)
	}
	return self, runtime.Version(), nil
}

func selfCommand(role string) func(*bench, *entrant, string, string) ([]string, error) {
	return func(b *bench, e *entrant, listen, _ string) ([]string, error) {
		return []string{role, e.lane.name, listen, strings.Join(b.backendAddresses(e.lane), ","), b.identity.Cert, b.identity.Key}, nil
	}
}

// role is what a proxy of this program is told.
type role struct {
	lane      *lane
	listener  net.Listener
	backends  []string
	cert, key string
}

func newRole(args []string) (*role, error) {
	if len(args) != 5 {
		return nil, errors.New("want the lane, the address to listen at, the backends, and the files of a certificate and its key")
	}
	lanes := allLanes()
	at := slices.IndexFunc(lanes, func(l *lane) bool { return l.name == args[0] })
	if at < 0 {
		return nil, fmt.Errorf("there is no lane %q", args[0])
	}
	ln, err := net.Listen("tcp4", args[1])
	return &role{lane: lanes[at], listener: ln, backends: strings.Split(args[2], ","), cert: args[3], key: args[4]}, err
}

func bareGo(args []string) error {
	r, err := newRole(args)
	if err != nil {
		return err
	}
	if r.lane.TCP() {
		return load.Splice(r.listener, r.backends)
	}
	return load.Forward(r.listener, r.backends)
}

// reverseProxy is httputil.ReverseProxy as its documentation would have it for speed: pooled buffers, a transport that
// keeps enough idle connections and does not ask for compression.
func reverseProxy(args []string) error {
	r, err := newRole(args)
	if err != nil {
		return err
	}
	var next atomic.Uint64
	p := &httputil.ReverseProxy{
		Rewrite: func(q *httputil.ProxyRequest) {
			q.Out.URL.Scheme = "http"
			q.Out.URL.Host = r.backends[next.Add(1)%uint64(len(r.backends))]
			q.Out.Host = q.In.Host
		},
		Transport: &http.Transport{
			MaxIdleConns: 4096, MaxIdleConnsPerHost: 1024, IdleConnTimeout: time.Hour, DisableCompression: true,
			Protocols: clearText(r.lane.SendsHTTP2()),
		},
		BufferPool: &buffers{},
		ErrorLog:   log.Default(),
	}
	s := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Hour, Protocols: clearText(r.lane.TakesHTTP2())}
	if r.lane.TLS() {
		return s.ServeTLS(r.listener, r.cert, r.key)
	}
	return s.Serve(r.listener)
}

// clearText allows one protocol without TLS.
func clearText(http2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	return p
}

// buffers is the pool of copy buffers of a reverse proxy.
type buffers struct{ pool sync.Pool }

// Get returns a buffer of 32 KiB.
func (b *buffers) Get() []byte {
	if v, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return v[:]
	}
	return make([]byte, 32<<10)
}

// Put takes a buffer back.
func (b *buffers) Put(v []byte) { b.pool.Put((*[32 << 10]byte)(v)) }
