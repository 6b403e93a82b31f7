package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// An answer of gRPC that has begun and cannot go on ends with a status and a message, not with a reset, which clients take
// for INTERNAL.
func TestGRPCEndsWithinAnswers(t *testing.T) {
	const first = "\x00\x00\x00\x00\x02hi"
	begin := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, first)
		w.(http.Flusher).Flush()
	}
	f := func(name, wants string, timeout time.Duration, stop func(*http.Request), status, why, flags string) {
		t.Run(name, func(t *testing.T) {
			versions(t, func(_ *model.Snapshot, r *model.Rule) { r.Route.Timeout = model.Duration(timeout) }, func(w http.ResponseWriter, r *http.Request) {
				begin(w)
				stop(r)
			}, func(t *testing.T, c *http.Client, p *Proxy, client, app int) {
				if client != 2 {
					t.Skip("gRPC is spoken over HTTP/2")
				}
				r := request("POST", "http://app/a.B/C", strings.NewReader(first))
				r.Header.Set("Content-Type", "application/grpc")
				if wants != "" {
					r.Header.Set("Grpc-Timeout", wants)
				}
				res, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if err != nil || string(body) != first || res.Trailer.Get("Grpc-Status") != status || res.Trailer.Get("Grpc-Message") != why {
					t.Errorf("got %q, %v, %v", body, err, res.Trailer)
				}
				flags := flags
				if flags == "UPE" && app == 2 {
					flags = "UR" // the stream ends, its connection stays
				}
				eventually(t, "the record", func() bool {
					got := requestsTotal(t, p.metrics.Gatherer(), "grpc_response_status", "response_flags")
					return len(got) == 1 && got[status+"|"+flags] == 1
				})
			})
		})
	}
	wait := func(r *http.Request) { <-r.Context().Done() }
	f("the client's deadline", "200m", 0, wait, "4", "the deadline that the client set has passed", "UT")
	f("the route's timeout", "", 200*time.Millisecond, wait, "14", "upstream request timeout", "UT")
	f("the server", "", 0, func(*http.Request) { panic(http.ErrAbortHandler) }, "14", "upstream connect error or disconnect/reset within the response", "UPE")
}
