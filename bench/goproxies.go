//go:build linux

package main

import (
	"errors"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/bench/load"
)

// roles are what this program does instead of measuring when its first argument names one: the proxies written in Go
// that it measures run as processes of their own. The arguments that follow are the address to listen at and the
// backends, separated by commas.
var roles = map[string]func(args []string) error{
	"bare-go":       bareGo,
	"reverse-proxy": reverseProxy,
}

func listenRole(args []string) (net.Listener, []string, error) {
	if len(args) != 2 {
		return nil, nil, errors.New("want the address to listen at and the backends")
	}
	ln, err := net.Listen("tcp4", args[0])
	return ln, strings.Split(args[1], ","), err
}

func bareGo(args []string) error {
	ln, backends, err := listenRole(args)
	if err != nil {
		return err
	}
	return load.Forward(ln, backends)
}

// reverseProxy is httputil.ReverseProxy as its documentation would have it for speed: pooled buffers, a transport that
// keeps enough idle connections and does not ask for compression.
func reverseProxy(args []string) error {
	ln, backends, err := listenRole(args)
	if err != nil {
		return err
	}
	var next atomic.Uint64
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			r.Out.URL.Host = backends[next.Add(1)%uint64(len(backends))]
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			MaxIdleConns: 4096, MaxIdleConnsPerHost: 1024, IdleConnTimeout: time.Hour, DisableCompression: true,
		},
		BufferPool: &buffers{},
		ErrorLog:   log.Default(),
	}
	return (&http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Hour}).Serve(ln)
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
